//! What a server holds: the index of the moment, if there is one.
//!
//! An index that is gone, replaced or damaged costs no request: it is let go, the server goes on
//! from the files, and a fresh one takes its place. So does one that somebody has put there: what it
//! says may be of last week. Filling that is the caller's work, since this
//! module knows no files. It must not know who asks.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;

use super::database::{Health, Options};
use super::{Index, IndexError};
use crate::model::Causes;

/// The index of the moment, if there is one.
#[derive(Debug)]
pub struct Handle {
    /// `None` for a store in memory, which has no index.
    dir: Option<PathBuf>,
    options: Options,
    current: ArcSwapOption<Index>,
    /// `changes` of the current index when last looked at; `None` if it is a new one. Also keeps two
    /// ticks from doing the same work.
    seen: Mutex<Option<u64>>,
    changes: AtomicU64,
    away: AtomicBool,
}

/// What a [`Handle::tick`] has noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Nothing.
    Nothing,
    /// Something was taken away or found to be something else, or another process has made the index anew and completed it: what is held in
    /// memory on the strength of the index has to go.
    Changed,
    /// Another index is in place and is not complete: as [`Self::Changed`], and it has to be rebuilt.
    Rebuild,
    /// There is no index and none can be made. The next tick tries again.
    Away,
}

impl Handle {
    /// Opens the index of a directory. Never fails: without an index the files answer, and
    /// [`Self::tick`] goes on trying. If [`Self::get`] gives an index that is not complete, it has
    /// to be rebuilt.
    ///
    /// Without a directory there is never an index, and the files always answer.
    pub fn open(dir: Option<PathBuf>, options: Options) -> Self {
        let handle = Self {
            dir,
            options,
            current: ArcSwapOption::empty(),
            seen: Mutex::new(None),
            changes: AtomicU64::new(0),
            away: AtomicBool::new(false),
        };
        handle.tick();
        handle
    }

    /// The index, if there is one that is not known to be damaged.
    pub fn get(&self) -> Option<Arc<Index>> {
        self.current.load_full().filter(|index| !index.is_damaged())
    }

    /// Grows whenever a tick notices a change, and never goes back when the index is exchanged.
    pub fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// Looks at what has become of the index, lets go of one that cannot be used, and opens another.
    ///
    /// To be called once a second. Costs a tenth of a millisecond when all is well; blocks on the
    /// disk when an index has to be opened.
    pub fn tick(&self) -> Notice {
        // A tick that panicked has at worst not counted a change.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = self.current.load_full() {
            match index.check() {
                Health::Same => match index.changes() {
                    Ok(changes) => {
                        let moved = seen.replace(changes).is_some_and(|seen| seen != changes);
                        return if moved { self.changed(Notice::Changed) } else { Notice::Nothing };
                    }
                    Err(IndexError::Damaged(_)) => self.let_go(&index),
                    Err(error) => {
                        tracing::debug!(%error, "could not look at the index");
                        return Notice::Nothing;
                    }
                },
                Health::Damaged => self.let_go(&index),
                health @ (Health::Replaced | Health::Missing) => {
                    tracing::warn!(?health, "the index is not where it was");
                    self.current.store(None);
                }
            }
        }
        *seen = None;
        self.reopen()
    }

    fn let_go(&self, index: &Index) {
        self.current.store(None);
        match index.set_aside() {
            Ok(aside) => tracing::warn!(?aside, "the index is damaged and was set aside"),
            Err(error) => tracing::warn!(%error, "the index is damaged and could not be set aside"),
        }
    }

    fn reopen(&self) -> Notice {
        let Some(dir) = &self.dir else { return Notice::Nothing };
        match Index::open_with(dir, &self.options) {
            Ok((index, opened)) => {
                tracing::info!(?opened, complete = index.is_complete(), "opened the index");
                if let Err(error) = index.rehearse() {
                    tracing::debug!(%error, "the index could not be asked");
                }
                let notice = if index.is_complete() { Notice::Changed } else { Notice::Rebuild };
                self.current.store(Some(Arc::new(index)));
                self.away.store(false, Ordering::Relaxed);
                self.changed(notice)
            }
            Err(error) => {
                // Said once, not every second.
                if !self.away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(error = %Causes(&error), "no index, the files answer");
                }
                Notice::Away
            }
        }
    }

    fn changed(&self, notice: Notice) -> Notice {
        self.changes.fetch_add(1, Ordering::AcqRel);
        notice
    }
}
