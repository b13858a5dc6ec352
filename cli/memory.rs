//! How the allocator of glibc deals with large buffers. Other allocators are left as they are.
//!
//! Bodies come in buffers of some hundred KiB. As it is set at first, glibc gives their memory back to
//! the kernel almost every time one is freed, and the next costs page faults and zeroing: an eighth
//! of all CPU time of a cold body (`docs/decisions/cold-path.md`).
//!
//! What many small things leave behind does not go back by itself: each of eight thousand connections takes
//! some 20 KiB, and when they have gone there is always something behind them. So that is asked for now and then.
//!
//! What is in memory of the program's own file counts as well, most of it needed once, to start. Its pages are let go
//! of at the same times; those that are used come back out of the page cache.

use std::time::Duration;

/// How long after the start memory is given back for the first time: what only starting needs is over by then.
const STARTED_AFTER: Duration = Duration::from_millis(500);
/// How often it is given back from then on.
const GIVEN_BACK_EVERY: Duration = Duration::from_secs(60);

/// Buffers up to this size come out of memory that stays; hyper's largest is a little over 400 KiB.
#[cfg(target_env = "gnu")]
const KEPT_UP_TO: i32 = 2 << 20;
/// How much free memory may stay at the end of each of the allocator's arenas.
#[cfg(target_env = "gnu")]
const STAYS_FREE: i32 = 4 << 20;

/// Called before any other thread runs.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "setting the allocator has no safe form")]
pub(crate) fn keep_large_buffers() {
    // SAFETY: takes two numbers and no pointers. What cannot be set stays as it was.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT_UP_TO);
        libc::mallopt(libc::M_TRIM_THRESHOLD, STAYS_FREE);
    }
}

/// Nothing to do.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn keep_large_buffers() {}

/// From now on memory that is free, or that holds nothing but the program, goes back to the kernel once in a while, for
/// as long as the process lives. On a thread of its own, since it takes milliseconds.
pub(crate) fn give_back() {
    let thread = std::thread::Builder::new().name("memory".to_owned());
    let given = thread.spawn(|| {
        std::thread::sleep(STARTED_AFTER);
        loop {
            trim();
            release_program();
            std::thread::sleep(GIVEN_BACK_EVERY);
        }
    });
    if let Err(error) = given {
        tracing::warn!(%error, "memory that is free stays with this process");
    }
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "asking the allocator has no safe form")]
fn trim() {
    // SAFETY: takes a number and no pointer, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(not(target_env = "gnu"))]
const fn trim() {}

/// Lets go of the pages of the program's file that nobody writes: its code and its constants.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "where the program lies, the linker alone knows")]
fn release_program() {
    let Some((start, len)) = program() else { return };
    // SAFETY: the range is mapped from the file, by the loader, and never written: what is let go of is read from
    // there again, with the same content, by whoever touches it next.
    unsafe {
        libc::madvise(start as *mut libc::c_void, len, libc::MADV_DONTNEED);
    }
}

/// Where the pages of the program's file begin that are only read, and how many bytes they are.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "as above")]
fn program() -> Option<(usize, usize)> {
    // By the linkers' convention (`end(3)`): the file's first byte, and the first behind the code, which comes before
    // all that is relocated or written.
    unsafe extern "C" {
        static __executable_start: u8;
        static etext: u8;
    }
    let page = rustix::param::page_size();
    let (start, end) = (&raw const __executable_start as usize, &raw const etext as usize);
    // The last page may hold what comes next.
    (end / page * page).checked_sub(start).filter(|len| *len > 0).map(|len| (start, len))
}

#[cfg(not(target_os = "linux"))]
const fn release_program() {}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// How much of the mappings that lie between is in memory, in KiB, and how they are mapped.
    fn resident(start: usize, len: usize) -> (u64, Vec<String>) {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("readable");
        let (mut within, mut resident, mut how) = (false, 0, Vec::new());
        for line in maps.lines() {
            let mut words = line.split_whitespace();
            let first = words.next().expect("no line is empty");
            if let Some((from, to)) = first.split_once('-') {
                let address = |text| usize::from_str_radix(text, 16).expect("an address");
                within = address(from) < start + len && address(to) > start;
                if within {
                    how.push(words.next().expect("how it is mapped").to_owned());
                }
            } else if within && first == "Rss:" {
                resident += words.next().expect("a number").parse::<u64>().expect("a number");
            }
        }
        (resident, how)
    }

    #[test]
    #[expect(unsafe_code, reason = "reading the program's own bytes")]
    fn what_is_let_go_of_is_the_program_and_comes_back_as_it_was() {
        let (start, len) = program().expect("a linked program");
        // SAFETY: mapped and readable, as the test asks below.
        let bytes = unsafe { std::slice::from_raw_parts(start as *const u8, len) };
        let sum = || bytes.iter().fold(0_u64, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
        let (_, how) = resident(start, len);
        assert!(!how.is_empty() && how.iter().all(|how| how == "r--p" || how == "r-xp"), "{how:?}");
        let before = sum();
        let (all, _) = resident(start, len);
        release_program();
        let (left, _) = resident(start, len);
        // What runs meanwhile comes back at once, on some kernels a MiB and more for each access.
        assert!(left < all, "{left} of {all} KiB are left");
        assert_eq!(sum(), before);
    }
}
