//! The fault suite: every row of the fault matrix as a test against the real binary, named for its
//! row. `docs/reliability.md` is the table of rows, tests and results, and is made by [`matrix`].
//!
//! What takes more than a few seconds is `#[ignore]`d with the reason `long`, and run by
//! `tests/run --all-faults`; what runs strace with the reason `needs strace`, and run by `tests/run`.

#[path = "../support/mod.rs"]
pub mod support;

mod calls;
mod clients;
mod damage;
mod disk;
mod gc;
mod index;
mod matrix;
mod outage;
mod power;
mod reasons;
mod room;
mod scale;
mod security;
mod semantics;
mod slow;
mod stored;
mod transfer;
mod trust;
mod types;
