//! An upload whose file is made when the first bytes are written.
//!
//! Making a file waits for whatever the file system is at: milliseconds, while a disk is busy with what others have
//! written. Whoever starts an upload is about to let clients in, and they need no file yet.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::super::backend::Answer;
use super::super::blob::Content;
use super::super::{Blob, ObjectPath, StagedReader, StoreError, Upload, blocking};
use super::Files;
use super::publish::LocalUpload;

/// An upload, with or without a file.
#[derive(Debug)]
pub(super) struct LateUpload {
    files: Arc<Files>,
    staging: ObjectPath,
    left: Option<ObjectPath>,
    /// None before the first bytes.
    made: Option<LocalUpload>,
    /// Its file, for readers.
    file: Arc<OnceLock<Arc<OwnedFd>>>,
}

impl LateUpload {
    /// One that has no file, and will leave it at `left` if it is to be left.
    pub(super) fn new(files: &Arc<Files>, staging: ObjectPath, left: Option<ObjectPath>) -> Self {
        Self { files: Arc::clone(files), staging, left, made: None, file: Arc::default() }
    }

    /// One that goes on with what lies where it will leave it, or has no file if nothing of use lies there.
    pub(super) fn take_up(files: &Arc<Files>, staging: ObjectPath, left: ObjectPath) -> Self {
        let made = files.take_up(&staging, &left);
        let file = made.as_ref().map_or_else(OnceLock::new, |made| OnceLock::from(Arc::clone(made.file())));
        Self { made, file: Arc::new(file), ..Self::new(files, staging, Some(left)) }
    }
}

impl Upload for LateUpload {
    fn begun(&self) -> u64 {
        self.made.as_ref().map_or(0, LocalUpload::begun)
    }

    fn append(&mut self, chunks: &[Bytes]) -> Result<(), StoreError> {
        let made = match &mut self.made {
            Some(made) => made,
            none => {
                let made = none.insert(self.files.create(&self.staging, self.left.clone())?);
                self.file.get_or_init(|| Arc::clone(made.file()));
                made
            }
        };
        made.append(chunks)
    }

    fn reader(&self) -> StagedReader {
        StagedReader::new(match self.file.get() {
            Some(file) => Content::File(Arc::clone(file)),
            None => Content::Unmade(Arc::clone(&self.file)),
        })
    }

    fn leave(&mut self) -> u64 {
        self.made.as_mut().map_or(0, LocalUpload::leave)
    }

    fn publish(self: Box<Self>, path: &ObjectPath) -> Answer<'static, Blob> {
        let path = path.clone();
        let publish = move || match self.made {
            Some(made) => made.publish_now(&path),
            None => self.files.create(&self.staging, None)?.publish_now(&path),
        };
        blocking(publish).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Backend as _;
    use super::super::Local;
    use super::*;

    fn at(path: &str) -> ObjectPath {
        ObjectPath::new(path.into())
    }

    /// Files below a directory, without the one that says that its owner lives.
    fn files(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
        let all = walkdir::WalkDir::new(dir).into_iter().flatten();
        let files = all.filter(|entry| entry.file_type().is_file() && entry.file_name() != ".alive");
        files.map(walkdir::DirEntry::into_path).collect()
    }

    #[tokio::test]
    async fn there_is_no_file_before_the_first_bytes_and_readers_of_before_read_it() {
        let home = tempfile::tempdir().expect("a directory");
        let local = Local::create(home.path()).expect("a root");
        let left = at("tmp/partial/x");
        let mut upload = local.upload(&at("tmp"), Some(&left)).await.expect("started");
        let reader = upload.reader();
        assert_eq!((upload.begun(), files(home.path())), (0, vec![]));
        assert!(reader.read_at(0, 1).is_err() && reader.try_read_at(0, 1).is_err());
        assert_eq!(upload.leave(), 0, "there is nothing to leave");
        // Something is left by another meanwhile.
        std::fs::create_dir_all(home.path().join("tmp/partial")).expect("made");
        std::fs::write(home.path().join(left.as_str()), "of another").expect("written");
        upload.append(&["bytes".into()]).expect("written");
        assert_eq!((reader.read_at(0, 5).expect("read"), upload.begun()), ("bytes".into(), 0));
        assert_eq!(files(home.path()).len(), 2);
        let blob = upload.publish(&at("blobs/x")).await.expect("published");
        assert_eq!(blob.read_at(0, 9).expect("read"), "bytes");
        let mut files = files(home.path());
        files.sort();
        assert_eq!(files, [home.path().join("blobs/x"), home.path().join(left.as_str())]);
    }

    #[tokio::test]
    async fn nothing_at_all_is_published_as_an_empty_file() {
        let home = tempfile::tempdir().expect("a directory");
        let local = Local::create(home.path()).expect("a root");
        let upload = local.upload(&at("tmp"), None).await.expect("started");
        assert_eq!(upload.publish(&at("blobs/x")).await.expect("published").size(), 0);
        assert_eq!(files(home.path()), [home.path().join("blobs/x")]);
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_made_is_the_error_of_the_first_bytes() {
        let home = tempfile::tempdir().expect("a directory");
        let local = Local::create(home.path()).expect("a root");
        std::fs::write(home.path().join("tmp"), "in the way").expect("written");
        let mut upload = local.upload(&at("tmp"), None).await.expect("started");
        let error = upload.append(&["bytes".into()]).expect_err("a file is no directory");
        assert!(error.to_string().contains("tmp"), "{error}");
    }
}
