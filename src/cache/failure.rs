//! What a failure upstream or on disk means to a client.

use std::sync::Arc;

use super::way::{Forward, Refused, Way, Why};
use crate::model::http_cache::Excuse;
use crate::protocol::Refusal;
use crate::store::StoreError;
use crate::upstream::UpstreamError;

/// The token of content that was damaged on disk.
const DAMAGE: &str = "damaged";

/// Why a fill did not give content.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// What a client without cached content is told.
    pub refusal: Refusal,
    /// Whether cached content may be served instead: upstream could not say, rather than said no.
    pub stale_allowed: bool,
    /// A short token for logs, metrics and `Cache-Status`.
    pub detail: &'static str,
    /// How far the request went.
    pub way: Way,
    /// What the store could not do, if that is all there is: upstream's bytes can be passed on then.
    pub unstored: Option<Arc<StoreError>>,
}

impl Failure {
    /// A failure of upstream or of this machine: cached content may stand in.
    pub(super) const fn passing(refusal: Refusal, detail: &'static str) -> Self {
        Self { refusal, stale_allowed: true, detail, way: Way::Here, unstored: None }
    }

    /// The same, of what upstream answered with this status.
    pub(super) fn answered(self, status: u16) -> Self {
        Self { way: Way::forward(Why::Miss, Some(status)), ..self }
    }

    /// The same, of a request that went forward for this reason, if it did.
    pub(super) fn because(self, why: Why) -> Self {
        Self { way: self.way.with(|forward| Forward { why, ..forward }), ..self }
    }

    /// Upstream said no a short while ago.
    pub(super) fn remembered() -> Self {
        Self { way: Way::Cache, ..Self::said(Refusal::NotFound, "not-found") }
    }

    /// A failure of the store.
    fn unstored(why: Arc<StoreError>) -> Self {
        Self { unstored: Some(why), ..Self::passing(Refusal::Internal, "store") }
    }

    /// What the store holds is not what its name says.
    pub(super) const fn damage() -> Self {
        Self::passing(Refusal::Internal, DAMAGE)
    }

    /// Whether that is so.
    pub(super) fn is_damage(&self) -> bool {
        self.detail == DAMAGE
    }

    /// Why upstream could not be asked, as HTTP's rules tell these cases apart.
    pub(super) fn excuse(&self) -> Excuse {
        match (self.detail, &self.refusal) {
            // Slow is not away.
            ("status" | "slow", _) | (_, Refusal::RateLimited { .. }) => Excuse::Erring,
            _ => Excuse::Away,
        }
    }

    /// An answer of upstream: cached content must not contradict it.
    const fn said(refusal: Refusal, detail: &'static str) -> Self {
        Self { refusal, stale_allowed: false, detail, way: Way::Here, unstored: None }
    }
}

impl From<Failure> for Refused {
    fn from(Failure { refusal, way, detail, .. }: Failure) -> Self {
        Self { refusal, way, detail }
    }
}

/// How far a request went that upstream gave no good answer to.
const fn way_of(error: &UpstreamError) -> Way {
    use UpstreamError as E;
    let status = match error {
        E::Open { .. } | E::RateLimited { asked: false, .. } => return Way::Here,
        E::NotFound => Some(404),
        E::RateLimited { asked: true, .. } => Some(429),
        E::Denied { status, .. } | E::Status(status) => Some(*status),
        E::Timeout(_)
        | E::TooSlow
        | E::Unreachable(_)
        | E::Forbidden(_)
        | E::NotResumable
        | E::Broken(_)
        | E::Senseless(_) => None,
    };
    Way::forward(Why::Miss, status)
}

impl From<UpstreamError> for Failure {
    fn from(error: UpstreamError) -> Self {
        use UpstreamError as E;
        let bad = Refusal::BadUpstream;
        let way = way_of(&error);
        let failure = match error {
            E::NotFound => Self::said(Refusal::NotFound, "not-found"),
            E::Denied { anonymous, .. } => Self::said(Refusal::Denied { anonymous }, "denied"),
            E::RateLimited { retry_after, .. } => {
                Self::passing(Refusal::RateLimited { retry_after }, "rate-limited")
            }
            E::Open { retry_after } => {
                Self::passing(Refusal::Unavailable { retry_after: Some(retry_after) }, "breaker-open")
            }
            E::Timeout(_) | E::TooSlow => Self::passing(Refusal::Timeout, "timeout"),
            E::Unreachable(_) => Self::passing(Refusal::Unreachable, "unreachable"),
            E::Forbidden(_) => Self::passing(bad("it led to an address that is not allowed"), "forbidden"),
            E::Status(_) => Self::passing(bad("an error status"), "status"),
            E::NotResumable | E::Broken(_) => Self::passing(bad("the transfer broke"), "broken"),
            E::Senseless(_) => Self::passing(bad("it makes no sense"), "senseless"),
        };
        Self { way, ..failure }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Mismatch { .. } => {
                Self::passing(Refusal::BadUpstream("the bytes are not the ones named"), "corrupt")
            }
            StoreError::Length { .. } => Self::passing(Refusal::BadUpstream("the transfer broke"), "broken"),
            StoreError::Unstored(why) => Self::unstored(why),
            why => Self::unstored(Arc::new(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn wrong_bytes_are_not_taken_for_a_failure_of_the_store() {
        let actual = crate::model::Digest::of(b"x");
        let wrong = StoreError::Mismatch { actual, expected: actual.into() };
        let length = StoreError::Length { actual: 1, expected: 2 };
        for error in [wrong, length] {
            assert!(Failure::from(error).unstored.is_none());
        }
        let full = || StoreError::NoRoom { path: "x".into(), source: std::io::ErrorKind::StorageFull.into() };
        for error in [full(), StoreError::Unstored(Arc::new(full()))] {
            let why = Failure::from(error).unstored.expect("a failure of the store");
            assert!(matches!(*why, StoreError::NoRoom { .. }), "{why}");
        }
    }

    #[test]
    fn only_upstreams_own_no_forbids_stale_content_and_nothing_else_becomes_not_found() {
        let errors = [
            UpstreamError::NotFound,
            UpstreamError::Denied { status: 403, anonymous: false },
            UpstreamError::RateLimited { retry_after: Some(Duration::from_secs(7)), asked: true },
            UpstreamError::Open { retry_after: Duration::from_secs(1) },
            UpstreamError::Timeout("first byte"),
            UpstreamError::TooSlow,
            UpstreamError::Unreachable(String::new()),
            UpstreamError::Forbidden(String::new()),
            UpstreamError::Status(500),
            UpstreamError::NotResumable,
            UpstreamError::Broken(String::new()),
            UpstreamError::Senseless(String::new()),
        ];
        for error in errors {
            let failure = Failure::from(error.clone());
            let said = matches!(error, UpstreamError::NotFound | UpstreamError::Denied { .. });
            assert_eq!(failure.stale_allowed, !said, "{error}");
            assert_eq!(
                failure.refusal == Refusal::NotFound,
                matches!(error, UpstreamError::NotFound),
                "{error}"
            );
        }
    }
}
