//! Recording, forgetting, touching; generations; grants; two processes; the writer.

use std::sync::Arc;
use std::time::Duration;

use rusqlite::Connection;

use super::*;

const TAG: &str = "container/hub/refs/library/app/tags/1";

/// A connection of somebody else, who holds the write lock until it is dropped.
fn lock(dir: &Path) -> Connection {
    let other = Connection::open(dir.join("index.db")).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    other
}

fn impatient() -> Options {
    Options { busy: Duration::from_millis(1), ..Options::default() }
}

#[test]
fn a_ref_is_looked_up_as_it_was_recorded() {
    let (_dir, index) = fresh();
    let text = format!(
        r#"{{"kind":"container.tag","targetDigest":"{}","mediaType":"text/plän","size":7432,
        "upstream":"registry-1.docker.io","fetchedAt":"2025-11-09T12:34:56.123456789Z","ttlSeconds":604800,
        "etag":"\"x\"","lastModified":"Sun, 09 Nov 2025 12:34:56 GMT","headers":{{"docker-x":"1","ä":"☃"}},
        "http":{{"status":404,"ageSeconds":7,"variant":"v"}},"links":["{}"],"flavour":{{"x":[1,2.5,null]}}}}"#,
        digest(1),
        digest(2),
    );
    let minimal = format!(
        r#"{{"kind":"k","targetDigest":"{}","size":0,"fetchedAt":"1969-07-20T20:17:40Z"}}"#,
        digest(3)
    );
    for (path, text) in [("ünï/☃/%2F/tags/1", text), ("a", minimal)] {
        let reference = Ref::parse(text.as_bytes()).expect("valid");
        let key = key(&format!("container/hub/refs/{path}"));
        assert_eq!(index.lookup(&key).expect("lookup"), None);
        let record = Record { key: key.clone(), scope: "ünï".to_owned(), reference: reference.clone() };
        index.record(&[record]).expect("record");
        assert_eq!(index.links(&key).expect("links"), reference.links);
        assert_eq!(index.lookup(&key).expect("lookup"), Some(Ref { links: None, ..reference }));
    }
}

#[test]
fn keys_that_differ_in_one_part_are_different_refs() {
    let (_dir, index) = fresh();
    let keys = [
        "container/hub/refs/a/b",
        "container/hub/refs/a/B",
        "container/hub/meta/a/b",
        "container/hub/cache/a/b",
        "container/ghcr/refs/a/b",
        "generic/hub/refs/a/b",
        "container/hub/refs/a",
    ];
    for (number, text) in (1..).zip(keys) {
        index.record(&[record(text, number)]).expect("record");
    }
    for (number, text) in (1..).zip(keys) {
        let found = index.lookup(&key(text)).expect("lookup").expect(text);
        assert_eq!(found.target_digest, digest(number), "{text}");
    }
}

#[test]
fn numbers_that_do_not_fit_are_the_nearest_that_do() {
    let (_dir, index) = fresh();
    let mut record = record(TAG, 1);
    record.reference.size = u64::MAX;
    record.reference.ttl_seconds = Some(u64::MAX);
    record.reference.fetched_at = Timestamp::MAX;
    index.record(&[record]).expect("record");
    let found = index.lookup(&key(TAG)).expect("lookup").expect("there");
    assert_eq!((found.size, found.ttl_seconds), (i64::MAX as u64, Some(i64::MAX as u64)));
    assert_eq!(found.fetched_at.to_string()[..4], *"2262");
    let expired = RefQuery { expired_at: Some(Timestamp::MAX), ..RefQuery::default() };
    assert_eq!(index.query(&expired).expect("page").rows, [], "a time beyond what fits has not passed");
}

#[test]
fn of_two_records_of_one_key_the_later_wins() {
    let (_dir, index) = fresh();
    index.record(&[record(TAG, 1), record("container/hub/refs/a", 9), record(TAG, 2)]).expect("record");
    assert_eq!(index.lookup(&key(TAG)).expect("lookup").expect("there").target_digest, digest(2));
    assert_eq!(index.count().expect("count"), 2);
}

#[test]
fn links_are_replaced_with_the_ref() {
    let (_dir, index) = fresh();
    let grants = |number| {
        index.grant(&proxy("hub"), "library/app", &digest(number), |_| true).expect("grant").is_some()
    };
    index.record(&[linking(record(TAG, 1), &[3, 2, 3])]).expect("record");
    assert_eq!(index.links(&key(TAG)).expect("links"), Some([3, 2, 3].map(claim).to_vec()));
    assert!(grants(1) && grants(2) && grants(3));
    let size = |number| {
        index
            .grant(&proxy("hub"), "library/app", &digest(number), |_| true)
            .expect("grant")
            .expect("granted")
            .size
    };
    assert_eq!(
        (size(1), size(2), size(3)),
        (Some(10), Some(20), None),
        "as the target, or as the link states"
    );

    index.record(&[linking(record(TAG, 1), &[3, 4])]).expect("record");
    assert!(!grants(2) && grants(3) && grants(4));

    index.record(&[linking(record(TAG, 1), &[])]).expect("record");
    assert_eq!(index.links(&key(TAG)).expect("links"), Some(vec![]), "looked at, and it links nothing");
    assert!(!grants(3));

    index.record(&[linking(record(TAG, 1), &[3])]).expect("record");
    index.record(&[record(TAG, 1)]).expect("record");
    assert_eq!(index.links(&key(TAG)).expect("links"), None);
    assert!(!grants(3) && grants(1));
}

#[test]
fn refs_of_a_scope_that_link_the_same_share_a_list_that_goes_with_the_last_of_them() {
    let (dir, index) = fresh();
    let raw = Connection::open(dir.path().join("index.db")).expect("opens");
    let count = |table: &str| {
        let sql = format!("SELECT count(*) FROM {table}");
        raw.query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("count")
    };
    let named = |name: &str| record(&format!("container/hub/refs/library/app/{name}"), 1);
    let elsewhere = linking(record("container/hub/refs/library/other/tags/1", 1), &[2, 3]);
    let alike = [linking(named("tags/1"), &[2, 3]), linking(named("tags/2"), &[2, 3])];
    index.record(&alike).expect("record");
    index.record(&[elsewhere, linking(named("manifests/x"), &[2, 3])]).expect("record");
    assert_eq!((count("lists"), count("links")), (2, 4), "one for each scope");
    index.record(&[linking(named("tags/1"), &[3, 2])]).expect("record");
    assert_eq!((count("lists"), count("links")), (3, 6), "another order is another list");
    index.forget(&[alike[1].key.clone(), named("tags/1").key]).expect("forget");
    assert_eq!((count("lists"), count("links")), (2, 4));
    let links = index.links(&named("manifests/x").key).expect("links");
    assert_eq!(links, Some([2, 3].map(claim).to_vec()), "the last of three");
    index.record(&[named("manifests/x")]).expect("record");
    assert_eq!((count("lists"), count("links")), (1, 2), "what links nothing that is known has none");
}

#[test]
fn an_index_from_before_lists_keeps_rows_and_last_uses_and_has_links_after_a_rebuild() {
    let dir = TempDir::new().expect("directory");
    let raw = Connection::open(dir.path().join("index.db")).expect("opens");
    for step in &schema::MIGRATIONS[..3] {
        raw.execute_batch(step).expect("an older schema");
    }
    raw.execute_batch(
        "PRAGMA application_id = 0x72707879; PRAGMA user_version = 3; UPDATE meta SET value = 1 WHERE key = 'complete';
         INSERT INTO proxies VALUES (1, 0, 'hub'); INSERT INTO scopes VALUES (1, 1, 'library/app');
         INSERT INTO refs (id, generation, type, proxy, area, scope, fetched_at, size, digest, kind, path) VALUES
         (7, 1, 0, 1, 0, 1, 0, 1, zeroblob(32), 'k', 'library/app/tags/1.0');
         INSERT INTO uses VALUES (7, 5000000000); INSERT INTO linked VALUES (7, zeroblob(40));
         INSERT INTO links VALUES (zeroblob(32), 0, 1, 7, NULL);",
    )
    .expect("a row");
    drop(raw);
    let index = open(dir.path());
    let key = key("container/hub/refs/library/app/tags/1.0");
    assert!(!index.is_complete(), "only the files have the lists");
    assert_eq!(index.lookup(&key).expect("lookup").expect("there").kind, "k");
    assert_eq!((index.links(&key).expect("links"), index.last_used(&key).expect("use")), (None, Some(at(5))));
    let generation = index.begin_generation().expect("begin");
    index.record(&[linking(record(&key.to_string(), 1), &[2])]).expect("record");
    index.end_generation(generation).expect("end");
    assert!(index.is_complete() && is_linked(&index, 2));
    assert_eq!(index.last_used(&key).expect("use"), Some(at(5)));
}

/// Refs of one scope, each with a few links of its own and one that all share.
fn linked_refs(from: u32, to: u32) -> Vec<Record> {
    let named = |n| format!("container/hub/refs/library/app/tags/{n}");
    (from..to).map(|n| linking(record(&named(n), n), &[1000 + n, 2000 + n, 3000 + n, 5000])).collect()
}

fn is_linked(index: &Index, number: u32) -> bool {
    index.grant(&proxy("hub"), "library/app", &digest(number), |_| true).expect("grant").is_some()
}

#[test]
fn a_rebuild_from_nothing_files_links_at_its_end_as_they_are_by_then() {
    let (_dir, index) = fresh();
    let generation = index.begin_generation().expect("begin");
    let refs = linked_refs(0, 50);
    index.record(&refs).expect("recorded");
    assert!(!is_linked(&index, 1007), "left to the end");
    index.record(&[linking(refs[7].clone(), &[4000, 5000])]).expect("recorded again");
    index.forget(&[refs[8].key.clone()]).expect("forgotten");
    index.end_generation(generation).expect("ended");
    for n in 0..50 {
        for number in [1000 + n, 2000 + n, 3000 + n] {
            assert_eq!(is_linked(&index, number), !(7..=8).contains(&n), "{number}");
        }
    }
    assert!(is_linked(&index, 4000) && is_linked(&index, 5000));
    index.record(&linked_refs(50, 51)).expect("recorded");
    assert!(is_linked(&index, 1050), "nothing is left to an end any more");
    let keys: Vec<_> = linked_refs(0, 51).into_iter().map(|record| record.key).collect();
    index.forget(&keys).expect("forgotten");
    assert!(![1001, 2050, 4000, 5000].iter().any(|number| is_linked(&index, *number)), "none is left behind");
}

#[test]
fn what_is_recorded_during_a_rebuild_is_not_put_back_by_what_the_rebuild_read_before() {
    let (_dir, index) = fresh();
    let [older, newer, newest] = ["2025-01-01", "2025-01-02", "2025-01-03"].map(|day| {
        let mut record = linking(linked_refs(0, 1)[0].clone(), &[day.as_bytes()[9].into()]);
        record.reference.fetched_at = format!("{day}T00:00:00Z").parse().expect("valid");
        record
    });
    let fetched_at = |index: &Index| index.lookup(&older.key).expect("asked").expect("a row").fetched_at;
    index.record(std::slice::from_ref(&newest)).expect("recorded");
    let generation = index.begin_generation().expect("begin");
    index.record_read(&[(older.clone(), None)]).expect("recorded");
    assert_eq!(fetched_at(&index), older.reference.fetched_at, "a file that came out of a backup");
    index.record(std::slice::from_ref(&newer)).expect("recorded");
    index.record_read(&[(older.clone(), None)]).expect("recorded");
    assert_eq!(fetched_at(&index), newer.reference.fetched_at);
    index.record_read(&[(newest.clone(), None)]).expect("recorded");
    assert_eq!(fetched_at(&index), newest.reference.fetched_at, "written by hand meanwhile");
    index.end_generation(generation).expect("ended");
    assert!(is_linked(&index, b'3'.into()) && !is_linked(&index, b'1'.into()));
}

#[test]
fn links_that_a_rebuild_did_not_come_to_are_filed_by_the_next() {
    let (dir, index) = fresh();
    index.begin_generation().expect("begin");
    index.record(&linked_refs(0, 9)).expect("recorded");
    drop(index);
    let index = open(dir.path());
    assert!(!index.is_complete());
    let generation = index.begin_generation().expect("begin");
    index.record(&linked_refs(0, 9)).expect("the same once more");
    index.end_generation(generation).expect("ended");
    assert!((0..9).all(|n| is_linked(&index, 2000 + n)));
}

#[test]
fn an_index_that_is_complete_and_empty_grants_what_is_recorded_during_a_rebuild() {
    let (_dir, index) = fresh();
    let generation = index.begin_generation().expect("begin");
    index.end_generation(generation).expect("ended");
    index.begin_generation().expect("begin");
    index.record(&linked_refs(0, 1)).expect("recorded");
    assert!(index.is_complete() && is_linked(&index, 1000));
}

#[test]
fn many_keys_are_looked_up_in_the_order_they_are_asked_for() {
    let (_dir, index) = fresh();
    let none = "container/none/refs/a";
    index.record(&[record(TAG, 1), record("container/hub/refs/a", 2)]).expect("recorded");
    let keys = ["container/hub/refs/a", none, TAG, "container/hub/refs/b"].map(key);
    let found = index.lookup_all(keys.iter()).expect("looked up");
    let targets: Vec<_> = found.iter().map(|row| row.as_ref().map(|row| row.target_digest)).collect();
    assert_eq!(targets, [Some(digest(2)), None, Some(digest(1)), None]);
    index.touch(&[(key(TAG), at(9))]).expect("touched");
    assert_eq!(index.last_used_all(keys.iter()).expect("looked up"), [None, None, Some(at(9)), None]);
}

#[test]
fn a_grant_holds_in_its_own_proxy_and_scope_alone() {
    let (_dir, index) = fresh();
    let nested = "container/hub/refs/library/app/tags/tags/1";
    index.record(&[linking(record(TAG, 1), &[2]), linking(record(nested, 3), &[4])]).expect("record");
    let grants = |name, scope: &str, number| {
        index
            .grant(&proxy(name), scope, &digest(number), |_| true)
            .expect("grant")
            .map(|grant| grant.key.to_string())
    };
    for number in [1, 2] {
        assert_eq!(grants("hub", "library/app", number).as_deref(), Some(TAG));
        for scope in ["library/app/tags", "library", "library/ap", "library/app/", ""] {
            assert_eq!(grants("hub", scope, number), None, "{scope}");
        }
        assert_eq!(grants("ghcr", "library/app", number), None);
    }
    for number in [3, 4] {
        assert_eq!(grants("hub", "library/app/tags", number).as_deref(), Some(nested));
        assert_eq!(grants("hub", "library/app", number), None);
    }
    let other_type = ProxyId { artifact_type: ArtifactType::Generic, ..proxy("hub") };
    assert_eq!(index.grant(&other_type, "library/app", &digest(1), |_| true).expect("grant"), None);
}

#[test]
fn a_ref_that_moves_to_another_scope_takes_its_grants_along() {
    let (_dir, index) = fresh();
    let mut moved = linking(record(TAG, 1), &[2]);
    index.record(&[moved.clone()]).expect("record");
    moved.scope = "elsewhere".to_owned();
    index.record(&[moved]).expect("record");
    for number in [1, 2] {
        assert_eq!(
            index.grant(&proxy("hub"), "library/app", &digest(number), |_| true).expect("grant"),
            None
        );
        assert!(index.grant(&proxy("hub"), "elsewhere", &digest(number), |_| true).expect("grant").is_some());
    }
}

#[test]
fn a_ref_that_targets_the_blob_is_preferred_to_one_that_links_it() {
    let (_dir, index) = fresh();
    let manifest = "container/hub/refs/library/app/manifests/x";
    let granted =
        || index.grant(&proxy("hub"), "library/app", &digest(2), |_| true).expect("grant").expect("granted");
    index.record(&[linking(record(TAG, 1), &[2])]).expect("record");
    assert_eq!((granted().key, granted().target), (key(TAG), None));
    index.record(&[record(manifest, 2)]).expect("record");
    assert_eq!((granted().key, granted().target), (key(manifest), Some(reference(2))));
}

#[test]
fn a_ref_of_another_kind_that_targets_the_blob_grants_nothing_and_hides_none_that_fits() {
    let (_dir, index) = fresh();
    let of = |fits: &str| {
        let grant = index.grant(&proxy("hub"), "library/app", &digest(2), |kind| kind == fits);
        grant.expect("grant").map(|grant| (grant.key.to_string(), grant.target.is_some()))
    };
    let targeting = |text: &str, kind: &str| {
        let kind = kind.to_owned();
        let record = record(text, 2);
        Record { reference: Ref { kind, ..record.reference }, ..record }
    };
    let [first, second] = ["a", "b"].map(|name| format!("container/hub/refs/library/app/manifests/{name}"));
    index.record(&[linking(record(TAG, 1), &[2])]).expect("record");
    assert_eq!(of("one"), Some((TAG.to_owned(), false)), "nobody says what it is");
    index.record(&[targeting(&first, "one")]).expect("record");
    assert_eq!(
        (of("one"), of("other")),
        (Some((first.clone(), true)), None),
        "it is known to be something else"
    );
    index.record(&[targeting(&second, "other")]).expect("record");
    assert_eq!((of("one"), of("other")), (Some((first, true)), Some((second, true))));
}

#[test]
fn a_forgotten_ref_leaves_nothing_behind() {
    let (dir, index) = fresh();
    let before = index.changes().expect("changes");
    index.record(&[linking(record(TAG, 1), &[2, 3])]).expect("record");
    index.touch(&[(key(TAG), at(50))]).expect("touch");
    assert_eq!(index.changes().expect("changes"), before, "nothing was taken away yet");
    index.forget(&[key(TAG), key("container/hub/refs/never")]).expect("forget");
    assert_eq!(index.lookup(&key(TAG)).expect("lookup"), None);
    assert_eq!(index.changes().expect("changes"), before + 1);
    let raw = Connection::open(dir.path().join("index.db")).expect("opens");
    for table in ["refs", "links", "lists", "uses"] {
        let sql = format!("SELECT count(*) FROM {table}");
        assert_eq!(raw.query_row(&sql, [], |row| row.get::<_, i64>(0)).expect("count"), 0, "{table}");
    }
    index.forget(&[key(TAG)]).expect("forget");
    assert_eq!(index.changes().expect("changes"), before + 1, "there was nothing to take away");
    assert_eq!(index.forgets().expect("forgets"), 3, "with or without a row");
}

#[test]
fn a_last_use_never_goes_back() {
    let (_dir, index) = fresh();
    index.record(&[record(TAG, 1)]).expect("record");
    assert_eq!(index.last_used(&key(TAG)).expect("last use"), None);
    for (touched, expected) in [(100, 100), (90, 100), (110, 110)] {
        index.touch(&[(key(TAG), at(touched))]).expect("touch");
        assert_eq!(index.last_used(&key(TAG)).expect("last use"), Some(at(expected)));
    }
    index.record(&[record(TAG, 2)]).expect("record");
    assert_eq!(index.last_used(&key(TAG)).expect("last use"), Some(at(110)), "a new reading keeps it");
    index.touch(&[(key("container/hub/refs/never"), at(1))]).expect("of no row: ignored");
}

#[test]
fn scopes_are_those_that_have_refs() {
    let (_dir, index) = fresh();
    for scope in ["b", "a/b", "a", "c"] {
        index.record(&[record(&format!("container/hub/refs/{scope}/tags/1"), 1)]).expect("record");
    }
    index
        .record(&[record("container/hub/cache/listed/tags/1", 1), record("container/ghcr/refs/d/tags/1", 1)])
        .expect("record");
    let scopes = |after, limit| index.scopes(&proxy("hub"), after, limit).expect("scopes");
    assert_eq!(scopes(None, 10), ["a", "a/b", "b", "c"]);
    assert_eq!(scopes(None, 2), ["a", "a/b"]);
    assert_eq!(scopes(Some("a/b"), 10), ["b", "c"]);
    assert_eq!(scopes(Some("a/"), 10), ["a/b", "b", "c"]);
    index.forget(&[key("container/hub/refs/a/tags/1")]).expect("forget");
    assert_eq!(scopes(None, 10), ["a/b", "b", "c"]);
    index.record(&[record("container/hub/refs/whole", 1)]).expect("record");
    assert_eq!(scopes(None, 1), [""], "the scope that is the whole proxy");
}

#[test]
fn a_rebuild_removes_what_it_did_not_see_and_keeps_what_others_recorded_meanwhile() {
    let (_dir, index) = fresh();
    assert!(!index.is_complete());
    let old: Vec<Record> =
        (0..1_200).map(|n| linking(record(&format!("container/hub/refs/old{n}/tags/1"), 1), &[2])).collect();
    index.record(&old).expect("record");
    let changes = index.changes().expect("changes");

    let generation = index.begin_generation().expect("begin");
    assert_eq!(index.current_generation().expect("current"), generation);
    index.record(&old[..1]).expect("seen by the rebuild, unchanged");
    index.record(&[record(TAG, 1)]).expect("recorded meanwhile by a server");
    assert!(!index.is_complete());
    assert_eq!(index.end_generation(generation).expect("end"), 1_199);

    assert!(index.is_complete());
    assert_eq!(keys(&index), [TAG, "container/hub/refs/old0/tags/1"]);
    assert_eq!(index.changes().expect("changes"), changes + 1_199);
    assert!(index.grant(&proxy("hub"), "old7", &digest(2), |_| true).expect("grant").is_none());
    assert!(index.grant(&proxy("hub"), "old0", &digest(2), |_| true).expect("grant").is_some());
    assert_eq!(index.end_generation(generation).expect("again"), 0);
}

#[test]
fn a_rebuild_that_finds_rows_unlike_their_files_moves_the_counter_of_changes_once_at_its_end() {
    let (_dir, index) = fresh();
    let rebuild = |target: u32| {
        let generation = index.begin_generation().expect("begin");
        let read: Vec<_> = [record(TAG, target), record("container/hub/refs/library/app/tags/2", target)]
            .map(|record| (record, None))
            .into();
        for one in &read {
            index.record_read(std::slice::from_ref(one)).expect("record");
        }
        let before = index.changes().expect("changes");
        index.end_generation(generation).expect("end");
        (before, index.changes().expect("changes"))
    };
    assert_eq!(rebuild(1), (0, 0), "from nothing, nobody was told anything else");
    assert_eq!(rebuild(1), (0, 0), "nor where rows say what files say");
    let (during, after) = rebuild(2);
    assert!(during == 0 && after > 0, "{during} {after}");
    assert_eq!(rebuild(2), (after, after));
    index.record(&[record(TAG, 3)]).expect("record");
    assert_eq!(rebuild(3).1, after + 1, "one row of two");
}

#[test]
fn of_two_rebuilds_at_once_the_one_that_ends_first_keeps_the_others_rows() {
    let (dir, first) = fresh();
    let second = open(dir.path());
    let one = first.begin_generation().expect("begin");
    first.record(&[record("container/hub/refs/a", 1)]).expect("record");
    let two = second.begin_generation().expect("begin");
    first.record(&[record("container/hub/refs/b", 1)]).expect("record");
    assert_eq!(first.end_generation(one).expect("end"), 0);
    second.record(&[record("container/hub/refs/a", 1)]).expect("record");
    assert_eq!(second.end_generation(two).expect("end"), 0);
    assert_eq!(keys(&first), ["container/hub/refs/a", "container/hub/refs/b"]);
}

#[test]
fn two_processes_see_what_each_other_does() {
    let (dir, ours) = fresh();
    let theirs = open(dir.path());
    ours.record(&[record(TAG, 1)]).expect("record");
    assert!(theirs.lookup(&key(TAG)).expect("lookup").is_some());
    let before = ours.changes().expect("changes");
    theirs.forget(&[key(TAG)]).expect("forget");
    assert!(ours.lookup(&key(TAG)).expect("lookup").is_none());
    assert_ne!(ours.changes().expect("changes"), before);

    let generation = theirs.begin_generation().expect("begin");
    theirs.end_generation(generation).expect("end");
    assert!(!ours.is_complete(), "not noticed yet");
    ours.changes().expect("changes");
    assert!(ours.is_complete());
    drop(theirs);
    let (reopened, opened) = Index::open(dir.path()).expect("opens");
    assert_eq!(opened, Opened::Existing);
    assert!(reopened.is_complete(), "it is remembered in the file");
}

#[test]
fn a_database_that_is_locked_is_still_read() {
    let dir = TempDir::new().expect("directory");
    let (index, _) = Index::open_with(dir.path(), &impatient()).expect("opens");
    index.record(&[record(TAG, 1)]).expect("record");
    let lock = lock(dir.path());
    assert!(index.lookup(&key(TAG)).expect("lookup").is_some());
    assert!(matches!(index.record(&[record(TAG, 2)]), Err(IndexError::Busy)));
    assert_eq!(index.check(), Health::Same);
    drop(lock);
    index.record(&[record(TAG, 2)]).expect("record");
}

fn writer(options: Options) -> (TempDir, Arc<Handle>, Writer) {
    let dir = TempDir::new().expect("directory");
    let handle = Arc::new(Handle::open(Some(dir.path().to_owned()), options));
    let writer = Writer::start_with(Arc::clone(&handle), Duration::from_secs(60)).expect("thread");
    (dir, handle, writer)
}

#[tokio::test]
async fn what_the_writer_acknowledges_is_there() {
    let (_dir, handle, writer) = writer(Options::default());
    let index = handle.get().expect("open");
    assert!(writer.record(record(TAG, 1)).await);
    assert!(index.lookup(&key(TAG)).expect("lookup").is_some());
    writer.forget(vec![key(TAG)]).await.expect("forget");
    assert!(index.lookup(&key(TAG)).expect("lookup").is_none());
}

#[tokio::test]
async fn many_records_at_once_are_all_acknowledged() {
    let (_dir, handle, writer) = writer(Options::default());
    let records = (0..2_000).map(|n| record(&format!("container/hub/refs/{n}"), n));
    let done = futures_util::future::join_all(records.map(|record| writer.record(record))).await;
    assert!(done.iter().all(|done| *done));
    assert_eq!(handle.get().expect("open").count().expect("count"), 2_000);
}

#[tokio::test]
async fn a_stop_writes_what_waits() {
    let (_dir, handle, writer) = writer(Options::default());
    assert!(writer.record(record(TAG, 1)).await);
    writer.touch(vec![(key(TAG), at(70))]);
    writer.stop().await;
    assert_eq!(handle.get().expect("open").last_used(&key(TAG)).expect("last use"), Some(at(70)));
    assert!(!writer.record(record(TAG, 2)).await, "nobody writes any more");
    assert!(matches!(writer.forget(vec![key(TAG)]).await, Err(IndexError::Busy)));
    writer.stop().await;
}

#[tokio::test]
async fn a_lock_of_another_process_holds_nobody_up_and_what_waits_is_written_after_it() {
    let (dir, handle, mut writer) = writer(impatient());
    let lock = lock(dir.path());
    writer.patience = Duration::from_millis(1);
    // More than the queue holds: the last are refused, none waits for the lock.
    for n in 0..11_000 {
        assert!(!writer.record(record(&format!("container/hub/refs/{n}"), n)).await);
    }
    assert!(matches!(writer.forget(vec![key(TAG)]).await, Err(IndexError::Busy)));
    drop(lock);
    writer.stop().await;
    let count = handle.get().expect("open").count().expect("count");
    assert!((10_000..11_000).contains(&count), "{count}");
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_lock() {
    let (dir, handle, mut writer) = writer(impatient());
    let _lock = lock(dir.path());
    writer.patience = Duration::from_millis(1);
    assert!(!writer.record(record(TAG, 1)).await);
    writer.stop().await;
    assert_eq!(handle.get().expect("open").count().expect("count"), 0);
}

#[tokio::test]
async fn last_uses_that_wait_are_bounded() {
    let (dir, handle, mut writer) = writer(impatient());
    assert!(writer.record(record(TAG, 1)).await);
    let lock = lock(dir.path());
    writer.patience = Duration::from_millis(1);
    assert!(!writer.record(record(TAG, 2)).await);
    for round in 0..30 {
        writer.touch(vec![(key(TAG), at(100 + round)); 10_000]);
    }
    drop(lock);
    writer.stop().await;
    let last = handle.get().expect("open").last_used(&key(TAG)).expect("last use");
    assert_eq!(last, Some(at(119)), "twenty of thirty fit");
}

#[tokio::test]
async fn without_an_index_nothing_is_recorded_and_nothing_needs_forgetting() {
    let dir = TempDir::new().expect("directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("written");
    let handle = Arc::new(Handle::open(Some(file.clone()), Options::default()));
    assert!(handle.get().is_none());
    assert_eq!(handle.tick(), Notice::Away);
    let writer = Writer::start(handle).expect("thread");
    assert!(!writer.record(record(TAG, 1)).await);
    writer.forget(vec![key(TAG)]).await.expect("nothing to forget");
}
