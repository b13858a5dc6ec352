//! Names of types and proxies, and the few facts about proxies that routing needs.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use url::Url;

use super::HttpRules;

/// One kind of repository; each has a directory of its own below `type/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ArtifactType {
    /// Container images and other OCI artifacts.
    Container,
    /// Terraform and OpenTofu providers and modules.
    Tf,
    /// Debian packages.
    Debian,
    /// Plain files over HTTP.
    Generic,
}

impl ArtifactType {
    /// Every type there is, in the order of the layout.
    pub const ALL: [Self; 4] = [Self::Container, Self::Tf, Self::Debian, Self::Generic];

    /// The name in paths, configuration and output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Tf => "tf",
            Self::Debian => "debian",
            Self::Generic => "generic",
        }
    }
}

impl fmt::Display for ArtifactType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for ArtifactType {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str() == text)
            .ok_or_else(|| NameError::Type(text.to_owned()))
    }
}

/// Why a string is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No such type.
    #[error("unknown type `{0}`, expected one of `container`, `tf`, `debian`, `generic`")]
    Type(String),
    /// Not a proxy name.
    #[error(
        "`{0}` is not a proxy name: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, starting with a letter or digit, not ending in a dot"
    )]
    Proxy(String),
}

/// The name of a proxy: a path component of the layout and of URLs.
///
/// 1 to 64 of `a-z 0-9 . _ -`, starting with a letter or digit, not ending in a dot. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProxyName(Arc<str>);

impl ProxyName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ProxyName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = (1..=64).contains(&text.len())
            && text.bytes().all(|byte| plain(byte) || b"._-".contains(&byte))
            && text.bytes().next().is_some_and(plain)
            && !text.ends_with('.');
        if valid { Ok(Self(text.into())) } else { Err(NameError::Proxy(text.to_owned())) }
    }
}

impl fmt::Display for ProxyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ProxyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A proxy among all: names are unique within a type only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProxyId {
    /// The type it belongs to.
    pub artifact_type: ArtifactType,
    /// Its name within the type.
    pub name: ProxyName,
}

/// Written `container/hub`.
impl fmt::Display for ProxyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.artifact_type, self.name)
    }
}

/// What a dialect must know of a configured proxy in order to route to it.
#[derive(Debug, Clone)]
pub struct ProxyFacts {
    /// Which proxy this is.
    pub id: ProxyId,
    /// Namespaces (registry host names as clients know them) that it answers for.
    pub namespaces: Vec<String>,
    /// Whether it takes requests that name no proxy.
    pub default: bool,
    /// How long a mutable name is used before upstream is asked again; the dialect's own if absent.
    pub ttl: Option<Duration>,
    /// The first place where upstream is, against which addresses in its documents are resolved; absent
    /// for a proxy that is not configured.
    pub upstream: Option<Url>,
    /// Whether content is accepted that upstream names no signing key for.
    pub unsigned: bool,
    /// Whether small parts of a document are fetched along with those that they follow.
    pub read_ahead: bool,
    /// How plain HTTP is cached, where that is what the proxy is for.
    pub http: Option<Arc<HttpRules>>,
    /// The `OpenPGP` keys, binary or armored, one of which must have signed what it serves, for types
    /// that have signatures; nothing is verified if absent.
    pub keyring: Option<Bytes>,
}

impl ProxyFacts {
    /// A proxy of which nothing is configured.
    pub const fn new(id: ProxyId) -> Self {
        Self {
            id,
            namespaces: Vec::new(),
            default: false,
            ttl: None,
            upstream: None,
            unsigned: false,
            read_ahead: false,
            http: None,
            keyring: None,
        }
    }
}

/// All configured proxies, for routing. Built once from a checked configuration.
#[derive(Debug, Clone, Default)]
pub struct ProxyTable(Vec<ProxyFacts>);

impl ProxyTable {
    /// A table of these proxies; the first of a name wins.
    pub const fn new(proxies: Vec<ProxyFacts>) -> Self {
        Self(proxies)
    }

    /// Every proxy, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &ProxyFacts> {
        self.0.iter()
    }

    /// The proxy of this type and name.
    pub fn named(&self, artifact_type: ArtifactType, name: &str) -> Option<&ProxyFacts> {
        self.of(artifact_type).find(|proxy| proxy.id.name.as_str() == name)
    }

    /// The proxy of this type that answers for a namespace (compared without case, as host names are).
    pub fn serving(&self, artifact_type: ArtifactType, namespace: &str) -> Option<&ProxyFacts> {
        self.of(artifact_type)
            .find(|proxy| proxy.namespaces.iter().any(|own| own.eq_ignore_ascii_case(namespace)))
    }

    /// The proxy of this type that takes requests which name none.
    pub fn default_of(&self, artifact_type: ArtifactType) -> Option<&ProxyFacts> {
        self.of(artifact_type).find(|proxy| proxy.default)
    }

    fn of(&self, artifact_type: ArtifactType) -> impl Iterator<Item = &ProxyFacts> {
        self.0.iter().filter(move |proxy| proxy.id.artifact_type == artifact_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_names_are_safe_path_components() {
        for good in ["hub", "a", "0", "registry.k8s.io", "my_proxy-2"] {
            assert_eq!(good.parse::<ProxyName>().expect(good).as_str(), good);
        }
        for bad in ["", ".", "..", ".a", "-a", "_a", "Hub", "a/b", "a b", "a%2f", "a.", "ä", &"a".repeat(65)]
        {
            assert!(bad.parse::<ProxyName>().is_err(), "{bad}");
        }
    }
}
