//! Whether what is cached may be used. Pure.

use crate::model::{Freshness, Ref, Timestamp};

/// What to do about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Answer from the store.
    Use,
    /// Ask upstream whether it still holds; answer from the store if upstream cannot say.
    Revalidate,
    /// Ask upstream for it.
    Fetch,
}

/// Decides from the ref that is cached, how long the resource holds, and the present.
///
/// A name that fixes its content is used whatever its ref says about time. Otherwise the ref's own
/// `ttlSeconds` counts, as written when it was fetched (or by hand).
pub fn decide(cached: Option<&Ref>, want: Freshness, now: Timestamp) -> Decision {
    match (cached, want) {
        (None, _) => Decision::Fetch,
        (Some(_), Freshness::Immutable) => Decision::Use,
        (Some(reference), Freshness::For(_)) if reference.is_fresh(now) => Decision::Use,
        (Some(_), Freshness::For(_)) => Decision::Revalidate,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_decision_follows_from_ref_freshness_and_time() {
        let at = |seconds: i64| Timestamp::from_second(1_000_000 + seconds).expect("in range");
        let json = r#"{"kind":"k","targetDigest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"fetchedAt":"1970-01-12T13:46:40Z","ttlSeconds":60}"#;
        let reference = Ref::parse(json.as_bytes()).expect("valid");
        let mutable = Freshness::For(Duration::from_secs(5));
        for (cached, want, now, expected) in [
            (None, mutable, at(0), Decision::Fetch),
            (None, Freshness::Immutable, at(0), Decision::Fetch),
            (Some(&reference), mutable, at(59), Decision::Use),
            (Some(&reference), mutable, at(60), Decision::Revalidate),
            (Some(&reference), mutable, at(-1), Decision::Revalidate),
            (Some(&reference), Freshness::Immutable, at(1_000_000), Decision::Use),
        ] {
            assert_eq!(decide(cached, want, now), expected, "{cached:?} {want:?} {now}");
        }
    }
}
