//! What is cached while upstream is away: an upstream that is gone, one that takes requests and says nothing,
//! and one that says that there are too many.
//!
//! Every tag is past its time, so that upstream would have to be asked about each answer. What is measured is
//! how long clients wait once it is known that this is in vain, and how long before.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::book::Goal;
use crate::common::process::Server;
use crate::common::transfer::{self, Connection};
use crate::common::{Item, Outcome, check, milliseconds};
use crate::origin::{Link, Mood, Origin};
use crate::peers::Peer;
use crate::rows::{Bench, Book};

/// Clients that ask at a time.
const CONNECTIONS: usize = 32;
/// The tags of which the first answers are timed: each may take as long as clients are let wait.
const FIRST: usize = 5 * CONNECTIONS;
/// Milliseconds that a cached answer may take once upstream is known to be away.
const KNOWN_LIMIT: f64 = 50.0;
/// The same before: the second that upstream is given, and something for the machine.
const FIRST_LIMIT: f64 = 1200.0;
/// How long an answer may take that says that upstream is left alone.
const AT_ONCE: Duration = Duration::from_millis(500);
/// How often it is asked whether upstream is left alone.
const POLL: Duration = Duration::from_secs(1);

/// The proxy whose tags are past their time at once.
const BRIEF: &str = "[[proxy]]\ntype = \"container\"\nname = \"brief\"\nttl = \"0s\"\n";

/// An upstream that is there until everything is cached, and then is not.
pub(crate) fn rows(bench: &Bench, book: &mut Book) -> Outcome<()> {
    for (mood, what) in [
        (Mood::Gone, "upstream gone"),
        (Mood::Silent, "upstream hangs"),
        (Mood::Limiting, "upstream answers 429"),
    ] {
        let origin = Origin::start(bench.content.directory.clone(), Link::QUICK)?;
        let items: Vec<_> = bench.content.tags.iter().map(of_brief_proxy).collect();
        let server = cached(bench, &origin, &items)?;
        origin.turn(mood)?;
        let first = &items[..items.len().min(FIRST)];
        let mut took = ask_for_each(server.address, first)?;
        took.sort_unstable();
        let longest = took.last().copied().unwrap_or_default();
        let name = format!("{what}: first answer for each of many cached tags, the longest");
        book.note(&name, "ms", Goal::Limit(FIRST_LIMIT), Peer::Repoxy, milliseconds(longest));
        if mood == Mood::Silent && !bench.scale.breaking.is_zero() {
            until_left_alone(server.address, bench.scale.breaking)?;
        }
        let name = format!("{what}: all cached tags in turn, 32 connections: p99");
        for _ in 0..bench.scale.rounds {
            let known = if bench.scale.breaking.is_zero() { first } else { &items[..] };
            let mut took = ask_in_turn(server.address, known, bench.scale.load)?;
            took.sort_unstable();
            let p99 = took.get(took.len() * 99 / 100).copied().ok_or("not one answer in time")?;
            book.note(&name, "ms", Goal::Limit(KNOWN_LIMIT), Peer::Repoxy, milliseconds(p99));
        }
    }
    Ok(())
}

/// A tag as the proxy is asked for it that asks upstream each time.
fn of_brief_proxy(tag: &Item) -> Item {
    let path = tag.path.replacen("/v2/", "/v2/brief/", 1);
    Item { path, ..tag.clone() }
}

/// A server that has all items, and upstream still answers.
fn cached(bench: &Bench, origin: &Origin, items: &[Item]) -> Outcome<Server> {
    let directory = bench.yard.fresh("peer")?;
    let tables = format!("{BRIEF}upstream = \"http://{}\"\n", origin.address);
    let server = bench.yard.repoxy_with(&directory, origin.address, "/-/ready", "", &tables)?;
    for _ in 0..2 {
        check(server.address, &items.iter().collect::<Vec<_>>())?;
    }
    Ok(server)
}

/// Asks for each item once, several at a time; how long each took. All bytes are compared.
fn ask_for_each(address: SocketAddr, items: &[Item]) -> Outcome<Vec<Duration>> {
    on_connections(address, |number, connection| {
        let own = items.iter().skip(number).step_by(CONNECTIONS);
        own.map(|item| timed(connection, item)).collect()
    })
}

/// Asks for the items in turn until the time is over; how long each took. All bytes are compared.
fn ask_in_turn(address: SocketAddr, items: &[Item], duration: Duration) -> Outcome<Vec<Duration>> {
    let until = Instant::now() + duration;
    on_connections(address, |number, connection| {
        // Each begins elsewhere, so that they do not move in step.
        let start = number * items.len() / CONNECTIONS;
        let endless = items.iter().cycle().skip(start);
        endless.take_while(|_| Instant::now() < until).map(|item| timed(connection, item)).collect()
    })
}

/// Runs something on each of the connections, and gathers what they give.
fn on_connections(
    address: SocketAddr,
    work: impl Fn(usize, &mut Connection) -> Outcome<Vec<Duration>> + Sync,
) -> Outcome<Vec<Duration>> {
    thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..CONNECTIONS)
            .map(|number| scope.spawn(move || work(number, &mut Connection::open(address)?)))
            .collect();
        let mut all = Vec::new();
        for worker in workers {
            all.extend(worker.join().map_err(|_| "a client panicked")??);
        }
        Ok(all)
    })
}

/// One answer, which must be right.
fn timed(connection: &mut Connection, item: &Item) -> Outcome<Duration> {
    let began = Instant::now();
    transfer::verify(connection, item)?;
    Ok(began.elapsed())
}

/// Waits until what is not cached is refused at once: until then upstream is asked, and its silence waited for.
fn until_left_alone(address: SocketAddr, limit: Duration) -> Outcome<()> {
    let began = Instant::now();
    for number in 0.. {
        if is_refused(address, &format!("/v2/brief/bench/none/manifests/{number}"))? {
            return Ok(());
        }
        if began.elapsed() > limit {
            return Err("upstream hangs, and is asked all the same".into());
        }
        thread::sleep(POLL);
    }
    Ok(())
}

/// Whether a 503 comes at once.
fn is_refused(address: SocketAddr, path: &str) -> Outcome<bool> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(AT_ONCE))?;
    stream.write_all(transfer::request(path).as_bytes())?;
    let mut head = [0; 12];
    Ok(stream.read_exact(&mut head).is_ok() && head.ends_with(b" 503"))
}
