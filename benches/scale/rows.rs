//! The rows of the table: what is done to the store, and the goals of `docs/performance.md`.

use std::fmt;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Instant;

use repoxy::index::Index;

use crate::Scale;
use crate::common::book::{Column, Goal};
use crate::common::group::Group;
use crate::common::process::Ran;
use crate::common::{Item, MIB, Outcome, check, milliseconds};
use crate::place::{Place, Tails, beside, expect};

/// What all rows work with.
pub(crate) struct Bench {
    /// The store of many refs.
    pub(crate) refs: Place,
    /// The store of a few large blobs.
    pub(crate) bytes: Place,
    pub(crate) scale: Scale,
    /// For stores that are made anew.
    pub(crate) directory: PathBuf,
    /// What is measured.
    pub(crate) binary: PathBuf,
}

/// Ours, and what it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    /// repoxy.
    Repoxy,
    /// The same server with nothing beside it, or the same work done by as few lines as it takes.
    Reference,
}

impl Column for Side {
    const ALL: &'static [Self] = &[Self::Repoxy, Self::Reference];
    const OURS: Self = Self::Repoxy;
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Repoxy => "repoxy",
            Self::Reference => "reference",
        })
    }
}

/// The table.
pub(crate) type Book = crate::common::book::Book<Side>;

/// All groups, in the order of the table.
pub(crate) const GROUPS: [Group<Bench, Side>; 9] = [
    Group { name: "reindex", sides: Side::ALL, rows: reindex },
    Group { name: "start", sides: &[Side::Repoxy], rows: start },
    Group { name: "lookup", sides: &[Side::Repoxy], rows: lookup },
    Group { name: "list", sides: &[Side::Repoxy], rows: list },
    Group { name: "fsck", sides: &[Side::Repoxy], rows: fsck },
    Group { name: "data", sides: Side::ALL, rows: crate::data::rows },
    Group { name: "uses", sides: Side::ALL, rows: crate::uses::rows },
    Group { name: "gc", sides: Side::ALL, rows: gc },
    Group { name: "eviction", sides: Side::ALL, rows: crate::eviction::rows },
];

/// The most memory that upkeep may take, in MiB.
pub(crate) const UPKEEP_MEMORY: Goal<Side> = Goal::Ceiling(200.0);
/// Seconds that it may take to find out what would go.
const PLANNING: Goal<Side> = Goal::Limit(15.0);

/// Notes what a command took.
fn note(book: &mut Book, name: &str, ran: &Ran, wall: Goal<Side>) {
    book.note(name, "s", wall, Side::Repoxy, ran.wall.as_secs_f64());
    book.note(&format!("{name}: CPU"), "s", Goal::None, Side::Repoxy, ran.cpu);
    book.note(&format!("{name}: read from disk"), "MiB", Goal::None, Side::Repoxy, ran.read);
    book.note(&format!("{name}: peak memory"), "MiB", UPKEEP_MEMORY, Side::Repoxy, ran.peak);
}

/// Notes what clients saw beside a command, and beside nothing.
fn note_tails(book: &mut Book, name: &str, times: f64, tails: Tails) {
    let name = format!("{name}: server's p99");
    let goal = Goal::AtMost(times, Side::Reference);
    book.note(&name, "ms", goal, Side::Repoxy, tails.beside);
    book.note(&name, "ms", goal, Side::Reference, tails.alone);
}

/// Some of the tags, checked byte by byte.
fn check_some(address: std::net::SocketAddr, items: &[Item]) -> Outcome<()> {
    check(address, &items.iter().take(100).collect::<Vec<_>>())
}

/// Rebuilding the index, from nothing and beside a server.
fn reindex(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let place = &bench.refs;
    let items = place.estate.tags(bench.scale.tags)?;
    for _ in 0..bench.scale.rounds {
        place.drop_index()?;
        note(book, "reindex from nothing", &place.reindex()?, Goal::Limit(12.0));
        let server = place.serve(&items[0].path)?;
        let (ran, tails) = beside(&server, &items, bench.scale.load, || place.reindex())?;
        note(book, "reindex beside a server", &ran, Goal::Limit(25.0));
        note_tails(book, "reindex beside a server", 2.0, tails);
    }
    Ok(())
}

/// Starting, with an index and without.
fn start(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let place = &bench.refs;
    let items = place.estate.tags(bench.scale.tags)?;
    let (first, goal) = (&items[0], Goal::Limit(150.0));
    // With the index that is left by then, of which nothing is known but that it is complete.
    place.reindex()?;
    for _ in 0..bench.scale.rounds {
        let server = place.serve(&first.path)?;
        let took = milliseconds(server.started.elapsed());
        book.note("start to first hit, index present", "ms", goal, Side::Repoxy, took);
        check(server.address, &[first])?;
    }
    for _ in 0..bench.scale.rounds {
        place.drop_index()?;
        let server = place.serve(&first.path)?;
        let took = milliseconds(server.started.elapsed());
        book.note("start to first hit, no index", "ms", goal, Side::Repoxy, took);
        check(server.address, &[first])?;
    }
    place.drop_index()?;
    place.reindex()?;
    Ok(())
}

/// What a request asks the index.
fn lookup(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let (place, count) = (&bench.refs, bench.scale.lookups);
    place.reindex()?;
    let index = Index::open_existing(&place.index())?.ok_or("no index")?;
    let keys = place.estate.keys(count)?;
    for _ in 0..bench.scale.rounds {
        let mut took = Vec::with_capacity(count);
        for key in &keys {
            let asked = Instant::now();
            let found = black_box(index.lookup(key)?);
            took.push(asked.elapsed());
            if found.is_none() {
                return Err(format!("{key} has no row").into());
            }
        }
        took.sort_unstable();
        let micros = |share: usize| took[count * share / 100].as_secs_f64() * 1e6;
        book.note("lookup by key: p50", "µs", Goal::Limit(10.0), Side::Repoxy, micros(50));
        book.note("lookup by key: p99", "µs", Goal::Limit(100.0), Side::Repoxy, micros(99));
    }
    Ok(())
}

/// Listings and totals.
fn list(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let place = &bench.refs;
    place.reindex()?;
    let page = [
        "ls",
        "refs",
        "--json",
        "--proxy",
        "hub",
        "--older-than",
        "30d",
        "--expired",
        "--sort",
        "last-used",
        "--limit",
        "20",
    ];
    let blobs = ["ls", "blobs", "--json", "--sort", "size", "--limit", "20"];
    let commands: [(&str, &[&str], Goal<Side>, u64); 4] = [
        ("ls refs, filter and sort, limit 20", &page, Goal::Limit(0.3), 20),
        ("ls refs, all as JSON", &["ls", "refs", "--json"], Goal::Limit(6.0), place.estate.refs),
        ("ls blobs by size, limit 20", &blobs, Goal::None, 20),
        ("ls proxies", &["ls", "proxies", "--json"], Goal::Limit(1.0), 3),
    ];
    for _ in 0..bench.scale.rounds {
        for (name, arguments, goal, lines) in commands {
            let (ran, _) = place.run(arguments)?;
            if lines != ran.lines {
                return Err(format!("{name}: {} lines and not {lines}", ran.lines).into());
            }
            book.note(name, "s", goal, Side::Repoxy, ran.wall.as_secs_f64());
        }
    }
    Ok(())
}

/// fsck of everything but the bytes.
fn fsck(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let place = &bench.refs;
    place.reindex()?;
    for _ in 0..bench.scale.rounds {
        let (ran, summary) = place.run(&["fsck", "--json"])?;
        expect(&summary, "refs", place.estate.refs)?;
        expect(&summary, "blobs", place.estate.needed + place.estate.orphans)?;
        for level in ["errors", "warnings", "notes"] {
            expect(&summary, level, 0)?;
        }
        note(book, "fsck without data", &ran, Goal::Limit(20.0));
    }
    Ok(())
}

/// gc: planning by itself, and planning and condemning beside a server.
fn gc(bench: &Bench, book: &mut Book) -> Outcome<()> {
    let place = &bench.refs;
    let estate = &place.estate;
    place.reindex()?;
    let items = estate.tags(bench.scale.tags)?;
    let plan = || {
        let (ran, summary) = place.run(&["gc", "--dry-run", "--json"])?;
        expect(&summary, "refs", estate.refs)?;
        expect(&summary, "condemned", estate.orphans)?;
        Outcome::Ok((ran, summary))
    };
    for _ in 0..bench.scale.rounds {
        let (ran, summary) = plan()?;
        note(book, "gc --dry-run", &ran, PLANNING);
        // A quarter of all bytes, about half of what refs need.
        let limit = (summary["bytes"].as_u64().unwrap_or_default() / 4).to_string();
        let arguments = ["gc", "--dry-run", "--force", "--max-bytes", &limit, "--json"];
        let (ran, summary) = place.run(&arguments)?;
        if !summary["expired"].as_u64().is_some_and(|expired| (1..estate.refs).contains(&expired)) {
            return Err(format!("not some of the refs expire: {summary}").into());
        }
        note(book, "gc --dry-run --max-bytes", &ran, PLANNING);

        let server = place.serve(&items[0].path)?;
        let ((ran, _), tails) = beside(&server, &items, bench.scale.load, plan)?;
        note(book, "gc --dry-run beside a server", &ran, PLANNING);
        note_tails(book, "gc --dry-run beside a server", 1.5, tails);
        let condemn = || {
            // From here on until all is back the store is not what it was.
            estate.set_whole(false)?;
            place.run(&["gc", "--accept-clock", "--force", "--json"])
        };
        let ((ran, summary), tails) = beside(&server, &items, bench.scale.load, condemn)?;
        expect(&summary, "condemned", estate.orphans)?;
        expect(&summary, "expired", 0)?;
        let name = format!("gc that condemns {}", estate.orphans);
        note(book, &name, &ran, Goal::Limit(30.0));
        note_tails(book, &name, 1.5, tails);
        check_some(server.address, &items)?;
        let back = estate.bring_back()?;
        if back != estate.orphans {
            return Err(format!("{back} blobs were in the trash and not {}", estate.orphans).into());
        }
        estate.set_whole(true)?;
    }
    let size = std::fs::metadata(place.index().join("index.db"))?.len() / MIB;
    #[expect(clippy::cast_precision_loss, reason = "a file's size")]
    book.note("index on disk", "MiB", Goal::None, Side::Repoxy, size as f64);
    Ok(())
}
