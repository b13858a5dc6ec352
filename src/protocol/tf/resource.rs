//! From what is wanted and the configuration to resources; and from a ref's path back to its scope.
//!
//! The paths of refs are made and read here alone:
//!
//! | what | area | path |
//! |---|---|---|
//! | a package's zip | refs | `providers/<namespace>/<name>/<platform>/<version>` |
//! | a module's archive | refs | `modules/<namespace>/<name>/<system>/<version>` |
//! | verdict on a signature | meta | `providers/<namespace>/<name>/<version>/signature` |
//! | hashes of a zip beside its sum | meta | `providers/<namespace>/<name>/<version>/hashes/<platform>` |
//! | service discovery | cache | `services` |
//! | versions of a provider | cache | `providers/<namespace>/<name>/versions` |
//! | download document | cache | `providers/<namespace>/<name>/<version>/download/<platform>` |
//! | sums, their signature | cache | `providers/<namespace>/<name>/<version>/sums`, `…/sums.sig` |
//! | versions of a module | cache | `modules/<namespace>/<name>/<system>/versions` |
//! | download document | cache | `modules/<namespace>/<name>/<system>/<version>/download` |

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use url::Url;

use super::documents::{self, Download, Service, Sums};
use super::grammar::is_part;
use super::request::{Module, Mount, Package, Provider, Request};
use super::source::{Archive, ModuleSource};
use crate::model::{
    Area, ArtifactType, Delivery, Digest, Freshness, MediaType, ProxyFacts, ProxyTable, RefKey, RefPath,
    Resource, Source,
};
use crate::protocol::openpgp::{Keyring, SignatureError};
use crate::protocol::{Companion, Fetch, Gathered, Gotten, Inquiry, Part, Refusal, Route, Unrouted};

/// The media type of all documents.
pub(super) const JSON: &str = "application/json";
/// How long a list of versions is used before upstream is asked again, if the proxy does not say.
const LIST_TTL: Duration = Duration::from_secs(10 * 60);
/// How long service discovery and download documents are used, at most. Addresses in the latter may be
/// signed and expire.
const DOCUMENT_TTL: Duration = Duration::from_secs(60 * 60);
/// How long it holds where a module's version is, at most.
const MODULE_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// The largest document. Lists of versions with all their platforms are the longest; the largest known
/// is below 2 MiB.
const DOCUMENT_MAX_LEN: u64 = 16 << 20;
/// The largest list of sums, and the largest signature.
const SUMS_MAX_LEN: u64 = 1 << 20;
/// The upstream header that says where a module is (lower case).
pub(super) const TERRAFORM_GET: &str = "x-terraform-get";

/// The kinds of refs there are.
pub(super) mod kind {
    pub(in crate::protocol::tf) const PROVIDER: &str = "tf.provider";
    pub(in crate::protocol::tf) const MODULE: &str = "tf.module";
    pub(in crate::protocol::tf) const SERVICES: &str = "tf.services";
    pub(in crate::protocol::tf) const VERSIONS: &str = "tf.versions";
    pub(in crate::protocol::tf) const DOWNLOAD: &str = "tf.download";
    pub(in crate::protocol::tf) const SUMS: &str = "tf.sums";
    pub(in crate::protocol::tf) const SIGNATURE: &str = "tf.signature";
    pub(in crate::protocol::tf) const VERDICT: &str = "tf.verdict";
    pub(in crate::protocol::tf) const HASHES: &str = "tf.hashes";
    pub(in crate::protocol::tf) const MODULE_VERSIONS: &str = "tf.moduleVersions";
    pub(in crate::protocol::tf) const MODULE_DOWNLOAD: &str = "tf.moduleDownload";
}

/// What it takes to judge sums, or a signature of them, when they arrive.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Evidence {
    /// Where the signature is: a path below upstream, or an address.
    pub(super) signature: String,
    /// The keys of the download document.
    pub(super) keys: Vec<String>,
    /// The sums, where the signature alone is fetched.
    pub(super) sums: Option<String>,
}

impl Evidence {
    /// Reads what a resource carries.
    ///
    /// # Errors
    /// [`Refusal::Internal`] if it carries something else.
    pub(super) fn of(resource: &Resource) -> Result<Self, Refusal> {
        serde_json::from_slice(&resource.context).map_err(|_| Refusal::Internal)
    }

    /// The keys, to be used.
    ///
    /// # Errors
    /// [`SignatureError::NoKeys`] if none can be read.
    pub(super) fn keyring(&self) -> Result<Keyring, SignatureError> {
        Keyring::read(self.keys.join("\n").as_bytes())
    }

    fn to_context(&self) -> Bytes {
        // Serialising strings into memory cannot fail.
        serde_json::to_vec(self).map(Bytes::from).unwrap_or_default()
    }
}

/// A registry: a proxy of this type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Registry<'t> {
    proxy: &'t ProxyFacts,
    upstream: &'t Url,
}

/// Where a service of upstream's is.
#[derive(Debug)]
struct Place {
    url: Url,
    /// Why that is only where it usually is, if what upstream says of it cannot be learned. Then
    /// nothing is fetched from there: what it lacks might be elsewhere.
    doubt: Option<Refusal>,
}

/// A resource, and why it cannot be fetched now if where it is cannot be learned.
#[derive(Debug)]
pub(super) struct Sought {
    resource: Resource,
    unlocated: Option<Refusal>,
}

/// What a package's download document says.
#[derive(Debug)]
pub(super) struct Facts {
    /// The document.
    pub(super) download: Download,
    unlocated: Option<Refusal>,
}

impl Facts {
    /// The document, if what it names can be fetched.
    fn located(&self) -> Result<&Download, Unrouted> {
        match &self.unlocated {
            None => Ok(&self.download),
            Some(refusal) => Err(refusal.clone().into()),
        }
    }
}

impl Sought {
    const fn at(resource: Resource) -> Self {
        Self { resource, unlocated: None }
    }

    /// Turns a place that could not be learned into a resource that is had from the cache alone.
    fn or_held(found: Result<Resource, Unrouted>, held: Resource) -> Result<Self, Unrouted> {
        match found {
            Ok(resource) => Ok(Self::at(resource)),
            // What proves to be forged is not covered up by what was there before.
            Err(Unrouted::Refused(refusal)) if !matches!(refusal, Refusal::Untrusted { .. }) => {
                Ok(Self { resource: held, unlocated: Some(refusal) })
            }
            Err(unrouted) => Err(unrouted),
        }
    }

    /// The route to it.
    pub(super) fn route(self, rewrite: bool) -> Route {
        let fetch = Box::new(Fetch { resource: self.resource, rewrite });
        match self.unlocated {
            None => Route::Fetch(fetch),
            Some(otherwise) => Route::Held { fetch, otherwise },
        }
    }

    fn gather(self, gathered: &Gathered) -> Result<&Gotten, Unrouted> {
        match self.unlocated {
            None => gathered.document(self.resource),
            Some(refusal) => gathered.held(self.resource, refusal),
        }
    }
}

impl<'t> Registry<'t> {
    /// Finds the registry that a request means.
    ///
    /// # Errors
    /// [`Refusal::NoProxy`] if there is none: what is not configured is never asked.
    pub(super) fn find(request: &Request, proxies: &'t ProxyTable) -> Result<Self, Refusal> {
        const TYPE: ArtifactType = ArtifactType::Tf;
        let called = |name: &str| proxies.named(TYPE, name).or_else(|| proxies.serving(TYPE, name));
        let proxy = match &request.mount {
            Mount::Root => proxies.default_of(TYPE),
            Mount::Proxy(name) => called(name),
            Mount::Mirror { proxy, hostname } => called(proxy).and_then(|_| proxies.serving(TYPE, hostname)),
        };
        let proxy = proxy.ok_or(Refusal::NoProxy)?;
        let upstream = proxy.upstream.as_ref().ok_or(Refusal::NoProxy)?;
        Ok(Self { proxy, upstream })
    }

    /// The proxy's name.
    pub(super) fn name(&self) -> &str {
        self.proxy.id.name.as_str()
    }

    /// The versions of a provider.
    pub(super) fn versions(&self, provider: &Provider, gathered: &Gathered) -> Result<Sought, Unrouted> {
        let path = format!("providers/{}/{}/versions", provider.namespace, provider.name);
        let below = format!("{}/{}/versions", provider.namespace, provider.name);
        let document = self.document(kind::VERSIONS, &path, self.list_freshness())?;
        self.below(Service::Providers, &below, document, gathered)
    }

    /// The versions of a provider, read.
    pub(super) fn listed(
        &self,
        provider: &Provider,
        gathered: &Gathered,
    ) -> Result<Vec<documents::Listed>, Unrouted> {
        Ok(documents::versions(&self.versions(provider, gathered)?.gather(gathered)?.body)?)
    }

    /// A package's download document.
    pub(super) fn download(&self, package: &Package, gathered: &Gathered) -> Result<Sought, Unrouted> {
        let Package { provider, version, platform } = package;
        let path = format!("{}/download/{platform}", version_path(package));
        let freshness = self.freshness(DOCUMENT_TTL);
        let document = self.document(kind::DOWNLOAD, &path, freshness)?;
        self.below(Service::Providers, &download_below(provider, version, package), document, gathered)
    }

    /// The same, read. If it could be had from the cache alone, that is true also of what it names.
    pub(super) fn facts(&self, package: &Package, gathered: &Gathered) -> Result<Facts, Unrouted> {
        let sought = self.download(package, gathered)?;
        let unlocated = sought.unlocated.clone();
        let document = sought.gather(gathered)?;
        let below = download_below(&package.provider, &package.version, package);
        let at = self.place(Service::Providers, gathered)?.url.join(&below).map_err(|_| Refusal::Internal)?;
        Ok(Facts { download: Download::read(&document.body, &at)?, unlocated })
    }

    /// The sums of a package's version.
    pub(super) fn sums(&self, package: &Package, gathered: &Gathered) -> Result<Sought, Unrouted> {
        let found =
            self.facts(package, gathered).and_then(|facts| Ok(self.sums_of(package, facts.located()?)?));
        Sought::or_held(found, self.sums_held(package)?)
    }

    /// The same, read and proven.
    pub(super) fn proven(
        &self,
        package: &Package,
        facts: &Facts,
        gathered: &Gathered,
    ) -> Result<Sums, Unrouted> {
        let sums = match &facts.unlocated {
            None => gathered.document(self.sums_of(package, &facts.download)?)?,
            Some(refusal) => gathered.held(self.sums_held(package)?, refusal.clone())?,
        };
        Ok(Sums::read(&sums.body)?)
    }

    /// The signature of those. It comes with them; if it was lost since, it is judged anew.
    pub(super) fn signature(&self, package: &Package, gathered: &Gathered) -> Result<Sought, Unrouted> {
        let found = || {
            let facts = self.facts(package, gathered)?;
            let sums = self.sums_of(package, facts.located()?)?;
            let mut evidence = Evidence::of(&sums)?;
            let signature = signature_of(&sums, &evidence)?;
            let sums = gathered.document(sums)?;
            evidence.sums = Some(String::from_utf8_lossy(&sums.body).into_owned());
            Ok(Resource { context: evidence.to_context(), ..signature })
        };
        let held = signature_of(&self.sums_held(package)?, &Evidence::default())?;
        Sought::or_held(found(), held)
    }

    fn zip_held(&self, package: &Package) -> Result<Resource, Refusal> {
        let Provider { namespace, name } = &package.provider;
        let path = format!("providers/{namespace}/{name}/{}/{}", package.platform, package.version);
        let media_type = MediaType::Fixed("application/zip");
        Ok(Resource { media_type, ..self.content(kind::PROVIDER, &path)? })
    }

    /// What further hashes a package's zip has, if that is cached and has this sum.
    pub(super) fn hashes(&self, package: &Package, sum: Digest) -> Result<Inquiry, Refusal> {
        let path = format!("{}/hashes/{}", version_path(package), package.platform);
        let content = Resource { expect: Some(sum.into()), ..self.zip_held(package)? };
        Ok(Inquiry { content, fact: self.key(Area::Meta, &path)?, kind: kind::HASHES })
    }

    /// A package's zip, which must be the one of the sums.
    pub(super) fn zip(&self, package: &Package, gathered: &Gathered) -> Result<Sought, Unrouted> {
        let held = self.zip_held(package)?;
        let found = || {
            let facts = self.facts(package, gathered)?;
            let sums = self.proven(package, &facts, gathered)?;
            let facts = facts.located()?;
            if sums.of(&facts.filename) != Some(facts.shasum) {
                let why = format!(
                    "the signed sums do not have the download document's sum for `{}`",
                    facts.filename.escape_default()
                );
                return Err(Refusal::Untrusted { why }.into());
            }
            let expect = Some(facts.shasum.into());
            let source = documents::source(facts.zip.clone(), self.upstream)?;
            Ok(Resource { source, expect, ..held.clone() })
        };
        Sought::or_held(found(), held.clone())
    }

    /// The versions of a module.
    pub(super) fn module_versions(&self, module: &Module, gathered: &Gathered) -> Result<Sought, Unrouted> {
        let below = format!("{}/versions", module_below(module));
        let document =
            self.document(kind::MODULE_VERSIONS, &format!("modules/{below}"), self.list_freshness())?;
        self.below(Service::Modules, &below, document, gathered)
    }

    /// Where a module's files are.
    pub(super) fn module_source(
        &self,
        module: &Module,
        version: &str,
        gathered: &Gathered,
    ) -> Result<ModuleSource, Unrouted> {
        let below = format!("{}/{version}/download", module_below(module));
        let freshness = self.freshness(MODULE_TTL);
        let document = Resource {
            headers_only: true,
            keep_headers: &[TERRAFORM_GET],
            ..self.document(kind::MODULE_DOWNLOAD, &format!("modules/{below}"), freshness)?
        };
        let gotten = self.below(Service::Modules, &below, document, gathered)?.gather(gathered)?;
        // Where both are, OpenTofu believes the body.
        let source = documents::module_location(&gotten.body)?
            .or_else(|| gotten.reference.headers.get(TERRAFORM_GET).cloned())
            .filter(|source| !source.is_empty())
            .ok_or(Refusal::BadUpstream("it does not say where the module is"))?;
        let place = self.place(Service::Modules, gathered)?;
        let asked = place.url.join(&below).map_err(|_| Refusal::Internal)?;
        Ok(ModuleSource::read(&source, &asked)?)
    }

    /// A module's archive, under the name that its download document gives it here.
    pub(super) fn archive(
        &self,
        module: &Module,
        version: &str,
        file: &str,
        gathered: &Gathered,
    ) -> Result<Sought, Unrouted> {
        let held = self.content(kind::MODULE, &format!("modules/{}/{version}", module_below(module)))?;
        let found = match self.module_source(module, version, gathered) {
            Ok(ModuleSource::Archive(Archive { url, name, checksum, .. })) if name == file => {
                match self.place(Service::Modules, gathered)?.doubt {
                    None => {
                        let source = documents::source(url, self.upstream)?;
                        Ok(Resource { source, expect: checksum, ..held.clone() })
                    }
                    Some(doubt) => Err(doubt.into()),
                }
            }
            Ok(_) => return Err(Refusal::NotFound.into()),
            Err(unrouted) => Err(unrouted),
        };
        Sought::or_held(found, held)
    }

    /// Where a service of upstream's is: by its service discovery, or where it usually is.
    fn place(&self, service: Service, gathered: &Gathered) -> Result<Place, Unrouted> {
        const DISCOVERY: &str = "/.well-known/terraform.json";
        let freshness = self.freshness(DOCUMENT_TTL);
        let document = Resource {
            source: Source::Path(DISCOVERY.to_owned()),
            ..self.document(kind::SERVICES, "services", freshness)?
        };
        let base = |rest: &str| {
            let upstream = self.upstream.as_str().trim_end_matches('/');
            Url::parse(&format!("{upstream}{rest}")).map_err(|_| Refusal::Internal)
        };
        let usual = |doubt| Ok(Place { url: base(service.path())?, doubt });
        let found = match gathered.attempt(document)? {
            Ok(found) => service.find(&found.body),
            // Without service discovery the services are where they usually are.
            Err(Refusal::NotFound) => return usual(None),
            Err(refusal) => Err(refusal.clone()),
        };
        match found {
            Ok(Some(place)) => match base(DISCOVERY)?.join(&place) {
                Ok(url) if !url.cannot_be_a_base() => Ok(Place { url, doubt: None }),
                _ => usual(Some(Refusal::BadUpstream("it names an address that is none"))),
            },
            Ok(None) => usual(Some(Refusal::NotFound)),
            Err(refusal) => usual(Some(refusal)),
        }
    }

    /// A document at `below` the place of a service.
    fn below(
        &self,
        service: Service,
        below: &str,
        document: Resource,
        gathered: &Gathered,
    ) -> Result<Sought, Unrouted> {
        let Place { url, doubt: unlocated } = self.place(service, gathered)?;
        let url = url.join(below).map_err(|_| Refusal::Internal)?;
        match documents::source(url, self.upstream) {
            Ok(source) => Ok(Sought { resource: Resource { source, ..document }, unlocated }),
            Err(refusal) => Ok(Sought { resource: document, unlocated: Some(refusal) }),
        }
    }

    fn sums_of(&self, package: &Package, facts: &Download) -> Result<Resource, Refusal> {
        if facts.keys.is_empty() && !self.proxy.unsigned {
            let why = format!(
                "the registry names no key that could have signed `{}`; `unsigned = true` in the proxy's \
                 configuration accepts that",
                package.sums()
            );
            return Err(Refusal::Untrusted { why });
        }
        let signature = match documents::source(facts.signature.clone(), self.upstream)? {
            Source::Path(place) | Source::Url(place) => place,
        };
        let evidence = Evidence { signature, keys: facts.keys.clone(), sums: None };
        Ok(Resource {
            source: documents::source(facts.sums.clone(), self.upstream)?,
            context: evidence.to_context(),
            ..self.sums_held(package)?
        })
    }

    fn sums_held(&self, package: &Package) -> Result<Resource, Refusal> {
        let path = format!("{}/sums", version_path(package));
        Ok(Resource {
            delivery: Delivery::Whole { limit: SUMS_MAX_LEN },
            accept: None,
            media_type: MediaType::Fixed("text/plain"),
            ..self.document(kind::SUMS, &path, Freshness::Immutable)?
        })
    }

    /// Content under a name that people know. That a version never changes is the protocol's promise.
    fn content(&self, kind: &'static str, path: &str) -> Result<Resource, Refusal> {
        let key = self.key(Area::Refs, path)?;
        Ok(Resource::new(key, kind, nowhere(), Freshness::Immutable, Delivery::Streamed))
    }

    fn document(&self, kind: &'static str, path: &str, freshness: Freshness) -> Result<Resource, Refusal> {
        let key = self.key(Area::Cache, path)?;
        let delivery = Delivery::Whole { limit: DOCUMENT_MAX_LEN };
        Ok(Resource {
            accept: Some(JSON),
            media_type: MediaType::Fixed(JSON),
            ..Resource::new(key, kind, nowhere(), freshness, delivery)
        })
    }

    fn key(&self, area: Area, path: &str) -> Result<RefKey, Refusal> {
        let path = path.parse().map_err(|_| Refusal::Invalid { what: Part::Path, why: "it is too long" })?;
        Ok(RefKey { proxy: self.proxy.id.clone(), area, path })
    }

    fn list_freshness(&self) -> Freshness {
        Freshness::For(self.proxy.ttl.unwrap_or(LIST_TTL))
    }

    /// That of a document that hardly ever changes: the proxy's `ttl` only if it is shorter.
    fn freshness(&self, most: Duration) -> Freshness {
        Freshness::For(self.proxy.ttl.map_or(most, |ttl| ttl.min(most)))
    }
}

/// The signature that belongs to sums.
///
/// # Errors
/// [`Refusal::Internal`] if the sums have no path that one could be beside.
pub(super) fn signature_of(sums: &Resource, evidence: &Evidence) -> Result<Resource, Refusal> {
    let path = format!("{}.sig", sums.key.path).parse().map_err(|_| Refusal::Internal)?;
    let place = evidence.signature.clone();
    Ok(Resource {
        key: RefKey { path, ..sums.key.clone() },
        kind: kind::SIGNATURE,
        source: if place.starts_with('/') { Source::Path(place) } else { Source::Url(place) },
        media_type: MediaType::Fixed("application/octet-stream"),
        context: Bytes::new(),
        ..sums.clone()
    })
}

/// What has to come along with sums.
///
/// # Errors
/// [`Refusal::Internal`] if they do not carry what they should.
pub(super) fn companions(sums: &Resource) -> Result<Vec<Companion>, Refusal> {
    let resource = signature_of(sums, &Evidence::of(sums)?)?;
    Ok(vec![Companion { resource, only_if: None, optional: true }])
}

/// Where the verdict on the signature of sums is written.
///
/// # Errors
/// [`Refusal::Internal`] if the sums have no path that it could be beside.
pub(super) fn verdict_path(sums: &RefPath) -> Result<RefPath, Refusal> {
    let version = sums.as_str().rsplit_once('/').map_or("", |(version, _)| version);
    format!("{version}/signature").parse().map_err(|_| Refusal::Internal)
}

/// The keys under which a package's zip, or a module's archive, may be known: `what` is
/// `<namespace>/<name>` or `<namespace>/<name>/<system>`, a provider's platform one of the usual ones.
pub(super) fn keys(proxy: &ProxyFacts, what: &str, version: &str) -> Vec<RefKey> {
    let parts: Vec<&str> = what.split('/').collect();
    let paths: Vec<String> = match parts.as_slice() {
        _ if !parts.iter().all(|part| is_part(part)) || !super::grammar::is_version(version) => Vec::new(),
        [_, _] => {
            USUAL_PLATFORMS.iter().map(|platform| format!("providers/{what}/{platform}/{version}")).collect()
        }
        [_, _, _] => vec![format!("modules/{what}/{version}")],
        _ => Vec::new(),
    };
    let key =
        |path: String| Some(RefKey { proxy: proxy.id.clone(), area: Area::Refs, path: path.parse().ok()? });
    paths.into_iter().filter_map(key).collect()
}

/// The platforms that most packages are for, the likeliest first.
pub(super) const USUAL_PLATFORMS: [&str; 6] =
    ["linux_amd64", "linux_arm64", "darwin_arm64", "darwin_amd64", "windows_amd64", "linux_arm"];

/// A resource of which it is not known yet where it is; no request is ever sent there.
const fn nowhere() -> Source {
    Source::Path(String::new())
}

fn version_path(package: &Package) -> String {
    let Provider { namespace, name } = &package.provider;
    format!("providers/{namespace}/{name}/{}", package.version)
}

fn download_below(provider: &Provider, version: &str, package: &Package) -> String {
    let (Provider { namespace, name }, platform) = (provider, &package.platform);
    format!("{namespace}/{name}/{version}/download/{}/{}", platform.os, platform.arch)
}

fn module_below(module: &Module) -> String {
    format!("{}/{}/{}", module.namespace, module.name, module.system)
}

/// The provider or module that a ref's path belongs to; empty for a path that no request leads to.
pub(super) fn scope(path: &RefPath) -> &str {
    let text = path.as_str();
    let parts = match text.split('/').next() {
        Some("providers") => 3,
        Some("modules") => 4,
        _ => return "",
    };
    let end = text.match_indices('/').nth(parts - 1).map_or(text.len(), |(at, _)| at);
    let scope = &text[..end];
    let is_whole = scope.split('/').count() == parts && scope.split('/').skip(1).all(is_part);
    if is_whole { scope } else { "" }
}
