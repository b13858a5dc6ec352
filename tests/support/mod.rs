//! What integration tests share: a scripted [`Origin`] that plays upstream.
//!
//! ```ignore
//! pub mod support;
//! let origin = Origin::start().await;
//! let blob = origin.blob("library/app", 1 << 20);
//! origin.on(&blob.path).cut_after(1000).once();
//! // … pull it through whatever is under test …
//! assert_eq!(origin.count("GET", &blob.path), 2);
//! ```
//!
//! Nothing here sleeps to wait for something: a [`Gate`] holds an answer until the test opens it,
//! and [`Origin::seen_at_least`] waits until a request has arrived.
#![allow(dead_code, unused_imports, reason = "each test crate uses its own part of this module")]

pub mod http2;
mod origin;
mod protection;
mod repoxy;
mod script;
mod wire;

use std::time::{Duration, Instant};

use sha2::Digest as _;

pub use origin::{Blob, Manifest, Origin, Seen};
pub use protection::Protection;
pub use repoxy::{Got, Repoxy, proxy};
pub use script::{Gate, Script};

/// How long a condition may take to come true; generous, for a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// `sha512:` and the hex digits of the sha512 of these bytes.
pub fn sha512(bytes: &[u8]) -> String {
    let digest = sha2::Sha512::digest(bytes);
    std::iter::once("sha512:".to_owned()).chain(digest.iter().map(|byte| format!("{byte:02x}"))).collect()
}

/// Waits until a condition holds.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
