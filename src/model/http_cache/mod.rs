//! HTTP's own caching rules (RFC 9111, RFC 5861, RFC 8246), for a shared cache. Pure: headers and
//! moments in, decisions out. Knows no store, no upstream and no proxy.
//!
//! Where the specification leaves a choice, or a message breaks it, the answer here is the one that
//! asks upstream once more rather than the one that serves something old.
//!
//! * `directives`: `Cache-Control`, of requests and of responses.
//! * `freshness`: how old an answer is and for how long it is fresh (section 4.2).
//! * `storing`: what may be stored, and which fields of it (section 3).
//! * `reuse`: whether what is stored may be used (section 4), stale too.
//! * `vary`: which stored answer a request selects (section 4.1).

mod directives;
mod freshness;
mod reuse;
mod storing;
mod vary;

pub use directives::{RequestDirectives, ResponseDirectives};
pub use freshness::{Moment, initial_age, lifetime};
pub use reuse::{Excuse, Reuse, asks_again, may_excuse, reuse};
pub use storing::{end_to_end, freshen, is_hop_by_hop, may_store};
pub use vary::{Selection, is_variant_of, selection, variant_path};

/// What stands for more seconds than anybody waits (RFC 9111, section 1.2.2).
pub const MAX_SECONDS: u64 = 1 << 31;
