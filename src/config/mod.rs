//! What the operator wrote, checked.
//!
//! A value comes from the command line, else from a `REPOXY_…` variable, else from the file, else it
//! has a default. [`Config::load`] reads and checks all of it and gives typed values or the first
//! thing that is wrong, with its place. What the configuration only names (secrets, keyrings,
//! certificates) is looked for by [`Config::supplies`], for whoever serves.
//! `docs/configuration.md` lists every key.
//!
//! The rest of the program never sees TOML, and nothing here knows what is done with the values.
//! Reads files; writes none. Secrets leave only through [`Secret::reveal`].

mod debian;
mod environment;
mod error;
mod generic;
mod proxies;
mod reader;
mod show;
mod supplies;
#[cfg(test)]
mod tests;
mod values;

pub use environment::Environment;
pub use error::ConfigError;
pub use proxies::{Credentials, Limits, Proxy, SecretFrom};
pub use show::Setting;
pub use supplies::{Supplied, Supplies};
pub use values::Secret;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::level_filters::LevelFilter;
use url::Url;

use self::error::{Problem, nearest};
use self::reader::{Reader, Section, Text};
use crate::model::{ProxyTable, Share};

const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7080);
const DEFAULT_TLS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 7443);
const DEFAULT_HOT_BYTES: u64 = 32 << 20;
const DEFAULT_GRACE: Duration = Duration::from_secs(24 * 60 * 60);
const FILE_NAME: &str = "repoxy.toml";
/// What all variables begin with.
const PREFIX: &str = "REPOXY_";

/// What the command line says about the configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// `--config`: this file and no other.
    pub config: Option<PathBuf>,
    /// `--root`
    pub root: Option<String>,
}

/// A checked configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// Where the store is: an absolute path, or `mem://`.
    pub root: String,
    /// Where to listen without TLS. Empty if it listens with TLS alone (`listen = []`).
    pub listen: Vec<SocketAddr>,
    /// Where clients find the server, if not at the address that they connect to: a request whose target names
    /// this host and port is for the server itself.
    pub public_url: Option<Url>,
    /// Where the index is; `None` if it goes nowhere because the store is in memory.
    pub index: Option<PathBuf>,
    /// How many bytes of ready answers are kept in memory; zero keeps none.
    pub hot_bytes: u64,
    /// TLS, if configured.
    pub tls: Option<Tls>,
    /// Garbage collection.
    pub gc: Gc,
    /// Logging.
    pub log: Log,
    /// Whether the built-in proxies are among the proxies, but for those that gave way.
    pub presets: bool,
    /// All proxies, in the order of the file. At least one.
    pub proxies: Vec<Proxy>,
    /// What is allowed but likely not meant.
    pub warnings: Vec<String>,
    /// Where each value that is not a default came from, by its key, such as `gc.grace`.
    origins: BTreeMap<String, Origin>,
}

/// TLS towards clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// The certificate chain, PEM.
    pub cert: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

/// Garbage collection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gc {
    /// How old a blob that nothing names must be to go.
    pub grace: Duration,
    /// The most bytes to keep; no limit if absent.
    pub max_bytes: Option<u64>,
    /// What a server leaves free on the disk; a rule of its own if absent.
    pub min_free: Option<Share>,
    /// How long something may be unused before it goes; for ever if absent.
    pub unused_for: Option<Duration>,
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The form of lines.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LevelFilter,
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The command line.
    CommandLine,
    /// An environment variable.
    Variable(String),
    /// `file:line:column`
    File(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::CommandLine => "command line",
            Self::Variable(at) | Self::File(at) => at,
        })
    }
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// The file is the one of `--config` or `REPOXY_CONFIG`; else the first that is there of
    /// `./repoxy.toml`, `<root>/config/repoxy.toml`, `$XDG_CONFIG_HOME/repoxy/repoxy.toml` and
    /// `/etc/repoxy/repoxy.toml`; else there is none and the defaults hold. Blocks.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn load(options: &Options, environment: &Environment) -> Result<Self, ConfigError> {
        let found = find(options, environment)?;
        let text = match &found {
            Some((path, origin)) => Text::read(path, origin)?,
            None => Text { path: None, text: String::new() },
        };
        let path = found.map(|(path, _)| path);
        let document = text.parse()?;
        let mut top = Section::top(&text, document.get_ref());
        let mut load = Load { reader: Reader::new(environment, path.as_deref()) };
        let mut config = load.config(options, &mut top)?;
        config.warnings = load.warnings(path.as_deref(), &config.proxies);
        config.origins.append(&mut load.reader.origins);
        config.file = path;
        Ok(config)
    }

    /// Which names mean which proxy. Not to serve with: [`Supplies`] has the keyrings besides.
    pub fn names(&self) -> ProxyTable {
        ProxyTable::new(self.proxies.iter().map(Proxy::outline).collect())
    }

    /// All values that are set or have a default, with secrets masked.
    pub fn settings(&self) -> Vec<Setting> {
        show::settings(self)
    }

    /// Where the value of a key came from, such as `gc.grace` or `proxy.hub.ttl`.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }
}

/// The whole configuration in the notation of the file, with secrets masked and a comment on where
/// each value came from.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show::write(self, f)
    }
}

/// A duration in the notation of the file, such as `24h`, for the command line.
///
/// # Errors
/// What is wrong with it, and how to write one.
pub fn parse_duration(text: &str) -> Result<Duration, ConfigError> {
    values::duration(text).map_err(|problem| problem.at(&Origin::Default))
}

/// A number of bytes in the notation of the file, such as `200GiB`, for the command line.
///
/// # Errors
/// What is wrong with it, and how to write one.
pub fn parse_size(text: &str) -> Result<u64, ConfigError> {
    values::size(text).map_err(|problem| problem.at(&Origin::Default))
}

/// The file to read, and what named it.
fn find(options: &Options, environment: &Environment) -> Result<Option<(PathBuf, Origin)>, ConfigError> {
    let option = options.config.clone().map(|path| (path, Origin::CommandLine));
    let variable =
        || Some((environment.get("REPOXY_CONFIG")?.into(), Origin::Variable("REPOXY_CONFIG".to_owned())));
    if let Some((path, origin)) = option.or_else(variable) {
        return Ok(Some((environment.directory().join(path), origin)));
    }
    // A root that is set in a file cannot tell where that file is.
    let root = options.root.as_deref().or_else(|| environment.get("REPOXY_ROOT"));
    let root = match root {
        Some(root) => local(&parse_root(root, environment.directory()).map_err(|problem| {
            problem.at(&if options.root.is_some() {
                Origin::CommandLine
            } else {
                Origin::Variable("REPOXY_ROOT".to_owned())
            })
        })?),
        None => environment.data_home().map(|data| data.join("repoxy")),
    };
    let candidates = [
        Some(environment.directory().join(FILE_NAME)),
        root.map(|root| root.join("config").join(FILE_NAME)),
        environment.config_home().map(|home| home.join("repoxy").join(FILE_NAME)),
        Some(environment.system().join("repoxy").join(FILE_NAME)),
    ];
    let found = candidates.into_iter().flatten().find(|path| path.is_file());
    Ok(found.map(|path| (path, Origin::Default)))
}

/// A root as the store takes it: an absolute path, or `mem://`.
fn parse_root(text: &str, base: &Path) -> Result<String, Problem> {
    let path = match text.split_once("://") {
        None => base.join(text),
        Some(("mem", "")) => return Ok(text.to_owned()),
        Some(("file", path)) if path.starts_with('/') => PathBuf::from(path),
        Some(("file", _)) => {
            return Err(Problem::new(format!("`{text}` is not an absolute path"))
                .hint("write three slashes: `file:///var/lib/repoxy`"));
        }
        Some((scheme, _)) => {
            return Err(Problem::new(format!("roots at `{scheme}://` are not served by this version"))
                .hint("write a path, `file:///var/lib/repoxy` or, for a trial, `mem://`"));
        }
    };
    let root = path.into_os_string().into_string();
    root.map_err(|_| Problem::new("the path of the root is not UTF-8").hint("write another path"))
}

/// The directory of a root, if it has one.
fn local(root: &str) -> Option<PathBuf> {
    (!root.contains("://")).then(|| PathBuf::from(root))
}

/// The reading of one configuration.
struct Load<'e> {
    reader: Reader<'e>,
}

impl Load<'_> {
    fn config(&mut self, options: &Options, top: &mut Section<'_>) -> Result<Config, ConfigError> {
        let (root, root_origin) = self.root(options, top)?;
        let index = self.reader.path(top, "index")?.or_else(|| local(&root).map(|root| root.join("index")));
        let tls = self.tls(top)?;
        let listen = self.reader.many(top, "listen", values::address)?;
        let deaf = listen.as_ref().filter(|listen| listen.value.is_empty() && tls.is_none());
        let deaf = deaf.map(|listen| {
            ConfigError::new(&listen.origin, "`listen` is empty and there is no `[tls]`")
                .hint("write `listen = \"127.0.0.1:7080\"`")
        });
        let (presets, proxies) = proxies::read(&mut self.reader, top)?;
        let config = Config {
            file: None,
            root,
            listen: listen.map_or_else(|| vec![DEFAULT_LISTEN], |listen| listen.value),
            public_url: self.reader.one(top, "public_url", values::public_url)?.map(|url| url.value),
            index,
            hot_bytes: self
                .reader
                .one(top, "hot_bytes", values::size)?
                .map_or(DEFAULT_HOT_BYTES, |set| set.value),
            tls,
            gc: self.gc(top)?,
            log: self.log(top)?,
            presets,
            proxies,
            warnings: Vec::new(),
            origins: root_origin.map(|origin| ("root".to_owned(), origin)).into_iter().collect(),
        };
        // First, because what is missing may be misspelt.
        top.finish()?;
        if let Some(deaf) = deaf {
            return Err(deaf);
        }
        if config.proxies.is_empty() {
            return Err(ConfigError::new(&top.origin, "no proxy is configured")
                .hint("add a `[[proxy]]`, or set `presets = true` for the public registries"));
        }
        Ok(config)
    }

    /// The root, and where it came from if that is not a key.
    fn root(
        &mut self,
        options: &Options,
        top: &mut Section<'_>,
    ) -> Result<(String, Option<Origin>), ConfigError> {
        let set = self.reader.one(top, "root", values::text)?;
        let directory = self.reader.environment.directory();
        if let Some(root) = &options.root {
            self.reader.origins.remove("root");
            let root = parse_root(root, directory).map_err(|problem| problem.at(&Origin::CommandLine))?;
            return Ok((root, Some(Origin::CommandLine)));
        }
        if let Some(root) = set {
            let base = self.reader.resolve("", &root.origin);
            return Ok((parse_root(&root.value, &base).map_err(|problem| problem.at(&root.origin))?, None));
        }
        let data = self.reader.environment.data_home().ok_or_else(|| {
            ConfigError::new(&Origin::Default, "there is no home directory to keep the cache in")
                .hint("say where: `--root /var/lib/repoxy`, or `root` in the configuration")
        })?;
        let root = data.join("repoxy").into_os_string().into_string().map_err(|_| {
            ConfigError::new(&Origin::Default, "the path of the home directory is not UTF-8")
                .hint("say where to keep the cache: `--root /var/lib/repoxy`")
        })?;
        Ok((root, None))
    }

    fn tls(&mut self, top: &mut Section<'_>) -> Result<Option<Tls>, ConfigError> {
        let mut section = top.section("tls")?;
        let listen = self.reader.many(&mut section, "listen", values::address)?;
        let cert = self.reader.path(&mut section, "cert")?;
        let key = self.reader.path(&mut section, "key")?;
        section.finish()?;
        if let Some(listen) = listen.as_ref().filter(|listen| listen.value.is_empty()) {
            return Err(ConfigError::new(&listen.origin, "`tls.listen` is empty")
                .hint("write `listen = \"127.0.0.1:7443\"`, or remove `[tls]`"));
        }
        let missing = match (&listen, &cert, &key) {
            (None, None, None) if !section.is_in_file() => return Ok(None),
            (_, Some(_), Some(_)) => None,
            (_, None, _) => Some("cert"),
            (_, _, None) => Some("key"),
        };
        if let Some(missing) = missing {
            return Err(ConfigError::new(&section.origin, format!("`tls` has no `{missing}`"))
                .hint("TLS needs both: `cert = \"cert.pem\"` and `key = \"key.pem\"`"));
        }
        let listen = listen.map_or_else(|| vec![DEFAULT_TLS_LISTEN], |listen| listen.value);
        Ok(cert.zip(key).map(|(cert, key)| Tls { listen, cert, key }))
    }

    fn gc(&mut self, top: &mut Section<'_>) -> Result<Gc, ConfigError> {
        let mut section = top.section("gc")?;
        let grace = self.reader.one(&mut section, "grace", values::duration)?;
        let max_bytes = self.reader.one(&mut section, "max_bytes", values::size)?;
        let min_free = self.reader.one(&mut section, "min_free", values::share)?;
        let unused_for = self.reader.one(&mut section, "unused_for", values::wait)?;
        section.finish()?;
        Ok(Gc {
            grace: grace.map_or(DEFAULT_GRACE, |set| set.value),
            max_bytes: max_bytes.map(|set| set.value),
            min_free: min_free.map(|set| set.value),
            unused_for: unused_for.map(|set| set.value),
        })
    }

    fn log(&mut self, top: &mut Section<'_>) -> Result<Log, ConfigError> {
        let mut section = top.section("log")?;
        let format = self.reader.one(&mut section, "format", |text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(Problem::new(format!("`{text}` is neither `text` nor `json`"))
                .hint("write `text` for people, `json` for programs")),
        })?;
        let level = self.reader.one(&mut section, "level", |text| {
            let known = ["error", "warn", "info", "debug", "trace"].contains(&text);
            text.parse::<LevelFilter>().ok().filter(|_| known).ok_or_else(|| {
                Problem::new(format!("`{text}` is not a level"))
                    .hint("levels are `error`, `warn`, `info`, `debug` and `trace`")
            })
        })?;
        section.finish()?;
        Ok(Log {
            format: format.map_or(LogFormat::Text, |set| set.value),
            level: level.map_or(LevelFilter::INFO, |set| set.value),
        })
    }

    /// What is allowed but likely not meant.
    fn warnings(&self, file: Option<&Path>, proxies: &[Proxy]) -> Vec<String> {
        let mut warnings = Vec::new();
        let inline = proxies.iter().any(|proxy| {
            proxy.credentials.as_ref().is_some_and(|credentials| {
                let key = format!("proxy.{}.credentials.{}", proxy.id.name, credentials.key());
                matches!(credentials.secret(), Some(SecretFrom::Inline(_)))
                    && matches!(self.reader.origins.get(&key), Some(Origin::File(_)))
            })
        });
        if let Some(file) = file.filter(|file| inline && is_open(file)) {
            let file = file.display();
            warnings.push(format!(
                "`{file}` holds a password and others can read it; run `chmod 600 {file}`, or use `password_env`"
            ));
        }
        // Not an error: orchestrators set variables named after a service.
        let prefixes: Vec<_> =
            proxies.iter().map(|proxy| format!("{}_", proxies::variable(&proxy.id.name))).collect();
        for variable in self.reader.environment.names() {
            let is_known = ["REPOXY_CONFIG", "REPOXY_ROOT"].contains(&variable)
                || self.reader.variables.contains(variable);
            if is_known || !variable.starts_with(PREFIX) {
                continue;
            }
            // The longest, for one proxy's name may begin with another's.
            let of_proxy = prefixes.iter().filter(|prefix| variable.starts_with(prefix.as_str()));
            let of_proxy = of_proxy.max_by_key(|prefix| prefix.len()).map(String::as_str);
            match self.near(variable, of_proxy.unwrap_or(PREFIX)) {
                Some(near) => warnings.push(format!("`{variable}` means nothing; did you mean `{near}`?")),
                // With the name of a proxy in it, it is ours.
                None if of_proxy.is_some() => warnings.push(format!("`{variable}` means nothing")),
                None => {}
            }
        }
        warnings
    }

    /// The variable of those with this prefix that is most likely meant.
    fn near(&self, variable: &str, prefix: &str) -> Option<String> {
        let written = variable.strip_prefix(prefix)?;
        // In the file it is a table.
        let written = written.strip_prefix("CREDENTIALS_").unwrap_or(written);
        let known = self.reader.variables.iter().filter_map(|known| known.strip_prefix(prefix));
        nearest(written, known).map(|near| format!("{prefix}{near}"))
    }
}

/// Whether others than the owner can read a file.
fn is_open(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o044 != 0)
}
