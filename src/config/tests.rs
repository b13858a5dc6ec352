//! Whole configurations: what comes out, in which order sources win, and what each mistake says.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::model::{ArtifactType, Heed, Leave, Share, Treatment};

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

    fn load_with(&self, options: &Options) -> Result<Config, ConfigError> {
        let variables = self.variables.clone();
        Config::load(options, &Environment::new(variables, self.path("work"), self.path("etc")))
    }

    fn load(&self) -> Config {
        self.load_with(&Options::default()).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The text of the error, without the name of the temporary directory.
    fn error(&self) -> String {
        let error = self.load_with(&Options::default()).expect_err("an error");
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
    let table = full().load().facts();
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
        password: Secret::new("canary"),
        from: SecretFrom::Variable("HUB_TOKEN".to_owned()),
    };
    assert_eq!(hub.credentials, Some(password));
    let token = Credentials::Token {
        token: Secret::new("canary"),
        from: SecretFrom::File(machine.path("work/token")),
    };
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

#[test]
fn the_first_file_that_is_there_is_read() {
    let machine = Machine::new(&[]);
    let places = ["work", "home/.local/share/repoxy/config", "home/.config/repoxy", "etc/repoxy"];
    for place in places.iter().rev() {
        let file = format!("{place}/repoxy.toml");
        machine.write(&file, "");
        assert_eq!(machine.load().file, Some(machine.path(&file)));
    }
    machine.write("other.toml", "");
    let options = |config: &str| Options { config: Some(config.into()), root: None };
    let named = machine.load_with(&options("../other.toml")).expect("valid");
    assert_eq!(named.file, Some(machine.path("work/../other.toml")));
    let missing = machine.load_with(&options("missing.toml")).expect_err("an error").to_string();
    assert!(missing.contains("missing.toml`: No such file"), "{missing}");

    let variable = Machine::new(&[("REPOXY_CONFIG", "my.toml")]);
    variable.write("work/my.toml", "").write("work/repoxy.toml", "");
    assert_eq!(variable.load().file, Some(variable.path("work/my.toml")));
}

#[test]
fn the_file_below_the_root_is_found_by_the_roots_option_or_variable() {
    let machine = Machine::new(&[]);
    machine.write("data/config/repoxy.toml", "").write("etc/repoxy/repoxy.toml", "");
    let options = Options { config: None, root: Some(machine.path("data").display().to_string()) };
    let config = machine.load_with(&options).expect("valid");
    assert_eq!(config.file, Some(machine.path("data/config/repoxy.toml")));
    assert_eq!(config.root, machine.path("data").display().to_string());

    let mut variable = Machine::new(&[]);
    variable.variables.push(("REPOXY_ROOT".to_owned(), variable.path("data").display().to_string()));
    variable.write("data/config/repoxy.toml", "root = '/elsewhere'");
    let config = variable.load();
    assert_eq!(config.file, Some(variable.path("data/config/repoxy.toml")));
    assert_eq!(config.root, variable.path("data").display().to_string(), "the variable wins");
}

#[test]
fn the_command_line_wins_over_the_environment_that_wins_over_the_file_that_wins_over_the_default() {
    let text = "root = '/file'\nlisten = '127.0.0.1:1'\n[gc]\ngrace = '1h'\n";
    let machine = with(text);
    let config = machine.load();
    assert_eq!((config.root.as_str(), config.gc.grace), ("/file", Duration::from_secs(3600)));
    assert!(matches!(config.origin("gc.grace"), Origin::File(at) if at.ends_with("repoxy.toml:4:9")));
    assert_eq!(config.origin("gc.max_bytes"), &Origin::Default);

    let mut machine = with(text);
    for (name, value) in [
        ("REPOXY_ROOT", "/variable"),
        ("REPOXY_LISTEN", "127.0.0.1:2, [::1]:2"),
        ("REPOXY_GC_GRACE", "2h"),
        ("REPOXY_TLS_CERT", "c.pem"),
        ("REPOXY_TLS_KEY", "/k.pem"),
        ("REPOXY_LOG_FORMAT", "json"),
    ] {
        machine.variables.push((name.to_owned(), value.to_owned()));
    }
    let config = machine.load();
    assert_eq!((config.root.as_str(), config.gc.grace), ("/variable", Duration::from_secs(7200)));
    assert_eq!(config.listen, ["127.0.0.1:2", "[::1]:2"].map(|text| text.parse().expect("valid")));
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.origin("root"), &Origin::Variable("REPOXY_ROOT".to_owned()));
    let tls = config.tls.expect("given");
    assert_eq!((tls.cert, tls.key), (machine.path("work/c.pem"), "/k.pem".into()));

    let options = Options { config: None, root: Some("mem://".to_owned()) };
    let config = machine.load_with(&options).expect("valid");
    assert_eq!((config.root.as_str(), config.index.as_deref()), ("mem://", None));
    assert_eq!(config.origin("root"), &Origin::CommandLine);
}

#[test]
fn a_proxy_is_changed_and_made_by_variables() {
    let mut machine = with(
        "[[proxy]]\nname = 'my-reg.x'\nupstream = 'https://a'\ncredentials = { username = 'u', password_file = 'missing' }\n",
    );
    for (name, value) in [
        ("REPOXY_PROXY_MY_REG_X_UPSTREAM", "https://b,https://c"),
        ("REPOXY_PROXY_MY_REG_X_PASSWORD", "canary"),
        ("REPOXY_PROXY_MY_REG_X_TTL", "7s"),
        ("REPOXY_PROXY_NEW_ONE_UPSTREAM", "https://d"),
        ("REPOXY_PROXY_NEW_ONE_NS", "d.example.org"),
        ("REPOXY_PROXY_NEW_ONE_DEFAULT", "true"),
    ] {
        machine.variables.push((name.to_owned(), value.to_owned()));
    }
    let config = machine.load();
    let [mine, new] = config.proxies.as_slice() else { panic!("two") };
    assert_eq!(mine.upstreams.iter().map(Url::as_str).collect::<Vec<_>>(), ["https://b/", "https://c/"]);
    assert_eq!(mine.ttl, Some(Duration::from_secs(7)));
    let password = Credentials::Password {
        username: "u".to_owned(),
        password: Secret::new("canary"),
        from: SecretFrom::Inline,
    };
    assert_eq!(mine.credentials, Some(password), "in place of the file's, which is not even read");
    assert_eq!((new.id.name.as_str(), new.default), ("new-one", true));
    assert_eq!(new.namespaces, ["d.example.org"]);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_default_of_one_type_leaves_that_of_another_alone() {
    let text = "presets = true\n[[proxy]]\ntype = 'tf'\nname = 'own'\nupstream = 'https://r.example.org'\ndefault = true\nunsigned = true\n";
    let table = with(text).load().facts();
    let default_of = |of| table.default_of(of).expect("a default").id.to_string();
    assert_eq!(
        (default_of(ArtifactType::Tf), default_of(ArtifactType::Container)),
        ("tf/own".into(), "container/hub".into())
    );
    let own = table.named(ArtifactType::Tf, "own").expect("own");
    assert!(own.unsigned && !table.named(ArtifactType::Tf, "terraform").expect("terraform").unsigned);
    assert_eq!(own.upstream.as_ref().map(url::Url::as_str), Some("https://r.example.org/"));
}

#[test]
fn presets_give_way_to_what_the_operator_defined() {
    let text = "presets = true\n[[proxy]]\nname = 'dockerhub'\nupstream = 'https://mirror.example.org'\nns = 'docker.io'\n[[proxy]]\nname = 'quay'\nupstream = 'https://q.example.org'\ndefault = true\n";
    let config = with(text).load();
    let names: Vec<_> = config.proxies.iter().map(|proxy| proxy.id.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "dockerhub",
            "quay",
            "ghcr",
            "k8s",
            "gcr",
            "mcr",
            "ecr-public",
            "gitlab-com",
            "terraform",
            "opentofu"
        ]
    );
    let defaults: Vec<_> =
        config.proxies.iter().filter(|proxy| proxy.default).map(|proxy| proxy.id.to_string()).collect();
    assert_eq!(defaults, ["container/quay", "tf/terraform"], "one a type");
    assert!(matches!(config.origin("proxy.quay.upstream"), Origin::File(_)));
}

#[test]
fn each_mistake_has_its_place_and_a_hint() {
    let proxy = "[[proxy]]\nname = 'a'\nupstream = 'https://a'\n";
    let two = "[[proxy]]\nname = 'b'\nupstream = 'https://b'\n";
    let files = "[[proxy]]\ntype = 'generic'\nname = 'f'\nupstream = 'https://f'\n";
    for (text, expected) in [
        ("lisen = 'x'", "1:1: unknown key `lisen`\nhint: did you mean `listen`?"),
        ("[gc]\ngrase = '1h'", "2:1: unknown key `grase` in `gc`\nhint: did you mean `grace`?"),
        (
            "[gc]\nzzz = 1\n",
            "2:1: unknown key `zzz` in `gc`\nhint: known are `grace`, `max_bytes`, `min_free`, `unused_for`",
        ),
        (
            "[[proxy]]\nname = 'a'\nupsteam = 'https://a'\n",
            "3:1: unknown key `upsteam` in `proxy.a`\nhint: did you mean `upstream`?",
        ),
        ("[[proxy]]\nname = 'a'\n", "1:1: proxy `a` has no `upstream`\nhint: add `upstream = \"https://…\"`"),
        (&format!("{proxy}ttk = 1"), "4:1: unknown key `ttk` in `proxy.a`\nhint: did you mean `ttl`?"),
        (
            &format!("{proxy}credentials = {{ user = 'x' }}"),
            "4:17: unknown key `user` in `proxy.a.credentials`\nhint: known are `username`, `password`, `password_env`, `password_file`, `token`, `token_env`, `token_file`, `docker_config`",
        ),
        (
            "listen = 7080",
            "1:10: `7080` is not an address to listen on\nhint: write IP address and port: `127.0.0.1:7080`, or `0.0.0.0:7080` for all",
        ),
        (
            "listen = ['127.0.0.1:1', 'localhost:80']",
            "1:26: `localhost:80` is not an address to listen on\nhint: write IP address and port: `127.0.0.1:80`, or `0.0.0.0:80` for all",
        ),
        (
            "listen = []",
            "1:10: `listen` is empty and there is no `[tls]`\nhint: write `listen = \"127.0.0.1:7080\"`",
        ),
        ("root = 1.5", "1:8: `root` cannot be of type float"),
        (
            "root = 's3://bucket'",
            "1:8: roots at `s3://` are not served by this version\nhint: write a path, `file:///var/lib/repoxy` or, for a trial, `mem://`",
        ),
        (
            "root = 'file://var/lib'",
            "1:8: `file://var/lib` is not an absolute path\nhint: write three slashes: `file:///var/lib/repoxy`",
        ),
        (
            "\n[gc]\n  grace = 24 # é",
            "3:11: `24` is not a duration\nhint: write a whole number and a unit: `90s`, `15m`, `24h`, `30d`, `2w`",
        ),
        (
            "[gc]\nmax_bytes = 'much'",
            "2:13: `much` is not a size\nhint: write a whole number and a unit: `500MB`, `200GiB`, `2TiB`",
        ),
        ("gc = 1", "1:6: `gc` cannot be of type integer\nhint: write a table: `gc = { … }`"),
        ("proxy = {}", "1:9: `proxy` is not a list of tables\nhint: begin each with a line `[[proxy]]`"),
        (
            "[log]\nlevel = 'loud'",
            "2:9: `loud` is not a level\nhint: levels are `error`, `warn`, `info`, `debug` and `trace`",
        ),
        (
            "[tls]\ncert = 'c.pem'",
            "1:1: `tls` has no `key`\nhint: TLS needs both: `cert = \"cert.pem\"` and `key = \"key.pem\"`",
        ),
        ("[[proxy]]\nupstream = 'https://a'", "1:1: a proxy has no `name`\nhint: add `name = \"…\"`"),
        (
            "[[proxy]]\nname = 'Hub'",
            "2:8: `Hub` is not a proxy name: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, starting with a letter or digit, not ending in a dot",
        ),
        (
            "[[proxy]]\nname = 'a'\nupstream = 'https://a'\nunsigned = true",
            "4:1: unknown key `unsigned` in `proxy.a`\nhint: known are `type`, `name`, `upstream`, `ns`, `default`, `ttl`, `credentials`, `allowed_hosts`, `ca_files`, `connect_timeout`, `idle_timeout`, `max_connections`, `retries`, `breaker_after`",
        ),
        (
            "[[proxy]]\nname = 'a'\nupstream = 'ghcr.io'",
            "3:12: not a URL: relative URL without a base\nhint: write it as `https://registry.example.org`",
        ),
        ("[[proxy]]\nname = 'a'\nupstream = 'ftp://a'", "3:12: `ftp` is not `http` or `https`"),
        (
            "[[proxy]]\nname = 'a'\nupstream = 'https://u:canary@a'",
            "3:12: a URL with a name or password in it\nhint: write them as `credentials = { username = \"…\", password_env = \"…\" }`",
        ),
        (
            &format!("{proxy}ns = 'https://docker.io'"),
            "4:6: `https://docker.io` is not a host name\nhint: write the host alone, perhaps with a port: `docker.io`, `registry.example.org:5000`",
        ),
        (
            &format!("{proxy}{proxy}"),
            "4:1: there are two `container` proxies called `a`\nhint: the other one is at work/repoxy.toml:1:1",
        ),
        (
            &format!("{proxy}default = true\n{two}default = true"),
            "5:1: `a` and `b` are both `default`\nhint: one proxy of a type can take the requests that name none",
        ),
        (
            &format!("{proxy}ns = ['x.io', 'y.io']\n{two}ns = ['z.io', 'Y.io']"),
            "5:1: `a` and `b` both answer for `y.io`\nhint: the other one is at work/repoxy.toml:1:1",
        ),
        (
            &format!("{proxy}{two}ns = 'a'"),
            "4:1: `a` and `b` both answer for `a`\nhint: the other one is at work/repoxy.toml:1:1",
        ),
        (
            "presets = false",
            "1:1: no proxy is configured\nhint: add a `[[proxy]]`, or set `presets = true` for the public registries",
        ),
        (
            &format!("{proxy}credentials = {{ username = 'u', password_env = 'NOPE' }}"),
            "4:48: the environment has no variable `NOPE`\nhint: set `NOPE`, or change `password_env`",
        ),
        (
            &format!("{proxy}credentials = {{ username = 'u', password_file = 'nope' }}"),
            "4:49: cannot read `work/nope`: No such file or directory (os error 2)",
        ),
        (
            &format!("{proxy}credentials = {{ username = 'u' }}"),
            "4:28: a `username` without a password\nhint: add `password_env`, `password_file` or `password`",
        ),
        (
            &format!("{proxy}credentials = {{ password = 'canary' }}"),
            "4:28: a `password` without a `username`\nhint: add `username`",
        ),
        (
            &format!("{proxy}credentials = {{ username = 'u', password = 'canary', token = 'canary' }}"),
            "4:62: both `password` and `token` are set\nhint: a proxy has one way to log in; remove one of them",
        ),
        (
            &format!("{proxy}credentials = {{ username = 'u', token = 'canary' }}"),
            "4:28: both `username` and `token` are set\nhint: a token stands alone; with a name it is a `password`",
        ),
        (
            &format!("{proxy}credentials = {{ username = 'u', docker_config = 'c.json' }}"),
            "4:28: both `username` and `docker_config` are set\nhint: the Docker configuration has the name already; remove `username`",
        ),
        (&format!("{proxy}max_connections = 0"), "4:19: `0` is not a number from 1 on"),
        (&format!("{proxy}connect_timeout = '0s'"), "4:19: a time to wait of zero never succeeds"),
        (&format!("{proxy}upstream = 'https://b'"), "4:1: duplicate key"),
        (
            &format!("{files}[[proxy.rules]]\nimmutable = true"),
            "5:1: a rule has no `match`\nhint: add `match = \"*.tar.gz\"`",
        ),
        (
            &format!("{files}[[proxy.rules]]\nmatch = '*'\nttl = '1d'\nimmutable = true"),
            "5:1: a rule says one thing about how long its paths are kept\nhint: write one of `immutable = true`, `ttl = \"1d\"`, `store = false`",
        ),
        (
            &format!("{files}[[proxy.rules]]\nmatch = '*'\nstore = false\nsidecar = '.md5'"),
            "5:1: a rule has a `sidecar` for what is not stored\nhint: remove `sidecar`, or store what it checks",
        ),
        (
            &format!("{files}[[proxy.rules]]\nmatch = ''\n"),
            "6:9: a pattern is 1 to 256 characters with at most 8 `*` or `**` in it\nhint: `*.tar.gz` is for file names, `dists/**` for paths",
        ),
        (
            "[[proxy]]\ntype = 'debian'\nname = 'd'\nupstream = 'http://a'\nkeyring = 'no.gpg'",
            "5:11: cannot read the keyring `work/no.gpg`: No such file or directory (os error 2)\nhint: export the keys with `gpg --export --output <file> <key>…`",
        ),
        ("a = = 1", "1:5: extra `=`, expected nothing"),
    ] {
        assert_eq!(with(text).error(), format!("work/repoxy.toml:{expected}"), "{text}");
    }
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    for (name, value, expected) in [
        (
            "REPOXY_GC_GRACE",
            "soon",
            "`soon` is not a duration\nhint: write a whole number and a unit: `90s`, `15m`, `24h`, `30d`, `2w`",
        ),
        ("REPOXY_PROXY_HUB_DEFAULT", "maybe", "`maybe` is neither `true` nor `false`"),
        (
            "REPOXY_ROOT",
            "s3://b",
            "roots at `s3://` are not served by this version\nhint: write a path, `file:///var/lib/repoxy` or, for a trial, `mem://`",
        ),
        (
            "REPOXY_PROXY_GHCR_NS",
            "docker.io",
            "`hub` and `ghcr` both answer for `docker.io`\nhint: the other one is built in; `presets = false` leaves those out",
        ),
        (
            "REPOXY_PROXY_GHCR_TOKEN_ENV",
            "NOPE",
            "the environment has no variable `NOPE`\nhint: set `NOPE`, or change `token_env`",
        ),
    ] {
        assert_eq!(Machine::new(&[(name, value)]).error(), format!("{name}: {expected}"));
    }
}

#[test]
fn a_variable_that_is_nearly_one_of_ours_is_a_warning_and_others_are_not_ours() {
    let machine = Machine::new(&[
        ("REPOXY_LISTN", "x"),
        ("REPOXY_PROXY_HUB_PASWORD", "canary"),
        ("REPOXY_SERVICE_HOST", "10.0.0.1"),
        ("REPOXY_PORT", "tcp://10.0.0.1:7080"),
        ("REPOXY_PORT_7080_TCP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(
        machine.load().warnings,
        [
            "`REPOXY_LISTN` means nothing; did you mean `REPOXY_LISTEN`?",
            "`REPOXY_PROXY_HUB_PASWORD` means nothing; did you mean `REPOXY_PROXY_HUB_PASSWORD`?"
        ]
    );
}

#[test]
fn a_password_in_a_file_that_others_can_read_is_a_warning() {
    let text = "[[proxy]]\nname = 'a'\nupstream = 'https://a'\ncredentials = { username = 'u', password = 'canary' }\n";
    let machine = with(text);
    let file = machine.path("work/repoxy.toml");
    assert_eq!(machine.load().warnings, Vec::<String>::new());
    for mode in [0o640, 0o604] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).expect("set");
        let warnings = machine.load().warnings;
        assert_eq!(warnings.len(), 1, "{mode:o}");
        assert!(warnings[0].contains("chmod 600") && !warnings[0].contains("canary"), "{warnings:?}");
    }
    let harmless = text.replace("password = 'canary'", "password_env = 'HOME'");
    machine.write("work/repoxy.toml", &harmless);
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("set");
    assert_eq!(machine.load().warnings, Vec::<String>::new());
}

#[test]
fn what_is_shown_is_a_configuration_with_masked_secrets_and_their_places() {
    let mut machine = full();
    machine.variables.push(("REPOXY_GC_GRACE".to_owned(), "36h".to_owned()));
    let config = machine.load();
    let shown = config.to_string();
    assert!(!shown.contains("canary") && !format!("{config:?}").contains("canary"), "{shown}");
    for line in [
        "grace = \"36h\"  # REPOXY_GC_GRACE\n",
        "password_env = \"HUB_TOKEN\"  # ",
        "format = \"json\"  # ",
        "max_bytes = \"200GiB\"  # ",
        "min_free = \"7%\"  # ",
        "repoxy.toml:13:14\n",
    ] {
        assert!(shown.contains(line), "{line} is not in\n{shown}");
    }
    let again = Machine { variables: machine.variables.clone(), ..Machine::new(&[]) };
    again.write("work/repoxy.toml", &shown);
    let again = again.load();
    assert_eq!((again.proxies, again.gc, again.tls), (config.proxies, config.gc, config.tls));

    let inline =
        with("[[proxy]]\nname = 'a'\nupstream = 'https://a'\ncredentials = { token = 'canary' }\n").load();
    let shown = inline.to_string();
    assert!(shown.contains("token = \"***\"  # ") && !shown.contains("canary"), "{shown}");
    assert!(!format!("{inline:?}").contains("canary"));
}

#[test]
fn the_configuration_of_nobody_is_shown_in_full() {
    let mut machine = Machine::new(&[("XDG_DATA_HOME", "/data")]);
    machine.variables.push(("REPOXY_PROXY_HUB_TTL".to_owned(), "90s".to_owned()));
    let shown = machine.load().to_string();
    let (head, _) = shown.split_once("\n[[proxy]]\ntype = \"container\"\nname = \"ghcr\"").expect("presets");
    assert_eq!(
        head,
        r#"# there is no configuration file
root = "/data/repoxy"  # default
listen = ["127.0.0.1:7080"]  # default
index = "/data/repoxy/index"  # default
hot_bytes = "32MiB"  # default

[gc]
grace = "1d"  # default

[log]
format = "text"  # default
level = "info"  # default

[[proxy]]
type = "container"
name = "hub"
upstream = ["https://registry-1.docker.io/"]  # default
ns = ["docker.io"]  # default
default = true  # default
ttl = "90s"  # REPOXY_PROXY_HUB_TTL
"#
    );
}

#[test]
fn a_proxy_for_plain_files_has_rules_and_switches() {
    let config = with(
        r#"
[[proxy]]
type = "generic"
name = "files"
upstream = "https://files.example.org/pub"
honour_client_directives = false
stale_if_error = "30d"
follow_redirects = false
forward_authorization = true
forward_unsafe = true
[[proxy.rules]]
match = "*.tar.gz"
immutable = true
sidecar = ".sha256"
[[proxy.rules]]
match = "dists/**"
ttl = "1h"
[[proxy.rules]]
match = "*"
store = false
"#,
    )
    .load();
    let rules = config.proxies[0].facts().http.expect("it is for plain files");
    assert_eq!(rules.leave, Leave { stale_if_error: Duration::from_secs(30 * 86_400) });
    assert_eq!(rules.heed, Heed::Nothing);
    assert!(rules.keep_redirects && rules.forward_authorization && rules.forward_unsafe);
    let treatments: Vec<_> = rules.rules.iter().map(|rule| rule.treatment).collect();
    let hour = Treatment::For(Duration::from_secs(3600));
    assert_eq!(treatments, [Treatment::Immutable, hour, Treatment::NoStore]);
    assert_eq!(rules.rules[0].sidecar.as_deref(), Some(".sha256"));
    let shown = config.to_string();
    for line in ["[[proxy.rules]]", "match = \"dists/**\"", "ttl = \"1h\"", "stale_if_error = \"30d\""] {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
}

#[test]
fn a_debian_archive_has_namespaces_with_paths_and_a_keyring() {
    let machine = with(
        "[[proxy]]\ntype = 'debian'\nname = 'mine'\nupstream = 'http://m.example.org/pub/debian'\n\
         ns = ['d.example.org', 'D.example.org/Other/']\nkeyring = 'keys.gpg'\n",
    );
    machine.write("work/keys.gpg", "not looked at yet");
    let config = machine.load();
    let facts = config.facts();
    let facts = facts.iter().next().expect("one proxy");
    assert_eq!(facts.namespaces, ["d.example.org/pub/debian", "d.example.org/Other"]);
    assert_eq!(facts.keyring.as_deref(), Some(&b"not looked at yet"[..]));
    let shown = config.to_string();
    assert!(shown.contains("keyring = ") && !shown.contains("not looked at"), "{shown}");
}
