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

/// Who is kept waiting for longer has given way to somebody that never rests: threads beside it that do the same work
/// have the processor for a few milliseconds at most.
const RESTLESS: Duration = Duration::from_millis(8);

/// How many times as long as it was kept waiting such a thread then goes on, as the kernel lets it.
const RESPITE: u32 = 16;

thread_local! {
    /// When the calling thread's turn is over; without one, now.
    static TURN_ENDS: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Lets threads that are ready go first, if the calling one has had its turn of 100 µs.
///
/// Upkeep calls it between any two steps, each of some ten microseconds, or what a page or a file takes. Mostly it
/// costs no more than asking for the time. Beside others that never rest a thread that gives way all the time would
/// have far less than its share of the processor: kept waiting for longer than 8 ms, it leaves it to the kernel for a
/// while.
pub fn give_way() {
    let now = Instant::now();
    if TURN_ENDS.get().is_some_and(|end| now < end) {
        return;
    }
    thread::yield_now();
    let back = Instant::now();
    TURN_ENDS.set(Some(next_end(now, back)));
}

/// When the turn ends of one who has given way and is back.
fn next_end(gave_way: Instant, back: Instant) -> Instant {
    let waited = back.saturating_duration_since(gave_way);
    back + if waited > RESTLESS { waited * RESPITE } else { TURN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_gives_way_at_first_and_then_once_a_turn() {
        let end = || TURN_ENDS.get().expect("it gave way");
        give_way();
        // Of many calls in a row some may come a turn later, if others have the processor; never all.
        let mut moved = 0;
        for _ in 0..1000 {
            let before = end();
            give_way();
            moved += usize::from(end() != before);
        }
        assert!(moved < 1000);
        let before = end();
        thread::sleep(before.saturating_duration_since(Instant::now()));
        give_way();
        assert!(end() > before);
        assert_eq!(thread::spawn(|| TURN_ENDS.get()).join().expect("no panic"), None, "each has its own");
    }

    #[test]
    fn who_is_kept_waiting_goes_on_for_longer() {
        let now = Instant::now();
        assert_eq!(next_end(now, now), now + TURN);
        let soon = now + 3 * TURN;
        assert_eq!(next_end(now, soon), soon + TURN, "they wanted little");
        let late = now + 2 * RESTLESS;
        assert_eq!(next_end(now, late), late + 2 * RESTLESS * RESPITE);
    }
}
