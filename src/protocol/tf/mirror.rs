//! The provider network mirror protocol, composed of what the registry protocol says.
//!
//! A version's document takes one download document and one list of sums, whatever the number of its
//! platforms, and no zip: clients wait ten seconds. What upstream gives no sum for is left out.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::grammar::Platform;
use super::request::{Package, Provider};
use super::resource::{JSON, Registry, USUAL_PLATFORMS};
use crate::protocol::{Document, Gathered, Refusal, Unrouted};

/// How many platforms are asked about a version: one that upstream lists may not be there any more.
const MAX_ASKED: usize = 3;

/// `index.json`: all versions that upstream lists.
///
/// # Errors
/// What is needed for it, or why it cannot be had.
pub(super) fn index(
    registry: &Registry<'_>,
    provider: &Provider,
    gathered: &Gathered,
) -> Result<Document, Unrouted> {
    let listed = registry.listed(provider, gathered)?;
    let versions: Map<String, Value> =
        listed.into_iter().map(|listed| (listed.version, Value::Object(Map::new()))).collect();
    document(&json!({ "versions": versions }))
}

/// `<version>.json`: the packages of a version with their hashes.
///
/// # Errors
/// What is needed for it, or why it cannot be had.
pub(super) fn archives(
    registry: &Registry<'_>,
    provider: &Provider,
    version: &str,
    gathered: &Gathered,
) -> Result<Document, Unrouted> {
    #[derive(Serialize)]
    struct Archives {
        archives: BTreeMap<String, Archive>,
    }
    #[derive(Serialize)]
    struct Archive {
        url: String,
        hashes: Vec<String>,
    }
    let listed = registry.listed(provider, gathered)?;
    let listed = listed.into_iter().find(|listed| listed.version == version).ok_or(Refusal::NotFound)?;
    let package =
        |platform: Platform| Package { provider: provider.clone(), version: version.to_owned(), platform };
    let mut found = Err(Refusal::NotFound.into());
    for platform in likeliest(&listed.platforms) {
        let asked = package(platform);
        match registry.facts(&asked, gathered) {
            Err(Unrouted::Refused(Refusal::NotFound)) => {}
            facts => {
                found = facts.map(|facts| (asked, facts));
                break;
            }
        }
    }
    let (asked, facts) = found?;
    let sums = registry.proven(&asked, &facts, gathered)?;
    let is_listed = |platform: &Platform| listed.platforms.is_empty() || listed.platforms.contains(platform);
    let facts = facts.download;
    let packages = sums.packages(&facts.filename, &asked.platform).into_iter();
    let archives = packages.filter(|(platform, _)| is_listed(platform)).map(|(platform, sum)| {
        let name = platform.to_string();
        // `zh:` is the sum itself, and that is signed.
        let others = facts.hashes.get(&name).into_iter().flatten().filter(|hash| !hash.starts_with("zh:"));
        let hashes = std::iter::once(format!("zh:{}", sum.hex())).chain(others.cloned()).collect();
        (name, Archive { url: package(platform).zip(), hashes })
    });
    document(&Archives { archives: archives.collect() })
}

/// The platforms to ask about, in the order in which clients will want them too.
fn likeliest(listed: &[Platform]) -> Vec<Platform> {
    let usual = USUAL_PLATFORMS.iter().filter_map(|platform| Platform::parse(platform));
    let mut asked: Vec<Platform> =
        usual.filter(|platform| listed.is_empty() || listed.contains(platform)).collect();
    for platform in listed {
        if !asked.contains(platform) {
            asked.push(platform.clone());
        }
    }
    asked.truncate(MAX_ASKED);
    asked
}

fn document<T: Serialize>(content: &T) -> Result<Document, Unrouted> {
    let body = serde_json::to_vec(content).map_err(|_| Refusal::Internal)?;
    Ok(Document { media_type: JSON, headers: Vec::new(), body: Bytes::from(body) })
}
