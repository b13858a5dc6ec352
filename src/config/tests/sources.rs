//! Which file is read, and what wins: the command line, the environment, the file or the default.

use super::*;

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
    assert!(missing.starts_with("command line: cannot read `"), "{missing}");
    assert!(missing.contains("missing.toml`: No such file") && missing.contains("\nhint: "), "{missing}");

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
        ("REPOXY_PROXY_NEW_ONE_TYPE", "tf"),
        ("REPOXY_PROXY_NEW_ONE_UNSIGNED", "true"),
    ] {
        machine.variables.push((name.to_owned(), value.to_owned()));
    }
    let config = machine.load();
    let [mine, new] = config.proxies.as_slice() else { panic!("two") };
    assert_eq!(mine.upstreams.iter().map(Url::as_str).collect::<Vec<_>>(), ["https://b/", "https://c/"]);
    assert_eq!(mine.ttl, Some(Duration::from_secs(7)));
    let password = Credentials::Password {
        username: "u".to_owned(),
        password: SecretFrom::Inline(Secret::new("canary")),
    };
    assert_eq!(mine.credentials, Some(password), "in place of the file's");
    assert!(config.supplies(&machine.environment()).is_ok(), "the file is not even looked for");
    assert_eq!((new.id.to_string().as_str(), new.default, new.unsigned), ("tf/new-one", true, true));
    assert_eq!(config.origin("proxy.new-one.type").to_string(), "REPOXY_PROXY_NEW_ONE_TYPE");
    assert_eq!(new.namespaces, ["d.example.org"]);
    assert_eq!(config.warnings, Vec::<String>::new());
}
