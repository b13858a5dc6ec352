//! Credentials that other tools left on this machine: Docker's `config.json`, containers'
//! `auth.json`, and credential helpers.
//!
//! Knows the file's form and the helpers' protocol; secrets leave it as [`Secret`] only, and errors
//! name the file or the helper, never what they said.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::Command;
use url::Url;

use super::flights::{Flights, Lease};
use super::settings::Limits;
use super::{Login, Secret, SetupError, UpstreamError};

/// The key of Docker Hub in these files, and what its helpers are asked for.
const HUB: &str = "https://index.docker.io/v1/";

/// Docker Hub's hosts, which all stand for [`HUB`].
const HUB_HOSTS: [&str; 4] = ["registry-1.docker.io", "docker.io", "index.docker.io", "registry.docker.io"];

/// The user name by which a helper says that the secret is an identity token.
const IDENTITY_USER: &str = "<token>";

/// How a helper says that it knows nobody there.
const NOT_FOUND: &str = "credentials not found";

/// The longest answer of a helper.
const MAX_ANSWER: u64 = 64 * 1024;

/// Such a file, read.
#[derive(Debug)]
pub(super) struct DockerConfig {
    logins: HashMap<String, Login>,
    helpers: HashMap<String, String>,
    store: Option<String>,
    answers: Flights<(String, String), Login>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    username: String,
    secret: String,
}

impl DockerConfig {
    /// Reads the file.
    pub(super) fn read(path: &Path) -> Result<Self, SetupError> {
        let text =
            std::fs::read(path).map_err(|source| SetupError::Read { path: path.to_owned(), source })?;
        Self::parse(&text).ok_or_else(|| SetupError::DockerConfig { path: path.to_owned() })
    }

    /// `None` if it is not such a file, an `auth` is not `user:password` in base64, or a helper's
    /// name could be a path. What was wrong is not said, for it may be a secret.
    fn parse(text: &[u8]) -> Option<Self> {
        let file: File = serde_json::from_slice(text).ok()?;
        let mut logins = HashMap::new();
        for (key, entry) in file.auths {
            match entry.login()? {
                // Docker leaves empty entries for hosts that a helper knows.
                Login::None => {}
                login => {
                    logins.insert(normal_key(&key), login);
                }
            }
        }
        let helpers: HashMap<_, _> =
            file.cred_helpers.into_iter().map(|(key, helper)| (normal_key(&key), helper)).collect();
        let store = file.creds_store.filter(|name| !name.is_empty());
        helpers.values().chain(&store).all(|name| is_helper_name(name)).then_some(())?;
        Some(Self { logins, helpers, store, answers: Flights::new() })
    }

    /// Who we are at `base` for a repository: the host's own helper, else the entry with the longest
    /// prefix of `host/repository`, else the general helper, else nobody.
    pub(super) async fn login(
        &self,
        base: &Url,
        repository: Option<&str>,
        limits: &Limits,
    ) -> Result<Login, UpstreamError> {
        let host = place(base);
        let server = if host == HUB { HUB.to_owned() } else { host.clone() };
        if let Some(helper) = self.helpers.get(&host) {
            return self.ask(helper, &server, limits).await;
        }
        let mut key =
            repository.map_or_else(|| host.clone(), |name| format!("{}/{name}", host.trim_end_matches('/')));
        loop {
            if let Some(login) = self.logins.get(&key) {
                return Ok(login.clone());
            }
            match key.rfind('/') {
                Some(at) if at > host.trim_end_matches('/').len() => key.truncate(at),
                _ if key == host => break,
                _ => key.clone_from(&host),
            }
        }
        match &self.store {
            Some(helper) => self.ask(helper, &server, limits).await,
            None => Ok(Login::None),
        }
    }

    async fn ask(&self, helper: &str, server: &str, limits: &Limits) -> Result<Login, UpstreamError> {
        let key = (helper.to_owned(), server.to_owned());
        let (helper, server) = key.clone();
        let (timeout, ttl) = (limits.helper, limits.helper_ttl);
        let fetch = move || async move {
            let program = PathBuf::from(format!("docker-credential-{helper}"));
            let login = run_helper(&program, &helper, &server, timeout).await?;
            Ok(Lease { value: login, until: Instant::now() + ttl })
        };
        self.answers.get(&key, Instant::now(), fetch).await
    }
}

impl Entry {
    /// Who the entry says we are; `None` if it cannot be read.
    fn login(self) -> Option<Login> {
        if let Some(token) = self.identitytoken.filter(|token| !token.is_empty()) {
            return Some(Login::Identity(token.into()));
        }
        if let Some(auth) = self.auth.filter(|auth| !auth.is_empty()) {
            let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
            let (username, password) = text.split_once(':')?;
            // Docker pads with NUL what it once wrote.
            let password = password.trim_end_matches('\0');
            return Some(Login::Basic { username: username.to_owned(), password: password.into() });
        }
        let login = self.username.filter(|name| !name.is_empty()).zip(self.password);
        let basic =
            |(username, password): (String, String)| Login::Basic { username, password: password.into() };
        Some(login.map_or(Login::None, basic))
    }
}

/// Runs `docker-credential-<name> get` with the server's name as its input. The program is killed if
/// it takes too long or is no longer waited for.
async fn run_helper(
    program: &Path,
    name: &str,
    server: &str,
    timeout: Duration,
) -> Result<Login, UpstreamError> {
    let failed = |why: &str| UpstreamError::Unreachable(format!("credential helper `{name}` {why}"));
    let run = async {
        let mut command = Command::new(program);
        command
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        // A program inherits the processors of the thread that starts it, and a worker has only one.
        let started = tokio::task::spawn_blocking(move || command.spawn()).await.map_err(io::Error::from);
        let mut child =
            started.flatten().map_err(|error| failed(&format!("cannot be run: {}", error.kind())))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that does not read its input still has its say.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        let mut answer = Vec::new();
        if let Some(stdout) = child.stdout.take() {
            let read = stdout.take(MAX_ANSWER).read_to_end(&mut answer).await;
            read.map_err(|error| failed(&format!("broke off: {}", error.kind())))?;
        }
        let status = child.wait().await.map_err(|error| failed(&format!("broke off: {}", error.kind())))?;
        if !status.success() {
            return match std::str::from_utf8(&answer) {
                Ok(text) if text.trim_start().starts_with(NOT_FOUND) => Ok(Login::None),
                _ => Err(failed(&format!("failed with {status}"))),
            };
        }
        let answer: HelperAnswer =
            serde_json::from_slice(&answer).map_err(|_| failed("gave an answer that cannot be read"))?;
        Ok(if answer.username == IDENTITY_USER {
            Login::Identity(answer.secret.into())
        } else {
            Login::Basic { username: answer.username, password: Secret::from(answer.secret) }
        })
    };
    tokio::time::timeout(timeout, run).await.unwrap_or_else(|_| Err(failed("did not answer in time")))
}

/// Letters, digits and `._-`: it becomes part of a program's name.
fn is_helper_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// `host[:port]` of a base URL, or Docker Hub's key.
fn place(base: &Url) -> String {
    let host = base.host_str().unwrap_or_default();
    match base.port() {
        None if HUB_HOSTS.contains(&host) => HUB.to_owned(),
        None => host.to_owned(),
        Some(port) => format!("{host}:{port}"),
    }
}

/// Keys as people and tools write them (`https://host/v1/`, `host/v2`, `docker.io`), as [`place`]
/// or `place/namespace`.
fn normal_key(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let bare = match bare {
        // With a scheme, what follows the host is the API's path; without, it is a namespace.
        Some(bare) => bare.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    let (host, namespace) = bare.split_once('/').map_or((bare, None), |(host, rest)| (host, Some(rest)));
    let namespace = namespace.filter(|rest| !matches!(*rest, "v1" | "v2"));
    let host = host.to_ascii_lowercase();
    let host = if HUB_HOSTS.contains(&host.as_str()) { HUB.to_owned() } else { host };
    namespace.map_or_else(|| host.clone(), |rest| format!("{}/{rest}", host.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::collection::hash_map;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn basic(username: &str, password: &str) -> Login {
        Login::Basic { username: username.to_owned(), password: password.into() }
    }

    async fn login(config: &str, base: &str, repository: &str) -> Login {
        let config = DockerConfig::parse(config.as_bytes()).expect("valid");
        let base = base.parse().expect("a URL");
        config.login(&base, Some(repository), &Limits::default()).await.expect("no helper")
    }

    #[tokio::test]
    async fn the_longest_prefix_decides() {
        // me:one, me:two, hub:three
        let config = r#"{"auths":{
            "ghcr.io":{"auth":"bWU6b25l"},
            "ghcr.io/team":{"auth":"bWU6dHdv"},
            "https://index.docker.io/v1/":{"auth":"aHViOnRocmVl"},
            "localhost:5000":{"username":"u","password":"p"},
            "quay.io":{"identitytoken":"idt"},
            "empty.example":{}
        }}"#;
        for (base, repository, expect) in [
            ("https://ghcr.io", "other/app", basic("me", "one")),
            ("https://ghcr.io", "team/app/deep", basic("me", "two")),
            ("https://ghcr.io", "teams/app", basic("me", "one")),
            ("https://registry-1.docker.io", "library/alpine", basic("hub", "three")),
            ("http://localhost:5000", "x", basic("u", "p")),
            ("http://localhost:5001", "x", Login::None),
            ("https://quay.io", "x", Login::Identity("idt".into())),
            ("https://empty.example", "x", Login::None),
        ] {
            assert_eq!(login(config, base, repository).await, expect, "{base} {repository}");
        }
    }

    #[test]
    fn keys_are_read_as_tools_write_them() {
        for (key, expect) in [
            ("https://index.docker.io/v1/", HUB),
            ("docker.io", HUB),
            ("index.docker.io/v1/", HUB),
            ("https://GHCR.io/v2/", "ghcr.io"),
            ("ghcr.io/team/", "ghcr.io/team"),
            ("docker.io/team", "https://index.docker.io/v1/team"),
        ] {
            assert_eq!(normal_key(key), expect, "{key}");
        }
    }

    #[test]
    fn files_that_cannot_be_used_are_refused() {
        for bad in [
            "",
            "[]",
            r#"{"auths":{"a":{"auth":"!!!"}}}"#,
            r#"{"auths":{"a":{"auth":"bm9jb2xvbg=="}}}"#,
            r#"{"credsStore":"../../bin/sh"}"#,
            r#"{"credHelpers":{"a":"x y"}}"#,
        ] {
            assert!(DockerConfig::parse(bad.as_bytes()).is_none(), "{bad}");
        }
    }

    async fn helper(script: &str) -> Result<Login, UpstreamError> {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("made executable");
        loop {
            let result = run_helper(&path, "test", HUB, Duration::from_secs(10)).await;
            // Another test's fork may hold the file open for writing for a moment.
            let busy = matches!(&result, Err(error) if error.to_string().contains("executable file busy"));
            if !busy {
                return result;
            }
        }
    }

    #[tokio::test]
    async fn a_helper_is_asked_on_its_input_and_answers_in_json() {
        let echo = r#"read server; [ "$1" = get ] && printf '{"Username":"me","Secret":"%s"}' "$server""#;
        assert_eq!(helper(echo).await.expect("good"), basic("me", HUB));
        let token = r#"echo '{"ServerURL":"x","Username":"<token>","Secret":"idt"}'"#;
        assert_eq!(helper(token).await.expect("good"), Login::Identity("idt".into()));
        let unknown = "echo 'credentials not found in native keychain'; exit 1";
        assert_eq!(helper(unknown).await.expect("good"), Login::None);
    }

    #[tokio::test]
    async fn a_helper_that_fails_is_named_and_what_it_said_is_not() {
        for script in [
            "echo canary; echo canary >&2; exit 3",
            "echo canary",
            r#"echo '{"Username":"me","Secret":["canary"]}'"#,
        ] {
            let error = helper(script).await.expect_err("failed");
            let text = format!("{error} {error:?}");
            assert!(text.contains("`test`") && !text.contains("canary"), "{text}");
        }
        let error = run_helper(Path::new("/nonexistent"), "test", HUB, Duration::from_secs(10)).await;
        assert!(error.expect_err("failed").to_string().contains("`test` cannot be run"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_file_names_a_program_by_a_path_or_makes_it_panic(
            auths in hash_map("[a-zA-Z:/.é]{0,12}", "[A-Za-z0-9+/=:é]{0,12}", 0..3),
            helpers in hash_map("[a-z:/.]{0,12}", "[a-z./\\\\ ]{0,4}", 0..2),
            store in option::of("[a-z./]{0,3}"),
            broken in option::weighted(0.1, any::<prop::sample::Index>()),
        ) {
            let auths: HashMap<_, _> =
                auths.into_iter().map(|(key, auth)| (key, serde_json::json!({ "auth": auth }))).collect();
            let file = serde_json::json!({ "auths": auths, "credHelpers": helpers, "credsStore": store });
            let mut text = file.to_string();
            text.truncate(broken.map_or(text.len(), |at| text.floor_char_boundary(at.index(text.len()))));
            if let Some(config) = DockerConfig::parse(text.as_bytes()) {
                let named = config.helpers.values().chain(&config.store);
                prop_assert!(named.into_iter().all(|name| !name.is_empty() && !name.contains(['/', '\\', ' '])));
            }
        }
    }
}
