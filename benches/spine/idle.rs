//! Hits beside connections that are held open and ask for little or nothing: idle ones, readers that take a
//! byte a second, heads of which a byte a second comes.
//!
//! Each server is measured with them and without them in the same round, so that a ratio says what they
//! cost.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::common::book::Goal;
use crate::common::group::in_turn;
use crate::common::load::{self, Load};
use crate::common::{Item, Outcome, check, transfer};
use crate::origin::{Link, Origin};
use crate::peers::Peer;
use crate::rows::{Bench, Book};

/// Readers that take a byte a second of a body that is larger than all buffers on its way.
const SLOW_READERS: usize = 100;
/// Heads of which a byte a second comes.
const SLOW_HEADS: usize = 100;
/// Clients whose answers are timed.
const CONNECTIONS: usize = 32;
/// What a process needs beside the connections that it holds.
const SPARE_FILES: u64 = 512;
/// The most that a slow reader's kernel takes in advance.
const READ_BUFFER: usize = 4096;
/// How often the slow ones do something.
const PACE: Duration = Duration::from_secs(1);
/// The longest silence.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// How long a server is given to see that they are there, or gone.
const SETTLE: Duration = Duration::from_secs(1);

/// How many times as long as without the others hits may take at p99. The same figure of the same server
/// varies by a fifth from one round to the next.
const RATIO_LIMIT: f64 = 1.5;
/// Milliseconds at p99, whatever it is without them.
const TAIL_LIMIT: f64 = 50.0;
/// MiB that all of them together may take.
const MEMORY_LIMIT: f64 = 200.0;

/// Hits of one tag by themselves and beside the others.
pub(crate) fn rows(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let (tag, large) = (&bench.content.tag, &bench.content.hundred);
    let held = bench.scale.idle + SLOW_READERS + SLOW_HEADS;
    allow_files(held as u64 + SPARE_FILES)?;
    let origin = Origin::start(bench.content.directory.clone(), Link::QUICK)?;
    let directory = bench.yard.fresh("peer")?;
    let servers = [
        (Peer::Repoxy, bench.yard.repoxy(&directory, origin.address, "/-/ready")?),
        (Peer::NginxStatic, bench.yard.nginx_static(&bench.content.directory, None)?),
    ];
    let load = Load::flat_out(CONNECTIONS, bench.scale.load);
    let one = std::slice::from_ref(tag);
    let mut measured = Vec::new();
    for (peer, server) in servers {
        for _ in 0..2 {
            check(server.address, &[tag, large])?;
        }
        // Once: what the others have taken stays with a process when they have gone.
        load::run(server.address, one, &load)?;
        let before = server.memory()?.resident;
        measured.push((peer, server, before));
    }
    for round in 0..bench.scale.rounds {
        for (peer, server, before) in in_turn(&measured, round) {
            let alone = load::run(server.address, one, &load)?.p99;
            let others = Others::open(server.address, bench.scale.idle, tag, large)?;
            let (beside, grown) = others.held(|| -> Outcome<_> {
                thread::sleep(SETTLE);
                let beside = load::run(server.address, one, &load)?.p99;
                check(server.address, &[tag])?;
                Ok((beside, server.memory()?.resident - before))
            })?;
            // nginx is shown for comparison; the goals are ours.
            let name = format!("tag manifest, 32 connections, beside {held} idle and slow ones");
            book.note(&format!("{name}: p99"), "ms", Goal::Limit(TAIL_LIMIT), *peer, beside);
            let goal = Goal::Limit(RATIO_LIMIT);
            book.note(&format!("{name}: p99 over that without them"), "×", goal, *peer, beside / alone);
            // What later ones take is not what they need: it depends on what has been freed before, and where.
            if round == 0 {
                let goal = Goal::Ceiling(MEMORY_LIMIT);
                book.note(&format!("{name}: memory for the first"), "MiB", goal, *peer, grown);
            }
            thread::sleep(SETTLE);
        }
    }
    Ok(())
}

/// Lets this process open so many files.
fn allow_files(needed: u64) -> Outcome<()> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed) {
        return Err(format!("needs {needed} open files and may have {maximum:?} (`ulimit -Hn`)").into());
    }
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(needed), maximum })?)
}

/// Connections that are held.
struct Others {
    /// They have had an answer, and ask for nothing more.
    idle: Vec<TcpStream>,
    readers: Vec<TcpStream>,
    heads: Vec<TcpStream>,
}

impl Others {
    /// Opens all of them.
    fn open(address: SocketAddr, idle: usize, small: &Item, large: &Item) -> Outcome<Self> {
        let mut others = Self { idle: Vec::new(), readers: Vec::new(), heads: Vec::new() };
        let mut buffer = vec![0; 64 << 10];
        for _ in 0..idle {
            let mut stream = connect(address)?;
            ask(&mut stream, small, &mut buffer)?;
            others.idle.push(stream);
        }
        for _ in 0..SLOW_READERS {
            let mut stream = connect(address)?;
            sockopt::set_socket_recv_buffer_size(stream.as_fd(), READ_BUFFER)?;
            stream.write_all(transfer::request(&large.path).as_bytes())?;
            others.readers.push(stream);
        }
        for _ in 0..SLOW_HEADS {
            let mut stream = connect(address)?;
            stream.write_all(b"GET /v2/ HTTP/1.1\r\nx-a: ")?;
            others.heads.push(stream);
        }
        Ok(others)
    }

    /// Holds them while something is done: what is slow goes on slowly. Fails if an idle one was let go.
    fn held<T>(mut self, work: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
        let over = AtomicBool::new(false);
        let result = thread::scope(|scope| {
            let (readers, heads, over) = (&mut self.readers, &mut self.heads, &over);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    // A server may have had enough of one of them.
                    readers.retain_mut(|stream| stream.read_exact(&mut [0]).is_ok());
                    heads.retain_mut(|stream| stream.write_all(b"a").is_ok());
                    thread::sleep(PACE);
                }
            });
            let result = work();
            over.store(true, Ordering::Relaxed);
            result
        });
        for stream in &mut self.idle {
            stream.set_nonblocking(true)?;
            match stream.read(&mut [0]) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                _ => return Err("an idle connection was let go".into()),
            }
        }
        result
    }
}

/// One answer to its end, so that the connection is idle afterwards.
fn ask(stream: &mut TcpStream, item: &Item, buffer: &mut [u8]) -> Outcome<()> {
    stream.write_all(transfer::request(&item.path).as_bytes())?;
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..])?;
        if read == 0 {
            return Err("a connection was not kept".into());
        }
        filled += read;
        if let Some((head, length)) = transfer::head(&buffer[..filled])?
            && (filled - head) as u64 >= length
        {
            return if length == item.size { Ok(()) } else { Err(format!("{length} bytes").into()) };
        }
    }
}

/// A connection that leaves no trace in the kernel when it is closed: thousands of them would use up the ports
/// that there are for a minute.
fn connect(address: SocketAddr) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(SILENCE_LIMIT))?;
    sockopt::set_socket_linger(stream.as_fd(), Some(Duration::ZERO))?;
    Ok(stream)
}
