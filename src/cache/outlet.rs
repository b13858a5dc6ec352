//! Where the bytes of a fill go while they come: to those who wait, when they may, and past the store when it
//! does not take them.
//!
//! It decides who is let in and who is not, and tells how the content turned out; it moves no bytes itself.

use tokio::sync::watch;

use super::fill::FillEnd;
use super::follow::{Flow, Release};
use super::obtain::Job;
use crate::model::Ref;
use crate::store::StoreError;

/// The way out of one fill. Dropped without [`Outlet::release`], it tells followers that the fill failed.
#[derive(Debug)]
pub(super) struct Outlet<'f> {
    job: &'f Job,
    /// Where those wait who may see it before it is published; nobody may see what is judged as a whole.
    end: Option<&'f FillEnd>,
    /// What they are given when they are let in.
    shut: Option<Box<(Ref, Flow)>>,
    release: watch::Sender<Release>,
    is_told: bool,
}

impl<'f> Outlet<'f> {
    /// One that is shut.
    pub(super) fn new(
        job: &'f Job,
        end: Option<&'f FillEnd>,
        flow: (Ref, Flow),
        release: watch::Sender<Release>,
    ) -> Self {
        Self { job, end, shut: Some(Box::new(flow)), release, is_told: false }
    }

    /// Lets in those who wait.
    pub(super) fn open(&mut self) {
        if let (Some(end), Some(flow)) = (self.end, self.shut.take()) {
            end.flow(flow.0, flow.1);
        }
    }

    /// The store does not take what comes: it goes to those who wait now and to nobody after them, for its
    /// beginning will be gone. They are let in at once, for nothing will be there afterwards.
    pub(super) fn pass_by(&mut self, why: &StoreError) {
        if self.is_told {
            return;
        }
        self.is_told = true;
        self.job.tell_unstored(why);
        if let Some(end) = self.end {
            end.unlist();
        }
        self.open();
    }

    /// Tells followers that all bytes are there and right.
    pub(super) fn release(&self, size: u64) {
        self.release.send_replace(Release::Whole { size });
    }

    /// What those are given who wait and have not been let in, if there are any.
    pub(super) fn unseen(mut self) -> Option<Box<Flow>> {
        self.end?;
        self.shut.take().map(|flow| Box::new(flow.1))
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
        let error = why as &dyn std::error::Error;
        tracing::warn!(error, key = %self.resource.key, "what was fetched could not be stored and is passed on");
        self.site.meters.unstored();
    }
}
