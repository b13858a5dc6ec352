//! How far it is, as a bar on standard error. Nothing where that is no terminal.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use repoxy::maintain::{Progress, Step};

/// How often a bar moves although nothing advances, so that it is seen to live.
const TICK: Duration = Duration::from_millis(120);

/// A bar for each step, one after the other; none if they are not shown. Clones show the same one.
#[derive(Debug, Clone)]
pub(crate) struct Bars(Option<Arc<ArcSwap<ProgressBar>>>);

impl Bars {
    /// Bars that are shown or not.
    pub(crate) fn new(shown: bool) -> Self {
        Self(shown.then(|| Arc::new(ArcSwap::from_pointee(ProgressBar::hidden()))))
    }

    /// Takes the bar away while something else is printed.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.0 {
            Some(current) => current.load().suspend(print),
            None => print(),
        }
    }

    /// Takes the bar away for good.
    pub(crate) fn clear(&self) {
        if let Some(current) = &self.0 {
            current.load().finish_and_clear();
        }
    }
}

impl Progress for Bars {
    fn begin(&self, step: Step, total: Option<u64>) {
        let Some(current) = &self.0 else { return };
        // A new one, whole before it is drawn: each change to one that is shown draws it as it is by then.
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
        let bar = bar.with_message(step.as_str());
        let template = match total {
            Some(_) => "{msg:24} [{bar:32}] {human_pos}/{human_len} {eta:>4}",
            None => "{msg:24} {human_pos}  {rate}",
        };
        // Without a style of its own the bar would merely look different.
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, out: &mut dyn Write| {
                // Nothing can be done about a terminal that takes no text.
                let _ = write!(out, "{:.0}/s", state.per_sec());
            };
            bar.set_style(style.progress_chars("=> ").with_key("rate", rate));
        }
        let bar = Arc::new(bar);
        current.swap(Arc::clone(&bar)).finish_and_clear();
        bar.tick();
        bar.enable_steady_tick(TICK);
    }

    fn advance(&self, count: u64) {
        if let Some(current) = &self.0 {
            current.load().inc(count);
        }
    }
}
