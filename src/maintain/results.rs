//! How the last run of each task ended, for who looks later: a note beside the locks, which a server
//! shows among its metrics. Nothing relies on it; a note that is lost or cannot be read is none.

use std::collections::BTreeMap;

use metrics::{describe_gauge, gauge};
use serde::{Deserialize, Serialize};

use super::fsck;
use super::gc;
use super::{MaintainError, Rebuilt};
use crate::model::{Causes, Clock, Timestamp};
use crate::store::Store;

const ENDED: &str = "repoxy_upkeep_last_end_timestamp_seconds";
const OK: &str = "repoxy_upkeep_last_ok";
const FIGURE: &str = "repoxy_upkeep_last_figure";

/// A task of upkeep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// [`gc::gc`].
    Gc,
    /// [`fsck::fsck`].
    Fsck,
    /// [`super::reindex`].
    Reindex,
}

impl Task {
    const ALL: [Self; 3] = [Self::Gc, Self::Fsck, Self::Reindex];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Gc => "gc",
            Self::Fsck => "fsck",
            Self::Reindex => "reindex",
        }
    }

    fn note(self) -> String {
        format!("{}.result", self.as_str())
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// When.
    pub ended_at: Timestamp,
    /// Whether it did what it should, and nothing remains for people to do.
    pub ok: bool,
    /// What it counted, by names such as `condemned_bytes`.
    pub figures: BTreeMap<String, u64>,
}

/// What a finished run counted, and whether all is well.
pub trait Counts {
    /// Whether it did what it should, and nothing remains for people to do.
    fn is_ok(&self) -> bool;

    /// Its figures.
    fn figures(&self) -> Vec<(&'static str, u64)>;
}

impl Counts for gc::Report {
    fn is_ok(&self) -> bool {
        self.refusal.is_none()
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        let done = self.done.unwrap_or_default();
        vec![
            ("refs", self.plan.refs),
            ("blobs", self.plan.blobs),
            ("bytes", self.plan.bytes),
            ("expired", done.expired),
            ("restored", done.restored),
            ("reaped", done.reaped),
            ("reaped_bytes", done.reaped_bytes),
            ("condemned", done.condemned),
            ("condemned_bytes", done.condemned_bytes),
        ]
    }
}

impl Counts for fsck::Report {
    fn is_ok(&self) -> bool {
        self.is_clean()
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("refs", self.refs),
            ("blobs", self.blobs),
            ("bytes_read", self.bytes_read),
            ("errors", self.errors),
            ("warnings", self.warnings),
            ("mended", self.mended),
        ]
    }
}

impl Counts for Rebuilt {
    fn is_ok(&self) -> bool {
        self.unreadable == 0
    }

    fn figures(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("refs", self.refs),
            ("removed", self.removed),
            ("without_target", self.without_target),
            ("unreadable", self.unreadable),
        ]
    }
}

/// Notes how a run ended, well or not. A note that cannot be written is not worth failing for. A run
/// that did not come to its turn says nothing.
pub async fn note<T: Counts>(store: &Store, clock: &dyn Clock, task: Task, ended: &Result<T, MaintainError>) {
    let figures = match ended {
        Err(MaintainError::Locked(_)) => return,
        Err(_) => BTreeMap::new(),
        Ok(report) => report.figures().into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
    };
    let ok = ended.as_ref().is_ok_and(Counts::is_ok);
    let result = RunResult { ended_at: clock.now(), ok, figures };
    // Strings, numbers and a map of them: serialising cannot fail.
    let text = serde_json::to_string(&result).unwrap_or_default();
    if let Err(error) = store.write_note(&task.note(), &text).await {
        tracing::warn!(error = %Causes(&error), "could not note how the run ended");
    }
}

/// How the last run of a task ended, if that is known.
pub async fn last(store: &Store, task: Task) -> Option<RunResult> {
    let note = store.read_note(&task.note()).await.ok()??;
    serde_json::from_str(&note).ok()
}

/// Shows among the metrics of this process how the last run of each task ended.
pub async fn show(store: &Store) {
    describe_gauge!(ENDED, "When the last run of an upkeep task ended");
    describe_gauge!(OK, "Whether the last run of an upkeep task ended well and left nothing to do");
    describe_gauge!(FIGURE, "What the last run of an upkeep task counted");
    for task in Task::ALL {
        let Some(result) = last(store, task).await else { continue };
        let task = task.as_str();
        // Both far below 2^53, where every integer has its own float.
        #[expect(clippy::cast_precision_loss, reason = "gauges are floats; seconds and counts fit")]
        gauge!(ENDED, "task" => task).set(result.ended_at.as_second() as f64);
        gauge!(OK, "task" => task).set(f64::from(u8::from(result.ok)));
        for (name, value) in result.figures {
            #[expect(clippy::cast_precision_loss, reason = "gauges are floats")]
            gauge!(FIGURE, "task" => task, "figure" => name).set(value as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture::Fixture;
    use super::*;

    #[tokio::test]
    async fn a_result_is_there_for_who_looks_later_and_a_run_that_had_no_turn_changes_nothing() {
        let fixture = Fixture::memory().await;
        assert_eq!(last(&fixture.store, Task::Fsck).await, None);
        let report = fsck::Report { refs: 7, errors: 1, ..fsck::Report::default() };
        note(&fixture.store, &fixture.clock, Task::Fsck, &Ok(report)).await;
        let found = last(&fixture.store, Task::Fsck).await.expect("noted");
        assert!(!found.ok);
        assert_eq!((found.figures["refs"], found.figures["errors"]), (7, 1));

        note::<fsck::Report>(
            &fixture.store,
            &fixture.clock,
            Task::Fsck,
            &Err(MaintainError::Locked("gc.lock")),
        )
        .await;
        assert_eq!(last(&fixture.store, Task::Fsck).await, Some(found));
        assert_eq!(last(&fixture.store, Task::Gc).await, None, "each task has its own");
    }

    #[tokio::test]
    async fn a_note_that_is_none_is_no_result() {
        let fixture = Fixture::memory().await;
        fixture.store.write_note("gc.result", "{").await.expect("written");
        assert_eq!(last(&fixture.store, Task::Gc).await, None);
    }
}
