//! Why the store could not do it.
//!
//! A caller branches on the variant: absent, unusable, damaged, wrong content, no room, or a failure
//! of the file system that says what was tried and on what.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no repository at the root.
    #[error("there is no repoxy store at `{0}`")]
    NoStore(String),
    /// The root was written by a later version, or is not a root this version can use.
    #[error("`{root}` cannot be used: {why}")]
    Unusable {
        /// The root.
        root: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A ref file that cannot be read as a ref.
    #[error("`{path}` is not a ref: {why}")]
    BadRef {
        /// The file.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// Bytes that do not hash to what was promised.
    #[error("content hashes to {actual}, expected {expected}")]
    Mismatch {
        /// The digest that was computed.
        actual: crate::model::Digest,
        /// What was promised.
        expected: crate::model::Checksum,
    },
    /// More or fewer bytes than were promised.
    #[error("content has {actual} bytes, expected {expected}")]
    Length {
        /// Bytes that came.
        actual: u64,
        /// Bytes that were promised.
        expected: u64,
    },
    /// No room: no bytes, no inodes, over quota, file too large, or the file system is read-only.
    #[error("no room to write `{path}`")]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// What could not be stored when it was written cannot be published.
    #[error(transparent)]
    Unstored(std::sync::Arc<StoreError>),
    /// Any other failure of the file system.
    #[error("could not {act} `{path}`")]
    Io {
        /// What was tried: `open`, `write`, `fsync`, …
        act: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl StoreError {
    /// The failure of `act` on `path`, told apart by its cause.
    pub(super) fn io(act: &'static str, path: impl Into<PathBuf>, source: impl Into<io::Error>) -> Self {
        let (path, source) = (path.into(), source.into());
        let no_room = [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::FBIG];
        match Errno::from_io_error(&source) {
            Some(errno) if no_room.contains(&errno) => Self::NoRoom { path, source },
            _ => Self::Io { act, path, source },
        }
    }

    /// A thread that was to do it panicked; why, it has said itself.
    pub(super) fn broken_off(act: &'static str, path: impl Into<PathBuf>) -> Self {
        Self::io(act, path, io::Error::other("a thread panicked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_be_out_of_room_is_no_room_and_nothing_else_is() {
        for errno in [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::FBIG] {
            assert!(matches!(StoreError::io("write", "x", errno), StoreError::NoRoom { .. }), "{errno}");
        }
        for errno in [Errno::IO, Errno::ACCESS, Errno::XDEV] {
            assert!(matches!(StoreError::io("write", "x", errno), StoreError::Io { .. }), "{errno}");
        }
    }
}
