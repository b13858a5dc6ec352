//! The document that says what an archive's index files must hash to: `InRelease`, or `Release` with
//! its signature apart (Debian repository format, "Release files").
//!
//! It is read for that and a few facts, never written. Whether it can be trusted is `super::trust`'s
//! to say.

use jiff::fmt::rfc2822::DateTimeParser;

use super::item;
use crate::model::{Algorithm, Checksum, Digest, Timestamp};
use crate::protocol::Refusal;

/// What a clear-signed document begins with (RFC 9580 section 7).
const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const SIGNATURE_END: &str = "-----END PGP SIGNATURE-----";

/// Fields of which a real one has at least one; an error page has none.
const USUAL: [&str; 7] = ["SHA256", "SHA512", "SHA1", "MD5Sum", "Origin", "Suite", "Codename"];

const NO_INRELEASE: Refusal =
    Refusal::BadUpstream("it is no `InRelease`: does a login page or a proxy answer in its place?");
const NO_RELEASE: Refusal =
    Refusal::BadUpstream("it is no `Release`: does a login page or a proxy answer in its place?");

/// A Release document, read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Release<'d> {
    text: &'d str,
    /// Whether any line may have `- ` in front, which is not part of it (RFC 9580, section 7.2).
    dashed: bool,
}

/// An index file that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'d> {
    /// Its path, counted from the directory of the Release document.
    pub(super) path: &'d str,
    /// What it must hash to.
    pub(super) digest: Digest,
    /// Its size in bytes.
    pub(super) size: u64,
}

impl<'d> Release<'d> {
    /// Reads the text that an `InRelease` has within its signature, and makes sure that it has nothing
    /// outside of it.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] for anything else, such as the page of a captive portal.
    pub(super) fn signed(document: &'d [u8]) -> Result<Self, Refusal> {
        let text = str::from_utf8(document).map_err(|_| NO_INRELEASE)?;
        let rest = text.strip_prefix(SIGNED).ok_or(NO_INRELEASE)?;
        // Headers such as `Hash: SHA256` end at the first empty line.
        let body = rest.find("\n\n").map(|at| at + 2);
        let body = body.or_else(|| rest.find("\r\n\r\n").map(|at| at + 4)).ok_or(NO_INRELEASE)?;
        let (text, signature) = rest[body..].split_once(SIGNATURE).ok_or(NO_INRELEASE)?;
        let (_, after) = signature.split_once(SIGNATURE_END).ok_or(NO_INRELEASE)?;
        if after.trim().is_empty() { Self::of(text, true).ok_or(NO_INRELEASE) } else { Err(NO_INRELEASE) }
    }

    /// Reads a `Release` whose signature is kept apart.
    ///
    /// # Errors
    /// [`Refusal::BadUpstream`] for anything else.
    pub(super) fn plain(document: &'d [u8]) -> Result<Self, Refusal> {
        let text = str::from_utf8(document).map_err(|_| NO_RELEASE)?;
        Self::of(text, false).ok_or(NO_RELEASE)
    }

    fn of(text: &'d str, dashed: bool) -> Option<Self> {
        let release = Self { text, dashed };
        USUAL.iter().any(|name| release.field(name).is_some()).then_some(release)
    }

    /// The value of a field, on its own line.
    pub(super) fn field(&self, name: &str) -> Option<&'d str> {
        self.text_lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// When it was made.
    pub(super) fn date(&self) -> Option<Timestamp> {
        date(self.field("Date")?)
    }

    /// Until when clients accept it; they enforce that themselves.
    pub(super) fn valid_until(&self) -> Option<Timestamp> {
        date(self.field("Valid-Until")?)
    }

    /// Whether upstream has its index files under their digests too.
    pub(super) fn has_by_hash(&self) -> bool {
        self.field("Acquire-By-Hash").is_some_and(|value| value.eq_ignore_ascii_case("yes"))
    }

    /// The index files that it names by sha256, in the order of the document. A line that makes no sense
    /// is left out: what it names is not served as an index then.
    pub(super) fn entries(&self) -> impl Iterator<Item = Entry<'d>> + use<'d> {
        self.lines("SHA256").filter_map(|(hex, size, path)| {
            Some(Entry { path, digest: Digest::from_hex(hex).ok()?, size: size.parse().ok()? })
        })
    }

    /// What it says of the file at a path.
    pub(super) fn at(&self, path: &str) -> Option<Entry<'d>> {
        self.entries().find(|entry| entry.path == path)
    }

    /// What it says of the file with a checksum in a directory: clients ask by the strongest algorithm that
    /// there is.
    pub(super) fn with(&self, dir: &str, checksum: &Checksum) -> Option<Entry<'d>> {
        let section = match checksum.algorithm() {
            Algorithm::Sha256 => "SHA256",
            Algorithm::Sha512 => "SHA512",
        };
        let hex = checksum.hex();
        let mut lines = self.lines(section);
        let (_, _, path) = lines.find(|(own, _, path)| *own == hex && item::dir_of(path) == dir)?;
        self.at(path)
    }

    /// The lines of the text as they were before it was signed.
    fn text_lines(&self) -> impl Iterator<Item = &'d str> + use<'d> {
        let dashed = self.dashed;
        self.text.lines().map(move |line| match line.strip_prefix("- ") {
            Some(rest) if dashed => rest,
            _ => line,
        })
    }

    /// The lines of a list of checksums: digits, size, path.
    fn lines(&self, section: &str) -> impl Iterator<Item = (&'d str, &'d str, &'d str)> + use<'d> {
        let mut lines = self.text_lines();
        // `find` stops after the line with the field's name.
        let _ = lines.find(|line| {
            line.trim_end().strip_suffix(':').is_some_and(|name| name.eq_ignore_ascii_case(section))
        });
        lines.take_while(|line| line.starts_with([' ', '\t'])).filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (hex, size, path) = (words.next()?, words.next()?, words.next()?);
            let is_path = path.split('/').all(|segment| !matches!(segment, "" | "." | ".."));
            is_path.then_some((hex, size, path))
        })
    }
}

/// A date as it stands in these documents: RFC 2822, but for the zone, which is `UTC`.
fn date(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix("UTC").map_or_else(|| text.to_owned(), |text| format!("{text}GMT"));
    // Nobody checks the day of the week, so some are wrong.
    DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text).ok()
}

/// Whether the new one was made before the one that is held: an archive never goes back, but a mirror
/// behind a balancer does. Clients refuse such a one too.
pub(super) fn is_older(new: &Release<'_>, held: &Release<'_>) -> bool {
    matches!((new.date(), held.date()), (Some(new), Some(held)) if new < held)
}
