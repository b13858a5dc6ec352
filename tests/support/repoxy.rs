//! The real binary as a server under test, with a root of its own.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Origin, PATIENCE, eventually};

/// How long a server may take to say where it listens; generous, for a busy machine.
const START: Duration = Duration::from_secs(60);

/// A running `repoxy serve`. Killed when dropped.
#[derive(Debug)]
pub struct Repoxy {
    dir: tempfile::TempDir,
    process: Option<Child>,
    base: String,
    client: reqwest::Client,
    wrapper: Vec<String>,
    environment: Vec<(String, String)>,
    log: Arc<Mutex<Vec<String>>>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Got {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or how it broke.
    pub body: Result<Bytes, String>,
}

impl Got {
    /// A header's value, empty if absent; there must not be two.
    pub fn header(&self, name: &str) -> &str {
        let lines = self.headers.get_all(name).iter().count();
        assert!(lines <= 1, "{lines} times {name}: {:?}", self.headers);
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    /// The whole body.
    pub fn bytes(&self) -> &Bytes {
        self.body.as_ref().expect("the body arrived whole")
    }

    /// The `code` of the first error in an OCI error body.
    pub fn error_code(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(self.bytes()).expect("a JSON body");
        body["errors"][0]["code"].as_str().expect("an OCI error").to_owned()
    }
}

impl Repoxy {
    /// A server with one proxy `hub` in front of `origin`, that asks upstream about a tag each time.
    pub fn before(origin: &Origin) -> Self {
        Self::with(&proxy(origin, "ttl = \"0s\""))
    }

    /// A server with this configuration, to which root and listen address are added.
    pub fn with(config: &str) -> Self {
        let mut repoxy = Self::stopped(config);
        repoxy.start();
        repoxy
    }

    /// The same, not started yet.
    pub fn stopped(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config =
            format!("root = \"{}\"\nlisten = \"127.0.0.1:0\"\n{config}", dir.path().join("root").display());
        std::fs::write(dir.path().join("repoxy.toml"), config).expect("a config file");
        // An error means that another test of this process has done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        Self {
            dir,
            process: None,
            base: String::new(),
            client,
            wrapper: Vec::new(),
            // The machine's own disk may be nearly full, which is no test's concern.
            environment: [("REPOXY_GC_MIN_FREE", "0"), ("REPOXY_LOG_FORMAT", "json")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            log: Arc::default(),
        }
    }

    /// From the next start on, the server is run by another program, which must become it or keep it
    /// as the process that was started (`strace -D`, `prlimit`, `unshare`).
    pub fn run_under(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(|&word| word.to_owned()).collect();
    }

    /// From the next start on, each of these system calls of the server takes so many microseconds longer.
    pub fn slow_down(&mut self, calls: &str, microseconds: u32) {
        let (calls, delay) = (format!("trace={calls}"), format!("inject={calls}:delay_enter={microseconds}"));
        self.run_under(&["strace", "-D", "-f", "-qq", "-e", &calls, "-e", &delay, "-o", "/dev/null"]);
    }

    /// From the next start on, the server has this variable.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Starts the server (again).
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "it is running");
        let mut process = self
            .wrapped(&["serve"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let stderr = process.stderr.take().expect("piped");
        let (sender, base) = mpsc::channel();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(at) = line.find("http://127.0.0.1:") {
                    let end = line[at + 7..].find(['"', ' ', '/']).map_or(line.len(), |end| at + 7 + end);
                    let _ = sender.send(line[at..end].to_owned());
                }
                // Shown by the test runner if the test fails.
                let _ = writeln!(std::io::stderr(), "{line}");
                log.lock().expect("no panics").push(line);
            }
        });
        self.process = Some(process);
        self.base = base.recv_timeout(START).expect("the server says where it listens");
    }

    /// Ends the server at once, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("it can be killed");
            process.wait().expect("it ends");
        }
    }

    /// Asks the server to end, and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Sends the server a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it can be told");
    }

    /// Waits until the server has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.process.take().expect("it is running").wait().expect("it ends")
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        let pid = i32::try_from(self.process.as_ref().expect("it is running").id());
        Pid::from_raw(pid.expect("a process id")).expect("a process id")
    }

    /// A file of `/proc/<pid>`, as text.
    pub fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid().as_raw_nonzero());
        let bytes = std::fs::read(path).expect("it is running");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The memory in use that is its own, in bytes: mapped files, its program included, are not.
    pub fn own_memory(&self) -> u64 {
        let status = self.proc("status");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("Linux says it");
        line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid().as_raw_nonzero());
        std::fs::read_dir(path).expect("it is running").count()
    }

    /// What it has logged since the first start.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panics").join("\n")
    }

    /// Sends bytes as they are and reads until the server closes the connection.
    pub async fn raw(&self, request: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address()).await.expect("it listens");
        // The server may refuse, and close, before it has read everything.
        let _ = stream.write_all(request).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    }

    /// The value of a counter, by its name with labels as `/-/metrics` prints it; 0 if it is not there.
    pub async fn metric(&self, name: &str) -> f64 {
        let page = self.get("/-/metrics").await;
        let text = String::from_utf8_lossy(page.bytes()).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.unwrap_or(0.0)
    }

    /// Waits until a metric is at least this.
    pub async fn metric_reaches(&self, name: &str, least: f64) {
        let began = Instant::now();
        while self.metric(name).await < least {
            assert!(began.elapsed() < PATIENCE, "waited in vain: {name} is below {least}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits until this many blobs are published, and their refs: clients have all bytes a moment before
    /// that.
    pub async fn stored(&self, blobs: usize) {
        eventually("the blobs are published", || self.files("type/container/blobs").len() >= blobs).await;
        self.settle().await;
    }

    /// Waits until what has been fetched is stored: clients have the bytes a little earlier.
    pub async fn settle(&self) {
        let began = Instant::now();
        loop {
            let page = self.get("/-/metrics").await;
            let text = String::from_utf8_lossy(page.bytes()).into_owned();
            let mut under_way = text.lines().filter(|line| line.starts_with("repoxy_fills{")).peekable();
            if under_way.peek().is_some() && under_way.all(|line| line.ends_with(" 0")) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "waited in vain: something is fetched still");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// No file of the root holds this text, once all is stored: until then files change their names.
    pub async fn assert_nowhere(&self, text: &str) {
        self.settle().await;
        let is_read = |file: PathBuf| match std::fs::read(&file) {
            Ok(bytes) => {
                assert!(!String::from_utf8_lossy(&bytes).contains(text), "{}", file.display());
                true
            }
            // Upkeep goes on: it has another name by now, or has gone. All are looked at again.
            Err(error) if error.kind() == ErrorKind::NotFound => false,
            Err(error) => panic!("{}: {error}", file.display()),
        };
        eventually("all files can be read", || self.files("").into_iter().all(is_read)).await;
    }

    /// What must hold after every case: it lives, and a full fsck finds nothing.
    pub async fn assert_sound(&self) {
        assert_eq!(self.get("/-/health").await.status, StatusCode::OK);
        let fsck = self.run(&["fsck", "--read-data"]);
        let said = (String::from_utf8_lossy(&fsck.stdout), String::from_utf8_lossy(&fsck.stderr));
        assert!(fsck.status.success(), "{said:?}");
    }

    /// Waits until a full fsck finds nothing.
    pub async fn becomes_sound(&self) {
        let began = std::time::Instant::now();
        while !self.run(&["fsck", "--read-data"]).status.success() && began.elapsed() < super::PATIENCE {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.assert_sound().await;
    }

    /// A run of the binary with this server's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repoxy"));
        command.args(arguments).arg("--config").arg(self.dir.path().join("repoxy.toml"));
        command.stdin(Stdio::null()).env_clear();
        command
    }

    /// The same, run by the wrapper.
    fn wrapped(&self, arguments: &[&str]) -> Command {
        let plain = self.command(arguments);
        let words = self.wrapper.iter().map(std::ffi::OsStr::new);
        let mut words = words.chain([plain.get_program()]).chain(plain.get_args());
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).stdin(Stdio::null()).env_clear();
        // For wrappers, which live in places that the program itself needs to know nothing of.
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
    }

    /// Runs the binary to its end, under the wrapper.
    pub fn run_wrapped(&self, arguments: &[&str]) -> Output {
        self.wrapped(arguments).output().expect("the wrapper runs")
    }

    /// The directory with the configuration, for further files of a test.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The root directory.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    /// Where a blob is kept.
    pub fn blob_file(&self, hex: &str) -> PathBuf {
        self.root().join(format!("type/container/blobs/sha256/{}/{}/{hex}", &hex[..2], &hex[2..4]))
    }

    /// All files below a directory of the root, sorted.
    pub fn files(&self, below: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        list(&self.root().join(below), &mut files);
        files.sort();
        files
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.base.strip_prefix("http://").expect("a URL").parse().expect("an address")
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.base
    }

    /// The client that asks it.
    pub fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// GETs a path and reads the body to its end.
    pub async fn get(&self, path: &str) -> Got {
        self.request(Method::GET, path, &[]).await
    }

    /// HEADs a path.
    pub async fn head(&self, path: &str) -> Got {
        self.request(Method::HEAD, path, &[]).await
    }

    /// Any request. An answer that was cut before its headers went out, as one may be whose bytes are known to
    /// be wrong by then, has no body, and 502 stands for the status that it has not got.
    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Got {
        match self.send(method, path, headers).await {
            Ok(response) => {
                let (status, headers) = (response.status(), response.headers().clone());
                Got { status, headers, body: response.bytes().await.map_err(|error| error.to_string()) }
            }
            Err(error) => {
                let (status, headers) = (StatusCode::BAD_GATEWAY, HeaderMap::new());
                Got { status, headers, body: Err(error.to_string()) }
            }
        }
    }

    /// Any request, up to the headers of the answer.
    pub async fn open(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        self.send(method, path, headers).await.expect("an answer")
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
    ) -> reqwest::Result<reqwest::Response> {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await
    }
}

impl Drop for Repoxy {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A `[[proxy]]` table for the default proxy `hub` in front of an origin, with further lines.
pub fn proxy(origin: &Origin, more: &str) -> String {
    format!(
        "[[proxy]]\ntype = \"container\"\nname = \"hub\"\nupstream = \"{}\"\ndefault = true\n{more}\n",
        origin.url()
    )
}

fn list(dir: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    for entry in entries {
        let path = entry.expect("readable").path();
        if path.is_dir() { list(&path, files) } else { files.push(path) }
    }
}
