//! What `docs/operations.md` has cron and systemd run.

use std::process::{Command, Stdio};

use super::{stderr, stdout, store};

const PAGE: &str = include_str!("../../docs/operations.md");

/// A command of the page for operators, for this binary and this store instead of the installed ones.
fn here(line: &str) -> String {
    let (program, root) = ("/usr/local/bin/repoxy ", "--root /var/lib/repoxy");
    assert!(line.starts_with(program) && line.contains(root), "{line}");
    let program_here = format!("{} ", env!("CARGO_BIN_EXE_repoxy"));
    line.replace(program, &program_here).replace(root, "--root root")
}

#[test]
fn what_the_page_for_operators_gives_to_cron_and_systemd_runs() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let table = PAGE.split("```cron\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a crontab");
    // Five fields of time, the user, the command; cron has sh run it, with `\%` for `%`.
    let from_cron = table.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut rest = line;
        let mut fields = Vec::new();
        for _ in 0..6 {
            let (field, after) = rest.split_once(' ').expect("seven fields");
            fields.push(field);
            rest = after.trim_start();
        }
        assert_eq!(fields[5], "repoxy", "{line}");
        assert!(fields[..5].iter().all(|field| *field == "*" || field.parse::<u8>().is_ok()), "{line}");
        (rest.replace("\\%", "%"), true)
    });
    let from_systemd =
        PAGE.lines().filter_map(|line| Some((line.strip_prefix("ExecStart=")?.to_owned(), false)));
    let commands: Vec<_> = from_cron.chain(from_systemd).collect();
    assert_eq!(commands.len(), 3, "{commands:?}");
    for (line, quiet) in commands {
        let mut sh = Command::new("/bin/sh");
        sh.args(["-c", &here(&line)]).current_dir(dir.path()).env_clear().stdin(Stdio::null());
        let output = sh.env("HOME", dir.path()).env("PATH", "/usr/bin:/bin").output().expect("it runs");
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{line}");
        assert_eq!(stdout(&output).is_empty(), quiet, "{line}: cron sends what is printed: {output:?}");
    }
}

/// What systemd 252 knows of what a unit of the page for operators has, and some more that it may get.
const KNOWN_TO_SYSTEMD: [(&str, &[&str]); 4] = [
    ("Unit", &["Description", "Documentation", "After", "Wants", "Requires"]),
    (
        "Service",
        &["Type", "User", "Group", "ExecStart", "ExecReload", "IOSchedulingClass", "Nice", "LimitNOFILE"],
    ),
    ("Timer", &["OnCalendar", "RandomizedDelaySec", "AccuracySec", "Persistent", "Unit"]),
    ("Install", &["WantedBy"]),
];

#[test]
fn the_units_on_the_page_for_operators_say_only_what_systemd_understands() {
    let units = PAGE.split("```ini\n").skip(1).map(|rest| rest.split("```").next().expect("an end"));
    let mut sections = Vec::new();
    for unit in units {
        let mut keys: &[&str] = &[];
        for line in unit.lines().filter(|line| !line.is_empty()) {
            if let Some(section) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                let known = KNOWN_TO_SYSTEMD.iter().find(|(known, _)| *known == section);
                keys = known.unwrap_or_else(|| panic!("unknown section {line}")).1;
                sections.push(section);
                continue;
            }
            let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("no key: {line}"));
            assert!(keys.contains(&key), "unknown key: {line}");
            let is_right = match key {
                "OnCalendar" => is_each_day(value),
                "RandomizedDelaySec" => value.strip_suffix("min").is_some_and(|n| n.parse::<u8>().is_ok()),
                "Persistent" => ["true", "false"].contains(&value),
                "Type" => ["oneshot", "exec", "simple", "notify"].contains(&value),
                "IOSchedulingClass" => ["realtime", "best-effort", "idle"].contains(&value),
                _ => !value.is_empty(),
            };
            assert!(is_right, "{line}");
        }
    }
    assert_eq!(sections, ["Unit", "Service", "Unit", "Timer", "Install"]);
}

/// Whether it is a time of each day as systemd.time(7) has it.
fn is_each_day(value: &str) -> bool {
    let Some(time) = value.strip_prefix("*-*-* ") else { return false };
    let parts: Vec<_> = time.split(':').collect();
    let below = |part: &str, end: u8| part.len() == 2 && part.parse::<u8>().is_ok_and(|n| n < end);
    parts.len() == 3 && parts.iter().zip([24, 60, 60]).all(|(part, end)| below(part, end))
}
