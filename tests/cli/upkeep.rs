//! `gc`, `fsck` and `reindex`: what is printed and when, and what the configuration has to say.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use repoxy::model::{Clock as _, SystemClock};

use super::{command, large, repoxy, stderr, stdout, store};

#[test]
fn a_finding_of_fsck_can_be_read_while_it_still_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    large(dir.path());
    fs::write(dir.path().join("root/type/container/blobs/sha256/stray"), "?").expect("written");
    for (options, begins) in [(&[][..], "warning  stray-file"), (&["--json"], r#"{"event":"finding""#)] {
        let args = [&["fsck", "--read-data", "--root", "root"], options].concat();
        let mut fsck = command(dir.path(), &args);
        let mut child = fsck.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it runs");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let (sender, receiver) = mpsc::channel();
        let reader = std::thread::spawn(move || sender.send(lines.next()));
        let line = receiver.recv_timeout(Duration::from_secs(60));
        let ended = child.try_wait().expect("ours");
        child.kill().and_then(|()| child.wait()).expect("ours");
        reader.join().expect("it ends").expect("somebody waits");
        let line = line.expect("it is printed at once").expect("a line").expect("text");
        assert!(line.starts_with(begins) && line.contains("sha256/stray"), "{line}");
        assert_eq!(ended, None, "it still reads the large blob");
    }
}

#[test]
fn gc_heeds_its_part_of_the_configuration_and_an_option_goes_before_it() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let tag = dir.path().join("root/type/container/proxies/hub/refs/library/alpine/tags/3.20.json");
    let last_week = SystemClock.now() - Duration::from_secs(7 * 86_400);
    File::options()
        .write(true)
        .open(&tag)
        .and_then(|file| file.set_modified(last_week.into()))
        .expect("ours");
    let file = dir.path().join("root/config/repoxy.toml");
    fs::create_dir(file.parent().expect("a folder")).expect("made");
    for (line, options, expected) in [
        ("", "", &[][..]),
        ("grace = \"0s\"", "", &["condemn 17"]),
        ("grace = \"0s\"", "--grace 1d", &[]),
        ("unused_for = \"1d\"", "", &["expire unused"]),
        ("unused_for = \"1d\"", "--unused-for 30d", &[]),
        ("max_bytes = \"0B\"", "", &["expire over-limit"]),
        ("max_bytes = \"0B\"", "--max-bytes 1GiB", &[]),
    ] {
        fs::write(&file, format!("[gc]\n{line}\n")).expect("written");
        let options: Vec<_> = options.split_whitespace().collect();
        let output =
            repoxy(dir.path(), &[&["gc", "--dry-run", "--json", "--root", "root"], &options[..]].concat());
        let lines = stdout(&output).lines().map(|line| serde_json::from_str(line).expect("JSON"));
        let mut lines: Vec<serde_json::Value> = lines.collect();
        assert_eq!(lines.pop().expect("a summary")["event"], "summary", "{output:?}");
        let word = |value: &serde_json::Value| value.to_string().replace('"', "");
        let what = |line: &serde_json::Value| {
            let more = line.get("reason").unwrap_or(&line["size"]);
            format!("{} {}", word(&line["event"]), word(more))
        };
        assert_eq!(lines.iter().map(what).collect::<Vec<_>>(), expected, "{line}, {options:?}");
    }
}

#[test]
fn reindex_names_each_file_that_is_no_ref_and_ends_with_three() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let tags = dir.path().join("root/type/container/proxies/hub/refs/library/alpine/tags");
    fs::write(tags.join("bad.json"), "{").expect("written");
    let mut said = Vec::new();
    for (options, has_index) in
        [(&["--dry-run"][..], false), (&["--dry-run", "--json"], false), (&[], true), (&["--json"], true)]
    {
        let output = repoxy(dir.path(), &[&["reindex", "--root", "root"], options].concat());
        assert_eq!((output.status.code(), stderr(&output)), (Some(3), ""), "{options:?}");
        assert_eq!(dir.path().join("root/index").exists(), has_index, "{options:?}");
        said.extend([options.join(" "), stdout(&output).trim_end().to_owned()]);
    }
    let mut settings = insta::Settings::clone_current();
    settings.add_filter(r"in \d[\d.]* s", "in <time>");
    settings.add_filter(r#""seconds":[\d.e-]+"#, r#""seconds":<n>"#);
    settings.bind(|| insta::assert_snapshot!(said.join("\n"), @r#"
    --dry-run
    unreadable  type/container/proxies/hub/refs/library/alpine/tags/bad.json: `type/container/proxies/hub/refs/library/alpine/tags/bad.json` is not a ref: EOF while parsing an object at line 1 column 1
    reindex: would have recorded 1 ref, removed 0 rows; 0 without their target, 1 unreadable in <time>
    --dry-run --json
    {"event":"unreadable","path":"type/container/proxies/hub/refs/library/alpine/tags/bad.json","why":"`type/container/proxies/hub/refs/library/alpine/tags/bad.json` is not a ref: EOF while parsing an object at line 1 column 1"}
    {"event":"summary","dryRun":true,"refs":1,"removed":0,"withoutTarget":0,"unreadable":1,"seconds":<n>}

    unreadable  type/container/proxies/hub/refs/library/alpine/tags/bad.json: `type/container/proxies/hub/refs/library/alpine/tags/bad.json` is not a ref: EOF while parsing an object at line 1 column 1
    reindex: recorded 1 ref, removed 0 rows; 0 without their target, 1 unreadable in <time>
    --json
    {"event":"unreadable","path":"type/container/proxies/hub/refs/library/alpine/tags/bad.json","why":"`type/container/proxies/hub/refs/library/alpine/tags/bad.json` is not a ref: EOF while parsing an object at line 1 column 1"}
    {"event":"summary","dryRun":false,"refs":1,"removed":0,"withoutTarget":0,"unreadable":1,"seconds":<n>}
    "#));
}
