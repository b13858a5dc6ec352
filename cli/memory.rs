//! How the allocator of glibc deals with large buffers. Other allocators are left as they are.
//!
//! Bodies come in buffers of some hundred KiB. As it is set at first, glibc gives their memory back to
//! the kernel almost every time one is freed, and the next costs page faults and zeroing: an eighth
//! of all CPU time of a cold body (`docs/decisions/cold-path.md`).

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
