//! No statement walks a table that it should not: the plans are compared with what was meant.

use rusqlite::Connection;

use super::super::{blobs, filing, lookup, query, record};
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

#[test]
fn what_a_request_asks_is_found_by_descent_alone() {
    let (_dir, connection) = connection();
    for sql in [
        lookup::LOOKUP,
        lookup::GRANT_BY_TARGET,
        lookup::GRANT_BY_LINK,
        lookup::SCOPES,
        lookup::LAST_USED,
        lookup::LINKS,
        record::FIND,
        record::FIND_ID,
        record::FIND_LISTED,
        record::FIND_LIST,
        record::UNUSED_LIST,
        record::UNUSED_LISTS,
        record::OUTDATED,
        blobs::TARGETS,
    ] {
        let plan = plan(&connection, sql);
        assert!(!plan.iter().any(|step| walks(step) || sorts(step)), "{sql}\n{plan:#?}");
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
fn blobs_are_grouped_in_the_order_of_an_index_that_holds_all_it_takes() {
    let (_dir, connection) = connection();
    for descending in [false, true] {
        let page = BlobQuery { limit: 1, descending, ..BlobQuery::default() };
        let plan = plan(&connection, &blobs::blob_walk(&page, 9).text);
        assert!(plan.iter().any(|step| step.ends_with("USING COVERING INDEX refs_digest")), "{plan:#?}");
        assert!(!plan.iter().any(|step| sorts(step)), "{plan:#?}");
    }
    let totals = plan(&connection, blobs::TOTALS);
    assert_eq!(totals, ["SCAN refs USING COVERING INDEX refs_digest"]);
    let count = plan(&connection, query::COUNT);
    assert!(count[0].contains("COVERING INDEX"), "{count:?}");
}

#[test]
fn removing_a_ref_walks_no_table() {
    let (_dir, connection) = connection();
    for sql in [record::UNLINK, record::REMOVE_EMPTY_SCOPE, record::EMPTY_SCOPES] {
        let plan = plan(&connection, sql);
        assert!(!plan.iter().any(|step| walks(step)), "{sql}\n{plan:#?}");
    }
}
