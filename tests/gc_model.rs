//! The gc protocol as a small model: every interleaving of writers and gc runs over one blob, each
//! step one system call, searched to the end. A process that never moves again is one that crashed,
//! and every state is checked, so crashes at every step are in it.
//!
//! What must hold: a ref that was acknowledged and is there has its blob, live or in trash. The
//! protocol of `docs/layout.md` keeps that in every state; each simpler form loses a blob, which also
//! shows that the model can see it. There is no clock and no lock in here.

use std::collections::{HashMap, VecDeque};

/// Writers, which are also the places of refs: writer `i` writes ref `i`.
const WRITERS: usize = 2;
const GCS: usize = 2;
/// The most runs of gc that each gc process does, one after the other.
const RUNS: u8 = 2;
/// The trash of a run before all others.
const EARLIER: u8 = 1 << 7;

/// What gc and writers do, and what they leave out.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is a step that may be left out")]
struct Protocol {
    /// How blobs go.
    sweep: Sweep,
    /// Whether trash is listed before the mark.
    list_first: bool,
    /// Whether all runs share one directory of the trash.
    flat_trash: bool,
    /// Whether a writer looks at the blob again after publishing its ref.
    verify: bool,
    /// Whether a writer marks a blob as young when it finds it.
    touch: bool,
    /// How many runs each gc process does, at most [`RUNS`].
    runs: u8,
    /// What becomes of ref 0, which each run leaves out of its mark if it is there.
    expire: Option<Expire>,
    /// Whose refs name the blob only as a child of what they point to: it is fetched when the ref is there,
    /// and nothing is written for it.
    links: [bool; WRITERS],
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Sweep {
    /// Deleted, whatever their age.
    Delete,
    /// Looked at, and deleted if not young.
    DeleteOld,
    /// Condemned, and reaped by the next run without looking at refs again.
    CondemnThenAge,
    /// Condemned, and reaped by the next run if no ref needs them.
    CondemnThenMark,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Expire {
    /// It is deleted, or read again, before anything is reaped.
    DeletedOrMarked,
    /// It stays.
    Kept,
}

const RIGHT: Protocol = Protocol {
    sweep: Sweep::CondemnThenMark,
    list_first: true,
    flat_trash: false,
    verify: true,
    touch: false,
    runs: RUNS,
    expire: None,
    links: [false; WRITERS],
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Writer {
    Look,
    LinkBack,
    Publish,
    WriteRef,
    Verify,
    LinkBackAgain,
    PublishAgain,
    /// Acknowledged. A mover then deletes ref 0, which it has copied.
    Acknowledged,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Gc {
    at: GcStep,
    run: u8,
    /// What was in trash when it was listed: a bit a run.
    listed: u8,
    needed: bool,
    expiring: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum GcStep {
    List,
    Mark(usize),
    Expire,
    Reap,
    /// The listed entry was linked back, its name in trash is to go.
    Unlink(u8),
    Stat,
    Sweep,
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    live: bool,
    young: bool,
    trash: u8,
    refs: [bool; WRITERS],
    acknowledged: [bool; WRITERS],
    writers: [Option<Writer>; WRITERS],
    gcs: [Option<Gc>; GCS],
    /// Writer 1 moves ref 0 to its own place.
    moves: bool,
}

/// Who did what, to show the way to a state.
#[derive(Debug, Clone, Copy)]
#[expect(dead_code, reason = "shown by `Debug` when a test fails")]
enum Step {
    Writer(usize, Writer),
    Gc(usize, u8, GcStep),
}

impl State {
    fn dangles(&self) -> bool {
        let acknowledged = (0..WRITERS).any(|i| self.refs[i] && self.acknowledged[i]);
        acknowledged && !self.live && self.trash == 0
    }

    /// Every state that one step of one process leads to.
    fn next(&self, protocol: Protocol, mut reach: impl FnMut(Step, Self)) {
        for i in 0..WRITERS {
            if let Some(writer) = self.writers[i].filter(|writer| *writer != Writer::Done) {
                reach(Step::Writer(i, writer), self.write(i, writer, protocol));
            }
        }
        for i in 0..GCS {
            if let Some(gc) = self.gcs[i].filter(|gc| gc.at != GcStep::Done) {
                let (next, other) = self.collect(i, gc, protocol);
                reach(Step::Gc(i, gc.run, gc.at), next);
                if let Some(other) = other {
                    reach(Step::Gc(i, gc.run, gc.at), other);
                }
            }
        }
    }

    fn write(mut self, i: usize, writer: Writer, protocol: Protocol) -> Self {
        let links = protocol.links[i];
        let found = if protocol.verify { Writer::Verify } else { Writer::Acknowledged };
        let there = if links { Writer::Acknowledged } else { Writer::WriteRef };
        let then = match writer {
            Writer::Look if self.live => {
                self.young |= protocol.touch;
                there
            }
            Writer::Look => Writer::LinkBack,
            Writer::LinkBack if self.trash != 0 => {
                self.live = true;
                there
            }
            Writer::LinkBack => Writer::Publish,
            Writer::Publish => {
                (self.live, self.young) = (true, true);
                there
            }
            Writer::WriteRef => {
                self.refs[i] = true;
                if links { Writer::Look } else { found }
            }
            Writer::Verify if self.live => Writer::Acknowledged,
            Writer::Verify => Writer::LinkBackAgain,
            Writer::LinkBackAgain if self.trash != 0 => {
                self.live = true;
                Writer::Verify
            }
            Writer::LinkBackAgain => Writer::PublishAgain,
            Writer::PublishAgain => {
                (self.live, self.young) = (true, true);
                Writer::Verify
            }
            Writer::Acknowledged if self.moves && i == 1 => {
                (self.refs[0], self.acknowledged[0]) = (false, false);
                Writer::Done
            }
            Writer::Acknowledged | Writer::Done => Writer::Done,
        };
        self.acknowledged[i] |= then == Writer::Acknowledged;
        self.writers[i] = Some(then);
        self
    }

    fn collect(mut self, i: usize, mut gc: Gc, protocol: Protocol) -> (Self, Option<Self>) {
        let after_marks = if protocol.list_first { GcStep::Expire } else { GcStep::List };
        let at = gc.at;
        gc.at = match at {
            GcStep::List => {
                gc.listed = self.trash;
                if protocol.list_first { GcStep::Mark(0) } else { GcStep::Expire }
            }
            GcStep::Mark(place) => {
                let there = self.refs[place];
                gc.expiring |= there && place == 0 && protocol.expire.is_some();
                gc.needed |= there && !(place == 0 && gc.expiring);
                if place + 1 < WRITERS { GcStep::Mark(place + 1) } else { after_marks }
            }
            GcStep::Expire => {
                if gc.expiring && protocol.expire == Some(Expire::DeletedOrMarked) {
                    // It was fetched anew: what it needs is marked.
                    let spared = Gc { at: GcStep::Reap, needed: gc.needed | self.refs[0], ..gc };
                    let mut other = self;
                    other.gcs[i] = Some(spared);
                    (self.refs[0], self.acknowledged[0]) = (false, false);
                    self.gcs[i] = Some(Gc { at: GcStep::Reap, ..gc });
                    return (self, Some(other));
                }
                GcStep::Reap
            }
            GcStep::Reap if gc.listed == 0 => match protocol.sweep {
                Sweep::DeleteOld => GcStep::Stat,
                _ => GcStep::Sweep,
            },
            GcStep::Reap => {
                let entry = gc.listed & gc.listed.wrapping_neg();
                if gc.needed && protocol.sweep == Sweep::CondemnThenMark {
                    self.live |= self.trash & entry != 0;
                    GcStep::Unlink(entry)
                } else {
                    self.trash &= !entry;
                    gc.listed &= !entry;
                    GcStep::Reap
                }
            }
            GcStep::Unlink(entry) => {
                self.trash &= !entry;
                gc.listed &= !entry;
                GcStep::Reap
            }
            GcStep::Stat if self.young => GcStep::Done,
            GcStep::Stat => GcStep::Sweep,
            GcStep::Sweep => {
                if !gc.needed && self.live {
                    self.live = false;
                    if matches!(protocol.sweep, Sweep::CondemnThenAge | Sweep::CondemnThenMark) {
                        self.trash |= if protocol.flat_trash {
                            EARLIER
                        } else {
                            1 << (i * usize::from(RUNS) + usize::from(gc.run))
                        };
                    }
                }
                if gc.run + 1 < protocol.runs {
                    gc = start_of_run(gc.run + 1, protocol);
                    gc.at
                } else {
                    GcStep::Done
                }
            }
            GcStep::Done => GcStep::Done,
        };
        self.gcs[i] = Some(gc);
        (self, None)
    }
}

fn start_of_run(run: u8, protocol: Protocol) -> Gc {
    let at = if protocol.list_first { GcStep::List } else { GcStep::Mark(0) };
    Gc { at, run, listed: 0, needed: false, expiring: false }
}

/// So many writers and gcs, from a blob that is live, condemned, or nowhere; and a mover that copies
/// ref 0, which is there, to its own place and then deletes it.
fn starts(writers: usize, gcs: usize, protocol: Protocol) -> Vec<State> {
    let empty = State {
        live: false,
        young: false,
        trash: 0,
        refs: [false; WRITERS],
        acknowledged: [false; WRITERS],
        writers: std::array::from_fn(|i| {
            (i < writers).then_some(if protocol.links[i] { Writer::WriteRef } else { Writer::Look })
        }),
        gcs: std::array::from_fn(|i| (i < gcs).then(|| start_of_run(0, protocol))),
        moves: false,
    };
    let live = State { live: true, ..empty };
    let moving = State {
        refs: [true, false],
        acknowledged: [true, false],
        writers: [None, Some(Writer::Look)],
        moves: true,
        ..live
    };
    let mut starts = vec![live, State { trash: EARLIER, ..empty }, empty];
    if writers == WRITERS && protocol.links == RIGHT.links {
        starts.extend([moving, State { live: false, trash: EARLIER, ..moving }]);
    }
    starts
}

/// Searches all states. Gives their number, or the shortest way to one in which a blob is lost.
fn search(writers: usize, gcs: usize, protocol: Protocol) -> Result<usize, Vec<Step>> {
    let mut seen: HashMap<State, Option<(State, Step)>> = HashMap::new();
    let mut queue: VecDeque<State> = starts(writers, gcs, protocol).into();
    seen.extend(queue.iter().map(|start| (*start, None)));
    while let Some(state) = queue.pop_front() {
        if state.dangles() {
            let mut way = Vec::new();
            let mut at = state;
            while let Some(Some((before, step))) = seen.get(&at) {
                way.push(*step);
                at = *before;
            }
            way.reverse();
            return Err(way);
        }
        state.next(protocol, |step, next| {
            seen.entry(next).or_insert_with(|| {
                queue.push_back(next);
                Some((state, step))
            });
        });
    }
    Ok(seen.len())
}

#[test]
fn no_interleaving_of_two_writers_two_gcs_and_crashes_loses_a_blob_that_a_ref_needs() {
    let expire = Some(Expire::DeletedOrMarked);
    for (writers, gcs, protocol) in [
        (1, 1, RIGHT),
        (2, 1, RIGHT),
        (1, 2, RIGHT),
        (2, 2, RIGHT),
        (2, 1, Protocol { expire, ..RIGHT }),
        (1, 2, Protocol { expire, ..RIGHT }),
        // With two runs each there are a million states: a test of its own.
        (2, 2, Protocol { expire, runs: 1, ..RIGHT }),
        // Manifests and what they link.
        (2, 2, Protocol { links: [true, true], ..RIGHT }),
        (2, 2, Protocol { links: [true, false], ..RIGHT }),
        (2, 1, Protocol { expire, links: [true, true], ..RIGHT }),
        (2, 1, Protocol { expire, links: [true, false], ..RIGHT }),
        (2, 1, Protocol { expire, links: [false, true], ..RIGHT }),
        (2, 2, Protocol { expire, links: [true, false], runs: 1, ..RIGHT }),
    ] {
        let states = search(writers, gcs, protocol);
        let states = states.unwrap_or_else(|way| panic!("{writers} {gcs} {protocol:?}: {way:#?}"));
        assert!(states > 100, "{writers} writers, {gcs} gcs: only {states} states");
    }
}

#[test]
#[ignore = "long: millions of states"]
fn nor_does_any_of_two_writers_expiry_and_two_gcs_that_run_twice_each() {
    let expire = Some(Expire::DeletedOrMarked);
    for links in [[false, false], [true, false], [true, true]] {
        let states = search(2, 2, Protocol { expire, links, ..RIGHT });
        let states = states.unwrap_or_else(|way| panic!("{links:?}: {way:#?}"));
        assert!(states > 100_000, "only {states} states");
    }
}

#[test]
fn every_simpler_protocol_loses_a_blob() {
    let plain = Protocol { verify: false, ..RIGHT };
    for (name, gcs, protocol) in [
        ("A: mark and sweep", 1, Protocol { sweep: Sweep::Delete, ..plain }),
        ("B: with a grace period", 1, Protocol { sweep: Sweep::DeleteOld, ..plain }),
        ("C: and a touch on reuse", 1, Protocol { sweep: Sweep::DeleteOld, touch: true, ..plain }),
        ("D: trash without a second mark", 1, Protocol { sweep: Sweep::CondemnThenAge, ..plain }),
        ("E: no look after the ref is written", 1, plain),
        ("J: one flat trash", 2, Protocol { flat_trash: true, ..RIGHT }),
        ("P: trash listed after the mark", 2, Protocol { list_first: false, ..RIGHT }),
        ("a ref left out of the mark and kept", 1, Protocol { expire: Some(Expire::Kept), ..RIGHT }),
    ] {
        let way = search(WRITERS, gcs, protocol).expect_err(name);
        assert!((4..=30).contains(&way.len()), "{name}: {way:#?}");
    }
}

#[test]
fn what_nobody_needs_is_gone_after_two_runs_and_never_after_one() {
    let mut state = State { live: true, ..starts(0, 1, RIGHT)[0] };
    let run_of = |state: &State| state.gcs[0].map(|gc| (gc.run, gc.at));
    while let Some((run, at)) = run_of(&state).filter(|(_, at)| *at != GcStep::Done) {
        assert!(state.live || state.trash != 0 || run == 1, "gone in the first run: {at:?}");
        let mut ways = Vec::new();
        state.next(RIGHT, |_, next| ways.push(next));
        assert_eq!(ways.len(), 1, "one process, one way");
        state = ways[0];
    }
    assert!(!state.live && state.trash == 0);
}
