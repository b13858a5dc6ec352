//! What the configuration only names: left alone until a server asks for it, then found or missed.

use super::*;

#[test]
fn what_only_a_server_needs_may_be_missing_until_it_is_asked_for() {
    let proxy = "[[proxy]]\nname = 'a'\nupstream = 'https://a'\n";
    let debian = "[[proxy]]\ntype = 'debian'\nname = 'd'\nupstream = 'https://d'\n";
    for text in [
        &format!("{proxy}credentials = {{ token_env = 'NOPE' }}\n"),
        &format!("{proxy}credentials = {{ token_file = 'nope' }}\n"),
        &format!("{proxy}credentials = {{ docker_config = 'nope' }}\n"),
        &format!("{proxy}ca_files = 'nope'\n"),
        &format!("{debian}keyring = 'nope'\n"),
        "[tls]\ncert = 'nope'\nkey = 'nope'\n",
    ] {
        let machine = with(text);
        let missing = machine.load().supplies(&machine.environment()).expect_err(text).to_string();
        assert!(missing.contains("repoxy.toml:") && missing.contains("\nhint: "), "{missing}");
    }
}

#[test]
fn secrets_are_found_where_they_are_and_shown_to_nobody() {
    let machine = full();
    machine.write("work/cert.pem", "x").write("work/key.pem", "x").write("work/ca.pem", "x");
    let config = machine.load();
    let of = |config: &Config| config.supplies(&machine.environment());
    let missing = of(&config).expect_err("no such file").to_string();
    assert!(missing.contains("`/etc/ssl/ours.pem`"), "{missing}");

    let text = FULL.replace(", \"/etc/ssl/ours.pem\"", "");
    machine.write("work/repoxy.toml", &text);
    let config = machine.load();
    let supplies = of(&config).expect("all is there");
    let credentials = |at: usize| supplies.credentials(&config.proxies[at].id);
    let password =
        Credentials::Password { username: "me".to_owned(), password: Supplied::Value(Secret::new("canary")) };
    assert_eq!(credentials(0), Some(&password));
    // A server reads it again whenever it is told to.
    assert_eq!(credentials(1), Some(&Credentials::Token(Supplied::File(machine.path("work/token")))));
    assert!(!format!("{supplies:?}").contains("canary"));
}

#[test]
fn a_file_for_a_secret_has_one() {
    let text = "[[proxy]]\nname = 'a'\nupstream = 'https://a'\ncredentials = { token_file = 'token' }\n";
    let machine = with(text);
    for (content, why) in [
        (&b""[..], "it is empty"),
        (b"\r\n", "it is empty"),
        (b"\xff", "it is not UTF-8"),
        ("x".repeat((64 << 10) + 1).as_bytes(), "it is too large for that"),
    ] {
        fs::write(machine.path("work/token"), content).expect("written");
        let error = machine.error();
        assert!(error.starts_with("work/repoxy.toml:4:30: cannot read the secret `work/token`: "), "{error}");
        assert!(error.contains(why), "{error}");
    }
    machine.write("work/token", "canary\r\n");
    assert!(machine.load().supplies(&machine.environment()).is_ok());
}
