//! The rows: whether each has a file. What the row says was compared when the file was read.

use super::{Check, Finding};
use crate::maintain::{MaintainError, Step};

/// Keys that are read at a time.
const PAGE: usize = 10_000;

impl Check<'_> {
    /// Looks for rows whose file was not seen.
    pub(super) async fn rows(&mut self) -> Result<(), MaintainError> {
        let Some(index) = self.at.index.filter(|_| self.report.index_checked) else { return Ok(()) };
        self.at.progress.begin(Step::CheckIndex, Some(self.report.refs));
        let Some(seen) = self.seen.take() else { return Ok(()) };
        let mut seen = seen.finish()?;
        let mut after = None;
        loop {
            let page = index.keys(PAGE, after)?;
            self.at.progress.advance(page.rows.len() as u64);
            for key in seen.unseen(page.rows)? {
                // The file may have come since; and if it cannot be read, that was told already.
                if matches!(self.at.store.read_ref(&key).await, Ok(None)) {
                    self.found(&Finding::NoFile { key }).await?;
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
