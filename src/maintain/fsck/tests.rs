//! A damaged store and what fsck says about it, as snapshots of all its output.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::maintain::fixture::{Fixture, KNOWN, key};
use crate::maintain::{NoProgress, gc, reindex};
use crate::model::{Digest, RefKey};

const LOOK: Options = Options { repair: false, read_data: Some(Share::ALL) };
const REPAIR: Options = Options { repair: true, ..LOOK };

/// The file of a live blob of the known type.
fn file_of(fixture: &Fixture, digest: &Digest) -> PathBuf {
    let hex = digest.hex();
    fixture.root().join(format!("type/container/blobs/sha256/{}/{}/{hex}", &hex[..2], &hex[2..4]))
}

async fn indexed(fixture: &Fixture) {
    let index = fixture.index.as_ref().expect("an index");
    reindex(&fixture.store, index, fixture.at().rules, &NoProgress).await.expect("indexed");
}

/// A store with one of each kind of damage, and an index that was right before most of it.
async fn damaged() -> Fixture {
    let fixture = Fixture::disk().await;
    let now = "2026-01-02T03:04:05Z".parse().expect("valid");
    let write = async |name: &str, kind: &str, target: &str, linked: bool| {
        fixture.write(&format!("container/p/refs/{name}"), kind, target, linked.then(Vec::new), now).await
    };
    for bytes in ["sound", "flipped", "emptied", "cut short", "no list", "condemned"] {
        fixture.blob(KNOWN, bytes).await;
    }
    write("sound", "thing", "sound", true).await;
    write("flipped", "thing", "flipped", true).await;
    write("emptied", "thing", "emptied", true).await;
    write("cut-short/one", "thing", "cut short", true).await;
    write("cut-short/two", "thing", "cut short", true).await;
    write("no-list", "list", "no list", false).await;
    write("missing", "thing", "never was", true).await;
    write("no-ref", "thing", "sound", true).await;
    let wrong_size = write("wrong-size", "thing", "sound", true).await;
    let vanished = write("vanished", "thing", "sound", true).await;
    write("old-row", "thing", "sound", true).await;
    write("wrong-row", "thing", "sound", true).await;

    let mut reference = fixture.store.read_ref(&wrong_size).await.expect("read").expect("there");
    reference.size = 7;
    fixture.store.write_ref(&wrong_size, &reference).await.expect("written");
    indexed(&fixture).await;

    fixture.store.condemn(&[(KNOWN, Digest::of(b"condemned"))], "run").await.expect("condemned");
    write("condemned", "thing", "condemned", true).await;
    let later = "2026-01-02T03:04:06Z".parse().expect("valid");
    fixture.write("container/p/refs/old-row", "thing", "sound", Some(Vec::new()), later).await;
    fixture.write("container/p/refs/wrong-row", "other", "sound", Some(Vec::new()), now).await;
    fixture.store.remove_ref(&vanished).await.expect("removed");

    let refs = fixture.root().join("type/container/proxies/p/refs");
    fs::write(refs.join("no-ref.json"), "{").expect("written");
    fs::copy(refs.join("sound.json"), refs.join("Sound.json")).expect("copied");
    fs::write(file_of(&fixture, &Digest::of(b"flipped")), "flippee").expect("written");
    fs::write(file_of(&fixture, &Digest::of(b"emptied")), "").expect("written");
    fs::write(file_of(&fixture, &Digest::of(b"cut short")), "cut").expect("written");
    fs::write(fixture.root().join("type/container/blobs/README"), "x").expect("written");
    let tmp = fixture.root().join("type/container/proxies/p/tmp/gone");
    fs::create_dir_all(&tmp).expect("made");
    fs::write(tmp.join("half"), "half").expect("written");
    fixture
}

#[tokio::test]
async fn every_kind_of_damage_is_found_and_nothing_is_changed() {
    let fixture = damaged().await;
    let before = fixture.files();
    let lines = fixture.fsck(&LOOK).await;
    insta::assert_snapshot!(lines.join("\n"));
    assert!(fixture.files() == before, "it only looked");
}

#[tokio::test]
async fn repair_mends_what_was_found_and_the_next_run_finds_nothing() {
    let fixture = damaged().await;
    let lines = fixture.fsck(&REPAIR).await;
    insta::assert_snapshot!(lines.join("\n"));
    let again = fixture.fsck(&LOOK).await;
    assert_eq!(again.len(), 1, "{again:#?}");
    let quarantined =
        fixture.files().into_iter().map(|(path, _)| path).filter(|path| path.contains("/quarantine/"));
    insta::assert_snapshot!(quarantined.collect::<Vec<_>>().join("\n"));
}

#[tokio::test]
async fn after_a_repair_gc_runs_and_takes_nothing_that_is_needed() {
    let fixture = damaged().await;
    let options = gc::Options { grace: std::time::Duration::ZERO, force: true, ..gc::Options::default() };
    gc::gc(fixture.at(), &options).await.expect_err("a file is no ref");
    fixture.fsck(&REPAIR).await;
    let done = fixture.gc(&options).await.done.expect("done");
    // What was restored is live already: only its entry in the trash goes. `no list` is needed no more.
    assert_eq!((done.restored, done.reaped, done.condemned), (1, 0, 1));
    assert!(fixture.is_live(KNOWN, &Digest::of(b"sound")));
    assert!(fixture.is_live(KNOWN, &Digest::of(b"condemned")));
}

#[tokio::test]
async fn without_reading_data_only_a_flipped_bit_is_not_found() {
    let fixture = damaged().await;
    let with = fixture.fsck(&LOOK).await;
    let without = fixture.fsck(&Options::default()).await;
    let missed = with.iter().filter(|line| !without.contains(line)).collect::<Vec<_>>();
    assert_eq!(missed.len(), 2, "the flipped bit and the report: {missed:#?}");
    assert!(missed[0].contains("corrupt-blob"));
}

#[tokio::test]
async fn a_share_reads_the_blobs_that_are_in_it() {
    let fixture = Fixture::memory().await;
    for n in 0..40 {
        fixture.blob(KNOWN, &format!("{n:04}")).await;
    }
    let mut bytes = 0;
    for part in 1..=3 {
        let share = format!("{part}/3").parse().expect("valid");
        let report = run(&fixture, &Options { read_data: Some(share), repair: false }).await;
        assert!(report.bytes_read > 0 && report.bytes_read < 160, "{report:?}");
        bytes += report.bytes_read;
    }
    assert_eq!(bytes, 160);
}

#[tokio::test]
async fn a_store_that_is_as_it_should_be_is_clean_with_and_without_an_index() {
    for fixture in [Fixture::memory().await, Fixture::disk().await] {
        let link = fixture.blob(KNOWN, "link").await;
        fixture.blob(KNOWN, &link.to_string()).await;
        fixture.unlinked("container/p/refs/a", "list", &link.to_string()).await;
        let absent = Digest::of(b"absent");
        fixture.reference("container/p/meta/b", "link", &[absent]).await;
        if fixture.index.is_some() {
            indexed(&fixture).await;
        }
        let report = run(&fixture, &LOOK).await;
        assert!(report.is_clean() && report.notes == 0, "a link that is absent is no damage: {report:?}");
        assert_eq!(report.index_checked, fixture.index.is_some());
    }
}

#[tokio::test]
async fn an_index_that_is_not_complete_is_not_compared() {
    let mut fixture = Fixture::disk().await;
    let dir = tempfile::tempdir().expect("a directory");
    fixture.index = Some(crate::index::Index::open(dir.path()).expect("an index").0);
    fixture.blob(KNOWN, "x").await;
    fixture.reference("container/p/refs/a", "x", &[]).await;
    let report = run(&fixture, &LOOK).await;
    assert!(!report.index_checked && report.notes == 0, "{report:?}");
}

#[tokio::test]
async fn what_a_crash_may_leave_is_a_note_and_does_not_count() {
    let fixture = Fixture::disk().await;
    fixture.blob(KNOWN, "x").await;
    fixture.reference("container/p/refs/unrecorded", "x", &[]).await;
    fixture.blob(KNOWN, "unneeded").await;
    let tmp = fixture.root().join("type/container/proxies/p/tmp/gone");
    fs::create_dir_all(&tmp).expect("made");
    fs::write(tmp.join("half"), "half").expect("written");
    let report = run(&fixture, &LOOK).await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.notes, 2);
}

#[tokio::test]
async fn what_is_right_at_the_second_look_is_no_finding() {
    let fixture = Fixture::memory().await;
    let fixture = &fixture;
    let key = fixture.reference("container/p/refs/a", "late", &[]).await;
    let seen = fixture.store.read_ref(&key).await.expect("read").expect("there");
    let mut findings = 0;
    let mut sink = |_: &Finding, _: &Outcome| {
        findings += 1;
        ControlFlow::Continue(())
    };
    let mut check = check(fixture.at(), LOOK, &mut sink);
    assert!(check.suspects(&key, &seen, None).await.expect("looked"), "its target is missing");
    fixture.store.remove_ref(&key).await.expect("removed");
    check.reference(&key, seen, None).await.expect("looked");
    assert_eq!(findings, 0, "it has gone meanwhile");
}

#[tokio::test]
async fn a_sink_that_wants_no_more_ends_the_run() {
    let fixture = Fixture::memory().await;
    for name in ["a", "b"] {
        fixture.reference(&format!("container/p/refs/{name}"), "missing", &[]).await;
    }
    let mut findings = 0;
    let mut sink = |_: &Finding, _: &Outcome| {
        findings += 1;
        ControlFlow::Break(())
    };
    let ended = fsck(fixture.at(), &LOOK, &mut sink).await;
    assert!(matches!(ended, Err(MaintainError::Stopped)));
    assert_eq!(findings, 1);
}

#[tokio::test]
async fn a_good_copy_that_came_meanwhile_is_not_quarantined() {
    let fixture = Fixture::disk().await;
    let digest = fixture.blob(KNOWN, "good").await;
    let finding =
        Finding::CorruptBlob { artifact_type: KNOWN, digest, how: Corruption::HashesTo(Digest::of(b"bad")) };
    mend::mend(fixture.at(), finding.mend()).await.expect("looked");
    assert!(fixture.is_live(KNOWN, &digest));
}

#[tokio::test]
async fn a_ref_that_came_meanwhile_is_not_set_aside_and_that_is_said() {
    let fixture = Fixture::disk().await;
    let key: RefKey = key("container/p/refs/a");
    fixture.reference("container/p/refs/a", "x", &[]).await;
    let path = "type/container/proxies/p/refs/a.json".to_owned();
    let finding = Finding::UnreadableRef { path, key: Some(key.clone()), why: String::new() };
    let error = mend::mend(fixture.at(), finding.mend()).await.expect_err("not moved");
    assert!(matches!(error, MaintainError::Gone(_)));
    assert!(fixture.store.read_ref(&key).await.expect("read").is_some());
}

async fn run(fixture: &Fixture, options: &Options) -> Report {
    fsck(fixture.at(), options, &mut |_, _| ControlFlow::Continue(())).await.expect("fsck")
}
