//! An estate with a configuration: where commands and servers are run.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::common::load::{self, Load};
use crate::common::process::{self, Ran, Server, free_address};
use crate::common::{Item, Outcome, check};
use crate::estate::{Estate, PROXIES};

/// Connections of the load beside which commands are run.
const CONNECTIONS: usize = 8;
/// What each of them leaves between two requests: together some 2,000 a second, a busy day, but nothing
/// that fills the machine.
const GAP: Duration = Duration::from_millis(4);
/// The longest that a load beside a command runs.
const LONGEST: Duration = Duration::from_mins(10);
/// How long after the first use of something its last use is in the index at the latest: the server flushes
/// every five seconds.
pub(crate) const FLUSHED: Duration = Duration::from_secs(6);

/// A store, and the index and configuration of this run.
#[derive(Debug)]
pub(crate) struct Place {
    binary: PathBuf,
    /// The store.
    pub(crate) estate: Estate,
    /// Where the index and the configuration are.
    directory: PathBuf,
}

impl Place {
    /// Prepares to run `binary` on an estate; `directory` is for what belongs to this run.
    pub(crate) fn new(binary: PathBuf, estate: Estate, directory: PathBuf) -> Outcome<Self> {
        fs::create_dir_all(&directory)?;
        Ok(Self { binary, estate, directory })
    }

    /// Where the index is.
    pub(crate) fn index(&self) -> PathBuf {
        self.directory.join("index")
    }

    /// Throws the index away.
    pub(crate) fn drop_index(&self) -> Outcome<()> {
        let index = self.index();
        if index.exists() {
            fs::remove_dir_all(index)?;
        }
        Ok(())
    }

    /// Runs a command to its end, which must be a good one, and gives its last line as JSON.
    pub(crate) fn run(&self, arguments: &[&str]) -> Outcome<(Ran, Value)> {
        let config = self.configure("command.toml", "")?;
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(config);
        let ran = process::run(&mut command)?;
        if ran.code != Some(0) {
            return Err(format!("`{}` ended with {:?}: {}", arguments.join(" "), ran.code, ran.last).into());
        }
        let last = serde_json::from_str(&ran.last).unwrap_or(Value::Null);
        Ok((ran, last))
    }

    /// Makes an index that says what the files say.
    pub(crate) fn reindex(&self) -> Outcome<Ran> {
        let (ran, summary) = self.run(&["reindex", "--json"])?;
        expect(&summary, "refs", self.estate.refs)?;
        expect(&summary, "withoutTarget", 0)?;
        expect(&summary, "unreadable", 0)?;
        Ok(ran)
    }

    /// Starts a server, ready when it answers `path`. Nobody answers where its upstream should be.
    pub(crate) fn serve(&self, path: &str) -> Outcome<Server> {
        self.serve_with(path, "")
    }

    /// The same, with more in its configuration, in front of the first table.
    pub(crate) fn serve_with(&self, path: &str, keys: &str) -> Outcome<Server> {
        let address = free_address()?;
        let config = self.configure("server.toml", &format!("listen = \"{address}\"\n{keys}"))?;
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(config);
        Server::start(&mut command, address, path, &self.directory.join("log"))
    }

    /// Writes a configuration with these further keys. A server has a file of its own, so that a command beside it does
    /// not change what it may read again.
    fn configure(&self, name: &str, keys: &str) -> Outcome<PathBuf> {
        let proxies = PROXIES.iter().enumerate().map(|(at, name)| {
            format!(
                "[[proxy]]\ntype = \"container\"\nname = \"{name}\"\nupstream = \"http://127.0.0.1:9\"\n\
                 default = {}\n",
                at == 0
            )
        });
        let text = format!(
            "root = \"file://{}\"\nindex = \"{}\"\n{keys}[gc]\nmin_free = \"1%\"\n[log]\nlevel = \"warn\"\n{}",
            self.estate.root().display(),
            self.index().display(),
            proxies.collect::<String>()
        );
        let path = self.directory.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

/// What clients saw at p99, in ms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tails {
    /// With nothing beside them.
    pub(crate) alone: f64,
    /// While something else was done.
    pub(crate) beside: f64,
}

/// What a load that does not fill the machine sees while something else is done, and what it sees for `duration` with
/// nothing beside it. All bytes are compared first.
///
/// Both sides are as warm: everything is asked for once before any of it is timed, and its uses are written by then.
/// Alone it is timed before and afterwards, and the shorter counts.
pub(crate) fn beside<T>(
    server: &Server,
    items: &[Item],
    duration: Duration,
    work: impl FnOnce() -> Outcome<T>,
) -> Outcome<(T, Tails)> {
    check(server.address, &items.iter().collect::<Vec<_>>())?;
    thread::sleep(FLUSHED);
    let stop = Arc::new(AtomicBool::new(false));
    let load = Load { connections: CONNECTIONS, gap: GAP, duration: LONGEST, stop: Arc::clone(&stop) };
    let alone = || load::run(server.address, items, &Load { duration, stop: Arc::default(), ..load.clone() });
    let before = alone()?;
    let (done, during) = thread::scope(|scope| {
        let seen = scope.spawn(|| load::run(server.address, items, &load));
        let done = work();
        stop.store(true, Ordering::Relaxed);
        (done, seen.join().map_err(|_| "the load panicked"))
    });
    let (done, during) = (done?, during??);
    let after = alone()?;
    Ok((done, Tails { alone: before.p99.min(after.p99), beside: during.p99 }))
}

/// Compares a number of a command's summary.
pub(crate) fn expect(summary: &Value, field: &str, expected: u64) -> Outcome<()> {
    match summary[field].as_u64() {
        Some(found) if found == expected => Ok(()),
        found => Err(format!("`{field}` is {found:?} and not {expected}: {summary}").into()),
    }
}
