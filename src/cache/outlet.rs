//! Where the bytes of a fill go while they come: to those who wait, when they may, and past the store when it
//! does not take them.
//!
//! It decides who is let in and who is not, and tells how the content turned out; it moves no bytes itself.

use tokio::sync::watch;

use super::fill::FillEnd;
use super::follow::{Flow, Release};
use super::obtain::Job;
use crate::model::{Causes, Ref};
use crate::store::StoreError;

/// The way out of one fill. Dropped without [`Outlet::release`], it tells followers that the fill failed.
#[derive(Debug)]
pub(super) struct Outlet<'f> {
    job: &'f Job,
    /// Where those wait who may see it before it is published; nobody may see what is judged as a whole.
    end: Option<&'f FillEnd>,
    release: watch::Sender<Release>,
    is_told: bool,
}

impl<'f> Outlet<'f> {
    /// Lets in those who wait. How much of it they see before all is there and right, the flow says.
    pub(super) fn open(
        job: &'f Job,
        end: Option<&'f FillEnd>,
        (reference, flow): (Ref, Flow),
        release: watch::Sender<Release>,
    ) -> Self {
        if let Some(end) = end {
            end.flow(reference, flow);
        }
        Self { job, end, release, is_told: false }
    }

    /// The store does not take what comes: it goes to those who wait now and to nobody after them, for its
    /// beginning will be gone.
    pub(super) fn pass_by(&mut self, why: &StoreError) {
        if self.is_told {
            return;
        }
        self.is_told = true;
        self.job.tell_unstored(why);
        if let Some(end) = self.end {
            end.unlist();
        }
    }

    /// Tells followers that all bytes are there and right.
    pub(super) fn release(&self, size: u64) {
        self.release.send_replace(Release::Whole { size });
    }
}

impl Drop for Outlet<'_> {
    fn drop(&mut self) {
        if matches!(*self.release.borrow(), Release::Whole { .. }) {
            return;
        }
        // First, so that a client that is cut off and asks again does not find the same fill.
        if let Some(end) = self.end {
            end.unlist();
        }
        self.release.send_replace(Release::Failed);
    }
}

impl Job {
    /// Logs and counts that what was fetched is not kept.
    pub(super) fn tell_unstored(&self, why: &StoreError) {
        let error = Causes(why);
        tracing::warn!(%error, key = %self.resource.key, "what was fetched could not be stored and is passed on");
        self.site.meters.unstored();
    }
}
