//! Which way a request went, and what came of it: what `Cache-Status` (RFC 9211) tells, but for the wording.

use crate::protocol::Refusal;

/// Where an answer comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From what is cached or remembered.
    Cache,
    /// From upstream, or for want of an answer of upstream's.
    Forward(Forward),
    /// From neither: it was decided here.
    Here,
}

/// That a request went forward to upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forward {
    /// Why it did.
    pub why: Why,
    /// The status of upstream's answer; `None` if there was none, or it is not known.
    pub status: Option<u16>,
    /// Whether the content of that answer is in the store. False while it is on its way there.
    pub stored: bool,
    /// Whether it went with another request that was under way.
    pub collapsed: bool,
}

/// Why a request went forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing is cached under its key.
    UriMiss,
    /// What is cached at its address was selected by other requests.
    VaryMiss,
    /// What is cached, if anything is, could not be used.
    Miss,
    /// What is cached is past its time.
    Stale,
    /// Its method.
    Method,
}

/// Why there is no content, and how that came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What the client is told.
    pub refusal: Refusal,
    /// Which way the request went.
    pub way: Way,
    /// A short token that says why.
    pub detail: &'static str,
}

impl Way {
    /// To upstream, which answered with this status, if it did.
    pub(super) const fn forward(why: Why, status: Option<u16>) -> Self {
        Self::Forward(Forward { why, status, stored: false, collapsed: false })
    }

    /// The same way with this said of how it went forward, if it did.
    pub(super) fn with(self, change: impl FnOnce(Forward) -> Forward) -> Self {
        match self {
            Self::Forward(forward) => Self::Forward(change(forward)),
            Self::Cache | Self::Here => self,
        }
    }
}

impl From<Refusal> for Refused {
    /// A refusal of what needs neither cache nor upstream to be refused.
    fn from(refusal: Refusal) -> Self {
        Self { refusal, way: Way::Here, detail: "refused" }
    }
}
