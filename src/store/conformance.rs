//! What every backend must do, as tests that run over each of them. A new backend is added to
//! [`suite`] and must pass as it stands.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::backend::ObjectPath;
use super::scan::PAGE_BYTES;
use super::{Backend, Blob, Lister, Scan, Upload};
use crate::model::Timestamp;

/// A backend under test.
type Place = Arc<dyn Backend>;

/// Makes a test of every function named, over every backend there is.
macro_rules! suite {
    ($($name:ident)*) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(std::sync::Arc::new(crate::store::memory::Memory::default())).await;
            })*
        }
        mod local {
            $(#[tokio::test]
            async fn $name() {
                let home = tempfile::tempdir().expect("a directory");
                let root = home.path().join("made/root");
                let local = crate::store::local::Local::create(&root).expect("a root");
                super::$name(std::sync::Arc::new(local)).await;
            })*
        }
    };
}

suite! {
    an_absent_object_is_an_answer_not_an_error
    what_was_put_is_read_back_and_a_second_put_replaces_it
    a_read_is_cut_off_one_byte_behind_its_limit
    every_part_of_an_object_is_read_and_no_more_than_there_is
    a_conditional_put_takes_only_a_free_name
    of_many_conditional_puts_exactly_one_wins
    an_upload_is_seen_by_its_readers_at_once_and_by_others_when_published
    an_upload_that_is_dropped_was_never_there
    an_upload_that_was_left_is_gone_on_with_once
    what_was_left_is_reaped_when_it_is_old
    publishing_over_an_object_of_the_same_size_uses_that_one
    publishing_over_a_damaged_object_replaces_it
    eight_uploads_of_the_same_object_all_succeed
    a_listing_has_every_object_below_the_folder_once_in_bounded_pages
    a_listing_with_content_reads_up_to_the_limit
    the_folders_directly_below_are_named_in_order
    what_was_deleted_is_gone_and_an_open_object_stays_readable
    a_condemned_object_is_out_of_sight_until_it_is_restored
    restoring_never_touches_what_is_live
    quarantine_moves_the_object_that_was_seen_and_no_other
    the_time_of_modification_can_be_set
    a_lock_is_held_by_one_at_a_time
    the_staging_of_the_living_is_not_reaped
}

/// What the parts of `0123456789` are, by offset and length: the beginning, the middle, over the end, beyond it, none.
pub(super) const PARTS: [(u64, usize, &str); 7] =
    [(0, 4, "0123"), (3, 4, "3456"), (8, 100, "89"), (10, 5, ""), (99, 5, ""), (u64::MAX, 5, ""), (2, 0, "")];

fn at(path: &str) -> ObjectPath {
    ObjectPath::new(format!("type/generic/proxies/p/{path}"))
}

fn tmp() -> ObjectPath {
    at("tmp")
}

async fn put(place: &Place, path: &str, bytes: &'static [u8]) {
    place.put(&at(path), &tmp(), Bytes::from_static(bytes)).await.expect("put");
}

async fn get(place: &Place, path: &str) -> Option<Bytes> {
    place.read(&at(path), 1 << 20).await.expect("read")
}

fn all_of(blob: &Blob) -> Bytes {
    blob.read_at(0, usize::MAX).expect("read")
}

async fn upload(place: &Place, bytes: &[u8]) -> Box<dyn Upload> {
    let mut upload = place.upload(&tmp(), None).await.expect("started");
    for chunk in bytes.chunks(3) {
        upload.append(&[Bytes::copy_from_slice(chunk), Bytes::new()]).expect("appended");
    }
    upload
}

fn scan(place: &Place, folder: &ObjectPath, read: Option<u64>) -> Scan<super::Entry> {
    Scan::start(Arc::clone(place), vec![folder.clone()], read, Some)
}

async fn list(place: &Place, folder: &ObjectPath, read: Option<u64>) -> Vec<super::Entry> {
    let mut scan = scan(place, folder, read);
    let mut all = Vec::new();
    while let Some(page) = scan.next_page().await {
        let page = page.expect("a page");
        assert!((1..=Lister::PART_LEN).contains(&page.len()), "{}", page.len());
        all.extend(page);
    }
    all
}

async fn an_absent_object_is_an_answer_not_an_error(place: Place) {
    put(&place, "refs/a/file", b"x").await;
    // Nothing there, and something in the way of a folder.
    for path in ["refs/none", "none/none/none", "refs/a/file/below"] {
        let path = &at(path);
        assert!(place.stat(path).await.expect("stat").is_none());
        assert!(place.read(path, 9).await.expect("read").is_none());
        assert!(place.open_now(path).expect("open").is_none());
        assert!(place.open(path).await.expect("open").is_none());
        assert!(!place.delete(path).await.expect("delete"));
        assert_eq!(place.condemn(vec![(path.clone(), at("trash/x"))]).await.expect("condemn"), [false]);
        assert!(!place.restore(path, &at("refs/y")).await.expect("restore"));
        assert!(!place.quarantine(path, &at("aside"), None).await.expect("quarantine"));
        assert!(!place.set_modified(path, Timestamp::UNIX_EPOCH).await.expect("set"));
    }
    assert!(list(&place, &at("none"), None).await.is_empty());
    assert!(place.folders(&at("none")).await.expect("folders").is_empty());
    assert_eq!(list(&place, &at("refs"), None).await.len(), 1, "nothing came to be by asking");
}

async fn what_was_put_is_read_back_and_a_second_put_replaces_it(place: Place) {
    for content in [&b"one"[..], b"", b"three"] {
        place.put(&at("refs/a/b/c.json"), &tmp(), Bytes::from_static(content)).await.expect("put");
        assert_eq!(get(&place, "refs/a/b/c.json").await.expect("there"), content);
        let stat = place.stat(&at("refs/a/b/c.json")).await.expect("stat").expect("there");
        assert_eq!((stat.size, stat.regular), (content.len() as u64, true));
        let blob = place.open(&at("refs/a/b/c.json")).await.expect("open").expect("there");
        assert_eq!(all_of(&blob), content);
    }
}

async fn a_read_is_cut_off_one_byte_behind_its_limit(place: Place) {
    put(&place, "refs/a", b"0123456789").await;
    for (limit, len) in [(0, 1), (5, 6), (9, 10), (10, 10), (u64::MAX, 10)] {
        let bytes = place.read(&at("refs/a"), limit).await.expect("read").expect("there");
        assert_eq!(bytes, b"0123456789"[..len], "{limit}");
    }
}

async fn every_part_of_an_object_is_read_and_no_more_than_there_is(place: Place) {
    let digits = b"0123456789";
    put(&place, "refs/put", digits).await;
    place.put_if_absent(&at("refs/new"), &tmp(), Bytes::from_static(digits)).await.expect("put");
    let small = place.publish(&at("blobs/small"), &tmp(), Bytes::from_static(digits)).await;
    let large = upload(&place, digits).await.publish(&at("blobs/large")).await;
    let mut blobs = vec![small.expect("published"), large.expect("published")];
    for path in ["refs/put", "refs/new", "blobs/small", "blobs/large"] {
        blobs.push(place.open(&at(path)).await.expect("open").expect("there"));
        blobs.push(place.open_now(&at(path)).expect("open").expect("there"));
    }
    for (n, blob) in blobs.iter().enumerate() {
        assert_eq!((blob.size(), blob.read_all().expect("read")), (10, Bytes::from_static(digits)), "{n}");
        for (offset, len, expected) in PARTS {
            assert_eq!(blob.read_at(offset, len).expect("read"), expected, "{n}: {offset} {len}");
            // What would have to be waited for is not there, and of what is there not all may be.
            if let Some(hot) = blob.try_read_at(offset, len).expect("read") {
                assert!(expected.as_bytes().starts_with(&hot), "{n}: {offset} {len} {hot:?}");
                assert_eq!(hot.is_empty(), expected.is_empty(), "{n}: {offset} {len}");
            }
        }
    }
    put(&place, "refs/empty", b"").await;
    let empty = at("refs/empty");
    for blob in [place.open(&empty).await, place.open_now(&empty)] {
        let blob = blob.expect("open").expect("there");
        for (offset, len, _) in PARTS {
            assert_eq!(blob.read_at(offset, len).expect("read"), "", "{offset} {len}");
            assert_eq!(blob.try_read_at(offset, len).expect("read").expect("nothing to wait for"), "");
        }
    }
}

async fn a_conditional_put_takes_only_a_free_name(place: Place) {
    for (bytes, free) in [("one", true), ("two", false)] {
        assert_eq!(place.put_if_absent(&at("refs/x"), &tmp(), bytes.into()).await.expect("put"), free);
    }
    assert_eq!(get(&place, "refs/x").await.expect("there"), "one");
}

async fn of_many_conditional_puts_exactly_one_wins(place: Place) {
    let tries: Vec<_> = (0..16_u8)
        .map(|n| {
            let place = Arc::clone(&place);
            tokio::spawn(async move {
                let won = place.put_if_absent(&at("refs/x"), &tmp(), Bytes::from(vec![n; 100])).await;
                won.expect("put").then_some(n)
            })
        })
        .collect();
    let mut winners = Vec::new();
    for one in tries {
        winners.extend(one.await.expect("ran"));
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(get(&place, "refs/x").await.expect("there"), vec![winners[0]; 100]);
}

async fn an_upload_is_seen_by_its_readers_at_once_and_by_others_when_published(place: Place) {
    let mut upload = upload(&place, b"0123456789").await;
    let reader = upload.reader();
    assert_eq!(reader.read_at(2, 5).expect("read"), "23456");
    assert!(reader.read_at(8, 5).is_err(), "beyond what is there");
    assert!(list(&place, &at("blobs"), None).await.is_empty());
    upload.append(&[Bytes::from_static(b"ab"), Bytes::from_static(b"cd")]).expect("appended");
    assert_eq!(reader.read_at(8, 5).expect("read"), "89abc");

    let blob = upload.publish(&at("blobs/x/y")).await.expect("published");
    assert_eq!((blob.size(), all_of(&blob)), (14, Bytes::from_static(b"0123456789abcd")));
    assert_eq!(get(&place, "blobs/x/y").await.expect("there"), "0123456789abcd");
    assert_eq!(reader.read_at(12, 2).expect("read"), "cd", "a reader outlives the upload");
}

async fn an_upload_that_is_dropped_was_never_there(place: Place) {
    let upload = upload(&place, b"0123456789").await;
    let reader = upload.reader();
    drop(upload);
    assert_eq!(reader.read_at(0, 10).expect("read"), "0123456789");
    let left = list(&place, &tmp(), None).await;
    assert!(left.iter().all(|entry| entry.path.as_str().ends_with("/.alive")), "{left:?}");
}

/// Enough to be worth leaving, whatever the backend.
const ENOUGH: usize = 4 << 20;

/// Leaves as much of an upload as is said.
async fn leave(place: &Place, left: &ObjectPath, len: usize) -> u64 {
    let mut upload = place.upload(&tmp(), Some(left)).await.expect("started");
    assert_eq!(upload.begun(), 0);
    upload.append(&[vec![b'l'; len].into()]).expect("appended");
    upload.leave()
}

async fn an_upload_that_was_left_is_gone_on_with_once(place: Place) {
    let left = tmp().join("partial").join("name");
    let other = tmp().join("partial").join("other");
    assert_eq!(leave(&place, &left, ENOUGH).await, ENOUGH as u64);
    assert_eq!(place.upload(&tmp(), None).await.expect("started").begun(), 0, "it asked for none");
    assert_eq!(place.upload(&tmp(), Some(&other)).await.expect("started").begun(), 0);
    let mut upload = place.upload(&tmp(), Some(&left)).await.expect("started");
    let mut second = place.upload(&tmp(), Some(&left)).await.expect("started");
    assert_eq!((upload.begun(), second.begun()), (ENOUGH as u64, 0), "one alone goes on with it");
    upload.append(&[Bytes::from_static(b"end")]).expect("appended");
    second.append(&[Bytes::from_static(b"beginning")]).expect("appended");
    assert_eq!(upload.reader().read_at(ENOUGH as u64 - 1, 4).expect("read"), "lend");
    let blob = upload.publish(&at("blobs/x")).await.expect("published");
    assert_eq!(all_of(&blob), [&vec![b'l'; ENOUGH], &b"end"[..]].concat());
    drop(second);
    assert_eq!(place.upload(&tmp(), Some(&left)).await.expect("started").begun(), 0, "it was not left");
}

async fn what_was_left_is_reaped_when_it_is_old(place: Place) {
    let left = tmp().join("partial").join("name");
    let kept = leave(&place, &left, ENOUGH).await;
    let reap = async |before, dry_run| place.reap_staging(&tmp(), before, dry_run).await.expect("reaped");
    assert_eq!(reap(Timestamp::UNIX_EPOCH, false).await, (0, 0), "it is younger");
    assert_eq!(reap(Timestamp::MAX, true).await, (1, kept));
    assert_eq!(reap(Timestamp::MAX, false).await, (1, kept));
    assert_eq!(reap(Timestamp::MAX, false).await, (0, 0));
    assert_eq!(place.upload(&tmp(), Some(&left)).await.expect("started").begun(), 0);
}

async fn publishing_over_an_object_of_the_same_size_uses_that_one(place: Place) {
    put(&place, "blobs/x", b"first").await;
    let blob = upload(&place, b"other").await.publish(&at("blobs/x")).await.expect("published");
    assert_eq!(all_of(&blob), "first");
    assert_eq!(get(&place, "blobs/x").await.expect("there"), "first");
}

async fn publishing_over_a_damaged_object_replaces_it(place: Place) {
    for damaged in [&b""[..], b"hal", b"too long"] {
        place.put(&at("blobs/x"), &tmp(), Bytes::from_static(damaged)).await.expect("put");
        let blob = upload(&place, b"whole").await.publish(&at("blobs/x")).await.expect("published");
        assert_eq!(all_of(&blob), "whole");
        assert_eq!(get(&place, "blobs/x").await.expect("there"), "whole");
        place.put(&at("blobs/x"), &tmp(), Bytes::from_static(damaged)).await.expect("put");
        let blob = place.publish(&at("blobs/x"), &tmp(), "small".into()).await.expect("published");
        assert_eq!(all_of(&blob), "small");
        assert_eq!(get(&place, "blobs/x").await.expect("there"), "small");
    }
}

async fn eight_uploads_of_the_same_object_all_succeed(place: Place) {
    for round in 0..20 {
        let mut publishing = JoinSet::new();
        for n in 0..8 {
            let path = at(&format!("blobs/sha256/{round}/x"));
            if n % 2 == 0 {
                publishing.spawn(upload(&place, b"the same bytes").await.publish(&path));
            } else {
                let place = Arc::clone(&place);
                publishing.spawn(async move { place.publish(&path, &tmp(), "the same bytes".into()).await });
            }
        }
        while let Some(published) = publishing.join_next().await {
            let blob = published.expect("ran").expect("published");
            assert_eq!(all_of(&blob), "the same bytes");
        }
    }
    assert_eq!(list(&place, &at("blobs"), None).await.len(), 20);
}

async fn a_listing_has_every_object_below_the_folder_once_in_bounded_pages(place: Place) {
    let (mut expected, mut puts) = (BTreeMap::new(), JoinSet::new());
    for n in 0..1200_usize {
        let (place, path) = (Arc::clone(&place), at(&format!("refs/d{}/x{n}", n % 7)));
        expected.insert(path.clone(), n as u64 % 5);
        puts.spawn(async move { place.put(&path, &tmp(), Bytes::from(vec![0; n % 5])).await });
    }
    while let Some(put) = puts.join_next().await {
        put.expect("ran").expect("put");
    }
    put(&place, "refs-not/x", b"").await;
    put(&place, "ref", b"").await;
    let listed = list(&place, &at("refs"), None).await;
    assert_eq!(listed.len(), expected.len());
    assert!(listed.iter().all(|entry| entry.content.is_none() && entry.stat.regular));
    let again = list(&place, &at("refs"), Some(9)).await;
    let paths = |entries: &[super::Entry]| entries.iter().map(|entry| entry.path.clone()).collect::<Vec<_>>();
    assert_eq!(paths(&again), paths(&listed), "in the same order, however many threads read");
    let listed: BTreeMap<_, _> = listed.into_iter().map(|entry| (entry.path, entry.stat.size)).collect();
    assert_eq!(listed, expected);
}

async fn a_listing_with_content_reads_up_to_the_limit(place: Place) {
    for n in 0..6 {
        let path = at(&format!("refs/{n}"));
        place.put(&path, &tmp(), Bytes::from(vec![n; 400_000])).await.expect("put");
    }
    put(&place, "refs/small", b"small").await;
    let mut scan = scan(&place, &at("refs"), Some(299_999));
    let mut lens = BTreeMap::new();
    while let Some(page) = scan.next_page().await {
        let page = page.expect("a page");
        assert!(page.len() <= 4, "a page ends when it holds {PAGE_BYTES} bytes");
        for entry in page {
            let bytes = entry.content.expect("asked for").expect("read");
            lens.insert(entry.path.to_string(), (entry.stat.size, bytes.len()));
        }
    }
    assert_eq!(lens.remove(at("refs/small").as_str()), Some((5, 5)));
    assert_eq!(lens.len(), 6);
    assert!(lens.values().all(|sizes| *sizes == (400_000, 300_000)), "{lens:?}");
}

async fn the_folders_directly_below_are_named_in_order(place: Place) {
    for path in ["trash/b/1", "trash/a/1", "trash/a/2/3", "trash/file", "trashed/x/1"] {
        put(&place, path, b"").await;
    }
    assert_eq!(place.folders(&at("trash")).await.expect("folders"), ["a", "b"]);
}

async fn what_was_deleted_is_gone_and_an_open_object_stays_readable(place: Place) {
    put(&place, "refs/a/b", b"bytes").await;
    let blob = place.open(&at("refs/a/b")).await.expect("open").expect("there");
    assert!(place.delete(&at("refs/a/b")).await.expect("delete"));
    assert!(!place.delete(&at("refs/a/b")).await.expect("delete"));
    assert!(get(&place, "refs/a/b").await.is_none());
    assert!(place.folders(&at("refs")).await.expect("folders").is_empty(), "an empty folder is none");
    assert_eq!(all_of(&blob), "bytes");
}

async fn a_condemned_object_is_out_of_sight_until_it_is_restored(place: Place) {
    let (live, trash) = (at("blobs/ab/x"), at("trash/run/ab/x"));
    put(&place, "blobs/ab/x", b"bytes").await;
    let blob = place.open(&live).await.expect("open").expect("there");
    assert_eq!(place.condemn(Vec::new()).await.expect("condemn"), Vec::<bool>::new());
    let moves = vec![(live.clone(), trash.clone()), (live.clone(), trash.clone())];
    assert_eq!(place.condemn(moves).await.expect("condemn"), [true, false], "one after the other");
    assert!(place.open(&live).await.expect("open").is_none());
    assert_eq!(all_of(&blob), "bytes");
    assert_eq!(place.folders(&at("trash")).await.expect("folders"), ["run"]);

    assert!(place.restore(&trash, &live).await.expect("restore"));
    assert_eq!(get(&place, "blobs/ab/x").await.expect("there"), "bytes");
    assert!(place.delete(&trash).await.expect("delete"), "the entry had stayed");
    assert!(place.folders(&at("trash")).await.expect("folders").is_empty());
    assert_eq!(get(&place, "blobs/ab/x").await.expect("still there"), "bytes");
    assert!(!place.restore(&trash, &live).await.expect("restore"));
}

async fn restoring_never_touches_what_is_live(place: Place) {
    put(&place, "blobs/x", b"live").await;
    put(&place, "trash/run/x", b"condemned").await;
    assert!(place.restore(&at("trash/run/x"), &at("blobs/x")).await.expect("restore"));
    assert_eq!(get(&place, "blobs/x").await.expect("there"), "live");
}

async fn quarantine_moves_the_object_that_was_seen_and_no_other(place: Place) {
    let (live, aside) = (at("blobs/x"), at("quarantine/x"));
    put(&place, "blobs/x", b"corrupt").await;
    let seen = place.open(&live).await.expect("open").expect("there");
    put(&place, "blobs/x", b"correct").await;
    assert!(!place.quarantine(&live, &aside, Some(&seen)).await.expect("quarantine"));
    assert!(!place.quarantine(&live, &aside, None).await.expect("quarantine"), "it is an object");
    assert_eq!(get(&place, "blobs/x").await.expect("there"), "correct");
    assert!(get(&place, "quarantine/x").await.is_none());

    let seen = place.open(&live).await.expect("open").expect("there");
    assert!(place.quarantine(&live, &aside, Some(&seen)).await.expect("quarantine"));
    assert!(get(&place, "blobs/x").await.is_none());
    assert_eq!(get(&place, "quarantine/x").await.expect("there"), "correct");
}

async fn the_time_of_modification_can_be_set(place: Place) {
    put(&place, "refs/x", b"").await;
    let written = place.stat(&at("refs/x")).await.expect("stat").expect("there").modified;
    assert!(written > Timestamp::UNIX_EPOCH);
    let then: Timestamp = "2025-11-09T12:34:56.789Z".parse().expect("a time");
    assert!(place.set_modified(&at("refs/x"), then).await.expect("set"));
    assert_eq!(place.stat(&at("refs/x")).await.expect("stat").expect("there").modified, then);
    assert_eq!(list(&place, &at("refs"), None).await[0].stat.modified, then);
}

async fn a_lock_is_held_by_one_at_a_time(place: Place) {
    let (one, other) = (ObjectPath::new("locks/gc".into()), ObjectPath::new("locks/x".into()));
    let held = place.lock(&one).expect("lock").expect("free");
    assert!(place.lock(&one).expect("lock").is_none());
    assert!(place.lock(&other).expect("lock").is_some());
    drop(held);
    assert!(place.lock(&one).expect("lock").is_some());
}

async fn the_staging_of_the_living_is_not_reaped(place: Place) {
    let upload = upload(&place, b"bytes").await;
    for dry_run in [true, false] {
        assert_eq!(place.reap_staging(&tmp(), Timestamp::MAX, dry_run).await.expect("reap"), (0, 0));
    }
    upload.publish(&at("blobs/x")).await.expect("published");
    assert_eq!(get(&place, "blobs/x").await.expect("there"), "bytes");
}
