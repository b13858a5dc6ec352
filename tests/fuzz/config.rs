//! Configuration files that are nearly right: taken, or refused with a word on where and why.

use std::io::Write as _;

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use repoxy::config::{Config, Credentials, Environment, Options, SecretFrom, parse_duration, parse_size};

use super::edit::edited_text;

/// A file that sets everything there is.
const FULL: &str = r#"
root = "file:///var/lib/repoxy"
listen = ["127.0.0.1:7080", "[::1]:7080"]
public_url = "https://packages.example.org"
index = "/var/lib/repoxy/index"
hot_bytes = "32MiB"
presets = true
[tls]
listen = "127.0.0.1:7443"
cert = "cert.pem"
key = "key.pem"
[gc]
grace = "24h"
max_bytes = "200GiB"
unused_for = "4w"
[log]
format = "json"
level = "debug"
[[proxy]]
name = "ecr"
upstream = ["https://public.ecr.aws", "http://[::1]:5000"]
ns = "public.ecr.aws"
default = true
ttl = "10m"
allowed_hosts = ["files.example"]
retries = 2
breaker_after = 5
credentials = { username = "AWS", password = "canary" }
[[proxy]]
name = "archive"
type = "debian"
upstream = "https://archive.example/debian"
ns = ["archive.example/debian"]
[[proxy]]
name = "files"
type = "generic"
upstream = "https://files.example/"
honour_client_directives = false
stale_if_error = "1h"
[[proxy.rules]]
match = "/releases/**"
immutable = true
sidecar = ".sha256"
"#;

/// What readers of TOML, durations, sizes, addresses and names stumble over.
const PIECES: &[&str] = &[
    "\n",
    "\"",
    "'",
    "\"\"\"",
    "=",
    "[",
    "]",
    "[[",
    "{",
    "}",
    ",",
    ".",
    "#",
    "\\",
    "\\u0000",
    "-",
    "0",
    "-1",
    "18446744073709551616",
    "1e9",
    "true",
    "inf",
    "1979-05-27",
    "é",
    "\0",
    " = 1\n",
    "[proxy]\n",
    "[[proxy]]\n",
    "name = \"hub\"\n",
    "type = \"tf\"\n",
    "upstream = \"\"\n",
    "unsigned = true\n",
    "default = true\n",
    "../",
    "mem://",
    "http://",
    "https://",
    "ms",
    "s",
    "w",
    "KiB",
    "TiB",
    "99999999999999999999w",
    "*",
    "**",
    "/",
    ":0",
    ":99999",
];

/// The password in it.
const SECRET: &str = "canary";

fn is_secret(credentials: Option<&Credentials>) -> bool {
    matches!(credentials, Some(Credentials::Password { password: SecretFrom::Inline(password), .. }) if password.reveal() == SECRET)
}

#[test]
fn a_configuration_is_taken_or_refused_with_its_place_and_shows_no_secret() {
    let machine = tempfile::tempdir().expect("a directory");
    let environment = Environment::new([], machine.path(), machine.path());
    TestRunner::new(super::cases())
        .run(&edited_text(vec![FULL], PIECES), |text| {
            // A new one each time: a file that is written over is flushed to the disk.
            let mut file = tempfile::NamedTempFile::new_in(machine.path()).expect("a file");
            file.write_all(text.as_bytes()).expect("written");
            let options = Options { config: Some(file.path().to_owned()), root: None };
            let shown = match Config::load(&options, &environment) {
                Err(error) => {
                    prop_assert!(!error.to_string().is_empty());
                    return Ok(());
                }
                Ok(config) => {
                    prop_assert_eq!(config.names().iter().count(), config.proxies.len());
                    let has_secret = config.proxies.iter().any(|proxy| is_secret(proxy.credentials.as_ref()));
                    // Edits can make something else of the password.
                    if !has_secret || text.matches(SECRET).count() > 1 {
                        return Ok(());
                    }
                    format!("{config} {config:?}")
                }
            };
            prop_assert!(!shown.contains(SECRET), "{}", shown);
            Ok(())
        })
        .unwrap_or_else(|failure| panic!("{failure}"));
}

proptest! {
    #![proptest_config(super::cases())]

    #[test]
    fn a_duration_or_a_size_is_read_or_refused(text in edited_text(vec!["24h", "200GiB", "1w", "10 ms"], PIECES)) {
        for error in [parse_duration(&text).err(), parse_size(&text).err()].into_iter().flatten() {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
