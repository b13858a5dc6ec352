//! D: an index that is gone, damaged or locked; refs and blobs that are not what they should be.

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::StatusCode;
use repoxy::model::{Clock as _, SystemClock, Timestamp};
use serde_json::Value;

use crate::support::{Gate, Manifest, Origin, Repoxy, eventually, proxy};

/// A server with a stored image, and upstream gone.
async fn warm() -> (Origin, Repoxy, Manifest) {
    let origin = Origin::start().await;
    let repoxy = Repoxy::with(&proxy(&origin, "ttl = \"1h\""));
    let image = origin.image("library/app", "1.0", 2, 100_000);
    for path in std::iter::once(&image.path).chain(image.blobs.iter().map(|blob| &blob.path)) {
        assert_eq!(repoxy.get(path).await.status, StatusCode::OK);
    }
    // By its digest it gets a ref of its own, a moment later.
    assert_eq!(repoxy.get(&image.by_digest).await.status, StatusCode::OK);
    let refs = || repoxy.files("type/container/proxies/hub/refs").len();
    eventually("both refs are there", || refs() == 2).await;
    repoxy.stored(4).await;
    origin.stop().await;
    (origin, repoxy, image)
}

async fn assert_hits(repoxy: &Repoxy, image: &Manifest, rounds: usize) {
    for _ in 0..rounds {
        for (path, bytes) in [(&image.path, &image.bytes), (&image.by_digest, &image.bytes)] {
            assert_eq!(repoxy.get(path).await.bytes(), bytes);
        }
        for blob in &image.blobs {
            assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
        }
    }
}

/// What `ls refs` says once a rebuild has had its time.
async fn assert_listed(repoxy: &Repoxy, before: &[u8]) {
    assert!(!before.is_empty());
    let rebuilt = || repoxy.root().join("index/index.db").exists();
    eventually("an index is there again", rebuilt).await;
    let mut list = Vec::new();
    for _ in 0..100 {
        list = repoxy.run(&["ls", "refs", "--json"]).stdout;
        if list == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(String::from_utf8_lossy(&list), String::from_utf8_lossy(before));
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_losing_the_index_costs_no_request() {
    let (_origin, mut repoxy, image) = warm().await;
    let before = repoxy.run(&["ls", "refs", "--json"]).stdout;
    for _ in 0..2 {
        for file in repoxy.files("index") {
            // The write-ahead log may be gone by itself.
            let _ = std::fs::remove_file(file);
        }
        assert_hits(&repoxy, &image, 200).await;
        let catalogue = repoxy.get("/v2/_catalog").await;
        assert_eq!(catalogue.bytes(), &r#"{"repositories":["library/app"]}"#);
        assert_listed(&repoxy, &before).await;
    }
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    assert_hits(&repoxy, &image, 20).await;
    assert_listed(&repoxy, &before).await;
    // An older copy in its place knows less, and says that it knows all: while it runs, and at a start.
    replace_by_an_older_copy(&repoxy);
    assert_hits(&repoxy, &image, 200).await;
    assert_listed(&repoxy, &before).await;
    repoxy.kill();
    replace_by_an_older_copy(&repoxy);
    repoxy.start();
    assert_hits(&repoxy, &image, 200).await;
    assert_listed(&repoxy, &before).await;
    repoxy.assert_sound().await;
}

/// When a ref was used last, as `ls` says by its key.
fn last_uses(repoxy: &Repoxy) -> BTreeMap<String, Value> {
    let list = repoxy.run(&["ls", "refs", "--uses", "--json"]).stdout;
    let rows = list.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    let rows = rows.map(|line| serde_json::from_slice::<Value>(line).expect("JSON"));
    rows.map(|row| (row["ref"].as_str().expect("text").to_owned(), row["lastUsed"].clone())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_the_last_use_of_a_ref_is_its_files_mtime_and_outlives_the_index() {
    let (_origin, mut repoxy, image) = warm().await;
    assert_eq!(repoxy.terminate().code(), Some(0));
    let modified = |file: &Path| {
        let modified = file.metadata().and_then(|found| found.modified()).expect("there");
        Timestamp::try_from(modified).expect("a time")
    };
    let ago = |days: u64| SystemClock.now() - Duration::from_hours(24 * days);
    let (fetched, used_once) = (ago(11), ago(10));
    let refs = repoxy.files("type/container/proxies/hub/refs");
    for file in &refs {
        let mut text: Value = serde_json::from_slice(&std::fs::read(file).expect("ours")).expect("JSON");
        // Used so soon after it was fetched is merely written.
        text["fetchedAt"] = fetched.to_string().into();
        std::fs::write(file, text.to_string()).expect("ours");
        let opened = std::fs::OpenOptions::new().write(true).open(file).expect("ours");
        opened.set_modified(used_once.into()).expect("ours");
    }
    repoxy.start();
    let started = SystemClock.now();
    assert_eq!(repoxy.get(&image.by_digest).await.bytes(), &image.bytes);
    // What is not flushed by now is flushed at the end.
    assert_eq!(repoxy.terminate().code(), Some(0));
    let (unused, used): (Vec<_>, Vec<_>) = refs.iter().partition(|file| file.ends_with("tags/1.0.json"));
    assert_eq!((used.len(), unused.len()), (1, 1), "{refs:?}");
    assert!((started..=SystemClock.now()).contains(&modified(used[0])), "{:?}", modified(used[0]));
    assert_eq!(modified(unused[0]), used_once, "nobody has asked for it");

    let known = last_uses(&repoxy);
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    let reindex = repoxy.run(&["reindex"]);
    assert!(reindex.status.success(), "{reindex:?}");
    let told = last_uses(&repoxy);
    // Both are in the order of their paths.
    assert_eq!(told.len(), refs.len());
    for (file, (key, at)) in refs.iter().zip(&told) {
        let at: Timestamp = at.as_str().expect("a time").parse().expect("a time");
        assert_eq!(at, modified(file), "{key}");
    }
    let key =
        format!("container/hub/refs/library/app/manifests/{}", image.digest.to_string().replace(':', "/"));
    assert!(told.contains_key(&key), "{told:?}");
    assert_eq!(told[&key], known[&key], "to the moment");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs strace"]
async fn d11_a_rebuild_that_ends_in_the_middle_of_a_request_costs_none() {
    let origin = Origin::start().await;
    // Nothing is ready in memory, so that each request looks for what vouches for a layer.
    let mut repoxy = Repoxy::stopped(&format!("hot_bytes = \"0B\"\n{}", proxy(&origin, "ttl = \"1h\"")));
    // Most of a request's time is that for looking at files.
    repoxy.slow_down("openat2", 5000);
    repoxy.start();
    let image = origin.image("library/app", "1.0", 2, 10_000);
    for path in std::iter::once(&image.path).chain(image.blobs.iter().map(|blob| &blob.path)) {
        assert_eq!(repoxy.get(path).await.status, StatusCode::OK);
    }
    repoxy.stored(4).await;
    origin.stop().await;
    let (repoxy, over) = (Arc::new(repoxy), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (repoxy, image, over) = (Arc::clone(&repoxy), image.clone(), Arc::clone(&over));
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    for blob in &image.blobs {
                        assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
                    }
                }
            })
        })
        .collect();
    let index = repoxy.root().join("index");
    for _ in 0..10 {
        std::fs::remove_dir_all(&index).expect("removable");
        eventually("it is rebuilt", || is_complete(&index.join("index.db"))).await;
    }
    over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.expect("no request failed");
    }
    repoxy.assert_sound().await;
}

/// Whether there is an index, and a rebuild of it has ended.
fn is_complete(index: &Path) -> bool {
    let complete = |index: rusqlite::Connection| {
        index.query_row("SELECT value FROM meta WHERE key = 'complete'", [], |row| row.get::<_, i64>(0))
    };
    rusqlite::Connection::open_with_flags(index, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY)
        .and_then(complete)
        .is_ok_and(|complete| complete > 0)
}

/// Puts a copy of the index in its place that is complete, and without what has come since.
fn replace_by_an_older_copy(repoxy: &Repoxy) {
    let (index, copy) = (repoxy.root().join("index/index.db"), repoxy.dir().join("older.db"));
    let connection = rusqlite::Connection::open(&index).expect("an index");
    connection.execute("VACUUM INTO ?1", [copy.to_str().expect("text")]).expect("copied");
    drop(connection);
    let older = rusqlite::Connection::open(&copy).expect("a copy");
    older
        .execute_batch("DELETE FROM refs; DELETE FROM uses; DELETE FROM lists; DELETE FROM links")
        .expect("emptied");
    drop(older);
    std::fs::rename(copy, index).expect("replaced");
}

/// Overwrites a part of the index in place.
fn overwrite(index: &Path, at: u64, bytes: &[u8]) {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::OpenOptions::new().write(true).open(index).expect("an index");
    file.write_all_at(bytes, at).expect("writable");
}

#[tokio::test(flavor = "multi_thread")]
async fn d12_a_damaged_index_costs_no_request_and_is_set_aside() {
    let (_origin, mut repoxy, image) = warm().await;
    let before = repoxy.run(&["ls", "refs", "--json"]).stdout;
    let seed = RandomState::new().hash_one(());
    let damages: [fn(&Path, u64); 5] = [
        |index, _| overwrite(index, 0, &[0xA5; 4096]),
        |index, seed| {
            let pages = std::fs::metadata(index).expect("an index").len() / 4096;
            let mut random = seed;
            for _ in 0..20 {
                // Knuth's multiplier. Not the first page, which says what it is.
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                overwrite(index, 4096 * (1 + (random >> 33) % (pages - 1).max(1)), &[0x5A; 4096]);
            }
        },
        |index, _| {
            std::fs::OpenOptions::new()
                .write(true)
                .open(index)
                .and_then(|file| file.set_len(0))
                .expect("writable");
        },
        |index, _| std::fs::write(index, b"not a database at all").expect("writable"),
        |index, _| std::fs::write(index, vec![0; 100_000]).expect("writable"),
    ];
    for (round, damage) in damages.into_iter().enumerate() {
        tell(&format!("round {round} of d12 with seed {seed}"));
        // While it runs, and then once more before a start.
        damage(&repoxy.root().join("index/index.db"), seed);
        assert_hits(&repoxy, &image, 20).await;
        repoxy.kill();
        let index = repoxy.root().join("index/index.db");
        if index.exists() {
            damage(&index, !seed);
        }
        repoxy.start();
        assert_hits(&repoxy, &image, 20).await;
        assert_listed(&repoxy, &before).await;
        let aside = repoxy.files("index").into_iter().filter(|file| is_aside(file)).count();
        assert!(aside <= 3 * 3, "{aside} files in round {round}");
    }
    let aside = repoxy.files("index").into_iter().any(|file| is_aside(&file));
    assert!(aside, "for somebody to look at: {:?}", repoxy.files("index"));
    repoxy.assert_sound().await;
}

/// For whoever reads why a test failed.
#[expect(clippy::print_stderr, reason = "the test runner shows it if the test fails")]
fn tell(what: &str) {
    eprintln!("{what}");
}

/// Whether a file of the index directory is a damaged index that was kept.
fn is_aside(file: &Path) -> bool {
    file.file_name().is_some_and(|name| name.to_string_lossy().contains("corrupt"))
}

#[tokio::test(flavor = "multi_thread")]
async fn d13_a_locked_index_costs_nobody_anything() {
    let (origin, repoxy, image) = warm().await;
    let connection = rusqlite::Connection::open(repoxy.root().join("index/index.db")).expect("an index");
    connection.execute_batch("BEGIN IMMEDIATE").expect("nobody else has it for long");
    assert_hits(&repoxy, &image, 50).await;
    origin.restart().await;
    // Something new too: its row can wait, its answer cannot.
    let fresh = origin.image("library/app", "2.0", 1, 100_000);
    for path in [&fresh.path, &fresh.blobs[1].path] {
        let answer = tokio::time::timeout(Duration::from_secs(20), repoxy.get(path)).await;
        assert_eq!(answer.expect("not when the lock is released").status, StatusCode::OK);
    }
    origin.stop().await;
    for path in [&fresh.path, &fresh.blobs[1].path] {
        assert_eq!(repoxy.get(path).await.status, StatusCode::OK);
    }
    connection.execute_batch("ROLLBACK").expect("ours");
    repoxy.stored(6).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: a minute"]
async fn d13_an_index_that_is_locked_for_a_minute_costs_nobody_anything() {
    let (origin, repoxy, image) = warm().await;
    origin.restart().await;
    let connection = rusqlite::Connection::open(repoxy.root().join("index/index.db")).expect("an index");
    connection.execute_batch("BEGIN IMMEDIATE").expect("nobody else has it for long");
    let began = Instant::now();
    let mut fresh = Vec::new();
    while began.elapsed() < Duration::from_secs(60) {
        assert_hits(&repoxy, &image, 10).await;
        // What comes anew waits for its row alone.
        let new = origin.image("library/app", &format!("new{}", fresh.len()), 1, 10_000);
        let answer = tokio::time::timeout(Duration::from_secs(20), repoxy.get(&new.path)).await;
        assert_eq!(answer.expect("not when the lock is released").bytes(), &new.bytes);
        fresh.push(new);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    origin.stop().await;
    for new in &fresh {
        assert_eq!(repoxy.get(&new.path).await.bytes(), &new.bytes);
    }
    connection.execute_batch("ROLLBACK").expect("ours");
    let listed = || String::from_utf8_lossy(&repoxy.run(&["ls", "refs", "--json"]).stdout).lines().count();
    eventually("all rows are there", || listed() == fresh.len() + 2).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d14_a_ref_that_is_none_is_a_miss_and_a_finding_and_stops_gc() {
    let (origin, mut repoxy, image) = warm().await;
    origin.restart().await;
    let file = repoxy.root().join("type/container/proxies/hub/refs/library/app/tags/1.0.json");
    let whole = std::fs::read_to_string(&file).expect("a ref");
    let long = format!("{{\"x\":\"{}\"}}", "a".repeat(10 << 20));
    let future = whole.replacen('{', "{\"aFieldOfTheFuture\":{\"a\":[1]},", 1);
    for (bad, text) in [
        (true, ""),
        (true, "{"),
        (true, "[]"),
        (true, r#"{"kind":7,"targetDigest":[],"size":"x","fetchedAt":0}"#),
        (true, &long),
        (true, "\0\0\0\0\0\0\0\0"),
        (false, &future),
    ] {
        repoxy.kill();
        std::fs::write(&file, text).expect("writable");
        std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
        repoxy.start();
        let stored = repoxy.files("type/container/blobs");
        if bad {
            let fsck = repoxy.run(&["fsck"]);
            assert_eq!(fsck.status.code(), Some(3), "a finding: {text:.20}");
            assert!(String::from_utf8_lossy(&fsck.stdout).contains("tags/1.0.json"));
            let gc = repoxy.run(&["gc", "--grace", "0s", "--force"]);
            assert_eq!(gc.status.code(), Some(1), "{gc:?}");
            assert!(String::from_utf8_lossy(&gc.stderr).contains("tags/1.0.json"));
            assert_eq!(repoxy.files("type/container/blobs"), stored, "nothing was deleted");
            assert_eq!(std::fs::read_to_string(&file).expect("it is there"), *text, "nor was it");
        }
        let asked = origin.count("GET", &image.path);
        assert_eq!(repoxy.get(&image.path).await.bytes(), &image.bytes);
        assert_eq!(origin.count("GET", &image.path), asked + usize::from(bad));
        repoxy.assert_sound().await;
    }
}

/// Puts something that is not a file in the place of a blob: a finding, and a miss that nobody waits
/// for and that heals.
async fn in_the_way(make: fn(&Path)) {
    let (origin, mut repoxy, image) = warm().await;
    origin.restart().await;
    let blob = &image.blobs[1];
    let file = repoxy.blob_file(&blob.digest.hex());
    repoxy.kill();
    std::fs::remove_file(&file).expect("it is there");
    make(&file);
    repoxy.start();
    let limit = Duration::from_secs(60);
    let fsck = repoxy.command(&["fsck", "--read-data"]).output();
    assert_eq!(fsck.expect("it runs").status.code(), Some(3), "a finding");
    let got = tokio::time::timeout(limit, repoxy.get(&blob.path)).await.expect("it does not hang");
    assert_eq!(got.bytes(), &blob.bytes);
    eventually("it is a file again", || file.symlink_metadata().is_ok_and(|found| found.is_file())).await;
    origin.stop().await;
    assert_eq!(repoxy.get(&blob.path).await.bytes(), &blob.bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn d15_a_fifo_in_the_place_of_a_blob_is_a_miss_and_nobody_waits_for_it() {
    in_the_way(|file| {
        let made = std::process::Command::new("mkfifo").arg(file).status().expect("mkfifo");
        assert!(made.success());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d15_a_symlink_in_the_place_of_a_blob_is_a_miss() {
    in_the_way(|file| std::os::unix::fs::symlink("/etc/passwd", file).expect("writable")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d15_a_directory_in_the_place_of_a_blob_is_a_miss() {
    in_the_way(|file| std::fs::create_dir(file).expect("writable")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d15_a_file_that_may_not_be_read_is_a_miss() {
    use std::os::unix::fs::PermissionsExt as _;
    let (origin, mut repoxy, image) = warm().await;
    origin.restart().await;
    let blob = &image.blobs[1];
    let file = repoxy.blob_file(&blob.digest.hex());
    repoxy.kill();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o0)).expect("ours");
    // Whoever runs the tests, the server has no power over files beyond their modes.
    let drop =
        ["unshare", "--map-root-user", "setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"];
    repoxy.run_under(&drop);
    repoxy.start();
    let got = repoxy.get(&blob.path).await;
    assert_eq!(got.bytes(), &blob.bytes);
    assert!(repoxy.log().contains("refused to open"), "it was tried");
}

#[tokio::test(flavor = "multi_thread")]
async fn d16_a_root_of_two_file_systems_is_refused() {
    let origin = Origin::start().await;
    let mut repoxy = Repoxy::with(&proxy(&origin, ""));
    repoxy.get("/v2/library/app/manifests/1.0").await;
    repoxy.kill();
    for below in ["type/container/proxies/hub/tmp", "type/container/blobs", "type/container/trash"] {
        let dir = repoxy.root().join(below);
        std::fs::create_dir_all(&dir).expect("writable");
        let plain = repoxy.command(&["serve"]);
        let script = "mount -t tmpfs none \"$0\" && exec \"$@\"";
        let output = std::process::Command::new("unshare")
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .arg(&dir)
            .arg(plain.get_program())
            .args(plain.get_args())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("unshare");
        assert!(!output.status.success(), "{below}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("error: ") && said.contains("file system"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d18_what_a_limit_on_file_sizes_does_not_let_in_is_passed_through() {
    let origin = Origin::start().await;
    let mut repoxy = Repoxy::stopped(&proxy(&origin, "ttl = \"1h\""));
    repoxy.run_under(&["prlimit", "--fsize=1048576"]);
    repoxy.start();
    let small = origin.blob("library/app", 500_000);
    let large = origin.blob("library/app", 4 << 20);
    assert_eq!(repoxy.get(&small.path).await.bytes(), &small.bytes);
    for _ in 0..3 {
        assert_eq!(repoxy.get(&large.path).await.bytes(), &large.bytes);
        assert_eq!(repoxy.get(&small.path).await.bytes(), &small.bytes);
    }
    repoxy.stored(1).await;
    repoxy.assert_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d20_two_servers_on_one_root_serve_what_either_has_pulled() {
    let origin = Origin::start().await;
    let config = proxy(&origin, "ttl = \"1h\"");
    let first = Repoxy::with(&config);
    let mut second = Repoxy::stopped(&config);
    second.set_env("REPOXY_ROOT", first.root().to_str().expect("text"));
    second.start();
    let images: Vec<_> = (0..10).map(|n| origin.image("library/app", &format!("v{n}"), 1, 50_000)).collect();
    let gate = Gate::closed();
    origin.on(&images[0].blobs[1].path).hold_after(10_000, &gate).always();
    // The same at the same time, and different things at different times.
    let servers = Arc::new([first, second]);
    let mut pulls = tokio::task::JoinSet::new();
    for (n, image) in images.iter().cloned().enumerate() {
        for server in 0..2 {
            let (servers, image) = (Arc::clone(&servers), image.clone());
            pulls.spawn(async move {
                let server = &servers[(n + server) % 2];
                assert_eq!(server.get(&image.path).await.bytes(), &image.bytes);
                for blob in &image.blobs {
                    assert_eq!(server.get(&blob.path).await.bytes(), &blob.bytes);
                }
            });
        }
    }
    let over = Arc::new(AtomicBool::new(false));
    let collector = {
        let (servers, over) = (Arc::clone(&servers), Arc::clone(&over));
        tokio::task::spawn_blocking(move || {
            while !over.load(Ordering::SeqCst) {
                let gc = servers[0].run(&["gc", "--grace", "0s", "--force"]);
                assert_eq!(gc.status.code(), Some(0), "{gc:?}");
            }
        })
    };
    gate.open();
    pulls.join_all().await;
    over.store(true, Ordering::SeqCst);
    collector.await.expect("no panic");
    origin.stop().await;
    for image in &images {
        for server in &*servers {
            assert_eq!(server.get(&image.path).await.bytes(), &image.bytes);
        }
    }
    // Two readings a moment apart may leave the row of the one beside the file of the other: mended,
    // not broken.
    let fsck = servers[0].run(&["fsck", "--read-data", "--repair"]);
    assert!(String::from_utf8_lossy(&fsck.stdout).contains(" 0 errors"), "{fsck:?}");
    servers[0].assert_sound().await;
}
