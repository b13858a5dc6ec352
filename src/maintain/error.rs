//! Why upkeep could not do it.

use crate::index::IndexError;
use crate::model::{ArtifactType, Digest};
use crate::store::StoreError;

/// An error of gc, fsck or reindex. Whatever was not yet begun is left as it was.
#[derive(Debug, thiserror::Error)]
pub enum MaintainError {
    /// Another run holds the lock.
    #[error("another run holds `locks/{0}`")]
    Locked(&'static str),
    /// A file among the refs that cannot be read as one: what it needs is unknown, so nothing may go.
    #[error("gc stops at `{path}`, which it cannot read")]
    UnreadableRef {
        /// The file.
        path: String,
        /// What is wrong with it.
        source: StoreError,
    },
    /// A ref whose links nobody has noted and nobody can tell.
    #[error("gc stops at `{path}`, whose links are not known")]
    UnknownLinks {
        /// The ref's file.
        path: String,
        /// Why it is not known.
        #[source]
        why: Unlinked,
    },
    /// The files could not be read or changed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The index could not be read or changed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A blob could not be read.
    #[error("could not read blob `{digest}`")]
    Read {
        /// The blob.
        digest: Digest,
        /// The cause.
        source: std::io::Error,
    },
    /// Something that was to be moved is not there any more.
    #[error("`{0}` is not there any more")]
    Gone(String),
    /// A temporary file could not be written or read, for what does not fit into memory.
    #[error("no use of a temporary file could be made")]
    Scratch(#[source] StoreError),
    /// A temporary file does not say what was written into it.
    #[error("a temporary file is damaged")]
    BadScratch,
    /// Whoever takes the findings wants no more.
    #[error("stopped")]
    Stopped,
    /// A thread of this program was lost.
    #[error("a worker thread failed")]
    Worker(#[from] tokio::task::JoinError),
}

/// Why the links of a ref are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unlinked {
    /// The file has no `links`, and this version has no dialect for the type.
    #[error("no rules for type `{0}`")]
    NoRules(ArtifactType),
    /// The file has no `links`, and its target is not a document of its kind.
    #[error("`{digest}` is not a document of kind `{kind}`")]
    NotUnderstood {
        /// The target.
        digest: Digest,
        /// What the ref says it is.
        kind: String,
    },
    /// The file has no `links`, and its target is larger than any document that is read here.
    #[error("`{digest}` is too large to be a document")]
    TooLarge {
        /// The target.
        digest: Digest,
    },
}
