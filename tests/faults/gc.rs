//! E: gc, fsck and reindex beside a server that goes on, and beside each other.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Blob, Gate, Manifest, Origin, Repoxy, eventually, proxy};

const NOTHING: [PathBuf; 0] = [];
pub(crate) const GC: [&str; 4] = ["gc", "--grace", "0s", "--force"];

/// A server with a stored image.
async fn warm(origin: &Origin) -> (Repoxy, Manifest) {
    let repoxy = Repoxy::with(&format!("hot_bytes = \"0B\"\n{}", proxy(origin, "ttl = \"1h\"")));
    let image = origin.image("library/app", "1.0", 2, 100_000);
    pull(&repoxy, &image).await;
    repoxy.stored(4).await;
    (repoxy, image)
}

/// Pulls an image as clients do, and checks every byte.
async fn pull(repoxy: &Repoxy, image: &Manifest) {
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    for blob in &image.blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    }
}

/// Takes every ref away, as an operator does who wants names to be asked for anew; the server is told
/// by the index that has gone too.
fn forget_refs(repoxy: &mut Repoxy) {
    repoxy.kill();
    for below in ["type/container/proxies/hub/refs", "index"] {
        let _ = std::fs::remove_dir_all(repoxy.root().join(below));
    }
    repoxy.start();
}

/// A command under strace, which does something to it.
pub(crate) fn traced(repoxy: &Repoxy, inject: &str, arguments: &[&str]) -> Command {
    let plain = repoxy.command(arguments);
    let call = inject.split(':').next().expect("a call");
    let mut command = Command::new("strace");
    command.args(["-D", "-f", "-qq", "-e", &format!("trace={call}"), "-e", &format!("inject={inject}")]);
    command.args(["-o", "/dev/null"]).arg(plain.get_program()).args(plain.get_args());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs gc to its end without holding the runtime up.
pub(crate) async fn finish(child: Child) -> std::process::Output {
    tokio::task::spawn_blocking(|| child.wait_with_output().expect("it ends")).await.expect("no panic")
}

/// Runs gc, which dawdles before each of some calls, beside a server that is asked for an image again
/// meanwhile: nothing that was acknowledged may be lost, not to this run and not to the next.
async fn dawdling(call: &str, condemned_before: bool) {
    let origin = Origin::start().await;
    let (mut repoxy, image) = warm(&origin).await;
    forget_refs(&mut repoxy);
    if condemned_before {
        assert!(repoxy.run(&GC).status.success());
        assert_eq!(repoxy.files("type/container/blobs"), NOTHING);
    }
    let gc = traced(&repoxy, &format!("{call}:delay_enter=300000"), &GC).spawn().expect("strace");
    // Whenever it is asked, before, between and after the steps of the run.
    for _ in 0..6 {
        pull(&repoxy, &image).await;
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    let gc = finish(gc).await;
    assert!(gc.status.success(), "{gc:?}");
    // The blobs came from disk, and stay although upstream is gone by now.
    for blob in &image.blobs {
        assert_eq!(origin.count("GET", &blob.path), 1, "{call}");
    }
    origin.stop().await;
    for _ in 0..2 {
        pull(&repoxy, &image).await;
        assert!(repoxy.run(&GC).status.success());
    }
    pull(&repoxy, &image).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn e1_what_is_used_again_while_gc_condemns_it_is_kept() {
    dawdling("renameat2,renameat", false).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn e2_what_is_used_again_while_gc_reaps_it_is_kept() {
    dawdling("unlinkat", true).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn e2_what_is_reaped_before_its_ref_is_written_is_not_acknowledged() {
    let origin = Origin::start().await;
    let image = origin.image("library/app", "1.0", 0, 0);
    let mut repoxy = Repoxy::stopped(&proxy(&origin, "ttl = \"1h\""));
    // Refs are renamed over what is there, and late.
    repoxy.slow_down("renameat", 2_000_000);
    repoxy.start();
    let (url, client) = (format!("{}{}", repoxy.url(), image.path), repoxy.client().clone());
    let asked = tokio::spawn(async move { client.get(url).send().await.expect("an answer").bytes().await });
    eventually("its blob is there", || repoxy.files("type/container/blobs").len() == 1).await;
    // Two runs in between, where the machine is quick enough: nothing names the blob yet.
    for _ in 0..2 {
        assert!(repoxy.run(&GC).status.success());
    }
    assert_eq!(asked.await.expect("no panic").expect("whole"), image.bytes);
    origin.stop().await;
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    repoxy.assert_sound().await;
}

/// Runs gc again and again beside something else that goes on; nothing of an image may be lost.
async fn beside(runs: usize, mut act: impl FnMut(&Path, usize) + Send + 'static) {
    let origin = Origin::start().await;
    let (mut repoxy, image) = warm(&origin).await;
    repoxy.kill();
    let tags = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags");
    let over = Arc::new(AtomicBool::new(false));
    let actor = {
        let over = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut round = 0;
            while !over.load(Ordering::SeqCst) {
                act(&tags, round);
                round += 1;
                std::thread::sleep(Duration::from_millis(2));
            }
            round
        })
    };
    for run in 0..runs {
        // Half of them without what the index knows, for the files alone have to do.
        if run % 2 == 0 {
            let _ = std::fs::remove_dir_all(repoxy.root().join("index"));
        }
        let gc = repoxy.run(&GC);
        assert!(gc.status.success(), "{gc:?}");
        for digest in image.blobs.iter().map(|blob| blob.digest).chain([image.digest]) {
            let hex = digest.hex();
            let live = repoxy.blob_file(&hex).exists();
            let condemned = || repoxy.files("type/container/trash").iter().any(|file| file.ends_with(&hex));
            assert!(live || condemned() || repoxy.blob_file(&hex).exists(), "{hex} is lost after run {run}");
        }
    }
    over.store(true, Ordering::SeqCst);
    assert!(actor.join().expect("no panic") > runs, "it went on beside gc");
    origin.stop().await;
    assert!(repoxy.run(&GC).status.success());
    repoxy.start();
    let tags: BTreeSet<_> =
        repoxy.files("type/container/proxies/hub/refs/library/app/tags").into_iter().collect();
    for tag in &tags {
        let tag = tag.file_stem().expect("a name").to_string_lossy().into_owned();
        assert_eq!(repoxy.get(&format!("/v2/library/app/manifests/{tag}")).await.bytes(), &image.bytes);
    }
    assert!(!tags.is_empty());
    for blob in &image.blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    }
}

/// Writes a ref as a writer does: whole or not at all.
fn publish(dir: &Path, name: &str, text: &[u8]) {
    // Beside `refs/`, where nobody looks for refs.
    let staged = dir.ancestors().nth(4).expect("a proxy").join("staged");
    std::fs::write(&staged, text).expect("writable");
    std::fs::rename(staged, dir.join(name)).expect("one file system");
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_a_ref_that_moves_from_tag_to_tag_is_never_overlooked() {
    beside(60, |tags, round| {
        let (from, to) = if round % 2 == 0 { ("1.0.json", "zz.json") } else { ("zz.json", "1.0.json") };
        let text = std::fs::read(tags.join(from)).expect("a ref");
        publish(tags, to, &text);
        std::fs::remove_file(tags.join(from)).expect("it is there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_a_ref_that_is_written_again_and_again_is_never_overlooked() {
    beside(60, |tags, _| {
        let text = std::fs::read(tags.join("1.0.json")).expect("a ref");
        publish(tags, "1.0.json", &text);
    })
    .await;
}

/// A blob that no ref names.
fn stray(repoxy: &Repoxy, content: &str) -> PathBuf {
    let file = repoxy.blob_file(&repoxy::model::Digest::of(content.as_bytes()).hex());
    std::fs::create_dir_all(file.parent().expect("a shard")).expect("writable");
    std::fs::write(&file, content).expect("writable");
    file
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn e5_a_gc_that_is_killed_at_any_step_is_completed_by_the_next() {
    let origin = Origin::start().await;
    let (repoxy, image) = warm(&origin).await;
    for call in ["renameat2", "renameat", "unlinkat", "linkat", "mkdirat"] {
        for n in 1..=4 {
            let strays: Vec<_> = (0..3).map(|k| stray(&repoxy, &format!("{call} {n} {k}"))).collect();
            // The first run condemns, the second reaps; either may die on the way.
            for _ in 0..2 {
                let gc =
                    traced(&repoxy, &format!("{call}:signal=KILL:when={n}"), &GC).spawn().expect("strace");
                finish(gc).await;
            }
            for _ in 0..2 {
                let gc = repoxy.run(&GC);
                assert!(gc.status.success(), "{call} {n}: {gc:?}");
            }
            assert!(strays.iter().all(|file| !file.exists()), "{call} {n}");
            assert_eq!(repoxy.files("type/container/trash"), NOTHING, "{call} {n}");
            assert_eq!(repoxy.files("type/container/blobs").len(), 4, "{call} {n}: what is named stays");
        }
    }
    origin.stop().await;
    pull(&repoxy, &image).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn e6_two_runs_at_once_are_safe_with_and_without_locks() {
    let origin = Origin::start().await;
    let (repoxy, image) = warm(&origin).await;
    let repoxy = Arc::new(repoxy);
    for locks in [true, false] {
        for round in 0..10 {
            let file = stray(&repoxy, &format!("{locks} {round}"));
            let runs = (0..2).map(|_| {
                // As on a file system where a lock is never refused.
                let inject = if locks { "flock:delay_exit=1" } else { "flock:retval=0" };
                finish(traced(&repoxy, inject, &GC).spawn().expect("strace"))
            });
            let running: Vec<_> = runs.map(tokio::spawn).collect();
            pull(&repoxy, &image).await;
            for run in running {
                let run = run.await.expect("no panic");
                // Without them a run may be robbed of its staging directory, which ends it and harms nothing.
                let fine: &[i32] = if locks { &[0, 11] } else { &[0, 1] };
                assert!(run.status.code().is_some_and(|code| fine.contains(&code)), "{run:?}");
            }
            for _ in 0..2 {
                assert!(repoxy.run(&GC).status.success());
            }
            assert!(!file.exists());
        }
    }
    origin.stop().await;
    pull(&repoxy, &image).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_streams_of_a_blob_go_on_when_it_is_condemned_and_reaped() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    // More than what fits into socket buffers on the way.
    let blob = origin.blob("library/app", 16 << 20);
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    repoxy.stored(1).await;
    let mut streams = Vec::new();
    for _ in 0..20 {
        let mut answer = repoxy.open(Method::GET, &blob.path, &[]).await;
        let first = answer.chunk().await.expect("it flows").expect("some bytes");
        streams.push((answer, first.to_vec()));
    }
    std::fs::remove_dir_all(repoxy.root().join("type/container/proxies/hub/refs")).expect("removable");
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    for _ in 0..2 {
        assert!(repoxy.run(&GC).status.success());
    }
    assert_eq!(repoxy.files("type/container/blobs"), NOTHING);
    assert_eq!(repoxy.files("type/container/trash"), NOTHING);
    for (mut answer, mut body) in streams {
        while let Some(bytes) = answer.chunk().await.expect("it goes on") {
            body.extend_from_slice(&bytes);
        }
        assert!(body == blob.bytes, "{} bytes", body.len());
    }
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes, "and a new request is a miss");
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_gc_stops_at_a_manifest_that_nobody_can_read() {
    let origin = Origin::start().await;
    let (mut repoxy, image) = warm(&origin).await;
    repoxy.kill();
    stray(&repoxy, "to be condemned");
    // A ref that does not say what its target links, as one written by hand; and a target that is none.
    let file = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags/1.0.json");
    let text = std::fs::read_to_string(&file).expect("a ref");
    let mut json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    json.as_object_mut().expect("an object").remove("links");
    std::fs::write(&file, json.to_string()).expect("writable");
    std::fs::write(repoxy.blob_file(&image.digest.hex()), vec![b'{'; image.bytes.len()]).expect("writable");
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    let before = repoxy.files("type");
    let gc = repoxy.run(&GC);
    assert_eq!(gc.status.code(), Some(1), "{gc:?}");
    assert!(String::from_utf8_lossy(&gc.stderr).contains("library/app/tags/1.0"), "{gc:?}");
    assert_eq!(repoxy.files("type"), before, "nothing was condemned");
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_gc_does_the_same_whatever_has_become_of_the_index() {
    let origin = Origin::start().await;
    let (mut repoxy, _) = warm(&origin).await;
    repoxy.kill();
    stray(&repoxy, "to be condemned");
    let plan = |repoxy: &Repoxy| {
        let gc = repoxy.run(&["gc", "--grace", "0s", "--dry-run", "--json"]);
        assert!(gc.status.success(), "{gc:?}");
        let text = String::from_utf8_lossy(&gc.stdout).into_owned();
        // What it was just about to take out of `tmp/`, one that is killed may leave there.
        let told = text.lines().filter(|line| !line.contains("\"summary\"") && !line.contains("\"staging\""));
        told.map(str::to_owned).collect::<Vec<_>>()
    };
    let healthy = plan(&repoxy);
    assert_eq!(healthy.len(), 1, "the stray alone: {healthy:?}");
    let index = repoxy.root().join("index/index.db");
    std::fs::write(&index, b"not a database at all").expect("writable");
    assert_eq!(plan(&repoxy), healthy, "damaged");
    std::fs::write(&index, b"").expect("writable");
    assert_eq!(plan(&repoxy), healthy, "empty");
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    assert_eq!(plan(&repoxy), healthy, "gone");
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_a_gc_that_is_suspended_for_a_while_takes_nothing_that_was_used_meanwhile() {
    let origin = Origin::start().await;
    let (mut repoxy, image) = warm(&origin).await;
    for round in 0..8_u64 {
        forget_refs(&mut repoxy);
        let mut gc = repoxy.command(&GC);
        let gc = gc.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let pid = Pid::from_raw(i32::try_from(gc.id()).expect("a process id")).expect("a process id");
        // Somewhere in the run; it may have ended already.
        tokio::time::sleep(Duration::from_millis(round * 7)).await;
        let _ = kill_process(pid, Signal::STOP);
        pull(&repoxy, &image).await;
        let _ = kill_process(pid, Signal::CONT);
        let gc = finish(gc).await;
        assert!(gc.status.success(), "{gc:?}");
        let asked = origin.total();
        pull(&repoxy, &image).await;
        assert_eq!(origin.total(), asked, "all of it is there, in round {round}");
    }
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn e11_fsck_does_not_set_aside_the_good_copy_that_came_meanwhile() {
    let origin = Origin::start().await;
    let (mut repoxy, image) = warm(&origin).await;
    repoxy.kill();
    let blob: &Blob = &image.blobs[1];
    let file = repoxy.blob_file(&blob.digest.hex());
    for delay in [0, 100, 200, 300] {
        std::fs::remove_file(&file).expect("it is there");
        std::fs::write(&file, vec![0; blob.bytes.len()]).expect("writable");
        let arguments = ["fsck", "--read-data", "--repair"];
        let inject = "renameat2,renameat,linkat,unlinkat:delay_enter=150000";
        let fsck = traced(&repoxy, inject, &arguments).spawn().expect("strace");
        tokio::time::sleep(Duration::from_millis(delay)).await;
        // As a server publishes a blob in the place of a damaged one.
        let staged = repoxy.root().join("staged");
        std::fs::write(&staged, &blob.bytes).expect("writable");
        std::fs::create_dir_all(file.parent().expect("a shard")).expect("writable");
        std::fs::rename(&staged, &file).expect("one file system");
        finish(fsck).await;
        assert_eq!(std::fs::read(&file).expect("it is there"), blob.bytes, "after {delay} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_reindex_under_load_costs_no_request() {
    let origin = Origin::start().await;
    let (repoxy, image) = warm(&origin).await;
    let before = repoxy.run(&["ls", "refs", "--json"]).stdout;
    origin.stop().await;
    let repoxy = Arc::new(repoxy);
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (repoxy, image, over) = (Arc::clone(&repoxy), image.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                let mut pulls = 0;
                while !over.load(Ordering::SeqCst) {
                    pull(&repoxy, &image).await;
                    pulls += 1;
                }
                pulls
            })
        })
        .collect();
    for _ in 0..10 {
        let repoxy = Arc::clone(&repoxy);
        let reindex = tokio::task::spawn_blocking(move || repoxy.run(&["reindex"]));
        let reindex = reindex.await.expect("no panic");
        assert!(reindex.status.success(), "{reindex:?}");
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        assert!(client.await.expect("no request failed") > 0);
    }
    assert_eq!(repoxy.run(&["ls", "refs", "--json"]).stdout, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn e13_gc_leaves_alone_what_is_still_being_downloaded() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let blob = origin.blob("library/app", 4 << 20);
    let gate = Gate::closed();
    origin.on(&blob.path).hold_after(1 << 20, &gate).once();
    let answer = repoxy.open(Method::GET, &blob.path, &[]).await;
    assert_eq!(answer.status(), StatusCode::OK);
    let partial = || {
        repoxy
            .files("type/container/proxies/hub/tmp")
            .into_iter()
            .filter(|file| !file.ends_with(".alive"))
            .count()
    };
    eventually("its file is made", || partial() == 1).await;
    for _ in 0..3 {
        assert!(repoxy.run(&GC).status.success());
    }
    assert_eq!(partial(), 1, "its owner lives");
    gate.open();
    assert_eq!(answer.bytes().await.expect("it goes on"), blob.bytes);
    repoxy.stored(1).await;
    repoxy.assert_sound().await;
}

/// Everything about the files of a root that a run could change; SQLite keeps house in its own when it
/// merely reads.
fn tree(repoxy: &Repoxy) -> Vec<(PathBuf, Vec<u8>, SystemTime)> {
    let index = repoxy.root().join("index");
    let files = repoxy.files("").into_iter().filter(|file| !file.starts_with(&index));
    let files = files.map(|file| {
        let modified = file.metadata().and_then(|found| found.modified()).expect("readable");
        (file.clone(), std::fs::read(&file).expect("readable"), modified)
    });
    files.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn e15_a_dry_run_changes_nothing_and_says_what_the_run_then_does() {
    let origin = Origin::start().await;
    let (mut repoxy, _) = warm(&origin).await;
    repoxy.kill();
    for content in ["one", "two", "three"] {
        stray(&repoxy, content);
    }
    let lines = |arguments: &[&str]| {
        let gc = repoxy.run(&[&["gc", "--grace", "0s", "--json"], arguments].concat());
        assert!(gc.status.success(), "{gc:?}");
        let text = String::from_utf8_lossy(&gc.stdout).into_owned();
        text.lines().filter(|line| !line.contains("\"summary\"")).map(str::to_owned).collect::<BTreeSet<_>>()
    };
    for round in 0..2 {
        let before = tree(&repoxy);
        let planned = lines(&["--dry-run"]);
        assert_eq!(tree(&repoxy), before, "round {round}");
        assert_eq!(planned.len(), 3, "condemned, then reaped");
        assert_eq!(lines(&[]), planned, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e16_a_run_that_would_take_most_of_all_refs_is_refused() {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let images: Vec<_> = (0..5).map(|n| origin.image("library/app", &format!("v{n}"), 0, 0)).collect();
    for image in &images {
        repoxy.get(&image.path).await;
    }
    repoxy.stored(5).await;
    let tags = repoxy.files("type/container/proxies/hub/refs/library/app/tags");
    // Three of five were last used long ago. A running server knows better, so this one stops.
    let mut repoxy = repoxy;
    assert_eq!(repoxy.terminate().code(), Some(0));
    let written = tags[0].metadata().and_then(|found| found.modified()).expect("readable");
    let long_ago = written - Duration::from_secs(10 * 86_400);
    for tag in &tags[..3] {
        std::fs::File::options()
            .write(true)
            .open(tag)
            .and_then(|file| file.set_modified(long_ago))
            .expect("ours");
    }
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    let unused = ["gc", "--unused-for", "1d"];
    let refused = repoxy.run(&unused);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert_eq!(repoxy.files("type/container/proxies/hub/refs/library/app/tags"), tags);
    assert!(repoxy.run(&[&unused[..], &["--force"]].concat()).status.success());
    assert_eq!(repoxy.files("type/container/proxies/hub/refs/library/app/tags"), tags[3..]);
}
