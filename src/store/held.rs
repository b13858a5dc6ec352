//! How much all blobs in the making hold in memory together: taken, but not yet written and hashed.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The most bytes that all stagings together hold before they take no more: a few are written at a time,
/// however many there are. Each may pass it by a piece.
const HOLD_BYTES_OF_ALL: usize = 4 << 20;

/// What all stagings hold.
pub(super) static HELD: Held = Held { bytes: AtomicUsize::new(0), less: Notify::const_new() };

/// A count of bytes, and who waits for it to become less.
#[derive(Debug)]
pub(super) struct Held {
    bytes: AtomicUsize,
    less: Notify,
}

impl Held {
    pub(super) fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.less.notify_one();
    }

    /// Waits until less is held than may be; in turn, as long as others wait as well.
    pub(super) async fn room(&self) {
        loop {
            let less = self.less.notified();
            if self.bytes.load(Ordering::Relaxed) < HOLD_BYTES_OF_ALL {
                break;
            }
            less.await;
        }
        // There may be room for more than one, and whoever is told uses the telling up.
        self.less.notify_one();
    }
}
