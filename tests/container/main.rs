//! Container registries through the real binary from a scripted origin: what clients get of an upstream that
//! keeps to the specification only more or less, and what each answer says of itself.

#[path = "../support/mod.rs"]
pub mod support;

mod lists;

use support::Repoxy;

/// Starts the server again, so that it remembers nothing, with all that it has cached of a kind past its time.
fn outdate(repoxy: &mut Repoxy, kind: &str) {
    repoxy.terminate();
    let kind = format!("\"kind\":\"{kind}\"");
    let mut count = 0;
    for file in repoxy.files("type/container/proxies/hub") {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        if !text.contains(&kind) {
            continue;
        }
        let mut json: serde_json::Value = serde_json::from_str(&text).expect("a ref");
        json["fetchedAt"] = "2025-01-01T00:00:00Z".into();
        std::fs::write(&file, json.to_string()).expect("writable");
        count += 1;
    }
    assert!(count > 0, "nothing is cached of {kind}");
    // The rows go along.
    std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
    repoxy.start();
}
