//! A store of a given size, written by hand: the same files every time.
//!
//! Container images in two proxies, plain files in a third, and blobs that no ref needs. It takes minutes
//! and gigabytes to write a million refs, so it is kept, with a note in it that says that it is whole.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use rustix::fs::{Timespec, Timestamps};
use serde_json::json;

use repoxy::model::{Claim, Digest, Ref, RefKey, Timestamp};

use crate::common::{Item, MIB, Outcome, SplitMix};

/// Changes with everything below, so that what an older program wrote is not taken for this.
const EDITION: u32 = 1;
/// Refs of each repository: its manifests by digest, and tags.
const REFS_A_REPOSITORY: u64 = 80;
/// Manifests of each repository.
const MANIFESTS: u64 = 5;
/// Further blobs of each repository, which its manifests link.
const PARTS: u64 = 3;
/// Names of plain files that have the same content.
const NAMES_A_FILE: u64 = 10;
/// Files of one directory.
const FILES_A_DIRECTORY: u64 = 100;
/// Of so many tags one never expires, so that it can be asked for without an upstream.
const LASTING: u64 = 5;
/// How many of those each repository has.
const LASTING_TAGS: u64 = (REFS_A_REPOSITORY - MANIFESTS) / LASTING;
/// What a file takes on disk, with its share of directories.
const BYTES_A_FILE: u64 = 4096 + 512;
/// Bytes of each of the large blobs.
const LARGE: u64 = 4 * MIB;
/// When the first ref was fetched.
const EPOCH: &str = "2025-03-01T00:00:00Z";
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// A store and what is known of it.
#[derive(Debug)]
pub(crate) struct Estate {
    /// Holds the root, and whatever else is made for a run.
    pub(crate) directory: PathBuf,
    /// Ref files.
    pub(crate) refs: u64,
    /// Blobs that refs need.
    pub(crate) needed: u64,
    /// Blobs that no ref needs.
    pub(crate) orphans: u64,
    /// Repositories.
    repositories: u64,
    /// Large blobs, each a plain file; only in an estate made for its bytes.
    pub(crate) large: u64,
}

impl Estate {
    /// So many refs, a fifth as many blobs, half of those without a ref.
    pub(crate) fn of_refs(directory: PathBuf, refs: u64) -> Self {
        let repositories = refs * 4 / 5 / REFS_A_REPOSITORY;
        let files = refs - repositories * REFS_A_REPOSITORY;
        Self {
            directory,
            refs,
            needed: repositories * (MANIFESTS + PARTS) + files.div_ceil(NAMES_A_FILE),
            orphans: refs / 10,
            repositories,
            large: 0,
        }
    }

    /// A few large blobs of so many bytes together.
    pub(crate) fn of_bytes(directory: PathBuf, bytes: u64) -> Self {
        let large = bytes / LARGE;
        Self { directory, refs: large, needed: large, orphans: 0, repositories: 0, large }
    }

    /// The root of the store.
    pub(crate) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    /// Writes it, unless it is there.
    pub(crate) fn make(&self) -> Outcome<()> {
        if fs::read_to_string(self.note()).is_ok_and(|note| note == self.edition()) {
            return Ok(());
        }
        if self.directory.exists() {
            fs::remove_dir_all(&self.directory)?;
        }
        fs::create_dir_all(&self.directory)?;
        self.check_room()?;
        self.write()?;
        self.set_whole(true)
    }

    /// Notes that it is as it was written, or that it is not: whoever changes it says so first.
    pub(crate) fn set_whole(&self, whole: bool) -> Outcome<()> {
        let note = self.note();
        Ok(if whole { fs::write(note, self.edition()) } else { fs::remove_file(note) }?)
    }

    fn note(&self) -> PathBuf {
        self.directory.join("whole")
    }

    fn edition(&self) -> String {
        format!("edition {EDITION}, {} refs, {} large blobs\n", self.refs, self.large)
    }

    fn check_room(&self) -> Outcome<()> {
        let files = self.refs + self.needed + self.orphans;
        let bytes = files * BYTES_A_FILE + self.large * LARGE;
        let disk = rustix::fs::statvfs(&self.directory)?;
        let (free, inodes) = (disk.f_bavail * disk.f_frsize, disk.f_favail);
        // A tenth more, so that the machine is left something. Some file systems do not count inodes.
        let short = free < bytes + bytes / 10 || (disk.f_files > 0 && inodes < files + files / 10);
        if short {
            return Err(format!(
                "{} needs {} MiB and {files} inodes, and there are {} MiB and {inodes}",
                self.directory.display(),
                bytes / MIB,
                free / MIB
            )
            .into());
        }
        Ok(())
    }

    /// Writes all files, over as many threads as there are processors.
    fn write(&self) -> Outcome<()> {
        let units = self.repositories + self.names().div_ceil(FILES_A_DIRECTORY) + self.orphan_units();
        let next = AtomicU64::new(0);
        let (began, told) = (Instant::now(), AtomicU64::new(0));
        let work = || -> Outcome<()> {
            let writer = Writer::new(self.root())?;
            loop {
                let unit = next.fetch_add(1, Ordering::Relaxed);
                if unit >= units {
                    return Ok(());
                }
                self.unit(&writer, unit)?;
                let periods = began.elapsed().as_secs() / TELL_EVERY.as_secs();
                if told.fetch_max(periods, Ordering::Relaxed) < periods {
                    eprintln!("writing {} refs: {} %", self.refs, unit * 100 / units);
                }
            }
        };
        thread::scope(|scope| {
            let threads = thread::available_parallelism()?.get();
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a writer panicked")?)
        })?;
        // What is measured later is not the disk catching up with this.
        rustix::fs::sync();
        Ok(())
    }

    /// One directory's worth.
    fn unit(&self, writer: &Writer, unit: u64) -> Outcome<()> {
        let files = self.names().div_ceil(FILES_A_DIRECTORY);
        match unit {
            repository if unit < self.repositories => write_repository(writer, repository),
            _ if unit < self.repositories + files => {
                let first = (unit - self.repositories) * FILES_A_DIRECTORY;
                (first..self.names().min(first + FILES_A_DIRECTORY)).try_for_each(|n| self.file(writer, n))
            }
            _ => {
                let first = (unit - self.repositories - files) * FILES_A_DIRECTORY;
                (first..self.orphans.min(first + FILES_A_DIRECTORY))
                    .try_for_each(|n| writer.blob("container", format!("orphan {n}\n").as_bytes()).map(drop))
            }
        }
    }

    /// Plain files by name.
    fn names(&self) -> u64 {
        self.refs - self.repositories * REFS_A_REPOSITORY
    }

    fn orphan_units(&self) -> u64 {
        self.orphans.div_ceil(FILES_A_DIRECTORY)
    }

    /// A plain file by name.
    fn file(&self, writer: &Writer, number: u64) -> Outcome<()> {
        let body = if self.large > 0 { large_of(number) } else { plain_of(number / NAMES_A_FILE) };
        let digest = if self.large > 0 || number.is_multiple_of(NAMES_A_FILE) {
            writer.blob("generic", &body)?
        } else {
            Digest::of(&body)
        };
        let mut reference = reference("generic.file", digest, body.len(), number);
        reference.etag = Some(format!("\"{number:x}\""));
        reference.links = Some(Vec::new());
        let key = format!(
            "generic/files/refs/release-{}/set-{}/file-{number}.tar.gz",
            number / FILES_A_DIRECTORY % 37,
            number / FILES_A_DIRECTORY,
        );
        writer.reference(&key, &reference, number)
    }

    /// So many tags that never expire, spread over all repositories of the first proxy, as a client asks
    /// for them.
    pub(crate) fn tags(&self, count: u64) -> Outcome<Vec<Item>> {
        let places = self.repositories * LASTING_TAGS;
        let (mut items, mut random) = (Vec::new(), SplitMix(7));
        while (items.len() as u64) < count.min(places / 4) {
            items.extend(lasting_tag(random.next() % places)?);
        }
        Ok(items)
    }

    /// Several sets of so many such tags each, of which none comes twice.
    pub(crate) fn tag_sets(&self, sets: usize, count: u64) -> Outcome<Vec<Vec<Item>>> {
        let all = (0..self.repositories * LASTING_TAGS).filter_map(|place| lasting_tag(place).transpose());
        let (mut all, mut random) = (all.collect::<Outcome<Vec<_>>>()?, SplitMix(13));
        for last in (1..all.len()).rev() {
            all.swap(last, usize::try_from(random.next() % (last as u64 + 1))?);
        }
        let each = usize::try_from(count)?.min(all.len() / sets).max(1);
        Ok(all.chunks(each).take(sets).map(<[Item]>::to_vec).collect())
    }

    /// So many keys of refs, at random.
    pub(crate) fn keys(&self, count: usize) -> Outcome<Vec<RefKey>> {
        let mut random = SplitMix(11);
        let key = |random: u64| {
            let (repository, tag) = (random % self.repositories, random / self.repositories % 75);
            Ok(format!(
                "container/{}/refs/{}/tags/v1.{tag}",
                proxy_of(repository),
                repository_name(repository)
            )
            .parse()?)
        };
        (0..count).map(|_| key(random.next())).collect()
    }

    /// Brings back what a run of gc has condemned, as if it had not run: its directories go as well.
    pub(crate) fn bring_back(&self) -> Outcome<u64> {
        let container = self.root().join("type/container");
        let mut moved = 0;
        for entry in walkdir::WalkDir::new(container.join("trash")).min_depth(1).contents_first(true) {
            let entry = entry?;
            if entry.file_type().is_file() {
                let hex = entry.file_name().to_str().ok_or("a name that is no text")?;
                let live = blob_path(&container, hex);
                fs::create_dir_all(live.parent().unwrap_or(&container))?;
                fs::rename(entry.path(), live)?;
                moved += 1;
            } else {
                fs::remove_dir(entry.path())?;
            }
        }
        Ok(moved)
    }
}

/// The manifests of a repository, what they link, and tags.
fn write_repository(writer: &Writer, number: u64) -> Outcome<()> {
    let base = format!("container/{}/refs/{}", proxy_of(number), repository_name(number));
    let parts = parts_of(number);
    for part in &parts {
        writer.blob("container", part)?;
    }
    let claim = |part: &Vec<u8>| Claim { digest: Digest::of(part), size: Some(part.len() as u64) };
    let links: Vec<Claim> = parts.iter().map(claim).collect();
    for manifest in 0..MANIFESTS {
        let body = manifest_of(number, manifest, &parts)?;
        let digest = writer.blob("container", &body)?;
        let mut reference = reference("container.manifest", digest, body.len(), number + manifest);
        reference.media_type = Some(MANIFEST.to_owned());
        reference.links = Some(links.clone());
        writer.reference(&format!("{base}/manifests/sha256/{}", digest.hex()), &reference, manifest)?;
        for tag in (manifest..REFS_A_REPOSITORY - MANIFESTS).step_by(usize::try_from(MANIFESTS)?) {
            let mut reference = Ref { kind: "container.tag".to_owned(), ..reference.clone() };
            reference.ttl_seconds = (tag % LASTING != 0).then_some(7 * 24 * 60 * 60);
            writer.reference(&format!("{base}/tags/v1.{tag}"), &reference, tag)?;
        }
    }
    Ok(())
}

/// A tag that never expires, as a client asks for it; nothing if it is not in the first proxy.
fn lasting_tag(place: u64) -> Outcome<Option<Item>> {
    let (repository, tag) = (place / LASTING_TAGS, place % LASTING_TAGS * LASTING);
    if proxy_of(repository) != PROXIES[0] {
        return Ok(None);
    }
    let body = manifest_of(repository, tag % MANIFESTS, &parts_of(repository))?;
    Ok(Some(Item {
        path: format!("/v2/{}/manifests/v1.{tag}", repository_name(repository)),
        size: body.len() as u64,
        digest: Digest::of(&body).hex(),
    }))
}

/// The container proxies; the first is the default one.
pub(crate) const PROXIES: [&str; 2] = ["hub", "mirror"];

/// The media type of every manifest here.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn proxy_of(repository: u64) -> &'static str {
    PROXIES[usize::from(repository % 5 == 4)]
}

fn repository_name(number: u64) -> String {
    format!("team-{}/app-{number}", number % 97)
}

fn parts_of(repository: u64) -> Vec<Vec<u8>> {
    (0..PARTS).map(|part| format!("part {part} of repository {repository}\n").into_bytes()).collect()
}

fn plain_of(file: u64) -> Vec<u8> {
    format!("plain file {file}\n").into_bytes()
}

fn large_of(number: u64) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(LARGE).unwrap_or_default()];
    SplitMix(number).fill(&mut bytes);
    bytes
}

fn manifest_of(repository: u64, manifest: u64, parts: &[Vec<u8>]) -> Outcome<Vec<u8>> {
    let describe = |part: &Vec<u8>, what: &str| {
        json!({
            "mediaType": format!("application/vnd.oci.image.{what}"),
            "digest": Digest::of(part).to_string(),
            "size": part.len(),
        })
    };
    let layers: Vec<_> = parts[1..].iter().map(|part| describe(part, "layer.v1.tar")).collect();
    Ok(serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": describe(&parts[0], "config.v1+json"),
        "layers": layers,
        "annotations": { "org.opencontainers.image.version": format!("{repository}.{manifest}") },
    }))?)
}

/// Fetched on one of 200 days; everything else is the caller's.
fn reference(kind: &str, digest: Digest, size: usize, number: u64) -> Ref {
    let day = i64::try_from(number % 200).unwrap_or_default();
    let epoch: Timestamp = EPOCH.parse().unwrap_or_default();
    let mut reference =
        Ref::new(kind.to_owned(), digest, size as u64, epoch + SignedDuration::from_hours(24 * day));
    reference.upstream = Some("registry.example.org".to_owned());
    reference
}

fn blob_path(of_type: &Path, hex: &str) -> PathBuf {
    of_type.join("blobs/sha256").join(&hex[..2]).join(&hex[2..4]).join(hex)
}

/// Writes refs and blobs.
struct Writer {
    root: PathBuf,
}

impl Writer {
    fn new(root: PathBuf) -> Outcome<Self> {
        for artifact_type in ["container", "generic"] {
            let config = root.join("type").join(artifact_type).join("config");
            fs::create_dir_all(&config)?;
            fs::write(config.join("FORMAT"), "1\n")?;
        }
        Ok(Self { root })
    }

    fn blob(&self, artifact_type: &str, bytes: &[u8]) -> Outcome<Digest> {
        let digest = Digest::of(bytes);
        let path = blob_path(&self.root.join("type").join(artifact_type), &digest.hex());
        place(&path, bytes, EPOCH.parse()?)?;
        Ok(digest)
    }

    /// Every other one was used a few days after it was fetched.
    fn reference(&self, key: &str, reference: &Ref, number: u64) -> Outcome<()> {
        let (artifact_type, rest) = key.split_once('/').ok_or("not a key")?;
        let path = self.root.join("type").join(artifact_type).join("proxies").join(format!("{rest}.json"));
        let days = if number.is_multiple_of(2) { 0 } else { 5 };
        let modified = reference.fetched_at + SignedDuration::from_hours(24 * days);
        place(&path, &reference.to_json(), modified)
    }
}

/// Writes a file that was last modified at a moment.
fn place(path: &Path, bytes: &[u8], modified: Timestamp) -> Outcome<()> {
    let create = || File::create(path);
    let mut file = create().or_else(|_| {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        create()
    })?;
    file.write_all(bytes)?;
    let time = Timespec { tv_sec: modified.as_second(), tv_nsec: 0 };
    Ok(rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?)
}
