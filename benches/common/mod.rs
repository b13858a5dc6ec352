//! What the benchmarks share: load and its figures, servers and commands watched through `/proc`, the
//! table and its verdicts.
//!
//! It must not know what is measured. Each program takes it in by path.

pub(crate) mod book;
pub(crate) mod group;
pub(crate) mod load;
pub(crate) mod process;
pub(crate) mod transfer;

use std::error::Error;
use std::fs;
use std::io::BufRead;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use book::{Book, Column};
use transfer::Connection;

/// A figure, or what went wrong.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Bytes in a MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// One thing to ask for.
#[derive(Debug, Clone)]
pub(crate) struct Item {
    /// The request path.
    pub(crate) path: String,
    /// Bytes.
    pub(crate) size: u64,
    /// The sha256 of the content, in hex.
    pub(crate) digest: String,
}

/// A directory that is gone when this is.
#[derive(Debug)]
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A small generator of noise (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
#[derive(Debug)]
pub(crate) struct SplitMix(pub(crate) u64);

impl SplitMix {
    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Fills a buffer.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
    }
}

/// Writes lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Milliseconds with their fraction.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

/// Compares the bytes of all items with what a server answers.
pub(crate) fn check(address: SocketAddr, items: &[&Item]) -> Outcome<()> {
    let mut connection = Connection::open(address)?;
    for item in items {
        transfer::verify(&mut connection, item)?;
    }
    Ok(())
}

/// Reads the head of the next request of a connection: its method and its path. `None` at its end.
pub(crate) fn next_request(reader: &mut impl BufRead) -> Outcome<Option<(String, String)>> {
    let mut first = String::new();
    if reader.read_line(&mut first)? == 0 {
        return Ok(None);
    }
    let mut line = String::new();
    while reader.read_line(&mut line)? != 0 && line != "\r\n" {
        line.clear();
    }
    let mut words = first.split_ascii_whitespace();
    let path = |target: &str| target.split('?').next().unwrap_or_default().to_owned();
    Ok(words.next().zip(words.next()).map(|(method, target)| (method.to_owned(), path(target))))
}

/// Prints the table and writes the samples if asked for; false if figures are judged and a goal is missed.
pub(crate) fn conclude<C: Column>(
    name: &str,
    book: &Book<C>,
    judged: bool,
    json: Option<&Path>,
) -> Outcome<bool> {
    println!("{}", book.table(judged));
    if let Some(file) = json {
        fs::write(file, format!("{:#}\n", book.json(judged)))?;
    }
    let missing = book.without_figures();
    if !missing.is_empty() {
        return Err(format!("no figures for: {}", missing.join(", ")).into());
    }
    println!("{name}: {}", book.times());
    let (reached, missed) = book.count();
    if judged {
        println!("{name}: {} measures, {reached} goals reached, {missed} missed", book.len());
    } else {
        println!("{name}: {} measures, all bytes right, no figure judged", book.len());
    }
    Ok(!judged || missed == 0)
}
