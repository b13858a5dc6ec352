//! From a request head to what is wanted; the configuration is not known here.

use super::grammar::{Platform, is_part, is_version, segments};
use super::source::ARCHIVES;
use crate::protocol::{Head, Part, Refusal};

/// A request taken apart, before the configuration is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// Which registry is meant.
    pub(super) mount: Mount,
    /// What of it.
    pub(super) wanted: Wanted,
}

/// How a request names its registry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mount {
    /// Not at all: service discovery of this server itself.
    Root,
    /// `/tf/<proxy>/`
    Proxy(String),
    /// `/tf/<proxy>/mirror/<hostname>/`: the host name decides.
    Mirror {
        /// The proxy in whose name the mirror is; any.
        proxy: String,
        /// The registry's host as clients know it, perhaps with a port.
        hostname: String,
    },
}

/// The things there are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Service discovery: `.well-known/terraform.json`
    Services,
    /// `…/versions` of a provider
    Versions(Provider),
    /// `…/<version>/download/<os>/<arch>`
    Download(Package),
    /// A package's zip, in either protocol.
    Zip(Package),
    /// The sums of all packages of a version.
    Sums(Package),
    /// The signature of those.
    Signature(Package),
    /// The mirror's `index.json`
    Index(Provider),
    /// The mirror's `<version>.json`
    Archives(Provider, String),
    /// `…/versions` of a module
    ModuleVersions(Module),
    /// `…/<version>/download` of a module
    ModuleDownload(Module, String),
    /// A module's archive by this file name.
    ModuleArchive(Module, String, String),
}

/// A provider of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Provider {
    /// Who published it.
    pub(super) namespace: String,
    /// What it is called (Terraform says type).
    pub(super) name: String,
}

/// A provider's package: one version for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// Whose.
    pub(super) provider: Provider,
    /// Without a `v`.
    pub(super) version: String,
    /// For what.
    pub(super) platform: Platform,
}

/// A module of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Who published it.
    pub(super) namespace: String,
    /// What it is called.
    pub(super) name: String,
    /// What it is for, such as `aws`.
    pub(super) system: String,
}

impl Request {
    /// Reads the path. No request of these protocols has parameters: a query is not looked at.
    ///
    /// # Errors
    /// [`Refusal::NoEndpoint`] or [`Refusal::Invalid`].
    pub(super) fn parse(head: &Head<'_>) -> Result<Self, Refusal> {
        let segments = segments(head.path)?;
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let proxy = |proxy: &str| Mount::Proxy(proxy.to_owned());
        let (mount, wanted) = match segments.as_slice() {
            [".well-known", "terraform.json"] => (Mount::Root, Wanted::Services),
            ["tf", name, ".well-known", "terraform.json"] => (proxy(name), Wanted::Services),
            ["tf", name, "v1", "providers", rest @ ..] => (proxy(name), Wanted::of_provider(rest)?),
            ["tf", name, "v1", "modules", rest @ ..] => (proxy(name), Wanted::of_module(rest)?),
            ["tf", name, "mirror", hostname, namespace, provider, file] => {
                let mount = Mount::Mirror { proxy: (*name).to_owned(), hostname: (*hostname).to_owned() };
                (mount, Wanted::of_mirror(Provider::new(namespace, provider)?, file)?)
            }
            _ => return Err(Refusal::NoEndpoint),
        };
        Ok(Self { mount, wanted })
    }
}

impl Wanted {
    fn of_provider(segments: &[&str]) -> Result<Self, Refusal> {
        let [namespace, name, rest @ ..] = segments else { return Err(Refusal::NoEndpoint) };
        let provider = Provider::new(namespace, name)?;
        match rest {
            ["versions"] => Ok(Self::Versions(provider)),
            [version, "download", os, arch] => Package::new(provider, version, os, arch).map(Self::Download),
            [version, "download", os, arch, file] => {
                let package = Package::new(provider, version, os, arch)?;
                match *file {
                    file if file == package.zip() => Ok(Self::Zip(package)),
                    file if file == package.sums() => Ok(Self::Sums(package)),
                    file if file == package.signature() => Ok(Self::Signature(package)),
                    _ => Err(Refusal::NoEndpoint),
                }
            }
            _ => Err(Refusal::NoEndpoint),
        }
    }

    fn of_module(segments: &[&str]) -> Result<Self, Refusal> {
        let [namespace, name, system, rest @ ..] = segments else { return Err(Refusal::NoEndpoint) };
        let module = Module::new(namespace, name, system)?;
        match rest {
            ["versions"] => Ok(Self::ModuleVersions(module)),
            [version, "download"] => Ok(Self::ModuleDownload(module, checked(version)?)),
            [version, file] if file.strip_prefix("archive.").is_some_and(|form| ARCHIVES.contains(&form)) => {
                Ok(Self::ModuleArchive(module, checked(version)?, (*file).to_owned()))
            }
            _ => Err(Refusal::NoEndpoint),
        }
    }

    fn of_mirror(provider: Provider, file: &str) -> Result<Self, Refusal> {
        if file == "index.json" {
            return Ok(Self::Index(provider));
        }
        if let Some(version) = file.strip_suffix(".json") {
            return Ok(Self::Archives(provider, checked(version)?));
        }
        let stem = format!("terraform-provider-{}_", provider.name);
        let package = file.strip_prefix(&stem).and_then(|rest| rest.strip_suffix(".zip"));
        let mut parts = package.ok_or(Refusal::NoEndpoint)?.rsplitn(3, '_');
        let [Some(arch), Some(os), Some(version)] = std::array::from_fn(|_| parts.next()) else {
            return Err(Refusal::NoEndpoint);
        };
        Package::new(provider, version, os, arch).map(Self::Zip)
    }
}

impl Provider {
    pub(super) fn new(namespace: &str, name: &str) -> Result<Self, Refusal> {
        let [namespace, name] = parts([namespace, name])?;
        Ok(Self { namespace, name })
    }
}

impl Module {
    pub(super) fn new(namespace: &str, name: &str, system: &str) -> Result<Self, Refusal> {
        let [namespace, name, system] = parts([namespace, name, system])?;
        Ok(Self { namespace, name, system })
    }
}

impl Package {
    pub(super) fn new(provider: Provider, version: &str, os: &str, arch: &str) -> Result<Self, Refusal> {
        let why = "a platform is an operating system and an architecture, lower-case letters and digits";
        let platform = Platform::new(os, arch).ok_or(Refusal::Invalid { what: Part::Name, why })?;
        Ok(Self { provider, version: checked(version)?, platform })
    }

    /// The file name of its zip here, which is also what most registries call it.
    pub(super) fn zip(&self) -> String {
        format!("{}_{}.zip", self.stem(), self.platform)
    }

    /// The file name of the sums of its version.
    pub(super) fn sums(&self) -> String {
        format!("{}_SHA256SUMS", self.stem())
    }

    /// The file name of their signature.
    pub(super) fn signature(&self) -> String {
        format!("{}.sig", self.sums())
    }

    fn stem(&self) -> String {
        format!("terraform-provider-{}_{}", self.provider.name, self.version)
    }
}

fn parts<const N: usize>(parts: [&str; N]) -> Result<[String; N], Refusal> {
    if parts.iter().all(|part| is_part(part)) {
        return Ok(parts.map(str::to_owned));
    }
    let why = "names are 1 to 64 letters, digits, `-` and `_`, beginning and ending with one of the former";
    Err(Refusal::Invalid { what: Part::Name, why })
}

fn checked(version: &str) -> Result<String, Refusal> {
    if is_version(version) {
        return Ok(version.to_owned());
    }
    let why = "a version begins with a digit (no `v`) and is at most 128 letters, digits, `.`, `-` and `+`";
    Err(Refusal::Invalid { what: Part::Reference, why })
}
