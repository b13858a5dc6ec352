//! D19: each system call that changes the store fails, or is the last one that a process makes, one after the
//! other until a run has passed untouched.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rustix::process::{Pid, Signal, kill_process};

use crate::gc::GC;
use crate::support::{Manifest, Origin, Repoxy, eventually, proxy};

/// What a call does, how it is called, and by whom: the store, or the index, which is SQLite's.
const CALLS: [(&str, &str, Caller); 12] = [
    ("open", "openat2", Caller::Store),
    ("open", "openat", Caller::Index),
    ("write", "pwritev", Caller::Store),
    ("write", "pwrite64", Caller::Index),
    ("sync", "fsync", Caller::Store),
    ("rename", "renameat2", Caller::Store),
    ("rename", "renameat", Caller::Store),
    ("link", "linkat", Caller::Store),
    ("unlink", "unlinkat", Caller::Store),
    ("unlink", "unlink", Caller::Index),
    ("mkdir", "mkdirat", Caller::Store),
    ("truncate", "ftruncate", Caller::Index),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    Store,
    Index,
}

impl Caller {
    /// The most calls of one sort that are struck at, one after the other. The store's are struck until there are
    /// none left; the index can be made again, and its hundreds of writes are much alike.
    const fn most(self) -> u32 {
        match self {
            Self::Store => 200,
            Self::Index => 12,
        }
    }
}

/// What is done to a call. The count is of each thread (`strace(1)`), so that several may be struck at once.
const FAULTS: [&str; 2] = ["error=EIO", "signal=KILL"];

/// How many faults are tried at a time: most of each is waiting.
const AT_A_TIME: usize = 4;

/// A root in which there is something for every call to do, and what clients ask for.
struct Scene {
    origin: Origin,
    /// Where the root is copied from.
    root: PathBuf,
    /// Stored; its blobs are condemned although its ref is there; nowhere yet.
    images: [Manifest; 3],
    _dir: tempfile::TempDir,
}

const CONFIG: &str = "ttl = \"0s\"";

fn copied(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status().expect("cp");
    assert!(copied.success());
}

impl Scene {
    async fn set() -> Self {
        let origin = Origin::start().await;
        let images = ["kept", "condemned", "fresh"]
            .map(|name| origin.image(&format!("library/{name}"), "1.0", 1, 100_000));
        let mut repoxy = Repoxy::with(&proxy(&origin, CONFIG));
        for (path, bytes) in images[..2].iter().flat_map(parts) {
            assert_eq!(repoxy.get(path).await.bytes(), bytes);
        }
        repoxy.stored(6).await;
        repoxy.kill();
        stray(&repoxy, b"condemned before");
        let dir = tempfile::tempdir().expect("a directory");
        let (refs, aside) = (
            repoxy.root().join("type/container/proxies/hub/refs/library/condemned"),
            dir.path().join("refs"),
        );
        std::fs::rename(&refs, &aside).expect("one file system");
        std::fs::remove_dir_all(repoxy.root().join("index")).expect("removable");
        assert!(repoxy.run(&GC).status.success());
        assert_eq!(repoxy.files("type/container/trash").len(), 4);
        std::fs::rename(&aside, &refs).expect("one file system");
        stray(&repoxy, b"to be condemned");
        let root = dir.path().join("root");
        copied(&repoxy.root(), &root);
        Self { origin, root, images, _dir: dir }
    }

    /// A server that is not started, with a copy of the root.
    fn stopped(&self) -> Repoxy {
        let repoxy = Repoxy::stopped(&proxy(&self.origin, CONFIG));
        copied(&self.root, &repoxy.root());
        repoxy
    }

    /// What holds afterwards: a full check finds no error, clients get every byte, gc completes what was begun.
    async fn assert_recovers(&self, mut repoxy: Repoxy, what: &str) {
        let fsck = repoxy.run(&["fsck", "--read-data", "--json"]);
        let said = String::from_utf8_lossy(&fsck.stdout);
        let summary: serde_json::Value =
            said.lines().last().and_then(|line| serde_json::from_str(line).ok()).expect("JSON");
        assert_eq!(summary["errors"], 0, "{what}: {said}");
        repoxy.start();
        for (path, bytes) in self.images.iter().flat_map(parts) {
            assert_eq!(repoxy.get(path).await.bytes(), bytes, "{what}: {path}");
        }
        repoxy.becomes_sound().await;
        for _ in 0..2 {
            let gc = repoxy.run(&GC);
            assert!(gc.status.success(), "{what}: {gc:?}");
        }
        for below in ["trash", "blobs"] {
            let left = repoxy.files(&format!("type/container/{below}")).len();
            assert_eq!(left, if below == "blobs" { 9 } else { 0 }, "{what}: {below}");
        }
        repoxy.assert_sound().await;
    }
}

/// The manifest and the blobs of an image.
fn parts(image: &Manifest) -> impl Iterator<Item = (&str, &Bytes)> {
    let blobs = image.blobs.iter().map(|blob| (blob.path.as_str(), &blob.bytes));
    std::iter::once((image.path.as_str(), &image.bytes)).chain(blobs)
}

/// A blob that no ref names.
fn stray(repoxy: &Repoxy, content: &[u8]) {
    let file = repoxy.blob_file(&::repoxy::model::Digest::of(content).hex());
    std::fs::create_dir_all(file.parent().expect("a shard")).expect("writable");
    std::fs::write(&file, content).expect("writable");
}

/// A program under strace, which does something to it. It goes when this is dropped.
struct Traced {
    strace: Child,
    trace: PathBuf,
}

impl Traced {
    /// `inject` as strace has it: a call, a fault, and which time.
    fn spawn(repoxy: &Repoxy, caller: Caller, inject: &str, arguments: &[&str]) -> Self {
        let plain = repoxy.command(arguments);
        let call = inject.split(':').next().expect("a call");
        let (trace, log) = (repoxy.dir().join("trace"), repoxy.dir().join("log"));
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-e", &format!("trace={call}"), "-e", &format!("inject={inject}"), "-o"]);
        strace.arg(&trace);
        if caller == Caller::Index {
            // The same calls are made by others: to read certificates, and to load the program.
            for file in ["index.db", "index.db-wal", "index.db-shm", "index.db-journal"] {
                strace.arg("-P").arg(repoxy.root().join("index").join(file));
            }
        }
        strace.arg(plain.get_program()).args(plain.get_args());
        let log = std::fs::File::create(log).expect("writable");
        strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Self { strace: strace.spawn().expect("strace"), trace }
    }

    fn has_ended(&mut self) -> bool {
        self.strace.try_wait().expect("ours").is_some()
    }

    /// Waits for its end, or brings it about; whether something was done to it.
    async fn end(mut self, by_itself: bool) -> bool {
        if by_itself {
            eventually("it ends", || self.has_ended()).await;
        }
        let killed = self.has_ended();
        self.kill();
        let trace = std::fs::read_to_string(&self.trace).expect("a trace");
        trace.contains("(INJECTED)") || (killed && trace.contains("killed by SIGKILL"))
    }

    fn kill(&mut self) {
        let tracer = self.strace.id();
        let children = std::fs::read_to_string(format!("/proc/{tracer}/task/{tracer}/children"));
        let children = children.unwrap_or_default();
        // strace follows by itself, once it has written all down.
        for pid in children.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = self.strace.wait();
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Does one thing to a server while clients pull; false if there was nothing to do it to.
async fn pulls(scene: &Scene, caller: Caller, inject: &str) -> bool {
    let repoxy = scene.stopped();
    let mut server = Traced::spawn(&repoxy, caller, inject, &["serve"]);
    let log = repoxy.dir().join("log");
    let mut base = None;
    eventually("it listens or ends", || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        base = text
            .lines()
            .find_map(|line| Some(line.split_once("listening on ")?.1.split(' ').next()?.to_owned()));
        base.is_some() || server.has_ended()
    })
    .await;
    if let Some(base) = base {
        // What ends well must be right.
        for (path, bytes) in scene.images.iter().flat_map(parts) {
            let Ok(answer) = repoxy.client().get(format!("{base}{path}")).send().await else { continue };
            let status = answer.status();
            if let Ok(body) = answer.bytes().await {
                assert!(!status.is_success() || body == bytes, "{inject}: {path}");
            }
        }
        // What is written down after the answers: refs, rows, last uses.
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let struck = server.end(false).await;
    scene.assert_recovers(repoxy, inject).await;
    struck
}

/// Does one thing to a gc that condemns, reaps and brings back; false if there was nothing to do it to.
async fn collects(scene: &Scene, caller: Caller, inject: &str) -> bool {
    let repoxy = scene.stopped();
    let struck = Traced::spawn(&repoxy, caller, inject, &GC).end(true).await;
    scene.assert_recovers(repoxy, inject).await;
    struck
}

/// Who is struck.
#[derive(Debug, Clone, Copy)]
enum Whom {
    Server,
    Gc,
}

/// Strikes at a call again and again, each time one later; whether there was any such call.
async fn strike_at(scene: &Scene, whom: Whom, (call, caller): (&str, Caller), fault: &str) -> bool {
    for n in 1..=caller.most() {
        let inject = format!("{call}:{fault}:when={n}");
        let struck = match whom {
            Whom::Server => pulls(scene, caller, &inject).await,
            Whom::Gc => collects(scene, caller, &inject).await,
        };
        if !struck {
            return n > 1;
        }
    }
    assert_eq!(caller, Caller::Index, "there is no end to {call}");
    true
}

/// Strikes at each call of each sort; the sorts of which there was any. On threads, for what is waited for are
/// mostly processes.
async fn strike(whom: Whom) -> BTreeSet<&'static str> {
    let scene = Scene::set().await;
    let all: Vec<_> = CALLS.into_iter().flat_map(|call| FAULTS.map(|fault| (call, fault))).collect();
    let (next, struck) = (AtomicUsize::new(0), Mutex::new(BTreeSet::new()));
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        while let Some(&((sort, call, caller), fault)) = all.get(next.fetch_add(1, Ordering::SeqCst)) {
            if runtime.block_on(strike_at(&scene, whom, (call, caller), fault)) {
                struck.lock().expect("no panics").insert(sort);
            }
        }
    };
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| {
            for _ in 0..AT_A_TIME {
                scope.spawn(work);
            }
        });
    });
    struck.into_inner().expect("no panics")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: hundreds of starts, each with a system call that fails or kills"]
async fn d19_whichever_system_call_of_a_server_fails_or_is_its_last_the_store_is_sound() {
    let struck = strike(Whom::Server).await;
    assert_eq!(struck, CALLS.iter().map(|(sort, ..)| *sort).collect(), "each sort of call was made");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "long: hundreds of runs, each with a system call that fails or kills"]
async fn d19_whichever_system_call_of_a_gc_fails_or_is_its_last_the_store_is_sound() {
    let struck = strike(Whom::Gc).await;
    for sort in ["open", "sync", "rename", "link", "unlink", "mkdir"] {
        assert!(struck.contains(sort), "{sort}: {struck:?}");
    }
}
