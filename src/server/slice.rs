//! How long a thread runs before another gets its turn.
//!
//! A thread that has become ready takes the processor from one that runs if it asks for less time than that one
//! (`sched_setattr(2)`: `sched_runtime` of an ordinary thread, since Linux 6.12; older ones take no notice of it). A
//! worker has something to do for some ten microseconds at a time, and keeps to one processor: it would else wait for
//! a thread that hashes there, or for somebody's command, until that has had its milliseconds
//! (`docs/decisions/workers.md`).

use std::io;
use std::time::Duration;

/// What a worker asks for: the least that the kernel gives.
const SHORT: Duration = Duration::from_micros(100);

/// From now on the calling thread gets its turn soon when it is ready, and has it for a short time.
pub(super) fn short() -> io::Result<()> {
    set(SHORT)
}

/// From now on the calling thread gets its turn as others do, whatever it has inherited.
pub(super) fn ordinary() -> io::Result<()> {
    set(Duration::ZERO)
}

/// No time at all is what others have.
fn set(slice: Duration) -> io::Result<()> {
    let mut attributes = attributes()?;
    attributes.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    // SAFETY: the kernel reads as many bytes as the structure says that it has.
    #[expect(unsafe_code, reason = "the system call has no safe form")]
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, CALLER, &raw const attributes, NO_FLAGS) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The thread that calls.
const CALLER: libc::pid_t = 0;
const NO_FLAGS: libc::c_uint = 0;

/// How the calling thread is scheduled.
fn attributes() -> io::Result<libc::sched_attr> {
    let mut attributes = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = size_of_val(&attributes);
    // SAFETY: the kernel writes no more than `size` bytes, and every value of each field is a good one.
    #[expect(unsafe_code, reason = "the system call has no safe form")]
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, CALLER, &raw mut attributes, size, NO_FLAGS) };
    if done == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_asks_for_less_and_may_ask_for_what_others_have_again() {
        let inherited = attributes().expect("told");
        short().expect("set");
        let asked = attributes().expect("told");
        assert_eq!(
            (asked.sched_policy, asked.sched_nice),
            (inherited.sched_policy, inherited.sched_nice),
            "nothing else changes"
        );
        // Before Linux 6.12 what was asked for is not told, because nothing has come of it.
        if inherited.sched_runtime != 0 {
            assert_eq!(Duration::from_nanos(asked.sched_runtime), SHORT);
        }
        let child =
            std::thread::spawn(|| (attributes().expect("told"), ordinary(), attributes().expect("told")));
        let (at_first, done, then) = child.join().expect("no panic");
        done.expect("set");
        assert_eq!(at_first.sched_runtime, asked.sched_runtime, "as its parent, by itself");
        assert_eq!(then.sched_runtime, inherited.sched_runtime);
    }
}
