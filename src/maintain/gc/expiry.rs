//! Which refs expire: those not used for long, and beyond a limit of bytes those of content that no
//! current catalogue names any more, then the least recently used.
//!
//! A TTL that has ended is no reason: the ref is asked about again when it is used, and it is what
//! is served while upstream is away.

use super::Options;
use super::named::Named;
use super::plan::is_over;
use crate::maintain::digests::key_digest;
use crate::maintain::links::links_of;
use crate::maintain::{MaintainError, Step, Upkeep};
use crate::model::{ArtifactType, Digest, ProxyId, Ref, RefKey, Timestamp};
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
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "unused",
            Self::OverLimit => "over-limit",
        }
    }
}

/// The rank of a ref among all by its use, no two alike: refs of the same moment, as after a
/// restore from a backup, do not all go at once. What is old (`named`) comes before all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Use {
    is_current: bool,
    at: Timestamp,
    tie: u64,
}

impl Use {
    fn of(upkeep: Upkeep<'_>, named: &Named, key: &RefKey, reference: &Ref, at: Timestamp) -> Self {
        let tie = key_digest(key).as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let rules = (upkeep.rules)(key.proxy.artifact_type);
        Self { is_current: !named.is_old(rules.map(|rules| rules as _), key, reference), at, tie }
    }
}

/// What tells refs that expire from those that stay.
#[derive(Debug)]
pub(super) struct Expiry<'o> {
    options: &'o Options,
    now: Timestamp,
    named: Named,
    cut: Option<Use>,
}

/// Why a ref expires, and when it was used last.
pub(super) type Verdict = (Reason, Timestamp);

impl<'o> Expiry<'o> {
    /// Reads what has to be known beforehand. Changes nothing.
    pub(super) async fn prepare(
        at: Upkeep<'_>,
        options: &'o Options,
        now: Timestamp,
    ) -> Result<Self, MaintainError> {
        let mut expiry = Self { options, now, named: Named::default(), cut: None };
        if let Some(max_bytes) = options.max_bytes {
            at.progress.begin(Step::ChooseExpired, None);
            expiry.named = Named::read(at).await?;
            expiry.cut = cut(at, &expiry.named, options, max_bytes, now).await?;
        }
        Ok(expiry)
    }

    /// Which of these refs expire. Those that cannot be read do not; the run ends at them.
    pub(super) fn verdicts(&self, at: Upkeep<'_>, page: &[RefEntry]) -> Vec<Option<Verdict>> {
        if self.options.unused_for.is_none() && self.cut.is_none() {
            return vec![None; page.len()];
        }
        let verdict = |(entry, last_used): (&RefEntry, Timestamp)| {
            let (Some(key), Ok(reference)) = (&entry.key, &entry.reference) else { return None };
            let used = Use::of(at, &self.named, key, reference, last_used);
            let reason = decide(used, self.options, self.cut, self.now)?;
            Some((reason, last_used))
        };
        page.iter().zip(last_uses(at, page)).map(verdict).collect()
    }
}

/// Whether a ref expires, and why.
fn decide(used: Use, options: &Options, cut: Option<Use>, now: Timestamp) -> Option<Reason> {
    if options.unused_for.is_some_and(|period| is_over(used.at, period, now)) {
        Some(Reason::Unused)
    } else if cut.is_some_and(|cut| used <= cut) && !is_in_use(used, options, now) {
        Some(Reason::OverLimit)
    } else {
        None
    }
}

/// Whether a ref stays whatever the limit.
fn is_in_use(used: Use, options: &Options, now: Timestamp) -> bool {
    options.in_use.is_some_and(|period| !is_over(used.at, period, now))
}

/// For each of these refs, the later of what the index knows and what was mirrored into the file.
fn last_uses(at: Upkeep<'_>, page: &[RefEntry]) -> Vec<Timestamp> {
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

/// A live blob, and the most recent use of any ref that needs it.
#[derive(Debug)]
struct Held {
    artifact_type: ArtifactType,
    digest: Digest,
    size: u64,
    newest: Option<Use>,
}

/// The most recent use that has to expire so that the blobs which the remaining refs need are at
/// most `max_bytes`, as far as what is in use allows; `None` if they are already.
///
/// A blob stays needed while any ref that needs it stays, so it goes with the most recently used of
/// them: the blobs in the order of those uses are the order in which bytes become free. This takes
/// memory by live blobs, not by refs.
async fn cut(
    at: Upkeep<'_>,
    named: &Named,
    options: &Options,
    max_bytes: u64,
    now: Timestamp,
) -> Result<Option<Use>, MaintainError> {
    let mut held = live_blobs(at).await?;
    for proxy in at.store.proxies().await? {
        let mut scan = at.store.scan_refs(&proxy);
        while let Some(page) = scan.next_page().await {
            let page = page?;
            at.progress.advance(page.len() as u64);
            let uses = last_uses(at, &page);
            for (entry, used) in page.iter().zip(uses) {
                if !options.unused_for.is_some_and(|period| is_over(used, period, now)) {
                    note_use(at, named, &proxy, entry, used, &mut held).await?;
                }
            }
        }
    }
    let mut needed = held.into_iter().filter_map(|blob| Some((blob.newest?, blob.size))).collect::<Vec<_>>();
    needed.sort_unstable();
    let mut bytes = needed.iter().map(|(_, size)| size).sum::<u64>();
    let mut cut = None;
    for (newest, size) in needed {
        // Blobs of one ref go together.
        if bytes <= max_bytes && cut != Some(newest) {
            break;
        }
        if is_in_use(newest, options, now) {
            continue;
        }
        bytes -= size;
        cut = Some(newest);
    }
    Ok(cut)
}

async fn live_blobs(at: Upkeep<'_>) -> Result<Vec<Held>, MaintainError> {
    let mut held = Vec::new();
    for artifact_type in ArtifactType::ALL {
        let mut scan = at.store.scan_blobs(artifact_type);
        while let Some(page) = scan.next_page().await {
            held.extend(page?.into_iter().filter_map(|entry| {
                Some(Held { artifact_type, digest: entry.digest?, size: entry.size, newest: None })
            }));
        }
    }
    held.sort_unstable_by_key(|blob| (blob.artifact_type, blob.digest));
    Ok(held)
}

/// Notes the use of a ref at all blobs that it needs.
async fn note_use(
    at: Upkeep<'_>,
    named: &Named,
    proxy: &ProxyId,
    entry: &RefEntry,
    used: Timestamp,
    held: &mut [Held],
) -> Result<(), MaintainError> {
    let (Some(key), Ok(reference)) = (&entry.key, &entry.reference) else { return Ok(()) };
    let links = links_of(at.store, at.rules, proxy.artifact_type, reference)
        .await?
        .map_err(|why| MaintainError::UnknownLinks { path: entry.path.clone(), why })?;
    let used = Use::of(at, named, key, reference, used);
    for digest in links.iter().map(|link| &link.digest).chain([&reference.target_digest]) {
        let place = held
            .binary_search_by_key(&(proxy.artifact_type, *digest), |blob| (blob.artifact_type, blob.digest));
        if let Ok(place) = place {
            let newest = &mut held[place].newest;
            *newest = (*newest).max(Some(used));
        }
    }
    Ok(())
}
