//! What stays of a blob that cannot be stored: its newest bytes, in memory, for those who follow it.
//!
//! A staging opens its window when the store fails it. What was written before can still be read from the
//! file, which is open; what comes afterwards is kept here. Unlike in `recent` nothing goes before
//! every follower has read it: the writer waits in [`Window::room`], but for nobody for ever. A
//! follower that stands still is left behind, and what nobody follows is given up.
//!
//! Memory: [`WINDOW_BYTES`] and a piece at either end, or what [`Window::hold`] says, for each fetch of what
//! cannot be stored, as long as it is under way or somebody reads what is left of it: so much for each connection
//! at most. Small pieces are put together, so that they do not take more than they hold.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// The most bytes that are kept for followers who have not read them; more than the engine holds back, and
/// than upstream sends at once.
const WINDOW_BYTES: u64 = 1 << 20;
/// Pieces that are not longer together become one.
const MERGED_BYTES: usize = 4 << 10;
/// How long a follower may stand still while others wait for it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a full window waits for somebody to follow.
const UNWANTED: Duration = Duration::from_secs(2);

/// What the writer and the followers of one blob share. Closed as long as the blob can be stored.
#[derive(Debug)]
pub(super) struct Window {
    /// Where it begins, once it is open: what lies before is in the file.
    from: OnceLock<u64>,
    state: Mutex<State>,
    /// Told whenever a follower moves, comes or goes. Only the writer waits.
    moved: Notify,
}

#[derive(Debug)]
struct State {
    most: u64,
    /// With the offsets where they begin, ascending and without gaps.
    pieces: VecDeque<(u64, Bytes)>,
    /// The offsets of the first byte that is kept and of the one that comes next.
    start: u64,
    end: u64,
    followers: Vec<Place>,
    next_id: u64,
    /// When the last follower left.
    deserted: Instant,
}

/// Where a follower is.
#[derive(Debug)]
struct Place {
    id: u64,
    /// It has read, or does not want, what lies before.
    at: u64,
    since: Instant,
}

/// Whether the writer may go on.
enum Verdict {
    Room,
    /// Not before somebody moves, or until then.
    Wait(Instant),
    /// Nobody follows.
    Unwanted,
}

/// Where bytes can be had.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Here they are: at least one, but perhaps not all.
    Memory(Bytes),
    /// So many of them in the file.
    File(usize),
}

impl Window {
    /// A closed one.
    pub(super) fn new() -> Self {
        let state = State {
            most: WINDOW_BYTES,
            pieces: VecDeque::new(),
            start: 0,
            end: 0,
            followers: Vec::new(),
            next_id: 0,
            deserted: Instant::now(),
        };
        Self { from: OnceLock::new(), state: Mutex::new(state), moved: Notify::new() }
    }

    /// Sees that so many bytes are kept, whether somebody follows or not.
    pub(super) fn hold(&self, bytes: u64) {
        self.lock().most = bytes;
    }

    /// Opens it for what comes from `from` on. Only once.
    pub(super) fn open(&self, from: u64) {
        let mut state = self.lock();
        (state.start, state.end) = (from, from);
        // Set under the lock: who finds it closed and registers is seen by whoever looks after this.
        let _ = self.from.set(from);
    }

    /// Keeps what comes next.
    pub(super) fn keep(&self, pieces: &[Bytes]) {
        let mut state = self.lock();
        for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
            state.keep(piece);
        }
    }

    /// Waits until another piece may be kept, where `end` bytes have come so far; false if nobody
    /// wants it.
    pub(super) async fn room(&self, end: u64) -> bool {
        let began = Instant::now();
        loop {
            let moved = self.moved.notified();
            let verdict = self.lock().judge(end, began, Instant::now());
            match verdict {
                Verdict::Room => return true,
                Verdict::Unwanted => return false,
                // Either way it is looked at again.
                Verdict::Wait(until) => drop(timeout_at(until, moved).await),
            }
        }
    }

    /// Whether what comes is kept here.
    pub(super) fn is_open(&self) -> bool {
        self.from.get().is_some()
    }

    /// Where it begins, if it is open, and all that is in it.
    pub(super) fn all(&self) -> Option<(u64, Vec<Bytes>)> {
        let from = *self.from.get()?;
        Some((from, self.lock().pieces.iter().map(|(_, piece)| piece.clone()).collect()))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn keep(&mut self, piece: &Bytes) {
        match self.pieces.back_mut() {
            Some((_, last)) if last.len() + piece.len() <= MERGED_BYTES => {
                let mut merged = BytesMut::with_capacity(last.len() + piece.len());
                merged.extend_from_slice(last);
                merged.extend_from_slice(piece);
                *last = merged.freeze();
            }
            _ => self.pieces.push_back((self.end, piece.clone())),
        }
        self.end += piece.len() as u64;
    }

    /// Decides whether more may come. What all have read goes only when its room is needed, so that
    /// those who come a moment later still find the beginning.
    fn judge(&mut self, end: u64, began: Instant, now: Instant) -> Verdict {
        if end <= self.start.saturating_add(self.most) {
            return Verdict::Room;
        }
        let (start, most) = (self.start, self.most);
        let holds_up = |place: &Place| place.at.max(start).saturating_add(most) < end;
        let until = |place: &Place| place.since.max(began) + PATIENCE;
        self.followers.retain(|place| !holds_up(place) || until(place) > now);
        let Some(slowest) = self.followers.iter().map(|place| place.at).min() else {
            let until = self.deserted.max(began) + UNWANTED;
            return if now < until { Verdict::Wait(until) } else { Verdict::Unwanted };
        };
        self.release(slowest);
        let waited_for = self.followers.iter().filter(|place| holds_up(place)).map(until).min();
        waited_for.map_or(Verdict::Room, Verdict::Wait)
    }

    /// Drops the pieces that lie before `to`.
    fn release(&mut self, to: u64) {
        while let Some((start, piece)) = self.pieces.front()
            && start + piece.len() as u64 <= to
        {
            self.pieces.pop_front();
        }
        self.start = self.pieces.front().map_or(self.end, |(start, _)| *start);
    }

    fn find(&self, from: u64, id: u64, offset: u64, len: usize) -> io::Result<Found> {
        if offset < from {
            let before = usize::try_from(from - offset).unwrap_or(usize::MAX);
            return Ok(Found::File(len.min(before)));
        }
        let behind = || io::Error::other("too slow for what cannot be stored");
        if self.followers.iter().all(|place| place.id != id) {
            return Err(behind());
        }
        let next = self.pieces.partition_point(|(start, _)| *start <= offset);
        let piece = next.checked_sub(1).and_then(|at| self.pieces.get(at));
        let (start, piece) = piece.ok_or_else(behind)?;
        let skip = usize::try_from(offset - start).unwrap_or(usize::MAX);
        let part = skip..piece.len().min(skip.saturating_add(len));
        if part.is_empty() {
            Err(io::ErrorKind::UnexpectedEof.into())
        } else {
            Ok(Found::Memory(piece.slice(part)))
        }
    }
}

/// A follower's place in a blob in the making. As long as it is there, what lies behind it is kept; dropping it
/// lets the others go on.
#[derive(Debug)]
pub struct Mark {
    window: Arc<Window>,
    id: u64,
}

impl Mark {
    /// A place at the beginning; `None` if that is gone.
    pub(super) fn new(window: &Arc<Window>) -> Option<Self> {
        let mut state = window.lock();
        if window.from.get().is_some_and(|from| state.start > *from) {
            return None;
        }
        let id = state.next_id;
        state.next_id += 1;
        state.followers.push(Place { id, at: 0, since: Instant::now() });
        drop(state);
        window.moved.notify_one();
        Some(Self { window: Arc::clone(window), id })
    }

    /// Says that nothing before `offset` is wanted. To be called before anything is read.
    pub fn skip_to(&self, offset: u64) {
        let mut state = self.window.lock();
        if let Some(place) = state.followers.iter_mut().find(|place| place.id == self.id) {
            (place.at, place.since) = (offset, Instant::now());
        }
        drop(state);
        self.window.moved.notify_one();
    }

    /// Says that everything before `offset` has been read. Costs next to nothing while the blob can be stored.
    pub fn reached(&self, offset: u64) {
        if self.window.is_open() {
            self.skip_to(offset);
        }
    }

    /// Where the bytes at `offset` can be had, up to `len` of them. The caller stays within
    /// [`super::Staged::progress`].
    ///
    /// # Errors
    /// The follower was left behind.
    pub fn find(&self, offset: u64, len: usize) -> io::Result<Found> {
        match self.window.from.get() {
            None => Ok(Found::File(len)),
            Some(from) => self.window.lock().find(*from, self.id, offset, len),
        }
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        let mut state = self.window.lock();
        state.followers.retain(|place| place.id != self.id);
        if state.followers.is_empty() {
            state.deserted = Instant::now();
        }
        drop(state);
        self.window.moved.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const MOST: u64 = WINDOW_BYTES;

    fn piece(byte: u8, len: u64) -> Bytes {
        vec![byte; usize::try_from(len).expect("fits")].into()
    }

    /// One that is open from `from` on, and marks at the beginning.
    fn opened<const N: usize>(from: u64) -> (Arc<Window>, [Mark; N]) {
        let window = Arc::new(Window::new());
        let marks = std::array::from_fn(|_| Mark::new(&window).expect("the beginning is there"));
        window.open(from);
        (window, marks)
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_that_a_follower_has_not_read_and_everything_that_all_have() {
        let (window, [quick, slow]) = opened(5);
        window.keep(&[piece(1, MOST), piece(2, 10)]);
        assert!(window.room(5 + MOST).now_or_never().expect("just full"));
        quick.reached(5 + MOST);
        let end = 5 + MOST + 10;
        assert_eq!(window.room(end).now_or_never(), None, "the slow one has read nothing");
        assert_eq!(slow.find(3, 10).expect("there"), Found::File(2), "what lies before is in the file");
        assert_eq!(slow.find(5, 3).expect("there"), Found::Memory(piece(1, 3)));
        assert_eq!(slow.find(5 + MOST + 9, 100).expect("there"), Found::Memory(piece(2, 1)));
        assert!(slow.find(end, 1).is_err(), "no more has come");
        slow.reached(5 + MOST);
        assert!(window.room(end).now_or_never().expect("room"));
        assert!(slow.find(5, 3).is_err(), "gone");
        assert_eq!(quick.find(5 + MOST, 100).expect("there"), Found::Memory(piece(2, 10)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_writer_goes_on_as_soon_as_the_slowest_does() {
        let (window, [follower]) = opened(0);
        window.keep(&[piece(1, MOST), piece(2, 1)]);
        let began = Instant::now();
        let reading = async {
            tokio::time::sleep(PATIENCE / 2).await;
            follower.reached(1);
        };
        let (room, ()) = tokio::join!(window.room(MOST + 1), reading);
        assert!(room);
        assert_eq!(began.elapsed(), PATIENCE / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_follower_that_stands_still_is_left_behind_and_the_others_go_on() {
        let (window, [still, moving]) = opened(0);
        window.keep(&[piece(1, MOST), piece(2, MOST)]);
        moving.reached(2 * MOST);
        let began = Instant::now();
        assert!(window.room(2 * MOST).await);
        assert_eq!(began.elapsed(), PATIENCE);
        assert!(still.find(0, 1).is_err(), "it is told");
        assert!(still.find(MOST, 1).is_err(), "and never given what comes later");
        window.keep(&[piece(3, 1)]);
        assert_eq!(moving.find(2 * MOST, 9).expect("there"), Found::Memory(piece(3, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_moves_now_and_then_is_waited_for() {
        let (window, [follower]) = opened(0);
        window.keep(&[piece(1, 2 * MOST)]);
        let reading = async {
            for step in 1..5 {
                tokio::time::sleep(PATIENCE * 9 / 10).await;
                follower.reached(step * MOST / 4);
            }
        };
        let (room, ()) = tokio::join!(window.room(2 * MOST), reading);
        assert!(room);
        assert!(follower.find(MOST, 1).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_nobody_follows_is_given_up_when_it_is_full() {
        let (window, []) = opened(0);
        window.keep(&[piece(1, MOST), piece(2, 1)]);
        assert!(window.room(MOST).now_or_never().expect("room"));
        let began = Instant::now();
        assert!(!window.room(MOST + 1).await);
        assert_eq!(began.elapsed(), UNWANTED);
        let late = Mark::new(&window).expect("nothing has gone yet");
        assert_eq!(window.room(MOST + 1).now_or_never(), None, "now it is wanted");
        drop(late);
        let began = Instant::now();
        assert!(!window.room(MOST + 1).await);
        assert_eq!(began.elapsed(), UNWANTED, "counted from when the last one left");
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_when_the_beginning_has_gone_is_told() {
        let (window, [follower]) = opened(0);
        window.keep(&[piece(1, MOST), piece(2, MOST)]);
        follower.reached(2 * MOST);
        assert!(Mark::new(&window).is_some(), "what has been read stays while there is room");
        assert!(window.room(2 * MOST).now_or_never().expect("room"));
        assert!(Mark::new(&window).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_wants_a_later_part_holds_up_nobody_before() {
        let (window, [later]) = opened(0);
        later.skip_to(10 * MOST);
        window.keep(&[piece(1, 5 * MOST)]);
        assert!(window.room(5 * MOST).now_or_never().expect("room"));
    }

    #[test]
    fn a_document_is_held_whole_whoever_follows() {
        let (window, []) = opened(0);
        window.hold(3 * MOST);
        window.keep(&[piece(1, 3 * MOST)]);
        assert!(window.room(3 * MOST).now_or_never().expect("room"));
        assert_eq!(window.all(), Some((0, vec![piece(1, 3 * MOST)])));
        assert_eq!(Window::new().all(), None, "it is closed");
    }

    #[test]
    fn tiny_pieces_take_little_more_than_their_bytes() {
        let (window, [follower]) = opened(7);
        for byte in 0..u8::MAX {
            window.keep(&[piece(byte, 100), Bytes::new()]);
        }
        let pieces = window.lock().pieces.len();
        assert!(pieces <= 2 * 25_500 / MERGED_BYTES, "{pieces}");
        for byte in 0..u8::MAX {
            let at = 7 + u64::from(byte) * 100;
            assert_eq!(follower.find(at, 1).expect("there"), Found::Memory(piece(byte, 1)));
        }
    }
}
