//! How the allocator of glibc deals with large buffers. Other allocators are left as they are.
//!
//! Bodies come in buffers of some hundred KiB. As it is set at first, glibc gives their memory back to
//! the kernel almost every time one is freed, and the next costs page faults and zeroing: an eighth
//! of all CPU time of a cold body (`docs/decisions/cold-path.md`).
//!
//! What many small things leave behind does not go back by itself: each of eight thousand connections takes
//! some 20 KiB, and when they have gone there is always something behind them. So that is asked for now and then.

use std::time::Duration;

/// How often what is free goes back to the kernel.
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

/// From now on memory that is free goes back to the kernel once in a while, for as long as the process lives. On a
/// thread of its own, since it takes milliseconds.
pub(crate) fn give_back() {
    let thread = std::thread::Builder::new().name("memory".to_owned());
    let given = thread.spawn(|| {
        loop {
            std::thread::sleep(GIVEN_BACK_EVERY);
            trim();
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
