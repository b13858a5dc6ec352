//! The proxies of a configuration: those of the file, those that are built in, those of the
//! environment; and that they do not claim the same things.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::debian;
use super::error::{ConfigError, Problem};
use super::reader::{Reader, Section, Set, Text};
use super::values::{self, Secret};
use super::{Origin, generic};
use crate::model::{ArtifactType, HttpRules, ProxyFacts, ProxyId, ProxyName};

/// The types that this version serves.
const SUPPORTED: [ArtifactType; 4] = ArtifactType::ALL;

/// The public registries that everybody uses, so that nothing has to be configured.
///
/// A proxy's name in front of a repository wins over an organisation of that name on Docker Hub;
/// hence `gitlab-com`, because `gitlab` is one there and much used.
const PRESETS: &str = r#"
[[proxy]]
type = "container"
name = "hub"
upstream = "https://registry-1.docker.io"
ns = "docker.io"
default = true
[[proxy]]
type = "container"
name = "ghcr"
upstream = "https://ghcr.io"
ns = "ghcr.io"
[[proxy]]
type = "container"
name = "quay"
upstream = "https://quay.io"
ns = "quay.io"
[[proxy]]
type = "container"
name = "k8s"
upstream = "https://registry.k8s.io"
ns = "registry.k8s.io"
[[proxy]]
type = "container"
name = "gcr"
upstream = "https://gcr.io"
ns = "gcr.io"
[[proxy]]
type = "container"
name = "mcr"
upstream = "https://mcr.microsoft.com"
ns = "mcr.microsoft.com"
[[proxy]]
type = "container"
name = "ecr-public"
upstream = "https://public.ecr.aws"
ns = "public.ecr.aws"
[[proxy]]
type = "container"
name = "gitlab-com"
upstream = "https://registry.gitlab.com"
ns = "registry.gitlab.com"
[[proxy]]
type = "tf"
name = "terraform"
upstream = "https://registry.terraform.io"
ns = "registry.terraform.io"
default = true
[[proxy]]
type = "tf"
name = "opentofu"
upstream = "https://registry.opentofu.org"
ns = "registry.opentofu.org"
unsigned = true
"#;

/// One proxy, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its type and name.
    pub id: ProxyId,
    /// Where upstream is; tried in order. At least one.
    pub upstreams: Vec<Url>,
    /// The registry hosts, or the archives, that it stands for.
    pub namespaces: Vec<String>,
    /// Whether it takes requests that name no proxy.
    pub default: bool,
    /// How long a mutable name is used before upstream is asked again; the dialect's own if absent.
    pub ttl: Option<Duration>,
    /// Whether content is accepted that upstream names no signing key for; only for `tf`.
    pub unsigned: bool,
    /// Whether small layers are fetched along with those that they follow; container registries only.
    pub read_ahead: bool,
    /// How it logs in at upstream; anonymously if absent.
    pub credentials: Option<Credentials>,
    /// Hosts, besides upstream's own, that may be contacted on upstream's word even at an internal
    /// address, and that a token may be asked of.
    pub allowed_hosts: Vec<String>,
    /// Certificate authorities to trust besides the system's.
    pub ca_files: Vec<PathBuf>,
    /// Limits towards upstream; those of the upstream client where absent.
    pub limits: Limits,
    /// How plain HTTP is cached, for proxies of that type.
    pub http: Option<Arc<HttpRules>>,
    /// A file of the keys that its documents must be signed with; Debian archives only.
    pub keyring: Option<PathBuf>,
}

impl Proxy {
    /// What routing needs of it, but for its keys.
    pub(super) fn outline(&self) -> ProxyFacts {
        ProxyFacts {
            id: self.id.clone(),
            namespaces: self.namespaces.clone(),
            default: self.default,
            ttl: self.ttl,
            upstream: self.upstreams.first().cloned(),
            unsigned: self.unsigned,
            read_ahead: self.read_ahead,
            http: self.http.clone(),
            keyring: None,
        }
    }
}

/// Limits towards an upstream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// How long connecting may take.
    pub connect_timeout: Option<Duration>,
    /// How long a transfer may stand still.
    pub idle_timeout: Option<Duration>,
    /// The most connections at a time.
    pub max_connections: Option<usize>,
    /// How often a request that failed is tried again.
    pub retries: Option<usize>,
    /// After how many failures in a row upstream is left alone for a while.
    pub breaker_after: Option<usize>,
}

/// How a proxy logs in at its upstream. A secret is as it was written, which may be only where it is,
/// until [`Supplies`](super::Supplies) has found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials<S = SecretFrom> {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: S,
    },
    /// A bearer token.
    Token(S),
    /// Whatever a Docker `config.json` says for upstream's host, credential helpers included; read
    /// when it is needed.
    DockerConfig(PathBuf),
}

impl Credentials {
    /// The key that holds or names the secret.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Password { password, .. } => password.key(["password", "password_env", "password_file"]),
            Self::Token(token) => token.key(["token", "token_env", "token_file"]),
            Self::DockerConfig(_) => "docker_config",
        }
    }

    /// Where the secret is; `None` if a Docker configuration has it.
    pub(super) const fn secret(&self) -> Option<&SecretFrom> {
        match self {
            Self::Password { password: secret, .. } | Self::Token(secret) => Some(secret),
            Self::DockerConfig(_) => None,
        }
    }
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretFrom {
    /// In the configuration itself.
    Inline(Secret),
    /// In an environment variable that the configuration names.
    Variable(String),
    /// In a file that the configuration names, without the line end.
    File(PathBuf),
}

impl SecretFrom {
    fn key(&self, [inline, variable, file]: [&'static str; 3]) -> &'static str {
        match self {
            Self::Inline(_) => inline,
            Self::Variable(_) => variable,
            Self::File(_) => file,
        }
    }
}

/// A proxy and where it was defined.
pub(super) type Defined = Set<Proxy>;

/// Reads all proxies, of which there may be none, and whether those that are built in are wanted.
pub(super) fn read(
    reader: &mut Reader<'_>,
    top: &mut Section<'_>,
) -> Result<(bool, Vec<Proxy>), ConfigError> {
    let mut defined: Vec<Defined> = Vec::new();
    for section in top.sections("proxy")? {
        let proxy = Entry { reader, section }.read(None)?;
        check(&defined, &proxy)?;
        defined.push(proxy);
    }
    let presets = reader.one(top, "presets", values::boolean)?.map_or(defined.is_empty(), |set| set.value);
    if presets {
        add_presets(reader, &mut defined)?;
    }
    add_from_environment(reader, &mut defined)?;
    Ok((presets, defined.into_iter().map(|proxy| proxy.value).collect()))
}

/// Adds the built-in proxies; what the operator defined or claimed comes first.
fn add_presets(reader: &mut Reader<'_>, defined: &mut Vec<Defined>) -> Result<(), ConfigError> {
    let text = Text { path: None, text: PRESETS.to_owned() };
    let document = text.parse()?;
    let own = defined.len();
    let types: Vec<_> =
        defined.iter().filter(|own| own.value.default).map(|own| own.value.id.artifact_type).collect();
    for section in Section::top(&text, document.get_ref()).sections("proxy")? {
        let mut preset = Entry { reader, section }.read(None)?;
        preset.value.default &= !types.contains(&preset.value.id.artifact_type);
        if check(&defined[..own], &preset).is_ok() {
            check(&defined[own..], &preset)?;
            defined.push(preset);
        }
    }
    Ok(())
}

/// Adds a proxy for each `REPOXY_PROXY_<NAME>_UPSTREAM` that none of those defined has taken.
fn add_from_environment(reader: &mut Reader<'_>, defined: &mut Vec<Defined>) -> Result<(), ConfigError> {
    let text = Text { path: None, text: String::new() };
    for variable in reader.environment.names() {
        let name = variable.strip_prefix("REPOXY_PROXY_").and_then(|rest| rest.strip_suffix("_UPSTREAM"));
        let Some(name) = name.filter(|_| !reader.variables.contains(variable)) else { continue };
        let origin = Origin::Variable(variable.to_owned());
        let section = Section::new(&text, None, origin, "proxy", None);
        let name = name.to_ascii_lowercase().replace('_', "-");
        let proxy = Entry { reader, section }.read(Some(name))?;
        check(defined, &proxy)?;
        defined.push(proxy);
    }
    Ok(())
}

/// Checks that a proxy claims nothing that another has.
fn check(defined: &[Defined], proxy: &Defined) -> Result<(), ConfigError> {
    let Set { value: proxy, origin } = proxy;
    for other in defined {
        let at = match &other.origin {
            Origin::Default => "the other one is built in; `presets = false` leaves those out".to_owned(),
            at => format!("the other one is at {at}"),
        };
        let other = &other.value;
        if other.id == proxy.id {
            let message =
                format!("there are two `{}` proxies called `{}`", proxy.id.artifact_type, proxy.id.name);
            return Err(ConfigError::new(origin, message).hint(at));
        }
        if variable(&other.id.name) == variable(&proxy.id.name) {
            let variable = variable(&proxy.id.name);
            let message = format!("`{}` and `{}` share the variables `{variable}_…`", other.id, proxy.id);
            return Err(ConfigError::new(origin, message).hint(format!("give one another name; {at}")));
        }
        if other.id.artifact_type != proxy.id.artifact_type {
            continue;
        }
        if other.default && proxy.default {
            let message = format!("`{}` and `{}` are both `default`", other.id.name, proxy.id.name);
            return Err(ConfigError::new(origin, message)
                .hint("one proxy of a type can take the requests that name none"));
        }
        let claims = |proxy: &Proxy, name: &str| {
            proxy.id.name.as_str() == name || proxy.namespaces.iter().any(|own| own == name)
        };
        let name = proxy.id.name.as_str();
        let twice = proxy.namespaces.iter().map(String::as_str).chain([name]).find(|own| claims(other, own));
        if let Some(twice) = twice {
            let message = format!("`{}` and `{}` both answer for `{twice}`", other.id.name, proxy.id.name);
            return Err(ConfigError::new(origin, message).hint(at));
        }
    }
    Ok(())
}

/// One proxy while it is read.
struct Entry<'r, 't, 'e> {
    reader: &'r mut Reader<'e>,
    section: Section<'t>,
}

impl Entry<'_, '_, '_> {
    /// Reads it; `name` if it is not in the section.
    fn read(mut self, name: Option<String>) -> Result<Defined, ConfigError> {
        let origin = self.section.origin.clone();
        let name = self.name(name)?;
        if let Some(name) = &name {
            // From here on there are variables that override the file.
            self.section.key = format!("proxy.{name}");
            self.section.variable = Some(variable(name));
        }
        let artifact_type = self.one("type", artifact_type)?.unwrap_or(ArtifactType::Container);
        // Only where it means something: elsewhere it is an unknown key.
        let unsigned = match artifact_type {
            ArtifactType::Tf => self.one("unsigned", values::boolean)?.unwrap_or(false),
            _ => false,
        };
        let read_ahead = match artifact_type {
            ArtifactType::Container => self.one("read_ahead", values::boolean)?.unwrap_or(true),
            _ => false,
        };
        let upstreams = self.many("upstream", values::server_url)?;
        let is_debian = artifact_type == ArtifactType::Debian;
        let namespaces = if is_debian {
            debian::complete(self.many("ns", debian::archive)?, upstreams.first())
        } else {
            self.many("ns", values::host)?
        };
        let default = self.one("default", values::boolean)?.unwrap_or(false);
        let ttl = self.one("ttl", values::duration)?;
        let credentials = self.credentials()?;
        let allowed_hosts = self.many("allowed_hosts", values::host)?;
        let ca_files = self.ca_files()?;
        let limits = self.limits()?;
        let http = self.http(artifact_type)?;
        let keyring = if is_debian { self.reader.path(&mut self.section, "keyring")? } else { None };
        // First, because a missing key may be a misspelt one.
        self.section.finish()?;
        let name = name
            .ok_or_else(|| ConfigError::new(&origin, "a proxy has no `name`").hint("add `name = \"…\"`"))?;
        let proxy = Proxy {
            id: ProxyId { artifact_type, name },
            upstreams,
            namespaces,
            default,
            ttl,
            unsigned,
            read_ahead,
            credentials,
            allowed_hosts,
            ca_files,
            limits,
            http,
            keyring,
        };
        if proxy.upstreams.is_empty() {
            return Err(ConfigError::new(&origin, format!("proxy `{}` has no `upstream`", proxy.id.name))
                .hint("add `upstream = \"https://…\"`"));
        }
        // A claim that a variable made is the variable's fault, wherever the rest was written.
        let claims = ["ns", "default"].map(|key| format!("{}.{key}", self.section.key));
        let mut claims = claims.iter().filter_map(|key| self.reader.origins.get(key));
        let claimed = claims.find(|origin| matches!(origin, Origin::Variable(_)));
        Ok(Set { value: proxy, origin: claimed.unwrap_or(&origin).clone() })
    }

    fn one<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Option<T>, ConfigError> {
        Ok(self.reader.one(&mut self.section, key, parse)?.map(|set| set.value))
    }

    fn many<T>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<Vec<T>, ConfigError> {
        Ok(self.reader.many(&mut self.section, key, parse)?.map(|set| set.value).unwrap_or_default())
    }

    fn http(&mut self, artifact_type: ArtifactType) -> Result<Option<Arc<HttpRules>>, ConfigError> {
        if artifact_type != ArtifactType::Generic {
            return Ok(None);
        }
        generic::read(self.reader, &mut self.section).map(|rules| Some(Arc::new(rules)))
    }

    fn limits(&mut self) -> Result<Limits, ConfigError> {
        Ok(Limits {
            connect_timeout: self.one("connect_timeout", values::wait)?,
            idle_timeout: self.one("idle_timeout", values::wait)?,
            max_connections: self.one("max_connections", values::count)?,
            retries: self.one("retries", values::number)?,
            breaker_after: self.one("breaker_after", values::count)?,
        })
    }

    fn ca_files(&mut self) -> Result<Vec<PathBuf>, ConfigError> {
        let files = self.reader.many(&mut self.section, "ca_files", values::text)?;
        let resolve = |Set { value, origin }: Set<Vec<String>>| {
            value.iter().map(|path| self.reader.resolve(path, &origin)).collect()
        };
        Ok(files.map(resolve).unwrap_or_default())
    }

    fn name(&mut self, name: Option<String>) -> Result<Option<ProxyName>, ConfigError> {
        let parse = |text: &str| {
            text.parse::<ProxyName>()
                .map_err(|error| Problem::new(error.to_string()).hint("write it like `hub` or `my-registry`"))
        };
        let given = self.section.only_in_file("name", parse)?;
        let name = name.map(|name| parse(&name).map_err(|problem| problem.at(&self.section.origin)));
        Ok(name.transpose()?.or(given))
    }

    fn credentials(&mut self) -> Result<Option<Credentials>, ConfigError> {
        // `REPOXY_PROXY_HUB_PASSWORD`, without the name of the table.
        let mut section = self.section.section_of("credentials", self.section.variable.clone())?;
        let reader = &mut *self.reader;
        let username = reader.one(&mut section, "username", values::text)?;
        let mut secrets = Vec::new();
        for key in SECRETS {
            if let Some(found) = reader.one(&mut section, key, values::text)? {
                secrets.push((key, found));
            }
        }
        section.finish()?;
        // A secret in the environment replaces the file's, of whatever sort that is.
        if secrets.iter().any(|(_, found)| matches!(found.origin, Origin::Variable(_))) {
            secrets.retain(|(_, found)| matches!(found.origin, Origin::Variable(_)));
        }
        match (username, secrets.as_slice()) {
            (None, []) => Ok(None),
            (Some(username), []) => {
                Err(ConfigError::new(&username.origin, "a `username` without a password")
                    .hint("add `password_env`, `password_file` or `password`"))
            }
            (username, [(key, found)]) => self.credentials_of(username, key, found).map(Some),
            (_, [(first, _), (second, found), ..]) => {
                Err(ConfigError::new(&found.origin, format!("both `{first}` and `{second}` are set"))
                    .hint("a proxy has one way to log in; remove one of them"))
            }
        }
    }

    fn credentials_of(
        &self,
        username: Option<Set<String>>,
        key: &str,
        found: &Set<String>,
    ) -> Result<Credentials, ConfigError> {
        let Set { value, origin } = found;
        if key == "docker_config" {
            return match username {
                Some(username) => {
                    Err(ConfigError::new(&username.origin, "both `username` and `docker_config` are set")
                        .hint("the Docker configuration has the name already; remove `username`"))
                }
                None => Ok(Credentials::DockerConfig(self.reader.resolve(value, origin))),
            };
        }
        let secret = if key.ends_with("_env") {
            SecretFrom::Variable(value.clone())
        } else if key.ends_with("_file") {
            SecretFrom::File(self.reader.resolve(value, origin))
        } else {
            SecretFrom::Inline(Secret::new(value.as_str()))
        };
        match (key.starts_with("token"), username) {
            (true, None) => Ok(Credentials::Token(secret)),
            (true, Some(username)) => {
                Err(ConfigError::new(&username.origin, format!("both `username` and `{key}` are set"))
                    .hint("a token stands alone; with a name it is a `password`"))
            }
            (false, Some(username)) => {
                Ok(Credentials::Password { username: username.value, password: secret })
            }
            (false, None) => {
                Err(ConfigError::new(origin, format!("a `{key}` without a `username`"))
                    .hint("add `username`"))
            }
        }
    }
}

/// The keys that hold or name a secret.
const SECRETS: [&str; 7] =
    ["password", "password_env", "password_file", "token", "token_env", "token_file", "docker_config"];

fn artifact_type(text: &str) -> Result<ArtifactType, Problem> {
    SUPPORTED.into_iter().find(|supported| supported.as_str() == text).ok_or_else(|| {
        Problem::new(format!("proxies of type `{text}` are not served by this version"))
            .hint(format!("supported is {}", SUPPORTED.map(|supported| format!("`{supported}`")).join(", ")))
    })
}

/// What a proxy's variables begin with, such as `REPOXY_PROXY_HUB`.
pub(super) fn variable(name: &ProxyName) -> String {
    format!("REPOXY_PROXY_{}", name.as_str().to_ascii_uppercase().replace(['-', '.'], "_"))
}
