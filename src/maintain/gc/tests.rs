//! Each rule of gc as a sentence.

use super::*;
use crate::maintain::fixture::{DAY, Fixture, KNOWN, UNKNOWN, key, list, told};
use crate::maintain::{Entry, NoProgress, Spool, reindex};
use crate::model::{Clock, Digest, RefKey};

/// No grace, and no guard rail: the stores here are tiny.
fn at_once() -> Options {
    Options { grace: Duration::ZERO, force: true, ..Options::default() }
}

/// The first entries of a list.
fn first_of<T: Entry>(fixture: &Fixture, spool: &Spool<T>, count: usize) -> Spool<T> {
    let mut first = Spool::new(fixture.at());
    for entry in spool.iter().take(count) {
        first.push(&entry.expect("read")).expect("written");
    }
    first
}

fn expired(report: &Report) -> Vec<String> {
    let line = |expired: Expired| format!("{} {}", expired.reason.as_str(), expired.key);
    list(&report.plan.expire).into_iter().map(line).collect()
}

#[tokio::test]
async fn an_unneeded_blob_is_condemned_by_one_run_and_gone_after_the_second_and_the_third_does_nothing() {
    for fixture in [Fixture::memory().await, Fixture::disk().await] {
        let digest = fixture.blob(KNOWN, "unneeded").await;
        let first = fixture.gc(&at_once()).await.done.expect("done");
        assert_eq!((first.condemned, first.condemned_bytes, first.reaped), (1, 8, 0));
        assert!(!fixture.is_live(KNOWN, &digest));
        assert!(fixture.is_condemned(KNOWN, &digest).await);
        let second = fixture.gc(&at_once()).await.done.expect("done");
        assert_eq!((second.condemned, second.reaped, second.reaped_bytes), (0, 1, 8));
        assert!(!fixture.is_condemned(KNOWN, &digest).await);
        let third = fixture.gc(&at_once()).await.done.expect("done");
        assert_eq!(third, Tally::default());
    }
}

#[tokio::test]
async fn what_any_ref_of_the_type_targets_or_links_stays() {
    let fixture = Fixture::memory().await;
    let mut needed = Vec::new();
    for (name, bytes) in [("p/refs/a", "1"), ("p/meta/b", "2"), ("p/cache/c", "3"), ("q/refs/d", "4")] {
        let link = fixture.blob(KNOWN, &format!("link of {bytes}")).await;
        needed.extend([fixture.blob(KNOWN, bytes).await, link]);
        fixture.reference(&format!("container/{name}"), bytes, &[link]).await;
    }
    let of_another_type = fixture.blob(UNKNOWN, "1").await;
    let done = fixture.gc(&at_once()).await.done.expect("done");
    assert_eq!(done.condemned, 1);
    assert!(needed.iter().all(|digest| fixture.is_live(KNOWN, digest)));
    assert!(fixture.is_condemned(UNKNOWN, &of_another_type).await);
}

#[tokio::test]
async fn a_blob_younger_than_the_grace_period_stays_and_one_of_its_age_goes() {
    let fixture = Fixture::memory().await;
    let digest = fixture.blob(KNOWN, "young").await;
    let day = Options { force: true, ..Options::default() };
    fixture.clock.advance_seconds(DAY - 60);
    fixture.gc(&day).await;
    assert!(fixture.is_live(KNOWN, &digest));
    fixture.clock.advance_seconds(120);
    fixture.gc(&day).await;
    assert!(!fixture.is_live(KNOWN, &digest));
}

#[tokio::test]
async fn a_condemned_blob_that_a_ref_needs_again_is_restored() {
    for fixture in [Fixture::memory().await, Fixture::disk().await] {
        let digest = fixture.blob(KNOWN, "again").await;
        fixture.gc(&at_once()).await;
        fixture.reference("container/p/refs/a", "again", &[]).await;
        let done = fixture.gc(&at_once()).await.done.expect("done");
        assert_eq!((done.restored, done.reaped, done.condemned), (1, 0, 0));
        assert!(fixture.is_live(KNOWN, &digest));
        assert!(!fixture.is_condemned(KNOWN, &digest).await);
    }
}

#[tokio::test]
async fn a_ref_without_links_is_completed_from_its_document_live_or_condemned() {
    let fixture = Fixture::memory().await;
    let link = fixture.blob(KNOWN, "link").await;
    let document = fixture.blob(KNOWN, &link.to_string()).await;
    fixture.gc(&at_once()).await;
    assert!(fixture.is_condemned(KNOWN, &document).await);
    fixture.unlinked("container/p/refs/a", "list", &link.to_string()).await;
    let done = fixture.gc(&at_once()).await.done.expect("done");
    assert_eq!((done.restored, done.reaped), (2, 0), "read from trash");
    let done = fixture.gc(&at_once()).await.done.expect("done");
    assert_eq!(done, Tally::default(), "read from where it is live");
}

#[tokio::test]
async fn a_document_that_is_nowhere_links_nothing() {
    let fixture = Fixture::memory().await;
    fixture.unlinked("container/p/refs/a", "list", "nowhere").await;
    assert!(fixture.gc(&at_once()).await.done.is_some());
}

#[tokio::test]
async fn links_that_nobody_can_tell_end_the_run_before_anything_is_deleted() {
    for name in ["container/p/refs/a", "generic/p/refs/a"] {
        let fixture = Fixture::memory().await;
        let artifact_type = key(name).proxy.artifact_type;
        let doomed = fixture.blob(artifact_type, "unneeded").await;
        fixture.gc(&at_once()).await;
        fixture.blob(artifact_type, "not a list").await;
        fixture.unlinked(name, "list", "not a list").await;
        let error = gc(fixture.at(), &at_once()).await.expect_err("aborted");
        assert!(matches!(error, MaintainError::UnknownLinks { .. }), "{error:?}");
        assert!(fixture.is_condemned(artifact_type, &doomed).await, "not reaped");
    }
}

#[tokio::test]
async fn a_file_that_is_no_ref_ends_the_run_before_anything_is_deleted_and_is_named() {
    for content in ["", "{", "[]", r#"{"kind":1}"#] {
        let fixture = Fixture::disk().await;
        let doomed = fixture.blob(KNOWN, "unneeded").await;
        fixture.gc(&at_once()).await;
        let key = fixture.reference("container/p/refs/a", "x", &[]).await;
        let path = "type/container/proxies/p/refs/a.json";
        std::fs::write(fixture.root().join(path), content).expect("written");
        let old = fixture.reference("container/p/refs/old", "x", &[]).await;
        fixture.used_days_ago(&old, 100).await;
        let options = Options { unused_for: Some(Duration::from_secs(DAY.unsigned_abs())), ..at_once() };
        let error = gc(fixture.at(), &options).await.expect_err("aborted");
        assert!(error.to_string().contains(path), "{error}");
        assert!(fixture.is_condemned(KNOWN, &doomed).await, "not reaped");
        assert!(fixture.store.read_ref(&old).await.expect("read").is_some(), "not expired");
        assert!(fixture.store.read_ref(&key).await.is_err(), "still there");
    }
}

#[tokio::test]
async fn a_time_to_live_that_has_ended_deletes_nothing() {
    let fixture = Fixture::memory().await;
    let digest = fixture.blob(KNOWN, "stale").await;
    let key = fixture.reference("container/p/refs/a", "stale", &[]).await;
    fixture.clock.advance_seconds(20 * DAY);
    assert_eq!(fixture.gc(&at_once()).await.done, Some(Tally::default()));
    assert!(fixture.store.read_ref(&key).await.expect("read").is_some());
    assert!(fixture.is_live(KNOWN, &digest));
}

#[tokio::test]
async fn refs_unused_for_so_long_go_with_their_rows_and_the_blobs_that_only_they_need() {
    let fixture = Fixture::disk().await;
    for bytes in ["old", "new", "both"] {
        fixture.blob(KNOWN, bytes).await;
    }
    let both = Digest::of(b"both");
    let old = fixture.reference("container/p/refs/old", "old", &[both]).await;
    let new = fixture.reference("container/p/refs/new", "new", &[both]).await;
    fixture.used_days_ago(&old, 91).await;
    fixture.used_days_ago(&new, 89).await;
    let index = fixture.index.as_ref().expect("an index");
    reindex(&fixture.store, index, fixture.at().rules, &NoProgress).await.expect("indexed");
    let options = Options { unused_for: Some(Duration::from_secs(90 * DAY.unsigned_abs())), ..at_once() };
    let report = fixture.gc(&options).await;
    assert_eq!(expired(&report), ["unused container/p/refs/old"]);
    assert_eq!(report.done.map(|done| (done.expired, done.condemned)), Some((1, 1)));
    assert!(index.lookup(&old).expect("asked").is_none());
    assert!(index.lookup(&new).expect("asked").is_some());
    assert!(fixture.is_condemned(KNOWN, &Digest::of(b"old")).await);
    assert!(fixture.is_live(KNOWN, &both));
}

#[tokio::test]
async fn a_use_that_only_the_index_knows_counts() {
    let fixture = Fixture::disk().await;
    let key = fixture.reference("container/p/refs/a", "x", &[]).await;
    fixture.used_days_ago(&key, 91).await;
    let index = fixture.index.as_ref().expect("an index");
    reindex(&fixture.store, index, fixture.at().rules, &NoProgress).await.expect("indexed");
    index.touch(&[(key.clone(), fixture.clock.now())]).expect("touched");
    let options = Options { unused_for: Some(Duration::from_secs(90 * DAY.unsigned_abs())), ..at_once() };
    assert_eq!(expired(&fixture.gc(&options).await), Vec::<String>::new());
    let without_index = Upkeep { index: None, ..fixture.at() };
    let report = gc(without_index, &options).await.expect("gc");
    assert_eq!(expired(&report), ["unused container/p/refs/a"]);
}

/// Five refs of ten bytes each, `r1` used one day ago to `r5` used five days ago; `r5` shares its
/// blob with `r1`.
async fn five() -> Fixture {
    let fixture = Fixture::memory().await;
    for days in 1..=5_i64 {
        let bytes = format!("{:010}", days % 5);
        fixture.blob(KNOWN, &bytes).await;
        let key = fixture.reference(&format!("container/p/refs/r{days}"), &bytes, &[]).await;
        fixture.used_days_ago(&key, days).await;
    }
    let shared = fixture.reference("container/p/refs/r5", &format!("{:010}", 1), &[]).await;
    fixture.used_days_ago(&shared, 5).await;
    fixture
}

#[tokio::test]
async fn the_least_recently_used_refs_go_until_what_the_others_need_fits() {
    for (max_bytes, gone) in [
        (40, &[][..]),
        (39, &["r4", "r5"]),
        (30, &["r4", "r5"]),
        (20, &["r3", "r4", "r5"]),
        (9, &["r1", "r2", "r3", "r4", "r5"]),
        (0, &["r1", "r2", "r3", "r4", "r5"]),
    ] {
        let fixture = five().await;
        let report = fixture.gc(&Options { max_bytes: Some(max_bytes), ..at_once() }).await;
        let gone = gone.iter().map(|name| format!("over-limit container/p/refs/{name}")).collect::<Vec<_>>();
        let mut found = expired(&report);
        found.sort();
        assert_eq!(found, gone, "{max_bytes}");
    }
}

#[tokio::test]
async fn refs_of_the_same_moment_do_not_all_go_for_a_few_bytes() {
    let fixture = Fixture::memory().await;
    for n in 0..10 {
        let bytes = format!("{n:010}");
        fixture.blob(KNOWN, &bytes).await;
        let key = fixture.reference(&format!("container/p/refs/r{n}"), &bytes, &[]).await;
        fixture.used_days_ago(&key, 3).await;
    }
    let report = fixture.gc(&Options { max_bytes: Some(75), ..at_once() }).await;
    assert_eq!(report.plan.expire.len(), 3);
}

/// Items `a`, `b`, `c` of ten bytes, used one, two and three days ago, and catalogues that name `versions`
/// of them, the newest last.
async fn named(versions: &[&str]) -> Fixture {
    let fixture = Fixture::memory().await;
    for (days, name) in (1..).zip(["a", "b", "c"]) {
        let bytes = format!("{name:0>10}");
        fixture.blob(KNOWN, &bytes).await;
        let now = fixture.clock.now();
        let key = fixture.write(&format!("container/p/refs/{name}"), "item", &bytes, None, now).await;
        fixture.used_days_ago(&key, days).await;
    }
    for (number, names) in (1..).zip(versions) {
        let line = |name: char| format!("{name} {}\n", Digest::of(format!("{name:0>10}").as_bytes()));
        let text = names.chars().map(|c| if c == '!' { "damaged".to_owned() } else { line(c) });
        let text: String = text.collect();
        fixture.blob(KNOWN, &text).await;
        let at = fixture.clock.now() + jiff::SignedDuration::from_secs(number);
        fixture.write(&format!("container/p/cache/index.{number}"), "catalogue", &text, None, at).await;
    }
    fixture
}

#[tokio::test]
async fn pitfall_11_what_no_current_catalogue_names_goes_first_however_recently_it_was_used() {
    for (versions, gone) in [
        (&["abc", "bc"][..], "a"),
        (&["abc"], "c"),
        (&["", "abc"], "c"),
        (&["abc", ""], "c"),
        // Nobody says anything, or nobody knows what else is said.
        (&[], "c"),
        (&["abc", "b!"], "c"),
    ] {
        let fixture = named(versions).await;
        let catalogues: u64 = fixture.gc(&Options { dry_run: true, ..at_once() }).await.plan.bytes - 30;
        let limit = Options { max_bytes: Some(20 + catalogues), ..at_once() };
        let report = fixture.gc(&limit).await;
        assert_eq!(expired(&report), [format!("over-limit container/p/refs/{gone}")], "{versions:?}");
    }
}

#[tokio::test]
async fn more_than_half_of_all_refs_are_refused_and_nothing_is_touched() {
    let fixture = five().await;
    let options = Options { max_bytes: Some(20), force: false, ..at_once() };
    let report = fixture.gc(&options).await;
    assert_eq!(report.refusal, Some(Refusal::Refs { expiring: 3, total: 5 }));
    assert_eq!(report.done, None);
    assert!(fixture.is_live(KNOWN, &Digest::of(b"0000000003")));
    let forced = fixture.gc(&Options { force: true, ..options }).await;
    assert_eq!(forced.done.map(|done| done.expired), Some(3));
}

#[tokio::test]
async fn more_than_half_of_all_bytes_are_refused() {
    let fixture = Fixture::memory().await;
    fixture.blob(KNOWN, "needed").await;
    fixture.reference("container/p/refs/a", "needed", &[]).await;
    let big = fixture.blob(KNOWN, "unneeded").await;
    let options = Options { force: false, ..at_once() };
    let report = fixture.gc(&options).await;
    assert_eq!(report.refusal, Some(Refusal::Bytes { condemned: 8, total: 14 }));
    assert!(fixture.is_live(KNOWN, &big));
    assert!(fixture.gc(&at_once()).await.done.is_some());
    assert_eq!(fixture.gc(&options).await.done.map(|done| done.reaped), Some(1), "judged once");
}

#[tokio::test]
async fn a_clock_that_jumped_is_refused_until_it_is_accepted() {
    for seconds in [-400, 31 * DAY, 365 * DAY] {
        let fixture = Fixture::memory().await;
        fixture.gc(&at_once()).await;
        let digest = fixture.blob(KNOWN, "x").await;
        fixture.clock.advance_seconds(seconds);
        let refused = fixture.gc(&at_once()).await;
        assert!(matches!(refused.refusal, Some(Refusal::Clock { .. })), "{refused:?}");
        assert!(fixture.is_live(KNOWN, &digest));
        let accepted = fixture.gc(&Options { accept_clock: true, ..at_once() }).await;
        assert_eq!(accepted.done.map(|done| done.condemned), Some(1));
        assert!(fixture.gc(&at_once()).await.done.is_some(), "the new time holds from now on");
    }
}

#[tokio::test]
async fn a_dry_run_plans_what_a_run_does_and_changes_no_byte() {
    let fixture = Fixture::disk().await;
    for n in 0..6_i64 {
        let bytes = format!("{n:010}");
        fixture.blob(KNOWN, &bytes).await;
        let key = fixture.reference(&format!("container/p/refs/r{n}"), &bytes, &[]).await;
        fixture.used_days_ago(&key, n).await;
    }
    fixture.blob(KNOWN, "first").await;
    fixture.gc(&Options { max_bytes: Some(50), ..at_once() }).await;
    fixture.reference("container/p/refs/back", &format!("{:010}", 5), &[]).await;
    fixture.blob(KNOWN, "second").await;
    let options = Options { max_bytes: Some(30), ..at_once() };
    let before = fixture.files();
    let dry = fixture.gc(&Options { dry_run: true, ..options.clone() }).await;
    assert_eq!(fixture.files(), before);
    assert!(dry.done.is_none());
    let run = fixture.gc(&options).await;
    assert_eq!(told(&dry.plan), told(&run.plan));
    let done = run.done.expect("done");
    let planned =
        (run.plan.expire.len(), run.plan.restore.len(), run.plan.reap.len(), run.plan.condemn.len());
    assert_eq!(planned, (2, 1, 1, 3), "each kind is in it");
    assert_eq!((done.expired, done.restored, done.reaped, done.condemned), (2, 1, 1, 3));
}

#[tokio::test]
async fn a_second_run_is_locked_out_and_a_dry_run_is_not() {
    for fixture in [Fixture::memory().await, Fixture::disk().await] {
        let held = fixture.store.lock(LOCK).expect("asked").expect("free");
        let error = gc(fixture.at(), &at_once()).await.expect_err("locked");
        assert!(matches!(error, MaintainError::Locked(_)));
        fixture.gc(&Options { dry_run: true, ..at_once() }).await;
        drop(held);
        fixture.gc(&at_once()).await;
    }
}

#[tokio::test]
async fn a_row_without_a_file_keeps_nothing() {
    let fixture = Fixture::disk().await;
    let digest = fixture.blob(KNOWN, "x").await;
    let key = fixture.reference("container/p/refs/a", "x", &[]).await;
    let index = fixture.index.as_ref().expect("an index");
    reindex(&fixture.store, index, fixture.at().rules, &NoProgress).await.expect("indexed");
    fixture.store.remove_ref(&key).await.expect("removed");
    fixture.gc(&at_once()).await;
    assert!(fixture.is_condemned(KNOWN, &digest).await);
}

#[tokio::test]
async fn a_ref_fetched_anew_after_it_was_planned_to_expire_stays_with_what_it_needs() {
    let fixture = Fixture::memory().await;
    let digest = fixture.blob(KNOWN, "x").await;
    let key = fixture.reference("container/p/refs/a", "x", &[]).await;
    let left = fixture.reference("container/p/refs/b", "y", &[]).await;
    for key in [&key, &left] {
        fixture.used_days_ago(key, 100).await;
    }
    let start = fixture.clock.now();
    let options = Options { unused_for: Some(Duration::from_secs(DAY.unsigned_abs())), ..at_once() };
    let plan = plan::make(fixture.at(), &options, start).await.expect("planned");
    assert_eq!((plan.expire.len(), plan.condemn.len()), (2, 1));
    fixture.clock.advance_seconds(1);
    fixture.reference("container/p/refs/a", "x", &[]).await;
    let done = execute::execute(fixture.at(), &plan, start).await.expect("executed");
    assert_eq!((done.expired, done.condemned), (1, 0));
    assert!(fixture.is_live(KNOWN, &digest));
    let read = async |key: &RefKey| fixture.store.read_ref(key).await.expect("read").is_some();
    assert_eq!((read(&key).await, read(&left).await), (true, false));
}

#[tokio::test]
async fn a_plan_that_was_executed_in_part_is_finished_by_the_next_run() {
    let whole = five().await;
    let options = Options { max_bytes: Some(20), ..at_once() };
    for _ in 0..2 {
        whole.gc(&options).await;
    }
    // Killed behind each step: what comes later in the plan is not done.
    for kept in 0..3 {
        let part = five().await;
        let start = part.clock.now();
        let mut plan = plan::make(part.at(), &options, start).await.expect("planned");
        plan.condemn = first_of(&part, &plan.condemn, kept);
        plan.expire = first_of(&part, &plan.expire, kept);
        execute::execute(part.at(), &plan, start).await.expect("executed");
        for _ in 0..3 {
            part.gc(&options).await;
        }
        for n in 0..5 {
            let digest = Digest::of(format!("{n:010}").as_bytes());
            assert_eq!(part.is_live(KNOWN, &digest), whole.is_live(KNOWN, &digest), "{kept} {n}");
            assert!(!part.is_condemned(KNOWN, &digest).await);
        }
    }
}
