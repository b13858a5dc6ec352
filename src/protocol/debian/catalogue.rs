//! What `Packages` and `Sources` files say of packages (Debian repository format, "Packages Indices",
//! "Sources Indices").
//!
//! Read in one pass, compressed as upstream sent it, within bounds that hold for any bytes. What cannot
//! be read names nothing: its packages are then served unchecked.

use std::io::{BufRead, BufReader, Read};

use super::unpack::unpack;
use crate::model::{Claim, Digest};

/// The most bytes of text that are read of one file. Debian's largest has some 60 MiB.
const TEXT_MAX_LEN: u64 = 1 << 30;
/// How much larger than the file its text may be, where it is large: indexes come to ten times their size.
const EXPANSION_MAX: u64 = 200;
/// The bytes of text that are read of any file, however small that is.
const TEXT_MIN_LEN: u64 = 16 << 20;
/// The longest line; `Depends` and file lists run to some hundred KiB.
const LINE_MAX_LEN: u64 = 4 << 20;
/// The most files of one source package.
const FILES_MAX: usize = 1024;

/// Visits every file that an index names, by its path in the archive. `roots` are the directories that
/// paths may count from. False if it could not be read to its end.
pub(super) fn visit(document: &[u8], roots: &[&str], visit: &mut dyn FnMut(&str, Claim)) -> bool {
    let limit = (document.len() as u64).saturating_mul(EXPANSION_MAX).clamp(TEXT_MIN_LEN, TEXT_MAX_LEN);
    let mut text = BufReader::new(unpack(document)).take(limit);
    let mut stanza = Stanza::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        match text.by_ref().take(LINE_MAX_LEN).read_until(b'\n', &mut line) {
            Ok(0) => break,
            Ok(_) if line.len() as u64 == LINE_MAX_LEN => return false,
            Ok(_) => {}
            Err(_) => return false,
        }
        let Ok(line) = str::from_utf8(&line) else { continue };
        let line = line.trim_end();
        if line.is_empty() {
            stanza.visit(roots, visit);
            stanza = Stanza::default();
        } else {
            stanza.read(line);
        }
    }
    stanza.visit(roots, visit);
    text.limit() > 0
}

/// What is read of one paragraph.
#[derive(Debug, Default)]
struct Stanza {
    /// `Filename` of a binary package.
    filename: Option<String>,
    sha256: Option<Digest>,
    size: Option<u64>,
    /// `Directory` of a source package.
    directory: Option<String>,
    files: Vec<(String, Claim)>,
    /// The lines that follow are `Checksums-Sha256`'s.
    in_checksums: bool,
}

impl Stanza {
    fn read(&mut self, line: &str) {
        if line.starts_with([' ', '\t']) {
            if self.in_checksums && self.files.len() < FILES_MAX {
                self.files.extend(checksum(line));
            }
            return;
        }
        let Some((name, value)) = line.split_once(':') else { return };
        let value = value.trim();
        self.in_checksums = name.eq_ignore_ascii_case("Checksums-Sha256");
        match name {
            "Filename" => self.filename = Some(value.to_owned()),
            "SHA256" => self.sha256 = Digest::from_hex(value).ok(),
            "Size" => self.size = value.parse().ok(),
            "Directory" => self.directory = Some(value.to_owned()),
            _ => {}
        }
    }

    fn visit(self, roots: &[&str], visit: &mut dyn FnMut(&str, Claim)) {
        let mut tell = |path: &str, claim| {
            for root in roots {
                if let Some(path) = join(root, path) {
                    visit(&path, claim);
                }
            }
        };
        if let (Some(path), Some(digest)) = (&self.filename, self.sha256) {
            tell(path, Claim { digest, size: self.size });
        }
        let directory = self.directory.as_deref().unwrap_or_default();
        for (name, claim) in &self.files {
            tell(&format!("{directory}/{name}"), *claim);
        }
    }
}

/// A line `<hex> <size> <name>`.
fn checksum(line: &str) -> Option<(String, Claim)> {
    let mut words = line.split_ascii_whitespace();
    let (hex, size, name) = (words.next()?, words.next()?, words.next()?);
    let claim = Claim { digest: Digest::from_hex(hex).ok()?, size: Some(size.parse().ok()?) };
    Some((name.to_owned(), claim))
}

/// A path below a root as requests have it: without empty and `.` segments; `None` if it climbs, or
/// leads nowhere below the root.
fn join(root: &str, path: &str) -> Option<String> {
    let segments = |text| str::split(text, '/').filter(|part| !matches!(*part, "" | "."));
    let all: Vec<&str> = segments(root).chain(segments(path)).collect();
    let leads_below = segments(path).next().is_some() && !all.contains(&"..");
    leads_below.then(|| all.join("/"))
}
