//! D3, and the limit of `gc.max_bytes`: room is made before there is none, and what cannot have any is
//! passed through before anything is written.

use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use http::StatusCode;

use crate::disk::{assert_passed_through, files, inside, on_tmpfs, within_tmpfs};
use crate::support::{Manifest, Origin, Repoxy, eventually, proxy};

const MIB: usize = 1 << 20;
const REFS: &str = "type/container/proxies/hub/refs";
const EVICTED: &str = "repoxy_evicted_refs_total";

/// What makes a server leave so much of its disk free.
fn leaving(free: &str, origin: &Origin) -> String {
    format!("{}\n[gc]\nmin_free = \"{free}\"\n", proxy(origin, "ttl = \"1h\""))
}

async fn pull(repoxy: &Repoxy, image: &Manifest) {
    assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
    for blob in &image.blobs {
        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
    }
}

/// The files below directories and their bytes. What has two names, because it is being moved, is there once.
fn below(dirs: &[PathBuf]) -> HashMap<u64, u64> {
    let all = dirs.iter().flat_map(|dir| files(dir));
    // What goes while it is looked at is not there.
    all.filter_map(|file| file.metadata().ok()).map(|file| (file.ino(), file.len())).collect()
}

/// Bytes of all files below a directory.
fn bytes_below(dir: &Path) -> u64 {
    below(&[dir.to_owned()]).values().sum()
}

/// Makes refs look as if they had last been used days ago.
fn age(root: &Path, repository: &str, days: u32) {
    let dir = root.join(REFS).join(repository);
    let refs: Vec<PathBuf> = files(&dir);
    assert!(!refs.is_empty(), "{}", dir.display());
    let touched =
        Command::new("touch").arg(format!("--date=-{days} days")).args(&refs).status().expect("touch runs");
    assert!(touched.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_when_the_disk_runs_short_what_is_cold_goes_and_what_is_in_use_stays() {
    let origin = Origin::start().await;
    let images: Vec<_> = ["cold", "colder", "warm"]
        .map(|name| origin.image(&format!("library/{name}"), "1.0", 1, 2 * MIB))
        .into();
    let [cold, colder, warm] = images.as_slice() else { unreachable!() };
    // More than there is, so that everything would have to go.
    let mut repoxy = Repoxy::stopped(&leaving("80%", &origin));
    repoxy.set_env("REPOXY_GC_MIN_FREE", "0");
    repoxy.start();
    for image in &images {
        pull(&repoxy, image).await;
    }
    repoxy.stored(9).await;
    assert!(repoxy.terminate().success());
    age(&repoxy.root(), "library/cold", 2);
    age(&repoxy.root(), "library/colder", 3);
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("there is one");

    // The same store on a disk that is too small for what it is to leave free.
    repoxy.set_env("REPOXY_GC_MIN_FREE", "");
    within_tmpfs(&mut repoxy, "size=24m");
    repoxy.start();
    let blobs = inside(&repoxy, "type/container/blobs");
    eventually("what is cold has gone", || bytes_below(&blobs) < 3 * MIB as u64).await;
    eventually("their refs have gone", || files(&inside(&repoxy, REFS)).len() < 4).await;
    let asked = origin.total();
    pull(&repoxy, warm).await;
    assert_eq!(origin.total(), asked, "what is in use is still there");
    for image in [cold, colder] {
        pull(&repoxy, image).await;
    }
    assert!(origin.total() > asked);
    assert_eq!(repoxy.get("/-/ready").await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_what_the_disk_has_no_room_for_is_passed_through_and_nothing_of_it_is_written() {
    let origin = Origin::start().await;
    let mut repoxy = Repoxy::stopped(&leaving("8MiB", &origin));
    repoxy.set_env("REPOXY_GC_MIN_FREE", "");
    let repoxy = on_tmpfs(repoxy, "size=16m");
    let image = origin.image("library/app", "1.0", 1, MIB);
    pull(&repoxy, &image).await;
    let blobs = inside(&repoxy, "type/container/blobs");
    eventually("the image is stored", || files(&blobs).len() == 3).await;

    // It would fit, but then less than two fifths of what is to stay free would be left.
    let large = origin.blob("library/app", 13 * MIB);
    let staging = inside(&repoxy, "type/container/proxies/hub/tmp");
    let (most, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let watch = watch(vec![staging], &most, &over);
    assert_eq!(repoxy.get(&large.path).await.bytes(), &large.bytes);
    over.store(true, Ordering::SeqCst);
    watch.join().expect("no panic");
    assert!(most.load(Ordering::SeqCst) < MIB as u64, "{most:?} bytes were written");
    assert_eq!(files(&blobs).len(), 3);
    assert_passed_through(&origin, &repoxy, 13 * MIB).await;
    assert_eq!(repoxy.metric(EVICTED).await.to_bits(), 0.0_f64.to_bits(), "all that is there is in use");
    pull(&repoxy, &image).await;
}

/// Looks again and again until it is over; the most bytes that were there at one time. Looking takes a while,
/// in which one may go and another come: what is there in two looks was there between them.
fn watch(dirs: Vec<PathBuf>, most: &Arc<AtomicU64>, over: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (most, over) = (Arc::clone(most), Arc::clone(over));
    std::thread::spawn(move || {
        let mut before = HashMap::new();
        while !over.load(Ordering::SeqCst) {
            let now = below(&dirs);
            let both = before.iter().filter_map(|(file, bytes)| Some(*now.get(file)?.min(bytes)));
            most.fetch_max(both.sum(), Ordering::SeqCst);
            before = now;
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_a_limit_holds_while_far_more_is_pulled_than_it_lets_in() {
    const LIMIT: u64 = 8 << 20;
    const AT_A_TIME: usize = 8;
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&format!("{}\n[gc]\nmax_bytes = \"8MiB\"\n", proxy(&origin, "ttl = \"1h\"")));
    let images: Vec<_> = (0..64).map(|n| origin.image(&format!("library/app{n}"), "1.0", 1, MIB)).collect();

    let places =
        ["trash", "blobs", "proxies/hub/tmp"].map(|below| repoxy.root().join("type/container").join(below));
    let (most, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
    let watch = watch(places.to_vec(), &most, &over);
    for _ in 0..2 {
        let pulls = futures_util::stream::iter(&images);
        pulls.for_each_concurrent(AT_A_TIME, |image| pull(&repoxy, image)).await;
    }
    over.store(true, Ordering::SeqCst);
    watch.join().expect("no panic");
    assert!(most.load(Ordering::SeqCst) <= LIMIT, "{most:?} bytes");
    // Half as many as fit at least: it is a cache still.
    assert!(most.load(Ordering::SeqCst) > LIMIT / 2, "{most:?} bytes");

    // Room was made for those that had to be passed through, so that the next ones stay.
    let new = origin.image("library/new", "1.0", 1, MIB);
    let stays = async {
        loop {
            let (evicted, asked) = (repoxy.metric(EVICTED).await, origin.total());
            pull(&repoxy, &new).await;
            if evicted > 0.0 && origin.total() == asked {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), stays)
        .await
        .expect("room is made, and what is new is kept");
    repoxy.becomes_sound().await;
}
