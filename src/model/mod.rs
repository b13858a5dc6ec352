//! Values that are valid if they exist: digests, names, keys, refs, resources, time.
//!
//! Nothing here does I/O, is async, or knows a protocol. Everything that arrives from outside (a
//! path, a header, a file, a document) becomes one of these types by parsing, or an error.

mod causes;
mod clock;
mod digest;
pub mod http_cache;
mod http_rules;
mod key;
mod name;
mod reference;
mod resource;
mod rules;
mod share;
mod turn;

pub use causes::Causes;
pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use digest::{Algorithm, Checksum, Digest, DigestError, Hashed, Hasher};
pub use http_rules::{HttpRules, PathRule, Pattern, PatternError, Treatment};
pub use key::{Area, PathError, RefKey, RefPath};
pub use name::{ArtifactType, NameError, ProxyFacts, ProxyId, ProxyName, ProxyTable};
pub use reference::{Http, Ref, RefError};
pub use resource::{Asked, Delivery, Freshness, Heed, Leave, MediaType, Resource, Source};
pub use rules::{CATALOGUE_MAX_LEN, Claim, DOCUMENT_MAX_LEN, Descriptor, RefRules};
pub use share::Share;
pub use turn::give_way;
