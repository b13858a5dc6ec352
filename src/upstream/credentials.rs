//! Who we are at an upstream, as read at start and on reload, and as sent.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use url::Url;

use super::docker::DockerConfig;
use super::settings::{Credentials, Limits, SecretSource};
use super::{Secret, SetupError, UpstreamError};

/// One identity. Equal identities share tokens and pauses.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Login {
    /// Nobody.
    None,
    /// User and password.
    Basic { username: String, password: Secret },
    /// A token that goes with every request.
    Bearer(Secret),
    /// A header that goes with every request.
    Header { name: HeaderName, value: Secret },
    /// A refresh token that is exchanged for tokens.
    Identity(Secret),
}

impl Login {
    /// The header that goes with every request, asked for or not.
    pub(super) fn always(&self) -> Result<HeaderMap, UpstreamError> {
        match self {
            Self::None | Self::Basic { .. } | Self::Identity(_) => Ok(HeaderMap::new()),
            Self::Bearer(token) => bearer(token),
            Self::Header { name, value } => sensitive(name.clone(), value.expose()),
        }
    }

    /// `Authorization: Basic`, if this is user and password.
    pub(super) fn basic(&self) -> Result<Option<HeaderMap>, UpstreamError> {
        let Self::Basic { username, password } = self else { return Ok(None) };
        let login = STANDARD.encode(format!("{username}:{}", password.expose()));
        sensitive(header::AUTHORIZATION, &format!("Basic {login}")).map(Some)
    }
}

/// `Authorization: Bearer`.
pub(super) fn bearer(token: &Secret) -> Result<HeaderMap, UpstreamError> {
    sensitive(header::AUTHORIZATION, &format!("Bearer {}", token.expose()))
}

fn sensitive(name: HeaderName, value: &str) -> Result<HeaderMap, UpstreamError> {
    let unusable =
        || UpstreamError::Unreachable("the configured credentials cannot be sent in a header".to_owned());
    let mut value = HeaderValue::from_str(value).map_err(|_| unusable())?;
    value.set_sensitive(true);
    Ok(HeaderMap::from_iter([(name, value)]))
}

/// The configured credentials, with their files read.
#[derive(Debug)]
pub(super) enum Loaded {
    /// The same everywhere.
    Fixed(Login),
    /// By host and repository.
    Docker(DockerConfig),
}

impl Loaded {
    /// Reads the files that the configuration names.
    pub(super) fn load(credentials: &Credentials) -> Result<Self, SetupError> {
        Ok(Self::Fixed(match credentials {
            Credentials::None => Login::None,
            Credentials::Basic { username, password } => {
                Login::Basic { username: username.clone(), password: read(password)? }
            }
            Credentials::Bearer(token) => Login::Bearer(read(token)?),
            Credentials::Header { name, value } => Login::Header { name: name.clone(), value: read(value)? },
            Credentials::Docker { path } => return DockerConfig::read(path).map(Self::Docker),
        }))
    }

    /// Who we are at `base` for a repository.
    pub(super) async fn login(
        &self,
        base: &Url,
        repository: Option<&str>,
        limits: &Limits,
    ) -> Result<Login, UpstreamError> {
        match self {
            Self::Fixed(login) => Ok(login.clone()),
            Self::Docker(config) => config.login(base, repository, limits).await,
        }
    }
}

fn read(source: &SecretSource) -> Result<Secret, SetupError> {
    match source {
        SecretSource::Value(secret) => Ok(secret.clone()),
        SecretSource::File(path) => read_file(path),
    }
}

fn read_file(path: &Path) -> Result<Secret, SetupError> {
    let text =
        std::fs::read_to_string(path).map_err(|source| SetupError::Read { path: path.to_owned(), source })?;
    let secret = Secret::from(text.trim_end_matches(['\r', '\n']));
    if secret.is_empty() { Err(SetupError::EmptySecret { path: path.to_owned() }) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_file_loses_its_line_end_and_must_not_be_empty() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("password");
        std::fs::write(&path, "pass word \r\n").expect("written");
        let credentials =
            Credentials::Basic { username: "me".to_owned(), password: SecretSource::File(path.clone()) };
        let Loaded::Fixed(login) = Loaded::load(&credentials).expect("good") else { panic!("fixed") };
        assert_eq!(login, Login::Basic { username: "me".to_owned(), password: "pass word ".into() });
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(Loaded::load(&credentials), Err(SetupError::EmptySecret { .. })));
        std::fs::remove_file(&path).expect("removed");
        assert!(matches!(Loaded::load(&credentials), Err(SetupError::Read { .. })));
    }

    #[test]
    fn headers_with_credentials_show_nothing_in_debug_output() {
        let login = Login::Basic { username: "me".to_owned(), password: "canary".into() };
        let headers = login.basic().expect("sendable").expect("basic");
        assert_eq!(headers["authorization"], "Basic bWU6Y2FuYXJ5");
        assert_eq!(format!("{headers:?}"), r#"{"authorization": Sensitive}"#);
        let login = Login::Bearer("can\nary".into());
        let error = login.always().expect_err("not sendable");
        assert!(!format!("{error} {error:?} {login:?}").contains("ary"));
    }
}
