//! Whatever a request leads to is kept in a file below its own proxy, and the file says whose it is.
//!
//! In a store in memory, whose paths are those of files: that these are safe on any file system is a
//! property of `store/layout`, which is fuzzed there.

use std::collections::BTreeSet;

use proptest::collection::vec;
use proptest::test_runner::{Config, TestRunner};
use repoxy::model::{Digest, Ref, RefKey, Timestamp};
use repoxy::protocol::Route;
use repoxy::store::Store;

use super::engine::{PROXIES, World};
use super::heads::{Ask, asks};
use super::requests::owner;

/// The requests whose refs are written into one store, so that they can be taken for each other.
const TOGETHER: u16 = 100;

/// The keys of those requests that get content.
fn keys(asks: &[Ask], world: &World) -> BTreeSet<RefKey> {
    let lead = |ask: &Ask| match world.route(owner(&ask.head())?, &ask.head()) {
        Ok(Route::Fetch(fetch) | Route::Held { fetch, .. }) => Some(fetch.resource.key),
        _ => None,
    };
    asks.iter().filter_map(lead).collect()
}

#[test]
fn every_ref_is_a_file_below_its_proxy_and_is_found_again() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let world = World::default();
    let all = super::cases();
    TestRunner::new(Config { cases: all.cases.div_ceil(TOGETHER.into()), ..all })
        .run(&vec(asks(), usize::from(TOGETHER)), |asks| {
            let keys = keys(&asks, &world);
            let found = runtime.block_on(async {
                let store = Store::create("mem://").await.expect("a store");
                for key in &keys {
                    let reference = Ref::new("x".to_owned(), Digest::of(b""), 0, Timestamp::UNIX_EPOCH);
                    store.write_ref(key, &reference).await.expect("written");
                }
                found(&store).await
            });
            assert_eq!(found, keys);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

/// The keys of all refs of all proxies; every file must be below the proxy whose key it has.
async fn found(store: &Store) -> BTreeSet<RefKey> {
    let mut found = BTreeSet::new();
    for proxy in PROXIES.iter().map(|proxy| &proxy.id) {
        let mut scan = store.scan_refs(proxy);
        while let Some(page) = scan.next_page().await {
            for entry in page.expect("readable") {
                let key = entry.key.unwrap_or_else(|| panic!("{} is nobody's", entry.path));
                let below = format!("type/{}/proxies/{}/", proxy.artifact_type, proxy.name);
                assert!(entry.path.starts_with(&below) && key.proxy == *proxy, "{} is {key}", entry.path);
                found.insert(key);
            }
        }
    }
    found
}
