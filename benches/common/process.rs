//! Servers and commands under measurement: started, watched through `/proc`, stopped by process id.
//!
//! Figures of a server are sums over a process and its children, because nginx works in children. Linux
//! only.

use std::fs;
use std::io::Read as _;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::{Outcome, transfer};

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

impl Memory {
    /// Of one process. One that has ended has none.
    fn of(pid: u32) -> Outcome<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let mib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim().trim_end_matches("kB").trim().parse::<f64>().unwrap_or_default() / 1024.0
        };
        Ok(Self { resident: mib("VmRSS:"), peak: mib("VmHWM:") })
    }
}

/// The CPU seconds that a process's `stat` tells.
fn cpu_seconds(stat: &str) -> f64 {
    // Fields 14 and 15; counted from behind the name, which may hold spaces.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields.skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / TICKS_PER_SECOND
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
        while !transfer::answers(address, path) {
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
        let mut seconds = 0.0;
        for pid in self.family()? {
            seconds += cpu_seconds(&fs::read_to_string(format!("/proc/{pid}/stat"))?);
        }
        Ok(seconds)
    }

    /// Memory now and at most.
    pub(crate) fn memory(&self) -> Outcome<Memory> {
        let mut memory = Memory { resident: 0.0, peak: 0.0 };
        for pid in self.family()? {
            let found = Memory::of(pid)?;
            memory.resident += found.resident;
            memory.peak += found.peak;
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

/// From now on the calling thread runs when nobody else wants its processor (`SCHED_IDLE`): so that one that only
/// watches takes no time from what it watches.
#[expect(unsafe_code, reason = "the system call has no safe form")]
pub(crate) fn run_when_idle() -> Outcome<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the parameters are there until the call has returned; nothing else is read or written.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameters) } == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error().into())
    }
}

/// How often a running command's memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A command that has ended.
#[derive(Debug)]
pub(crate) struct Ran {
    /// From its start to its end.
    pub(crate) wall: Duration,
    /// CPU seconds, in user space and kernel.
    pub(crate) cpu: f64,
    /// The most memory that was resident, in MiB.
    pub(crate) peak: f64,
    /// What it had read from disk, in MiB: what was not in the page cache.
    pub(crate) read: f64,
    /// Its exit code, if it was not killed.
    pub(crate) code: Option<i32>,
    /// Lines of its output.
    pub(crate) lines: u64,
    /// The last of them.
    pub(crate) last: String,
}

/// Runs a command to its end and reads its output, of which only the last line is kept.
pub(crate) fn run(command: &mut Command) -> Outcome<Ran> {
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", command.get_program().display()))?;
    let pid = child.id();
    let mut out = child.stdout.take().ok_or("no output")?;
    let reader = std::thread::spawn(move || -> std::io::Result<(u64, String)> {
        let (mut lines, mut last) = (0, Vec::new());
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = out.read(&mut buffer)?;
            if read == 0 {
                return Ok((lines, String::from_utf8_lossy(&last).into_owned()));
            }
            for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
                if last.last() == Some(&b'\n') {
                    last.clear();
                }
                last.extend_from_slice(piece);
                lines += u64::from(piece.ends_with(b"\n"));
            }
        }
    });
    let mut peak: f64 = 0.0;
    // A process that has ended keeps its times and counts, but not its memory, until somebody waits for it.
    let (wall, cpu) = loop {
        peak = peak.max(Memory::of(pid)?.peak);
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        if stat.rsplit(')').next().is_some_and(|fields| fields.trim_start().starts_with('Z')) {
            break (began.elapsed(), cpu_seconds(&stat));
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let read = mib_read(&fs::read_to_string(format!("/proc/{pid}/io"))?)?;
    let code = child.wait()?.code();
    let (lines, last) = reader.join().map_err(|_| "reading the output panicked")??;
    Ok(Ran { wall, cpu, peak, read, code, lines, last: last.trim_end().to_owned() })
}

/// What a process has caused to be read from disk, by what its `io` tells.
fn mib_read(io: &str) -> Outcome<f64> {
    let line = io.lines().find_map(|line| line.strip_prefix("read_bytes:")).ok_or("no read_bytes")?;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mib = line.trim().parse::<u64>()? as f64 / super::MIB as f64;
    Ok(mib)
}
