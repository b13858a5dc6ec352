//! A configuration as it is shown: a file again, with places and without secrets.

use super::*;

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
    let (head, _) =
        shown.split_once("\n[[proxy]]\ntype = \"container\"  # default\nname = \"ghcr\"").expect("presets");
    assert_eq!(
        head,
        r#"# there is no configuration file
root = "/data/repoxy"  # default
listen = ["127.0.0.1:7080"]  # default
index = "/data/repoxy/index"  # default
hot_bytes = "32MiB"  # default
presets = true  # default

[gc]
grace = "1d"  # default

[log]
format = "text"  # default
level = "info"  # default

[[proxy]]
type = "container"  # default
name = "hub"
upstream = ["https://registry-1.docker.io/"]  # default
ns = ["docker.io"]  # default
default = true  # default
ttl = "90s"  # REPOXY_PROXY_HUB_TTL
read_ahead = true  # default
"#
    );
    for (name, unsigned) in [("terraform", false), ("opentofu", true)] {
        let (_, proxy) = shown.split_once(&format!("name = \"{name}\"\n")).expect("a preset");
        let proxy = proxy.split("\n\n").next().unwrap_or_default();
        assert!(proxy.lines().any(|line| line == format!("unsigned = {unsigned}  # default")), "{proxy}");
    }
    assert_eq!(with(&shown).load().proxies, machine.load().proxies);
}
