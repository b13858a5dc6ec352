//! One fill per key, for any number of clients.
//!
//! A fill is a task of its own: no client's speed or departure touches it. Everybody who wants the
//! key, its starter included, watches its [`Stage`]. Errors reach all of them.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::Failure;
use super::follow::Flow;
use super::meters::Outcome;
use super::passing::Passing;
use crate::model::http_cache::is_variant_of;
use crate::model::{Ref, RefKey};
use crate::protocol::Refusal;
use crate::store::Blob;

/// The most fills that run at once; more are refused for now.
const MAX_FILLS: usize = 4096;

/// Of so many fills it is remembered that they ended.
const MAX_ENDED: usize = 256;

/// How far a fill has come.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Upstream is being asked.
    Asking,
    /// Bytes arrive and may be followed; the ref says what is known so far.
    Flowing(Arc<Ref>, Arc<Flow>),
    /// It came to an answer that is for one client alone.
    Passing(Arc<Passing>),
    /// It has ended.
    Settled(Arc<Result<Settled, Failure>>),
    /// It has ended with content that is right, but is not kept.
    Unkept(Arc<Unkept>),
    /// It has ended before it asked: what is cached at its address was looked at too early.
    Outdated,
}

impl Stage {
    const fn is_over(&self) -> bool {
        matches!(self, Self::Settled(_) | Self::Passing(_) | Self::Unkept(_) | Self::Outdated)
    }
}

/// What a fill came to.
#[derive(Debug, Clone)]
pub(super) struct Settled {
    pub reference: Ref,
    pub blob: Blob,
    /// `Revalidated` or `Filled`; `Joined` if another fill had brought it just before.
    pub outcome: Outcome,
    /// The status of upstream's answer, if this fill has asked.
    pub said: Option<u16>,
}

/// Content that came and is right, but that could not be kept.
#[derive(Debug)]
pub(super) struct Unkept {
    pub reference: Ref,
    pub content: Content,
    /// Why: what those are told who need it kept.
    pub why: Failure,
}

/// Where the bytes are that could not be kept.
#[derive(Debug)]
pub(super) enum Content {
    /// In memory.
    Document(Bytes),
    /// With those who follow, as far as they have not read them.
    Flow(Arc<Flow>),
}

/// A fill as those who wait for it see it.
#[derive(Debug, Clone)]
pub(super) struct Fill {
    stage: watch::Receiver<Stage>,
    begun: Instant,
}

impl Fill {
    /// Whether upstream has said nothing yet: then its answer will be newer than a request that asks now.
    pub(super) fn is_asking(&self) -> bool {
        matches!(*self.stage.borrow(), Stage::Asking)
    }

    /// Whether all bytes have come, so that only their publishing is left to wait for.
    fn has_arrived(&self) -> bool {
        matches!(&*self.stage.borrow(), Stage::Flowing(_, flow) if flow.has_arrived())
    }

    /// Waits until there is something to serve or nothing to hope for. What cannot begin before it is checked
    /// is waited for, so that what is wrong is refused in words.
    pub(super) async fn arrived(mut self) -> Stage {
        // An error means that the fill is gone; its guard has then published the end.
        let _ = self.stage.wait_for(|stage| !matches!(stage, Stage::Asking)).await;
        let stage = self.stage.borrow().clone();
        if let Stage::Flowing(_, flow) = &stage
            && !flow.may_begin().await
        {
            let _ = self.stage.wait_for(Stage::is_over).await;
            return self.stage.borrow().clone();
        }
        stage
    }

    /// The same, but not longer than until the fill is `patience` old: `None` then.
    pub(super) async fn arrived_within(self, patience: Duration) -> Option<Stage> {
        let until = self.begun + patience;
        tokio::time::timeout_at(until, self.arrived()).await.ok()
    }

    /// Waits for the end: then it is published, or there is nothing to publish.
    pub(super) async fn settled(mut self) -> Result<(), Failure> {
        // As above: an error means that the end has been published.
        let _ = self.stage.wait_for(Stage::is_over).await;
        match &*self.stage.borrow() {
            Stage::Settled(result) => result.as_ref().as_ref().map(|_| ()).map_err(Failure::clone),
            Stage::Unkept(unkept) => Err(unkept.why.clone()),
            Stage::Asking | Stage::Flowing(..) | Stage::Passing(_) | Stage::Outdated => {
                Err(Failure::passing(Refusal::Internal, "unsettled"))
            }
        }
    }
}

/// The fills that are under way, and the last that ended.
#[derive(Debug, Default)]
pub(super) struct Fills {
    lists: Mutex<Lists>,
    /// How many have ended. Changed under the lock, read without.
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Lists {
    running: HashMap<RefKey, Fill>,
    /// Of which keys the last ones were that ended, the newest first.
    ended: VecDeque<RefKey>,
}

impl Fills {
    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remove(&self, lists: &mut Lists, key: &RefKey) {
        if let Some((key, _)) = lists.running.remove_entry(key) {
            lists.ended.truncate(MAX_ENDED - 1);
            lists.ended.push_front(key);
            self.count.fetch_add(1, Ordering::Release);
        }
    }

    /// Whether a fill of this key is under way.
    pub(super) fn is_running(&self, key: &RefKey) -> bool {
        self.lock().running.contains_key(key)
    }

    /// The fill of this key, if all of its bytes have come and it is not published yet.
    pub(super) fn arrived(&self, key: &RefKey) -> Option<Fill> {
        self.lock().running.get(key).filter(|fill| fill.has_arrived()).cloned()
    }

    /// All fills whose bytes have come and that are not published yet.
    pub(super) fn all_arrived(&self) -> Vec<Fill> {
        self.lock().running.values().filter(|fill| fill.has_arrived()).cloned().collect()
    }

    /// How many fills have ended so far.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Whether a fill of this key may have ended since there were so many.
    pub(super) fn may_have_ended(&self, key: &RefKey, since: u64) -> bool {
        let lists = self.lock();
        let new = usize::try_from(self.count() - since).unwrap_or(usize::MAX);
        new > lists.ended.len() || lists.ended.iter().take(new).any(|ended| ended == key)
    }

    /// Joins the fill of a key, or begins one: then the second value is its end, to be given to the
    /// task that does the work.
    pub(super) fn join(self: &Arc<Self>, key: &RefKey) -> Result<(Fill, Option<FillEnd>), Refusal> {
        let running = &mut self.lock().running;
        if let Some(fill) = running.get(key) {
            return Ok((fill.clone(), None));
        }
        if running.len() >= MAX_FILLS {
            return Err(Refusal::Unavailable { retry_after: Some(Duration::from_secs(1)) });
        }
        let (sender, stage) = watch::channel(Stage::Asking);
        let fill = Fill { stage, begun: Instant::now() };
        running.insert(key.clone(), fill.clone());
        Ok((fill, Some(FillEnd { listed: Some((Arc::clone(self), key.clone())), stage: sender })))
    }

    /// Sees to it that nobody joins the fills of a key and of its variants any more; those who have wait on.
    pub(super) fn unlist(&self, key: &RefKey) {
        let mut lists = self.lock();
        let is_of_key = |running: &&RefKey| *running == key || is_variant_of(running, key);
        for running in lists.running.keys().filter(is_of_key).cloned().collect::<Vec<_>>() {
            self.remove(&mut lists, &running);
        }
    }

    /// A fill that nobody else can join.
    pub(super) fn alone() -> (Fill, FillEnd) {
        let (stage, watched) = watch::channel(Stage::Asking);
        (Fill { stage: watched, begun: Instant::now() }, FillEnd { listed: None, stage })
    }
}

/// The working end of a fill. Dropped without [`FillEnd::settle`] (a panic), it settles as an
/// internal error, so that nobody waits for ever.
#[derive(Debug)]
pub(super) struct FillEnd {
    /// Where it is listed, so that others can join.
    listed: Option<(Arc<Fills>, RefKey)>,
    stage: watch::Sender<Stage>,
}

impl FillEnd {
    /// Lets followers in.
    pub(super) fn flow(&self, reference: Ref, flow: Flow) {
        self.stage.send_replace(Stage::Flowing(Arc::new(reference), Arc::new(flow)));
    }

    /// Ends the fill with an answer for whoever takes it first.
    pub(super) fn pass(self, passing: Passing) {
        self.unlist();
        self.stage.send_replace(Stage::Passing(Arc::new(passing)));
    }

    /// Ends the fill. New requests from now on start afresh, those of clients that have been told of the end
    /// included: hence it is unlisted first.
    ///
    /// Those who wait see nothing but the end if they look late: what has come whole and right is theirs, though
    /// it failed afterwards.
    pub(super) fn settle(self, result: Result<Settled, Failure>) {
        self.unlist();
        self.stage.send_modify(|stage| {
            *stage = match (result, &*stage) {
                (Err(why), Stage::Flowing(reference, flow)) if flow.is_whole() => {
                    let (reference, content) = (Ref::clone(reference), Content::Flow(Arc::clone(flow)));
                    Stage::Unkept(Arc::new(Unkept { reference, content, why }))
                }
                (result, _) => Stage::Settled(Arc::new(result)),
            };
        });
    }

    /// Ends the fill with a document that is not kept.
    pub(super) fn hand_over(self, unkept: Unkept) {
        self.unlist();
        self.stage.send_replace(Stage::Unkept(Arc::new(unkept)));
    }

    /// Ends the fill of what turned out to be kept elsewhere: everybody is to look again.
    pub(super) fn send_back(self) {
        self.unlist();
        self.stage.send_replace(Stage::Outdated);
    }

    /// Whether others can join.
    pub(super) const fn is_listed(&self) -> bool {
        self.listed.is_some()
    }

    /// Sees to it that nobody joins this fill any more; those who have wait on.
    pub(super) fn unlist(&self) {
        let Some((fills, key)) = &self.listed else { return };
        let mut lists = fills.lock();
        // Another may have been listed since this one was unlisted.
        if lists.running.get(key).is_some_and(|fill| fill.stage.same_channel(&self.stage.subscribe())) {
            fills.remove(&mut lists, key);
        }
    }
}

impl Drop for FillEnd {
    fn drop(&mut self) {
        self.unlist();
        self.stage.send_if_modified(|stage| {
            let unsettled = !stage.is_over();
            if unsettled {
                let failure = Failure::passing(Refusal::Internal, "panic");
                *stage = Stage::Settled(Arc::new(Err(failure)));
            }
            unsettled
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::follow::Release;
    use super::*;
    use crate::model::{Digest, Timestamp};
    use crate::store::Store;

    fn key(text: &str) -> RefKey {
        text.parse().expect("valid")
    }

    #[tokio::test]
    async fn many_wait_for_one_fill_and_all_get_its_error() {
        let fills = Arc::new(Fills::default());
        let key = key("container/hub/refs/library/alpine/tags/3");
        let (first, end) = fills.join(&key).expect("room");
        let (second, none) = fills.join(&key).expect("room");
        assert!(none.is_none());
        end.expect("the first starts it").settle(Err(Failure::passing(Refusal::Timeout, "timeout")));
        for fill in [first, second] {
            let Stage::Settled(result) = fill.arrived().await else { panic!("it has settled") };
            assert_eq!(result.as_ref().as_ref().expect_err("an error").refusal, Refusal::Timeout);
        }
        assert!(fills.join(&key).expect("room").1.is_some(), "the next request starts afresh");
    }

    #[tokio::test]
    async fn a_fill_that_is_unlisted_is_not_joined_and_takes_nothing_with_it_when_it_ends() {
        let fills = Arc::new(Fills::default());
        let key = key("generic/x/refs/a");
        let (_, old) = fills.join(&key).expect("room");
        fills.unlist(&key);
        let (_, new) = fills.join(&key).expect("room");
        assert!(new.is_some(), "the next request starts afresh");
        drop(old);
        assert!(fills.is_running(&key), "the new one");
        drop(new);
        assert!(!fills.is_running(&key));
    }

    #[test]
    fn which_fills_ended_is_remembered_for_a_while_and_taken_for_granted_afterwards() {
        let fills = Arc::new(Fills::default());
        let (one, other) = (key("generic/x/refs/a"), key("generic/x/refs/b"));
        let end = |key| drop(fills.join(key).expect("room"));
        let before = fills.count();
        end(&one);
        let between = fills.count();
        assert!(fills.may_have_ended(&one, before) && !fills.may_have_ended(&one, between));
        assert!(!fills.may_have_ended(&other, before));
        (1..MAX_ENDED).for_each(|_| end(&one));
        assert!(!fills.may_have_ended(&other, before), "all of them are known");
        end(&one);
        assert!(fills.may_have_ended(&other, before), "too long ago to tell");
    }

    #[tokio::test]
    async fn a_fill_that_dies_settles_all_the_same() {
        let fills = Arc::new(Fills::default());
        let (fill, end) = fills.join(&key("container/hub/refs/a/tags/1")).expect("room");
        drop(end);
        assert!(matches!(fill.arrived().await, Stage::Settled(result) if result.is_err()));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_is_counted_from_the_fills_beginning() {
        let fills = Arc::new(Fills::default());
        let (fill, _end) = fills.join(&key("container/hub/refs/a/tags/1")).expect("room");
        tokio::time::advance(Duration::from_secs(5)).await;
        let before = Instant::now();
        assert!(fill.arrived_within(Duration::from_secs(1)).await.is_none());
        assert!(before.elapsed() < Duration::from_millis(10), "the time has already passed");
    }

    /// A flow of content of a size, and what releases it.
    async fn flow(size: u64) -> (Ref, Flow, watch::Sender<Release>) {
        let store = Store::create("mem://").await.expect("a root");
        let staged = store.stage(&key("generic/x/refs/a").proxy, None, &[]).await;
        let (release, released) = watch::channel(Release::Held);
        let (reader, written) = (staged.reader(), staged.progress());
        let flow = Flow { reader, written, release: released, size: Some(size), named: true };
        (Ref::new("generic.file".into(), Digest::of(b""), size, Timestamp::MIN), flow, release)
    }

    #[tokio::test]
    async fn who_looks_late_still_gets_what_came_whole_before_the_fill_failed() {
        let failed = || Err(Failure::passing(Refusal::Internal, "store"));
        for (released, is_kept) in [(Release::Whole { size: 10 }, true), (Release::Failed, false)] {
            let fills = Arc::new(Fills::default());
            let (fill, end) = fills.join(&key("generic/x/refs/a")).expect("room");
            let end = end.expect("the first starts it");
            let (reference, flow, release) = flow(10).await;
            end.flow(reference, flow);
            release.send_replace(released);
            end.settle(failed());
            let stage = fill.clone().arrived().await;
            assert_eq!(matches!(stage, Stage::Unkept(_)), is_kept, "{stage:?}");
            assert!(fill.settled().await.is_err(), "but it is not kept");
        }
    }

    #[tokio::test]
    async fn content_that_is_held_back_whole_is_waited_for_and_other_content_is_not() {
        let (_, small, release) = flow(100).await;
        let (_, large, _held) = flow(10 << 20).await;
        assert!(large.may_begin().await);
        let (may_begin, ()) = tokio::join!(small.may_begin(), async {
            release.send_replace(Release::Whole { size: 100 });
        });
        assert!(may_begin);

        let fills = Arc::new(Fills::default());
        let (fill, end) = fills.join(&key("generic/x/refs/a")).expect("room");
        let end = end.expect("the first starts it");
        let (reference, flow, release) = flow(100).await;
        end.flow(reference, flow);
        let (stage, ()) = tokio::join!(fill.arrived(), async {
            release.send_replace(Release::Failed);
            end.settle(Err(Failure::passing(Refusal::BadUpstream("x"), "corrupt")));
        });
        let Stage::Settled(result) = stage else { panic!("it is told how it ended: {stage:?}") };
        assert_eq!(result.as_ref().as_ref().expect_err("an error").detail, "corrupt");
    }

    #[test]
    fn the_number_of_fills_is_bounded() {
        let fills = Arc::new(Fills::default());
        let ends: Vec<_> = (0..MAX_FILLS)
            .map(|n| fills.join(&key(&format!("container/hub/refs/a/tags/{n}"))).expect("room"))
            .collect();
        let over = key("container/hub/refs/a/tags/over");
        assert!(matches!(fills.join(&over), Err(Refusal::Unavailable { .. })));
        drop(ends);
        assert!(fills.join(&over).is_ok());
    }
}
