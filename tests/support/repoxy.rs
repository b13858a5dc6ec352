//! The real binary as a server under test, with a root of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};

use super::Origin;

/// How long a server may take to say where it listens; generous, for a busy machine.
const START: Duration = Duration::from_secs(60);

/// A running `repoxy serve`. Killed when dropped.
#[derive(Debug)]
pub struct Repoxy {
    dir: tempfile::TempDir,
    process: Option<Child>,
    base: String,
    client: reqwest::Client,
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
    /// A header's value, empty if absent.
    pub fn header(&self, name: &str) -> &str {
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
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config =
            format!("root = \"{}\"\nlisten = \"127.0.0.1:0\"\n{config}", dir.path().join("root").display());
        std::fs::write(dir.path().join("repoxy.toml"), config).expect("a config file");
        // An error means that another test of this process has done it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let mut repoxy = Self { dir, process: None, base: String::new(), client };
        repoxy.start();
        repoxy
    }

    /// Starts the server (again).
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "it is running");
        let mut process = self
            .command(&["serve", "--log-format", "json"])
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("the binary runs");
        let stderr = process.stderr.take().expect("piped");
        let (sender, base) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(at) = line.find("http://127.0.0.1:") {
                    let end = line[at + 7..].find(['"', ' ', '/']).map_or(line.len(), |end| at + 7 + end);
                    let _ = sender.send(line[at..end].to_owned());
                }
                // Shown by the test runner if the test fails.
                let _ = writeln!(std::io::stderr(), "{line}");
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
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().expect("it is running");
        let pid = i32::try_from(process.id()).expect("a process id");
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).expect("a process id"),
            rustix::process::Signal::TERM,
        )
        .expect("it can be told");
        process.wait().expect("it ends")
    }

    /// A run of the binary with this server's configuration.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_repoxy"));
        command.args(arguments).arg("--config").arg(self.dir.path().join("repoxy.toml"));
        command.stdin(Stdio::null()).env_clear();
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary runs")
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

    /// Any request.
    pub async fn request(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Got {
        let response = self.open(method, path, headers).await;
        let (status, headers) = (response.status(), response.headers().clone());
        Got { status, headers, body: response.bytes().await.map_err(|error| error.to_string()) }
    }

    /// Any request, up to the headers of the answer.
    pub async fn open(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> reqwest::Response {
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.expect("an answer")
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
