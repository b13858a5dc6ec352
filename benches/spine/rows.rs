//! The rows of the table: what is done to whom, and the goals of `docs/performance.md`.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use reqwest::Version;

use crate::Scale;
use crate::common::book::Goal;
use crate::common::group::{Group, in_turn};
use crate::common::load::{self, Load};
use crate::common::process::Server;
use crate::common::transfer::{Connection, Take, Timing, discard, verify};
use crate::common::{Item, Outcome, check, milliseconds};
use crate::content::{self, Content};
use crate::origin::{Link, Origin};
use crate::peers::{Peer, Yard};
use crate::tls::{self, Clients, Door, Got};

/// The table.
pub(crate) type Book = crate::common::book::Book<Peer>;

/// What all rows work with.
pub(crate) struct Bench {
    pub(crate) content: Content,
    pub(crate) yard: Yard,
    pub(crate) scale: Scale,
}

/// Those that answer from their own disk.
const WARM: &[Peer] = &[Peer::Repoxy, Peer::NginxStatic, Peer::NginxCache, Peer::Registry];
/// Those that are cold at first, and upstream itself.
const COLD: &[Peer] =
    &[Peer::Repoxy, Peer::NginxCache, Peer::Registry, Peer::Varnish, Peer::Squid, Peer::Direct];
/// Those that many clients ask for one cold blob.
const CROWDED: &[Peer] = &[Peer::Repoxy, Peer::NginxCache, Peer::Registry, Peer::Varnish, Peer::Squid];
/// Those that many clients ask for as many.
const WIDE: &[Peer] = &[Peer::Repoxy, Peer::NginxCache];
/// Those that are measured over TLS and beside idle connections.
pub(crate) const SERVING: &[Peer] = &[Peer::Repoxy, Peer::NginxStatic];

/// All groups, in the order of the table.
pub(crate) const GROUPS: [Group<Bench, Peer>; 13] = [
    Group { name: "small", sides: WARM, rows: small },
    Group { name: "large", sides: WARM, rows: large },
    Group { name: "tls", sides: SERVING, rows: over_tls },
    Group { name: "cold", sides: COLD, rows: cold },
    Group { name: "link", sides: COLD, rows: link },
    Group { name: "image", sides: COLD, rows: image },
    Group { name: "many", sides: COLD, rows: many },
    Group { name: "crowd", sides: CROWDED, rows: crowd },
    Group { name: "wide", sides: WIDE, rows: wide },
    Group { name: "outage", sides: &[Peer::Repoxy], rows: crate::outage::rows },
    Group { name: "denied", sides: &[Peer::Repoxy], rows: crate::denied::rows },
    Group { name: "idle", sides: SERVING, rows: crate::idle::rows },
    Group { name: "start", sides: crate::start::STARTED, rows: crate::start::rows },
];

/// Clients that pull the large blob at once.
const LARGE_CLIENTS: usize = 4;
/// Layers that a client fetches at once.
const PARALLEL_LAYERS: usize = 4;
/// Packages that a client fetches at once.
const PARALLEL_PACKAGES: usize = 16;

/// A server in a directory that goes with it.
pub(crate) struct Tenant {
    peer: Peer,
    pub(crate) server: Option<Server>,
    address: SocketAddr,
    directory: PathBuf,
}

impl Drop for Tenant {
    fn drop(&mut self) {
        // Ended before its files go.
        self.server = None;
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Bench {
    /// Starts a peer with nothing in its cache. `Direct` is upstream itself.
    pub(crate) fn start(&self, peer: Peer, origin: &Origin) -> Outcome<Tenant> {
        let directory = self.yard.fresh_for(peer)?;
        let server = match peer {
            Peer::Repoxy => Some(self.yard.repoxy(&directory, origin.address, "/-/ready")?),
            Peer::NginxStatic => Some(self.yard.nginx_static(&self.content.directory, None)?),
            Peer::NginxCache => Some(Yard::nginx_cache(&directory, origin.address)?),
            Peer::Registry => Some(self.yard.registry(&directory, Some(origin.address))?),
            Peer::Varnish => Some(Yard::varnish(&directory, origin.address)?),
            Peer::Squid => Some(Yard::squid(&directory, origin.address)?),
            Peer::Nora => Some(self.yard.nora(&directory, origin.address)?),
            Peer::Direct => None,
        };
        let address = server.as_ref().map_or(origin.address, |server| server.address);
        Ok(Tenant { peer, server, address, directory })
    }

    /// Starts all that answer from their own disk, with `items` warm and checked: repoxy, nginx
    /// static, nginx cache, docker-registry with the content in its own storage.
    fn warm(&self, origin: &Origin, items: &[&Item]) -> Outcome<Vec<Tenant>> {
        let mut tenants = Vec::new();
        for peer in [Peer::Repoxy, Peer::NginxStatic, Peer::NginxCache] {
            tenants.push(self.start(peer, origin)?);
        }
        let directory = self.yard.fresh("storage")?;
        content::as_registry_storage(&self.content, &directory)?;
        let server = self.yard.registry(&directory, None)?;
        let address = server.address;
        tenants.push(Tenant { peer: Peer::Registry, server: Some(server), address, directory });
        for tenant in &tenants {
            // Twice: what came in, and what is served from then on.
            check(tenant.address, items)?;
            check(tenant.address, items)?;
        }
        Ok(tenants)
    }

    /// The quick upstream.
    pub(crate) fn origin(&self, link: Link) -> Outcome<Origin> {
        Origin::start(self.content.directory.clone(), link)
    }
}

#[expect(clippy::cast_precision_loss, reason = "sizes are far below 2^52")]
fn gigabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}

/// Small answers under load.
fn small(bench: &Bench, book: &mut Book) -> Outcome<()> {
    use Goal::{AtLeast, AtMost, None};
    use Peer::NginxStatic;
    let Content { tag, tags, kib, mib, .. } = &bench.content;
    let origin = bench.origin(Link::QUICK)?;
    let mut items = vec![tag, kib, mib];
    items.extend(tags);
    let tenants = bench.warm(&origin, &items)?;
    let directory = bench.yard.fresh("peer")?;
    let bare = bench.yard.repoxy_with(&directory, origin.address, "/-/ready", "hot_bytes = \"0\"\n", "")?;
    check(bare.address, &[tag])?;
    check(bare.address, &[tag])?;
    let beside = tenants.iter().find(|tenant| tenant.peer == NginxStatic).map(|tenant| tenant.address);
    let without_hot_map = [(Peer::Repoxy, bare.address), (NginxStatic, beside.ok_or("no nginx")?)];
    let one = std::slice::from_ref::<Item>;
    let cases = [
        ("tag manifest, 32 connections", one(tag), 32, AtLeast(1.25, NginxStatic), AtMost(1.0, NginxStatic)),
        (
            "tag manifest, 256 connections",
            one(tag),
            256,
            AtLeast(1.25, NginxStatic),
            AtMost(1.0, NginxStatic),
        ),
        ("all tags in turn, 32 connections", tags, 32, AtLeast(1.1, NginxStatic), None),
        ("1 KiB blob, 32 connections", one(kib), 32, AtLeast(1.0, NginxStatic), None),
        ("1 MiB blob, 32 connections", one(mib), 32, AtLeast(1.4, NginxStatic), None),
    ];
    for round in 0..bench.scale.rounds {
        for (name, items, connections, rate_goal, tail_goal) in cases {
            for tenant in in_turn(&tenants, round) {
                let shown = load::run(tenant.address, items, &Load::flat_out(connections, bench.scale.load))?;
                book.note(name, "answers/s", rate_goal, tenant.peer, shown.per_second);
                book.note(&format!("{name}: p99"), "ms", tail_goal, tenant.peer, shown.p99);
            }
        }
        let name = "tag manifest, 32 connections, hot map off";
        for (peer, address) in in_turn(&without_hot_map, round) {
            let shown = load::run(*address, one(tag), &Load::flat_out(32, bench.scale.load))?;
            book.note(name, "answers/s", AtLeast(0.6, NginxStatic), *peer, shown.per_second);
        }
    }
    Ok(())
}

/// One large blob, a few clients, from the disk cache.
fn large(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let item = &bench.content.gib;
    let origin = bench.origin(Link::QUICK)?;
    let tenants = bench.warm(&origin, &[item])?;
    for round in 0..bench.scale.rounds {
        for tenant in in_turn(&tenants, round) {
            let before = tenant.cpu_seconds()?;
            let (wall, timings) = together(tenant.address, &[item], LARGE_CLIENTS, discard)?;
            let moved = gigabytes(timings.iter().map(|timing| timing.bytes).sum());
            let cpu = tenant.cpu_seconds()? - before;
            let rate_goal = Goal::AtLeast(1.5, Peer::NginxStatic);
            book.note("1 GiB blob, 4 clients", "GB/s", rate_goal, tenant.peer, moved / wall.as_secs_f64());
            let cpu_goal = Goal::AtMost(0.8, Peer::NginxStatic);
            book.note("1 GiB blob, 4 clients: CPU", "s/GB", cpu_goal, tenant.peer, cpu / moved);
        }
    }
    Ok(())
}

/// Small answers and large bodies over TLS, by HTTP/1.1 and HTTP/2.
fn over_tls(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let Content { tag, hundred, .. } = &bench.content;
    let origin = bench.origin(Link::QUICK)?;
    let mut tenants = Vec::new();
    for &peer in SERVING {
        let directory = bench.yard.fresh("peer")?;
        let door = Door::new(&directory)?;
        let server = if peer == Peer::Repoxy {
            bench.yard.repoxy_with(&directory, origin.address, "/-/ready", "", &door.for_repoxy())?
        } else {
            bench.yard.nginx_static(&bench.content.directory, Some(&door))?
        };
        for _ in 0..2 {
            check(server.address, &[tag, hundred])?;
        }
        let address = server.address;
        tenants.push((Tenant { peer, server: Some(server), address, directory }, door));
    }
    let duration = bench.scale.load;
    for round in 0..bench.scale.rounds {
        for (version, streams, by) in [(Version::HTTP_11, 1, "HTTP/1.1"), (Version::HTTP_2, 8, "HTTP/2")] {
            for (tenant, door) in in_turn(&tenants, round) {
                let mut note =
                    |name: &str, unit, figure| book.note(name, unit, Goal::None, tenant.peer, figure);
                let clients = Clients { version, connections: 32, streams, duration };
                let (got, cpu) = load_over_tls(tenant, door, tag, clients)?;
                let name = format!("tag manifest over TLS, {by}");
                note(&name, "answers/s", got.answers / got.seconds);
                note(&format!("{name}: CPU"), "µs/answer", cpu * 1e6 / got.answers);

                let clients = Clients { version, connections: LARGE_CLIENTS, streams: 1, duration };
                let (got, cpu) = load_over_tls(tenant, door, hundred, clients)?;
                let moved = got.answers * gigabytes(hundred.size);
                let name = format!("100 MiB blob over TLS, {by}, 4 clients");
                note(&name, "GB/s", moved / got.seconds);
                note(&format!("{name}: CPU"), "s/GB", cpu / moved);
            }
        }
    }
    Ok(())
}

/// Puts a load on a server; what it gave, and the server's CPU seconds.
fn load_over_tls(tenant: &Tenant, door: &Door, item: &Item, clients: Clients) -> Outcome<(Got, f64)> {
    let before = tenant.cpu_seconds()?;
    let got = tls::run(door, item, clients)?;
    Ok((got, tenant.cpu_seconds()? - before))
}

/// The large blob through an empty cache, upstream as quick as loopback.
fn cold(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let item = &bench.content.gib;
    let origin = bench.origin(Link::QUICK)?;
    for round in 0..bench.scale.rounds {
        for &peer in in_turn(&bench.yard.with_nora(COLD), round) {
            let tenant = bench.start(peer, &origin)?;
            let before = tenant.cpu_seconds()?;
            let timing = cold_fetch(bench, &tenant, item)?;
            let cpu = tenant.cpu_seconds()? - before;
            check_first(&tenant, item, round)?;
            let whole_goal = Goal::AtMost(1.05, Peer::NginxCache);
            book.note("cold 1 GiB", "ms", whole_goal, peer, milliseconds(timing.whole));
            let first_goal = Goal::Within(3.0, Peer::Direct);
            book.note("cold 1 GiB: first byte", "ms", first_goal, peer, milliseconds(timing.first_byte));
            if peer != Peer::Direct {
                book.note("cold 1 GiB: CPU", "s/GB", Goal::None, peer, cpu / gigabytes(item.size));
            }
        }
    }
    compare_cold(bench, &bench.yard.with_nora(COLD), &origin, |address| check(address, &[item]))
}

/// The middle blob through an empty cache, upstream 50 ms away and 125 MB/s wide.
fn link(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let item = &bench.content.hundred;
    let origin = bench.origin(Link::FAR_AND_NARROW)?;
    for round in 0..bench.scale.rounds {
        for &peer in in_turn(&bench.yard.with_nora(COLD), round) {
            let tenant = bench.start(peer, &origin)?;
            let timing = cold_fetch(bench, &tenant, item)?;
            check_first(&tenant, item, round)?;
            let goal = Goal::AtMost(1.01, Peer::Direct);
            let name = "cold 100 MiB, upstream 50 ms and 125 MB/s";
            book.note(name, "ms", goal, peer, milliseconds(timing.whole));
        }
    }
    compare_cold(bench, &bench.yard.with_nora(COLD), &origin, |address| check(address, &[item]))
}

/// A round that nobody times, behind those that are: each server starts with an empty cache once more, and `fetch`
/// compares what clients get while it comes in, which those that are timed throw away.
fn compare_cold(
    bench: &Bench,
    peers: &[Peer],
    origin: &Origin,
    fetch: impl Fn(SocketAddr) -> Outcome<()>,
) -> Outcome<()> {
    for &peer in peers {
        let tenant = bench.start(peer, origin)?;
        fetch(tenant.address).map_err(|error| format!("{peer}, cold: {error}"))?;
    }
    // The next group finds nothing left to be written.
    rustix::fs::sync();
    Ok(())
}

/// Fetches an item that is not there yet, with nothing left to be written from before.
fn cold_fetch(bench: &Bench, tenant: &Tenant, item: &Item) -> Outcome<Timing> {
    rustix::fs::sync();
    // A virtual machine is given its memory when it touches it, and may give back what is free for two seconds (free
    // page reporting). To find it anew takes seconds a GiB, which would be counted to whoever's file lies there. So a
    // file that is as large lies there before.
    let file = bench.yard.fresh("before")?.join("file");
    std::fs::write(&file, vec![1_u8; usize::try_from(item.size + item.size / 4)?])?;
    std::fs::remove_file(&file)?;
    discard(&mut Connection::open(tenant.address)?, item)
}

/// In the first round, compares the bytes of an item that a server has fetched.
fn check_first(tenant: &Tenant, item: &Item, round: usize) -> Outcome<()> {
    if round == 0 && tenant.server.is_some() { check(tenant.address, &[item]) } else { Ok(()) }
}

/// An image of 40 layers, cold and warm, upstream 50 ms away.
fn image(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let (manifest, layers) = &bench.content.image;
    let origin = bench.origin(Link::FAR)?;
    for round in 0..bench.scale.rounds {
        for &peer in in_turn(&bench.yard.with_nora(COLD), round) {
            let tenant = bench.start(peer, &origin)?;
            rustix::fs::sync();
            let cold = milliseconds(pull(tenant.address, manifest, layers, discard)?);
            let cold_goal = Goal::AtMost(1.05, Peer::Direct);
            book.note("image of 40 layers, upstream 50 ms, cold", "ms", cold_goal, peer, cold);
            let warm = milliseconds(pull(tenant.address, manifest, layers, discard)?);
            let warm_goal = Goal::AtMost(0.1, Peer::Direct);
            book.note("image of 40 layers, upstream 50 ms, warm", "ms", warm_goal, peer, warm);
            if round == 0 && tenant.server.is_some() {
                check(tenant.address, &[manifest])?;
                check(tenant.address, &layers.iter().collect::<Vec<_>>())?;
            }
        }
    }
    compare_cold(bench, &bench.yard.with_nora(COLD), &origin, |address| {
        pull(address, manifest, layers, verify).map(drop)
    })
}

/// Pulls an image as clients do: the manifest, then its layers over a few kept connections.
fn pull(address: SocketAddr, manifest: &Item, layers: &[Item], take: Take) -> Outcome<Duration> {
    let began = Instant::now();
    take(&mut Connection::open(address)?, manifest)?;
    fetch_all(address, layers, PARALLEL_LAYERS, take)?;
    Ok(began.elapsed())
}

/// Fetches all items over so many kept connections.
fn fetch_all(address: SocketAddr, items: &[Item], connections: usize, take: Take) -> Outcome<()> {
    let next = AtomicUsize::new(0);
    let worker = || -> Outcome<()> {
        let mut connection = Connection::open(address)?;
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            take(&mut connection, item)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..connections).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| "a client panicked")?)
    })
}

/// Many small blobs, cold and warm, as an installation of packages asks for them.
fn many(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let items = &bench.content.many;
    let origin = bench.origin(Link::QUICK)?;
    for round in 0..bench.scale.rounds {
        for &peer in in_turn(&bench.yard.with_nora(COLD), round) {
            let tenant = bench.start(peer, &origin)?;
            rustix::fs::sync();
            for state in ["cold", "warm"] {
                let began = Instant::now();
                fetch_all(tenant.address, items, PARALLEL_PACKAGES, discard)?;
                let name = format!("600 small blobs, 16 connections, {state}");
                book.note(&name, "ms", Goal::None, peer, milliseconds(began.elapsed()));
            }
            if round == 0 && tenant.server.is_some() {
                check(tenant.address, &items.iter().collect::<Vec<_>>())?;
            }
        }
    }
    compare_cold(bench, &bench.yard.with_nora(COLD), &origin, |address| {
        fetch_all(address, items, PARALLEL_PACKAGES, verify)
    })
}

/// Many clients on one cold blob.
fn crowd(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let item = &bench.content.hundred;
    let origin = bench.origin(Link::QUICK)?;
    for round in 0..bench.scale.rounds {
        for &peer in in_turn(&bench.yard.with_nora(CROWDED), round) {
            let tenant = bench.start(peer, &origin)?;
            rustix::fs::sync();
            origin.take_gets(&item.path);
            let (wall, _) = together(tenant.address, &[item], bench.scale.crowd, discard)?;
            let name = |what: &str| format!("50 clients, one cold 100 MiB blob: {what}");
            #[expect(clippy::cast_precision_loss, reason = "a count of at most 50 or so")]
            let gets = origin.take_gets(&item.path) as f64;
            book.note(&name("upstream GETs"), "", Goal::Ceiling(1.0), peer, gets);
            let wall_goal = Goal::AtMost(0.75, Peer::NginxCache);
            book.note(&name("wall"), "ms", wall_goal, peer, milliseconds(wall));
            book.note(&name("CPU"), "s", Goal::None, peer, tenant.cpu_seconds()?);
            book.note(&name("peak memory"), "MiB", Goal::Ceiling(48.0), peer, tenant.peak()?);
            if round == 0 {
                check(tenant.address, &[item])?;
            }
        }
    }
    compare_cold(bench, &bench.yard.with_nora(CROWDED), &origin, |address| {
        together(address, &[item], bench.scale.crowd, verify).map(drop)
    })
}

/// Many clients on as many different cold blobs. One round is timed: memory, not time, is what is measured.
fn wide(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let items: Vec<&Item> = bench.content.wide.iter().collect();
    let needed = items.iter().map(|item| item.size).sum::<u64>();
    let disk = rustix::fs::statvfs(&bench.content.directory)?;
    let free = disk.f_bavail * disk.f_frsize;
    // A tenth more, so that the machine is left something.
    if free < needed + needed / 10 {
        let (needed, free) = (gigabytes(needed), gigabytes(free));
        return Err(format!("needs {needed:.0} GB of disk and there are {free:.0}").into());
    }
    let origin = bench.origin(Link::QUICK)?;
    for &peer in WIDE {
        let tenant = bench.start(peer, &origin)?;
        let (wall, _) = together(tenant.address, &items, items.len(), discard)?;
        let name = |what: &str| format!("256 clients, 256 cold 100 MiB blobs: {what}");
        book.note(&name("peak memory"), "MiB", Goal::Ceiling(96.0), peer, tenant.peak()?);
        book.note(&name("wall"), "ms", Goal::None, peer, milliseconds(wall));
        check(tenant.address, &items)?;
    }
    compare_cold(bench, WIDE, &origin, |address| together(address, &items, items.len(), verify).map(drop))
}

/// Lets `clients` fetch at once, each the next of the items in turn; returns the time until the last
/// was done, and every client's own.
fn together(
    address: SocketAddr,
    items: &[&Item],
    clients: usize,
    take: Take,
) -> Outcome<(Duration, Vec<Timing>)> {
    let ready = Barrier::new(clients + 1);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..clients)
            .map(|client| {
                let (item, ready) = (items[client % items.len()], &ready);
                scope.spawn(move || -> Outcome<Timing> {
                    let connection = Connection::open(address);
                    ready.wait();
                    take(&mut connection?, item)
                })
            })
            .collect();
        ready.wait();
        let began = Instant::now();
        let mut timings = Vec::with_capacity(clients);
        for worker in workers {
            timings.push(worker.join().map_err(|_| "a client panicked")??);
        }
        Ok((began.elapsed(), timings))
    })
}

impl Tenant {
    /// CPU seconds of the server so far.
    fn cpu_seconds(&self) -> Outcome<f64> {
        self.server.as_ref().map_or(Ok(0.0), Server::cpu_seconds)
    }

    /// The most memory the server has had, in MiB.
    fn peak(&self) -> Outcome<f64> {
        self.server.as_ref().map_or(Ok(0.0), |server| Ok(server.memory()?.peak))
    }
}
