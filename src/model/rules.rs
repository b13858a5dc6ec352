//! What everybody who handles refs must know of a dialect, as a value.
//!
//! The engine takes it from the protocol it serves; gc, fsck and reindex are handed it and so never
//! learn what a manifest is.

use super::{Digest, RefPath};

/// A dialect's rules about its refs. Pure.
pub trait RefRules: Send + Sync {
    /// The scope of a ref: the leading part of its path within which refs grant each other what they
    /// link (invariant I6). For containers, the repository. Empty means the whole proxy.
    fn scope<'p>(&self, path: &'p RefPath) -> &'p str;

    /// The blobs that a document needs beside itself, in the order it names them, without
    /// duplicates. `None` if the document is not what `kind` says, so that its needs are not known.
    /// Kinds that are not documents link nothing.
    fn links(&self, kind: &str, media_type: Option<&str>, document: &[u8]) -> Option<Vec<Digest>>;

    /// Whether content of this kind is a document that has to be read for its links.
    fn is_document(&self, kind: &str) -> bool;
}
