//! The index as its users see it.

mod damage;
mod listing;
mod log;
mod model;
mod plans;
mod writing;

use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::model::{ArtifactType, Claim, Digest, ProxyId, Ref, RefKey, Timestamp};

/// A directory with a fresh index in it.
fn fresh() -> (TempDir, Index) {
    let dir = TempDir::new().expect("directory");
    let index = open(dir.path());
    (dir, index)
}

fn open(dir: &Path) -> Index {
    Index::open(dir).expect("opens").0
}

fn digest(number: u32) -> Digest {
    Digest::of(&number.to_be_bytes())
}

/// A link to the content of a number; every other one states its size.
fn claim(number: u32) -> Claim {
    Claim { digest: digest(number), size: number.is_multiple_of(2).then(|| u64::from(number) * 10) }
}

fn key(text: &str) -> RefKey {
    text.parse().expect(text)
}

fn proxy(name: &str) -> ProxyId {
    ProxyId { artifact_type: ArtifactType::Container, name: name.parse().expect(name) }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("in range")
}

fn reference(target: u32) -> Ref {
    Ref {
        kind: "container.tag".to_owned(),
        target_digest: digest(target),
        media_type: None,
        size: u64::from(target) * 10,
        upstream: None,
        fetched_at: at(i64::from(target)),
        ttl_seconds: None,
        etag: None,
        last_modified: None,
        links: None,
        headers: [].into(),
        http: None,
        unknown: serde_json::Map::new(),
    }
}

/// A record in the scope that is the path up to `/tags/` or `/manifests/`.
fn record(text: &str, target: u32) -> Record {
    let key = key(text);
    let path = key.path.as_str();
    let scope = ["/tags/", "/manifests/"].iter().filter_map(|mark| path.rfind(mark)).max();
    let scope = path[..scope.unwrap_or(0)].to_owned();
    Record { key, scope, reference: reference(target) }
}

fn linking(record: Record, links: &[u32]) -> Record {
    let links = Some(links.iter().copied().map(claim).collect());
    Record { reference: Ref { links, ..record.reference }, ..record }
}

/// Every key, page by page.
fn keys(index: &Index) -> Vec<String> {
    listed(index, RefQuery::default(), 3)
}

fn listed(index: &Index, mut query: RefQuery, limit: usize) -> Vec<String> {
    let mut keys = Vec::new();
    query.limit = limit;
    loop {
        let page = index.query(&query).expect("page");
        assert!(page.rows.len() <= limit);
        keys.extend(page.rows.iter().map(|row| row.key.to_string()));
        match page.next {
            None => return keys,
            next => {
                assert_eq!(page.rows.len(), limit, "only the last page is short");
                query.after = next;
            }
        }
    }
}
