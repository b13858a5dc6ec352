//! How far it is: counts for whoever wants to show them. Must not know how they are shown.

/// A part of the work that is worth a bar of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Reading last uses and sizes in order to choose refs that expire.
    ChooseExpired,
    /// G1: listing what earlier runs condemned.
    ListTrash,
    /// G2: reading every ref.
    Mark,
    /// Looking for live blobs that no ref needs.
    ListBlobs,
    /// Deleting refs that expire.
    Expire,
    /// G3: removing or restoring what earlier runs condemned.
    Reap,
    /// G4: condemning blobs.
    Condemn,
    /// fsck: looking at every blob, with or without reading it.
    CheckBlobs,
    /// fsck: looking at every ref.
    CheckRefs,
    /// fsck: looking at every row.
    CheckIndex,
    /// reindex: recording every ref.
    Record,
}

impl Step {
    /// The step in the words of the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChooseExpired => "choosing expired refs",
            Self::ListTrash => "listing trash",
            Self::Mark => "marking",
            Self::ListBlobs => "listing blobs",
            Self::Expire => "expiring refs",
            Self::Reap => "reaping",
            Self::Condemn => "condemning",
            Self::CheckBlobs => "checking blobs",
            Self::CheckRefs => "checking refs",
            Self::CheckIndex => "checking the index",
            Self::Record => "recording refs",
        }
    }
}

/// Is told how far the work is. Called often: implementations must be cheap and not block.
pub trait Progress: Send + Sync {
    /// A step begins; `total` counts what it will advance by, if that is known.
    fn begin(&self, step: Step, total: Option<u64>);
    /// So many more are done.
    fn advance(&self, count: u64);
}

/// Nobody wants to know.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn begin(&self, _step: Step, _total: Option<u64>) {}
    fn advance(&self, _count: u64) {}
}
