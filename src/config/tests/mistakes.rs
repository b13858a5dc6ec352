//! What each mistake says, and what is only warned of.

use super::*;

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
        (
            "public_url = 'packages.example.org'",
            "1:14: not a URL: relative URL without a base\nhint: write it as `https://registry.example.org`",
        ),
        (
            "public_url = 'https://packages.example.org:8443/cache/'",
            "1:14: a URL with a path in it, which a server's own cannot have\nhint: write `https://packages.example.org:8443`",
        ),
        (
            "public_url = 'https://packages.example.org/?cache'",
            "1:14: a URL with a query or fragment in it, which a server's own cannot have\nhint: write `https://packages.example.org`",
        ),
        (
            "public_url = 'https://packages.example.org#'",
            "1:14: a URL with a query or fragment in it, which a server's own cannot have\nhint: write `https://packages.example.org`",
        ),
        (
            "public_url = 'https://me:canary@packages.example.org'",
            "1:14: a URL with a name or password in it, which a server's own cannot have\nhint: write `https://packages.example.org`",
        ),
        (
            "root = 1.5",
            "1:8: `root` cannot be of type float\nhint: write one value in quotes: `root = \"…\"`",
        ),
        ("root = ''", "1:8: an empty value\nhint: write something, or remove the key"),
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
            "2:8: `Hub` is not a proxy name: 1 to 64 of `a-z`, `0-9`, `.`, `_`, `-`, starting with a letter or digit, not ending in a dot\nhint: write it like `hub` or `my-registry`",
        ),
        (
            "[[proxy]]\nname = 'a'\nupstream = 'https://a'\nunsigned = true",
            "4:1: unknown key `unsigned` in `proxy.a`\nhint: known are `name`, `type`, `read_ahead`, `upstream`, `ns`, `default`, `ttl`, `credentials`, `allowed_hosts`, `ca_files`, `connect_timeout`, `idle_timeout`, `max_connections`, `retries`, `breaker_after`",
        ),
        (
            "[[proxy]]\nname = 'a'\nupstream = 'ghcr.io'",
            "3:12: not a URL: relative URL without a base\nhint: write it as `https://registry.example.org`",
        ),
        (
            "[[proxy]]\nname = 'a'\nupstream = 'ftp://a'",
            "3:12: `ftp` is not `http` or `https`\nhint: write it as `https://registry.example.org`",
        ),
        (
            "[[proxy]]\nname = 'a'\nupstream = 'https://a/?b'",
            "3:12: `https://a/?b` has a query or fragment, which a server URL cannot have\nhint: end it before `?` or `#`",
        ),
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
            "4:49: cannot read the secret `work/nope`: No such file or directory (os error 2)\nhint: write the path of a file with nothing but the secret in it",
        ),
        (
            &format!("{proxy}credentials = {{ docker_config = 'nope.json' }}"),
            "4:33: cannot read the Docker configuration `work/nope.json`: No such file or directory (os error 2)\nhint: `docker login` writes one",
        ),
        (
            &format!("{proxy}ca_files = 'nope.pem'"),
            "4:12: cannot read the certificates `work/nope.pem`: No such file or directory (os error 2)\nhint: write the path of a PEM file",
        ),
        (
            "[tls]\ncert = 'c.pem'\nkey = 'k.pem'",
            "2:8: cannot read the certificate `work/c.pem`: No such file or directory (os error 2)\nhint: write the path of a PEM file",
        ),
        (
            "[tls]",
            "1:1: `tls` has no `cert`\nhint: TLS needs both: `cert = \"cert.pem\"` and `key = \"key.pem\"`",
        ),
        (
            "[tls]\nlisten = []\ncert = 'c.pem'\nkey = 'k.pem'",
            "2:10: `tls.listen` is empty\nhint: write `listen = \"127.0.0.1:7443\"`, or remove `[tls]`",
        ),
        (
            &format!("{proxy}ns = '::'"),
            "4:6: `::` is not a host name\nhint: write the host alone, perhaps with a port: `docker.io`, `registry.example.org:5000`",
        ),
        (
            &format!("{proxy}allowed_hosts = '::::'"),
            "4:17: `::::` is not a host name\nhint: write the host alone, perhaps with a port: `docker.io`, `registry.example.org:5000`",
        ),
        (
            "[[proxy]]\nnmae = 'a'\nupstream = 'https://a'",
            "2:1: unknown key `nmae` in `proxy`\nhint: did you mean `name`?",
        ),
        ("presets = false\n[[proxi]]\nname = 'a'", "2:3: unknown key `proxi`\nhint: did you mean `proxy`?"),
        (
            &format!("{files}[[proxy.rules]]\nmtach = '*'\nimmutable = true"),
            "6:1: unknown key `mtach` in `rules`\nhint: did you mean `match`?",
        ),
        (
            &format!("{proxy}[[proxy]]\ntype = 'tf'\nname = 'a'\nupstream = 'https://b'"),
            "4:1: `container/a` and `tf/a` share the variables `REPOXY_PROXY_A_…`\nhint: give one another name; the other one is at work/repoxy.toml:1:1",
        ),
        (
            "[[proxy]]\nname = 'my-reg'\nupstream = 'https://a'\n[[proxy]]\nname = 'my.reg'\nupstream = 'https://b'",
            "4:1: `container/my-reg` and `container/my.reg` share the variables `REPOXY_PROXY_MY_REG_…`\nhint: give one another name; the other one is at work/repoxy.toml:1:1",
        ),
        (
            "[log]\nformat = 'xml'",
            "2:10: `xml` is neither `text` nor `json`\nhint: write `text` for people, `json` for programs",
        ),
        (
            "presets = 'x'",
            "1:11: `x` is neither `true` nor `false`\nhint: write `true` for yes, `false` for no",
        ),
        (
            &format!("{proxy}default = 'yes'"),
            "4:11: `yes` is neither `true` nor `false`\nhint: write `true` for yes, `false` for no",
        ),
        (
            &format!("{proxy}retries = -1"),
            "4:11: `-1` is not a number from 0 on\nhint: write a whole number such as `2`",
        ),
        (
            &format!("{proxy}ttl = 1979-05-27"),
            "4:7: `proxy.a.ttl` cannot be of type datetime\nhint: write one value in quotes: `ttl = \"…\"`",
        ),
        (
            "[gc]\nmin_free = '95%%'",
            "2:12: `95%%` is not a percentage from 0 to 90\nhint: write a whole number and one `%`, or a size: `5%`, `20GiB`",
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
        (
            &format!("{proxy}max_connections = 0"),
            "4:19: `0` is not a number from 1 on\nhint: write a whole number such as `16`",
        ),
        (
            &format!("{proxy}connect_timeout = '0s'"),
            "4:19: a time to wait of zero never succeeds\nhint: write how long it may take, such as `5s`",
        ),
        (&format!("{proxy}upstream = 'https://b'"), "4:1: duplicate key\nhint: remove one of the two"),
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
        (
            "a = = 1",
            "1:5: extra `=`, expected nothing\nhint: the file is TOML: lines `key = \"text\"`, `key = 1` or `key = true`, below `[section]`",
        ),
    ] {
        assert!(expected.contains("\nhint: "), "{expected}");
        assert_eq!(with(text).error(), format!("work/repoxy.toml:{expected}"), "{text}");
    }
}

#[test]
fn a_file_that_is_not_utf_8_is_refused_where_it_ceases_to_be() {
    let machine = with("");
    fs::write(machine.path("work/repoxy.toml"), b"root = '/a'\nindex = '\xff'").expect("written");
    assert_eq!(
        machine.error(),
        "work/repoxy.toml:2:10: a character that is not UTF-8\nhint: save the file in UTF-8"
    );
}

#[test]
fn a_mistake_in_a_variable_names_the_variable() {
    for (name, value, expected) in [
        (
            "REPOXY_GC_GRACE",
            "soon",
            "`soon` is not a duration\nhint: write a whole number and a unit: `90s`, `15m`, `24h`, `30d`, `2w`",
        ),
        (
            "REPOXY_PROXY_HUB_DEFAULT",
            "maybe",
            "`maybe` is neither `true` nor `false`\nhint: write `true` for yes, `false` for no",
        ),
        (
            "REPOXY_PROXY_HUB_TYPE",
            "apt",
            "proxies of type `apt` are not served by this version\nhint: supported is `container`, `tf`, `debian`, `generic`",
        ),
        (
            "REPOXY_CONFIG",
            "missing.toml",
            "cannot read `work/missing.toml`: No such file or directory (os error 2)\nhint: write the path of a configuration file that this user may read",
        ),
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
        ("REPOXY_PROXY_HUB_CREDENTIALS_PASSWORD", "canary"),
        ("REPOXY_PROXY_HUB_NAME", "other"),
        ("REPOXY_PROXY_HBU_TTL", "1h"),
        ("REPOXY_PROXY_SERVICE_HOST", "10.0.0.1"),
        ("REPOXY_SERVICE_HOST", "10.0.0.1"),
        ("REPOXY_PORT", "tcp://10.0.0.1:7080"),
        ("REPOXY_PORT_7080_TCP_ADDR", "10.0.0.1"),
    ]);
    assert_eq!(
        machine.load().warnings,
        [
            "`REPOXY_LISTN` means nothing; did you mean `REPOXY_LISTEN`?",
            "`REPOXY_PROXY_HBU_TTL` means nothing; did you mean `REPOXY_PROXY_HUB_TTL`?",
            "`REPOXY_PROXY_HUB_CREDENTIALS_PASSWORD` means nothing; did you mean `REPOXY_PROXY_HUB_PASSWORD`?",
            "`REPOXY_PROXY_HUB_NAME` means nothing",
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
