//! Container registries through the real binary from a scripted origin: what clients get of an upstream that
//! keeps to the specification only more or less, and what each answer says of itself.

#[path = "../support/mod.rs"]
pub mod support;

mod ahead;
mod blobs;
mod lists;
mod manifests;
mod status;

use serde_json::{Map, Value};
use support::Repoxy;

/// Ends the server, changes what it has cached of a kind, and starts it again; it remembers nothing then, and the
/// rows go along.
fn change(repoxy: &mut Repoxy, kind: &str, change: impl Fn(&mut Map<String, Value>)) {
    repoxy.terminate();
    let mut count = 0;
    for file in repoxy.files("type/container/proxies/hub") {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let Ok(mut json) = serde_json::from_str::<Map<String, Value>>(&text) else { continue };
        if json["kind"] == kind {
            change(&mut json);
            std::fs::write(&file, Value::Object(json).to_string()).expect("writable");
            count += 1;
        }
    }
    assert!(count > 0, "nothing is cached of {kind}");
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    repoxy.start();
}

/// The same: all of it is past its time then.
fn outdate(repoxy: &mut Repoxy, kind: &str) {
    change(repoxy, kind, |fields| {
        fields.insert("fetchedAt".to_owned(), "2025-01-01T00:00:00Z".into());
    });
}
