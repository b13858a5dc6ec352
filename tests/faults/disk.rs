//! D: a disk that is full, broken or read-only.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;

use http::StatusCode;

use crate::support::{Got, Manifest, Origin, Repoxy, eventually, proxy, sha512};

pub(super) const MIB: usize = 1 << 20;
const NOTHING: [PathBuf; 0] = [];

/// Starts a server whose root is a file system of its own, in memory and seen by this process alone.
pub(super) fn on_tmpfs(mut repoxy: Repoxy, options: &str) -> Repoxy {
    within_tmpfs(&mut repoxy, options);
    repoxy.start();
    repoxy
}

/// From the next start on a server's root is such a file system, with a copy of what is there now.
pub(super) fn within_tmpfs(repoxy: &mut Repoxy, options: &str) {
    let seed = repoxy.dir().join("seed");
    std::fs::create_dir_all(repoxy.root()).expect("writable");
    std::fs::rename(repoxy.root(), &seed).expect("writable");
    std::fs::create_dir(repoxy.root()).expect("writable");
    let script = format!(
        "mount -t tmpfs -o {options},mode=0750 none \"$0\" && cp -a \"$1/.\" \"$0\" && shift && exec \"$@\""
    );
    let (root, seed) = (repoxy.root(), seed.to_str().expect("text").to_owned());
    let root = root.to_str().expect("text");
    repoxy.run_under(&["unshare", "--map-root-user", "--mount", "sh", "-c", &script, root, &seed]);
}

/// A server that is not started yet, and looks at no disk: it has to be told by it.
fn stopped(origin: &Origin) -> Repoxy {
    Repoxy::stopped(&proxy(origin, "ttl = \"1h\""))
}

/// A path below the root as the server sees it.
pub(super) fn inside(repoxy: &Repoxy, below: &str) -> PathBuf {
    let root = format!("/proc/{}/root{}", repoxy.pid().as_raw_nonzero(), repoxy.root().display());
    Path::new(&root).join(below)
}

/// Runs a program where the server sees its file systems.
fn beside(repoxy: &Repoxy, program: &[&str]) -> Output {
    let target = repoxy.pid().as_raw_nonzero().to_string();
    let mut command = std::process::Command::new("nsenter");
    command.args(["--target", &target, "--user", "--mount", "--preserve-credentials"]).args(program);
    command.stdin(std::process::Stdio::null()).output().expect("nsenter")
}

/// Runs `repoxy` there.
fn run_beside(repoxy: &Repoxy, arguments: &[&str]) -> Output {
    let plain = repoxy.command(arguments);
    let words = std::iter::once(plain.get_program()).chain(plain.get_args());
    let words: Vec<_> = words.map(|word| word.to_str().expect("text")).collect();
    beside(repoxy, &words)
}

/// The files below a directory.
pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let Ok(entries) = std::fs::read_dir(dir) else { return files };
    for entry in entries {
        // What goes meanwhile is not there.
        let Ok(entry) = entry else { continue };
        let path = entry.path();
        if path.is_dir() { files.append(&mut self::files(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Pulls an image into a server and waits until it is stored.
async fn pulled(origin: &Origin, repoxy: &Repoxy) -> Manifest {
    let image = origin.image("library/app", "1.0", 1, 200_000);
    for path in [&image.path, &image.blobs[0].path, &image.blobs[1].path] {
        assert_eq!(repoxy.get(path).await.status, StatusCode::OK);
    }
    let blobs = inside(repoxy, "type/container/blobs");
    eventually("the image is stored", || files(&blobs).len() >= 3).await;
    image
}

async fn assert_hits(repoxy: &Repoxy, image: &Manifest) {
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    for blob in &image.blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    }
    assert_eq!(repoxy.get("/-/ready").await.status, StatusCode::OK);
}

/// Asks for something large that cannot be stored: it comes whole, hits go on, and nothing stays behind.
async fn assert_no_harm(origin: &Origin, repoxy: &Repoxy, image: &Manifest, size: usize) {
    let stored = files(&inside(repoxy, "type/container/blobs"));
    let blob = origin.blob("library/app", size);
    for _ in 0..3 {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        assert_hits(repoxy, image).await;
    }
    assert_eq!(files(&inside(repoxy, "type/container/blobs")), stored);
    let partial = inside(repoxy, "type/container/proxies/hub/tmp");
    eventually("the partial file goes", || files(&partial).iter().all(|file| file.ends_with(".alive"))).await;
}

/// Counts the fetches that were not stored.
const UNSTORED: &str = "repoxy_unstored_total{proxy=\"container/hub\"}";

/// Clients get what upstream has, stored or not, each time anew once it is known not to be kept; it is counted, and
/// the log says why.
pub(super) async fn assert_passed_through(origin: &Origin, repoxy: &Repoxy, size: usize) {
    let blob = origin.blob("library/app", size);
    let other = origin.image("library/other", "1.0", 1, 10);
    for times in 1..=2_u8 {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        assert_eq!(origin.count("GET", &blob.path), usize::from(times));
        // Small content is written behind its clients.
        repoxy.metric_reaches(UNSTORED, f64::from(times)).await;
    }
    assert!(repoxy.log().contains("could not be stored and is passed on"));
    assert_eq!(repoxy.get(&other.path).await.bytes(), &other.bytes);
    assert_eq!(repoxy.get("/-/ready").await.status, StatusCode::OK);
}

/// Asks for a document that cannot be stored, twice: it is not claimed to be, and upstream is asked each time.
async fn assert_document_passed(origin: &Origin, repoxy: &Repoxy) {
    let image = origin.image("library/unstored", "1.0", 1, 100);
    let before = repoxy.metric(UNSTORED).await;
    for times in 1..=2 {
        let got = repoxy.get(&image.path).await;
        assert_eq!(got.bytes(), &image.bytes);
        assert_eq!(got.header("cache-status"), "repoxy; fwd=miss; fwd-status=200");
        assert_eq!(got.header("docker-content-digest"), image.digest.to_string());
        assert_eq!(origin.count("GET", &image.path), times, "nothing remembers it");
    }
    assert!(repoxy.metric(UNSTORED).await >= before + 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_full_disk_takes_nothing_from_hits_and_leaves_nothing_half() {
    let origin = Origin::start().await;
    let repoxy = on_tmpfs(stopped(&origin), "size=8m");
    let image = pulled(&origin, &repoxy).await;
    assert_no_harm(&origin, &repoxy, &image, 20 * MIB).await;
    // There is room again: what failed is not remembered.
    let fits = origin.blob("library/app", MIB);
    assert_eq!(repoxy.get(&fits.path).await.bytes(), &fits.bytes);
    assert!(run_beside(&repoxy, &["fsck", "--read-data"]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_with_a_full_disk_misses_are_passed_through() {
    let origin = Origin::start().await;
    let repoxy = on_tmpfs(stopped(&origin), "size=8m");
    pulled(&origin, &repoxy).await;
    assert_passed_through(&origin, &repoxy, 20 * MIB).await;
}

/// Clients that ask for the same at once.
async fn together(repoxy: &Arc<Repoxy>, path: &str, count: usize) -> Vec<Got> {
    let clients: Vec<_> = (0..count)
        .map(|_| {
            let (repoxy, path) = (Arc::clone(repoxy), path.to_owned());
            tokio::spawn(async move { repoxy.get(&path).await })
        })
        .collect();
    let mut got = Vec::new();
    for client in clients {
        got.push(client.await.expect("no panic"));
    }
    got
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_with_a_full_disk_many_clients_of_one_blob_all_get_its_bytes() {
    let origin = Origin::start().await;
    let repoxy = Arc::new(on_tmpfs(stopped(&origin), "size=8m"));
    for size in [20 * MIB, 9 * MIB] {
        let blob = origin.blob("library/app", size);
        for got in together(&repoxy, &blob.path, 8).await {
            assert_eq!(got.bytes(), &blob.bytes);
        }
    }
    assert_eq!(files(&inside(&repoxy, "type/container/blobs")), NOTHING);
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_with_a_full_disk_a_flipped_bit_is_cut_and_never_completed() {
    let origin = Origin::start().await;
    let repoxy = on_tmpfs(stopped(&origin), "size=8m");
    let size = 20 * MIB;
    // In what was stored for a while, in what was not, and at the very end.
    for at in [500, 15 * MIB, size - 1] {
        let blob = origin.blob("library/app", size);
        origin.on(&blob.path).flip(at as u64).once();
        assert!(repoxy.get(&blob.path).await.body.is_err(), "wrong at {at}");
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes, "the next try is clean");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_with_a_full_disk_content_named_by_another_checksum_is_passed_through() {
    let origin = Origin::start().await;
    let repoxy = on_tmpfs(stopped(&origin), "size=8m");
    for size in [20 * MIB, 9 * MIB] {
        let bytes = origin.blob("library/app", size).bytes;
        let path = format!("/v2/library/app/blobs/{}", sha512(&bytes));
        origin.file(&path, "application/octet-stream", bytes.clone());
        assert_eq!(repoxy.get(&path).await.bytes(), &bytes);
    }
}

/// Takes every inode but a few.
fn exhaust_inodes(repoxy: &Repoxy) {
    let dir = inside(repoxy, "filler");
    std::fs::create_dir_all(&dir).expect("one more");
    let taken = (0..100_000).take_while(|n| std::fs::write(dir.join(n.to_string()), b"").is_ok()).count();
    assert!(taken < 100_000, "they have an end");
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_disk_without_inodes_takes_nothing_from_hits() {
    let origin = Origin::start().await;
    let repoxy = on_tmpfs(stopped(&origin), "size=64m,nr_inodes=400");
    let image = pulled(&origin, &repoxy).await;
    exhaust_inodes(&repoxy);
    assert_no_harm(&origin, &repoxy, &image, MIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_without_inodes_misses_are_passed_through() {
    let origin = Origin::start().await;
    let repoxy = on_tmpfs(stopped(&origin), "size=64m,nr_inodes=400");
    pulled(&origin, &repoxy).await;
    exhaust_inodes(&repoxy);
    assert_passed_through(&origin, &repoxy, MIB).await;
}

/// A server of which every call of a kind fails from its next start on; its root has been made before.
fn failing(config: &str, calls: &str, error: &str) -> Repoxy {
    let mut repoxy = Repoxy::with(config);
    repoxy.kill();
    let trace = repoxy.dir().join("trace");
    let (what, inject) = (format!("trace={calls}"), format!("inject={calls}:error={error}"));
    let trace = trace.to_str().expect("text");
    repoxy.run_under(&["strace", "-D", "-f", "-qq", "-y", "-e", &what, "-e", &inject, "-o", trace]);
    repoxy
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn d4_a_ref_that_cannot_be_written_costs_no_answer_and_no_older_ref() {
    let origin = Origin::start().await;
    let old = origin.image("library/app", "1.0", 1, 100);
    // Refs are renamed over what is there, blobs are not.
    let mut repoxy = failing(&proxy(&origin, "ttl = \"0s\""), "renameat", "ENOSPC");
    let mut plain = Repoxy::stopped(&proxy(&origin, "ttl = \"0s\""));
    plain.set_env("REPOXY_ROOT", repoxy.root().to_str().expect("text"));
    plain.start();
    plain.get(&old.path).await;
    plain.kill();
    let file = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags/1.0.json");
    let before = std::fs::read_to_string(&file).expect("a ref");
    let new = origin.image("library/app", "1.0", 2, 100);
    repoxy.start();
    for _ in 0..2 {
        let got = repoxy.get(&new.path).await;
        assert_eq!((got.status, got.bytes()), (StatusCode::OK, &new.bytes));
    }
    assert!(repoxy.blob_file(&new.digest.hex()).exists(), "the blob stays");
    assert_eq!(std::fs::read_to_string(&file).expect("a ref"), before);
    assert!(repoxy.log().contains("could not write a ref"), "it was tried");
    repoxy.kill();
    assert!(repoxy.run(&["fsck", "--read-data"]).status.success());
}

/// Pulls one large blob while a call fails that publishing needs: the client has its bytes, nothing
/// is published, and the log says why.
async fn unpublished(calls: &str, error: &str) -> Repoxy {
    let origin = Origin::start().await;
    let blob = origin.blob("library/app", MIB);
    let mut repoxy = failing(&proxy(&origin, "ttl = \"1h\""), calls, error);
    // The server that was killed may have left a file of its own.
    let staged = "type/container/proxies/hub/tmp";
    let before = repoxy.files(staged);
    repoxy.start();
    for times in 1..=2 {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        // From then on nobody joins the first, whose end the next would share.
        let failures = || repoxy.log().matches("could not be stored and is passed on").count();
        eventually("the log says why", || failures() >= times).await;
    }
    assert_eq!(repoxy.files("type/container/blobs"), NOTHING);
    let partial =
        || repoxy.files(staged).into_iter().any(|file| !file.ends_with(".alive") && !before.contains(&file));
    eventually("the partial file goes", || !partial()).await;
    repoxy
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn d5_what_cannot_be_synced_is_not_published_and_not_synced_again() {
    let mut repoxy = unpublished("fsync", "EIO").await;
    repoxy.kill();
    let trace = std::fs::read_to_string(repoxy.dir().join("trace")).expect("a trace");
    let synced: Vec<_> =
        trace.lines().filter(|line| line.contains("fsync(") && line.contains(".part")).collect();
    let mut files: Vec<_> =
        synced.iter().map(|line| line.split(['<', '>']).nth(1).expect("a path")).collect();
    assert!(files.len() >= 2, "{trace}");
    let all = files.len();
    files.sort_unstable();
    files.dedup();
    assert_eq!(files.len(), all, "{synced:?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn d6_what_cannot_be_renamed_is_not_published() {
    for error in ["EIO", "EXDEV"] {
        unpublished("renameat2", error).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn d6_a_manifest_that_cannot_be_published_is_passed_through() {
    for (calls, error) in [("renameat2", "EIO"), ("fsync", "EIO")] {
        let origin = Origin::start().await;
        let mut repoxy = failing(&proxy(&origin, "ttl = \"1h\""), calls, error);
        repoxy.start();
        assert_document_passed(&origin, &repoxy).await;
        assert_eq!(repoxy.files("type/container/proxies/hub/refs"), NOTHING);
    }
}

/// A server whose root was filled before and can be written to no longer.
async fn read_only(origin: &Origin) -> (Repoxy, Manifest) {
    let (mut repoxy, image) = at_rest(origin).await;
    let script = "mount --bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let root = repoxy.root();
    let root = root.to_str().expect("text");
    repoxy.run_under(&["unshare", "--map-root-user", "--mount", "sh", "-c", script, root]);
    repoxy.start();
    (repoxy, image)
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_a_read_only_root_serves_its_hits_and_gc_changes_nothing() {
    let origin = Origin::start().await;
    let (repoxy, image) = read_only(&origin).await;
    let all = repoxy.files("");
    assert_no_harm(&origin, &repoxy, &image, MIB).await;
    let gc = run_beside(&repoxy, &["gc", "--grace", "0s"]);
    assert!(!gc.status.success(), "{gc:?}");
    assert_eq!(repoxy.files(""), all);
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_on_a_read_only_root_misses_are_passed_through() {
    let origin = Origin::start().await;
    let (repoxy, _) = read_only(&origin).await;
    assert_passed_through(&origin, &repoxy, MIB).await;
    assert_document_passed(&origin, &repoxy).await;
}

/// A stored image, the server stopped; memory and index are of no help to the next one.
pub(super) async fn at_rest(origin: &Origin) -> (Repoxy, Manifest) {
    let mut repoxy = Repoxy::with(&proxy(origin, "ttl = \"1h\""));
    let image = origin.image("library/app", "1.0", 2, 300_000);
    for path in std::iter::once(&image.path).chain(image.blobs.iter().map(|blob| &blob.path)) {
        assert_eq!(repoxy.get(path).await.status, StatusCode::OK);
    }
    repoxy.stored(4).await;
    repoxy.kill();
    (repoxy, image)
}
