//! What a configuration only names and a server needs: secrets, keyrings, certificates.
//!
//! Apart from the rest, so that a command that needs none of it runs without it. Here the files are
//! there, can be read and are not empty; what is in them shows when they are used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::error::{ConfigError, Problem};
use super::proxies::{Credentials, SecretFrom};
use super::{Config, Environment, Secret};
use crate::model::{ProxyFacts, ProxyId, ProxyTable};

/// The largest file with a secret in it, in bytes.
const SECRET_MAX_LEN: u64 = 64 << 10;
/// The largest other file, in bytes. All public authorities have some 220 KiB, Debian's keys some 50.
const FILE_MAX_LEN: u64 = 4 << 20;

/// What a server needs besides its configuration, at hand.
#[derive(Debug, Clone)]
pub struct Supplies {
    /// What routing needs of the proxies, with their keyrings.
    pub proxies: ProxyTable,
    credentials: BTreeMap<ProxyId, Credentials<Supplied>>,
}

/// A secret that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Supplied {
    /// This one.
    Value(Secret),
    /// The content of this file without the line end, to be read again on every reload.
    File(PathBuf),
}

impl Supplies {
    /// How a proxy logs in at its upstream; `None` if anonymously.
    pub fn credentials(&self, proxy: &ProxyId) -> Option<&Credentials<Supplied>> {
        self.credentials.get(proxy)
    }
}

impl Config {
    /// Looks for all that the configuration names and a server needs. Blocks on small files.
    ///
    /// # Errors
    /// The first that is missing or cannot be read, with the place that names it.
    pub fn supplies(&self, environment: &Environment) -> Result<Supplies, ConfigError> {
        if let Some(tls) = &self.tls {
            self.look("tls.cert", &tls.cert, "certificate")?;
            self.look("tls.key", &tls.key, "key")?;
        }
        let (mut proxies, mut credentials) = (Vec::new(), BTreeMap::new());
        for proxy in &self.proxies {
            let key = |key: &str| format!("proxy.{}.{key}", proxy.id.name);
            for file in &proxy.ca_files {
                self.look(&key("ca_files"), file, "certificates")?;
            }
            if let Some(written) = &proxy.credentials {
                let origin = self.origin(&key(&format!("credentials.{}", written.key())));
                let found = find(written, environment).map_err(|problem| problem.at(origin))?;
                credentials.insert(proxy.id.clone(), found);
            }
            let keyring = proxy.keyring.as_ref();
            let keyring = keyring.map(|file| self.look(&key("keyring"), file, "keyring")).transpose()?;
            proxies.push(ProxyFacts { keyring, ..proxy.outline() });
        }
        Ok(Supplies { proxies: ProxyTable::new(proxies), credentials })
    }

    fn look(&self, key: &str, path: &Path, what: &str) -> Result<Bytes, ConfigError> {
        file(path, what).map_err(|problem| problem.at(self.origin(key)))
    }
}

/// Finds the secret of credentials.
fn find(written: &Credentials, environment: &Environment) -> Result<Credentials<Supplied>, Problem> {
    let supplied = |from: &SecretFrom| match from {
        SecretFrom::Inline(secret) => Ok(Supplied::Value(secret.clone())),
        SecretFrom::Variable(name) => match environment.get(name) {
            Some(secret) => Ok(Supplied::Value(Secret::new(secret))),
            None => Err(Problem::new(format!("the environment has no variable `{name}`"))
                .hint(format!("set `{name}`, or change `{}`", written.key()))),
        },
        SecretFrom::File(path) => look_for_secret(path).map(|()| Supplied::File(path.clone())),
    };
    match written {
        Credentials::Password { username, password } => {
            Ok(Credentials::Password { username: username.clone(), password: supplied(password)? })
        }
        Credentials::Token(token) => supplied(token).map(Credentials::Token),
        Credentials::DockerConfig(path) => {
            file(path, "Docker configuration").map(|_| Credentials::DockerConfig(path.clone()))
        }
    }
}

fn look_for_secret(path: &Path) -> Result<(), Problem> {
    let bytes = read(path, "secret", SECRET_MAX_LEN)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| unreadable(path, "secret", "it is not UTF-8"))?;
    match text.trim_end_matches(['\r', '\n']) {
        "" => Err(unreadable(path, "secret", "it is empty")),
        _ => Ok(()),
    }
}

/// Reads a file that is no secret.
fn file(path: &Path, what: &str) -> Result<Bytes, Problem> {
    read(path, what, FILE_MAX_LEN)
}

fn read(path: &Path, what: &str, max_len: u64) -> Result<Bytes, Problem> {
    let failed = |error: std::io::Error| unreadable(path, what, &error.to_string());
    match std::fs::metadata(path).map_err(failed)?.len() {
        0 => Err(unreadable(path, what, "it is empty")),
        size if size > max_len => Err(unreadable(path, what, "it is too large for that")),
        _ => std::fs::read(path).map(Bytes::from).map_err(failed),
    }
}

fn unreadable(path: &Path, what: &str, why: &str) -> Problem {
    let hint = match what {
        "secret" => "write the path of a file with nothing but the secret in it",
        "keyring" => "export the keys with `gpg --export --output <file> <key>…`",
        "Docker configuration" => "`docker login` writes one",
        _ => "write the path of a PEM file",
    };
    Problem::new(format!("cannot read the {what} `{}`: {why}", path.display())).hint(hint)
}
