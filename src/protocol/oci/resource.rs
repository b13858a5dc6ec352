//! From a request and the configuration to proxy, repository and resource; and from a ref's path
//! back to the repository.
//!
//! The paths of refs are made and read here alone:
//!
//! | what | area | path |
//! |---|---|---|
//! | tag | refs | `<repository>/tags/<tag>` |
//! | manifest | refs | `<repository>/manifests/<algorithm>/<hex>` |
//! | blob | refs | `<repository>/blobs/<algorithm>/<hex>` |
//! | list of tags | cache | `<repository>/tags-list/<page>` |
//! | referrers | cache | `<repository>/referrers/<algorithm>/<hex>/<page>` |
//!
//! The last segment but one is `tags`, `tags-list`, an algorithm or hex digits of a fixed length, so
//! that read from the right the forms cannot be mistaken for each other, whatever the components of
//! a repository are called.

use std::time::Duration;

use super::grammar::{Query, is_name, is_tag};
use super::request::{Endpoint, Request};
use crate::model::{
    Area, ArtifactType, Checksum, Claim, Delivery, Freshness, MediaType, ProxyFacts, ProxyTable, RefKey,
    RefPath, Resource, Source,
};
use crate::protocol::{Derive, Fetch, Part, Refusal};

/// How long a tag is used before upstream is asked again, if the proxy's configuration does not say.
const TAG_TTL: Duration = Duration::from_secs(5 * 60);
/// How long lists of tags and referrers are used. Short: a push should show soon.
const LIST_TTL: Duration = Duration::from_secs(60);
/// The largest manifest. The specification demands 4 MiB.
const MANIFEST_MAX_LEN: u64 = 16 << 20;
/// The largest list of tags or referrers.
const LIST_MAX_LEN: u64 = 8 << 20;
/// The most entries of one page of a list.
pub(super) const PAGE_MAX: usize = 1000;
/// The entries of a page of the catalog when the client does not say.
const CATALOG_PAGE: usize = 100;
/// The longest `last` of the catalog: a proxy name, a slash and a repository name.
const CATALOG_LAST_MAX_LEN: usize = 64 + 1 + 255;

/// The namespace whose repositories of one component live below `library/`.
const DOCKER_HUB: &str = "docker.io";

/// Every manifest type there is. Sent whatever the client accepts: a registry answers 404, or
/// converts to another format (with another digest), when the type it has is not in the list.
const MANIFEST_ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.docker.distribution.manifest.v1+prettyjws, \
    application/vnd.oci.artifact.manifest.v1+json, */*";

/// The media type of an index, which a list of referrers is.
pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// The kinds of refs there are.
pub(super) mod kind {
    pub(in crate::protocol::oci) const TAG: &str = "container.tag";
    pub(in crate::protocol::oci) const MANIFEST: &str = "container.manifest";
    pub(in crate::protocol::oci) const BLOB: &str = "container.blob";
    pub(in crate::protocol::oci) const TAGS: &str = "container.tags";
    pub(in crate::protocol::oci) const REFERRERS: &str = "container.referrers";
}

/// A repository of a proxy.
#[derive(Debug)]
pub(super) struct Place<'t> {
    proxy: &'t ProxyFacts,
    /// The name as upstream knows it.
    repository: String,
}

impl<'t> Place<'t> {
    /// Finds the proxy that a request means: the one of `?ns=`, else the one that the first
    /// component of the name names, else the default.
    ///
    /// # Errors
    /// [`Refusal::NoProxy`] if there is none: what is not configured is never asked.
    /// [`Refusal::Invalid`] for a repository name that is none.
    pub(super) fn find(request: &Request, proxies: &'t ProxyTable) -> Result<Self, Refusal> {
        let (proxy, name) = if let Some(namespace) = request.namespace() {
            (proxies.serving(ArtifactType::Container, namespace), request.name.as_str())
        } else if let Some((first, rest)) = request.name.split_once('/')
            && let Some(proxy) = called(first, proxies)
        {
            (Some(proxy), rest)
        } else {
            (proxies.default_of(ArtifactType::Container), request.name.as_str())
        };
        let proxy = proxy.ok_or(Refusal::NoProxy)?;
        let official =
            !name.contains('/') && proxy.namespaces.iter().any(|own| own.eq_ignore_ascii_case(DOCKER_HUB));
        let repository = if official { format!("library/{name}") } else { name.to_owned() };
        if is_name(&repository) {
            return Ok(Self { proxy, repository });
        }
        let why = "a repository name is lower-case letters and digits, joined by `.`, `_`, `__`, `-` \
                   and `/`, at most 255 bytes";
        Err(Refusal::Invalid { what: Part::Name, why })
    }

    /// The resource behind an endpoint.
    ///
    /// # Errors
    /// [`Refusal::Invalid`] for a parameter that the endpoint does not take; [`Refusal::NoEndpoint`]
    /// for the endpoints that have none.
    pub(super) fn fetch(&self, request: &Request) -> Result<Fetch, Refusal> {
        let (resource, rewrite) = match &request.endpoint {
            Endpoint::Base | Endpoint::Catalog => return Err(Refusal::NoEndpoint),
            Endpoint::Tag(tag) => (self.tag(tag)?, false),
            Endpoint::Manifest(digest) => (self.manifest(digest)?, false),
            Endpoint::Blob(digest) => (self.content(kind::BLOB, "blobs", digest)?, false),
            Endpoint::Tags => (self.tags(&request.query)?, true),
            Endpoint::Referrers(subject) => {
                (self.referrers(subject, &request.query)?, request.artifact_type().is_some())
            }
        };
        Ok(Fetch { resource, rewrite })
    }

    fn tag(&self, tag: &str) -> Result<Resource, Refusal> {
        Ok(Resource {
            freshness: Freshness::For(self.proxy.ttl.unwrap_or(TAG_TTL)),
            digest_header: Some("docker-content-digest"),
            delivery: Delivery::Whole { limit: MANIFEST_MAX_LEN },
            accept: Some(MANIFEST_ACCEPT),
            keep_headers: &["warning"],
            ..self.resource(kind::TAG, Area::Refs, &format!("tags/{tag}"), &format!("manifests/{tag}"))?
        })
    }

    fn manifest(&self, digest: &Checksum) -> Result<Resource, Refusal> {
        Ok(Resource {
            delivery: Delivery::Whole { limit: MANIFEST_MAX_LEN },
            accept: Some(MANIFEST_ACCEPT),
            // A manifest without its type is of no use to any client, so upstream's word is kept.
            media_type: MediaType::Upstream,
            ..self.content(kind::MANIFEST, "manifests", digest)?
        })
    }

    /// What a digest names: it never changes, and what arrives is checked against it.
    fn content(&self, kind: &'static str, noun: &str, digest: &Checksum) -> Result<Resource, Refusal> {
        let path = format!("{noun}/{}", segments(digest));
        Ok(Resource {
            freshness: Freshness::Immutable,
            expect: Some(digest.clone()),
            linked: true,
            delivery: Delivery::Streamed,
            media_type: MediaType::Fixed("application/octet-stream"),
            ..self.resource(kind, Area::Refs, &path, &format!("{noun}/{digest}"))?
        })
    }

    fn tags(&self, query: &Query) -> Result<Resource, Refusal> {
        if query.get("last").is_some_and(|last| !is_tag(last)) {
            return Err(Refusal::Invalid { what: Part::Query, why: "`last` is not a tag" });
        }
        // Registries differ on `n=0`; the answer is composed here, and one entry tells as well as
        // none that the repository exists.
        let n = query.limit(PAGE_MAX)?.map(|n| n.max(1).to_string());
        let query = query.clone().with("ns", None).with("n", n.as_deref());
        Ok(Resource {
            media_type: MediaType::Fixed("application/json"),
            keep_headers: &["link"],
            ..self.list(kind::TAGS, &format!("tags-list/{}", page(&query)), "tags/list", &query)?
        })
    }

    fn referrers(&self, subject: &Checksum, query: &Query) -> Result<Resource, Refusal> {
        let query = query.clone().with("ns", None);
        let path = format!("referrers/{}/{}", segments(subject), page(&query));
        Ok(Resource {
            accept: Some(INDEX_TYPE),
            media_type: MediaType::Fixed(INDEX_TYPE),
            keep_headers: &["link", "oci-filters-applied"],
            // Without an API clients turn to the tag; so they shall when nobody can be asked.
            alternative: Some(self.key(Area::Refs, &format!("tags/{}", fallback_tag(subject)))?),
            ..self.list(kind::REFERRERS, &path, &format!("referrers/{subject}"), &query)?
        })
    }

    fn list(&self, kind: &'static str, path: &str, source: &str, query: &Query) -> Result<Resource, Refusal> {
        let question = if query.is_empty() { "" } else { "?" };
        self.resource(kind, Area::Cache, path, &format!("{source}{question}{query}"))
    }

    fn key(&self, area: Area, path: &str) -> Result<RefKey, Refusal> {
        let repository = &self.repository;
        let path: RefPath = format!("{repository}/{path}")
            .parse()
            .map_err(|_| Refusal::Invalid { what: Part::Path, why: "it is too long" })?;
        debug_assert_eq!(scope(&path), repository, "a path is read back as it was made");
        Ok(RefKey { proxy: self.proxy.id.clone(), area, path })
    }

    /// What all have in common: a document with a short life.
    fn resource(
        &self,
        kind: &'static str,
        area: Area,
        path: &str,
        source: &str,
    ) -> Result<Resource, Refusal> {
        let key = self.key(area, path)?;
        let source = Source::Path(format!("/v2/{}/{source}", self.repository));
        let delivery = Delivery::Whole { limit: LIST_MAX_LEN };
        Ok(Resource {
            token_scope: Some(format!("repository:{}:pull", self.repository)),
            ..Resource::new(key, kind, source, Freshness::For(LIST_TTL), delivery)
        })
    }
}

/// Another blob of the repository that has this one.
pub(super) fn sibling(blob: &Resource, link: &Claim) -> Option<Resource> {
    let repository = Some(scope(&blob.key.path)).filter(|_| blob.kind == kind::BLOB)?;
    let digest = Checksum::from(link.digest);
    let path = format!("{repository}/blobs/{}", segments(&digest)).parse().ok()?;
    let source = Source::Path(format!("/v2/{repository}/blobs/{digest}"));
    let key = RefKey { path, ..blob.key.clone() };
    Some(Resource { key, source, expect: Some(digest), ..blob.clone() })
}

/// The tag that stands for a list of referrers where a registry has no API for it (distribution specification, "Referrers
/// Tag Schema"): both parts of the digest, cut to what a tag may have.
fn fallback_tag(subject: &Checksum) -> String {
    let digest = subject.to_string();
    let (algorithm, hex) = digest.split_once(':').unwrap_or((&digest, ""));
    format!("{algorithm:.32}-{hex:.64}")
}

/// The proxy that a path component means, by its name or one of its namespaces.
fn called<'t>(component: &str, proxies: &'t ProxyTable) -> Option<&'t ProxyFacts> {
    proxies
        .named(ArtifactType::Container, component)
        .or_else(|| proxies.serving(ArtifactType::Container, component))
}

/// What the catalog is made of. Registries offer none or a useless one, so it lists what is cached.
///
/// # Errors
/// [`Refusal::NoProxy`] if the request names a proxy that is not there, [`Refusal::Invalid`] for
/// parameters that are not valid.
pub(super) fn catalog(request: &Request, proxies: &ProxyTable) -> Result<Derive, Refusal> {
    let proxy = match request.namespace() {
        Some(namespace) => Some(proxies.serving(ArtifactType::Container, namespace)),
        None if request.name.is_empty() => None,
        None => Some(called(&request.name, proxies)),
    };
    let proxy = proxy.map(|found| found.map(|proxy| proxy.id.clone()).ok_or(Refusal::NoProxy)).transpose()?;
    let after = request.query.get("last").map(str::to_owned);
    if after.as_deref().is_some_and(|last| last.len() > CATALOG_LAST_MAX_LEN) {
        return Err(Refusal::Invalid { what: Part::Query, why: "`last` is too long" });
    }
    let limit = request.query.limit(PAGE_MAX)?.unwrap_or(CATALOG_PAGE);
    Ok(Derive::Scopes { proxy, after, limit })
}

/// A digest as two segments.
fn segments(digest: &Checksum) -> String {
    format!("{}/{}", digest.algorithm().as_str(), digest.hex())
}

/// A page of a list as one segment.
fn page(query: &Query) -> String {
    if query.is_empty() { "all".to_owned() } else { query.to_string() }
}

/// The repository that a ref's path belongs to; empty for a path that no request leads to.
pub(super) fn scope(path: &RefPath) -> &str {
    let text = path.as_str();
    let before =
        |segments: usize| text.rmatch_indices('/').nth(segments - 1).map_or("", |(at, _)| &text[..at]);
    let is_checksum = |algorithm: &str, hex: &str| format!("{algorithm}:{hex}").parse::<Checksum>().is_ok();
    let mut from_right = text.rsplit('/');
    let [last, second, third, fourth] = std::array::from_fn(|_| from_right.next().unwrap_or_default());
    let repository = match (second, third) {
        ("tags", _) if is_tag(last) => before(2),
        ("tags-list", _) => before(2),
        ("sha256" | "sha512", "manifests" | "blobs") if is_checksum(second, last) => before(3),
        (hex, algorithm) if fourth == "referrers" && is_checksum(algorithm, hex) => before(4),
        _ => "",
    };
    if is_name(repository) { repository } else { "" }
}
