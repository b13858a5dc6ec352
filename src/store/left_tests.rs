//! What becomes of a staging that nothing follows, and of one that goes on with it.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::model::{Checksum, Share};
use crate::store::room::Limits;

/// Enough to be worth leaving.
const LEN: usize = 2 << 20;

/// A store, and where its only proxy stages.
async fn store() -> (Store, PathBuf, TempDir) {
    let home = tempfile::tempdir().expect("a directory");
    let root = home.path().join("root");
    let store = Store::create(root.to_str().expect("text")).await.expect("a root");
    let staging = root.join(layout::staging(&proxy()).as_str());
    (store, staging, home)
}

fn proxy() -> ProxyId {
    "generic/g/refs/a".parse::<RefKey>().expect("valid").proxy
}

fn content() -> Bytes {
    (0..=250).cycle().take(2 * LEN).collect()
}

fn claim() -> Checksum {
    Checksum::from(Digest::of(&content()))
}

/// Stages the first half of the content, and drops it.
async fn leave_half(store: &Store) {
    let mut staged = store.stage(&proxy(), Some(2 * LEN as u64), &[claim()]).await;
    assert!(staged.is_empty());
    let mut progress = staged.progress();
    staged.write(content().slice(..LEN)).await.expect("taken");
    progress.wait_for(|readable| *readable == LEN as u64).await.expect("written");
    drop(staged);
    // The job that writes may hold on to it for a moment longer.
    while progress.changed().await.is_ok() {}
}

fn partials(staging: &Path) -> Vec<(PathBuf, u64)> {
    let Ok(dir) = std::fs::read_dir(staging.join(layout::LEFT)) else { return Vec::new() };
    let entries = dir.map(|entry| entry.expect("an entry"));
    entries.map(|entry| (entry.path(), entry.metadata().expect("there").len())).collect()
}

#[tokio::test]
async fn a_staging_goes_on_with_what_another_left() {
    let (store, staging, _home) = store().await;
    leave_half(&store).await;
    assert_eq!(
        partials(&staging),
        [(staging.join(layout::LEFT).join(Digest::of(&content()).hex()), LEN as u64)]
    );
    for size in [None, Some(2 * LEN as u64)] {
        let mut staged = store.stage(&proxy(), size, &[claim()]).await;
        assert_eq!((staged.len(), *staged.progress().borrow()), (LEN as u64, LEN as u64));
        assert_eq!(staged.reader().read_at(7, 100).expect("there"), content().slice(7..107));
        assert_eq!(partials(&staging), [], "it has been taken");
        if size.is_none() {
            // And left again.
            let mut progress = staged.progress();
            drop(staged);
            while progress.changed().await.is_ok() {}
            assert_eq!(partials(&staging).len(), 1);
            continue;
        }
        staged.write(content().slice(LEN..)).await.expect("taken");
        let sealed = staged.seal(&[claim()]).await.expect("the right bytes");
        let blob = sealed.publish().await.expect("published");
        assert_eq!(blob.read_at(0, usize::MAX).expect("read"), content());
    }
    assert_eq!(partials(&staging), []);
}

#[tokio::test]
async fn what_was_left_wrong_is_found_and_not_left_again() {
    let (store, staging, _home) = store().await;
    leave_half(&store).await;
    let (partial, _) = partials(&staging).pop().expect("left");
    let mut bytes = std::fs::read(&partial).expect("read");
    bytes[1000] ^= 1;
    std::fs::write(&partial, bytes).expect("written");
    let mut staged = store.stage(&proxy(), None, &[claim()]).await;
    assert_eq!(staged.len(), LEN as u64);
    staged.write(content().slice(LEN..)).await.expect("taken");
    assert!(matches!(staged.seal(&[claim()]).await, Err(StoreError::Mismatch { .. })));
    assert_eq!(partials(&staging), []);
}

#[tokio::test]
async fn what_was_left_is_of_no_use_to_content_that_is_shorter_or_of_no_name() {
    let (store, staging, _home) = store().await;
    leave_half(&store).await;
    assert!(store.stage(&proxy(), None, &[]).await.is_empty(), "its name is not known");
    assert_eq!(partials(&staging).len(), 1);
    assert!(store.stage(&proxy(), Some(LEN as u64 - 1), &[claim()]).await.is_empty());
    assert_eq!(partials(&staging), [], "it cannot be right");
}

#[tokio::test]
async fn what_was_left_counts_until_it_goes() {
    let (store, _, _home) = store().await;
    let (half, whole) = (LEN as u64, 2 * LEN as u64);
    let limits = Limits { max_bytes: Some(whole + half / 2), min_free: Some(Share::Bytes(0)) };
    let store = store.within(limits);
    assert_eq!(store.count().await.expect("counted"), 0);
    leave_half(&store).await;
    assert_eq!(store.counted(), Some(half));
    assert_eq!(store.count().await.expect("counted"), half);
    let other = store.stage(&proxy(), Some(whole), &[]).await;
    assert!(other.unstored().is_some(), "there is no room for both");
    let staged = store.stage(&proxy(), Some(whole), &[claim()]).await;
    assert_eq!(
        (staged.len(), staged.unstored().is_some()),
        (half, false),
        "its own bytes are in nobody's way"
    );
    let mut progress = staged.progress();
    drop(staged);
    while progress.changed().await.is_ok() {}
    assert_eq!(store.counted(), Some(half));
}
