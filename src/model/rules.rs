//! What everybody who handles refs must know of a dialect, as a value.
//!
//! The engine takes it from the protocol it serves; gc, fsck and reindex are handed it and so never
//! learn what a manifest is.

use serde_json::{Map, Value};

use super::{Digest, RefPath};

/// The largest catalogue that is read, in bytes as upstream sent it.
pub const CATALOGUE_MAX_LEN: u64 = 256 << 20;

/// The largest document that is read for its links where nothing else bounds it, in bytes.
pub const DOCUMENT_MAX_LEN: u64 = 64 << 20;

/// A dialect's rules about its refs. Pure.
pub trait RefRules: Send + Sync {
    /// The scope of a ref: the leading part of its path within which refs grant each other what they
    /// link (invariant I6). For containers, the repository. Empty means the whole proxy.
    fn scope<'p>(&self, path: &'p RefPath) -> &'p str;

    /// The blobs that a document needs beside itself, and what it says of their sizes, in the order it
    /// names them, without duplicates. `None` if the document is not what `kind` says, so that its needs are not known.
    /// Kinds that are not documents link nothing.
    fn links(&self, kind: &str, media_type: Option<&str>, document: &[u8]) -> Option<Vec<Claim>>;

    /// Whether content of this kind is a document that has to be read for its links.
    fn is_document(&self, kind: &str) -> bool;

    /// The kinds of content that are catalogues: indexes that name other content of the same proxy,
    /// and what that must hash to.
    fn catalogue_kinds(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether content of this kind is a catalogue.
    fn is_catalogue(&self, kind: &str) -> bool {
        self.catalogue_kinds().contains(&kind)
    }

    /// What stays the same in the path of a catalogue when it is replaced by a new version of itself.
    /// Of the catalogues that agree in it, only the newest says what there is.
    fn catalogue_of<'p>(&self, path: &'p RefPath) -> &'p str {
        path.as_str()
    }

    /// The kind of the catalogues that name content of this kind, by the path of its ref; `None` if
    /// none do.
    fn catalogued_by(&self, _kind: &str) -> Option<&'static str> {
        None
    }

    /// The kind of the facts (refs in the `meta` area) that may say until when content is valid
    /// ([`super::Ref::valid_until`]).
    fn dated_kind(&self) -> Option<&'static str> {
        None
    }

    /// Visits what a catalogue names, compressed as upstream sent it. False if it is not what its kind and path say; what was
    /// visited until then is right.
    fn catalogue(&self, _path: &RefPath, _document: &[u8], _visit: &mut dyn FnMut(&str, Claim)) -> bool {
        false
    }
}

/// What a document says of content that it names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// What its bytes hash to.
    pub digest: Digest,
    /// Its size in bytes, if the document says so.
    pub size: Option<u64>,
}

impl From<Digest> for Claim {
    /// Content of which nothing but the digest is known.
    fn from(digest: Digest) -> Self {
        Self { digest, size: None }
    }
}

/// Facts about an artifact, to be kept in its proxy's `meta` tree beside what the artifact is.
#[derive(Debug, Clone, PartialEq)]
pub struct Descriptor {
    /// Where in the tree.
    pub path: RefPath,
    /// The ref's `kind`.
    pub kind: &'static str,
    /// The facts, as further fields of the ref.
    pub facts: Map<String, Value>,
}
