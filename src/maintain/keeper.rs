//! Making room beside a server: what a limit, or others on the same disk, need goes at once.
//!
//! It is gc in two runs without a grace period: the first expires and condemns, the second reaps. The
//! grace period keeps condemned content at hand and is no part of what makes gc safe (`super::gc`).

use std::time::Duration;

use super::gc::{self, Options};
use super::{MaintainError, Upkeep};
use crate::store::Pressure;

/// What was used more recently does not go for the disk's sake.
const IN_USE: Duration = Duration::from_secs(60 * 60);

/// What was removed to make room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// Refs that expired.
    pub refs: u64,
    /// Bytes that are free now.
    pub bytes: u64,
}

/// Takes pressure off a store, as well as it can be: refs go, the least recently used first, until what
/// the others need fits; and then the blobs that no ref needs. Counts what is left.
///
/// # Errors
/// As [`gc::gc`]; what has gone by then has gone.
pub async fn make_room(at: Upkeep<'_>, pressure: Pressure) -> Result<Made, MaintainError> {
    let made = relieve(at, pressure).await;
    at.store.count().await?;
    made
}

async fn relieve(at: Upkeep<'_>, pressure: Pressure) -> Result<Made, MaintainError> {
    // No guard rail catches what is asked for, and no clock is relied on.
    let unguarded = Options { grace: Duration::ZERO, force: true, accept_clock: true, ..Options::default() };
    let expire = Options {
        max_bytes: Some(pressure.keep),
        in_use: pressure.for_disk.then_some(IN_USE),
        ..unguarded.clone()
    };
    let condemned = gc::gc(at, &expire).await?.done.unwrap_or_default();
    let mut made = Made { refs: condemned.expired, bytes: condemned.reaped_bytes + condemned.staging_bytes };
    if condemned.condemned > 0 {
        let reaped = gc::gc(at, &unguarded).await?.done.unwrap_or_default();
        made.bytes += reaped.reaped_bytes;
    }
    Ok(made)
}
