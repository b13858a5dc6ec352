//! What fsck can find: a closed list, each with how bad it is and what mends it.

use std::fmt;

use crate::maintain::error::Unlinked;
use crate::model::{ArtifactType, Digest, RefKey};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A crash or a moment in between leaves this; use, gc or reindex makes it go.
    Note,
    /// Nothing is lost, but it stays as it is until somebody mends it.
    Warning,
    /// Content is wrong or gone, or gc cannot run.
    Error,
}

impl Level {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// What mends a finding, and what it is done to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend<'f> {
    /// The blob is moved to `quarantine/`; it is fetched again when it is used.
    Quarantine(ArtifactType, &'f Digest),
    /// The file is moved to `quarantine/`, and the row of the ref it would be is deleted.
    SetAside(&'f str, Option<&'f RefKey>),
    /// The ref is deleted, from the index and then its file; it is fetched again when it is used.
    Withdraw(&'f RefKey),
    /// The blob is linked back from `trash/`.
    Restore(ArtifactType, &'f Digest),
    /// The row is written as the file says.
    Record(&'f RefKey),
    /// The row is deleted.
    Forget(&'f RefKey),
    /// What processes that are gone left in `tmp/` is removed.
    Clear,
}

impl Mend<'_> {
    /// The word in output.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Quarantine(..) => "quarantine",
            Self::SetAside(..) => "set-aside",
            Self::Withdraw(_) => "withdraw",
            Self::Restore(..) => "restore",
            Self::Record(_) => "record",
            Self::Forget(_) => "forget",
            Self::Clear => "clear",
        }
    }
}

/// What is there instead of a blob's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Corruption {
    /// Other bytes, which hash to this.
    HashesTo(Digest),
    /// No bytes: a power cut can leave an empty file under a final name (ext4 and XFS do).
    Empty,
    /// A file that cannot be read, for this reason.
    Unreadable(String),
}

impl fmt::Display for Corruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::HashesTo(actual) => write!(f, "its bytes hash to `{actual}`"),
            Self::Empty => f.write_str("it has no bytes"),
            Self::Unreadable(why) => write!(f, "it cannot be read: {why}"),
        }
    }
}

/// Something that is not as it should be. Displayed as what is wrong, without the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A blob whose bytes are not those that its name promises.
    CorruptBlob {
        /// Its type.
        artifact_type: ArtifactType,
        /// Its name.
        digest: Digest,
        /// What is there instead.
        how: Corruption,
    },
    /// Something below `blobs/` that is not a blob: another name, or not a regular file.
    StrayFile {
        /// The path below the root.
        path: String,
    },
    /// A file among the refs that is not one. It is treated as absent; gc does not run.
    UnreadableRef {
        /// The path below the root.
        path: String,
        /// The ref it would be.
        key: Option<RefKey>,
        /// What is wrong with it.
        why: String,
    },
    /// A ref in a place where no name leads: it is never served.
    MisplacedRef {
        /// The path below the root.
        path: String,
    },
    /// A ref whose target is nowhere.
    MissingTarget {
        /// The ref.
        key: RefKey,
        /// Its target.
        digest: Digest,
    },
    /// A ref that states another size than its target has, and the target is right.
    WrongSize {
        /// The ref.
        key: RefKey,
        /// What it states.
        stated: u64,
        /// What is so.
        actual: u64,
    },
    /// A ref without `links` whose target cannot be understood. gc does not run.
    UnknownLinks {
        /// The ref.
        key: RefKey,
        /// Why its links are not known.
        why: Unlinked,
    },
    /// A ref whose target is condemned: the next gc or the next use links it back.
    CondemnedTarget {
        /// The ref.
        key: RefKey,
        /// Its target.
        digest: Digest,
    },
    /// A ref that the index does not know: the next use records it.
    NoRow {
        /// The ref.
        key: RefKey,
    },
    /// A ref whose row is an earlier reading.
    OldRow {
        /// The ref.
        key: RefKey,
    },
    /// A ref whose row says something else and is not merely older.
    WrongRow {
        /// The ref.
        key: RefKey,
    },
    /// A row of a ref that has no file: somebody deleted the file by hand.
    NoFile {
        /// The ref.
        key: RefKey,
    },
    /// Files in `tmp/` of processes that are gone, and partial files that are too old.
    Leftovers {
        /// How many.
        files: u64,
        /// Their bytes.
        bytes: u64,
    },
}

impl Finding {
    /// The word in output for its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::CorruptBlob { .. } => "corrupt-blob",
            Self::StrayFile { .. } => "stray-file",
            Self::UnreadableRef { .. } => "unreadable-ref",
            Self::MisplacedRef { .. } => "misplaced-ref",
            Self::MissingTarget { .. } => "missing-target",
            Self::WrongSize { .. } => "wrong-size",
            Self::UnknownLinks { .. } => "unknown-links",
            Self::CondemnedTarget { .. } => "condemned-target",
            Self::NoRow { .. } => "no-row",
            Self::OldRow { .. } => "old-row",
            Self::WrongRow { .. } => "wrong-row",
            Self::NoFile { .. } => "no-file",
            Self::Leftovers { .. } => "leftovers",
        }
    }

    /// How bad it is.
    pub const fn level(&self) -> Level {
        match self {
            Self::CorruptBlob { .. }
            | Self::UnreadableRef { .. }
            | Self::MissingTarget { .. }
            | Self::WrongSize { .. }
            | Self::UnknownLinks { .. } => Level::Error,
            Self::StrayFile { .. }
            | Self::MisplacedRef { .. }
            | Self::WrongRow { .. }
            | Self::NoFile { .. } => Level::Warning,
            Self::CondemnedTarget { .. }
            | Self::NoRow { .. }
            | Self::OldRow { .. }
            | Self::Leftovers { .. } => Level::Note,
        }
    }

    /// What mends it.
    pub const fn mend(&self) -> Mend<'_> {
        match self {
            Self::CorruptBlob { artifact_type, digest, .. } => Mend::Quarantine(*artifact_type, digest),
            Self::StrayFile { path } | Self::MisplacedRef { path } => Mend::SetAside(path.as_str(), None),
            Self::UnreadableRef { path, key, .. } => Mend::SetAside(path.as_str(), key.as_ref()),
            Self::MissingTarget { key, .. }
            | Self::WrongSize { key, .. }
            | Self::UnknownLinks { key, .. } => Mend::Withdraw(key),
            Self::CondemnedTarget { key, digest } => Mend::Restore(key.proxy.artifact_type, digest),
            Self::NoRow { key } | Self::OldRow { key } | Self::WrongRow { key } => Mend::Record(key),
            Self::NoFile { key } => Mend::Forget(key),
            Self::Leftovers { .. } => Mend::Clear,
        }
    }

    /// Where it is: a path below the root, a ref, or a blob.
    pub fn place(&self) -> String {
        match self {
            Self::CorruptBlob { artifact_type, digest, .. } => format!("{artifact_type}/blobs/{digest}"),
            Self::StrayFile { path } | Self::UnreadableRef { path, .. } | Self::MisplacedRef { path } => {
                path.clone()
            }
            Self::MissingTarget { key, .. }
            | Self::WrongSize { key, .. }
            | Self::UnknownLinks { key, .. }
            | Self::CondemnedTarget { key, .. }
            | Self::NoRow { key }
            | Self::OldRow { key }
            | Self::WrongRow { key }
            | Self::NoFile { key } => key.to_string(),
            Self::Leftovers { .. } => "tmp".to_owned(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CorruptBlob { how, .. } => how.fmt(f),
            Self::StrayFile { .. } => f.write_str("not a blob"),
            Self::UnreadableRef { why, .. } => write!(f, "not a ref: {why}"),
            Self::MisplacedRef { .. } => f.write_str("a ref where no name leads"),
            Self::MissingTarget { digest, .. } => write!(f, "its target `{digest}` is missing"),
            Self::WrongSize { stated, actual, .. } => {
                write!(f, "states {stated} bytes, its target has {actual}")
            }
            Self::UnknownLinks { why, .. } => write!(f, "what it links is not known: {why}"),
            Self::CondemnedTarget { digest, .. } => write!(f, "its target `{digest}` is condemned"),
            Self::NoRow { .. } => f.write_str("not in the index"),
            Self::OldRow { .. } => f.write_str("older in the index"),
            Self::WrongRow { .. } => f.write_str("the index says otherwise"),
            Self::NoFile { .. } => f.write_str("in the index, but has no file"),
            Self::Leftovers { files, bytes } => {
                write!(f, "{files} files of {bytes} bytes left by processes that are gone")
            }
        }
    }
}
