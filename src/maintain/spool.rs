//! Lists that take a bounded part of memory, however long they are: written once from beginning to end, and
//! read again as often as wanted. What does not fit goes into a temporary file.

use std::marker::PhantomData;

use super::{MaintainError, Upkeep};
use crate::model::{ArtifactType, Digest, RefKey, Timestamp, give_way};
use crate::store::{Scratch, Store};

/// There are more lists than sets, so each has less of the memory.
const SHARE: usize = 4;
/// Bytes that are read at a time, at least.
const PIECE: usize = 64 << 10;
/// The length in front of each entry.
const LEN: usize = size_of::<u32>();

/// Something that can be written down and read back.
pub trait Entry: Sized {
    /// Writes it down.
    fn write(&self, into: &mut Vec<u8>);
    /// Reads what was written; `None` if it was not.
    fn read(from: &mut Reader<'_>) -> Option<Self>;
}

/// A list.
pub struct Spool<T> {
    /// The most bytes that wait in memory.
    most: usize,
    /// The last entries; whole ones, so that none is half in the file.
    tail: Vec<u8>,
    /// Those before.
    scratch: Scratch,
    len: u64,
    entries: PhantomData<fn() -> T>,
}

impl<T> std::fmt::Debug for Spool<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spool").field("len", &self.len).finish_non_exhaustive()
    }
}

impl<T> Spool<T> {
    /// An empty list.
    pub(super) fn new(at: Upkeep<'_>) -> Self {
        Self::within(at.store, at.buffer / SHARE)
    }

    fn within(store: &Store, most: usize) -> Self {
        Self { most, tail: Vec::new(), scratch: store.scratch(), len: 0, entries: PhantomData }
    }

    /// How many entries there are.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<T: Entry> Spool<T> {
    /// Adds an entry at the end.
    pub(super) fn push(&mut self, entry: &T) -> Result<(), MaintainError> {
        let start = self.tail.len();
        self.tail.extend_from_slice(&[0; LEN]);
        entry.write(&mut self.tail);
        // An entry is a key and some digests, at most a ref file of 4 MiB.
        let len = u32::try_from(self.tail.len() - start - LEN).unwrap_or(u32::MAX);
        self.tail[start..start + LEN].copy_from_slice(&len.to_be_bytes());
        self.len += 1;
        give_way();
        if self.tail.len() > self.most {
            self.scratch.append(&self.tail).map_err(MaintainError::Scratch)?;
            self.tail.clear();
        }
        Ok(())
    }

    /// The entries in their order. Blocks on the disk if they did not fit into memory.
    pub fn iter(&self) -> Entries<'_, T> {
        Entries { spool: self, offset: 0, piece: Vec::new(), at: 0 }
    }
}

impl<'s, T: Entry> IntoIterator for &'s Spool<T> {
    type Item = Result<T, MaintainError>;
    type IntoIter = Entries<'s, T>;

    fn into_iter(self) -> Entries<'s, T> {
        self.iter()
    }
}

/// Reads a [`Spool`].
#[derive(Debug)]
pub struct Entries<'s, T> {
    spool: &'s Spool<T>,
    /// How much of it was read.
    offset: u64,
    piece: Vec<u8>,
    /// Where in the piece the next entry begins.
    at: usize,
}

impl<T: Entry> Iterator for Entries<'_, T> {
    type Item = Result<T, MaintainError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.entry().transpose()
    }
}

impl<T: Entry> Entries<'_, T> {
    fn entry(&mut self) -> Result<Option<T>, MaintainError> {
        self.need(LEN)?;
        let Some(len) = self.piece[self.at..].first_chunk().map(|len| u32::from_be_bytes(*len)) else {
            return Ok(None);
        };
        let whole = LEN + len as usize;
        self.need(whole)?;
        let entry = self.piece.get(self.at + LEN..self.at + whole);
        let entry = entry.and_then(|bytes| T::read(&mut Reader(bytes))).ok_or(MaintainError::BadScratch)?;
        self.at += whole;
        Ok(Some(entry))
    }

    /// Reads on until so many bytes are there, if there are so many.
    fn need(&mut self, bytes: usize) -> Result<(), MaintainError> {
        let missing = bytes.saturating_sub(self.piece.len() - self.at);
        if missing == 0 {
            return Ok(());
        }
        self.piece.drain(..self.at);
        self.at = 0;
        let (start, scratch) = (self.piece.len(), &self.spool.scratch);
        let left = scratch.len().saturating_sub(self.offset);
        if left > 0 {
            let more = usize::try_from(left).unwrap_or(usize::MAX).min(missing.max(PIECE));
            self.piece.resize(start + more, 0);
            scratch.read_at(self.offset, &mut self.piece[start..]).map_err(MaintainError::Scratch)?;
            self.offset += more as u64;
        } else {
            // No entry is half in the file, so nothing of it is left in the piece.
            let tail = usize::try_from(self.offset - scratch.len()).unwrap_or(usize::MAX);
            let tail = self.spool.tail.get(tail..).unwrap_or_default();
            let more = &tail[..tail.len().min(missing.max(PIECE))];
            self.piece.extend_from_slice(more);
            self.offset += more.len() as u64;
        }
        Ok(())
    }
}

/// What an [`Entry`] is read from.
#[derive(Debug)]
pub struct Reader<'b>(&'b [u8]);

impl<'b> Reader<'b> {
    fn chunk<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (chunk, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*chunk)
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.chunk().map(|[byte]| byte)
    }

    pub(super) fn number(&mut self) -> Option<u64> {
        self.chunk().map(u64::from_be_bytes)
    }

    pub(super) fn text(&mut self) -> Option<&'b str> {
        let len = usize::try_from(self.number()?).ok()?;
        let (text, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        str::from_utf8(text).ok()
    }

    pub(super) fn digest(&mut self) -> Option<Digest> {
        self.chunk().map(Digest::from_bytes)
    }

    pub(super) fn time(&mut self) -> Option<Timestamp> {
        Timestamp::from_nanosecond(i128::from_be_bytes(self.chunk()?)).ok()
    }

    pub(super) fn artifact_type(&mut self) -> Option<ArtifactType> {
        ArtifactType::ALL.get(usize::from(self.byte()?)).copied()
    }

    pub(super) fn key(&mut self) -> Option<RefKey> {
        self.text()?.parse().ok()
    }
}

pub(super) fn put_number(into: &mut Vec<u8>, number: u64) {
    into.extend_from_slice(&number.to_be_bytes());
}

pub(super) fn put_text(into: &mut Vec<u8>, text: &str) {
    put_number(into, text.len() as u64);
    into.extend_from_slice(text.as_bytes());
}

pub(super) fn put_time(into: &mut Vec<u8>, time: Timestamp) {
    into.extend_from_slice(&time.as_nanosecond().to_be_bytes());
}

pub(super) fn put_type(into: &mut Vec<u8>, artifact_type: ArtifactType) {
    into.push(artifact_type as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::maintain::fixture::Fixture;

    impl Entry for String {
        fn write(&self, into: &mut Vec<u8>) {
            put_text(into, self);
        }

        fn read(from: &mut Reader<'_>) -> Option<Self> {
            from.text().map(str::to_owned)
        }
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_written_whatever_fits_into_memory(
            texts in prop::collection::vec("[a-z]{0,300}", 0..100),
            most in prop_oneof![0..2000_usize, Just(usize::MAX)],
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let fixture = runtime.block_on(Fixture::memory());
            let mut spool = Spool::within(&fixture.store, most);
            for text in &texts {
                spool.push(text).expect("written");
                prop_assert!(spool.tail.len() <= most);
            }
            prop_assert_eq!(spool.len(), texts.len() as u64);
            for _ in 0..2 {
                let read: Vec<String> = spool.iter().collect::<Result<_, _>>().expect("read");
                prop_assert_eq!(&read, &texts);
            }
        }
    }

    #[tokio::test]
    async fn entries_longer_than_what_is_read_at_a_time_are_whole() {
        let fixture = Fixture::memory().await;
        for most in [0, usize::MAX] {
            let mut spool = Spool::within(&fixture.store, most);
            let texts = [PIECE - 20, 3 * PIECE, 1, 0, PIECE].map(|len| "x".repeat(len));
            for text in &texts {
                spool.push(text).expect("written");
            }
            let read: Vec<String> = spool.iter().collect::<Result<_, _>>().expect("read");
            assert!(read == texts);
        }
    }

    #[test]
    fn each_type_is_read_back() {
        for artifact_type in ArtifactType::ALL {
            let mut bytes = Vec::new();
            put_type(&mut bytes, artifact_type);
            assert_eq!(Reader(&bytes).artifact_type(), Some(artifact_type));
        }
    }
}
