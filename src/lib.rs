//! repoxy: a pull-through cache that keeps everything it fetches as plain files.
//!
//! The library is cut so that each module knows one thing; `docs/architecture.md` draws the arrows
//! and `.ci/arrows` checks them:
//!
//! * [`model`]: values that are valid if they exist. No I/O.
//! * [`protocol`]: one dialect a file, pure functions from requests to what is to be fetched.
//! * [`store`]: the files, which are the truth.
//! * [`index`]: SQLite beside the files, rebuildable at any time.
//! * [`upstream`]: HTTP outwards.
//! * [`cache`]: the engine, the only place where store, index and upstream meet.
//! * [`maintain`]: gc, fsck, reindex.
//! * [`server`]: HTTP inwards.
//! * [`config`]: what the operator wrote, checked.

pub mod cache;
pub mod config;
pub mod index;
pub mod maintain;
pub mod model;
pub mod protocol;
pub mod server;
pub mod store;
pub mod upstream;
