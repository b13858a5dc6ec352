//! The newest bytes of a blob in the making, kept in memory for followers that keep up.
//!
//! Reading back what was written a moment ago costs a copy out of the page cache, and for each follower
//! one. So the pieces that came in stay for a while, and followers are given the very same memory.
//! Whoever falls behind reads the file, and so does everybody when the writing has ended. Nothing
//! waits for anybody: a piece goes when its room is needed, whether it was read or not. Only what is not written yet
//! stays: followers may be told of it ahead of that, so that they do not wait for a disk.
//!
//! Bounded by [`RECENT_BYTES`] and [`RECENT_PIECES`] for each blob, and by [`ALL_RECENT_BYTES`] for all
//! together. But a piece lives on while it is on its way to a client, and with it all of the buffer that it
//! came in: where more than [`MOST_KEEPERS`] blobs are in the making nothing is kept, and all read the file.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::quota::Quota;
use super::window::Found;

/// The most bytes that are kept of one blob.
const RECENT_BYTES: usize = 1 << 20;
/// The most pieces that are kept of one blob.
const RECENT_PIECES: usize = 256;
/// The most bytes that are kept of all blobs together.
const ALL_RECENT_BYTES: usize = 8 << 20;

/// Of more blobs at a time nothing is kept.
const MOST_KEEPERS: usize = 16;

/// What all blobs share.
static ALL: Shared = Shared::new(ALL_RECENT_BYTES);

/// Room for so many bytes, and how many blobs want some.
#[derive(Debug)]
struct Shared {
    room: Quota,
    keepers: AtomicUsize,
}

impl Shared {
    const fn new(most: usize) -> Self {
        Self { room: Quota::new(most), keepers: AtomicUsize::new(0) }
    }
}

/// The newest pieces of one blob.
#[derive(Debug)]
pub(super) struct Recent {
    all: &'static Shared,
    pieces: Mutex<Pieces>,
}

#[derive(Debug, Default)]
struct Pieces {
    /// With the offsets where they begin, ascending; there may be gaps.
    queue: VecDeque<(u64, Bytes)>,
    bytes: usize,
    /// What is kept from this offset on must not go.
    unwritten: Option<u64>,
}

impl Pieces {
    /// What is kept at `offset`: at least one byte and at most `len`.
    fn get(&self, offset: u64, len: usize) -> Option<Bytes> {
        let next = self.queue.partition_point(|(start, _)| *start <= offset);
        let (start, piece) = self.queue.get(next.checked_sub(1)?)?;
        let from = usize::try_from(offset - start).ok().filter(|from| *from < piece.len() && len > 0)?;
        Some(piece.slice(from..piece.len().min(from.saturating_add(len))))
    }

    /// How many of `len` bytes at `offset` are in the file, if the first is.
    fn written(&self, offset: u64, len: usize) -> usize {
        let before = self.unwritten.and_then(|from| from.checked_sub(offset));
        before.map_or(len, |before| usize::try_from(before).map_or(len, |before| len.min(before)))
    }

    /// Takes out the oldest piece that may go.
    fn pop(&mut self) -> Option<Bytes> {
        let goes =
            self.queue.front().is_some_and(|(start, _)| self.unwritten.is_none_or(|from| *start < from));
        let (_, oldest) = if goes { self.queue.pop_front() } else { None }?;
        self.bytes -= oldest.len();
        Some(oldest)
    }
}

impl Recent {
    /// Where up to `len` bytes at `offset` can be had, of those that followers were told of: at least one of them
    /// without a copy, or so many in the file.
    pub(super) fn find(&self, offset: u64, len: usize) -> Found {
        let pieces = self.lock();
        pieces.get(offset, len).map_or_else(|| Found::File(pieces.written(offset, len)), Found::Memory)
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the piece that begins at `end`, which moves behind it, whether there is room for it or not.
    fn add(&self, pieces: &mut Pieces, end: &mut u64, piece: &Bytes) -> bool {
        let start = *end;
        *end += piece.len() as u64;
        let are_few = self.all.keepers.load(Ordering::Relaxed) <= MOST_KEEPERS;
        let is_kept = are_few && !piece.is_empty() && self.make_room(pieces, piece.len());
        if is_kept {
            pieces.bytes += piece.len();
            pieces.queue.push_back((start, piece.clone()));
        }
        is_kept
    }

    /// Makes room for a piece at the cost of older ones; false if that is not enough.
    fn make_room(&self, pieces: &mut Pieces, bytes: usize) -> bool {
        while pieces.bytes + bytes > RECENT_BYTES
            || pieces.queue.len() >= RECENT_PIECES
            || !self.all.room.take(bytes)
        {
            let Some(oldest) = pieces.pop() else { return false };
            self.all.room.give_back(oldest.len());
        }
        true
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.all.room.give_back(self.lock().bytes);
    }
}

/// The writing end. When it goes, nothing is kept any more.
#[derive(Debug)]
pub(super) struct Keeper {
    recent: Arc<Recent>,
    end: u64,
}

impl Keeper {
    /// Of a blob of which so many bytes have been written.
    pub(super) fn new(begun: u64) -> Self {
        Self::within(&ALL, begun)
    }

    fn within(all: &'static Shared, end: u64) -> Self {
        all.keepers.fetch_add(1, Ordering::Relaxed);
        Self { recent: Arc::new(Recent { all, pieces: Mutex::default() }), end }
    }

    /// The reading end.
    pub(super) fn recent(&self) -> Arc<Recent> {
        Arc::clone(&self.recent)
    }

    /// Keeps those that follow and are still to be written, up to the first for which there is no room; how many.
    /// They stay until [`Self::keep_written`].
    pub(super) fn keep_ahead(&mut self, coming: &[Bytes]) -> usize {
        let mut pieces = self.recent.lock();
        pieces.unwritten = Some(self.end);
        let mut end = self.end;
        let kept = coming.iter().take_while(|piece| self.recent.add(&mut pieces, &mut end, piece)).count();
        drop(pieces);
        self.end += coming[..kept].iter().map(|piece| piece.len() as u64).sum::<u64>();
        kept
    }

    /// Those that were kept ahead have been written, and so have the ones that follow, which are kept if there
    /// is room.
    pub(super) fn keep_written(&mut self, written: &[Bytes]) {
        let mut pieces = self.recent.lock();
        pieces.unwritten = None;
        for piece in written {
            self.recent.add(&mut pieces, &mut self.end, piece);
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let pieces = std::mem::take(&mut *self.recent.lock());
        self.recent.all.room.give_back(pieces.bytes);
        self.recent.all.keepers.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(most: usize) -> &'static Shared {
        Box::leak(Box::new(Shared::new(most)))
    }

    fn kept(recent: &Recent, offset: u64, len: usize) -> Option<Bytes> {
        match recent.find(offset, len) {
            Found::Memory(bytes) => Some(bytes),
            Found::File(_) => None,
        }
    }

    fn piece(byte: u8, len: usize) -> Bytes {
        vec![byte; len].into()
    }

    #[test]
    fn a_reader_gets_the_memory_itself_from_the_middle_of_a_piece_to_its_end() {
        let mut keeper = Keeper::within(all(100), 0);
        let (first, second) = (Bytes::from_static(b"01234"), Bytes::from_static(b"56789"));
        keeper.keep_written(&[first]);
        keeper.keep_written(&[Bytes::new()]);
        keeper.keep_written(std::slice::from_ref(&second));
        let recent = keeper.recent();
        for (offset, len, expected) in [
            (0, 9, Some("01234")),
            (3, 9, Some("34")),
            (3, 1, Some("3")),
            (5, 9, Some("56789")),
            (9, usize::MAX, Some("9")),
            (9, 0, None),
            (10, 9, None),
            (u64::MAX, 9, None),
        ] {
            assert_eq!(kept(&recent, offset, len), expected.map(Bytes::from), "{offset} {len}");
        }
        let Found::Memory(seen) = recent.find(5, 5) else { panic!("it is kept") };
        assert_eq!(seen.as_ptr(), second.as_ptr(), "not a copy");
    }

    #[test]
    fn the_oldest_go_first_and_no_bound_is_ever_passed() {
        let all = all(RECENT_BYTES * 2);
        let mut keeper = Keeper::within(all, 0);
        let recent = keeper.recent();
        let each = RECENT_BYTES / 4;
        for number in 0..9 {
            keeper.keep_written(&[piece(number, each)]);
            let start = u64::from(number) * each as u64;
            assert_eq!(kept(&recent, start, 1), Some(piece(number, 1)), "the newest is kept");
            assert!(all.room.taken() <= RECENT_BYTES);
        }
        assert_eq!(kept(&recent, 0, 1), None, "who falls behind finds nothing");
        assert_eq!(kept(&recent, 5 * each as u64, 1), Some(piece(5, 1)));
        for _ in 0..RECENT_PIECES * 2 {
            keeper.keep_written(&[piece(7, 1)]);
        }
        assert_eq!(recent.lock().queue.len(), RECENT_PIECES);
        keeper.keep_written(&[piece(1, RECENT_BYTES + 1)]);
        assert_eq!(all.room.taken(), 0, "what does not fit is not kept, and makes all before it old");
        keeper.keep_written(&[piece(2, 1)]);
        assert_eq!(kept(&recent, keeper.end - 1, 1), Some(piece(2, 1)), "offsets go on behind it");
    }

    #[test]
    fn what_is_not_written_stays_whatever_else_goes() {
        let all = all(RECENT_BYTES * 2);
        let mut keeper = Keeper::within(all, 0);
        let recent = keeper.recent();
        let each = RECENT_BYTES / 2;
        keeper.keep_written(&[piece(0, each), piece(1, each)]);
        let coming = [piece(2, each), piece(3, each), piece(4, each)];
        assert_eq!(keeper.keep_ahead(&coming), 2, "no room for the third");
        let at = |number: usize| kept(&recent, (number * each) as u64, 1);
        assert_eq!([at(1), at(2), at(3), at(4)], [None, Some(piece(2, 1)), Some(piece(3, 1)), None]);
        assert_eq!(all.room.taken(), RECENT_BYTES);
        let in_file = |offset: usize, len| recent.find(offset as u64, len);
        assert_eq!(
            in_file(each, usize::MAX),
            Found::File(each),
            "what is not written is not read from the file"
        );
        assert_eq!(in_file(2 * each - 1, 9), Found::File(1));
        keeper.keep_written(&coming[2..]);
        assert_eq!([at(2), at(3), at(4)], [None, Some(piece(3, 1)), Some(piece(4, 1))], "now the first goes");
        assert_eq!(in_file(each, usize::MAX), Found::File(usize::MAX));
        assert_eq!(keeper.keep_ahead(&[piece(5, RECENT_BYTES + 1)]), 0);
        assert_eq!(keeper.end, 5 * each as u64, "it is still to come");
        let _others: Vec<_> = (0..MOST_KEEPERS).map(|_| Keeper::within(all, 0)).collect();
        assert_eq!(keeper.keep_ahead(&[piece(5, 1)]), 0, "too many");
    }

    #[test]
    fn blobs_share_the_room_of_all_and_give_it_back_when_they_end() {
        let all = all(10);
        let (mut greedy, mut late) = (Keeper::within(all, 0), Keeper::within(all, 0));
        let (first, second) = (greedy.recent(), late.recent());
        greedy.keep_written(&[piece(1, 8)]);
        late.keep_written(&[piece(2, 4)]);
        assert_eq!(kept(&second, 0, 1), None, "there is no room, and another's is not taken");
        assert!(kept(&first, 0, 1).is_some());
        drop(greedy);
        assert_eq!(kept(&first, 0, 1), None, "nothing is kept when the writing has ended");
        assert_eq!(all.room.taken(), 0);
        late.keep_written(&[piece(3, 4)]);
        assert_eq!(kept(&second, 4, 9), Some(piece(3, 4)));
        assert_eq!(kept(&second, 0, 9), None, "a gap is not bridged");
        drop((late, second));
        assert_eq!(all.room.taken(), 0);
    }
}
