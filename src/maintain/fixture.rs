//! A small store for the tests of upkeep, with a dialect whose documents are lists of digests.

use std::path::Path;

use super::{Entry, NoProgress, Spool, Upkeep, fsck, gc};
use crate::index::Index;
use crate::model::{
    ArtifactType, Claim, Clock, Digest, ManualClock, Ref, RefKey, RefPath, RefRules, SystemClock, Timestamp,
};
use crate::store::Store;

/// The type whose rules are known.
pub(super) const KNOWN: ArtifactType = ArtifactType::Container;
/// A type whose rules are not.
pub(super) const UNKNOWN: ArtifactType = ArtifactType::Generic;

/// So little that what is more than a few names goes into files.
const TINY: usize = 100;

const HOUR: i64 = 3600;
pub(super) const DAY: i64 = 24 * HOUR;

/// A store, perhaps an index, and a clock that stands at the present until it is moved.
pub(super) struct Fixture {
    pub(super) store: Store,
    pub(super) index: Option<Index>,
    pub(super) clock: ManualClock,
    _dir: Option<tempfile::TempDir>,
}

/// Documents are digests, one a line; the scope is the first segment.
#[derive(Debug)]
struct Lists;

impl RefRules for Lists {
    fn scope<'p>(&self, path: &'p RefPath) -> &'p str {
        path.segments().next().unwrap_or_default()
    }

    fn links(&self, _kind: &str, _media_type: Option<&str>, document: &[u8]) -> Option<Vec<Claim>> {
        let link = |line: &str| line.parse::<Digest>().ok().map(Claim::from);
        str::from_utf8(document).ok()?.lines().map(link).collect()
    }

    fn is_document(&self, kind: &str) -> bool {
        kind == "list"
    }

    fn catalogue_kinds(&self) -> &'static [&'static str] {
        &["catalogue"]
    }

    /// What stands before the last dot: `index.1`, `index.2`.
    fn catalogue_of<'p>(&self, path: &'p RefPath) -> &'p str {
        path.as_str().rsplit_once('.').map_or(path.as_str(), |(name, _)| name)
    }

    fn catalogued_by(&self, kind: &str) -> Option<&'static str> {
        (kind == "item").then_some("catalogue")
    }

    /// Lines of a path and a digest.
    fn catalogue(&self, _: &RefPath, document: &[u8], visit: &mut dyn FnMut(&str, Claim)) -> bool {
        let mut lines = str::from_utf8(document).unwrap_or_default().lines();
        lines.all(|line| match line.split_once(' ').map(|(path, digest)| (path, digest.parse())) {
            Some((path, Ok(digest))) => {
                visit(path, Claim { digest, size: None });
                true
            }
            _ => false,
        })
    }
}

pub(super) fn rules(artifact_type: ArtifactType) -> Option<&'static dyn RefRules> {
    (artifact_type == KNOWN).then_some(&Lists)
}

/// What is on a list.
pub(super) fn list<T: Entry>(spool: &Spool<T>) -> Vec<T> {
    spool.iter().collect::<Result<_, _>>().expect("read")
}

/// All that a plan says.
pub(super) fn told(plan: &gc::Plan) -> String {
    let (restore, reap) = (list(&plan.restore), list(&plan.reap));
    format!("{plan:?} {:?} {restore:?} {reap:?} {:?}", list(&plan.expire), list(&plan.condemn))
}

pub(super) fn key(text: &str) -> RefKey {
    text.parse().expect(text)
}

impl Fixture {
    /// A store in memory, without an index.
    pub(super) async fn memory() -> Self {
        Self::over(Store::create("mem://").await.expect("a store"))
    }

    /// This store, without an index.
    pub(super) fn over(store: Store) -> Self {
        Self { store, index: None, clock: ManualClock::new(SystemClock.now()), _dir: None }
    }

    /// A store on disk with an index that is complete.
    pub(super) async fn disk() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::create(dir.path().join("root").to_str().expect("text")).await.expect("a store");
        let (index, _) = Index::open(&dir.path().join("index")).expect("an index");
        let generation = index.begin_generation().expect("begun");
        index.end_generation(generation).expect("ended");
        Self { store, index: Some(index), clock: ManualClock::new(SystemClock.now()), _dir: Some(dir) }
    }

    pub(super) fn at(&self) -> Upkeep<'_> {
        Upkeep {
            store: &self.store,
            index: self.index.as_ref(),
            rules: &rules,
            clock: &self.clock,
            progress: &NoProgress,
            buffer: TINY,
        }
    }

    /// The store's directory.
    pub(super) fn root(&self) -> &Path {
        self.store.local_dir().expect("on disk")
    }

    /// The same with as much memory as always.
    fn roomy(&self) -> Upkeep<'_> {
        Upkeep { buffer: Upkeep::BUFFER, ..self.at() }
    }

    /// Runs gc with little memory; with more it would have planned the same.
    pub(super) async fn gc(&self, options: &gc::Options) -> gc::Report {
        let dry = gc::Options { dry_run: true, ..options.clone() };
        let planned = gc::gc(self.roomy(), &dry).await.expect("planned");
        let report = gc::gc(self.at(), options).await.expect("gc");
        assert_eq!(told(&planned.plan), told(&report.plan));
        report
    }

    /// Runs fsck with little memory, and gives one line for each finding and one for the report; with more it
    /// finds the same.
    pub(super) async fn fsck(&self, options: &fsck::Options) -> Vec<String> {
        let look = fsck::Options { repair: false, ..*options };
        let (roomy, tiny) = (self.findings(self.roomy(), &look).await, self.findings(self.at(), &look).await);
        assert_eq!(roomy, tiny);
        if options.repair { self.findings(self.at(), options).await } else { tiny }
    }

    async fn findings(&self, at: Upkeep<'_>, options: &fsck::Options) -> Vec<String> {
        let mut lines = Vec::new();
        let report = fsck::fsck(at, options, &mut |finding, outcome| {
            let (level, kind, place) = (finding.level().as_str(), finding.kind(), finding.place());
            let mend = finding.mend().as_str();
            lines.push(format!("{level} {kind} {place}: {finding} [{mend}: {outcome:?}]"));
            std::ops::ControlFlow::Continue(())
        })
        .await
        .expect("fsck");
        lines.sort();
        lines.push(format!("{report:?}"));
        lines
    }

    /// Publishes a blob.
    pub(super) async fn blob(&self, artifact_type: ArtifactType, bytes: &str) -> Digest {
        let proxy = key(&format!("{artifact_type}/p/refs/x")).proxy;
        let mut staged = self.store.stage(&proxy, None, &[]).await;
        staged.write(bytes.to_owned().into()).await.expect("written");
        staged.seal(&[]).await.expect("sealed").publish().await.expect("published");
        Digest::of(bytes.as_bytes())
    }

    /// Writes a ref whose links nobody has noted.
    pub(super) async fn unlinked(&self, name: &str, kind: &str, target: &str) -> RefKey {
        self.write(name, kind, target, None, self.clock.now()).await
    }

    /// Writes a ref to these bytes and what they link.
    pub(super) async fn reference(&self, name: &str, target: &str, links: &[Digest]) -> RefKey {
        self.write(name, "thing", target, Some(links.to_vec()), self.clock.now()).await
    }

    pub(super) async fn write(
        &self,
        name: &str,
        kind: &str,
        target: &str,
        links: Option<Vec<Digest>>,
        fetched_at: Timestamp,
    ) -> RefKey {
        let key = key(name);
        let digest = Digest::of(target.as_bytes());
        let json = format!(
            r#"{{"kind":"{kind}","targetDigest":"{digest}","size":{},"fetchedAt":"{fetched_at}","ttlSeconds":60}}"#,
            target.len()
        );
        let links = links.map(|links| links.into_iter().map(Claim::from).collect());
        let reference = Ref { links, ..Ref::parse(json.as_bytes()).expect("valid") };
        self.store.write_ref(&key, &reference).await.expect("written");
        key
    }

    /// Makes the ref look as if it was last used so many days ago.
    pub(super) async fn used_days_ago(&self, key: &RefKey, days: i64) {
        let at = self.clock.now() - jiff::SignedDuration::from_secs(days * DAY);
        self.store.touch_ref(key, at).await.expect("touched");
    }

    pub(super) async fn is_condemned(&self, artifact_type: ArtifactType, digest: &Digest) -> bool {
        self.store.open_condemned(artifact_type, digest).await.expect("looked").is_some()
    }

    pub(super) fn is_live(&self, artifact_type: ArtifactType, digest: &Digest) -> bool {
        self.store.open_blob(artifact_type, digest, None).expect("looked").is_some()
    }

    /// Every file below the root and its content, but for the locks.
    pub(super) fn files(&self) -> Vec<(String, Vec<u8>)> {
        let root = self.root();
        let mut files = walkdir::WalkDir::new(root)
            .into_iter()
            .map(|entry| entry.expect("listed"))
            .filter(|entry| entry.file_type().is_file())
            .map(|entry| {
                let path = entry.path().strip_prefix(root).expect("below").display().to_string();
                (path, std::fs::read(entry.path()).expect("read"))
            })
            .collect::<Vec<_>>();
        files.sort();
        files
    }
}
