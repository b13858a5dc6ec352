//! Whole configurations: what comes out, in which order sources win, and what each mistake says.

mod mistakes;
mod shown;
mod sources;
mod supplied;
mod types;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::{ArtifactType, Share};

/// A directory with a home, an `/etc` and a working directory of its own.
struct Machine {
    directory: tempfile::TempDir,
    variables: Vec<(String, String)>,
}

impl Machine {
    fn new(variables: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let home = directory.path().join("home").display().to_string();
        let mut variables: Vec<_> = variables.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect();
        variables.push(("HOME".to_owned(), home));
        Self { directory, variables }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.directory.path().join(path)
    }

    /// Writes a file that only the owner can read.
    fn write(&self, path: &str, text: &str) -> &Self {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
        self
    }

    fn environment(&self) -> Environment {
        Environment::new(self.variables.clone(), self.path("work"), self.path("etc"))
    }

    fn load_with(&self, options: &Options) -> Result<Config, ConfigError> {
        Config::load(options, &self.environment())
    }

    fn load(&self) -> Config {
        self.load_with(&Options::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The text of the error that a server gets, without the name of the temporary directory.
    fn error(&self) -> String {
        let loaded = self.load_with(&Options::default());
        let error = loaded.and_then(|config| config.supplies(&self.environment())).expect_err("an error");
        error.to_string().replace(&format!("{}/", self.directory.path().display()), "")
    }
}

fn with(text: &str) -> Machine {
    let machine = Machine::new(&[]);
    machine.write("work/repoxy.toml", text);
    machine
}

const FULL: &str = r#"
root = "file:///var/lib/repoxy"
listen = "127.0.0.1:7080"
public_url = "https://packages.example.org"
index = "/var/lib/repoxy/index"
[tls]
listen = "0.0.0.0:7443"
cert = "cert.pem"
key = "key.pem"
[gc]
grace = "24h"
max_bytes = "200GiB"
unused_for = "30d"
min_free = "7%"
[log]
format = "json"
level = "debug"
[[proxy]]
type = "container"
name = "hub"
upstream = "https://registry-1.docker.io"
ns = ["docker.io"]
default = true
ttl = "1h"
credentials = { username = "me", password_env = "HUB_TOKEN" }
[[proxy]]
name = "lan"
upstream = ["https://a.example.org:5000", "http://b.example.org/mirror"]
ns = ["Reg.Example.org:5000"]
allowed_hosts = ["10.0.0.7"]
ca_files = ["ca.pem", "/etc/ssl/ours.pem"]
connect_timeout = "5s"
idle_timeout = "30s"
max_connections = 16
retries = 0
breaker_after = 9
credentials = { token_file = "token" }
"#;

fn full() -> Machine {
    let mut machine = with(FULL);
    machine.variables.push(("HUB_TOKEN".to_owned(), "canary".to_owned()));
    machine.write("work/token", "canary\n");
    machine
}

#[test]
fn without_a_file_everything_has_a_default() {
    let machine = Machine::new(&[]);
    let config = machine.load();
    let root = machine.path("home/.local/share/repoxy");
    assert_eq!((config.file, config.root.as_str()), (None, root.to_str().expect("text")));
    assert_eq!(config.listen, ["127.0.0.1:7080".parse().expect("valid")]);
    assert_eq!(config.index, Some(root.join("index")));
    let gc = Gc { grace: Duration::from_secs(86_400), max_bytes: None, min_free: None, unused_for: None };
    assert_eq!(config.gc, gc);
    assert_eq!(config.log, Log { format: LogFormat::Text, level: LevelFilter::INFO });
    assert_eq!((config.tls, config.public_url, config.warnings), (None, None, Vec::new()));
    let proxies: Vec<_> =
        config.proxies.iter().map(|proxy| (proxy.id.name.as_str(), proxy.namespaces[0].as_str())).collect();
    assert_eq!(
        proxies,
        [
            ("hub", "docker.io"),
            ("ghcr", "ghcr.io"),
            ("quay", "quay.io"),
            ("k8s", "registry.k8s.io"),
            ("gcr", "gcr.io"),
            ("mcr", "mcr.microsoft.com"),
            ("ecr-public", "public.ecr.aws"),
            ("gitlab-com", "registry.gitlab.com"),
            ("terraform", "registry.terraform.io"),
            ("opentofu", "registry.opentofu.org"),
        ]
    );
}

#[test]
fn routing_learns_names_namespaces_the_default_and_the_ttl() {
    let table = full().load().names();
    let container = ArtifactType::Container;
    assert_eq!(table.default_of(container).expect("a default").id.to_string(), "container/hub");
    assert_eq!(table.named(container, "hub").expect("hub").ttl, Some(Duration::from_secs(3600)));
    let lan = table.serving(container, "reg.example.org:5000").expect("lan");
    assert_eq!((lan.id.name.as_str(), lan.default, lan.ttl), ("lan", false, None));
}

#[test]
fn a_full_file_is_read_as_it_is_written() {
    let machine = full();
    let config = machine.load();
    assert_eq!(config.file, Some(machine.path("work/repoxy.toml")));
    assert_eq!(config.root, "/var/lib/repoxy");
    assert_eq!(config.public_url.expect("given").as_str(), "https://packages.example.org/");
    assert_eq!(config.index, Some("/var/lib/repoxy/index".into()));
    let tls = Tls {
        listen: vec!["0.0.0.0:7443".parse().expect("valid")],
        cert: machine.path("work/cert.pem"),
        key: machine.path("work/key.pem"),
    };
    assert_eq!(config.tls, Some(tls));
    let gc = Gc {
        grace: Duration::from_secs(86_400),
        max_bytes: Some(200 << 30),
        min_free: Some(Share::Percent(7)),
        unused_for: Some(Duration::from_secs(30 * 86_400)),
    };
    assert_eq!(config.gc, gc);
    assert_eq!(config.log, Log { format: LogFormat::Json, level: LevelFilter::DEBUG });
    let [hub, lan] = config.proxies.as_slice() else { panic!("two proxies, no presets") };
    let password = Credentials::Password {
        username: "me".to_owned(),
        password: SecretFrom::Variable("HUB_TOKEN".to_owned()),
    };
    assert_eq!(hub.credentials, Some(password));
    let token = Credentials::Token(SecretFrom::File(machine.path("work/token")));
    assert_eq!(lan.credentials, Some(token));
    let upstreams: Vec<_> = lan.upstreams.iter().map(Url::as_str).collect();
    assert_eq!(upstreams, ["https://a.example.org:5000/", "http://b.example.org/mirror"]);
    assert_eq!(lan.allowed_hosts, ["10.0.0.7"]);
    assert_eq!(lan.ca_files, [machine.path("work/ca.pem"), "/etc/ssl/ours.pem".into()]);
    let limits = Limits {
        connect_timeout: Some(Duration::from_secs(5)),
        idle_timeout: Some(Duration::from_secs(30)),
        max_connections: Some(16),
        retries: Some(0),
        breaker_after: Some(9),
    };
    assert_eq!(lan.limits, limits);
}
