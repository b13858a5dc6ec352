//! Whatever is recorded and forgotten in whatever order: the index says what a plain map says.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Record(Vec<Record>),
    Forget(Vec<RefKey>),
    /// A rebuild that finds every other key again.
    Rebuild,
}

fn keys() -> impl Strategy<Value = RefKey> {
    let proxies = prop::sample::select(vec!["container/hub", "container/ghcr", "generic/hub"]);
    let areas = prop::sample::select(vec!["refs", "meta", "cache"]);
    (proxies, areas, "[aä](/tags)?/[xy1☃]")
        .prop_map(|(proxy, area, path)| format!("{proxy}/{area}/{path}").parse().expect("valid"))
}

fn records() -> impl Strategy<Value = Record> {
    let links = prop::option::of(prop::collection::vec((0..6_u32).prop_map(claim), 0..4));
    let headers = prop::collection::btree_map("[a-z]{1,3}", ".{0,3}", 0..3);
    let text = || prop::option::of(".{0,5}");
    (
        keys(),
        "[ab]?",
        0..6_u32,
        any::<i64>(),
        prop::option::of(0..u64::from(u32::MAX)),
        text(),
        text(),
        links,
        headers,
    )
        .prop_map(|(key, scope, target, fetched_at, ttl_seconds, media_type, etag, links, headers)| {
            Record {
                key,
                scope,
                reference: Ref {
                    media_type,
                    etag,
                    ttl_seconds,
                    links,
                    headers,
                    fetched_at: Timestamp::from_nanosecond(fetched_at.into()).expect("in range"),
                    ..reference(target)
                },
            }
        })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => prop::collection::vec(records(), 1..6).prop_map(Step::Record),
        2 => prop::collection::vec(keys(), 1..4).prop_map(Step::Forget),
        1 => Just(Step::Rebuild),
    ];
    prop::collection::vec(step, 1..12)
}

/// Compares everything that can be asked.
fn compare(index: &Index, model: &BTreeMap<RefKey, Record>) {
    let rows = index.query(&RefQuery::default()).expect("page").rows;
    let found: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let links = index.links(&row.key).expect("links");
            assert_eq!(index.lookup(&row.key).expect("lookup").as_ref(), Some(&row.reference));
            Record { key: row.key, scope: row.scope, reference: Ref { links, ..row.reference } }
        })
        .collect();
    assert_eq!(found, model.values().cloned().collect::<Vec<_>>());
    assert_eq!(index.count().expect("count"), model.len() as u64);
    for number in 0..6 {
        let digest = digest(number);
        for (proxy, scope) in [("hub", "a"), ("hub", "b"), ("ghcr", "a"), ("hub", "")] {
            let proxy = proxy_of(proxy);
            let mine = |record: &&Record| record.key.proxy == proxy && record.scope == scope;
            let of_scope = || model.values().filter(mine);
            let target = of_scope().any(|record| record.reference.target_digest == digest);
            let linked =
                of_scope().any(|record| record.reference.links.iter().flatten().any(|l| l.digest == digest));
            let grant = index.grant(&proxy, scope, &digest, |_| true).expect("grant");
            assert_eq!(grant.as_ref().is_some_and(|grant| grant.target.is_some()), target);
            assert_eq!(grant.is_some(), target || linked);
        }
    }
}

fn proxy_of(name: &str) -> ProxyId {
    super::proxy(name)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_records_and_forgets_equals_a_map(steps in steps()) {
        let (_dir, index) = fresh();
        let mut model = BTreeMap::new();
        for step in steps {
            match step {
                Step::Record(records) => {
                    index.record(&records).expect("record");
                    model.extend(records.into_iter().map(|record| (record.key.clone(), record)));
                }
                Step::Forget(keys) => {
                    index.forget(&keys).expect("forget");
                    model.retain(|key, _| !keys.contains(key));
                }
                Step::Rebuild => {
                    let generation = index.begin_generation().expect("begin");
                    model = model.into_iter().step_by(2).collect();
                    index.record(&model.values().cloned().collect::<Vec<_>>()).expect("record");
                    index.end_generation(generation).expect("end");
                }
            }
        }
        compare(&index, &model);
        index.verify().expect("tables and indices agree");
    }
}
