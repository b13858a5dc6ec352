//! Inputs that are nearly right: something right with a few edits, from a vocabulary of what parsers
//! stumble over.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// The most edits of one input. None at all is as likely as any other number, so that what is right is
/// tried too.
const MAX_EDITS: usize = 4;
/// The most bytes that one edit takes away or doubles.
const MAX_SPAN: usize = 40;

/// A change at some place.
#[derive(Debug, Clone)]
enum Edit {
    Insert(&'static str),
    Overwrite(&'static str),
    Remove(usize),
    Repeat(usize),
    Set(u8),
    Cut,
}

impl Edit {
    fn apply(&self, bytes: &mut Vec<u8>, at: Index) {
        let at = at.index(bytes.len() + 1);
        let span = |len: usize| at..bytes.len().min(at + len);
        match self {
            Self::Insert(piece) => drop(bytes.splice(at..at, piece.bytes())),
            Self::Overwrite(piece) => drop(bytes.splice(span(piece.len()), piece.bytes())),
            Self::Remove(len) => drop(bytes.drain(span(*len))),
            Self::Repeat(len) => {
                let again = bytes[span(*len)].to_vec();
                bytes.splice(at..at, again);
            }
            Self::Set(byte) => bytes.iter_mut().skip(at).take(1).for_each(|old| *old = *byte),
            Self::Cut => bytes.truncate(at),
        }
    }
}

fn edits(pieces: &'static [&'static str]) -> impl Strategy<Value = Edit> {
    prop_oneof![
        4 => select(pieces).prop_map(Edit::Insert),
        4 => select(pieces).prop_map(Edit::Overwrite),
        2 => (1..MAX_SPAN).prop_map(Edit::Remove),
        2 => (1..MAX_SPAN).prop_map(Edit::Repeat),
        2 => any::<u8>().prop_map(Edit::Set),
        1 => Just(Edit::Cut),
    ]
}

/// One of these, with a few edits.
pub(crate) fn edited<T: AsRef<[u8]> + Clone + std::fmt::Debug + 'static>(
    right: Vec<T>,
    pieces: &'static [&'static str],
) -> impl Strategy<Value = Vec<u8>> {
    let edits = vec((any::<Index>(), edits(pieces)), 0..=MAX_EDITS);
    (select(right), edits).prop_map(|(right, edits)| {
        let mut bytes = right.as_ref().to_vec();
        for (at, edit) in edits {
            edit.apply(&mut bytes, at);
        }
        bytes
    })
}

/// The same as text.
pub(crate) fn edited_text<T: AsRef<[u8]> + Clone + std::fmt::Debug + 'static>(
    right: Vec<T>,
    pieces: &'static [&'static str],
) -> impl Strategy<Value = String> {
    edited(right, pieces).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// What parsers of JSON stumble over, and what readers of addresses, names and digests in it do.
pub(crate) const JSON: &[&str] = &[
    "null",
    "[]",
    "{}",
    "[",
    "]",
    "{",
    "}",
    ",",
    ":",
    "\"",
    "\"\"",
    "\\",
    "\\u0000",
    "\\ud800",
    "-1",
    "1e999",
    "18446744073709551616",
    "0.5",
    "true",
    " ",
    "\n",
    "\0",
    "é",
    "..",
    "../",
    "/",
    "//",
    "%2e%2e%2f",
    "\\\\",
    "sha256:",
    "sha512:",
    "sha1:",
    "SHA256:",
    "http://",
    "https://",
    "file:///",
    "//elsewhere.example/",
    "@",
    "#",
    "?",
    "*",
    "&archive=zip",
    ".zip",
    ".tar.gz",
    "git::",
    "[::1]",
    ":0",
    "null,\"manifests\":[]",
    "v",
    "+",
    "~",
];
