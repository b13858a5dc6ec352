//! Servers under measurement: started, watched through `/proc`, stopped by process id.
//!
//! Figures are sums over a process and its children, because nginx works in children. Linux only.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{Outcome, transfer};

/// The unit of times in `/proc/<pid>/stat`, fixed in what the kernel promises to user space.
const TICKS_PER_SECOND: f64 = 100.0;
/// The longest that a server may take to answer for the first time.
const START_LIMIT: Duration = Duration::from_secs(60);
/// The longest that a server may take to end when asked to.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A running server. Ends when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// When it was started.
    pub(crate) started: Instant,
}

/// Memory of a server in MiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident now.
    pub(crate) resident: f64,
    /// The most that was ever resident.
    pub(crate) peak: f64,
}

/// An address on 127.0.0.1 that nobody listens on at this moment.
pub(crate) fn free_address() -> Outcome<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Server {
    /// Starts a command with its output in `log`, and waits until `path` is answered with 200.
    pub(crate) fn start(command: &mut Command, address: SocketAddr, path: &str, log: &Path) -> Outcome<Self> {
        let sink = fs::File::create(log)?;
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(sink.try_clone()?)
            .stderr(sink)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
        let mut server = Self { child, address, started };
        while transfer::get(address, path).is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("server ended with {status}: {}", fs::read_to_string(log)?).into());
            }
            if started.elapsed() > START_LIMIT {
                return Err(format!("server did not become ready: {}", fs::read_to_string(log)?).into());
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(server)
    }

    /// CPU seconds used so far, in user space and kernel.
    pub(crate) fn cpu_seconds(&self) -> Outcome<f64> {
        let mut ticks = 0.0;
        for pid in self.family()? {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
            // Fields 14 and 15; counted from behind the name, which may hold spaces.
            let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
            ticks += fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>();
        }
        Ok(ticks / TICKS_PER_SECOND)
    }

    /// Memory now and at most.
    pub(crate) fn memory(&self) -> Outcome<Memory> {
        let mut memory = Memory { resident: 0.0, peak: 0.0 };
        for pid in self.family()? {
            let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
            let mib = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
                line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or_default() / 1024.0
            };
            memory.resident += mib("VmRSS:");
            memory.peak += mib("VmHWM:");
        }
        Ok(memory)
    }

    /// The process and its children.
    fn family(&self) -> Outcome<Vec<u32>> {
        let own = self.child.id();
        let mut family = vec![own];
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
                continue;
            };
            // A process may end while we look.
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            let parent = stat.rsplit(')').next().unwrap_or_default().split_whitespace().nth(1);
            if parent.and_then(|parent| parent.parse().ok()) == Some(own) {
                family.push(pid);
            }
        }
        Ok(family)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked first: nginx's master takes its workers with it only then.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let asked = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) {
            if asked.elapsed() > STOP_LIMIT {
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
