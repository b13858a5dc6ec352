//! The store as others see it, over every backend.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use tempfile::TempDir;

use super::staged_tests::follow;
use super::*;
use crate::model::Algorithm;

pub(super) const TYPE: ArtifactType = ArtifactType::Container;

/// A new store of every kind, and the directories that they are in.
pub(super) async fn stores() -> (Vec<Store>, TempDir) {
    let home = tempfile::tempdir().expect("a directory");
    let local = Store::create(home.path().join("root").to_str().expect("text")).await.expect("a root");
    (vec![Store::create("mem://").await.expect("a root"), local], home)
}

fn key(path: &str) -> RefKey {
    format!("container/hub/{path}").parse().expect(path)
}

pub(super) fn proxy() -> ProxyId {
    key("refs/x").proxy
}

fn reference(content: &[u8]) -> Ref {
    let digest = Digest::of(content);
    let json = format!(
        r#"{{"kind":"container.tag","targetDigest":"{digest}","size":{},"fetchedAt":"2025-11-09T12:34:56Z"}}"#,
        content.len()
    );
    Ref::parse(json.as_bytes()).expect("a ref")
}

async fn publish(store: &Store, content: &[u8]) -> Digest {
    let mut staged = store.stage(&proxy(), None, &[]).await;
    staged.write(Bytes::copy_from_slice(content)).await.expect("written");
    let sealed = staged.seal(&[]).await.expect("sealed");
    let digest = sealed.digest;
    sealed.publish().await.expect("published");
    digest
}

async fn collect<T: Send + 'static>(mut scan: Scan<T>) -> Vec<T> {
    let mut all = Vec::new();
    while let Some(page) = scan.next_page().await {
        all.extend(page.expect("a page"));
    }
    all
}

/// Everything that is visible or staged, but for what says that a store is open.
pub(super) async fn everything(store: &Store) -> BTreeSet<String> {
    let scan = Scan::start(Arc::clone(&store.backend), vec![layout::types()], None, Some);
    let mut all: BTreeSet<_> = collect(scan).await.into_iter().map(|entry| entry.path.to_string()).collect();
    all.retain(|path| !path.ends_with("/FORMAT") && !path.ends_with("/.alive"));
    all
}

#[tokio::test]
async fn a_root_is_made_once_and_found_again() {
    let home = tempfile::tempdir().expect("a directory");
    let path = home.path().join("a b/root");
    let text = path.to_str().expect("text");
    assert!(matches!(Store::open(text).await, Err(StoreError::NoStore(_))));
    std::fs::create_dir_all(&path).expect("made");
    assert!(matches!(Store::open(text).await, Err(StoreError::NoStore(_))), "a directory is not a store");
    let store = Store::create(text).await.expect("made");
    store.write_ref(&key("refs/a"), &reference(b"x")).await.expect("written");
    drop(store);
    for root in [text.to_owned(), url::Url::from_file_path(&path).expect("a URL").to_string()] {
        for store in [Store::open(&root).await, Store::create(&root).await] {
            let store = store.expect("opened");
            assert_eq!(store.local_dir(), Some(path.as_path()));
            assert!(store.read_ref(&key("refs/a")).await.expect("read").is_some());
        }
    }
    assert_eq!(std::fs::read_to_string(path.join("type/tf/config/FORMAT")).expect("there"), "1\n");
    let staging = std::fs::read_dir(path.join("type/tf/config/tmp")).expect("there");
    assert_eq!(staging.count(), 0, "a store that is closed leaves no staging directory");
}

#[tokio::test]
async fn a_root_of_a_later_version_or_of_no_known_kind_is_refused() {
    let home = tempfile::tempdir().expect("a directory");
    let root = home.path().to_str().expect("text");
    drop(Store::create(root).await.expect("made"));
    for (content, hint) in [("2\n", "layout version 2"), ("", "does not state"), ("one", "does not state")] {
        std::fs::write(home.path().join("type/debian/config/FORMAT"), content).expect("written");
        for opened in [Store::open(root).await, Store::create(root).await] {
            let error = opened.expect_err("refused").to_string();
            assert!(error.contains(hint) && error.contains("type/debian/config/FORMAT"), "{error}");
        }
    }
    for root in ["s3://bucket", "file://relative/path", "http://x"] {
        assert!(matches!(Store::create(root).await, Err(StoreError::Unusable { .. })), "{root}");
    }
    assert!(matches!(Store::open("mem://").await, Err(StoreError::NoStore(_))));
}

#[tokio::test]
async fn stores_in_memory_are_independent() {
    let (one, other) =
        (Store::create("mem://").await.expect("made"), Store::create("mem://").await.expect("made"));
    one.write_ref(&key("refs/a"), &reference(b"x")).await.expect("written");
    assert!(other.read_ref(&key("refs/a")).await.expect("read").is_none());
    assert!(one.clone().read_ref(&key("refs/a")).await.expect("read").is_some());
}

#[tokio::test]
async fn refs_written_by_hand_are_read_and_served_from() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/refs");
    let home = tempfile::tempdir().expect("a directory");
    for file in [
        "type/container/proxies/hub/refs/library/alpine/tags/3.20.json",
        "type/tf/proxies/x/refs/providers/hashicorp/aws/linux_amd64/5.0.0.json",
    ] {
        let to = home.path().join(file);
        std::fs::create_dir_all(to.parent().expect("a parent")).expect("made");
        std::fs::copy(fixtures.join(file), to).expect("copied");
    }
    let store = Store::open(home.path().to_str().expect("text")).await.expect("opened");
    for (text, kind) in [
        ("container/hub/refs/library/alpine/tags/3.20", "container.tag"),
        ("tf/x/refs/providers/hashicorp/aws/linux_amd64/5.0.0", "tf.provider"),
    ] {
        let key: RefKey = text.parse().expect(text);
        let read = store.read_ref(&key).await.expect("read").expect("there");
        assert_eq!((read.kind.as_str(), read.target_digest), (kind, Digest::of(b"x")));
        let scanned = collect(store.scan_refs(&key.proxy)).await;
        assert_eq!(scanned.len(), 1);
        assert_eq!(scanned[0].key.as_ref(), Some(&key));
        assert_eq!(scanned[0].reference.as_ref().expect("a ref"), &read);
    }
    let proxies = store.proxies().await.expect("listed");
    assert_eq!(proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["container/hub", "tf/x"]);
}

#[tokio::test]
async fn a_ref_is_written_replaced_touched_and_removed() {
    let (stores, _home) = stores().await;
    for store in stores {
        let key = key("refs/library/alpine/tags/Latest");
        for content in [&b"one"[..], b"two"] {
            store.write_ref(&key, &reference(content)).await.expect("written");
            assert_eq!(store.read_ref(&key).await.expect("read"), Some(reference(content)));
        }
        let then: Timestamp = "2024-02-29T00:00:00Z".parse().expect("a time");
        store.touch_ref(&key, then).await.expect("touched");
        let scanned = collect(store.scan_refs(&key.proxy)).await;
        assert_eq!(scanned.iter().map(|entry| entry.modified).collect::<Vec<_>>(), [then]);
        assert!(store.remove_ref(&key).await.expect("removed"));
        assert!(!store.remove_ref(&key).await.expect("removed"));
        store.touch_ref(&key, then).await.expect("no error");
        assert_eq!(everything(&store).await, BTreeSet::new());
    }
}

#[tokio::test]
async fn what_is_not_a_ref_is_told_apart_from_what_is_not_there() {
    let (stores, _home) = stores().await;
    for store in stores {
        let staging = layout::staging(&proxy());
        let too_long = format!("{}{}", "{}", " ".repeat(usize::try_from(Ref::MAX_LEN).expect("fits")));
        for content in ["", "{", "[]", "{}", &too_long] {
            let path = layout::path_of(&key("refs/a"));
            store.backend.put(&path, &staging, Bytes::from(content.to_owned())).await.expect("put");
            let read = store.read_ref(&key("refs/a")).await;
            assert!(matches!(read, Err(StoreError::BadRef { .. })), "{read:?}");
            let scanned = collect(store.scan_refs(&proxy())).await;
            assert!(matches!(scanned[0].reference, Err(StoreError::BadRef { .. })));
            assert_eq!(scanned[0].key, Some(key("refs/a")));
        }
        let endless = Ref { kind: "x".repeat(5 << 20), ..reference(b"x") };
        assert!(matches!(store.write_ref(&key("refs/a"), &endless).await, Err(StoreError::BadRef { .. })));
    }
}

#[tokio::test]
async fn a_scan_shows_every_area_and_what_does_not_belong() {
    let (stores, _home) = stores().await;
    for store in stores {
        let mut expected = BTreeSet::new();
        for path in ["refs/a/b", "refs/C", "meta/a", "cache/a"] {
            store.write_ref(&key(path), &reference(b"x")).await.expect("written");
            expected.insert(Some(key(path)));
        }
        let foreign = ObjectPath::new("type/container/proxies/hub/refs/Upper.json".into());
        let json = reference(b"y").to_json();
        store.backend.put(&foreign, &layout::staging(&proxy()), json.into()).await.expect("put");
        let scanned = collect(store.scan_refs(&proxy())).await;
        let stray = scanned.iter().find(|entry| entry.key.is_none()).expect("shown");
        assert_eq!(stray.path, foreign.as_str());
        assert_eq!(stray.reference.as_ref().expect("a ref"), &reference(b"y"));
        expected.insert(None);
        assert_eq!(scanned.into_iter().map(|entry| entry.key).collect::<BTreeSet<_>>(), expected);
    }
}

#[tokio::test]
async fn bytes_that_are_staged_can_be_followed_and_become_a_blob() {
    let (stores, _home) = stores().await;
    let content: Vec<u8> = (0..5_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let claims = [Checksum::from(Digest::of(&content)), sha512_of(&content)];
    for store in stores {
        let mut staged = store.stage(&proxy(), Some(5_000_000), &claims).await;
        assert!(staged.is_empty());
        let follower = follow(&staged, usize::MAX);
        for chunk in content.chunks(70_001) {
            staged.write(Bytes::copy_from_slice(chunk)).await.expect("written");
        }
        staged.write(Bytes::new()).await.expect("written");
        assert_eq!(staged.len(), 5_000_000);
        let sealed = staged.seal(&claims).await.expect("sealed");
        assert_eq!((sealed.digest, sealed.size), (Digest::of(&content), 5_000_000));
        assert!(store.open_blob(TYPE, &sealed.digest, None).expect("open").is_none(), "not yet");
        let digest = sealed.digest;
        let blob = sealed.publish().await.expect("published");
        assert_eq!(blob.read_at(0, usize::MAX).expect("read"), content);
        let opened = store.open_blob(TYPE, &digest, Some(5_000_000)).expect("open").expect("there");
        assert_eq!(opened.read_at(4_999_999, 10).expect("read"), content[4_999_999..]);
        assert!(follower.await.expect("ran") == content);
        assert!(store.open_blob(ArtifactType::Tf, &digest, None).expect("open").is_none(), "types are apart");
    }
}

pub(super) fn sha512_of(content: &[u8]) -> Checksum {
    use sha2::Digest as _;
    let mut text = String::from("sha512:");
    for byte in sha2::Sha512::digest(content) {
        write!(text, "{byte:02x}").expect("written");
    }
    text.parse().expect("a checksum")
}

#[tokio::test]
async fn bytes_that_are_not_what_was_claimed_leave_nothing_behind() {
    let (stores, _home) = stores().await;
    for store in stores {
        let wrong = [Checksum::from(Digest::of(b"other")), sha512_of(b"other")];
        for claim in &wrong {
            for announced in [&wrong[..], &[]] {
                let mut staged = store.stage(&proxy(), None, announced).await;
                staged.write("bytes".into()).await.expect("written");
                match staged.seal(std::slice::from_ref(claim)).await {
                    Err(StoreError::Mismatch { actual, expected }) => {
                        assert_eq!((actual, &expected), (Digest::of(b"bytes"), claim));
                    }
                    sealed => panic!("{sealed:?}"),
                }
            }
        }
        let mut staged = store.stage(&proxy(), Some(6), &[]).await;
        staged.write("bytes".into()).await.expect("written");
        let sealed = staged.seal(&[]).await;
        assert!(matches!(sealed, Err(StoreError::Length { actual: 5, expected: 6 })), "{sealed:?}");

        drop(store.stage(&proxy(), None, &[]).await);
        let mut staged = store.stage(&proxy(), None, &[]).await;
        staged.write("bytes".into()).await.expect("written");
        drop(staged.seal(&[]).await.expect("sealed"));
        assert_eq!(everything(&store).await, BTreeSet::new());
    }
}

#[tokio::test]
async fn a_sha512_that_nobody_announced_is_checked_all_the_same() {
    let (stores, _home) = stores().await;
    for store in stores {
        let mut staged = store.stage(&proxy(), None, &[]).await;
        for _ in 0..10 {
            staged.write(vec![7; 100_000].into()).await.expect("written");
        }
        let claim = sha512_of(&vec![7; 1_000_000]);
        assert_eq!(claim.algorithm(), Algorithm::Sha512);
        staged.seal(&[claim]).await.expect("sealed");
    }
}

#[tokio::test]
async fn an_empty_or_cut_file_is_no_blob_unless_it_must_be_empty() {
    let (stores, _home) = stores().await;
    for store in stores {
        let digest = publish(&store, b"0123456789").await;
        assert!(store.open_blob(TYPE, &digest, Some(10)).expect("open").is_some());
        assert!(store.open_blob(TYPE, &digest, Some(9)).expect("open").is_none());
        let (path, staging) = (layout::blob(TYPE, &digest), layout::staging(&proxy()));
        store.backend.put(&path, &staging, Bytes::new()).await.expect("put");
        assert!(store.open_blob(TYPE, &digest, None).expect("open").is_none());
        assert!(store.ensure_live(TYPE, &digest, None).await.expect("open").is_none());
        publish(&store, b"0123456789").await;
        assert!(store.open_blob(TYPE, &digest, Some(10)).expect("open").is_some(), "replaced");

        let empty = publish(&store, b"").await;
        assert_eq!(store.open_blob(TYPE, &empty, Some(0)).expect("open").expect("there").size(), 0);
    }
}

#[tokio::test]
async fn a_condemned_blob_comes_back_for_a_writer_and_for_gc() {
    let (stores, _home) = stores().await;
    for store in stores {
        let digest = publish(&store, b"bytes").await;
        assert_eq!(store.condemn(&[(TYPE, digest)], "01RUN").await.expect("condemned"), [true]);
        assert_eq!(store.condemn(&[(TYPE, digest)], "01RUN").await.expect("condemned"), [false]);
        assert!(store.open_blob(TYPE, &digest, None).expect("open").is_none());

        let blob = store.ensure_live(TYPE, &digest, Some(5)).await.expect("restored").expect("there");
        assert_eq!(blob.read_at(0, 5).expect("read"), "bytes");
        let trash = collect(store.scan_trash(TYPE)).await;
        assert_eq!(
            trash.iter().map(|entry| (entry.run.as_str(), entry.digest, entry.size)).collect::<Vec<_>>(),
            [("01RUN", digest, 5)]
        );
        store.reap(TYPE, &trash[0]).await.expect("reaped");
        assert!(store.open_blob(TYPE, &digest, None).expect("open").is_some(), "the writer's link stays");

        assert_eq!(store.condemn(&[(TYPE, digest)], "02RUN").await.expect("condemned"), [true]);
        let trash = collect(store.scan_trash(TYPE)).await;
        store.restore(TYPE, &trash[0]).await.expect("restored");
        store.restore(TYPE, &trash[0]).await.expect("no error a second time");
        assert!(store.open_blob(TYPE, &digest, None).expect("open").is_some());
        assert!(collect(store.scan_trash(TYPE)).await.is_empty());

        assert_eq!(store.condemn(&[(TYPE, digest)], "03RUN").await.expect("condemned"), [true]);
        let trash = collect(store.scan_trash(TYPE)).await;
        store.reap(TYPE, &trash[0]).await.expect("reaped");
        assert!(store.ensure_live(TYPE, &digest, None).await.expect("open").is_none());
        assert_eq!(everything(&store).await, BTreeSet::new());
        assert!(store.condemn(&[(TYPE, digest)], "../x").await.is_err());
    }
}

#[tokio::test]
async fn blobs_are_scanned_with_their_names_sizes_and_strays() {
    let (stores, _home) = stores().await;
    for store in stores {
        let mut expected = BTreeMap::new();
        for content in [&b"one"[..], b"three"] {
            expected.insert(Some(publish(&store, content).await), content.len() as u64);
        }
        let stray = ObjectPath::new("type/container/blobs/sha256/README".into());
        store.backend.put(&stray, &layout::staging(&proxy()), "hi".into()).await.expect("put");
        expected.insert(None, 2);
        let scanned = collect(store.scan_blobs(TYPE)).await;
        assert_eq!(
            scanned.iter().map(|entry| (entry.digest, entry.size)).collect::<BTreeMap<_, _>>(),
            expected
        );
    }
}

#[tokio::test]
async fn quarantine_takes_a_corrupt_blob_and_leaves_a_good_one() {
    let (stores, _home) = stores().await;
    for store in stores {
        let digest = publish(&store, b"bytes").await;
        assert!(!store.quarantine(TYPE, &digest).await.expect("looked"));
        let (path, staging) = (layout::blob(TYPE, &digest), layout::staging(&proxy()));
        store.backend.put(&path, &staging, "bytEs".into()).await.expect("put");
        assert!(store.quarantine(TYPE, &digest).await.expect("moved"));
        assert!(!store.quarantine(TYPE, &digest).await.expect("nothing there"));
        assert!(store.open_blob(TYPE, &digest, None).expect("open").is_none());
        let aside = format!("type/container/quarantine/{}", digest.hex());
        assert_eq!(everything(&store).await, BTreeSet::from([aside]));
    }
}

#[tokio::test]
async fn locks_and_staging_are_of_the_open_store() {
    let (stores, _home) = stores().await;
    for store in stores {
        let held = store.lock("gc.lock").expect("lock").expect("free");
        assert!(store.lock("gc.lock").expect("lock").is_none());
        drop(held);
        assert!(store.lock("gc.lock").expect("lock").is_some());
        let staged = store.stage(&proxy(), None, &[]).await;
        assert_eq!(store.reap_staging(Timestamp::MAX, false).await.expect("reaped"), (0, 0));
        drop(staged);
    }
}
