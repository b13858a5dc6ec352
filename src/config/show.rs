//! The configuration in the notation of its file, for `repoxy config show`. Secrets are masked.

use std::fmt::{Formatter, Result};
use std::path::Path;

use toml::Value;

use super::proxies::{Credentials, Proxy, SecretFrom};
use super::values::{show_duration, show_share, show_size};
use super::{Config, LogFormat};
use crate::model::{Heed, PathRule, Treatment};

/// Writes everything that is set or has a default.
pub(super) fn write(config: &Config, f: &mut Formatter<'_>) -> Result {
    match &config.file {
        Some(file) => writeln!(f, "# read from {}", file.display())?,
        None => writeln!(f, "# there is no configuration file")?,
    }
    let mut lines = Lines { config, section: String::new(), f };
    lines.line("root", Some(config.root.as_str()))?;
    lines.line("listen", Some(list(&config.listen)))?;
    lines.line("public_url", config.public_url.as_ref().map(url::Url::as_str))?;
    lines.line("index", config.index.as_deref().map(path))?;
    lines.line("hot_bytes", Some(show_size(config.hot_bytes)))?;
    if let Some(tls) = &config.tls {
        lines.section("[tls]", "tls")?;
        lines.line("listen", Some(list(&tls.listen)))?;
        lines.line("cert", Some(path(&tls.cert)))?;
        lines.line("key", Some(path(&tls.key)))?;
    }
    lines.section("[gc]", "gc")?;
    lines.line("grace", Some(show_duration(config.gc.grace)))?;
    lines.line("max_bytes", config.gc.max_bytes.map(show_size))?;
    lines.line("min_free", config.gc.min_free.map(show_share))?;
    lines.line("unused_for", config.gc.unused_for.map(show_duration))?;
    lines.section("[log]", "log")?;
    lines.line("format", Some(if config.log.format == LogFormat::Json { "json" } else { "text" }))?;
    lines.line("level", Some(config.log.level.to_string()))?;
    config.proxies.iter().try_for_each(|proxy| lines.proxy(proxy))
}

struct Lines<'c, 'f, 'b> {
    config: &'c Config,
    /// The key in front of the section's own.
    section: String,
    f: &'f mut Formatter<'b>,
}

impl Lines<'_, '_, '_> {
    fn section(&mut self, heading: &str, key: &str) -> Result {
        key.clone_into(&mut self.section);
        writeln!(self.f, "\n{heading}")
    }

    fn line(&mut self, key: &str, value: Option<impl Into<Value>>) -> Result {
        let Some(value) = value else { return Ok(()) };
        let path = if self.section.is_empty() { key.to_owned() } else { format!("{}.{key}", self.section) };
        writeln!(self.f, "{key} = {}  # {}", value.into(), self.config.origin(&path))
    }

    fn proxy(&mut self, proxy: &Proxy) -> Result {
        self.section("[[proxy]]", &format!("proxy.{}", proxy.id.name))?;
        self.line("type", Some(proxy.id.artifact_type.as_str()))?;
        writeln!(self.f, "name = \"{}\"", proxy.id.name)?;
        self.line("upstream", Some(list(&proxy.upstreams)))?;
        self.line("ns", Some(list(&proxy.namespaces)))?;
        self.line("default", Some(proxy.default))?;
        self.line("ttl", proxy.ttl.map(show_duration))?;
        self.line("unsigned", proxy.unsigned.then_some(true))?;
        self.line("allowed_hosts", some(list(&proxy.allowed_hosts)))?;
        self.line("ca_files", some(proxy.ca_files.iter().map(|file| path(file)).collect()))?;
        self.line("connect_timeout", proxy.limits.connect_timeout.map(show_duration))?;
        self.line("idle_timeout", proxy.limits.idle_timeout.map(show_duration))?;
        self.line(
            "max_connections",
            proxy.limits.max_connections.and_then(|count| i64::try_from(count).ok()),
        )?;
        self.line("retries", proxy.limits.retries.and_then(|count| i64::try_from(count).ok()))?;
        self.line("breaker_after", proxy.limits.breaker_after.and_then(|count| i64::try_from(count).ok()))?;
        self.line("keyring", proxy.keyring.as_ref().map(|file| path(file)))?;
        if let Some(rules) = &proxy.http {
            self.line("honour_client_directives", Some(rules.heed == Heed::Everything))?;
            self.line("stale_if_error", Some(show_duration(rules.leave.stale_if_error)))?;
            self.line("follow_redirects", Some(!rules.keep_redirects))?;
            self.line("forward_authorization", Some(rules.forward_authorization))?;
            self.line("forward_unsafe", Some(rules.forward_unsafe))?;
        }
        if let Some(credentials) = &proxy.credentials {
            self.credentials(proxy, credentials)?;
        }
        proxy.http.iter().flat_map(|rules| &rules.rules).try_for_each(|rule| self.rule(rule))
    }

    /// A rule of a proxy; it stands in the file only, so that its place need not be said.
    fn rule(&mut self, rule: &PathRule) -> Result {
        writeln!(self.f, "\n[[proxy.rules]]\nmatch = {}", Value::from(rule.pattern.as_str()))?;
        match rule.treatment {
            Treatment::Immutable => writeln!(self.f, "immutable = true")?,
            Treatment::For(ttl) => writeln!(self.f, "ttl = \"{}\"", show_duration(ttl))?,
            Treatment::NoStore => writeln!(self.f, "store = false")?,
        }
        match &rule.sidecar {
            Some(suffix) => writeln!(self.f, "sidecar = \"{suffix}\""),
            None => Ok(()),
        }
    }

    fn credentials(&mut self, proxy: &Proxy, credentials: &Credentials) -> Result {
        self.section("[proxy.credentials]", &format!("proxy.{}.credentials", proxy.id.name))?;
        match credentials {
            Credentials::Password { username, .. } => self.line("username", Some(username.as_str()))?,
            Credentials::DockerConfig(file) => self.line("docker_config", Some(path(file)))?,
            Credentials::Token(_) => {}
        }
        let key = credentials.key();
        match credentials.secret() {
            None => Ok(()),
            Some(SecretFrom::Inline(_)) => self.line(key, Some("***")),
            Some(SecretFrom::Variable(name)) => self.line(key, Some(name.as_str())),
            Some(SecretFrom::File(file)) => self.line(key, Some(path(file))),
        }
    }
}

fn list<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// A list that is worth a line.
fn some(values: Vec<String>) -> Option<Vec<String>> {
    Some(values).filter(|values| !values.is_empty())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
