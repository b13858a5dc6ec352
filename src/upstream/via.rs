//! `Via` (RFC 9110, 7.6.3): how a request that comes back to where it was is recognised.

/// What a process adds to the `Via` of its requests to upstream, and looks for in that of its clients'. Answers get
/// none. `instance` is the process's own name: letters and digits, chosen at start.
pub fn via(instance: &str) -> String {
    format!("1.1 repoxy-{instance}")
}
