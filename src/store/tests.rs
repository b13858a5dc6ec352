//! The store as others see it, over every backend.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::mpsc;

use futures_util::FutureExt as _;
use tempfile::TempDir;

use super::*;
use crate::model::Algorithm;
use crate::store::blob::Content;

const TYPE: ArtifactType = ArtifactType::Container;

/// A new store of every kind, and the directories that they are in.
async fn stores() -> (Vec<Store>, TempDir) {
    let home = tempfile::tempdir().expect("a directory");
    let local = Store::create(home.path().join("root").to_str().expect("text")).await.expect("a root");
    (vec![Store::create("mem://").await.expect("a root"), local], home)
}

fn key(path: &str) -> RefKey {
    format!("container/hub/{path}").parse().expect(path)
}

fn proxy() -> ProxyId {
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
async fn everything(store: &Store) -> BTreeSet<String> {
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
        let (reader, mut progress) = (staged.reader(), staged.progress());
        let follower = tokio::spawn(async move {
            let mut seen = Vec::new();
            loop {
                let readable = usize::try_from(*progress.borrow_and_update()).expect("fits");
                seen.extend(reader.read_at(seen.len() as u64, readable - seen.len()).expect("read"));
                if progress.changed().await.is_err() && seen.len() == 5_000_000 {
                    return seen;
                }
            }
        });
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

fn sha512_of(content: &[u8]) -> Checksum {
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

/// An upload that waits for leave before each piece of work, and fails when told.
#[derive(Debug)]
struct Gated(std::sync::Mutex<mpsc::Receiver<bool>>);

impl Upload for Gated {
    fn begun(&self) -> u64 {
        0
    }
    fn leave(&mut self) -> u64 {
        0
    }
    fn append(&mut self, _chunks: &[Bytes]) -> Result<(), StoreError> {
        match self.0.get_mut().expect("not poisoned").recv() {
            Ok(true) => Ok(()),
            _ => Err(StoreError::io("write", "x", rustix::io::Errno::NOSPC)),
        }
    }
    fn reader(&self) -> StagedReader {
        StagedReader::new(Content::Memory(Bytes::new()))
    }
    fn publish(self: Box<Self>, _path: &ObjectPath) -> Answer<'static, Blob> {
        unreachable!("not published in these tests")
    }
}

#[tokio::test]
async fn a_staging_holds_so_much_and_then_makes_its_writer_wait() {
    let (leave, mut staged) = gated(&[]);
    let chunk = Bytes::from(vec![0; 400 << 10]);
    for _ in 0..2 {
        staged.write(chunk.clone()).now_or_never().expect("taken at once").expect("written");
    }
    assert!(staged.room().now_or_never().is_none(), "no room for more");
    assert!(staged.write(chunk.clone()).now_or_never().is_none(), "more than is held");
    assert_eq!(staged.len(), 800 << 10, "what was not taken does not count");
    for _ in 0..3 {
        leave.send(true).expect("heard");
    }
    staged.room().await.expect("room again");
    staged.write(chunk).await.expect("written");
    let sealed = staged.seal(&[]).await.expect("sealed");
    assert_eq!(sealed.size, 1200 << 10);
}

#[tokio::test]
async fn a_follower_that_keeps_up_is_given_what_came_in_and_one_that_does_not_reads_the_file() {
    let (stores, _home) = stores().await;
    for store in stores {
        let mut staged = store.stage(&proxy(), None, &[]).await;
        let (reader, mut progress) = (staged.reader(), staged.progress());
        assert_eq!(reader.recent(0, 1), None, "nothing is there yet");
        let first = Bytes::from(vec![1; 100_000]);
        staged.write(first.clone()).await.expect("written");
        progress.wait_for(|written| *written == 100_000).await.expect("written");
        let seen = reader.recent(10, 1000).expect("kept");
        assert_eq!((seen.as_ptr(), seen.len()), (first[10..].as_ptr(), 1000), "no copy");
        // More than is kept of one blob.
        for _ in 0..30 {
            staged.write(vec![2; 100_000].into()).await.expect("written");
        }
        progress.wait_for(|written| *written == 3_100_000).await.expect("written");
        assert_eq!(reader.recent(0, 1000), None, "too old");
        assert_eq!(reader.read_at(0, 100_000).expect("read"), first, "but in the file");
        drop(staged.seal(&[]).await.expect("sealed"));
        assert_eq!(reader.recent(3_000_000, 1000), None, "nothing is kept when the writing has ended");
        assert_eq!(reader.read_at(3_099_999, 1).expect("read"), [2][..]);
    }
}

#[tokio::test]
async fn many_tiny_pieces_are_bounded_too() {
    let (leave, mut staged) = gated(&[]);
    let mut taken = 0;
    while staged.write("x".into()).now_or_never().is_some() {
        taken += 1;
    }
    assert_eq!(taken, 1024);
    drop(leave);
}

/// A staging whose upload waits for leave.
fn gated(expect: &[Checksum]) -> (mpsc::Sender<bool>, Staged) {
    let (leave, gate) = mpsc::channel();
    (leave, Staged::new(TYPE, Ok(Box::new(Gated(std::sync::Mutex::new(gate)))), None, expect))
}

/// A staging that could not even begin.
fn without_room(expect: &[Checksum]) -> Staged {
    Staged::new(TYPE, Err(StoreError::io("create", "x", rustix::io::Errno::ROFS)), None, expect)
}

#[tokio::test]
async fn what_cannot_be_written_is_checked_and_kept_for_followers_but_not_published() {
    let claims = [Checksum::from(Digest::of(b"bytes"))];
    let (leave, staged) = gated(&claims);
    leave.send(false).expect("heard");
    for mut staged in [staged, without_room(&claims)] {
        let (reader, mut progress) = (staged.reader(), staged.progress());
        let mark = reader.mark().expect("the beginning is there");
        staged.write("bytes".into()).await.expect("taken");
        progress.wait_for(|readable| *readable == 5).await.expect("readable");
        assert!(reader.is_unstored());
        assert_eq!(mark.find(1, 3).expect("kept"), Found::Memory("yte".into()));
        let sealed = staged.seal(&claims).await.expect("these are the bytes");
        assert!(matches!(sealed.unstored(), Some(StoreError::NoRoom { .. })));
        assert!(matches!(sealed.publish().await, Err(StoreError::Unstored(_))));
        assert_eq!(mark.find(0, 9).expect("kept on"), Found::Memory("bytes".into()));
    }
}

#[tokio::test]
async fn wrong_bytes_are_found_though_they_are_not_stored() {
    let claim = Checksum::from(Digest::of(b"other"));
    let mut staged = without_room(std::slice::from_ref(&claim));
    staged.write("bytes".into()).await.expect("taken");
    assert!(matches!(staged.seal(&[claim]).await, Err(StoreError::Mismatch { .. })));
    // What cannot be read again cannot be checked later.
    let mut staged = without_room(&[]);
    staged.write("bytes".into()).await.expect("taken");
    assert!(matches!(staged.seal(&[sha512_of(b"bytes")]).await, Err(StoreError::Unstored(_))));
}

#[tokio::test]
async fn a_staging_that_loses_the_store_on_the_way_goes_on_from_there() {
    let (stores, home) = stores().await;
    drop(stores);
    let store = Store::create(home.path().join("root").to_str().expect("text")).await.expect("a root");
    let upload = store.backend.upload(&layout::staging(&proxy()), None).await.expect("an upload");
    let upload = Box::new(Failing { upload, left: 2 });
    let mut staged = Staged::new(TYPE, Ok(upload), None, &[]).held_whole(1 << 20);
    let (reader, mut progress) = (staged.reader(), staged.progress());
    let mark = reader.mark().expect("the beginning is there");
    for (number, bytes) in ["first", "second", "third", "fourth"].into_iter().enumerate() {
        assert_eq!(staged.unstored().is_some(), number > 2, "{number}");
        staged.write(bytes.into()).await.expect("taken");
        let so_far = ["first", "second", "third", "fourth"][..=number].concat().len() as u64;
        progress.wait_for(|readable| *readable == so_far).await.expect("readable");
        // The job says so only when it is done with these.
        eventually_idle(&mut staged, number > 1).await;
    }
    assert_eq!(everything(&store).await, BTreeSet::new(), "the partial file is gone");
    assert_eq!(reader.recent(0, 5), None, "nothing is kept twice");
    assert_eq!(mark.find(3, 100).expect("in the file"), Found::File(8));
    assert_eq!(reader.read_at(3, 8).expect("still open"), "stsecond");
    assert_eq!(mark.find(11, 100).expect("kept"), Found::Memory("thirdfourth".into()));
    let sealed = staged.seal(&[]).await.expect("sealed");
    assert_eq!(sealed.digest, Digest::of(b"firstsecondthirdfourth"));
    assert_eq!(reader.whole(sealed.size).expect("held"), "firstsecondthirdfourth");
}

/// Waits until a staging has room and knows whether it is stored.
async fn eventually_idle(staged: &mut Staged, unstored: bool) {
    for _ in 0..10_000 {
        staged.room().await.expect("room");
        if staged.unstored().is_some() == unstored {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    panic!("it never knew");
}

/// An upload that fails after so many pieces.
#[derive(Debug)]
struct Failing {
    upload: Box<dyn Upload>,
    left: usize,
}

impl Upload for Failing {
    fn begun(&self) -> u64 {
        self.upload.begun()
    }
    fn leave(&mut self) -> u64 {
        self.upload.leave()
    }
    fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError> {
        self.left = self
            .left
            .checked_sub(chunks.len())
            .ok_or_else(|| StoreError::io("write", "x", rustix::io::Errno::NOSPC))?;
        self.upload.append(chunks)
    }
    fn reader(&self) -> StagedReader {
        self.upload.reader()
    }
    fn publish(self: Box<Self>, path: &ObjectPath) -> Answer<'static, Blob> {
        self.upload.publish(path)
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_follows_and_cannot_be_stored_is_given_up_with_the_stores_error() {
    let mut staged = without_room(&[]);
    staged.write(vec![1; 2 << 20].into()).await.expect("taken");
    assert!(matches!(staged.room().await, Err(StoreError::Unstored(_))));
    let mut document = without_room(&[]).held_whole(2 << 20);
    document.write(vec![1; 2 << 20].into()).await.expect("taken");
    document.room().await.expect("it is held");
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
        assert!(store.condemn(TYPE, &digest, "01RUN").await.expect("condemned"));
        assert!(!store.condemn(TYPE, &digest, "01RUN").await.expect("condemned"));
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

        assert!(store.condemn(TYPE, &digest, "02RUN").await.expect("condemned"));
        let trash = collect(store.scan_trash(TYPE)).await;
        store.restore(TYPE, &trash[0]).await.expect("restored");
        store.restore(TYPE, &trash[0]).await.expect("no error a second time");
        assert!(store.open_blob(TYPE, &digest, None).expect("open").is_some());
        assert!(collect(store.scan_trash(TYPE)).await.is_empty());

        assert!(store.condemn(TYPE, &digest, "03RUN").await.expect("condemned"));
        let trash = collect(store.scan_trash(TYPE)).await;
        store.reap(TYPE, &trash[0]).await.expect("reaped");
        assert!(store.ensure_live(TYPE, &digest, None).await.expect("open").is_none());
        assert_eq!(everything(&store).await, BTreeSet::new());
        assert!(store.condemn(TYPE, &digest, "../x").await.is_err());
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
