//! `gc`, `fsck` and `reindex`: what is printed and when, and what the configuration has to say.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use super::{command, large, store};

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
