//! The configuration as it holds, for `repoxy config show`: line by line with the places of the values,
//! and in the notation of its file. Secrets are masked.

use std::fmt::{Formatter, Result};
use std::path::Path;

use serde::Serialize;
use toml::Value;

use super::proxies::{Credentials, Proxy, SecretFrom};
use super::values::{show_duration, show_share, show_size};
use super::{Config, LogFormat, Origin};
use crate::model::{ArtifactType, Heed, PathRule, Treatment};

/// One value that holds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Setting {
    /// The whole key, such as `proxy.hub.ttl`; `proxy.hub.rules.0.match` of the first rule.
    key: String,
    value: Value,
    /// Where it came from; absent for what only the file can say.
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
}

/// The values of a configuration: all that are set or have a default.
pub(super) fn settings(config: &Config) -> Vec<Setting> {
    let of = |line| match line {
        Line::Heading(_) => None,
        Line::Value(_, setting) => Some(setting),
    };
    Shown::of(config).lines.into_iter().filter_map(of).collect()
}

/// Writes them as a file.
pub(super) fn write(config: &Config, f: &mut Formatter<'_>) -> Result {
    match &config.file {
        Some(file) => writeln!(f, "# read from {}", file.display())?,
        None => writeln!(f, "# there is no configuration file")?,
    }
    Shown::of(config).lines.iter().try_for_each(|line| match line {
        Line::Heading(heading) => writeln!(f, "\n{heading}"),
        Line::Value(key, Setting { value, origin: Some(origin), .. }) => {
            writeln!(f, "{key} = {value}  # {origin}")
        }
        Line::Value(key, Setting { value, origin: None, .. }) => writeln!(f, "{key} = {value}"),
    })
}

enum Line {
    Heading(&'static str),
    /// The key within its section, and the rest.
    Value(&'static str, Setting),
}

struct Shown<'c> {
    config: &'c Config,
    /// The key in front of the section's own.
    section: String,
    lines: Vec<Line>,
}

impl<'c> Shown<'c> {
    fn of(config: &'c Config) -> Self {
        let mut lines = Self { config, section: String::new(), lines: Vec::new() };
        lines.line("root", Some(config.root.as_str()));
        lines.line("listen", Some(list(&config.listen)));
        lines.line("public_url", config.public_url.as_ref().map(url::Url::as_str));
        lines.line("index", config.index.as_deref().map(path));
        lines.line("hot_bytes", Some(show_size(config.hot_bytes)));
        lines.line("presets", Some(config.presets));
        if let Some(tls) = &config.tls {
            lines.section("[tls]", "tls");
            lines.line("listen", Some(list(&tls.listen)));
            lines.line("cert", Some(path(&tls.cert)));
            lines.line("key", Some(path(&tls.key)));
        }
        lines.section("[gc]", "gc");
        lines.line("grace", Some(show_duration(config.gc.grace)));
        lines.line("max_bytes", config.gc.max_bytes.map(show_size));
        lines.line("min_free", config.gc.min_free.map(show_share));
        lines.line("unused_for", config.gc.unused_for.map(show_duration));
        lines.section("[log]", "log");
        lines.line("format", Some(if config.log.format == LogFormat::Json { "json" } else { "text" }));
        lines.line("level", Some(config.log.level.to_string()));
        config.proxies.iter().for_each(|proxy| lines.proxy(proxy));
        lines
    }

    fn section(&mut self, heading: &'static str, key: impl Into<String>) {
        self.section = key.into();
        self.lines.push(Line::Heading(heading));
    }

    fn line(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        let origin = self.config.origin(&self.path(key));
        self.push(key, value, Some(origin));
    }

    /// A value that only the file can say, so that its place need not be said.
    fn line_of_file(&mut self, key: &'static str, value: Option<impl Into<Value>>) {
        self.push(key, value, None);
    }

    fn push(&mut self, key: &'static str, value: Option<impl Into<Value>>, origin: Option<&Origin>) {
        let path = self.path(key);
        let origin = origin.map(Origin::to_string);
        let setting = value.map(|value| Setting { key: path, value: value.into(), origin });
        self.lines.extend(setting.map(|setting| Line::Value(key, setting)));
    }

    fn path(&self, key: &str) -> String {
        if self.section.is_empty() { key.to_owned() } else { format!("{}.{key}", self.section) }
    }

    fn proxy(&mut self, proxy: &Proxy) {
        let count = |count: Option<usize>| count.and_then(|count| i64::try_from(count).ok());
        let key = format!("proxy.{}", proxy.id.name);
        self.section("[[proxy]]", key.as_str());
        self.line("type", Some(proxy.id.artifact_type.as_str()));
        self.line_of_file("name", Some(proxy.id.name.as_str()));
        self.line("upstream", Some(list(&proxy.upstreams)));
        self.line("ns", Some(list(&proxy.namespaces)));
        self.line("default", Some(proxy.default));
        self.line("ttl", proxy.ttl.map(show_duration));
        match proxy.id.artifact_type {
            ArtifactType::Container => self.line("read_ahead", Some(proxy.read_ahead)),
            ArtifactType::Tf => self.line("unsigned", Some(proxy.unsigned)),
            ArtifactType::Debian | ArtifactType::Generic => {}
        }
        self.line("allowed_hosts", some(list(&proxy.allowed_hosts)));
        self.line("ca_files", some(proxy.ca_files.iter().map(|file| path(file)).collect()));
        self.line("connect_timeout", proxy.limits.connect_timeout.map(show_duration));
        self.line("idle_timeout", proxy.limits.idle_timeout.map(show_duration));
        self.line("max_connections", count(proxy.limits.max_connections));
        self.line("retries", count(proxy.limits.retries));
        self.line("breaker_after", count(proxy.limits.breaker_after));
        self.line("keyring", proxy.keyring.as_deref().map(path));
        if let Some(rules) = &proxy.http {
            self.line("honour_client_directives", Some(rules.heed == Heed::Everything));
            self.line("stale_if_error", Some(show_duration(rules.leave.stale_if_error)));
            self.line("follow_redirects", Some(!rules.keep_redirects));
            self.line("forward_authorization", Some(rules.forward_authorization));
            self.line("forward_unsafe", Some(rules.forward_unsafe));
        }
        if let Some(credentials) = &proxy.credentials {
            self.section("[proxy.credentials]", format!("{key}.credentials"));
            self.credentials(credentials);
        }
        for (at, rule) in proxy.http.iter().flat_map(|rules| &rules.rules).enumerate() {
            self.section("[[proxy.rules]]", format!("{key}.rules.{at}"));
            self.rule(rule);
        }
    }

    fn rule(&mut self, rule: &PathRule) {
        self.line_of_file("match", Some(rule.pattern.as_str()));
        match rule.treatment {
            Treatment::Immutable => self.line_of_file("immutable", Some(true)),
            Treatment::For(ttl) => self.line_of_file("ttl", Some(show_duration(ttl))),
            Treatment::NoStore => self.line_of_file("store", Some(false)),
        }
        self.line_of_file("sidecar", rule.sidecar.as_deref());
    }

    fn credentials(&mut self, credentials: &Credentials) {
        if let Credentials::Password { username, .. } = credentials {
            self.line("username", Some(username.as_str()));
        }
        let secret = match credentials {
            Credentials::DockerConfig(file) => path(file),
            Credentials::Password { password: secret, .. } | Credentials::Token(secret) => match secret {
                SecretFrom::Inline(_) => "***".to_owned(),
                SecretFrom::Variable(name) => name.clone(),
                SecretFrom::File(file) => path(file),
            },
        };
        self.line(credentials.key(), Some(secret));
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
