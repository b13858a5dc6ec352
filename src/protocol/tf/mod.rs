//! Terraform's and OpenTofu's registries: the provider registry protocol, the module registry
//! protocol, service discovery, and the provider network mirror protocol on top of the first.
//!
//! A request is taken apart (`request`, by `grammar`), matched with the configuration and made a
//! resource (`resource`) with the help of what upstream's own documents say (`documents`, `source`);
//! the mirror's documents are composed (`mirror`); `refuse` words refusals.
//!
//! Nothing here knows network, disk, clock or server. What is under `refs` was vouched for by the
//! download document and by sums that one of its keys has signed, before a byte of it was stored.
//! Addresses in documents are always relative to the document, so that scheme, host and port by which
//! a client reaches this server play no part.

mod documents;
mod grammar;
mod hashes;
mod mirror;
mod refuse;
mod request;
mod resource;
mod source;
#[cfg(test)]
mod tests;

use std::io;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Map, Value, json};

use self::documents::{Download, Service, Sums};
use self::request::{Mount, Request, Wanted};
use self::resource::{Evidence, JSON, Registry, kind};
use super::{
    Companion, Content, Derive, Document, Fetch, Gathered, Head, Inquiry, Protocol, Refusal, Reply, Route,
    Unrouted,
};
use crate::model::{
    ArtifactType, Claim, Descriptor, Digest, ProxyFacts, ProxyTable, Ref, RefKey, RefPath, RefRules, Resource,
};

const TERRAFORM_GET: HeaderName = HeaderName::from_static(resource::TERRAFORM_GET);

/// The dialect of Terraform's and OpenTofu's registries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tf;

impl Tf {
    /// The refs that an operator may mean by `<namespace>/<name>` (a provider, for one of the usual
    /// platforms) or `<namespace>/<name>/<system>` (a module) and a version.
    pub fn named(proxy: &ProxyFacts, what: &str, version: &str) -> Vec<RefKey> {
        resource::keys(proxy, what, version)
    }
}

impl RefRules for Tf {
    fn scope<'p>(&self, path: &'p RefPath) -> &'p str {
        resource::scope(path)
    }

    /// Nothing links anything: each thing has a ref of its own.
    fn links(&self, _: &str, _: Option<&str>, _: &[u8]) -> Option<Vec<Claim>> {
        Some(Vec::new())
    }

    fn is_document(&self, _: &str) -> bool {
        false
    }
}

impl Protocol for Tf {
    fn artifact_type(&self) -> ArtifactType {
        ArtifactType::Tf
    }

    fn owns(&self, head: &Head<'_>, _: &ProxyTable) -> bool {
        let below = head.path.strip_prefix("/tf");
        head.authority.is_none()
            && (below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
                || head.path == "/.well-known/terraform.json")
    }

    fn route(&self, head: &Head<'_>, proxies: &ProxyTable, gathered: &Gathered) -> Result<Route, Unrouted> {
        if !matches!(*head.method, Method::GET | Method::HEAD) {
            return Err(Refusal::ReadOnly.into());
        }
        let request = Request::parse(head)?;
        let registry = Registry::find(&request, proxies)?;
        let sought = match &request.wanted {
            Wanted::Services => return Ok(Route::Local(services(&request, &registry))),
            Wanted::Index(provider) => {
                return mirror::index(&registry, provider, gathered).map(Route::Made);
            }
            Wanted::Archives(provider, version) => {
                return mirror::archives(&registry, provider, version, gathered).map(Route::Made);
            }
            Wanted::ModuleDownload(module, version) => {
                let source = registry.module_source(module, version, gathered)?;
                return Ok(Route::Local(module_at(&source.shown())?));
            }
            Wanted::Download(package) => return Ok(registry.download(package, gathered)?.route(true)),
            Wanted::Versions(provider) => registry.versions(provider, gathered)?,
            Wanted::Zip(package) => registry.zip(package, gathered)?,
            Wanted::Sums(package) => registry.sums(package, gathered)?,
            Wanted::Signature(package) => registry.signature(package, gathered)?,
            Wanted::ModuleVersions(module) => registry.module_versions(module, gathered)?,
            Wanted::ModuleArchive(module, version, file) => {
                registry.archive(module, version, file, gathered)?
            }
        };
        Ok(sought.route(false))
    }

    fn companions(&self, resource: &Resource, _: Option<&[u8]>, _: &[u8]) -> Result<Vec<Companion>, Refusal> {
        if resource.kind == kind::SUMS { resource::companions(resource) } else { Ok(Vec::new()) }
    }

    /// Whatever cannot be read, or proves nothing, is not stored: an error page or a captive portal
    /// must not take a document's place.
    fn vet(
        &self,
        resource: &Resource,
        document: &[u8],
        companions: &Gathered,
    ) -> Result<Vec<Descriptor>, Refusal> {
        match resource.kind {
            kind::SERVICES => Service::Providers.find(document).map(drop)?,
            kind::VERSIONS => documents::versions(document).map(drop)?,
            kind::DOWNLOAD => {
                // Where relative addresses would lead does not matter here.
                let at = "https://upstream.invalid/".parse().map_err(|_| Refusal::Internal)?;
                Download::read(document, &at).map(drop)?;
            }
            kind::MODULE_VERSIONS => documents::check_modules(document)?,
            kind::MODULE_DOWNLOAD => documents::module_location(document).map(drop)?,
            kind::SUMS => return judge_sums(resource, document, companions),
            kind::SIGNATURE => {
                let evidence = Evidence::of(resource)?;
                let sums = evidence.sums.as_deref().ok_or(Refusal::Internal)?;
                judge(resource, &evidence, sums.as_bytes(), document).map(drop)?;
            }
            _ => {}
        }
        Ok(Vec::new())
    }

    fn examine(&self, _: &Inquiry, content: &mut dyn Content) -> io::Result<Map<String, Value>> {
        Ok(hashes::h1(content)?.map(|hash| (mirror::H1.to_owned(), Value::from(hash))).into_iter().collect())
    }

    fn rewrite(&self, head: &Head<'_>, _: &Ref, document: &[u8]) -> Result<Document, Refusal> {
        match Request::parse(head)?.wanted {
            Wanted::Download(package) => Download::rewrite(document, &package),
            _ => Err(Refusal::Internal),
        }
    }

    /// No request of this protocol is derived.
    fn derive(&self, _: &Head<'_>, _: &Derive, _: &[String]) -> Result<Document, Refusal> {
        Err(Refusal::Internal)
    }

    fn headers(&self, _: &Head<'_>, _: &Fetch, _: &Ref) -> Vec<(HeaderName, HeaderValue)> {
        Vec::new()
    }

    fn refuse(&self, _: &Head<'_>, refusal: &Refusal) -> Reply {
        refuse::reply(refusal)
    }
}

/// Service discovery of this server: relative to the document itself, as clients resolve it.
fn services(request: &Request, registry: &Registry<'_>) -> Reply {
    let base = match request.mount {
        Mount::Root => format!("../tf/{}", registry.name()),
        Mount::Proxy(_) | Mount::Mirror { .. } => "..".to_owned(),
    };
    let services: Map<String, Value> = [Service::Providers, Service::Modules]
        .into_iter()
        .map(|service| (service.name().to_owned(), json!(format!("{base}{}", service.path()))))
        .collect();
    Reply {
        status: StatusCode::OK,
        headers: vec![(CONTENT_TYPE, HeaderValue::from_static(JSON))],
        body: Bytes::from(Value::Object(services).to_string()),
    }
}

/// Where a module is. Always 204 with the header: Terraform does not understand a body, and OpenTofu
/// understands this too.
fn module_at(source: &str) -> Result<Reply, Refusal> {
    let source = HeaderValue::try_from(source)
        .map_err(|_| Refusal::BadUpstream("the module's source is not an address"))?;
    Ok(Reply { status: StatusCode::NO_CONTENT, headers: vec![(TERRAFORM_GET, source)], body: Bytes::new() })
}

/// Judges sums by the signature that came with them, and writes down the verdict.
fn judge_sums(resource: &Resource, sums: &[u8], companions: &Gathered) -> Result<Vec<Descriptor>, Refusal> {
    Sums::read(sums)?;
    let evidence = Evidence::of(resource)?;
    let signature = resource::signature_of(resource, &evidence)?.key;
    let signature =
        companions.documents().find(|(key, _)| **key == signature).map(|(_, gotten)| &gotten.body);
    let facts = match signature {
        Some(signature) => judge(resource, &evidence, sums, signature)?,
        None if evidence.keys.is_empty() => unsigned(),
        None => return Err(missing(resource, &evidence)),
    };
    let path = resource::verdict_path(&resource.key.path)?;
    Ok(vec![Descriptor { path, kind: kind::VERDICT, facts }])
}

/// Judges a signature of sums; the result is what is to be remembered. Keys are absent only if the
/// operator has said that this does not matter.
fn judge(
    resource: &Resource,
    evidence: &Evidence,
    sums: &[u8],
    signature: &[u8],
) -> Result<Map<String, Value>, Refusal> {
    if evidence.keys.is_empty() {
        return Ok(unsigned());
    }
    let signer = evidence
        .keyring()
        .and_then(|keyring| keyring.verify_detached(signature, sums))
        .map_err(|error| Refusal::Untrusted { why: format!("{}: {error}", resource.key.path) })?;
    Ok(facts(&[
        ("verdict", "valid".to_owned()),
        ("keyId", signer.key),
        ("keyFingerprint", signer.fingerprint),
        ("signatureDigest", Digest::of(signature).to_string()),
    ]))
}

/// The verdict on sums that nobody could have signed.
fn unsigned() -> Map<String, Value> {
    facts(&[("verdict", "unsigned".to_owned())])
}

fn facts(facts: &[(&str, String)]) -> Map<String, Value> {
    facts.iter().map(|(name, value)| ((*name).to_owned(), Value::from(value.clone()))).collect()
}

/// What is said of sums whose signature upstream has not got.
fn missing(resource: &Resource, evidence: &Evidence) -> Refusal {
    let keys = evidence.keyring().map(|keyring| keyring.ids().join(", "));
    let keys = keys.unwrap_or_else(|_| "that cannot be read".to_owned());
    let path = &resource.key.path;
    Refusal::Untrusted {
        why: format!("{path}: there is no signature; it should be by one of the keys {keys}"),
    }
}
