//! `cargo bench --bench scale`: what repoxy's commands and its server take when the store is large.
//!
//! A store of a million refs is written once and kept; each command is run on it as an operator would,
//! alone and beside a server under load. `docs/performance.md` says how to read the table. Exit codes:
//! 0 done, 1 failed (wrong results, no figures, a goal missed).

#![expect(clippy::print_stdout, reason = "a benchmark's table is its output")]
#![expect(clippy::print_stderr, reason = "progress goes beside it")]

#[path = "../common/mod.rs"]
#[expect(dead_code, reason = "some of it only the other benchmark needs")]
mod common;
mod data;
mod estate;
mod eviction;
mod place;
mod rows;
mod uses;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use common::group::measure;
use common::{MIB, Outcome, Scratch, conclude};
use estate::Estate;
use place::Place;
use rows::{Bench, Book, GROUPS};

/// Measures what repoxy's commands and its server take when the store is large.
#[derive(Debug, Parser)]
#[command(name = "scale")]
struct Options {
    /// Run everything once on 20,000 refs; no figure is judged
    #[arg(long)]
    quick: bool,
    /// Also write all samples to FILE
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run one group of rows
    #[arg(long, value_name = "NAME", value_parser = GROUPS.map(|group| group.name))]
    only: Option<String>,
    /// Write so many refs instead of 1,000,000
    #[arg(long, value_name = "COUNT")]
    refs: Option<u64>,
    /// Keep the store here instead of in the user's cache directory
    #[arg(long, value_name = "DIRECTORY")]
    dir: Option<PathBuf>,
    /// Measure this binary instead of the one built with the benchmark
    #[arg(long, value_name = "FILE", default_value = env!("CARGO_BIN_EXE_repoxy"))]
    binary: PathBuf,
    #[arg(long, env = "XDG_CACHE_HOME", hide = true)]
    cache: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,
    /// What cargo adds to the command line of every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// How large and how long everything is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Whether figures are judged.
    pub(crate) judged: bool,
    /// Rounds of every row.
    pub(crate) rounds: usize,
    /// Refs in the store.
    pub(crate) refs: u64,
    /// Bytes of large blobs in a store of their own.
    pub(crate) bytes: u64,
    /// Tags that clients ask for.
    pub(crate) tags: u64,
    /// Keys that are looked up in the index.
    pub(crate) lookups: usize,
    /// How long a load runs beside nothing.
    pub(crate) load: Duration,
    /// How long it is waited until a use is not the same as the one before.
    pub(crate) another_use: Duration,
    /// The limit below which a server is to stay while more is pulled, in bytes.
    pub(crate) limit: u64,
    /// How long that goes on.
    pub(crate) churn: Duration,
}

impl Scale {
    const FULL: Self = Self {
        judged: true,
        rounds: 5,
        refs: 1_000_000,
        bytes: 1024 * MIB,
        tags: 20_000,
        lookups: 200_000,
        load: Duration::from_secs(10),
        another_use: Duration::from_secs(5 * 60 + 10),
        limit: 256 * MIB,
        churn: Duration::from_secs(5 * 60),
    };
    const QUICK: Self = Self {
        judged: false,
        rounds: 1,
        refs: 20_000,
        bytes: 32 * MIB,
        tags: 500,
        lookups: 2000,
        load: Duration::from_millis(500),
        another_use: Duration::ZERO,
        limit: 16 * MIB,
        churn: Duration::from_secs(2),
    };
}

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
    let mut scale = if options.quick { Scale::QUICK } else { Scale::FULL };
    scale.refs = options.refs.unwrap_or(scale.refs);
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("scale-{}", std::process::id()));
    let scratch = Scratch(scratch);
    // What is quickly made is not kept.
    let kept = match &options.dir {
        Some(directory) => directory.clone(),
        None if options.quick => scratch.0.clone(),
        None => cache_directory(options)?,
    };
    fs::create_dir_all(&scratch.0)?;
    let refs = Estate::of_refs(kept.join(format!("refs-{}", scale.refs)), scale.refs);
    let bytes = Estate::of_bytes(kept.join(format!("bytes-{}", scale.bytes)), scale.bytes);
    for estate in [&refs, &bytes] {
        eprintln!("looking for {} refs in {}", estate.refs, estate.directory.display());
        estate.make().map_err(|error| format!("{}: {error}", estate.directory.display()))?;
    }
    let place = |estate, name| Place::new(options.binary.clone(), estate, scratch.0.join(name));
    let bench = Bench {
        refs: place(refs, "refs")?,
        bytes: place(bytes, "bytes")?,
        scale,
        directory: scratch.0.clone(),
        binary: options.binary.clone(),
    };
    let mut book = Book::default();
    measure(&GROUPS, options.only.as_deref(), &bench, &mut book)?;
    conclude("scale", &book, scale.judged, options.json.as_deref())
}

/// Where a store that takes minutes to write is kept.
fn cache_directory(options: &Options) -> Outcome<PathBuf> {
    let cache = options.cache.clone().or_else(|| options.home.as_ref().map(|home| home.join(".cache")));
    Ok(cache.ok_or("neither XDG_CACHE_HOME nor HOME is set")?.join("repoxy-bench"))
}
