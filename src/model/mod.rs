//! Values that are valid if they exist: digests, names, keys, refs, resources, time.
//!
//! Nothing here does I/O, is async, or knows a protocol. Everything that arrives from outside (a
//! path, a header, a file, a document) becomes one of these types by parsing, or an error.

mod clock;
mod digest;
mod key;
mod name;
mod reference;
mod resource;
mod rules;

pub use clock::{Clock, ManualClock, SystemClock, Timestamp};
pub use digest::{Algorithm, Checksum, Digest, DigestError, Hashed, Hasher};
pub use key::{Area, PathError, RefKey, RefPath};
pub use name::{ArtifactType, NameError, ProxyFacts, ProxyId, ProxyName, ProxyTable};
pub use reference::{Ref, RefError};
pub use resource::{Delivery, Freshness, MediaType, Resource, Source};
pub use rules::{Claim, Descriptor, RefRules};
