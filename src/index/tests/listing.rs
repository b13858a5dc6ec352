//! Queries: filters, orders, pages.

use super::*;
use crate::model::Area;

/// Refs in two types and three proxies, of several kinds, sizes, ages and uses.
fn filled() -> (TempDir, Index) {
    let (dir, index) = fresh();
    let mut records = vec![
        record("container/hub/refs/library/app/tags/1", 1),
        record("container/hub/refs/library/app/tags/2", 2),
        record("container/hub/refs/library/app2/tags/1", 2),
        record("container/hub/refs/Ä/tags/1", 7),
        record("container/hub/meta/library/app/tags/1", 3),
        record("container/hub/cache/library/app/list", 4),
        record("container/ghcr/refs/other/tags/1", 5),
        record("generic/hub/refs/file", 6),
    ];
    records[0].reference.ttl_seconds = Some(10);
    records[1].reference.ttl_seconds = Some(100);
    records[5].reference.kind = "container.list".to_owned();
    index.record(&records).expect("record");
    index.touch(&[(records[0].key.clone(), at(50)), (records[7].key.clone(), at(40))]).expect("touch");
    (dir, index)
}

const ALL: [&str; 8] = [
    "container/ghcr/refs/other/tags/1",
    "container/hub/refs/library/app/tags/1",
    "container/hub/refs/library/app/tags/2",
    "container/hub/refs/library/app2/tags/1",
    "container/hub/refs/Ä/tags/1",
    "container/hub/meta/library/app/tags/1",
    "container/hub/cache/library/app/list",
    "generic/hub/refs/file",
];

#[test]
fn every_order_and_page_size_gives_each_ref_once() {
    let (_dir, index) = filled();
    for sort in [RefSort::Path, RefSort::LastUsed, RefSort::FetchedAt, RefSort::Size] {
        for descending in [false, true] {
            let query = RefQuery { sort, descending, ..RefQuery::default() };
            let whole = listed(&index, query.clone(), 100);
            let mut sorted = whole.clone();
            sorted.sort();
            let mut all = ALL.map(str::to_owned);
            all.sort();
            assert_eq!(sorted, all, "{sort:?}");
            for limit in 1..=8 {
                assert_eq!(listed(&index, query.clone(), limit), whole, "{sort:?} {descending} {limit}");
            }
        }
    }
}

#[test]
fn keys_come_in_their_order_on_pages_of_any_size() {
    let (_dir, index) = filled();
    let expected: Vec<_> = ALL.map(key).into_iter().collect();
    for limit in 1..=9 {
        let (mut keys, mut after) = (Vec::new(), None);
        loop {
            let page = index.keys(limit, after).expect("page");
            assert!(page.rows.len() <= limit);
            keys.extend(page.rows);
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(keys, expected, "{limit}");
    }
}

#[test]
fn the_orders_are_what_they_say() {
    let (_dir, index) = filled();
    let values = |sort, descending| -> Vec<i64> {
        let query = RefQuery { sort, descending, ..RefQuery::default() };
        let rows = index.query(&query).expect("page").rows;
        let value = |row: &RefRow| match sort {
            RefSort::Size => i64::try_from(row.reference.size).expect("small"),
            RefSort::LastUsed => row.last_used.unwrap_or(row.reference.fetched_at).as_second(),
            _ => row.reference.fetched_at.as_second(),
        };
        rows.iter().map(value).collect()
    };
    assert_eq!(listed(&index, RefQuery::default(), 100), ALL);
    assert_eq!(values(RefSort::Size, false), [10, 20, 20, 30, 40, 50, 60, 70]);
    assert_eq!(values(RefSort::FetchedAt, true), [7, 6, 5, 4, 3, 2, 2, 1]);
    assert_eq!(values(RefSort::LastUsed, false), [2, 2, 3, 4, 5, 7, 40, 50]);
    let first = index.least_recently_used(3, None).expect("page");
    let second = index.least_recently_used(9, first.next.clone()).expect("page");
    assert_eq!(first.rows.len() + second.rows.len(), ALL.len());
    assert_eq!(second.next, None);
}

#[test]
fn each_filter_keeps_what_it_says_in_every_order() {
    let (_dir, index) = filled();
    let any = RefQuery::default;
    let some = |text: &str| Some(text.to_owned());
    let cases: [(RefQuery, &[usize]); 18] = [
        (RefQuery { artifact_type: Some(ArtifactType::Generic), ..any() }, &[7]),
        (RefQuery { artifact_type: Some(ArtifactType::Debian), ..any() }, &[]),
        (RefQuery { proxy: Some("hub".parse().expect("name")), ..any() }, &[1, 2, 3, 4, 5, 6, 7]),
        (RefQuery { area: Some(Area::Cache), ..any() }, &[6]),
        (RefQuery { kind: some("container.list"), ..any() }, &[6]),
        (RefQuery { path_prefix: some("library/app/"), ..any() }, &[1, 2, 5, 6]),
        (RefQuery { path_prefix: some("Ä"), ..any() }, &[4]),
        (RefQuery { path_prefix: some(""), ..any() }, &[0, 1, 2, 3, 4, 5, 6, 7]),
        (RefQuery { path_glob: some("*/tags/1"), ..any() }, &[0, 1, 3, 4, 5]),
        (RefQuery { path_glob: some("library/app?/*"), ..any() }, &[3]),
        (RefQuery { path_prefix: some("library/app/t"), path_glob: some("library/*1"), ..any() }, &[1, 5]),
        (RefQuery { path_prefix: some("lib"), path_glob: some("library/app2/*"), ..any() }, &[3]),
        (RefQuery { path_prefix: some("other"), path_glob: some("library/*"), ..any() }, &[]),
        (RefQuery { fetched_before: Some(at(3)), ..any() }, &[1, 2, 3]),
        (RefQuery { unused_since: Some(at(41)), ..any() }, &[0, 2, 3, 4, 5, 6, 7]),
        (RefQuery { expired_at: Some(at(11)), ..any() }, &[1]),
        (RefQuery { expired_at: Some(at(10)), ..any() }, &[]),
        (RefQuery { digest: Some(digest(2)), ..any() }, &[2, 3]),
    ];
    for (query, expected) in cases {
        let mut expected: Vec<_> = expected.iter().map(|number| ALL[*number]).collect();
        assert_eq!(listed(&index, query.clone(), 2), expected, "{query:?}");
        let backwards = RefQuery { descending: true, ..query.clone() };
        let reversed: Vec<_> = expected.iter().rev().copied().collect();
        assert_eq!(listed(&index, backwards, 2), reversed, "{query:?}");
        let mut found = listed(&index, RefQuery { sort: RefSort::LastUsed, ..query.clone() }, 2);
        found.sort();
        expected.sort_unstable();
        assert_eq!(found, expected, "{query:?}");
    }
}

#[test]
fn a_prefix_ends_where_the_next_text_begins() {
    let (_dir, index) = fresh();
    let texts = ["a\u{10FFFF}", "a\u{10FFFF}\u{10FFFF}b", "a\u{D7FF}x", "a\u{E000}", "b"];
    for text in texts {
        index.record(&[record(&format!("container/hub/refs/{text}"), 1)]).expect("record");
    }
    for prefix in ["a", "a\u{10FFFF}", "a\u{D7FF}", "a\u{10FFFF}\u{10FFFF}", "b", "\u{10FFFF}"] {
        let found =
            listed(&index, RefQuery { path_prefix: Some(prefix.to_owned()), ..RefQuery::default() }, 10);
        let expected = texts.iter().filter(|text| text.starts_with(prefix)).count();
        assert_eq!(found.len(), expected, "{prefix:?}");
    }
}

#[test]
fn a_row_holds_everything_but_links() {
    let (_dir, index) = filled();
    let query = RefQuery { path_prefix: Some("file".to_owned()), ..RefQuery::default() };
    let row = index.query(&query).expect("page").rows.remove(0);
    assert_eq!(row.reference, reference(6));
    assert_eq!((row.scope.as_str(), row.last_used), ("", Some(at(40))));
}

#[test]
fn blobs_are_counted_by_type_with_the_refs_that_hold_them() {
    let (_dir, index) = fresh();
    index
        .record(&[
            linking(record("container/hub/refs/a/tags/1", 1), &[2, 3, 4]),
            linking(record("container/hub/refs/a/tags/2", 1), &[2]),
            record("container/ghcr/refs/b/tags/1", 1),
            record("container/hub/refs/a/manifests/2", 2),
            record("generic/files/refs/x", 1),
        ])
        .expect("record");
    index
        .touch(&[(key("container/hub/refs/a/tags/1"), at(9)), (key("container/hub/refs/a/tags/2"), at(8))])
        .expect("touch");
    let row = |artifact_type, number: u32, refs, links, used: Option<i64>| BlobRow {
        artifact_type,
        digest: digest(number),
        // What is not the target of a ref is as large as the link says, if it does.
        size: Some(u64::from(number) * 10).filter(|_| refs > 0 || number.is_multiple_of(2)),
        refs,
        links,
        last_used: used.map(at),
    };
    let (one, other) = (ArtifactType::Container, ArtifactType::Generic);
    let all = [
        row(one, 1, 3, 0, Some(9)),
        row(other, 1, 1, 0, None),
        row(one, 2, 1, 2, Some(9)),
        row(one, 3, 0, 1, Some(9)),
        row(one, 4, 0, 1, Some(9)),
    ];
    let pages = |sort, descending, limit| {
        let mut query = BlobQuery { sort, descending, limit, ..BlobQuery::default() };
        let mut rows = Vec::new();
        loop {
            let page = index.blobs(&query).expect("page");
            rows.extend(page.rows);
            query.after = page.next;
            if query.after.is_none() {
                return rows;
            }
        }
    };
    let mut by_digest = all.to_vec();
    by_digest.sort_by_key(|row| (row.digest, row.artifact_type));
    let (mut by_refs, mut by_use) = (by_digest.clone(), by_digest.clone());
    by_refs.sort_by_key(|row| row.refs);
    by_use.sort_by_key(|row| row.last_used);
    for limit in 1..=6 {
        assert_eq!(pages(BlobSort::Digest, false, limit), by_digest);
        assert_eq!(pages(BlobSort::Size, true, limit), [4, 2, 1, 0, 3].map(|at| all[at].clone()));
        assert_eq!(pages(BlobSort::Refs, false, limit), by_refs);
        assert_eq!(pages(BlobSort::LastUsed, false, limit), by_use);
    }
    by_digest.reverse();
    assert_eq!(pages(BlobSort::Digest, true, 1), by_digest);
    let query = BlobQuery { artifact_type: Some(other), ..BlobQuery::default() };
    assert_eq!(index.blobs(&query).expect("page").rows, [all[1].clone()]);

    let totals = index.totals().expect("totals");
    let total = |proxy: &str, refs, blobs, bytes| {
        let key = key(&format!("{proxy}/refs/x"));
        ProxyTotals { proxy: key.proxy, refs, blobs, bytes }
    };
    let expected = [
        total("container/ghcr", 1, 1, 10),
        total("container/hub", 3, 4, 10 + 20 + 40),
        total("generic/files", 1, 1, 10),
    ];
    assert_eq!(totals, expected);
}

#[test]
fn blob_targets_are_every_digest_of_the_type_once() {
    let (_dir, index) = fresh();
    index
        .record(&[
            linking(record("container/hub/refs/a/tags/1", 1), &[2, 3, 4]),
            linking(record("container/hub/refs/b/tags/1", 5), &[1, 4]),
            record("generic/files/refs/x", 6),
        ])
        .expect("record");
    let mut expected: Vec<_> = (1..=5).map(digest).collect();
    expected.sort();
    for limit in 1..=6 {
        let mut found: Vec<Digest> = Vec::new();
        loop {
            let page = index.blob_targets(ArtifactType::Container, found.last(), limit).expect("page");
            if page.is_empty() {
                break;
            }
            found.extend(page);
        }
        assert_eq!(found, expected, "{limit}");
    }
    assert_eq!(index.blob_targets(ArtifactType::Generic, None, 9).expect("page"), [digest(6)]);
}
