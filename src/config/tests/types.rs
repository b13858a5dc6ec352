//! Proxies of each type: presets, the default of each, and what each can be told.

use super::*;
use crate::model::{Heed, Leave, Treatment};

#[test]
fn the_default_of_one_type_leaves_that_of_another_alone() {
    let text = "presets = true\n[[proxy]]\ntype = 'tf'\nname = 'own'\nupstream = 'https://r.example.org'\ndefault = true\nunsigned = true\n";
    let table = with(text).load().names();
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
    let rules = config.proxies[0].http.clone().expect("it is for plain files");
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
    let supplies = config.supplies(&machine.environment()).expect("all is there");
    let facts = supplies.proxies.iter().next().expect("one proxy");
    assert_eq!(facts.namespaces, ["d.example.org/pub/debian", "d.example.org/Other"]);
    assert_eq!(facts.keyring.as_deref(), Some(&b"not looked at yet"[..]));
    let shown = config.to_string();
    assert!(shown.contains("keyring = ") && !shown.contains("not looked at"), "{shown}");
}
