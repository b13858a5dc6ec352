//! How long a connection may keep us waiting.
//!
//! hyper's own header timer also runs on idle connections, does not run while the version is being
//! told from the first bytes, and costs an allocation a request; it knows nothing of clients that
//! stop reading. So the parts that see things happen (socket, service, body) leave marks in a
//! [`Watch`], and the connection's own task reads them after each of its polls and lets a [`Vigil`]
//! judge. The marks are a few relaxed atomics without order between them: a verdict may come one
//! poll late, never wrong.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

/// The least a client must read, in bytes a second over [`Patience::stall`], while bytes are waiting
/// for it (`docs/operations.md`, "Limits").
const MIN_READ_RATE: u64 = 1024;

/// How long a connection is waited for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// From the first byte of a request to the end of its head; also from accept to the first request.
    pub(super) head: Duration,
    /// Between requests.
    pub(super) idle: Duration,
    /// For a client that reads less than [`MIN_READ_RATE`].
    pub(super) stall: Duration,
}

/// What the parts of a connection tell the task that drives it.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Requests whose answer has not ended.
    open: AtomicU32,
    /// Those of them that wait for us: the handler runs, or the body waits for its source.
    ours: AtomicU32,
    /// Answers that have ended; wraps.
    ended: AtomicU32,
    /// Bytes have come that belong to no request yet.
    partial: AtomicBool,
    /// The socket took no more bytes when last written to.
    blocked: AtomicBool,
    /// Bytes the socket took.
    written: AtomicU64,
    /// Requests share the connection (HTTP/2).
    shared: AtomicBool,
    /// The client is still sending what nobody will read.
    unread: AtomicBool,
    /// One more than the processor that packets arrive at, if nobody has asked for it since it was found out.
    arrival: AtomicUsize,
    /// How often the connection has moved to another worker; wraps.
    moves: AtomicU32,
}

impl Watch {
    /// Bytes were read.
    pub(super) fn received(&self) {
        self.partial.store(true, Relaxed);
    }

    /// The socket took bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        self.written.fetch_add(bytes as u64, Relaxed);
        self.blocked.store(false, Relaxed);
    }

    /// The socket would not take bytes.
    pub(super) fn blocked(&self) {
        self.blocked.store(true, Relaxed);
    }

    /// A request has been read and waits for us.
    pub(super) fn began(&self, shared: bool) {
        self.open.fetch_add(1, Relaxed);
        self.ours.fetch_add(1, Relaxed);
        self.partial.store(false, Relaxed);
        self.shared.store(shared, Relaxed);
    }

    /// An answer now waits for us, or no longer.
    pub(super) fn waits_for_us(&self, does: bool) {
        if does {
            self.ours.fetch_add(1, Relaxed);
        } else {
            self.ours.fetch_sub(1, Relaxed);
        }
    }

    /// An answer has ended, well or not. If it waited for us, that must have been taken back before.
    pub(super) fn ended(&self) {
        self.ended.fetch_add(1, Relaxed);
        self.open.fetch_sub(1, Relaxed);
    }

    /// The body of a request has been read to its end: what came of it is not the beginning of the next head.
    pub(super) fn read_whole(&self) {
        self.partial.store(false, Relaxed);
    }

    /// The body of a request was answered before its end.
    pub(super) fn left_unread(&self) {
        self.unread.store(true, Relaxed);
    }

    /// Whether the client may still be sending what nobody will read.
    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// Packets keep arriving at this processor.
    pub(super) fn arrives_at(&self, processor: usize) {
        self.arrival.store(processor + 1, Relaxed);
    }

    /// The processor that packets arrive at, once for each time that it was found out, if the connection can move now:
    /// between two requests of a client that has taken all of its answers.
    pub(super) fn should_move(&self) -> Option<usize> {
        let processor = self.arrival.load(Relaxed).checked_sub(1)?;
        let seen = self.seen();
        let is_answered = seen.open == 0 && seen.ended > 0 && !seen.blocked && !seen.unread;
        if !is_answered || seen.partial || seen.shared {
            return None;
        }
        self.arrival.store(0, Relaxed);
        Some(processor)
    }

    /// The connection lives on another worker from now on.
    pub(super) fn moved(&self) {
        self.moves.fetch_add(1, Relaxed);
    }

    /// How often it has moved.
    pub(super) fn moves(&self) -> u32 {
        self.moves.load(Relaxed)
    }

    /// What is known now.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            open: self.open.load(Relaxed),
            ours: self.ours.load(Relaxed),
            ended: self.ended.load(Relaxed),
            partial: self.partial.load(Relaxed),
            blocked: self.blocked.load(Relaxed),
            written: self.written.load(Relaxed),
            shared: self.shared.load(Relaxed),
            unread: self.is_unread(),
        }
    }
}

/// The marks of a [`Watch`] at one moment.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a mark, and any may stand beside any other")]
pub(super) struct Seen {
    open: u32,
    ours: u32,
    ended: u32,
    partial: bool,
    blocked: bool,
    written: u64,
    shared: bool,
    unread: bool,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A request head is awaited or half there.
    Head,
    /// Nothing is going on.
    Idle,
    /// A request is being answered.
    Busy,
}

/// What to do about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing before this moment, unless something happens.
    LookAt(Instant),
    /// Let it go: nobody is using it.
    Close,
    /// Cut it, for this reason.
    Cut(&'static str),
}

/// Judges a connection by what is seen of it over time. Pure: time is handed in.
#[derive(Debug)]
pub(super) struct Vigil {
    patience: Patience,
    phase: Phase,
    /// When the phase began, or an idle connection last showed life.
    since: Instant,
    last: Seen,
    /// Since when bytes have been waiting for the client, and how many it had taken then.
    waiting: Option<(Instant, u64)>,
}

impl Vigil {
    /// The vigil over a connection accepted at `now`.
    pub(super) fn new(patience: Patience, now: Instant) -> Self {
        Self { patience, phase: Phase::Head, since: now, last: Seen::default(), waiting: None }
    }

    /// Takes in what is seen at `now` and judges.
    pub(super) fn look(&mut self, seen: Seen, now: Instant) -> Verdict {
        let phase = if seen.open > 0 {
            Phase::Busy
        } else if seen.ended == 0 || (seen.partial && !seen.shared && !seen.unread) {
            // A second client preface or ping on HTTP/2 is no request head: that phase is for the
            // first request only. Nor is the rest of a body, which the socket lets come for a while.
            Phase::Head
        } else {
            Phase::Idle
        };
        // An answer may still be on its way out after its body has been handed over whole.
        let alive = phase == Phase::Idle && seen.written != self.last.written;
        if phase != self.phase || seen.ended != self.last.ended || alive {
            self.since = now;
        }
        self.phase = phase;
        self.last = seen;

        let stalled = self.stalled_at(seen, now);
        let limit = match (phase, stalled) {
            (_, Err(verdict)) => return verdict,
            (_, Ok(Some(moment))) => return Verdict::LookAt(moment),
            (Phase::Busy, Ok(None)) => return Verdict::LookAt(now + self.patience.stall),
            (Phase::Head, Ok(None)) => self.patience.head,
            (Phase::Idle, Ok(None)) => self.patience.idle,
        };
        let deadline = self.since + limit;
        match phase {
            _ if now < deadline => Verdict::LookAt(deadline),
            Phase::Head => Verdict::Cut("request head timed out"),
            Phase::Idle | Phase::Busy => Verdict::Close,
        }
    }

    /// When a client that bytes are waiting for will have been too slow; `None` if none is.
    fn stalled_at(&mut self, seen: Seen, now: Instant) -> Result<Option<Instant>, Verdict> {
        // On HTTP/2 a client holds an answer back by its flow control window, not by the socket.
        let held_back = seen.shared && seen.open > 0 && seen.ours == 0;
        if !(seen.blocked || held_back) {
            self.waiting = None;
            return Ok(None);
        }
        let (began, written) = *self.waiting.get_or_insert((now, seen.written));
        if now < began + self.patience.stall {
            return Ok(Some(began + self.patience.stall));
        }
        let least = (MIN_READ_RATE * self.patience.stall.as_secs()).max(1);
        if seen.written - written < least {
            return Err(Verdict::Cut("client reads too slowly"));
        }
        self.waiting = Some((now, seen.written));
        Ok(Some(now + self.patience.stall))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(75),
        stall: Duration::from_secs(60),
    };

    const LATE: Verdict = Verdict::Cut("request head timed out");
    const SLOW: Verdict = Verdict::Cut("client reads too slowly");

    /// A connection whose marks are made by hand, at seconds since accept.
    struct Scene {
        watch: Watch,
        vigil: Vigil,
        start: Instant,
    }

    impl Scene {
        fn new() -> Self {
            let start = Instant::now();
            Self { watch: Watch::default(), vigil: Vigil::new(PATIENCE, start), start }
        }

        fn at(&mut self, second: u64) -> Verdict {
            self.vigil.look(self.watch.seen(), self.second(second))
        }

        fn second(&self, second: u64) -> Instant {
            self.start + Duration::from_secs(second)
        }

        fn look_at(&self, second: u64) -> Verdict {
            Verdict::LookAt(self.second(second))
        }

        fn request(&self, shared: bool) {
            self.watch.received();
            self.watch.began(shared);
        }

        fn answer(&self, bytes: usize) {
            self.watch.waits_for_us(false);
            self.watch.wrote(bytes);
            self.watch.ended();
        }
    }

    #[test]
    fn a_connection_that_sends_no_whole_head_is_cut_however_it_trickles() {
        let mut scene = Scene::new();
        assert_eq!(scene.at(0), scene.look_at(10));
        scene.watch.received();
        assert_eq!(scene.at(9), scene.look_at(10));
        assert_eq!(scene.at(10), LATE);
    }

    #[test]
    fn between_requests_a_connection_may_be_idle_for_longer() {
        let mut scene = Scene::new();
        scene.request(false);
        assert!(matches!(scene.at(5), Verdict::LookAt(_)));
        scene.answer(100);
        assert_eq!(scene.at(6), scene.look_at(81));
        assert_eq!(scene.at(80), scene.look_at(81));
        assert_eq!(scene.at(81), Verdict::Close);
    }

    #[test]
    fn a_request_answered_between_two_looks_begins_the_idle_time_anew() {
        let mut scene = Scene::new();
        scene.request(false);
        scene.answer(100);
        scene.at(1);
        scene.request(false);
        scene.answer(0);
        assert_eq!(scene.at(70), scene.look_at(145));
    }

    #[test]
    fn a_second_head_that_stays_half_is_cut_after_its_own_time() {
        let mut scene = Scene::new();
        scene.request(false);
        scene.answer(100);
        scene.at(1);
        scene.watch.received();
        assert_eq!(scene.at(50), scene.look_at(60));
        assert_eq!(scene.at(60), LATE);
    }

    #[test]
    fn what_is_read_of_a_body_is_no_head() {
        // Left unread: the socket has its own patience for that.
        let mut scene = Scene::new();
        scene.request(false);
        scene.watch.received();
        scene.watch.left_unread();
        scene.answer(100);
        assert_eq!(scene.at(0), scene.look_at(75));
        assert!(matches!(scene.at(30), Verdict::LookAt(_)));

        // Read to its end.
        let mut scene = Scene::new();
        scene.request(false);
        scene.watch.received();
        scene.watch.read_whole();
        scene.answer(100);
        assert_eq!(scene.at(0), scene.look_at(75));
        scene.watch.received();
        assert_eq!(scene.at(1), scene.look_at(11), "the next head");
    }

    #[test]
    fn a_request_that_waits_for_us_is_never_cut() {
        let mut scene = Scene::new();
        scene.request(false);
        scene.at(0);
        assert!(matches!(scene.at(100_000), Verdict::LookAt(_)));
    }

    #[test]
    fn a_client_that_reads_nothing_is_cut() {
        let mut scene = Scene::new();
        scene.request(false);
        scene.watch.wrote(1000);
        scene.watch.blocked();
        assert_eq!(scene.at(5), scene.look_at(65));
        assert_eq!(scene.at(65), SLOW);
    }

    #[test]
    fn a_client_that_reads_slowly_but_steadily_is_kept_and_a_slower_one_cut() {
        for (bytes, verdict) in [(60 * 1024, None), (60 * 1024 - 1, Some(SLOW))] {
            let mut scene = Scene::new();
            scene.request(false);
            scene.watch.blocked();
            scene.at(0);
            scene.watch.wrote(bytes);
            scene.watch.blocked();
            let expected = verdict.unwrap_or(scene.look_at(120));
            assert_eq!(scene.at(60), expected, "{bytes}");
        }
    }

    #[test]
    fn a_body_handed_over_whole_does_not_count_as_idle_while_it_is_read() {
        let mut scene = Scene::new();
        scene.request(false);
        scene.answer(1000);
        scene.watch.blocked();
        assert_eq!(scene.at(0), scene.look_at(60));
        scene.watch.wrote(1 << 20);
        assert_eq!(scene.at(74), scene.look_at(149));
    }

    #[test]
    fn on_a_shared_connection_a_held_back_answer_is_cut_and_a_ping_is_no_head() {
        let mut scene = Scene::new();
        scene.request(true);
        scene.watch.waits_for_us(false);
        assert_eq!(scene.at(0), scene.look_at(60));
        assert_eq!(scene.at(60), SLOW);

        let mut scene = Scene::new();
        scene.request(true);
        scene.answer(10);
        scene.at(0);
        scene.watch.received();
        assert_eq!(scene.at(10), scene.look_at(75));
    }

    #[test]
    fn a_shared_connection_with_an_answer_that_waits_for_us_is_not_slow() {
        let mut scene = Scene::new();
        scene.request(true);
        scene.request(true);
        scene.watch.waits_for_us(false);
        scene.at(0);
        assert!(matches!(scene.at(600), Verdict::LookAt(_)));
    }
}
