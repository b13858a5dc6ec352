//! D17: the power goes while there is much to write. A file system of its own, in a file, is shut down as
//! a power cut would (`EXT4_IOC_SHUTDOWN`, which XFS calls `XFS_IOC_GOINGDOWN`), and mounted again.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::StatusCode;

use crate::support::{Manifest, Origin, Repoxy, eventually, proxy};

/// The smallest file system that `mkfs.xfs` makes; the file has holes.
const DISK_BYTES: u64 = 320 << 20;
const IMAGES: usize = 50;
const AT_A_TIME: usize = 16;
/// The file systems, by what makes them.
const MAKERS: [&[&str]; 2] = [&["mkfs.ext4", "-q", "-F"], &["mkfs.xfs", "-q", "-f"]];
/// What becomes of the file system's log: what is in memory of it reaches the disk still, or is lost.
const LOG_KEPT: &str = "1";
const LOG_LOST: &str = "2";

/// Mounts the disk, seen by the server alone, and becomes the server: image, root, program.
const MOUNT: &str = r#"mount -o loop "$0" "$1" || exit
rmdir "$1/lost+found" 2> /dev/null
chmod 750 "$1"
shift
exec "$@""#;

/// Shuts a file system down: a directory in it, and what becomes of its log.
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', int(sys.argv[2])))";

fn ran(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// A server whose root is on a disk of its own, and the file that is this disk.
fn on_a_disk(origin: &Origin, maker: &[&str]) -> (Repoxy, PathBuf) {
    let found = ran("losetup", &["--find"]);
    assert!(found.status.success(), "this machine gives no loop device (are we root?): {found:?}");
    let mut repoxy = Repoxy::stopped(&proxy(origin, "ttl = \"1h\""));
    let disk = repoxy.dir().join("disk");
    std::fs::File::create(&disk).and_then(|file| file.set_len(DISK_BYTES)).expect("writable");
    let (root, path) = (repoxy.root(), disk.to_str().expect("text"));
    std::fs::create_dir(&root).expect("writable");
    let made = ran(maker[0], &[&maker[1..], &[path]].concat());
    assert!(made.status.success(), "{made:?}");
    repoxy.run_under(&["unshare", "--mount", "sh", "-c", MOUNT, path, root.to_str().expect("text")]);
    (repoxy, disk)
}

/// Waits until nobody has the disk mounted any more: to mount it twice would damage it.
async fn released(disk: &Path) {
    let disk = disk.to_str().expect("text");
    eventually("the disk is free", || ran("losetup", &["--associated", disk]).stdout.is_empty()).await;
}

/// Runs the binary on the disk, which nobody else may have mounted; it must succeed.
async fn run(repoxy: &Repoxy, disk: &Path, arguments: &[&str]) -> String {
    let output = repoxy.run_wrapped(arguments);
    released(disk).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// A full check finds no more than what a crash leaves.
async fn assert_sound(repoxy: &Repoxy, disk: &Path) {
    let said = run(repoxy, disk, &["fsck", "--read-data", "--json"]).await;
    let summary: serde_json::Value =
        said.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect("JSON");
    assert_eq!((&summary["errors"], &summary["warnings"]), (&0.into(), &0.into()), "{said}");
}

/// What clients ask of an image, and what they must get.
fn parts(image: &Manifest) -> impl Iterator<Item = (&str, &Bytes)> {
    let blobs = image.blobs.iter().map(|blob| (blob.path.as_str(), &blob.bytes));
    std::iter::once((image.path.as_str(), &image.bytes)).chain(blobs)
}

/// Pulls an image as far as it can be had: what is whole must be right. Counts what is.
async fn pull(repoxy: &Repoxy, image: &Manifest, whole: &AtomicUsize) {
    for (path, bytes) in parts(image) {
        let got = repoxy.get(path).await;
        if let (StatusCode::OK, Ok(body)) = (got.status, &got.body) {
            assert!(body == bytes, "{path}");
            whole.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn pull_all(repoxy: &Repoxy, images: &[Manifest], whole: &AtomicUsize) {
    let pulls = futures_util::stream::iter(images);
    pulls.for_each_concurrent(AT_A_TIME, |image| pull(repoxy, image, whole)).await;
}

/// Lets the power go when clients have got so much.
async fn power_is_cut(maker: &[&str], log: &str, after: usize) {
    let origin = Origin::start().await;
    let images: Vec<_> =
        (0..IMAGES).map(|n| origin.image(&format!("library/app{n}"), "1.0", 3, 60_000)).collect();
    let (mut repoxy, disk) = on_a_disk(&origin, maker);
    repoxy.start();

    let whole = AtomicUsize::new(0);
    let cut = async {
        eventually("clients have got so much", || whole.load(Ordering::SeqCst) >= after).await;
        let root = format!("/proc/{}/root{}", repoxy.pid().as_raw_nonzero(), repoxy.root().display());
        let shut = ran("python3", &["-c", SHUT_DOWN, &root, log]);
        assert!(shut.status.success(), "{shut:?}");
    };
    tokio::join!(pull_all(&repoxy, &images, &whole), cut);
    repoxy.kill();
    released(&disk).await;

    assert_sound(&repoxy, &disk).await;
    run(&repoxy, &disk, &["reindex"]).await;
    assert_sound(&repoxy, &disk).await;

    // Only what is on the disk can be had now.
    origin.stop().await;
    repoxy.start();
    let kept = AtomicUsize::new(0);
    pull_all(&repoxy, &images, &kept).await;
    assert!(kept.load(Ordering::SeqCst) > 0, "{maker:?} {log} {after}: what is synced is there");
    repoxy.kill();
    released(&disk).await;

    origin.restart().await;
    repoxy.start();
    let all = AtomicUsize::new(0);
    pull_all(&repoxy, &images, &all).await;
    assert_eq!(all.load(Ordering::SeqCst), images.iter().flat_map(parts).count());
    assert!(repoxy.terminate().success());
    released(&disk).await;
    assert_sound(&repoxy, &disk).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a dozen power cuts; needs root and a loop device"]
async fn d17_after_a_power_cut_the_store_is_sound_and_gives_no_wrong_byte() {
    for maker in MAKERS {
        for log in [LOG_KEPT, LOG_LOST] {
            for after in [20, 80, 160] {
                power_is_cut(maker, log, after).await;
            }
        }
    }
}
