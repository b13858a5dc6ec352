//! `cargo bench --bench spine`: repoxy beside other servers and caches, on this machine, in one run.
//!
//! Everything is made here from nothing: content, servers, upstream, load. The bytes are checked; the
//! rounds of the servers are interleaved; ratios are between medians. `docs/performance.md` says how
//! to read the table. Exit codes: 0 done, 1 failed (wrong bytes, no figures, a goal missed).

#![expect(clippy::print_stdout, reason = "a benchmark's table is its output")]
#![expect(clippy::print_stderr, reason = "progress goes beside it")]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "some of it only the other benchmark needs")]
mod common;
mod content;
mod denied;
mod idle;
mod origin;
mod outage;
mod peers;
mod rows;
mod start;
mod tls;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use common::book::Book;
use common::group::measure;
use common::{MIB, Outcome, Scratch, conclude};
use content::Content;
use peers::Yard;
use rows::{Bench, GROUPS};

/// Measures repoxy beside nginx, docker-registry, Varnish and Squid, and checks the bytes.
#[derive(Debug, Parser)]
#[command(name = "spine")]
struct Options {
    /// Run everything once and small, in at most three minutes; no figure is judged
    #[arg(long)]
    quick: bool,
    /// Also write all samples to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run one group of rows
    #[arg(long, value_name = "NAME", value_parser = GROUPS.map(|group| group.name))]
    only: Option<String>,
    /// Measure this binary instead of the one built with the benchmark
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_repoxy"))]
    binary: PathBuf,
    /// Measure this NORA too (`cargo install nora-registry`) where servers are cold
    #[arg(long, value_name = "FILE")]
    nora: Option<PathBuf>,
    /// What cargo adds to the command line of every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// How large and how long everything is.
#[derive(Debug)]
pub(crate) struct Scale {
    /// Rounds of every row.
    pub(crate) rounds: usize,
    /// How long each load of small answers runs.
    pub(crate) load: Duration,
    /// Tags asked for in turn.
    pub(crate) tags: u64,
    /// Bytes of each of the 40 layers of an image.
    pub(crate) layer: u64,
    /// Small blobs that are pulled together.
    pub(crate) many: u64,
    /// Bytes of the middle blob.
    pub(crate) hundred: u64,
    /// Bytes of the large blob.
    pub(crate) gib: u64,
    /// Clients on one cold blob.
    pub(crate) crowd: usize,
    /// Clients on as many different cold blobs.
    pub(crate) wide_clients: u64,
    /// Bytes of each of these.
    pub(crate) wide: u64,
    /// Refs in the store for the row on starting.
    pub(crate) refs: u64,
    /// How long an upstream that hangs is given to be known for it.
    pub(crate) breaking: Duration,
    /// Connections that are held open and idle.
    pub(crate) idle: usize,
}

impl Scale {
    const FULL: Self = Self {
        rounds: 5,
        load: Duration::from_secs(3),
        tags: 1000,
        layer: MIB,
        many: 600,
        hundred: 100 * MIB,
        gib: 1024 * MIB,
        crowd: 50,
        wide_clients: 256,
        wide: 100 * MIB,
        refs: 100_000,
        breaking: Duration::from_secs(90),
        idle: 7_900,
    };
    const QUICK: Self = Self {
        rounds: 1,
        load: Duration::from_millis(300),
        tags: 50,
        layer: MIB / 16,
        many: 60,
        hundred: 8 * MIB,
        gib: 32 * MIB,
        crowd: 50,
        wide_clients: 8,
        wide: 4 * MIB,
        refs: 1000,
        breaking: Duration::ZERO,
        idle: 500,
    };
}

/// What the kernel was told about TCP, on which large bodies depend. It is told to the reader and left as it is.
const TCP: [&str; 4] = ["tcp_congestion_control", "tcp_available_congestion_control", "tcp_rmem", "tcp_wmem"];

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the rows and prints the table; false if a goal is missed.
fn run(options: &Options) -> Outcome<bool> {
    let scale = if options.quick { Scale::QUICK } else { Scale::FULL };
    let judged = !options.quick;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("spine-{}", std::process::id()));
    let scratch = Scratch(directory);
    eprintln!("making the content");
    let content =
        Content::make(&scratch.0.join("content"), &scale).map_err(|error| format!("content: {error}"))?;
    let yard = Yard::new(scratch.0.join("yard"), options.binary.clone(), options.nora.clone());
    let bench = Bench { content, yard, scale };
    let mut book = Book::default();
    for name in TCP {
        let value = fs::read_to_string(Path::new("/proc/sys/net/ipv4").join(name))
            .map_err(|error| format!("{name}: {error}"))?;
        book.condition(name, &value.split_whitespace().collect::<Vec<_>>().join(" "));
    }
    measure(&GROUPS, options.only.as_deref(), &bench, &mut book)?;
    conclude("spine", &book, judged, options.json.as_deref())
}
