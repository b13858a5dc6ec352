//! No statement walks a table that it should not: the plans are compared with what was meant.

use rusqlite::{Connection, StatementStatus};

use super::super::{blobs, database, filing, lookup, query, record};
use super::*;
use crate::model::Area;

fn plan(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {sql}")).expect(sql);
    // Values do not matter: the plans must hold for any.
    let steps = statement.raw_query().mapped(|row| row.get(3)).collect::<Result<_, _>>();
    steps.expect("plan")
}

fn connection() -> (TempDir, Connection) {
    let (dir, index) = fresh();
    drop(index);
    let connection = Connection::open(dir.path().join("index.db")).expect("opens");
    (dir, connection)
}

/// Whether a step reads a whole tree rather than a range of it. Reading a page that was just made
/// does not count.
fn walks(step: &str) -> bool {
    step.starts_with("SCAN") && !step.ends_with(" page")
}

fn sorts(step: &str) -> bool {
    step.contains("TEMP B-TREE")
}

/// What is asked on the way of a request, and each second beside it.
const ASKED: [&str; 8] = [
    record::PROXY,
    lookup::LOOKUP,
    lookup::GRANT_BY_TARGET,
    lookup::GRANT_BY_LINK,
    lookup::SCOPES,
    lookup::LAST_USED,
    lookup::LINKS,
    database::META,
];

#[test]
fn what_a_request_asks_is_found_by_descent_alone() {
    let (_dir, connection) = connection();
    let recorded = [
        record::FIND,
        record::FIND_ID,
        record::FIND_LISTED,
        record::FIND_LIST,
        record::FIND_SCOPE,
        record::UPDATE,
        record::STAMP,
        record::UNUSED_LIST,
        record::UNUSED_LISTS,
        record::OUTDATED,
        blobs::TARGETS,
        blobs::LINKED,
        blobs::TARGET_USED,
        filing::NOTED,
    ];
    for sql in ASKED.into_iter().chain(recorded) {
        let plan = plan(&connection, sql);
        assert!(!plan.iter().any(|step| walks(step) || sorts(step)), "{sql}\n{plan:#?}");
    }
}

#[test]
fn nothing_is_compiled_again_because_other_values_are_bound() {
    let (_dir, index) = fresh();
    index
        .read(|connection| {
            for sql in ASKED {
                let mut statement = connection.prepare(sql)?;
                for value in 1..4 {
                    for place in 1..=statement.parameter_count() {
                        statement.raw_bind_parameter(place, value)?;
                    }
                    while statement.raw_query().next()?.is_some() {}
                }
                assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
            }
            Ok(())
        })
        .expect("asked");
}

#[test]
fn a_ref_is_found_by_its_whole_key_and_a_name_by_its_own_index() {
    let (_dir, connection) = connection();
    for sql in [
        lookup::LOOKUP,
        lookup::LAST_USED,
        lookup::LINKS,
        record::FIND,
        record::FIND_ID,
        record::FIND_LISTED,
        record::UPDATE,
    ] {
        let plan = plan(&connection, sql).join("\n");
        assert!(plan.contains("INDEX refs_key (proxy=? AND area=? AND path=?)"), "{sql}\n{plan}");
    }
    for (sql, found) in [
        (record::PROXY, "SEARCH proxies USING COVERING INDEX sqlite_autoindex_proxies_1 (type=? AND name=?)"),
        (
            record::FIND_SCOPE,
            "SEARCH scopes USING COVERING INDEX sqlite_autoindex_scopes_1 (proxy=? AND name=?)",
        ),
        (
            record::FIND_LIST,
            "SEARCH lists USING COVERING INDEX sqlite_autoindex_lists_1 (scope=? AND hash=?)",
        ),
        (database::META, "SEARCH meta USING PRIMARY KEY (key=?)"),
        (filing::NOTED, "SEARCH meta USING PRIMARY KEY (key=?)"),
        (record::STAMP, "SEARCH refs USING INTEGER PRIMARY KEY (rowid=?)"),
        (record::OUTDATED, "SEARCH refs USING INTEGER PRIMARY KEY (rowid>?)"),
    ] {
        assert_eq!(plan(&connection, sql), [found], "{sql}");
    }
}

#[test]
fn grants_are_narrowed_by_digest_and_scope() {
    let (_dir, connection) = connection();
    let target = plan(&connection, lookup::GRANT_BY_TARGET).join("\n");
    assert!(target.contains("refs_digest (digest=? AND type=? AND proxy=? AND scope=?)"), "{target}");
    let link = plan(&connection, lookup::GRANT_BY_LINK).join("\n");
    assert!(link.contains("SEARCH l USING PRIMARY KEY (digest=? AND type=? AND scope=?)"), "{link}");
    assert!(link.contains("SEARCH r USING INDEX refs_scope (scope=? AND area=? AND list=?)"), "{link}");
    let scopes = plan(&connection, lookup::SCOPES).join("\n");
    assert!(scopes.contains("USING COVERING INDEX refs_scope (scope=? AND area=?)"), "{scopes}");
}

#[test]
fn a_listing_by_key_seeks_its_place_and_sorts_nothing() {
    let (_dir, connection) = connection();
    let some = |text: &str| Some(text.to_owned());
    for query in [
        RefQuery::default(),
        RefQuery { descending: true, ..RefQuery::default() },
        RefQuery { path_prefix: some("a"), ..RefQuery::default() },
        RefQuery { path_glob: some("*a"), kind: some("k"), expired_at: Some(at(1)), ..RefQuery::default() },
        RefQuery { digest: Some(digest(1)), unused_since: Some(at(1)), ..RefQuery::default() },
    ] {
        for from in [None, Some("b")] {
            let sql = query::key_walk(query::ROWS_BY_KEY, &query, 1, Area::Refs, from, 9);
            let plan = plan(&connection, &sql.text);
            assert!(!plan.iter().any(|step| walks(step) || sorts(step)), "{query:?}\n{plan:#?}");
            if from.is_some() {
                let bound = if query.descending { "path<?" } else { "path>?" };
                assert!(plan[0].contains("refs_key") && plan[0].contains(bound), "{plan:#?}");
            }
        }
    }
}

#[test]
fn a_listing_of_keys_reads_an_index_that_holds_them_and_no_row() {
    let (_dir, connection) = connection();
    for from in [None, Some("b")] {
        let sql = query::key_walk(query::KEYS, &RefQuery::default(), 1, Area::Refs, from, 9);
        let plan = plan(&connection, &sql.text);
        assert!(matches!(&plan[..], [step] if step.contains("USING COVERING INDEX refs_key")), "{plan:#?}");
    }
}

#[test]
fn links_are_filed_in_the_order_of_the_lists() {
    let (_dir, connection) = connection();
    assert_eq!(plan(&connection, filing::LISTS), ["SCAN lists"]);
    // Once for each rebuild from nothing, which has just written all of them.
    assert_eq!(plan(&connection, filing::VOLUME), ["SCAN lists"]);
}

#[test]
fn a_listing_by_value_walks_the_narrow_copy_and_not_the_table() {
    let (_dir, connection) = connection();
    for sort in [RefSort::LastUsed, RefSort::FetchedAt, RefSort::Size] {
        for kind in [None, Some("k".to_owned())] {
            let query = RefQuery {
                sort,
                kind,
                fetched_before: Some(at(1)),
                expired_at: Some(at(1)),
                unused_since: Some(at(1)),
                ..RefQuery::default()
            };
            let plan = plan(&connection, &query::value_walk(&query, &[1], 9).text);
            let walked: Vec<_> = plan.iter().filter(|step| walks(step)).collect();
            assert_eq!(walked, ["SCAN r USING COVERING INDEX refs_facts"], "{plan:#?}");
        }
    }
}

#[test]
fn a_listing_by_value_of_one_digest_or_prefix_walks_nothing() {
    let (_dir, connection) = connection();
    for query in [
        RefQuery { sort: RefSort::Size, digest: Some(digest(1)), ..RefQuery::default() },
        RefQuery { sort: RefSort::Size, path_prefix: Some("a".to_owned()), ..RefQuery::default() },
    ] {
        let plan = plan(&connection, &query::value_walk(&query, &[1, 2], 9).text);
        assert!(!plan.iter().any(|step| walks(step)), "{plan:#?}");
    }
}

#[test]
fn blobs_of_any_order_type_and_page_are_walked_in_the_order_of_indices_that_hold_all_it_takes() {
    let (_dir, connection) = connection();
    let (dir, index) = fresh();
    index.record(&[record("generic/a/refs/1", 1), record("generic/a/refs/2", 2)]).expect("record");
    let after = index.blobs(&BlobQuery { limit: 1, ..BlobQuery::default() }).expect("page").next;
    assert!(after.is_some());
    drop(dir);
    for sort in [BlobSort::Digest, BlobSort::Size, BlobSort::Refs, BlobSort::LastUsed] {
        for descending in [false, true] {
            for artifact_type in [None, Some(ArtifactType::Generic)] {
                for after in [None, after.clone()] {
                    let seeks = after.is_some() && sort == BlobSort::Digest;
                    let query = BlobQuery { artifact_type, sort, descending, limit: 1, after };
                    let targets = plan(&connection, &blobs::target_walk(&query).text);
                    let links = plan(&connection, &blobs::link_walk(&query).text);
                    assert_eq!((targets.len(), links.len()), (1, 2), "{query:?}\n{targets:?}\n{links:?}");
                    assert!(targets[0].contains(" b USING COVERING INDEX refs_digest"), "{targets:?}");
                    assert_eq!(links[1], "SEARCH s USING INTEGER PRIMARY KEY (rowid=?)");
                    for step in [&targets[0], &links[0]] {
                        let bound = if descending { ")<(?,?)" } else { ")>(?,?)" };
                        let expected = if seeks { "SEARCH b USING" } else { "SCAN b" };
                        assert!(step.starts_with(expected), "{query:?}\n{step}");
                        assert_eq!(step.contains(bound), seeks, "{query:?}\n{step}");
                    }
                }
            }
        }
    }
    let count = plan(&connection, query::COUNT);
    assert!(count[0].contains("COVERING INDEX"), "{count:?}");
}

#[test]
fn a_listing_by_value_of_paths_that_begin_anyhow_walks_the_index_that_holds_paths() {
    let (_dir, connection) = connection();
    for sort in [RefSort::LastUsed, RefSort::FetchedAt, RefSort::Size] {
        let query = RefQuery { sort, path_glob: Some("*x".to_owned()), ..RefQuery::default() };
        let plan = plan(&connection, &query::value_walk(&query, &[1, 2], 9).text);
        assert!(
            plan.iter().any(|step| step.contains("r USING INDEX refs_key (proxy=? AND area=?)")),
            "{plan:#?}"
        );
        assert!(!plan.iter().any(|step| walks(step)), "{plan:#?}");
    }
}

#[test]
fn removing_a_ref_walks_no_table() {
    let (_dir, connection) = connection();
    for sql in [record::UNLINK, record::REMOVE_EMPTY_SCOPE, record::EMPTY_SCOPES] {
        let plan = plan(&connection, sql);
        assert!(!plan.iter().any(|step| walks(step)), "{sql}\n{plan:#?}");
    }
}
