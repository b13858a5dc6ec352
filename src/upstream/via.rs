//! `Via` (RFC 9110, 7.6.3): how a request that comes back to where it was is recognised.

/// What a process adds to `Via`, inwards and outwards. `instance` is the process's own name: letters
/// and digits, chosen at start.
pub fn via(instance: &str) -> String {
    format!("1.1 repoxy-{instance}")
}
