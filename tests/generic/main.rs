//! Plain files through the real binary from a scripted origin: HTTP's caching rules as clients see them,
//! and what the operator may add to them.

#[path = "../support/mod.rs"]
pub mod support;

mod bodies;
mod files;
mod freshness;
mod meetings;
mod outages;
mod rules;
mod unstored;
mod variants;

use std::path::PathBuf;

use http::Method;
use support::{Got, Origin, Repoxy};

/// A server with one proxy `files` in front of `origin`, with further lines.
fn before(origin: &Origin, more: &str) -> Repoxy {
    Repoxy::with(&format!(
        "[[proxy]]\ntype = \"generic\"\nname = \"files\"\nupstream = \"{}\"\n{more}\n",
        origin.url()
    ))
}

/// A rule of that proxy.
fn rule(pattern: &str, lines: &str) -> String {
    format!("[[proxy.rules]]\nmatch = \"{pattern}\"\n{lines}\n")
}

async fn ask(repoxy: &Repoxy, path: &str, headers: &[(&str, &str)]) -> Got {
    repoxy.request(Method::GET, &format!("/generic/files{path}"), headers).await
}

async fn get(repoxy: &Repoxy, path: &str) -> Got {
    ask(repoxy, path, &[]).await
}

fn refs(repoxy: &Repoxy) -> Vec<PathBuf> {
    repoxy.files("type/generic/proxies/files/refs")
}

/// Waits until this many refs are written: a client has its bytes a little earlier.
async fn kept(repoxy: &Repoxy, count: usize) {
    let limit = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while refs(repoxy).len() != count {
        assert!(std::time::Instant::now() < limit, "{count} refs, not {:?}", refs(repoxy));
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// From the store, or about to get there.
#[track_caller]
fn assert_kept(got: &Got) {
    let status = got.header("cache-status");
    assert!(status.starts_with("repoxy; hit") || status.ends_with("collapsed"), "{status}");
}

/// What `Cache-Status` begins with.
#[track_caller]
fn assert_came(got: &Got, how: &str) {
    assert!(got.header("cache-status").starts_with(how), "{how}: {}", got.header("cache-status"));
}
