//! Room on disk for what upkeep cannot hold in memory: a file without a name, which goes with whoever made it.
//!
//! It is on the store's own file system, as what has room for blobs has it for lists of their names, and
//! temporary directories are often memory. Nothing is to be seen of it below the root at any moment
//! (`O_TMPFILE`), so that a dry run changes nothing. Where that cannot be, because the root is read-only,
//! full, or on a file system that knows no such files, it is in the system's temporary directory
//! (`TMPDIR`). It is never synced: nobody looks at it after a crash.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::{Store, StoreError};

/// Bytes that are moved at a time to another place.
const PIECE: usize = 256 << 10;

/// A temporary file that is made when something is added to it. Blocks on the disk.
#[derive(Debug)]
pub struct Scratch {
    /// Where it is, or is tried next; `None` for the system's temporary directory.
    root: Option<PathBuf>,
    file: Option<File>,
    len: u64,
}

impl Store {
    /// A temporary file of this store.
    pub fn scratch(&self) -> Scratch {
        Scratch { root: self.local_dir().map(Path::to_owned), file: None, len: 0 }
    }
}

impl Scratch {
    /// How many bytes there are.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds bytes at the end. If there is no room for them where it is, it goes on in the temporary directory.
    ///
    /// # Errors
    /// If there is none there either; what was added before is still there.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        loop {
            let len = self.len;
            match self.file()?.write_all_at(bytes, len) {
                Ok(()) => {
                    self.len = len + bytes.len() as u64;
                    return Ok(());
                }
                Err(error) => self.move_on(error)?,
            }
        }
    }

    /// Fills the buffer with what is there from `offset` on.
    ///
    /// # Errors
    /// If there is less, too.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), StoreError> {
        let read = match &self.file {
            Some(file) => file.read_exact_at(buffer, offset),
            None if buffer.is_empty() => Ok(()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        };
        read.map_err(|error| self.error("read a temporary file in", error))
    }

    /// The file, made now if it is not there.
    fn file(&mut self) -> Result<&File, StoreError> {
        if self.file.is_none()
            && let Some(root) = &self.root
        {
            match rustix::fs::open(
                root,
                OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
                Mode::RUSR | Mode::WUSR,
            ) {
                Ok(made) => self.file = Some(made.into()),
                Err(error) => {
                    tracing::debug!(%error, root = %root.display(), "no temporary file can be made here");
                    self.root = None;
                }
            }
        }
        match &mut self.file {
            Some(file) => Ok(file),
            empty => {
                let made = tempfile::tempfile();
                let made =
                    made.map_err(|error| StoreError::io("make a temporary file in", temporary(), error))?;
                Ok(empty.insert(made))
            }
        }
    }

    /// Goes on in the temporary directory after writing has failed, if it was not there already.
    fn move_on(&mut self, error: io::Error) -> Result<(), StoreError> {
        if self.root.take().is_none() {
            return Err(self.error("write a temporary file in", error));
        }
        tracing::debug!(%error, "the temporary file goes on elsewhere");
        let begun = Self { root: None, file: self.file.take(), len: self.len };
        self.len = 0;
        let mut piece = vec![0; PIECE];
        while self.len < begun.len {
            let left = usize::try_from(begun.len - self.len).unwrap_or(PIECE).min(PIECE);
            begun.read_at(self.len, &mut piece[..left])?;
            self.append(&piece[..left])?;
        }
        Ok(())
    }

    fn error(&self, act: &'static str, error: io::Error) -> StoreError {
        StoreError::io(act, self.root.clone().unwrap_or_else(temporary), error)
    }
}

/// The system's temporary directory.
fn temporary() -> PathBuf {
    tempfile::env::temp_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What there is, whole.
    fn content(scratch: &Scratch) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(scratch.len()).expect("small")];
        scratch.read_at(0, &mut bytes).expect("read");
        bytes
    }

    #[tokio::test]
    async fn what_was_added_is_read_and_nothing_is_seen_below_the_root() {
        let home = tempfile::tempdir().expect("a directory");
        let root = home.path().join("root");
        let store = Store::create(root.to_str().expect("text")).await.expect("a store");
        let files = || walkdir::WalkDir::new(&root).into_iter().count();
        let modified = || std::fs::metadata(&root).expect("there").modified().expect("known");
        let (before, at) = (files(), modified());
        let mut scratch = store.scratch();
        assert!(scratch.is_empty() && scratch.file.is_none(), "made when it is needed");
        scratch.append(b"one ").expect("written");
        scratch.append(b"two").expect("written");
        assert_eq!(content(&scratch), b"one two");
        assert_eq!((files(), modified()), (before, at));
        scratch.read_at(4, &mut [0; 4]).expect_err("there is less");
    }

    #[test]
    fn where_no_file_can_be_made_it_is_in_the_temporary_directory() {
        let mut scratch = Scratch { root: Some("/nonexistent".into()), file: None, len: 0 };
        scratch.append(b"one").expect("written");
        assert_eq!((content(&scratch), scratch.root), (b"one".to_vec(), None));
    }

    #[test]
    fn when_writing_fails_it_goes_on_elsewhere_with_what_was_added_before() {
        let home = tempfile::tempdir().expect("a directory");
        let begun = vec![7; PIECE + 10];
        let path = home.path().join("begun");
        std::fs::write(&path, &begun).expect("written");
        // One that may only be read stands for one that has no room.
        let file = Some(File::open(&path).expect("opened"));
        let mut scratch = Scratch { root: Some(home.path().to_owned()), file, len: begun.len() as u64 };
        scratch.append(b"more").expect("written");
        assert_eq!(content(&scratch), [&begun[..], b"more"].concat());
        assert_eq!(scratch.root, None);

        scratch.file = Some(File::open(&path).expect("opened"));
        let error = scratch.append(b"and more").expect_err("there is no other place");
        assert!(error.to_string().contains("temporary"), "{error}");
    }
}
