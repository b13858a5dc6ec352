//! Sets of records that take a bounded part of memory, however many there are.
//!
//! A record is `N` bytes, and the order of records is that of their bytes. Of those whose first `KEY` bytes
//! are the same only the greatest stays. They collect in a buffer; a full one is sorted, and if it is not
//! mostly repeats it becomes a *run* in a temporary file. Runs are merged into one, of which memory holds the
//! first record of each block. A set that fits into the buffer never sees a file.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeSet, BinaryHeap};

use super::{MaintainError, Upkeep};
use crate::model::give_way;
use crate::store::{Scratch, Store};

/// Bytes that are read to find one record. Each has its first record in memory.
const BLOCK: usize = 4 << 10;
/// Bytes that are read or written at a time when a run is read or written whole.
const PIECE: usize = 64 << 10;
/// Runs of about one size that are merged into one of the next size.
const FAN_IN: usize = 16;

/// The part of a buffer that [`Growing`] fills: its sets have more beside each record.
const GROWING_SHARE: usize = 4;

/// A set that is being collected.
#[derive(Debug)]
pub(super) struct Sorter<const N: usize, const KEY: usize = N> {
    store: Store,
    /// The most records that wait in memory.
    most: usize,
    buffer: Vec<[u8; N]>,
    /// Runs by size: each of the second level was merged from [`FAN_IN`] of the first.
    levels: Vec<Vec<Run<N, KEY>>>,
}

impl<const N: usize, const KEY: usize> Sorter<N, KEY> {
    /// An empty one.
    pub(super) fn new(at: Upkeep<'_>) -> Self {
        Self::within(at.store, at.buffer)
    }

    /// One whose buffer is of so many bytes.
    fn within(store: &Store, buffer: usize) -> Self {
        Self { store: store.clone(), most: (buffer / N).max(1), buffer: Vec::new(), levels: Vec::new() }
    }

    /// Adds a record; it may be there already.
    pub(super) fn insert(&mut self, record: [u8; N]) -> Result<(), MaintainError> {
        if self.buffer.len() == self.buffer.capacity() {
            self.make_room()?;
        }
        self.buffer.push(record);
        give_way();
        Ok(())
    }

    /// Makes room for more: by sorting out repeats, by taking more memory, or by writing a run.
    fn make_room(&mut self) -> Result<(), MaintainError> {
        compact::<N, KEY>(&mut self.buffer);
        let len = self.buffer.len();
        if len > self.most / 2 && self.buffer.capacity() >= self.most {
            self.spill()?;
        }
        let wanted = (self.buffer.len() * 2).clamp(FAN_IN, FAN_IN.max(self.most)).min(self.most);
        self.buffer.reserve_exact(wanted.saturating_sub(self.buffer.len()));
        Ok(())
    }

    /// Writes what is in the buffer, which is sorted, as a run.
    fn spill(&mut self) -> Result<(), MaintainError> {
        let mut writer = RunWriter::new(&self.store);
        for record in self.buffer.drain(..) {
            writer.push(record)?;
        }
        let mut run = writer.finish()?;
        for level in 0.. {
            if self.levels.len() == level {
                self.levels.push(Vec::new());
            }
            let runs = &mut self.levels[level];
            runs.push(run);
            if runs.len() < FAN_IN {
                break;
            }
            run = merge(&self.store, &std::mem::take(runs))?;
        }
        Ok(())
    }

    /// Ends the collection.
    pub(super) fn finish(mut self) -> Result<Sorted<N, KEY>, MaintainError> {
        compact::<N, KEY>(&mut self.buffer);
        if self.levels.is_empty() {
            self.buffer.shrink_to_fit();
            return Ok(Sorted { run: None, block: self.buffer, at: None });
        }
        if !self.buffer.is_empty() {
            self.spill()?;
        }
        self.buffer = Vec::new();
        let mut runs: Vec<_> = self.levels.into_iter().flatten().collect();
        let run = if runs.len() == 1 { runs.pop() } else { Some(merge(&self.store, &runs)?) };
        Ok(Sorted { run, block: Vec::new(), at: None })
    }
}

/// Sorts, and leaves of those with the same key the greatest.
fn compact<const N: usize, const KEY: usize>(records: &mut Vec<[u8; N]>) {
    records.sort_unstable_by(compare);
    records.dedup_by(|next, kept| {
        let same = next[..KEY] == kept[..KEY];
        if same {
            *kept = *next;
        }
        same
    });
}

/// The order of records. Their first bytes nearly always decide it, and take one comparison of numbers.
fn compare<const N: usize>(one: &[u8; N], other: &[u8; N]) -> Ordering {
    let first = |record: &[u8; N]| record.first_chunk().map(|bytes| u64::from_be_bytes(*bytes));
    first(one).cmp(&first(other)).then_with(|| one.cmp(other))
}

/// A finished set.
#[derive(Debug, Default)]
pub(super) struct Sorted<const N: usize, const KEY: usize = N> {
    /// What there is, if memory does not hold it.
    run: Option<Run<N, KEY>>,
    /// All records, or those of one block.
    block: Vec<[u8; N]>,
    /// Which block that is.
    at: Option<usize>,
}

impl<const N: usize, const KEY: usize> Sorted<N, KEY> {
    /// The record with this key. Who asks for keys in their order has each block read once.
    pub(super) fn find(&mut self, key: &[u8; KEY]) -> Result<Option<[u8; N]>, MaintainError> {
        give_way();
        if let Some(run) = &self.run {
            let Some(at) = run.block_of(key) else { return Ok(None) };
            if self.at != Some(at) {
                self.at = None;
                run.read_block(at, &mut self.block)?;
                self.at = Some(at);
            }
        }
        let found = self.block.binary_search_by(|record| record[..KEY].cmp(key));
        Ok(found.ok().map(|place| self.block[place]))
    }

    /// Whether there is a record with this key.
    pub(super) fn contains(&mut self, key: &[u8; KEY]) -> Result<bool, MaintainError> {
        Ok(self.find(key)?.is_some())
    }

    /// All records in their order.
    pub(super) fn records(&self) -> impl Iterator<Item = Result<[u8; N], MaintainError>> {
        let held = if self.run.is_none() { &self.block[..] } else { &[] };
        self.run.iter().flat_map(Run::records).chain(held.iter().map(|record| Ok(*record)))
    }

    /// Bytes of memory.
    #[cfg(test)]
    fn held(&self) -> usize {
        let fences = self.run.as_ref().map_or(0, |run| run.fences.capacity() * KEY);
        self.block.capacity() * N + fences
    }
}

/// Sorted records in a temporary file.
#[derive(Debug)]
struct Run<const N: usize, const KEY: usize> {
    scratch: Scratch,
    /// The key of the first record of each block.
    fences: Vec<[u8; KEY]>,
}

impl<const N: usize, const KEY: usize> Run<N, KEY> {
    /// Records in a block; none is in two.
    const IN_BLOCK: usize = BLOCK / N;
    /// Records in a piece.
    const IN_PIECE: usize = PIECE / N;

    /// The block where a key is, if it is anywhere.
    fn block_of(&self, key: &[u8; KEY]) -> Option<usize> {
        self.fences.partition_point(|first| first <= key).checked_sub(1)
    }

    fn read_block(&self, at: usize, block: &mut Vec<[u8; N]>) -> Result<(), MaintainError> {
        self.read((at * Self::IN_BLOCK) as u64, Self::IN_BLOCK, block)
    }

    /// Reads so many records from the one with this number on, or those that there are.
    fn read(&self, first: u64, count: usize, into: &mut Vec<[u8; N]>) -> Result<(), MaintainError> {
        let offset = first * N as u64;
        let left =
            usize::try_from(self.scratch.len().saturating_sub(offset) / N as u64).unwrap_or(usize::MAX);
        into.clear();
        into.resize(count.min(left), [0; N]);
        self.scratch.read_at(offset, into.as_flattened_mut()).map_err(MaintainError::Scratch)
    }

    /// All records in their order.
    fn records(&self) -> Records<'_, N, KEY> {
        Records { run: self, next: 0, piece: Vec::new().into_iter() }
    }
}

/// Reads a run from its beginning to its end.
struct Records<'r, const N: usize, const KEY: usize> {
    run: &'r Run<N, KEY>,
    /// The number of the first record behind the piece.
    next: u64,
    piece: std::vec::IntoIter<[u8; N]>,
}

impl<const N: usize, const KEY: usize> Iterator for Records<'_, N, KEY> {
    type Item = Result<[u8; N], MaintainError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(record) = self.piece.next() {
            return Some(Ok(record));
        }
        let mut piece = Vec::new();
        if let Err(error) = self.run.read(self.next, Run::<N, KEY>::IN_PIECE, &mut piece) {
            return Some(Err(error));
        }
        self.next += piece.len() as u64;
        self.piece = piece.into_iter();
        self.piece.next().map(Ok)
    }
}

/// Writes a run.
struct RunWriter<const N: usize, const KEY: usize> {
    run: Run<N, KEY>,
    piece: Vec<u8>,
    written: usize,
    /// The last record: one with the same key may follow.
    last: Option<[u8; N]>,
}

impl<const N: usize, const KEY: usize> RunWriter<N, KEY> {
    fn new(store: &Store) -> Self {
        let run = Run { scratch: store.scratch(), fences: Vec::new() };
        Self { run, piece: Vec::with_capacity(PIECE), written: 0, last: None }
    }

    /// Adds a record that is greater than all before.
    fn push(&mut self, record: [u8; N]) -> Result<(), MaintainError> {
        match self.last.replace(record) {
            Some(last) if last[..KEY] != record[..KEY] => self.write(&last),
            _ => Ok(()),
        }
    }

    fn write(&mut self, record: &[u8; N]) -> Result<(), MaintainError> {
        if self.written.is_multiple_of(Run::<N, KEY>::IN_BLOCK) {
            let mut fence = [0; KEY];
            fence.copy_from_slice(&record[..KEY]);
            self.run.fences.push(fence);
        }
        self.written += 1;
        if self.piece.len() + N > PIECE {
            self.flush()?;
        }
        self.piece.extend_from_slice(record);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), MaintainError> {
        self.run.scratch.append(&self.piece).map_err(MaintainError::Scratch)?;
        self.piece.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Run<N, KEY>, MaintainError> {
        if let Some(last) = self.last.take() {
            self.write(&last)?;
        }
        self.flush()?;
        self.run.fences.shrink_to_fit();
        Ok(self.run)
    }
}

/// Makes one run of several.
fn merge<const N: usize, const KEY: usize>(
    store: &Store,
    runs: &[Run<N, KEY>],
) -> Result<Run<N, KEY>, MaintainError> {
    let mut readers: Vec<_> = runs.iter().map(Run::records).collect();
    let mut next = BinaryHeap::with_capacity(readers.len());
    for (from, reader) in readers.iter_mut().enumerate() {
        if let Some(record) = reader.next() {
            next.push(Reverse((record?, from)));
        }
    }
    let mut writer = RunWriter::new(store);
    while let Some(mut least) = next.peek_mut() {
        let Reverse((record, from)) = *least;
        writer.push(record)?;
        match readers[from].next() {
            Some(record) => *least = Reverse((record?, from)),
            None => _ = std::collections::binary_heap::PeekMut::pop(least),
        }
    }
    writer.finish()
}

/// A set that is asked while it grows; meant for few records, and right with many.
#[derive(Debug)]
pub(super) struct Growing<const N: usize> {
    store: Store,
    buffer: usize,
    recent: BTreeSet<[u8; N]>,
    /// Those before, which did not fit beside the recent ones.
    older: Sorted<N>,
}

impl<const N: usize> Growing<N> {
    /// An empty one.
    pub(super) fn new(at: Upkeep<'_>) -> Self {
        let older = Sorted { run: None, block: Vec::new(), at: None };
        Self { store: at.store.clone(), buffer: at.buffer, recent: BTreeSet::new(), older }
    }

    /// Whether the record is there.
    pub(super) fn contains(&mut self, record: &[u8; N]) -> Result<bool, MaintainError> {
        Ok(self.recent.contains(record) || self.older.contains(record)?)
    }

    /// Adds a record that is not there.
    pub(super) fn insert(&mut self, record: [u8; N]) -> Result<(), MaintainError> {
        self.recent.insert(record);
        if self.recent.len() * N * GROWING_SHARE > self.buffer {
            let mut sorter = Sorter::within(&self.store, self.buffer);
            for record in self.older.records() {
                sorter.insert(record?)?;
            }
            for record in std::mem::take(&mut self.recent) {
                sorter.insert(record)?;
            }
            self.older = sorter.finish()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::maintain::fixture::Fixture;

    /// Records of a key of two bytes and a value of one.
    type Pairs = Vec<(u16, u8)>;

    fn record((key, value): (u16, u8)) -> [u8; 3] {
        let [a, b] = key.to_be_bytes();
        [a, b, value]
    }

    async fn sorted(pairs: &Pairs, buffer: usize) -> (Sorted<3, 2>, bool) {
        let fixture = Fixture::memory().await;
        let mut sorter = Sorter::<3, 2>::within(&fixture.store, buffer);
        for pair in pairs {
            sorter.insert(record(*pair)).expect("inserted");
            assert!(sorter.buffer.capacity() <= sorter.most);
        }
        let spilled = !sorter.levels.is_empty();
        (sorter.finish().expect("finished"), spilled)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
    }

    proptest! {
        #[test]
        fn a_set_is_what_a_map_is_whatever_fits_into_memory(
            pairs in prop::collection::vec((0..500_u16, any::<u8>()), 0..3000),
            buffer in prop_oneof![1..40_usize, Just(usize::MAX)],
        ) {
            let (mut set, _) = run(sorted(&pairs, buffer));
            let mut map = BTreeMap::new();
            for (key, value) in pairs {
                let greatest = map.entry(key).or_insert(value);
                *greatest = value.max(*greatest);
            }
            let all: Vec<_> = set.records().collect::<Result<_, _>>().expect("read");
            prop_assert_eq!(all, map.iter().map(|(key, value)| record((*key, *value))).collect::<Vec<_>>());
            // Up and down, and what is not there.
            for key in (0..510_u16).chain((0..510).rev()) {
                let expected = map.get(&key).map(|value| record((key, *value)));
                prop_assert_eq!(set.find(&key.to_be_bytes()).expect("read"), expected);
            }
        }

        #[test]
        fn a_growing_set_knows_what_was_put_into_it(keys in prop::collection::vec(0..300_u16, 0..400)) {
            let fixture = run(Fixture::memory());
            let mut growing = Growing::new(Upkeep { buffer: 64, ..fixture.at() });
            let mut set = BTreeSet::new();
            for key in keys {
                let is_new = set.insert(key);
                prop_assert_eq!(growing.contains(&key.to_be_bytes()).expect("read"), !is_new);
                if is_new {
                    growing.insert(key.to_be_bytes()).expect("inserted");
                }
            }
        }
    }

    #[tokio::test]
    async fn a_file_is_made_only_for_what_memory_cannot_hold_without_its_repeats() {
        let repeats = (0..10_000_u16).map(|n| (n % 50, 0)).collect();
        assert!(!sorted(&repeats, 3 * 100).await.1);
        let distinct = (0..200).map(|n| (n, 0)).collect();
        assert!(sorted(&distinct, 3 * 100).await.1);
        assert!(!sorted(&distinct, 3 * 200).await.1);
    }

    #[tokio::test]
    async fn memory_does_not_grow_with_what_is_sorted() {
        let fixture = Fixture::memory().await;
        let mut most = Vec::new();
        for count in [10_000_u64, 100_000, 1_000_000] {
            let mut sorter = Sorter::<32>::within(&fixture.store, 64 << 10);
            for n in 0..count {
                let digest = crate::model::Digest::of(&n.to_le_bytes());
                sorter.insert(*digest.as_bytes()).expect("inserted");
                assert!(sorter.buffer.capacity() * 32 <= 64 << 10);
                assert!(sorter.levels.iter().all(|level| level.len() < FAN_IN), "few files");
            }
            let mut set = sorter.finish().expect("finished");
            for n in [0, count / 2, count - 1] {
                let digest = crate::model::Digest::of(&n.to_le_bytes());
                assert!(set.contains(digest.as_bytes()).expect("read"));
            }
            // But for a fence for each block.
            most.push(set.held() - set.run.as_ref().map_or(0, |run| run.fences.capacity() * 32));
        }
        assert!(most.iter().all(|bytes| *bytes <= BLOCK), "{most:?}");
    }
}
