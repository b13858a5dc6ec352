//! `h1:` hashes of packages (Go's `golang.org/x/mod/sumdb/dirhash`, `Hash1` over `HashZip`): a sha256 over the
//! names and the sha256 of all files in a zip, so that it stays the same however they are packed.
//!
//! Where Terraform itself would come to another hash for the zip than for what was unpacked from it, or what
//! is read is no zip that could be unpacked, there is none. Reading takes bounded time, and memory for the list of files alone.

use std::io::{self, BufReader, Read};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use zip::ZipArchive;
use zip::result::ZipError;

use crate::model::Hasher;
use crate::protocol::Content;

/// The most files in a package; providers have less than a dozen.
const FILES_MAX: usize = 10_000;
/// The most bytes that are unpacked; large providers have some hundred MB.
const UNPACKED_MAX: u64 = 4 << 30;
/// What is read of a file at a time.
const CHUNK: usize = 64 << 10;

/// The `h1:` hash of a zip; `None` if it has none.
///
/// # Errors
/// Those of reading `content`: nothing is known then.
pub(super) fn h1(content: &mut dyn Content) -> io::Result<Option<String>> {
    match of_zip(content) {
        Ok(hash) => Ok(hash),
        // Damage to the stored bytes shows as a checksum that does not fit, which says nothing of the package.
        Err(ZipError::Io(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

fn of_zip(content: &mut dyn Content) -> Result<Option<String>, ZipError> {
    let mut archive = ZipArchive::new(BufReader::with_capacity(CHUNK, content))?;
    if archive.len() > FILES_MAX {
        return Ok(None);
    }
    let mut left = UNPACKED_MAX;
    let mut lines = Vec::with_capacity(archive.len());
    for at in 0..archive.len() {
        let mut file = archive.by_index(at)?;
        let name = file.name_raw().to_vec();
        // A directory counts in a zip and not on disk; a line break would make two files of one.
        if name.ends_with(b"/") || name.contains(&b'\n') {
            return Ok(None);
        }
        let mut hasher = Hasher::new(None);
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk)? {
                0 => break,
                read => hasher.update(&chunk[..read]),
            }
            if hasher.size() > left {
                return Ok(None);
            }
        }
        left -= hasher.size();
        lines.push((name, hasher.finish().digest));
    }
    lines.sort_unstable();
    let mut hasher = Hasher::new(None);
    for (name, digest) in lines {
        for part in [digest.hex().as_bytes(), b"  ", &name, b"\n"] {
            hasher.update(part);
        }
    }
    let hash = hasher.finish().digest;
    Ok(Some(format!("h1:{}", BASE64_STANDARD.encode(hash.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// Files stored and deflated, not in the order of their names, one of which is not ASCII; and the hash that
    /// `fixtures/tf/h1/make` comes to by the definition.
    const ZIP: &[u8] = include_bytes!("../../../fixtures/tf/h1/package.zip");
    const HASH: &str = "h1:l7We/CGFPHvPM1rnFDsNab+SsbjnqB48Il9yj1BclNI=";

    fn of(zip: &[u8]) -> io::Result<Option<String>> {
        h1(&mut Cursor::new(zip))
    }

    #[test]
    fn the_hash_is_that_of_names_and_contents_however_they_are_packed() {
        assert_eq!(of(ZIP).expect("read").as_deref(), Some(HASH));
        let mut read = ZipArchive::new(Cursor::new(ZIP)).expect("a zip");
        let mut written = ZipWriter::new(Cursor::new(Vec::new()));
        for at in (0..read.len()).rev() {
            let mut file = read.by_index(at).expect("there");
            let name = String::from_utf8(file.name_raw().to_vec()).expect("UTF-8");
            written.start_file(name, SimpleFileOptions::default()).expect("begun");
            io::copy(&mut file, &mut written).expect("copied");
        }
        let written = written.finish().expect("written").into_inner();
        assert_ne!(written, ZIP);
        assert_eq!(of(&written).expect("read").as_deref(), Some(HASH));
    }

    #[test]
    fn where_clients_would_come_to_another_hash_there_is_none() {
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        zip.add_directory("docs", SimpleFileOptions::default()).expect("added");
        zip.start_file("docs/a", SimpleFileOptions::default()).expect("begun");
        zip.write_all(b"x").expect("written");
        assert_eq!(of(&zip.finish().expect("written").into_inner()).expect("read"), None);
        assert_eq!(of(b"no zip at all").expect("read"), None);
        assert_eq!(of(&ZIP[..ZIP.len() / 2]).expect("read"), None);
    }

    #[test]
    fn damaged_content_gives_no_hash_but_an_error() {
        let mut damaged = ZIP.to_vec();
        let at = ZIP.windows(7).position(|window| window == b"MPL-2.0").expect("a stored file");
        damaged[at] ^= 1;
        assert!(of(&damaged).is_err());
    }
}
