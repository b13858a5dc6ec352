//! What a staging does with what it is given, over uploads that wait and that fail.

use std::collections::BTreeSet;
use std::sync::mpsc;

use futures_util::FutureExt as _;

use super::blob::Content;
use super::tests::{TYPE, everything, proxy, sha512_of, stores};
use super::*;

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
        assert_eq!(reader.recent(0, 1), Found::File(1), "nothing is there yet");
        let first = Bytes::from(vec![1; 100_000]);
        staged.write(first.clone()).await.expect("written");
        progress.wait_for(|written| *written == 100_000).await.expect("written");
        let Found::Memory(seen) = reader.recent(10, 1000) else { panic!("it is kept") };
        assert_eq!((seen.as_ptr(), seen.len()), (first[10..].as_ptr(), 1000), "no copy");
        // More than is kept of one blob.
        for _ in 0..30 {
            staged.write(vec![2; 100_000].into()).await.expect("written");
        }
        progress.wait_for(|written| *written == 3_100_000).await.expect("written");
        assert_eq!(reader.recent(0, 1000), Found::File(1000), "too old");
        assert_eq!(reader.read_at(0, 100_000).expect("read"), first, "but in the file");
        drop(staged.seal(&[]).await.expect("sealed"));
        assert_eq!(
            reader.recent(3_000_000, 1000),
            Found::File(1000),
            "nothing is kept when the writing has ended"
        );
        assert_eq!(reader.read_at(3_099_999, 1).expect("read"), [2][..]);
    }
}

#[tokio::test]
async fn followers_have_what_came_in_before_it_is_written_and_whether_it_can_be_or_not() {
    let (first, second) = (Bytes::from(vec![1; 700 << 10]), Bytes::from(vec![2; 300 << 10]));
    for is_written in [true, false] {
        let (leave, mut staged) = gated(&[]);
        let (reader, mut progress) = (staged.reader(), staged.progress());
        let mark = reader.mark().expect("the beginning is there");
        staged.write(first.clone()).await.expect("taken");
        progress.wait_for(|readable| *readable == 700 << 10).await.expect("readable");
        assert_eq!(reader.recent(5, usize::MAX), Found::Memory(first.slice(5..)), "nothing has been written");
        staged.write(second.clone()).await.expect("taken");
        assert_eq!(*progress.borrow(), 700 << 10, "its turn has not come");
        leave.send(true).expect("heard");
        progress.wait_for(|readable| *readable == 1000 << 10).await.expect("readable");
        assert_eq!(reader.recent(0, usize::MAX), Found::Memory(first.clone()), "there is room for both");
        leave.send(is_written).expect("heard");
        eventually_idle(&mut staged, !is_written).await;
        if is_written {
            assert_eq!(reader.recent(700 << 10, 9), Found::Memory(second.slice(..9)));
        } else {
            assert_eq!(reader.recent(700 << 10, 9), Found::File(9), "nothing is kept twice");
            assert_eq!(mark.find(0, usize::MAX).expect("written"), Found::File(700 << 10));
            assert_eq!(mark.find(700 << 10, usize::MAX).expect("kept"), Found::Memory(second.clone()));
        }
    }
}

#[tokio::test]
async fn what_is_too_long_to_be_kept_is_told_of_when_it_is_written() {
    let (leave, mut staged) = gated(&[]);
    let (reader, mut progress) = (staged.reader(), staged.progress());
    staged.write(vec![1; 2 << 20].into()).await.expect("one piece is always taken");
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(*progress.borrow(), 0);
    leave.send(true).expect("heard");
    progress.wait_for(|readable| *readable == 2 << 20).await.expect("readable");
    assert_eq!(reader.recent(0, 1), Found::File(1));
}

/// Reads a staging until it ends, in steps of at most `step` bytes, as a follower does.
pub(super) fn follow(staged: &Staged, step: usize) -> tokio::task::JoinHandle<Vec<u8>> {
    let (reader, mut progress) = (staged.reader(), staged.progress());
    let mark = reader.mark().expect("the beginning is there");
    tokio::spawn(async move {
        let mut seen = Vec::new();
        loop {
            let (readable, at) = (*progress.borrow_and_update(), seen.len() as u64);
            if at == readable {
                if progress.changed().await.is_err() {
                    return seen;
                }
                continue;
            }
            let len = usize::try_from(readable - at).map_or(step, |len| len.min(step));
            let bytes = match reader.recent(at, len) {
                Found::Memory(bytes) => bytes,
                Found::File(len) => match mark.find(at, len).expect("not left behind") {
                    Found::Memory(bytes) => bytes,
                    Found::File(len) => reader.read_at(at, len).expect("written"),
                },
            };
            seen.extend_from_slice(&bytes);
            mark.reached(seen.len() as u64);
            tokio::task::yield_now().await;
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_see_every_byte_once_and_in_order_wherever_the_store_fails() {
    let (stores, _home) = stores().await;
    for store in stores {
        for lasts in [0, 1, 7, 40, usize::MAX] {
            let upload = store.backend.upload(&layout::staging(&proxy()), None).await.expect("an upload");
            let mut staged = Staged::new(TYPE, Ok(Box::new(Failing { upload, left: lasts })), None, &[]);
            let followers = [usize::MAX, 40_000, 3_000].map(|step| follow(&staged, step));
            let mut expected = Vec::new();
            for number in 0..60_u8 {
                let piece = vec![number; 1 + usize::from(number) * 1999];
                expected.extend_from_slice(&piece);
                staged.room().await.expect("it is followed");
                staged.write(piece.into()).await.expect("taken");
            }
            let sealed = staged.seal(&[]).await.expect("sealed");
            assert_eq!(sealed.unstored().is_some(), lasts < 60, "{lasts}");
            for follower in followers {
                assert!(follower.await.expect("ran") == expected, "{lasts}");
            }
        }
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
        eventually_idle(&mut staged, true).await;
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
    assert_eq!(reader.recent(0, 5), Found::File(5), "nothing is kept twice");
    assert_eq!(mark.find(3, 100).expect("in the file"), Found::File(8));
    assert_eq!(reader.read_at(3, 8).expect("still open"), "stsecond");
    assert_eq!(mark.find(11, 100).expect("kept"), Found::Memory("thirdfourth".into()));
    let sealed = staged.seal(&[]).await.expect("sealed");
    assert_eq!(sealed.digest, Digest::of(b"firstsecondthirdfourth"));
    assert_eq!(reader.whole(sealed.size).expect("held"), "firstsecondthirdfourth");
}

/// Waits until a staging has room and, if so, knows whether it is stored.
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
