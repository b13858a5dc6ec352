//! `ls`: what is listed, in which order, and how.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use repoxy::model::{Clock as _, Digest, SystemClock};

use super::{repoxy, stdout};

/// A line of `ls refs` without options: what options are judged by.
struct Listed {
    path: &'static str,
    /// How many days ago upstream has confirmed it, and somebody has used it.
    fetched: i64,
    used: i64,
    lasts: &'static str,
    size: u64,
}

/// Refs as somebody might write them by hand, none of them like another in what can be asked for.
const LISTED: [Listed; 6] = [
    Listed { path: "container/hub/refs/a/tags/old", fetched: 40, used: 3, lasts: "31536000", size: 5 },
    Listed { path: "container/hub/refs/b/tags/gone", fetched: 50, used: 2, lasts: "3600", size: 4 },
    Listed { path: "container/hub/refs/c/tags/dusty", fetched: 60, used: 30, lasts: "3600", size: 6 },
    Listed { path: "container/hub/refs/d/tags/recent", fetched: 20, used: 15, lasts: "3600", size: 2 },
    Listed { path: "container/quay/refs/e/tags/other", fetched: 70, used: 50, lasts: "3600", size: 3 },
    Listed {
        path: "tf/hub/refs/providers/x/y/linux_amd64/1.0.0",
        fetched: 45,
        used: 25,
        lasts: "60",
        size: 1,
    },
];

#[test]
fn each_option_of_ls_refs_alone_changes_what_is_listed() {
    let dir = tempfile::tempdir().expect("a directory");
    let now = SystemClock.now();
    let ago = |days: i64| now - Duration::from_secs(u64::try_from(days).expect("positive") * 86_400);
    for listed in &LISTED {
        let (artifact_type, rest) = listed.path.split_once('/').expect("a key");
        let file = dir.path().join(format!("root/type/{artifact_type}/proxies/{rest}.json"));
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        let (kind, target) = match artifact_type {
            "tf" => ("tf.provider", "zipDigest"),
            _ => ("container.tag", "targetDigest"),
        };
        let json = format!(
            r#"{{"kind":"{kind}","{target}":"{}","size":{},"upstream":"x","fetchedAt":"{:.0}","ttlSeconds":{}}}"#,
            Digest::of(listed.path.as_bytes()),
            listed.size,
            ago(listed.fetched),
            listed.lasts,
        );
        fs::write(&file, json).expect("written");
        let file = File::options().write(true).open(&file).expect("written");
        file.set_modified(ago(listed.used).into()).expect("ours");
    }
    let digest = Digest::of(LISTED[1].path.as_bytes()).to_string();
    let list = |options: &str| {
        let args = [
            &["ls", "refs", "--json", "--root", "root"][..],
            &options.split_whitespace().collect::<Vec<_>>(),
        ];
        let output = repoxy(dir.path(), &args.concat());
        assert_eq!(output.status.code(), Some(0), "{options}: {output:?}");
        let lines = stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON"));
        lines.collect::<Vec<serde_json::Value>>()
    };
    let last = |line: &serde_json::Value| {
        line["ref"].as_str().expect("a key").rsplit('/').next().unwrap_or_default().to_owned()
    };
    let all = "old gone dusty recent other 1.0.0";
    for (options, expected) in [
        ("", all),
        ("--type container", "old gone dusty recent other"),
        ("--proxy hub", "old gone dusty recent 1.0.0"),
        ("--area cache", ""),
        ("--kind tf.provider", "1.0.0"),
        ("--path b/*", "gone"),
        (&format!("--digest {digest}"), "gone"),
        ("--older-than 30d", "old gone dusty other 1.0.0"),
        ("--unused-for 10d", "dusty recent other 1.0.0"),
        ("--expired", "gone dusty recent other 1.0.0"),
        ("--sort last-used", "other dusty 1.0.0 recent old gone"),
        ("--sort fetched-at", "other dusty gone 1.0.0 old recent"),
        ("--sort size", "1.0.0 recent other gone old dusty"),
        ("--sort path", all),
        ("--reverse", "1.0.0 other recent dusty gone old"),
        ("--limit 2", "old gone"),
        ("--limit 0", ""),
        // Together as in the help: without any of these it would be another list.
        ("--type container --proxy hub --older-than 30d --expired --sort last-used --limit 20", "dusty gone"),
        ("--type container --proxy hub --older-than 30d --expired --sort last-used --limit 1", "dusty"),
        ("--type container --proxy hub --older-than 30d --expired", "gone dusty"),
    ] {
        let listed: Vec<_> = list(options).iter().map(last).collect();
        assert_eq!(listed.join(" "), expected, "{options}");
    }
    assert_eq!(list("--limit 1")[0].get("lastUsed"), None);
    let used = list("--uses --limit 1")[0]["lastUsed"].as_str().expect("a time").to_owned();
    assert!(used.starts_with(&format!("{:.0}", ago(3)).trim_end_matches('Z')[..19]), "{used}");
    assert_eq!(repoxy(dir.path(), &["ls", "refs", "--uses", "--root", "root"]).status.code(), Some(2));
}

/// A ref: its path, the content that it targets, the size that it states, how many days ago it was used, and
/// what it links.
type Targets = (&'static str, &'static str, u64, u64, &'static [&'static str]);

/// Refs whose targets come in another order by each thing that a list of blobs can be sorted by.
const TARGETS: [Targets; 6] = [
    ("container/proxies/hub/refs/a/tags/1", "often", 6, 30, &[]),
    ("container/proxies/hub/refs/a/tags/2", "often", 6, 40, &[]),
    ("container/proxies/hub/refs/a/tags/3", "often", 6, 50, &[]),
    ("container/proxies/hub/refs/b/tags/1", "large", 9, 3, &["layer"]),
    ("container/proxies/quay/refs/b/tags/1", "large", 9, 5, &["layer"]),
    ("tf/proxies/hub/refs/providers/x/y/linux_amd64/1.0.0", "small", 1, 20, &[]),
];

/// A store with these refs.
fn targets(dir: &Path) {
    for (path, target, size, used, links) in TARGETS {
        let file = dir.join(format!("root/type/{path}.json"));
        fs::create_dir_all(file.parent().expect("a folder")).expect("made");
        let (kind, field) = if path.starts_with("tf") {
            ("tf.provider", "zipDigest")
        } else {
            ("container.tag", "targetDigest")
        };
        let links: Vec<_> = links.iter().map(|link| Digest::of(link.as_bytes()).to_string()).collect();
        let json = format!(
            r#"{{"kind":"{kind}","{field}":"{}","size":{size},"fetchedAt":"2026-01-01T00:00:00Z","links":{links:?}}}"#,
            Digest::of(target.as_bytes()),
        );
        fs::write(&file, json).expect("written");
        let used = SystemClock.now() - Duration::from_secs(used * 86_400);
        File::options()
            .write(true)
            .open(&file)
            .and_then(|file| file.set_modified(used.into()))
            .expect("ours");
    }
}

#[test]
fn each_option_of_ls_blobs_alone_changes_what_is_listed() {
    let dir = tempfile::tempdir().expect("a directory");
    targets(dir.path());
    let names =
        ["often", "large", "small", "layer"].map(|name| (Digest::of(name.as_bytes()).to_string(), name));
    for (options, expected) in [
        ("", "small often large layer"),
        ("--type container", "often large layer"),
        ("--type tf", "small"),
        ("--sort digest", "small often large layer"),
        ("--sort size", "layer small often large"),
        ("--sort refs", "layer small large often"),
        ("--sort last-used", "often small large layer"),
        ("--reverse", "layer large often small"),
        ("-r", "layer large often small"),
        ("--limit 2", "small often"),
        ("--limit 0", ""),
        // Both as in the help.
        ("--sort size --reverse --limit 20", "large often small layer"),
        ("--type container --sort size --reverse --limit 1", "large"),
    ] {
        let options: Vec<_> = options.split_whitespace().collect();
        let output =
            repoxy(dir.path(), &[&["ls", "blobs", "--json", "--root", "root"], &options[..]].concat());
        assert_eq!(output.status.code(), Some(0), "{options:?}: {output:?}");
        let name = |line: &str| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            names.iter().find(|(digest, _)| line["digest"] == *digest).expect("one of them").1
        };
        let listed: Vec<_> = stdout(&output).lines().map(name).collect();
        assert_eq!(listed.join(" "), expected, "{options:?}");
    }
}

#[test]
fn blobs_and_proxies_are_whole_lines_of_json() {
    let dir = tempfile::tempdir().expect("a directory");
    targets(dir.path());
    let list = |what: &str| stdout(&repoxy(dir.path(), &["ls", what, "--json", "--root", "root"])).to_owned();
    insta::assert_snapshot!(list("blobs") + &list("proxies"), @r#"
    {"type":"tf","digest":"sha256:81db8ebbbbc69c6c6ad4a6aa92b76e0c08af547da236b9e2c9dbe1d8285a8130","size":1,"refs":1,"links":0}
    {"type":"container","digest":"sha256:93c68148f4acfe0d728451ad16f9ecc126da864b61f2012c31e344d2b7b7aa4b","size":6,"refs":3,"links":0}
    {"type":"container","digest":"sha256:d35c416a85b807e9b5384915d6ebb4a9f7352713efd89857b45a242f473728a9","size":9,"refs":2,"links":0}
    {"type":"container","digest":"sha256:dac1d7cfa95021764849fd102524e141488c5e3a90f861dbb5a12d9ac8584f85","size":null,"refs":0,"links":2}
    {"type":"container","proxy":"hub","refs":4,"blobs":3,"bytes":15}
    {"type":"container","proxy":"quay","refs":1,"blobs":2,"bytes":9}
    {"type":"tf","proxy":"hub","refs":1,"blobs":1,"bytes":1}
    "#);
}
