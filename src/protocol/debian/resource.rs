//! From a path in an archive to a resource. The paths of refs are made here alone:
//!
//! | what | area | path | kind |
//! |---|---|---|---|
//! | `InRelease`, `Release` | cache | as in the archive | `debian.release` |
//! | `Release.gpg` | cache | `<suite>/Release.gpg/<sha256 of the Release>` | `debian.signature` |
//! | `Packages`, `Sources` | cache | `<dir>/by-hash/SHA256/<hex>` | `debian.packages` |
//! | other index files | cache | the same | `debian.index` |
//! | package, source | refs | as in the archive | `debian.package` |
//! | anything else | cache | as in the archive | `debian.file` |
//! | what was found out about a Release | meta | as the Release | `debian.verdict` |
//!
//! An index has one key, whether it was asked for by its name or by its digest. Which digest a name
//! means is what the `InRelease` says that clients are given at present, not what upstream would say
//! now: so a name never leads to content that the client's `InRelease` does not know.

use std::time::Duration;

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::item::{self, Item};
use super::release::{Entry, Release};
use super::request::Request;
use crate::model::{
    Area, Checksum, Claim, Delivery, Digest, Freshness, Heed, ProxyFacts, ProxyId, RefKey, Resource, Source,
};
use crate::protocol::{Fetch, Gathered, Lookup, Part, Refusal, Route, Unrouted};

/// How long a Release is used before upstream is asked again. Clients ask with `max-age=0` each time.
const RELEASE_TTL: Duration = Duration::from_secs(30);
/// How long after its time a Release that was given to clients still decides what index names mean: the
/// time that a client may take from the one to the others.
const GENERATION_GRACE: Duration = Duration::from_secs(10 * 60);
/// How long files are used that nobody vouches for.
const FILE_TTL: Duration = Duration::from_secs(10 * 60);
/// How long packages are used that no cached index names. By the custom of archives a name never gets
/// other content.
const PACKAGE_TTL: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The largest Release. Debian's have some 200 KiB.
const RELEASE_MAX_LEN: u64 = 16 << 20;
/// The largest signature that is kept apart.
const SIGNATURE_MAX_LEN: u64 = 1 << 20;

/// What is encoded on the way to upstream: all that a path may not hold (RFC 3986 section 3.3), and `+`,
/// which some stores behind mirrors read as a space.
const ENCODED: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'+')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'[')
    .add(b'\\')
    .add(b']')
    .add(b'^')
    .add(b'`')
    .add(b'{')
    .add(b'|')
    .add(b'}');

/// The kinds of refs there are.
pub(super) mod kind {
    pub(in crate::protocol::debian) const RELEASE: &str = "debian.release";
    pub(in crate::protocol::debian) const SIGNATURE: &str = "debian.signature";
    pub(in crate::protocol::debian) const PACKAGES: &str = "debian.packages";
    pub(in crate::protocol::debian) const INDEX: &str = "debian.index";
    pub(in crate::protocol::debian) const PACKAGE: &str = "debian.package";
    pub(in crate::protocol::debian) const FILE: &str = "debian.file";
    pub(in crate::protocol::debian) const VERDICT: &str = "debian.verdict";
}

/// The documents of a suite, either of which may govern its index files: the one with its signature
/// within, and the one that clients ask for if that is missing.
const IN_RELEASE: &str = "InRelease";
const RELEASE: &str = "Release";

/// The resource behind a request.
///
/// # Errors
/// [`Unrouted::Needs`] for an `InRelease`, or for what indexes say of a package.
pub(super) fn route(request: &Request<'_>, gathered: &Gathered) -> Result<Route, Unrouted> {
    let archive = Archive { proxy: request.proxy };
    let path = &request.path;
    let mut resource = match item::classify(path) {
        Item::Release => archive.release(path)?,
        Item::Signature => archive.signature_of_held(item::dir_of(path), gathered)?,
        Item::ByHash(checksum) => archive.by_hash(path, &checksum, gathered)?,
        // Clients then take the whole file, which costs a cache in the same building nothing.
        Item::Difference => return Err(Refusal::NotFound.into()),
        Item::Index => archive.index(path, gathered)?,
        Item::Package => archive.package(path, gathered)?,
        Item::File => archive.file(path)?,
    };
    // What belongs to a Release has the digest that this gives it, and a package has its name: there is
    // nothing to ask upstream about. apt says `max-age=0` each time, a user who wants to be sure `no-cache`.
    if matches!(resource.kind, kind::RELEASE | kind::FILE) {
        resource.asked.directives = request.directives;
        resource.asked.heed = Heed::NoCache;
    }
    Ok(Route::Fetch(Box::new(Fetch { resource, rewrite: false })))
}

/// A proxy's archive.
#[derive(Debug, Clone, Copy)]
struct Archive<'t> {
    proxy: &'t ProxyFacts,
}

impl Archive<'_> {
    fn release_ttl(self) -> Duration {
        self.proxy.ttl.unwrap_or(RELEASE_TTL)
    }

    /// How long ago a Release may have been confirmed that decides what names mean.
    fn generation(self) -> Duration {
        self.release_ttl().saturating_add(GENERATION_GRACE)
    }

    fn release(self, path: &str) -> Result<Resource, Refusal> {
        let delivery = Delivery::Whole { limit: RELEASE_MAX_LEN };
        let freshness = Freshness::For(self.release_ttl());
        let alternative = match path.strip_suffix(IN_RELEASE) {
            Some(suite) => Some(key(&self.proxy.id, Area::Cache, &format!("{suite}{RELEASE}"))?),
            None => None,
        };
        let key = key(&self.proxy.id, Area::Cache, path)?;
        Ok(Resource {
            alternative,
            context: self.proxy.keyring.clone().unwrap_or_default(),
            ..Resource::new(key, kind::RELEASE, at(path), freshness, delivery)
        })
    }

    /// The signature that belongs to the Release which clients are given.
    fn signature_of_held(self, suite: &str, gathered: &Gathered) -> Result<Resource, Unrouted> {
        let release = self.release(&item::below(suite, RELEASE))?;
        let held = gathered.recent(release, self.generation())?.map_err(Clone::clone)?;
        let freshness = if self.proxy.keyring.is_some() {
            Freshness::Immutable // It was verified with its Release.
        } else {
            // Upstream may have been replacing the two when they were fetched; this mends it.
            Freshness::For(self.release_ttl())
        };
        let digest = held.reference.target_digest;
        Ok(signature(&self.proxy.id, suite, digest, freshness)?)
    }

    /// The Release that clients are given for the files of a directory, and its own directory.
    fn governing<'g>(
        self,
        dir: &'g str,
        gathered: &'g Gathered,
    ) -> Result<Option<(&'g str, Release<'g>)>, Unrouted> {
        let mut failure = None;
        for suite in item::suites(dir) {
            for name in [IN_RELEASE, RELEASE] {
                let resource = self.release(&item::below(suite, name))?;
                let is_plain = name == RELEASE;
                match gathered.recent(resource, self.generation())? {
                    Ok(held) if is_plain => return Ok(Some((suite, Release::plain(&held.body)?))),
                    Ok(held) => return Ok(Some((suite, Release::signed(&held.body)?))),
                    // Some stores deny what does not exist.
                    Err(Refusal::NotFound | Refusal::Denied { .. }) => {}
                    // The next may be cached; if none is, this is why nothing is known.
                    Err(refusal) => failure = failure.or(Some(refusal)),
                }
            }
        }
        failure.map_or(Ok(None), |refusal| Err(refusal.clone().into()))
    }

    fn index(self, path: &str, gathered: &Gathered) -> Result<Resource, Unrouted> {
        if let Some((suite, release)) = self.governing(item::dir_of(path), gathered)?
            && let Some(entry) = release.at(relative(path, suite))
        {
            return Ok(index(&self.proxy.id, suite, &release, entry)?);
        }
        Ok(self.file(path)?)
    }

    /// An index by its digest. What a Release says of it beside that is of use, but not needed: a client
    /// may know an older one.
    fn by_hash(self, path: &str, checksum: &Checksum, gathered: &Gathered) -> Result<Resource, Unrouted> {
        let dir = item::dir_of_by_hash(path);
        let governing = match self.governing(dir, gathered) {
            Err(needs @ Unrouted::Needs(_)) => return Err(needs),
            governing => governing.ok().flatten(),
        };
        if let Some((suite, release)) = governing
            && let Some(entry) = release.with(relative(dir, suite), checksum)
        {
            return Ok(index(&self.proxy.id, suite, &release, entry)?);
        }
        let path = item::by_hash_path(dir, checksum);
        let key = key(&self.proxy.id, Area::Cache, &path)?;
        Ok(Resource {
            expect: Some(checksum.clone()),
            ..Resource::new(key, kind::INDEX, at(&path), Freshness::Immutable, Delivery::Streamed)
        })
    }

    fn package(self, path: &str, gathered: &Gathered) -> Result<Resource, Unrouted> {
        let proxy = self.proxy.id.clone();
        let lookup = Lookup { proxy, kind: kind::PACKAGES, item: path.to_owned() };
        let claim = gathered.entry(lookup)?.copied();
        let freshness = claim.map_or(Freshness::For(PACKAGE_TTL), |_| Freshness::Immutable);
        let key = key(&self.proxy.id, Area::Refs, path)?;
        Ok(Resource {
            expect: claim.map(|Claim { digest, .. }| digest.into()),
            size: claim.and_then(|claim| claim.size),
            ..Resource::new(key, kind::PACKAGE, at(path), freshness, Delivery::Streamed)
        })
    }

    fn file(self, path: &str) -> Result<Resource, Refusal> {
        let freshness = Freshness::For(self.proxy.ttl.unwrap_or(FILE_TTL));
        let key = key(&self.proxy.id, Area::Cache, path)?;
        Ok(Resource::new(key, kind::FILE, at(path), freshness, Delivery::Streamed))
    }
}

/// An index that a Release names.
pub(super) fn index(
    proxy: &ProxyId,
    suite: &str,
    release: &Release<'_>,
    entry: Entry<'_>,
) -> Result<Resource, Refusal> {
    let plain = item::below(suite, entry.path);
    let path = item::by_digest_path(item::dir_of(&plain), entry.digest);
    let name = entry.path.rsplit('/').next().unwrap_or_default();
    let kind = if item::is_catalogue(name) { kind::PACKAGES } else { kind::INDEX };
    // Upstream keeps an old generation under its digests for some time only, and a new one may reach it
    // by its name first.
    let (source, fallback) =
        if release.has_by_hash() { (at(&path), Some(at(&plain))) } else { (at(&plain), None) };
    let key = key(proxy, Area::Cache, &path)?;
    Ok(Resource {
        expect: Some(entry.digest.into()),
        size: Some(entry.size),
        fallback,
        ..Resource::new(key, kind, source, Freshness::Immutable, Delivery::Streamed)
    })
}

/// The key of an index that a Release names.
pub(super) fn index_key(proxy: &ProxyId, suite: &str, entry: Entry<'_>) -> Result<RefKey, Refusal> {
    let dir = item::below(suite, entry.path);
    key(proxy, Area::Cache, &item::by_digest_path(item::dir_of(&dir), entry.digest))
}

/// The signature of the Release with a digest.
pub(super) fn signature(
    proxy: &ProxyId,
    suite: &str,
    release: Digest,
    freshness: Freshness,
) -> Result<Resource, Refusal> {
    let path = item::below(suite, "Release.gpg");
    let key = key(proxy, Area::Cache, &format!("{path}/{}", release.hex()))?;
    let delivery = Delivery::Whole { limit: SIGNATURE_MAX_LEN };
    Ok(Resource::new(key, kind::SIGNATURE, at(&path), freshness, delivery))
}

/// A path counted from a directory above it.
fn relative<'p>(path: &'p str, dir: &str) -> &'p str {
    let rest = path.strip_prefix(dir).unwrap_or(path);
    rest.strip_prefix('/').unwrap_or(rest)
}

fn key(proxy: &ProxyId, area: Area, path: &str) -> Result<RefKey, Refusal> {
    let why = "it is too long, or holds what no path of an archive does";
    let path = path.parse().map_err(|_| Refusal::Invalid { what: Part::Path, why })?;
    Ok(RefKey { proxy: proxy.clone(), area, path })
}

/// Where upstream has a path.
fn at(path: &str) -> Source {
    Source::Path(format!("/{}", utf8_percent_encode(path, ENCODED)))
}
