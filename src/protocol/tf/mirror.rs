//! The provider network mirror protocol, composed of what the registry protocol says.
//!
//! A version's document takes one download document and one list of sums, whatever the number of its
//! platforms, and no zip: clients wait ten seconds. What upstream gives no sum for is left out. Of zips that
//! are cached, and have been read since, it has their `h1:` too.

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
/// How many of a version's zips are looked at for further hashes; there are some fifteen platforms.
const MAX_EXAMINED: usize = 64;
/// What a zip's `h1:` is called in what is known of it.
pub(super) const H1: &str = "h1";

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
    let mut packages = sums.packages(&facts.filename, &asked.platform);
    packages.retain(|(platform, _)| is_listed(platform));
    let mut archives = BTreeMap::new();
    let mut bare = Vec::new();
    for (platform, sum) in packages {
        let (name, package) = (platform.to_string(), package(platform));
        // `zh:` is the sum itself, and that is signed.
        let mut hashes = vec![format!("zh:{}", sum.hex())];
        let others = facts.hashes.get(&name).into_iter().flatten();
        hashes.extend(others.filter(|hash| !hash.starts_with("zh:")).cloned());
        if hashes.len() == 1 && bare.len() < MAX_EXAMINED {
            bare.push((name.clone(), registry.hashes(&package, sum)?));
        }
        archives.insert(name, Archive { url: package.zip(), hashes });
    }
    let (names, inquiries): (Vec<_>, Vec<_>) = bare.into_iter().unzip();
    for (name, known) in names.iter().zip(gathered.facts(inquiries)?) {
        let h1 = known.and_then(|known| known.unknown.get(H1)?.as_str());
        if let (Some(archive), Some(h1)) = (archives.get_mut(name), h1) {
            archive.hashes.push(h1.to_owned());
        }
    }
    document(&Archives { archives })
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
