//! How far it is, as a bar on standard error. Nothing where that is no terminal.

use std::fmt::Write;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use repoxy::maintain::{Progress, Step};

/// How often a bar moves although nothing advances, so that it is seen to live.
const TICK: Duration = Duration::from_millis(120);

/// One bar, which shows one step after the other. Clones are the same bar.
#[derive(Debug, Clone)]
pub(crate) struct Bars(ProgressBar);

impl Bars {
    /// A bar that is shown or not.
    pub(crate) fn new(shown: bool) -> Self {
        Self(if shown { ProgressBar::no_length() } else { ProgressBar::hidden() })
    }

    /// Takes the bar away while something else is printed.
    pub(crate) fn suspend<T>(&self, print: impl FnOnce() -> T) -> T {
        self.0.suspend(print)
    }

    /// Takes the bar away for good.
    pub(crate) fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bars {
    fn begin(&self, step: Step, total: Option<u64>) {
        let template = match total {
            Some(_) => "{msg:24} [{bar:32}] {human_pos}/{human_len} {eta:>4}",
            None => "{msg:24} {human_pos}  {rate}",
        };
        // The step before must not be shown with this one's style and numbers.
        self.0.reset();
        match total {
            Some(total) => self.0.set_length(total),
            None => self.0.unset_length(),
        }
        // Without a style of its own the bar would merely look different.
        if let Ok(style) = ProgressStyle::with_template(template) {
            let rate = |state: &ProgressState, out: &mut dyn Write| {
                // Nothing can be done about a terminal that takes no text.
                let _ = write!(out, "{:.0}/s", state.per_sec());
            };
            self.0.set_style(style.progress_chars("=> ").with_key("rate", rate));
        }
        self.0.set_message(step.as_str());
        if !self.0.is_hidden() {
            self.0.enable_steady_tick(TICK);
        }
    }

    fn advance(&self, count: u64) {
        self.0.inc(count);
    }
}
