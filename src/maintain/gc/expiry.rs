//! Which refs expire: those not used for long, and beyond a limit of bytes those of content that no
//! current catalogue names any more, then the least recently used.
//!
//! A TTL that has ended is no reason: the ref is asked about again when it is used, and it is what
//! is served while upstream is away.
//!
//! With a limit, which of them go is known only when all have been read, and no ref is read twice for it:
//! what matters is written down ([`Candidate`]), ranked when the catalogues are known, and decided when
//! the cut is.

use super::Options;
use super::named::Named;
use super::plan::{Live, is_over};
use crate::maintain::seen::key_digest;
use crate::maintain::sorted::{Sorted, Sorter};
use crate::maintain::spool::{self, Entry, Reader, Spool};
use crate::maintain::{BLOB, MaintainError, Upkeep, blob_key, joined};
use crate::model::{Digest, RefKey, Timestamp};
use crate::store::RefEntry;

/// A ref that expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expired {
    /// The ref.
    pub key: RefKey,
    /// Why it goes.
    pub reason: Reason,
    /// When it was used last, as far as is known.
    pub last_used: Timestamp,
}

/// Why a ref expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Not used for longer than asked for.
    Unused,
    /// Used less recently than what fits into the limit of bytes.
    OverLimit,
}

impl Reason {
    const ALL: [Self; 2] = [Self::Unused, Self::OverLimit];

    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::OverLimit => "over-limit",
        }
    }
}

impl Entry for Expired {
    fn write(&self, into: &mut Vec<u8>) {
        into.push(self.reason as u8);
        spool::put_time(into, self.last_used);
        spool::put_text(into, &self.key.to_string());
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let reason = *Reason::ALL.get(usize::from(from.byte()?))?;
        Some(Self { reason, last_used: from.time()?, key: from.key()? })
    }
}

/// Bytes of a [`Use`].
pub(super) const USE: usize = 1 + 16 + 8;

/// The rank of a ref among all by its use, no two alike: refs of the same moment, as after a
/// restore from a backup, do not all go at once. What is old (`named`) comes before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Use {
    is_current: bool,
    at: Timestamp,
    tie: u64,
}

impl Use {
    /// In bytes whose order is that of ranks.
    fn to_bytes(self) -> [u8; USE] {
        let at = self.at.as_nanosecond().cast_unsigned() ^ (1 << 127);
        let mut bytes = [0; USE];
        bytes[0] = u8::from(self.is_current);
        bytes[1..17].copy_from_slice(&at.to_be_bytes());
        bytes[17..].copy_from_slice(&self.tie.to_be_bytes());
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; USE]) -> Result<Self, MaintainError> {
        let read = || {
            let (current, rest) = bytes.split_first()?;
            let (at, tie) = rest.split_first_chunk()?;
            let at = (u128::from_be_bytes(*at) ^ (1 << 127)).cast_signed();
            let (at, tie) = (Timestamp::from_nanosecond(at).ok()?, *tie.first_chunk()?);
            Some(Self { is_current: *current != 0, at, tie: u64::from_be_bytes(tie) })
        };
        read().ok_or(MaintainError::BadScratch)
    }
}

/// What matters of a ref, if there is a limit.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) key: RefKey,
    pub(super) last_used: Timestamp,
    pub(super) kind: String,
    pub(super) target: Digest,
    /// The blobs that it needs; `None` if it expires whatever the limit.
    pub(super) needs: Option<Vec<Digest>>,
}

impl Candidate {
    fn used(&self, at: Upkeep<'_>, named: &mut Named) -> Result<Use, MaintainError> {
        let tie =
            key_digest(&self.key).as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let rules = (at.rules)(self.key.proxy.artifact_type);
        let is_old = named.is_old(rules.map(|rules| rules as _), &self.key, &self.kind, &self.target)?;
        Ok(Use { is_current: !is_old, at: self.last_used, tie })
    }
}

impl Entry for Candidate {
    fn write(&self, into: &mut Vec<u8>) {
        spool::put_text(into, &self.key.to_string());
        spool::put_time(into, self.last_used);
        spool::put_text(into, &self.kind);
        into.extend_from_slice(self.target.as_bytes());
        into.push(u8::from(self.needs.is_some()));
        let needs = self.needs.as_deref().unwrap_or_default();
        spool::put_number(into, needs.len() as u64);
        for digest in needs {
            into.extend_from_slice(digest.as_bytes());
        }
    }

    fn read(from: &mut Reader<'_>) -> Option<Self> {
        let (key, last_used, kind) = (from.key()?, from.time()?, from.text()?.to_owned());
        let (target, has_needs, count) = (from.digest()?, from.byte()? != 0, from.number()?);
        let needs = (0..count).map(|_| from.digest()).collect::<Option<_>>()?;
        Some(Self { key, last_used, kind, target, needs: Some(needs).filter(|_| has_needs) })
    }
}

/// Whether a ref expires for not having been used.
pub(super) fn is_unused(last_used: Timestamp, options: &Options, now: Timestamp) -> bool {
    options.unused_for.is_some_and(|period| is_over(last_used, period, now))
}

/// Whether a ref stays whatever the limit.
fn is_in_use(last_used: Timestamp, options: &Options, now: Timestamp) -> bool {
    options.in_use.is_some_and(|period| !is_over(last_used, period, now))
}

/// For each of these refs, the later of what the index knows and what was mirrored into the file.
pub(super) fn last_uses(at: Upkeep<'_>, page: &[RefEntry]) -> Vec<Timestamp> {
    let keys = page.iter().filter_map(|entry| entry.key.as_ref());
    // An index that cannot answer is as good as none.
    let indexed = at.index.and_then(|index| index.last_used_all(keys).ok()).unwrap_or_default();
    let mut indexed = indexed.into_iter();
    let last_used = |entry: &RefEntry| {
        let used = entry.key.as_ref().and_then(|_| indexed.next().flatten());
        used.map_or(entry.modified, |used| used.max(entry.modified))
    };
    page.iter().map(last_used).collect()
}

/// The most recent use of each blob, by those refs that the limit may take.
pub(super) type Newest = Sorted<{ BLOB + USE }, BLOB>;

/// The refs that the limit may take, and what was found of them.
#[derive(Debug)]
pub(super) struct Ranking {
    candidates: Spool<Candidate>,
    named: Named,
    pub(super) newest: Newest,
}

impl Ranking {
    /// Ranks the candidates. `keep` takes what those need that stay whatever the limit.
    pub(super) fn of(
        at: Upkeep<'_>,
        options: &Options,
        now: Timestamp,
        candidates: Spool<Candidate>,
        mut named: Named,
        keep: &mut Sorter<BLOB>,
    ) -> Result<Self, MaintainError> {
        let mut newest = Sorter::new(at);
        for candidate in &candidates {
            let candidate = candidate?;
            at.progress.advance(1);
            let Some(needs) = &candidate.needs else { continue };
            let used = candidate.used(at, &mut named)?;
            for digest in needs {
                let blob = blob_key(candidate.key.proxy.artifact_type, digest);
                newest.insert(joined(&blob, &used.to_bytes()))?;
                if is_in_use(used.at, options, now) {
                    keep.insert(blob)?;
                }
            }
        }
        Ok(Self { candidates, named, newest: newest.finish()? })
    }

    /// The most recent use that has to expire so that the blobs which the remaining refs need are at
    /// most `max_bytes`, as far as what is in use allows; `None` if they are already.
    ///
    /// A blob stays needed while any ref that needs it stays, so it goes with the most recently used of
    /// them: the blobs in the order of those uses are the order in which bytes become free.
    pub(super) fn cut(
        &mut self,
        at: Upkeep<'_>,
        options: &Options,
        now: Timestamp,
        blobs: &Spool<Live>,
        max_bytes: u64,
    ) -> Result<Option<Use>, MaintainError> {
        /// A use, and the blob that goes with it.
        const FREED: usize = USE + BLOB;
        /// The same, and its size.
        const SIZED: usize = FREED + 8;
        let mut needed = Sorter::<SIZED, FREED>::new(at);
        for blob in blobs {
            let blob = blob?;
            let key = blob_key(blob.artifact_type, &blob.digest);
            if let Some(newest) = self.newest.find(&key)?.as_ref().and_then(|found| found.last_chunk::<USE>())
            {
                let freed: [u8; FREED] = joined(newest, &key);
                needed.insert(joined(&freed, &blob.size.to_be_bytes()))?;
            }
        }
        let needed = needed.finish()?;
        let size = |record: &[u8; SIZED]| record.last_chunk().map_or(0, |size| u64::from_be_bytes(*size));
        let mut bytes = 0;
        for record in needed.records() {
            bytes += size(&record?);
        }
        let mut cut = None;
        for record in needed.records() {
            let record = record?;
            let newest = Use::from_bytes(record.first_chunk().ok_or(MaintainError::BadScratch)?)?;
            // Blobs of one ref go together.
            if bytes <= max_bytes && cut != Some(newest) {
                break;
            }
            if is_in_use(newest.at, options, now) {
                continue;
            }
            bytes -= size(&record);
            cut = Some(newest);
        }
        Ok(cut)
    }

    /// Those that expire, in the order in which they were read.
    pub(super) fn expired(
        &mut self,
        at: Upkeep<'_>,
        options: &Options,
        now: Timestamp,
        cut: Option<Use>,
    ) -> Result<Spool<Expired>, MaintainError> {
        let mut expired = Spool::new(at);
        for candidate in &self.candidates {
            let candidate = candidate?;
            let last_used = candidate.last_used;
            let reason = if candidate.needs.is_none() {
                Reason::Unused
            } else if let Some(cut) = cut
                && !is_in_use(last_used, options, now)
                && candidate.used(at, &mut self.named)? <= cut
            {
                Reason::OverLimit
            } else {
                continue;
            };
            expired.push(&Expired { key: candidate.key, reason, last_used })?;
        }
        Ok(expired)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uses() -> impl Strategy<Value = Use> {
        let at = prop_oneof![
            Just(Timestamp::MIN),
            Just(Timestamp::MAX),
            (-3..3_i64, 0..3).prop_map(
                |(seconds, nanos)| Timestamp::UNIX_EPOCH + jiff::SignedDuration::new(seconds, nanos)
            ),
        ];
        (any::<bool>(), at, any::<u64>()).prop_map(|(is_current, at, tie)| Use { is_current, at, tie })
    }

    proptest! {
        #[test]
        fn a_use_in_bytes_has_its_order_and_is_read_back((one, other) in (uses(), uses())) {
            prop_assert_eq!(one.to_bytes().cmp(&other.to_bytes()), one.cmp(&other));
            prop_assert_eq!(Use::from_bytes(&one.to_bytes()).expect("read"), one);
        }
    }
}
