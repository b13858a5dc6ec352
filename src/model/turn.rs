//! Giving way: long work that nobody waits for lets others have the processor between two of its steps.
//!
//! A kernel that does not interrupt itself takes the processor from a busy thread only at its next tick, up to 4 ms
//! later, unless who has become ready asks for short turns. Our workers do; clients on the same machine, and whatever
//! else is there, do not (`docs/decisions/workers.md`).

use std::cell::Cell;
use std::thread;
use std::time::{Duration, Instant};

/// How long a thread works before others may go first. To give way more often takes more time than it saves others.
const TURN: Duration = Duration::from_micros(100);

thread_local! {
    /// When the calling thread gave way last.
    static GAVE_WAY: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets threads that are ready go first, if the calling one has had its turn of 100 µs.
///
/// Upkeep calls it between any two steps, each of some ten microseconds, or what a page or a file takes. Mostly it
/// costs no more than asking for the time.
pub fn give_way() {
    if GAVE_WAY.get().is_some_and(|last| last.elapsed() < TURN) {
        return;
    }
    thread::yield_now();
    GAVE_WAY.set(Some(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_at_first_and_then_once_a_turn() {
        let gave_way = || GAVE_WAY.get().expect("it did");
        give_way();
        let first = gave_way();
        // Of many calls in a row a few may come a turn later, if others have the processor; never all.
        let mut moved = 0;
        for _ in 0..1000 {
            let before = gave_way();
            give_way();
            moved += usize::from(gave_way() != before);
        }
        assert!(moved < 1000);
        thread::sleep(2 * TURN);
        let before = gave_way();
        give_way();
        assert!(gave_way() > before && before >= first);
        assert_eq!(thread::spawn(|| GAVE_WAY.get()).join().expect("no panic"), None, "each has its own");
    }
}
