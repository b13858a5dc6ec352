//! reindex: makes the index say again what the files say, also beside a serving process.
//!
//! Everything is recorded by the same [`Index::record`] as online, under a new generation; then the
//! rows of older generations go. Nothing is swapped, so the index answers all the while. What others
//! replace or take away between the reading of a file and the writing of its row is not brought back
//! by that. Cut short, it leaves an index that lags behind and is not called complete.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::SignedDuration;
use tokio::task::JoinHandle;

use super::links::links_of;
use super::{MaintainError, Progress, Rules, Step};
use crate::index::{Index, IndexError, Record};
use crate::model::{ArtifactType, Digest, Ref, RefKey, Timestamp, give_way};
use crate::store::{RefEntry, Store};

/// Files that could not be recorded and are named in the report; beyond, they are only counted.
const NAMED: usize = 100;

/// How long after it was fetched a ref must be used for that to count as another use.
const MIN_USE: SignedDuration = SignedDuration::from_mins(5);

/// What a rebuild saw.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Refs that are in the index now.
    pub refs: u64,
    /// Rows that had no ref any more.
    pub removed: u64,
    /// Refs whose target is not live, or not of the size they state.
    pub without_target: u64,
    /// Files that are not refs, or are where no name leads.
    pub unreadable: u64,
    /// The first of them, with what is wrong.
    pub named: Vec<(String, String)>,
}

/// Records every ref of the store. Refs that cannot be read are in the report, not an error.
///
/// # Errors
/// Whatever keeps it from listing the files or from writing the index.
pub async fn reindex(
    store: &Store,
    index: &Index,
    rules: Rules<'_>,
    progress: &dyn Progress,
) -> Result<Rebuilt, MaintainError> {
    let generation = index.begin_generation()?;
    let mut rebuilt = read_all(store, Some(index), rules, progress).await?;
    let index = index.clone();
    rebuilt.removed = tokio::task::spawn_blocking(move || index.end_generation(generation)).await??;
    Ok(rebuilt)
}

/// Reads what [`reindex`] would record, and records nothing.
///
/// # Errors
/// Whatever keeps it from listing the files.
pub async fn survey(
    store: &Store,
    rules: Rules<'_>,
    progress: &dyn Progress,
) -> Result<Rebuilt, MaintainError> {
    read_all(store, None, rules, progress).await
}

async fn read_all(
    store: &Store,
    index: Option<&Index>,
    rules: Rules<'_>,
    progress: &dyn Progress,
) -> Result<Rebuilt, MaintainError> {
    progress.begin(Step::ListBlobs, None);
    let live = live_sizes(store, progress).await?;
    progress.begin(Step::Record, None);
    let mut rebuilt = Rebuilt::default();
    // The batch before is written while the next is put together.
    let mut writing: Option<JoinHandle<Result<Vec<RefKey>, IndexError>>> = None;
    for proxy in store.proxies().await? {
        let live = live.get(&proxy.artifact_type).map_or(&[][..], Vec::as_slice);
        // Before the scan begins, for it reads ahead.
        let forgets = index.map(Index::forgets).transpose()?;
        let mut scan = store.scan_refs(&proxy);
        while let Some(page) = scan.next_page().await {
            let page = page?;
            progress.advance(page.len() as u64);
            let batch = batch(store, rules, page, live, &mut rebuilt).await?;
            if let (Some(index), Some(forgets)) = (index, forgets) {
                if let Some(before) = writing.take() {
                    look_again(store, index, before.await??).await?;
                }
                let index = index.clone();
                writing = Some(tokio::task::spawn_blocking(move || write(&index, batch, forgets)));
            }
        }
    }
    if let (Some(index), Some(last)) = (index, writing) {
        look_again(store, index, last.await??).await?;
    }
    Ok(rebuilt)
}

/// Writes the rows of a batch, and returns the refs that may have been taken away since: all of them if anything was
/// forgotten after there had been so many `forgets`. Whoever takes a ref away forgets its row before and after.
fn write(index: &Index, batch: Batch, forgets: u64) -> Result<Vec<RefKey>, IndexError> {
    index.record_read(&batch)?;
    let moved = index.forgets()? != forgets;
    Ok(batch.into_iter().filter(|_| moved).map(|(record, _)| record.key).collect())
}

/// Forgets those of these refs whose files have gone.
async fn look_again(store: &Store, index: &Index, keys: Vec<RefKey>) -> Result<(), MaintainError> {
    let mut gone = Vec::new();
    for key in keys {
        if !store.has_ref(&key).await? {
            gone.push(key);
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let index = index.clone();
    Ok(tokio::task::spawn_blocking(move || index.forget(&gone)).await??)
}

/// The names and sizes of live blobs, sorted.
type Live = Vec<(Digest, u64)>;

async fn live_sizes(
    store: &Store,
    progress: &dyn Progress,
) -> Result<BTreeMap<ArtifactType, Live>, MaintainError> {
    let mut live = BTreeMap::new();
    for artifact_type in ArtifactType::ALL {
        let mut sizes = Live::new();
        let mut scan = store.scan_blobs(artifact_type);
        while let Some(page) = scan.next_page().await {
            let page = page?;
            progress.advance(page.len() as u64);
            sizes.extend(page.into_iter().filter_map(|entry| Some((entry.digest?, entry.size))));
        }
        sizes.sort_unstable();
        live.insert(artifact_type, sizes);
    }
    Ok(live)
}

/// What is written into the index together: refs, and the last use that a file tells.
type Batch = Vec<(Record, Option<Timestamp>)>;

async fn batch(
    store: &Store,
    rules: Rules<'_>,
    page: Vec<RefEntry>,
    live: &[(Digest, u64)],
    rebuilt: &mut Rebuilt,
) -> Result<Batch, MaintainError> {
    let mut batch = Batch::with_capacity(page.len());
    for entry in page {
        give_way();
        let (key, reference) = match (entry.key, entry.reference) {
            (Some(key), Ok(reference)) => (key, reference),
            (_, reference) => {
                let why = reference.err().map(|error| error.to_string());
                rebuilt.unreadable += 1;
                if rebuilt.named.len() < NAMED {
                    rebuilt.named.push((entry.path, why.unwrap_or("a ref where no name leads".to_owned())));
                }
                continue;
            }
        };
        rebuilt.refs += 1;
        let stated = (reference.target_digest, reference.size);
        rebuilt.without_target += u64::from(live.binary_search(&stated).is_err());
        let used = use_of(&reference, entry.modified);
        batch.push((record_of(store, rules, key, reference).await?, used));
    }
    Ok(batch)
}

/// The last use that a ref file's mtime tells: one that is not merely when it was written. Uses this
/// soon after a fetch are not written online either, so a rebuild gives the rows that were lost.
fn use_of(reference: &Ref, modified: Timestamp) -> Option<Timestamp> {
    let since = modified.duration_since(reference.fetched_at);
    (since >= MIN_USE).then_some(modified)
}

/// The row of a ref. Where its links are not known it grants nothing but its target; where its
/// type's rules are not known it shares with no other ref.
pub(super) async fn record_of(
    store: &Store,
    rules: Rules<'_>,
    key: RefKey,
    mut reference: Ref,
) -> Result<Record, MaintainError> {
    let artifact_type = key.proxy.artifact_type;
    let scope = match rules(artifact_type) {
        Some(rules) => rules.scope(&key.path),
        None => key.path.as_str(),
    };
    let scope = scope.to_owned();
    let links = links_of(store, rules, artifact_type, &reference).await?.ok();
    reference.links = links.map(Cow::into_owned);
    Ok(Record { key, scope, reference })
}

#[cfg(test)]
mod tests {
    use super::super::NoProgress;
    use super::super::fixture::{Fixture, KNOWN, key};
    use super::*;
    use crate::index::{RefQuery, RefRow};

    async fn rebuild(fixture: &Fixture, index: &Index) -> Rebuilt {
        reindex(&fixture.store, index, fixture.at().rules, &NoProgress).await.expect("rebuilt")
    }

    fn rows(index: &Index) -> Vec<RefRow> {
        index.query(&RefQuery::default()).expect("asked").rows
    }

    #[tokio::test]
    async fn an_index_that_was_lost_comes_back_with_scopes_links_and_last_uses() {
        let fixture = Fixture::disk().await;
        let index = fixture.index.as_ref().expect("an index");
        let link = fixture.blob(KNOWN, "link").await;
        fixture.blob(KNOWN, &link.to_string()).await;
        let list = fixture.unlinked("container/p/refs/scope/list", "list", &link.to_string()).await;
        let elsewhere = fixture.reference("generic/p/cache/a/b", "x", &[link]).await;
        let used = "2035-01-01T00:00:00Z".parse().expect("valid");
        fixture.store.touch_ref(&elsewhere, used).await.expect("touched");
        let report = rebuild(&fixture, index).await;
        assert_eq!((report.refs, report.removed, report.without_target), (2, 0, 1));
        assert!(index.is_complete());
        assert_eq!(index.links(&list).expect("asked"), Some(vec![link.into()]));
        assert_eq!(index.last_used(&list).expect("asked"), None, "written is not used");
        assert_eq!(index.last_used(&elsewhere).expect("asked"), Some(used));
        let before = rows(index);
        let scopes = before.iter().map(|row| row.scope.as_str()).collect::<Vec<_>>();
        assert_eq!(scopes, ["scope", "a/b"], "a type without rules shares with no other ref");

        let dir = tempfile::tempdir().expect("a directory");
        let (fresh, _) = Index::open(dir.path()).expect("an index");
        rebuild(&fixture, &fresh).await;
        assert_eq!(rows(&fresh), before);
    }

    #[tokio::test]
    async fn rows_without_files_go_and_what_is_no_ref_is_named() {
        let fixture = Fixture::disk().await;
        let index = fixture.index.as_ref().expect("an index");
        let gone = fixture.reference("container/p/refs/gone", "x", &[]).await;
        fixture.reference("container/p/refs/stays", "x", &[]).await;
        rebuild(&fixture, index).await;
        fixture.store.remove_ref(&gone).await.expect("removed");
        std::fs::write(fixture.root().join("type/container/proxies/p/refs/bad.json"), "{").expect("written");
        let report = rebuild(&fixture, index).await;
        assert_eq!((report.refs, report.removed, report.unreadable), (1, 1, 1));
        assert_eq!(report.named[0].0, "type/container/proxies/p/refs/bad.json");
        assert_eq!(index.lookup(&gone).expect("asked"), None);
        assert!(index.lookup(&key("container/p/refs/stays")).expect("asked").is_some());
    }

    /// Takes refs away when the first page of several is there, and no row is written yet.
    struct TakesAway<'f>(&'f Fixture, Vec<RefKey>);

    impl Progress for TakesAway<'_> {
        fn begin(&self, _: Step, _: Option<u64>) {}

        fn advance(&self, _: u64) {
            let file =
                |key: &RefKey| self.0.root().join(format!("type/container/proxies/p/refs/{}.json", key.path));
            if !file(&self.1[0]).exists() {
                return;
            }
            // Pages are read ahead. If the next one is not yet, the test sees less than it could.
            std::thread::sleep(std::time::Duration::from_millis(100));
            let index = self.0.index.as_ref().expect("an index");
            index.forget(&self.1).expect("forgotten");
            for key in &self.1 {
                std::fs::remove_file(file(key)).expect("removed");
            }
            index.forget(&self.1).expect("forgotten");
        }
    }

    #[tokio::test]
    async fn what_is_taken_away_after_it_was_read_is_not_brought_back() {
        let fixture = Fixture::disk().await;
        let index = fixture.index.as_ref().expect("an index");
        let mut keys = Vec::new();
        // A page is of 32 folders at most.
        for number in 0..100 {
            keys.push(fixture.unlinked(&format!("container/p/refs/{number:03}/r"), "list", "x").await);
        }
        // Those of the first page would have all others looked for as well.
        for gone in [keys.split_off(32), keys] {
            let taking = TakesAway(&fixture, gone);
            reindex(&fixture.store, index, fixture.at().rules, &taking).await.expect("rebuilt");
            let found = rows(index).into_iter().filter(|row| taking.1.contains(&row.key)).count();
            assert_eq!(found, 0);
        }
        assert_eq!(rows(index), []);
    }

    #[tokio::test]
    async fn a_survey_sees_the_same_and_records_nothing() {
        let fixture = Fixture::disk().await;
        let index = fixture.index.as_ref().expect("an index");
        fixture.reference("container/p/refs/a", "x", &[]).await;
        let seen = survey(&fixture.store, fixture.at().rules, &NoProgress).await.expect("surveyed");
        assert_eq!(rows(index), []);
        assert_eq!(rebuild(&fixture, index).await, seen);
    }
}
