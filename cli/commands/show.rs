//! `repoxy show`: what a ref says, and what is there of what it needs.

use serde::Serialize;

use repoxy::config::Config;
use repoxy::index::Index;
use repoxy::model::{Clock as _, Digest, ProxyFacts, ProxyTable, Ref, RefKey, SystemClock, Timestamp};
use repoxy::store::Store;

use crate::args::{Global, ShowArgs};
use crate::exit::{CliError, Exit};
use crate::output::{Output, bytes, count};
use crate::{names, settings};

/// Where a blob is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Place {
    Live,
    Condemned,
    Missing,
}

impl Place {
    async fn of(store: &Store, key: &RefKey, digest: &Digest) -> Result<Self, CliError> {
        let artifact_type = key.proxy.artifact_type;
        if store.open_blob(artifact_type, digest, None)?.is_some() {
            Ok(Self::Live)
        } else if store.open_condemned(artifact_type, digest).await?.is_some() {
            Ok(Self::Condemned)
        } else {
            Ok(Self::Missing)
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Condemned => "condemned",
            Self::Missing => "missing",
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    r#ref: String,
    #[serde(flatten)]
    file: Ref,
    target: Place,
    link_places: Vec<Place>,
    fresh: bool,
    last_used: Option<Timestamp>,
}

pub(crate) async fn run(global: &Global, args: &ShowArgs) -> Result<Exit, CliError> {
    let mut output = Output::new(global, args.json);
    let config = settings::load(global)?;
    let store = settings::store(&config).await?;
    let (key, file) = find(&store, &config, &args.reference).await?;
    let mut link_places = Vec::new();
    for link in file.links.iter().flatten() {
        link_places.push(Place::of(&store, &key, &link.digest).await?);
    }
    let shown = Shown {
        r#ref: key.to_string(),
        target: Place::of(&store, &key, &file.target_digest).await?,
        link_places,
        fresh: file.is_fresh(SystemClock.now()),
        // Only the index knows it to the minute; without one it is left out.
        last_used: config.index.as_deref().and_then(|dir| last_used(dir, &key)),
        file,
    };
    if args.json {
        output.object(&shown)?;
    } else {
        print(&mut output, &shown)?;
    }
    output.finish()?;
    Ok(Exit::Done)
}

fn last_used(dir: &std::path::Path, key: &RefKey) -> Option<Timestamp> {
    Index::open_existing(dir).ok()??.last_used(key).ok()?
}

/// The first ref that is there of those that the name could mean.
async fn find(store: &Store, config: &Config, name: &str) -> Result<(RefKey, Ref), CliError> {
    let candidates = names::candidates(name, &all_proxies(store, config).await?);
    for key in &candidates {
        if let Some(reference) = store.read_ref(key).await? {
            return Ok((key.clone(), reference));
        }
    }
    let name = name.to_owned();
    Err(if candidates.is_empty() { CliError::NotAName(name) } else { CliError::NoRef(name) })
}

/// The configured proxies, and those that only have a directory.
async fn all_proxies(store: &Store, config: &Config) -> Result<ProxyTable, CliError> {
    let mut proxies: Vec<ProxyFacts> = config.names().iter().cloned().collect();
    for id in store.proxies().await? {
        if !proxies.iter().any(|proxy| proxy.id == id) {
            proxies.push(ProxyFacts::new(id));
        }
    }
    Ok(ProxyTable::new(proxies))
}

fn print(output: &mut Output, shown: &Shown) -> Result<(), CliError> {
    let file = &shown.file;
    let mut line = |name: &str, value: String| output.line(format_args!("{name:<12} {value}"));
    line("ref", shown.r#ref.clone())?;
    line("kind", file.kind.clone())?;
    line("digest", format!("{} ({})", file.target_digest, shown.target.as_str()))?;
    line("media type", file.media_type.clone().unwrap_or_else(|| "-".to_owned()))?;
    line("size", format!("{} ({} bytes)", bytes(file.size), file.size))?;
    line("upstream", file.upstream.clone().unwrap_or_else(|| "-".to_owned()))?;
    line("fetched", format!("{:.0}", file.fetched_at))?;
    let ttl = match (file.ttl_seconds, shown.fresh) {
        (None, _) => "for ever".to_owned(),
        (Some(ttl), true) => format!("{ttl} s"),
        (Some(ttl), false) => format!("{ttl} s, expired"),
    };
    line("time to live", ttl)?;
    if let Some(until) = file.valid_until() {
        let lapsed = if until < SystemClock.now() { ", lapsed" } else { "" };
        line("valid until", format!("{until:.0}{lapsed}"))?;
    }
    line("last used", shown.last_used.map_or("-".to_owned(), |at| format!("{at:.0}")))?;
    let Some(links) = &file.links else { return line("links", "not noted".to_owned()) };
    let there = shown.link_places.iter().filter(|place| **place == Place::Live).count();
    line("links", format!("{}, {there} of them live", count(links.len() as u64, "blob")))?;
    for (link, place) in links.iter().zip(&shown.link_places) {
        line("", format!("{} ({})", link.digest, place.as_str()))?;
    }
    Ok(())
}
