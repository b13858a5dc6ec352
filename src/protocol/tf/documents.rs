//! What registries answer: the fields that are needed here. Everything else in a document is none of
//! our business and passes through as it is.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use url::Url;

use super::grammar::{Platform, is_version};
use super::request::Package;
use super::resource::JSON;
use crate::model::{Digest, Source};
use crate::protocol::{Document, Refusal};

/// A service of a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    /// Providers.
    Providers,
    /// Modules.
    Modules,
}

impl Service {
    /// Its name in service discovery.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Providers => "providers.v1",
            Self::Modules => "modules.v1",
        }
    }

    /// Where it is if upstream has no service discovery, and where it is here, below a proxy.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Providers => "/v1/providers/",
            Self::Modules => "/v1/modules/",
        }
    }

    /// Where a discovery document says it is; `None` if the host has no such service.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] if it is not a discovery document.
    pub(super) fn find(self, document: &[u8]) -> Result<Option<String>, Refusal> {
        let mut services: BTreeMap<String, serde_json::Value> =
            read(document, "it is not service discovery")?;
        match services.remove(self.name()) {
            Some(serde_json::Value::String(place)) if place.ends_with('/') => Ok(Some(place)),
            Some(serde_json::Value::String(place)) => Ok(Some(place + "/")),
            _ => Ok(None),
        }
    }
}

/// A version of a provider in the list of them.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Listed {
    /// The version.
    pub(super) version: String,
    /// What there are packages for; empty if the list does not say.
    pub(super) platforms: Vec<Platform>,
}

/// The versions of a provider, without those that no client could ask for.
///
/// # Errors
/// [`Refusal::BadUpstream`] if it is not a list of versions.
pub(super) fn versions(document: &[u8]) -> Result<Vec<Listed>, Refusal> {
    #[derive(Deserialize)]
    struct Versions {
        // Go writes an empty list as `null`; but it is there.
        #[serde(deserialize_with = "Option::deserialize")]
        versions: Option<Vec<Version>>,
    }
    #[derive(Deserialize)]
    struct Version {
        version: String,
        platforms: Option<Vec<Words>>,
    }
    #[derive(Deserialize)]
    struct Words {
        os: String,
        arch: String,
    }
    let versions: Versions = read(document, "it is not a list of versions")?;
    let versions = versions.versions.unwrap_or_default();
    let platform = |words: Words| Platform::new(&words.os, &words.arch);
    let listed = |Version { version, platforms }| Listed {
        version,
        platforms: platforms.unwrap_or_default().into_iter().filter_map(platform).collect(),
    };
    Ok(versions.into_iter().filter(|version| is_version(&version.version)).map(listed).collect())
}

/// Checks that this is a list of a module's versions.
///
/// # Errors
/// [`Refusal::BadUpstream`] if not.
pub(super) fn check_modules(document: &[u8]) -> Result<(), Refusal> {
    #[derive(Deserialize)]
    struct Modules {
        #[serde(rename = "modules")]
        _modules: Vec<serde::de::IgnoredAny>,
    }
    read::<Modules>(document, "it is not a list of a module's versions").map(drop)
}

/// What a package's download document says.
#[derive(Debug)]
pub(super) struct Download {
    /// Where the zip is.
    pub(super) zip: Url,
    /// Where the sums of its version are.
    pub(super) sums: Url,
    /// Where their signature is.
    pub(super) signature: Url,
    /// What the zip is called in the sums.
    pub(super) filename: String,
    /// The sha256 of the zip.
    pub(super) shasum: Digest,
    /// The keys one of which has signed the sums, in their ASCII form.
    pub(super) keys: Vec<String>,
    /// Further hashes by platform, such as `h1:…` (OpenTofu).
    pub(super) hashes: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct DownloadWire {
    download_url: String,
    shasums_url: String,
    shasums_signature_url: String,
    shasum: String,
    filename: String,
    signing_keys: Option<KeysWire>,
    packages: Option<BTreeMap<String, PackageWire>>,
}

#[derive(Deserialize)]
struct KeysWire {
    gpg_public_keys: Option<Vec<KeyWire>>,
}

#[derive(Deserialize)]
struct KeyWire {
    ascii_armor: String,
}

#[derive(Deserialize)]
struct PackageWire {
    hashes: Option<Vec<String>>,
}

impl Download {
    /// Reads the document that is at `at`.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] if something is missing or is not what it should be.
    pub(super) fn read(document: &[u8], at: &Url) -> Result<Self, Refusal> {
        let wire: DownloadWire = read(document, "it is not a package's download document")?;
        let place =
            |text: &str| at.join(text).map_err(|_| Refusal::BadUpstream("it names an address that is none"));
        let keys = wire.signing_keys.and_then(|keys| keys.gpg_public_keys).unwrap_or_default();
        let packages = wire.packages.unwrap_or_default().into_iter();
        Ok(Self {
            zip: place(&wire.download_url)?,
            sums: place(&wire.shasums_url)?,
            signature: place(&wire.shasums_signature_url)?,
            filename: wire.filename,
            shasum: Digest::from_hex(&wire.shasum.to_ascii_lowercase())
                .map_err(|_| Refusal::BadUpstream("its `shasum` is not a sha256"))?,
            keys: keys.into_iter().map(|key| key.ascii_armor).collect(),
            hashes: packages.map(|(platform, of)| (platform, of.hashes.unwrap_or_default())).collect(),
        })
    }

    /// The document with our own addresses in it, relative to its own; nothing else is touched.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] if it is not a download document.
    pub(super) fn rewrite(document: &[u8], package: &Package) -> Result<Document, Refusal> {
        let mut fields: BTreeMap<String, Box<RawValue>> =
            read(document, "it is not a package's download document")?;
        let arch = &package.platform.arch;
        for (field, file) in [
            ("download_url", package.zip()),
            ("shasums_url", package.sums()),
            ("shasums_signature_url", package.signature()),
        ] {
            let place = serde_json::value::to_raw_value(&format!("{arch}/{file}"));
            fields.insert(field.to_owned(), place.map_err(|_| Refusal::Internal)?);
        }
        let body = serde_json::to_vec(&fields).map_err(|_| Refusal::Internal)?;
        Ok(Document { media_type: JSON, headers: Vec::new(), body: Bytes::from(body) })
    }
}

/// The sums of a version's packages, by file name.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sums(BTreeMap<String, Digest>);

impl Sums {
    /// Reads what `sha256sum` writes.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] if a line has another form, or there is none.
    pub(super) fn read(document: &[u8]) -> Result<Self, Refusal> {
        const BAD: Refusal = Refusal::BadUpstream("it is not a list of sums");
        let text = std::str::from_utf8(document).map_err(|_| BAD)?;
        let mut sums = BTreeMap::new();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
            let (sum, name) = line.split_once(' ').ok_or(BAD)?;
            // Two spaces, or one and a star for binary mode.
            let name = name.strip_prefix([' ', '*']).unwrap_or(name);
            let sum = Digest::from_hex(&sum.to_ascii_lowercase()).map_err(|_| BAD)?;
            if sums.insert(name.to_owned(), sum).is_some_and(|other| other != sum) {
                return Err(BAD);
            }
        }
        if sums.is_empty() { Err(BAD) } else { Ok(Self(sums)) }
    }

    /// The sum of a file.
    pub(super) fn of(&self, filename: &str) -> Option<Digest> {
        self.0.get(filename).copied()
    }

    /// The sums of all packages that are called like `filename`, which is one for `platform`.
    pub(super) fn packages(&self, filename: &str, platform: &Platform) -> Vec<(Platform, Digest)> {
        let Some(stem) = filename.strip_suffix(&format!("_{platform}.zip")) else {
            return self.of(filename).map(|sum| (platform.clone(), sum)).into_iter().collect();
        };
        let of = |name: &str| {
            let rest = name.strip_prefix(stem)?.strip_prefix('_')?.strip_suffix(".zip")?;
            Platform::parse(rest)
        };
        self.0.iter().filter_map(|(name, sum)| Some((of(name)?, *sum))).collect()
    }
}

/// What a module's download document says in its body: the source, if it is there at all.
///
/// # Errors
/// [`Refusal::BadUpstream`] if the body is neither empty nor such a document.
pub(super) fn module_location(document: &[u8]) -> Result<Option<String>, Refusal> {
    #[derive(Deserialize)]
    struct Location {
        location: Option<String>,
    }
    if document.trim_ascii().is_empty() {
        return Ok(None);
    }
    read::<Location>(document, "it does not say where the module is").map(|document| document.location)
}

/// Where upstream has something, as the engine wants it: below the proxy's own upstream, so that its
/// other places and its credentials count, or anywhere.
///
/// # Errors
/// [`Refusal::BadUpstream`] for anything but http(s).
pub(super) fn source(mut url: Url, upstream: &Url) -> Result<Source, Refusal> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Refusal::BadUpstream("it names an address that is not http(s)"));
    }
    url.set_fragment(None);
    let below = url.path().strip_prefix(upstream.path().trim_end_matches('/'));
    match below.filter(|below| url.origin() == upstream.origin() && below.starts_with('/')) {
        Some(path) => {
            let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
            Ok(Source::Path(format!("{path}{query}")))
        }
        None => Ok(Source::Url(url.into())),
    }
}

/// Reads a JSON object. Left to itself, serde takes an array for a struct too.
fn read<'d, T: Deserialize<'d>>(document: &'d [u8], what: &'static str) -> Result<T, Refusal> {
    let is_object = document.trim_ascii_start().starts_with(b"{");
    let read = is_object.then(|| serde_json::from_slice(document).ok()).flatten();
    read.ok_or(Refusal::BadUpstream(what))
}
