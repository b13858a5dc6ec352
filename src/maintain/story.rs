//! The store under stories: any sequence of pulls, deletions, expiry and gc, some of them at the same time,
//! while the disk fails, processes die and the clock moves, as proptest thinks them up. It prints the
//! shortest story that fails, and the seed to have it again; the threads that list the store keep a time of
//! their own, so that acts of the same time may have to be told again to fail.
//!
//! After each chapter: a ref that was acknowledged is there unless somebody meant it to go, and has its
//! blob, live or condemned; every blob has the content of its name. At the end gc leaves what is needed and
//! nothing else, and fsck finds nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;

use super::fixture::{Fixture, KNOWN, key};
use super::fsck;
use super::gc::{self, Options};
use crate::model::{Claim, Clock as _, Digest, Ref, RefKey};
use crate::store::{Fault, Faults, Store, StoreError};

/// Names and contents are few, so that they meet.
const REFS: u8 = 4;
const BLOBS: u8 = 5;

/// What happens, and what goes wrong meanwhile.
#[derive(Debug, Clone)]
struct Chapter {
    acts: Vec<Act>,
    fault: Option<(Fault, u32)>,
    /// How acts of the same time are interleaved.
    seed: u64,
}

/// What somebody does.
#[derive(Debug, Clone)]
enum Act {
    /// A client pulls what a ref names, which upstream says is this, and then a child.
    Pull { name: u8, target: u8, child: Option<u8> },
    /// An operator deletes a ref.
    Delete { name: u8 },
    /// gc so many times, with a grace period or without; refs that were unused for so many days expire.
    Collect { runs: u8, grace: bool, unused_days: Option<u8> },
    /// The clock moves by so many hours, also back.
    Clock { hours: i8 },
}

fn acts() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (0..REFS, 0..BLOBS, proptest::option::of(0..BLOBS))
            .prop_map(|(name, target, child)| Act::Pull { name, target, child }),
        1 => (0..REFS).prop_map(|name| Act::Delete { name }),
        4 => (1..4_u8, proptest::bool::weighted(0.2), proptest::option::weighted(0.1, 0..4_u8))
            .prop_map(|(runs, grace, unused_days)| Act::Collect { runs, grace, unused_days }),
        1 => any::<i8>().prop_map(|hours| Act::Clock { hours }),
    ]
}

fn chapters() -> impl Strategy<Value = Chapter> {
    let fault = prop_oneof![Just(Fault::Error), Just(Fault::Death)];
    let fault = proptest::option::weighted(0.4, (fault, 0..40_u32));
    (prop::collection::vec(acts(), 1..4), fault, any::<u64>()).prop_map(|(acts, fault, seed)| Chapter {
        acts,
        fault,
        seed,
    })
}

fn content(blob: u8) -> String {
    format!("content {blob}")
}

fn digest(blob: u8) -> Digest {
    Digest::of(content(blob).as_bytes())
}

fn name(number: u8) -> RefKey {
    key(&format!("{KNOWN}/p/refs/r{number}"))
}

/// What was acknowledged and must be there: refs, and the blobs that each needs.
type Acknowledged = BTreeMap<u8, BTreeSet<u8>>;

/// W1: the blob is live.
async fn ensure(store: &Store, blob: u8) -> Result<(), StoreError> {
    if store.ensure_live(KNOWN, &digest(blob), None).await?.is_some() {
        return Ok(());
    }
    let claim = digest(blob).into();
    let mut staged = store.stage(&name(0).proxy, None, std::slice::from_ref(&claim)).await;
    staged.write(content(blob).into()).await?;
    staged.seal(&[claim]).await?.publish().await?;
    Ok(())
}

/// What the engine does for a client: W1, W2, W3; then the child, for which nothing is written.
async fn pull(at: &Fixture, number: u8, target: u8, child: Option<u8>) -> Result<(), StoreError> {
    let links: Vec<Claim> = child.iter().map(|child| digest(*child).into()).collect();
    ensure(&at.store, target).await?;
    let mut reference =
        Ref::new("thing".to_owned(), digest(target), content(target).len() as u64, at.clock.now());
    reference.links = Some(links);
    at.store.write_ref(&name(number), &reference).await?;
    ensure(&at.store, target).await?;
    if let Some(child) = child {
        ensure(&at.store, child).await?;
    }
    Ok(())
}

/// One act; what it acknowledges, if it gets so far.
async fn play(at: &Fixture, act: &Act) -> Option<(u8, BTreeSet<u8>)> {
    match act {
        Act::Pull { name, target, child } => {
            pull(at, *name, *target, *child).await.ok()?;
            Some((*name, [*target].into_iter().chain(*child).collect()))
        }
        Act::Delete { name: number } => {
            // It may fail: then it may be there or not.
            let _ = at.store.remove_ref(&name(*number)).await;
            None
        }
        Act::Collect { runs, grace, unused_days } => {
            let options = Options {
                grace: if *grace { Options::GRACE } else { Duration::ZERO },
                unused_for: unused_days.map(|days| Duration::from_hours(24 * u64::from(days))),
                force: true,
                accept_clock: true,
                ..Options::default()
            };
            for _ in 0..*runs {
                // It may fail, and somebody else may be at it.
                let _ = gc::gc(at.at(), &options).await;
            }
            None
        }
        Act::Clock { hours } => {
            at.clock.advance_seconds(i64::from(*hours) * 3600);
            None
        }
    }
}

/// Plays a chapter and notes what has been acknowledged; then the fault is over.
async fn turn_page(at: &Fixture, faults: &Faults, chapter: &Chapter, acknowledged: &mut Acknowledged) {
    let takes_refs =
        |act: &Act| matches!(act, Act::Delete { .. } | Act::Collect { unused_days: Some(_), .. });
    let named = |act: &Act| match act {
        Act::Pull { name, .. } => Some(*name),
        _ => None,
    };
    // What a chapter names again is what it makes of it, and two that do at the same time are either's.
    let again: Vec<u8> = chapter.acts.iter().filter_map(named).collect();
    acknowledged.retain(|name, _| !again.contains(name));
    for act in &chapter.acts {
        match act {
            Act::Delete { name } => drop(acknowledged.remove(name)),
            act if takes_refs(act) => acknowledged.clear(),
            _ => {}
        }
    }
    if let Some((fault, after)) = chapter.fault {
        faults.set(fault, after);
    }
    let done = faults.together(chapter.seed, chapter.acts.iter().map(|act| play(at, act))).await;
    faults.clear();
    for (name, needs) in done.into_iter().flatten() {
        let is_alone = again.iter().filter(|again| **again == name).nth(1).is_none();
        if is_alone && !chapter.acts.iter().any(takes_refs) {
            acknowledged.insert(name, needs);
        }
    }
}

async fn check(at: &Fixture, acknowledged: &Acknowledged) {
    for (number, needs) in acknowledged {
        let found = at.store.read_ref(&name(*number)).await.expect("readable");
        assert!(found.is_some(), "r{number} was acknowledged");
        for blob in needs {
            let live = at.store.open_blob(KNOWN, &digest(*blob), None).expect("looked");
            let condemned = at.store.open_condemned(KNOWN, &digest(*blob)).await.expect("looked");
            let held = live.or(condemned);
            assert!(held.is_some(), "r{number} needs blob {blob}");
        }
    }
    for blob in 0..BLOBS {
        if let Some(found) = at.store.open_blob(KNOWN, &digest(blob), None).expect("looked") {
            assert_eq!(found.read_at(0, usize::MAX).expect("read"), content(blob));
        }
    }
}

async fn tell(story: Vec<Chapter>) {
    let (store, faults) = Store::faulty().await;
    let at = Fixture::over(store);
    let mut acknowledged = Acknowledged::new();
    for chapter in &story {
        turn_page(&at, &faults, chapter, &mut acknowledged).await;
        check(&at, &acknowledged).await;
    }
    // What condemned blobs are needed for brings them back, what is not needed goes: a run for each.
    let at_once = Options { grace: Duration::ZERO, force: true, accept_clock: true, ..Options::default() };
    for _ in 0..3 {
        at.gc(&at_once).await;
    }
    check(&at, &acknowledged).await;
    let mut needed = BTreeSet::new();
    for number in 0..REFS {
        if let Some(found) = at.store.read_ref(&name(number)).await.expect("readable") {
            needed.insert(found.target_digest);
            needed.extend(found.links.iter().flatten().map(|link| link.digest));
        }
    }
    for blob in 0..BLOBS {
        let digest = digest(blob);
        assert!(needed.contains(&digest) || !at.is_live(KNOWN, &digest), "nobody needs {blob}");
        assert!(!at.is_condemned(KNOWN, &digest).await, "it has gone or come back: {blob}");
    }
    // A ref whose writing was cut off before it was acknowledged may lack its blob, and nothing else.
    let lines =
        at.fsck(&fsck::Options { read_data: Some(fsck::Share::ALL), ..fsck::Options::default() }).await;
    let findings = &lines[..lines.len() - 1];
    let is_unacknowledged = |line: &String| {
        line.contains("missing")
            && (0..REFS).any(|n| line.contains(&format!("r{n}")) && !acknowledged.contains_key(&n))
    };
    assert!(findings.iter().all(is_unacknowledged), "{lines:#?}");
}

proptest! {
    #[test]
    fn no_story_loses_what_was_acknowledged(story in prop::collection::vec(chapters(), 1..12)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(tell(story));
    }
}
