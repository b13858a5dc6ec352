//! What a limit takes, against the rules as they are written down, over stores as proptest thinks them up.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::Options;
use crate::maintain::fixture::{DAY, Fixture, KNOWN, list};
use crate::maintain::seen::key_digest;
use crate::model::{Digest, RefKey};

/// Blobs that there may be; the last are missing.
const BLOBS: u8 = 8;
const MISSING: u8 = 6;

/// A ref: how many days ago it was used, and what it needs.
type Kept = (i64, u8, Vec<u8>);

#[derive(Debug, Clone)]
struct Case {
    refs: Vec<Kept>,
    max_bytes: u64,
    unused_days: Option<i64>,
    in_use_days: Option<i64>,
}

fn cases() -> impl Strategy<Value = Case> {
    let kept = (0..6_i64, 0..BLOBS, prop::collection::vec(0..BLOBS, 0..4));
    let days = || proptest::option::weighted(0.4, 1..6_i64);
    (prop::collection::vec(kept, 0..30), 0..100_u64, days(), days()).prop_map(
        |(refs, max_bytes, unused_days, in_use_days)| Case { refs, max_bytes, unused_days, in_use_days },
    )
}

fn content(blob: u8) -> String {
    "x".repeat(usize::from(blob) * 3 + 1)
}

/// The numbers of the refs that expire, and of the blobs that are condemned.
fn expected(case: &Case, keys: &[RefKey]) -> (BTreeSet<usize>, BTreeSet<u8>) {
    let is_unused = |days: i64| case.unused_days.is_some_and(|limit| days >= limit);
    let is_in_use = |days: i64| case.in_use_days.is_some_and(|limit| days < limit);
    // Greater is more recent.
    let used =
        |n: usize| (-case.refs[n].0, *key_digest(&keys[n]).as_bytes().first_chunk::<8>().expect("long"));
    let needs = |n: usize| case.refs[n].2.iter().copied().chain([case.refs[n].1]);
    let mut newest = BTreeMap::new();
    for n in (0..keys.len()).filter(|n| !is_unused(case.refs[*n].0)) {
        for blob in needs(n).filter(|blob| *blob < MISSING) {
            let found = newest.entry(blob).or_insert(used(n));
            *found = used(n).max(*found);
        }
    }
    let mut freed: Vec<_> =
        newest.into_iter().map(|(blob, newest)| (newest, content(blob).len() as u64)).collect();
    freed.sort_unstable();
    let mut bytes: u64 = freed.iter().map(|(_, size)| size).sum();
    let mut cut = None;
    for (newest, size) in freed {
        if bytes <= case.max_bytes && cut != Some(newest) {
            break;
        }
        if !is_in_use(-newest.0) {
            bytes -= size;
            cut = Some(newest);
        }
    }
    let goes = |n: &usize| {
        let days = case.refs[*n].0;
        is_unused(days) || (Some(used(*n)) <= cut && !is_in_use(days))
    };
    let (expired, kept): (BTreeSet<_>, BTreeSet<_>) = (0..keys.len()).partition(goes);
    let needed: BTreeSet<_> = kept.into_iter().flat_map(needs).collect();
    (expired, (0..MISSING).filter(|blob| !needed.contains(blob)).collect())
}

async fn check(case: Case) {
    let fixture = Fixture::memory().await;
    for blob in 0..MISSING {
        fixture.blob(KNOWN, &content(blob)).await;
    }
    let mut keys = Vec::new();
    for (n, (days, target, links)) in case.refs.iter().enumerate() {
        let links: Vec<_> = links.iter().map(|link| Digest::of(content(*link).as_bytes())).collect();
        let key = fixture.reference(&format!("{KNOWN}/p/refs/r{n}"), &content(*target), &links).await;
        fixture.used_days_ago(&key, *days).await;
        keys.push(key);
    }
    let (refs, blobs) = expected(&case, &keys);
    let days = |days: i64| Duration::from_secs((days * DAY).unsigned_abs());
    let options = Options {
        grace: Duration::ZERO,
        max_bytes: Some(case.max_bytes),
        unused_for: case.unused_days.map(days),
        in_use: case.in_use_days.map(days),
        force: true,
        ..Options::default()
    };
    let report = fixture.gc(&options).await;
    let expired: BTreeSet<_> = list(&report.plan.expire).into_iter().map(|expired| expired.key).collect();
    assert_eq!(expired, refs.iter().map(|n| keys[*n].clone()).collect());
    let condemned: BTreeSet<_> = list(&report.plan.condemn).into_iter().map(|blob| blob.digest).collect();
    assert_eq!(condemned, blobs.iter().map(|blob| Digest::of(content(*blob).as_bytes())).collect());
    let done = report.done.expect("done");
    assert_eq!((done.expired, done.condemned), (refs.len() as u64, blobs.len() as u64));
}

proptest! {
    #[test]
    fn a_limit_takes_what_its_rules_say_and_no_more(case in cases()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(check(case));
    }
}
