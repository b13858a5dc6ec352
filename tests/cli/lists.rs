//! `ls`: what is listed, in which order, and how.

use std::fs::{self, File};
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
