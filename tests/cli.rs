//! The program as an operator runs it: what it prints where, and how it ends.

#[path = "cli/lists.rs"]
mod lists;
#[path = "cli/timers.rs"]
mod timers;
#[path = "cli/upkeep.rs"]
mod upkeep;

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use repoxy::model::Digest;
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

/// Runs the program on a store, apart from whatever configuration this machine has.
fn repoxy(dir: &Path, args: &[&str]) -> Output {
    command(dir, args).output().expect("it runs")
}

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_repoxy"));
    command.args(args).current_dir(dir).env_clear().env("HOME", dir).stdin(Stdio::null());
    command
}

fn stdout(output: &Output) -> &str {
    str::from_utf8(&output.stdout).expect("text")
}

fn stderr(output: &Output) -> &str {
    str::from_utf8(&output.stderr).expect("text")
}

/// A store as somebody might make it by hand: a tag, its manifest, and a blob that nobody needs.
fn store(dir: &Path) {
    let blob = |bytes: &str| {
        let hex = Digest::of(bytes.as_bytes()).hex();
        let folder = dir.join(format!("root/type/container/blobs/sha256/{}/{}", &hex[..2], &hex[2..4]));
        fs::create_dir_all(&folder).expect("made");
        fs::write(folder.join(hex), bytes).expect("written");
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":6}},"layers":[]}}"#,
        Digest::of(b"config")
    );
    blob(&manifest);
    blob("config");
    blob("nobody needs this");
    let tags = dir.join("root/type/container/proxies/hub/refs/library/alpine/tags");
    fs::create_dir_all(&tags).expect("made");
    let tag = format!(
        r#"{{"kind":"container.tag","targetDigest":"{}","mediaType":"application/vnd.oci.image.manifest.v1+json","size":{},"upstream":"registry-1.docker.io","fetchedAt":"2025-11-09T12:34:56Z","ttlSeconds":604800}}"#,
        Digest::of(manifest.as_bytes()),
        manifest.len(),
    );
    fs::write(tags.join("3.20.json"), tag).expect("written");
}

#[test]
fn root_and_config_are_taken_before_within_and_after_every_command() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    fs::write(dir.path().join("my.toml"), "root = \"root\"\n").expect("written");
    fs::create_dir(dir.path().join("root/config")).expect("made");
    fs::write(dir.path().join("root/config/repoxy.toml"), "").expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let listen = format!("--listen={}", taken.local_addr().expect("bound"));
    // Each with how it ends and what it says of the store, or of the file, if it has found it.
    for (command, code, says) in [
        (&["serve", &listen, "--log-level=off"][..], 1, "cannot listen on"),
        (&["gc", "--dry-run"], 0, "gc: "),
        (&["fsck"], 0, "1 ref"),
        (&["reindex", "--dry-run"], 0, "1 ref"),
        (&["ls", "refs"], 0, "tags/3.20"),
        (&["ls", "blobs"], 0, "sha256:"),
        (&["ls", "proxies"], 0, "hub"),
        (&["show", "alpine:3.20"], 0, "tags/3.20"),
        (&["config", "check"], 0, "is right"),
        (&["config", "show"], 0, "/root\"  # "),
    ] {
        for option in [["--root", "root"], ["--config", "my.toml"]] {
            for at in 0..=command.len() {
                let args = [&command[..at], &option, &command[at..]].concat();
                let output = repoxy(dir.path(), &args);
                let said = format!("{}{}", stdout(&output), stderr(&output));
                assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
                let file = if option[0] == "--root" { "root/config/repoxy.toml" } else { "my.toml" };
                let says =
                    if command == ["config", "check"] { format!("{file} {says}") } else { says.to_owned() };
                assert!(said.contains(&says), "{args:?}: {said}");
            }
        }
    }
    assert!(!dir.path().join(".local").exists(), "none has made a store elsewhere");
}

#[test]
fn each_way_to_fail_has_its_code_and_says_what_to_do() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    for (args, code, says) in [
        (&["gc", "--root", "nowhere"][..], 10, "error: there is no repoxy store"),
        (&["gc", "--root", "root", "--grace", "soon"], 2, "`soon` is not a duration"),
        (&["nonsense"], 2, "error: unrecognized subcommand"),
        (
            &["ls", "refs", "--config", "nowhere.toml"],
            2,
            "nowhere.toml`: No such file or directory (os error 2)\nhint: write the path of a configuration file that this user may read\n",
        ),
        (&["show", "--root", "root", "no/such:tag"], 1, "hint: `repoxy ls refs`"),
        (&["gc", "--root", "root", "--grace", "0s", "--max-bytes", "0"], 3, "hint: if that is meant"),
    ] {
        let output = repoxy(dir.path(), args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {output:?}");
        assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
    }
}

#[test]
fn an_image_is_shown_by_any_of_its_names() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    for name in [
        "hub/library/alpine:3.20",
        "library/alpine:3.20",
        "alpine:3.20",
        "docker.io/library/alpine:3.20",
        "container/hub/refs/library/alpine/tags/3.20",
    ] {
        let output = repoxy(dir.path(), &["show", name, "--json", "--root", "root"]);
        let shown = stdout(&output);
        assert!(shown.starts_with(r#"{"ref":"container/hub/refs/library/alpine/tags/3.20""#), "{output:?}");
        assert!(shown.contains(r#""target":"live""#), "{shown}");
    }
}

#[test]
fn gc_takes_what_its_dry_run_said_and_the_second_run_removes_it() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let gc = |args: &[&str]| {
        let output =
            repoxy(dir.path(), &[&["gc", "--root", "root", "--grace", "0s", "--json"], args].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let mut lines = stdout(&output).lines().map(str::to_owned).collect::<Vec<_>>();
        let summary = lines.pop().expect("a summary");
        assert!(summary.starts_with(r#"{"event":"summary""#), "{summary}");
        lines
    };
    let planned = gc(&["--dry-run"]);
    let digest = Digest::of(b"nobody needs this");
    assert_eq!(
        planned,
        [format!(r#"{{"event":"condemn","type":"container","digest":"{digest}","size":17}}"#)]
    );
    assert_eq!(gc(&["--dry-run"]), planned);
    assert_eq!(gc(&[]), planned);
    let second = gc(&[]);
    assert!(second.len() == 1 && second[0].starts_with(r#"{"event":"reap""#), "{second:?}");
    assert_eq!(gc(&[]), Vec::<String>::new());
}

#[test]
fn fsck_ends_with_three_while_findings_remain_and_with_zero_when_they_are_mended() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let tags = dir.path().join("root/type/container/proxies/hub/refs/library/alpine/tags");
    fs::write(tags.join("bad.json"), "{").expect("written");
    let fsck = |args: &[&str]| repoxy(dir.path(), &[&["fsck", "--root", "root"], args].concat());
    for args in [&[][..], &["-q"], &["--json"], &["--repair", "--dry-run"]] {
        let output = fsck(args);
        assert_eq!(output.status.code(), Some(3), "{args:?}");
        assert!(stdout(&output).contains("tags/bad.json"), "{args:?}: {output:?}");
    }
    let gc = repoxy(dir.path(), &["gc", "--root", "root"]);
    assert_eq!(gc.status.code(), Some(1));
    assert!(stderr(&gc).contains("tags/bad.json"), "{gc:?}");
    assert_eq!(fsck(&["--repair"]).status.code(), Some(0));
    let clean = fsck(&["-q", "--read-data"]);
    assert_eq!((clean.status.code(), stdout(&clean), stderr(&clean)), (Some(0), "", ""));
}

#[test]
fn a_list_is_the_same_from_files_from_the_index_and_from_one_that_was_lost_and_rebuilt() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let list = || stdout(&repoxy(dir.path(), &["ls", "refs", "--json", "--root", "root"])).to_owned();
    let reindex = || assert_eq!(repoxy(dir.path(), &["reindex", "--root", "root"]).status.code(), Some(0));
    let from_files = list();
    assert_eq!(from_files.lines().count(), 1);
    assert!(!dir.path().join("root/index").exists(), "a list makes no index");
    reindex();
    assert!(dir.path().join("root/index").exists());
    assert_eq!(list(), from_files);
    fs::remove_dir_all(dir.path().join("root/index")).expect("lost");
    reindex();
    assert_eq!(list(), from_files);
}

#[test]
fn a_reader_who_has_seen_enough_is_no_error() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    for args in [&["ls", "refs", "--root", "root"][..], &["fsck", "--root", "root"], &["gc", "--help"]] {
        let mut child =
            command(dir.path(), args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("it ends");
        assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{args:?}");
    }
}

#[test]
fn a_success_is_one_line_and_quiet_none() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    for name in ["gc", "fsck", "reindex"] {
        let output = repoxy(dir.path(), &[name, "--root", "root"]);
        assert_eq!(stdout(&output).lines().count(), 1, "{output:?}");
        assert!(stdout(&output).starts_with(&format!("{name}: ")), "{output:?}");
        let quiet = repoxy(dir.path(), &[name, "--root", "root", "-q"]);
        assert_eq!((stdout(&quiet), stderr(&quiet)), ("", ""), "{name}");
    }
}

/// A process that ends with the test, however that ends.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill().and_then(|()| self.0.wait());
    }
}

#[test]
fn a_server_needs_no_configuration_and_keeps_its_files_below_the_home() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut serve = command(dir.path(), &["serve", "--listen", "127.0.0.1:0"]);
    let mut server = Ends(serve.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs"));
    let mut log = BufReader::new(server.0.stderr.take().expect("piped")).lines();
    let line = log.find_map(|line| Some(line.ok()?.split_once("listening on http://")?.1.to_owned()));
    let line = line.expect("it says where it listens");
    let address = line.split(' ').next().expect("an address").to_owned();
    // Whoever reads the rest keeps it from standing still.
    let rest = std::thread::spawn(move || log.map_while(Result::ok).collect::<Vec<_>>());
    let mut answer = String::new();
    until(&mut server.0, |_| {
        let mut stream = TcpStream::connect(&address).expect("it listens");
        stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n").expect("it listens");
        answer.clear();
        stream.read_to_string(&mut answer).is_ok() && answer.split(' ').nth(1) == Some("200")
    });
    let root = dir.path().join(".local/share/repoxy");
    assert!(root.join("index").is_dir(), "{line}");
    let pid = Pid::from_raw(i32::try_from(server.0.id()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::TERM).expect("ours");
    let rest = rest.join().expect("it ends");
    assert_eq!(server.0.wait().expect("it ends").code(), Some(0), "{rest:?}");
    assert_eq!(fs::read_dir(dir.path()).expect("there").count(), 1, "nothing else is written");
}

/// Waits until something holds of a child that runs.
fn until(child: &mut Child, mut holds: impl FnMut(u32) -> bool) {
    let began = Instant::now();
    while !holds(child.id()) {
        assert_eq!(child.try_wait().expect("ours"), None, "it has ended");
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A blob in a store that takes hours to read and no room on the disk.
fn large(dir: &Path) -> PathBuf {
    let hex = Digest::of(b"large").hex();
    let large = dir.join(format!("root/type/container/blobs/sha256/{}/{}/{hex}", &hex[..2], &hex[2..4]));
    fs::create_dir_all(large.parent().expect("a folder")).expect("made");
    File::create(&large).and_then(|file| file.set_len(1 << 42)).expect("a sparse file");
    large
}

#[test]
fn who_interrupts_a_long_run_gets_130_and_the_store_is_as_it_was() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let large = large(dir.path());
    let mut fsck = command(dir.path(), &["fsck", "--read-data", "--repair", "--root", "root"]);
    let mut child = fsck.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let reads = |pid: u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok())
            .any(|target| target.ends_with(large.file_name().expect("a digest")))
    };
    until(&mut child, reads);
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::INT).expect("ours");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), stderr(&output)), (Some(130), "error: interrupted\n"));
    assert!(large.exists());
    fs::remove_file(&large).expect("ours");
    assert_eq!(repoxy(dir.path(), &["fsck", "--read-data", "--root", "root"]).status.code(), Some(0));
}

#[test]
fn a_gc_beside_another_ends_with_11_and_takes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let gc = || repoxy(dir.path(), &["gc", "--grace", "0s", "--root", "root"]);
    fs::create_dir(dir.path().join("root/locks")).expect("made");
    let lock = File::create(dir.path().join("root/locks/gc.lock")).expect("made");
    flock(&lock, FlockOperation::LockExclusive).expect("free");
    let output = gc();
    assert_eq!(output.status.code(), Some(11), "{output:?}");
    assert!(stderr(&output).contains("hint: the lock goes with the process that holds it"), "{output:?}");
    assert!(!dir.path().join("root/type/container/trash").exists());
    drop(lock);
    assert_eq!(gc().status.code(), Some(0));
    assert!(dir.path().join("root/type/container/trash").exists());
}

/// What a command writes to a terminal on standard error.
fn on_terminal(dir: &Path, args: &[&str]) -> String {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
    let name = ptsname(&master, Vec::new()).expect("it has a name").into_string().expect("text");
    let slave = File::options().read(true).write(true).open(name).expect("unlocked");
    let mut child =
        command(dir, args).stdout(Stdio::null()).stderr(slave).env("TERM", "xterm").spawn().expect("it runs");
    let mut drawn = Vec::new();
    // At its end, when nobody has it open any more, a terminal is an error.
    let _ = File::from(master).read_to_end(&mut drawn);
    assert!(child.wait().expect("it ends").success());
    String::from_utf8(drawn).expect("text")
}

#[test]
fn a_bar_is_drawn_on_a_terminal_alone_and_from_the_first_with_its_step() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    for (args, steps) in [
        (&["fsck", "--read-data", "--root", "root"][..], &["checking blobs", "checking refs"][..]),
        (&["gc", "--root", "root"], &["listing trash", "marking", "listing blobs"]),
        (&["reindex", "--root", "root"], &["recording refs"]),
    ] {
        let drawn = on_terminal(dir.path(), args);
        // What stands between the moves of the cursor.
        let lines = drawn.split(['\r', '\n']).flat_map(|part| part.split('\x1b'));
        let lines = lines.map(|part| part.trim_start_matches(|c: char| c == '[' || c.is_ascii_digit()));
        let lines =
            lines.map(|part| part.strip_prefix(['A', 'B', 'C', 'D', 'K', 'J', 'H']).unwrap_or(part).trim());
        let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
        for step in steps {
            assert!(lines.iter().any(|line| line.starts_with(step)), "{args:?}, {step}: {drawn:?}");
        }
        for line in &lines {
            assert!(line.starts_with(|c: char| c.is_ascii_lowercase()), "{args:?}, {line:?}: {drawn:?}");
        }
        assert_eq!(on_terminal(dir.path(), &[args, &["-q"]].concat()), "");
        assert_eq!(on_terminal(dir.path(), &[args, &["--json"]].concat()), "");
    }
}

#[test]
fn a_limit_on_file_sizes_is_an_error_that_is_told_and_takes_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let limited = |args: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -f 0 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_repoxy")]).args(args);
        shell.current_dir(dir.path()).env_clear().env("HOME", dir.path()).output().expect("it runs")
    };
    let refs = || stdout(&repoxy(dir.path(), &["ls", "refs", "--root", "root"])).to_owned();
    let before = refs();
    for args in [
        &["reindex", "--root", "root"][..],
        &["gc", "--root", "root", "--grace", "0s"],
        &["ls", "refs", "--root", "root"],
    ] {
        let output = limited(args);
        assert_eq!(output.status.code(), Some(1), "{args:?}: {output:?}");
        assert!(stderr(&output).contains("error: "), "{args:?}: {}", stderr(&output));
    }
    assert_eq!(refs(), before);
    assert!(!before.is_empty());
}

/// A proxy with this line in it.
fn proxy(line: &str) -> String {
    format!("[[proxy]]\nname = \"hub\"\nupstream = \"https://registry.example.org\"\n{line}\n")
}

#[test]
fn only_what_needs_a_secret_fails_without_it() {
    let dir = tempfile::tempdir().expect("a directory");
    store(dir.path());
    let file = dir.path().join("root/config/repoxy.toml");
    fs::create_dir_all(file.parent().expect("a parent")).expect("made");
    for (line, at, says) in [
        (
            "credentials = { username = \"me\", password_env = \"HUB_TOKEN\" }",
            "4:49",
            "the environment has no variable `HUB_TOKEN`\nhint: set `HUB_TOKEN`, or change `password_env`",
        ),
        (
            "credentials = { username = \"me\", password_file = \"/nope\" }",
            "4:50",
            "cannot read the secret `/nope`: No such file",
        ),
    ] {
        fs::write(&file, proxy(line)).expect("written");
        let run = |args: &[&str]| repoxy(dir.path(), &[&["--root", "root"], args].concat());
        for args in [
            &["gc", "-q"][..],
            &["fsck", "-q"],
            &["reindex"],
            &["ls", "refs"],
            &["ls", "blobs"],
            &["ls", "proxies"],
            &["show", "hub/library/alpine:3.20"],
        ] {
            let output = run(args);
            assert_eq!((output.status.code(), stderr(&output)), (Some(0), ""), "{args:?}");
        }
        for args in [&["serve"][..], &["config", "check"], &["config", "show"]] {
            let output = run(args);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
            let place = format!("error: {}:{at}: {says}", file.display());
            assert!(stderr(&output).starts_with(&place), "{args:?}: {}\n{place}", stderr(&output));
        }
    }
}

#[test]
fn what_a_server_refuses_to_start_with_is_not_called_right() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("bad"), "nonsense\n").expect("written");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    for (config, says) in [
        (proxy("ca_files = \"bad\""), "holds no certificates"),
        (proxy("credentials = { docker_config = \"bad\" }"), "is not a Docker `config.json`"),
        ("[tls]\ncert = \"bad\"\nkey = \"bad\"\n".to_owned(), "no certificate in"),
        (proxy("allowed_hosts = \"::::\""), "repoxy.toml:5:17: `::::` is not a host name"),
        (proxy("ca_files = \"nope\""), "repoxy.toml:5:12: cannot read the certificates"),
        ("[tls]\ncert = \"bad\"\nkey = \"nope\"\n".to_owned(), "repoxy.toml:4:7: cannot read the key"),
    ] {
        let config = format!("listen = \"{address}\"\n{config}");
        fs::write(dir.path().join("repoxy.toml"), &config).expect("written");
        // The address is taken, so that a server which gets as far as that ends, too.
        for args in [&["config", "check"][..], &["serve", "--root", "root"]] {
            let output = repoxy(dir.path(), args);
            assert_eq!(output.status.code(), Some(2), "{args:?} {config}: {output:?}");
            assert!(stderr(&output).contains(says), "{args:?}: {}", stderr(&output));
        }
    }
}

#[test]
fn a_configuration_is_shown_and_checked_line_by_line_as_json() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("repoxy.toml");
    let text = proxy("ttl = \"90s\"\ncredentials = { token = \"canary\" }");
    fs::write(&file, format!("{text}[[proxy]]\ntype = \"generic\"\nname = \"files\"\nupstream = \"https://f\"\n[[proxy.rules]]\nmatch = \"*.gz\"\nimmutable = true\n")).expect("written");
    let run = |args: &[&str]| {
        let mut command = command(dir.path(), args);
        command.env("REPOXY_PROXY_HUB_RETRIES", "3").env("REPOXY_LISTN", "x");
        let output = command.output().expect("it runs");
        assert_eq!(output.status.code(), Some(0), "{args:?}: {output:?}");
        stdout(&output).replace(&format!("{}/", fs::canonicalize(dir.path()).expect("there").display()), "")
    };
    let shown = run(&["config", "show", "--json", "--root", "/r"]);
    assert!(!shown.contains("canary"), "{shown}");
    for line in [
        r#"{"key":"root","value":"/r","origin":"command line"}"#,
        r#"{"key":"listen","value":["127.0.0.1:7080"],"origin":"default"}"#,
        r#"{"key":"proxy.hub.name","value":"hub"}"#,
        r#"{"key":"proxy.hub.ttl","value":"90s","origin":"repoxy.toml:4:7"}"#,
        r#"{"key":"presets","value":false,"origin":"default"}"#,
        r#"{"key":"proxy.hub.read_ahead","value":true,"origin":"default"}"#,
        r#"{"key":"proxy.hub.connect_timeout","value":"10s","origin":"default"}"#,
        r#"{"key":"proxy.hub.idle_timeout","value":"30s","origin":"default"}"#,
        r#"{"key":"proxy.hub.max_connections","value":40,"origin":"default"}"#,
        r#"{"key":"proxy.hub.breaker_after","value":5,"origin":"default"}"#,
        r#"{"key":"proxy.files.retries","value":2,"origin":"default"}"#,
        r#"{"key":"proxy.hub.retries","value":3,"origin":"REPOXY_PROXY_HUB_RETRIES"}"#,
        r#"{"key":"proxy.hub.credentials.token","value":"***","origin":"repoxy.toml:5:25"}"#,
        r#"{"key":"proxy.files.rules.0.match","value":"*.gz"}"#,
        r#"{"key":"proxy.files.rules.0.immutable","value":true}"#,
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line} is not in\n{shown}");
    }
    let checked = run(&["config", "check", "--json"]);
    let lines: Vec<_> = checked.lines().collect();
    assert_eq!(lines.len(), 3, "{checked}");
    assert!(
        lines[0].starts_with(r#"{"event":"warning","what":"`repoxy.toml` holds a password"#),
        "{checked}"
    );
    assert!(lines[1].starts_with(r#"{"event":"warning","what":"`REPOXY_LISTN` means nothing"#), "{checked}");
    assert_eq!(lines[2], r#"{"event":"summary","file":"repoxy.toml","proxies":2}"#);
}
