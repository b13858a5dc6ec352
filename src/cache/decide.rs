//! Whether what is cached may be used. Pure.

use crate::model::http_cache::{Reuse, asks_again, reuse};
use crate::model::{Checksum, Freshness, Ref, Resource, Timestamp};

/// What to do about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Answer from the store.
    Use,
    /// Answer from the store though it is past its time: the client allows that.
    UseStale,
    /// The same, because upstream allows it while it is asked.
    UseMeanwhile,
    /// Ask upstream whether it still holds; answer from the store if upstream cannot say.
    Revalidate,
    /// Ask upstream for it.
    Fetch,
    /// Neither can be used what is there, nor does the client let upstream be asked.
    Refuse,
}

/// Decides from the ref that is cached, what is wanted, and the present.
///
/// A name that fixes its content is used whatever its ref or the client says about time. Otherwise the ref's
/// own `ttlSeconds` counts, as written when it was fetched (or by hand), and as far as the resource heeds it
/// what the client says; and by HTTP's rules, what upstream says beside it. What is not what is wanted is as
/// good as nothing.
pub fn decide(cached: Option<&Ref>, want: &Resource, now: Timestamp) -> Decision {
    let directives = want.directives();
    let (ask, fetch) = match directives.only_if_cached {
        true => (Decision::Refuse, Decision::Refuse),
        false => (Decision::Revalidate, Decision::Fetch),
    };
    let Some(reference) = cached.filter(|reference| fits(reference, want)) else {
        return fetch;
    };
    match want.freshness {
        Freshness::Immutable => Decision::Use,
        Freshness::For(_) if reference.is_fresh(now) && !asks_again(reference, &directives, now) => {
            Decision::Use
        }
        Freshness::For(_) => ask,
        Freshness::Upstream(_) => match reuse(reference, &directives, now) {
            Reuse::Fresh => Decision::Use,
            Reuse::Stale => Decision::UseStale,
            Reuse::StaleMeanwhile => Decision::UseMeanwhile,
            Reuse::Ask => ask,
        },
    }
}

/// Whether a ref can be what is wanted: content, where nothing but content is, and of the right digest.
fn fits(reference: &Ref, want: &Resource) -> bool {
    let digest = want.expect.as_ref().and_then(Checksum::digest);
    (reference.status() == 200 || want.freshness.is_upstreams())
        && digest.is_none_or(|digest| digest == reference.target_digest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::model::http_cache::RequestDirectives;
    use crate::model::{Delivery, Digest, Heed, Http, Leave, Source};

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    fn cached() -> Ref {
        let json = r#"{"kind":"k","targetDigest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"fetchedAt":"1970-01-12T13:46:40Z","ttlSeconds":60}"#;
        Ref::parse(json.as_bytes()).expect("valid")
    }

    fn want(freshness: Freshness) -> Resource {
        let key = "generic/x/refs/a".parse().expect("a key");
        Resource::new(key, "k", Source::Path("/a".to_owned()), freshness, Delivery::Streamed)
    }

    #[test]
    fn the_decision_follows_from_ref_freshness_and_time() {
        let reference = cached();
        let mutable = want(Freshness::For(Duration::from_secs(5)));
        let immutable = want(Freshness::Immutable);
        for (cached, want, now, expected) in [
            (None, &mutable, at(0), Decision::Fetch),
            (None, &immutable, at(0), Decision::Fetch),
            (Some(&reference), &mutable, at(59), Decision::Use),
            (Some(&reference), &mutable, at(60), Decision::Revalidate),
            (Some(&reference), &mutable, at(-1), Decision::Revalidate),
            (Some(&reference), &immutable, at(1_000_000), Decision::Use),
        ] {
            assert_eq!(decide(cached, want, now), expected, "{cached:?} {want:?} {now}");
        }
    }

    #[test]
    fn clients_are_heard_only_where_the_operator_says_so() {
        use Decision::{Refuse, Revalidate, Use, UseStale};
        let reference = cached();
        let ask = |freshness, heed, directives| {
            let mut want = want(freshness);
            (want.asked.heed, want.asked.directives) = (heed, directives);
            (decide(Some(&reference), &want, at(0)), decide(Some(&reference), &want, at(61)))
        };
        let by_http = Freshness::Upstream(Leave::default());
        let for_a_while = Freshness::For(Duration::from_secs(5));
        let plain = RequestDirectives::default();
        let no_cache = RequestDirectives { no_cache: true, ..plain };
        let only = RequestDirectives { only_if_cached: true, ..plain };
        let max_stale = RequestDirectives { max_stale: Some(5), ..plain };
        let at_once = RequestDirectives { max_age: Some(0), ..plain };
        for (freshness, heed, directives, expected) in [
            (by_http, Heed::Everything, plain, (Use, Revalidate)),
            (by_http, Heed::Everything, no_cache, (Revalidate, Revalidate)),
            (by_http, Heed::Everything, at_once, (Revalidate, Revalidate)),
            (by_http, Heed::Everything, only, (Use, Refuse)),
            (by_http, Heed::Everything, max_stale, (Use, UseStale)),
            (by_http, Heed::NoCache, no_cache, (Revalidate, Revalidate)),
            (by_http, Heed::NoCache, at_once, (Use, Revalidate)),
            (by_http, Heed::Nothing, no_cache, (Use, Revalidate)),
            (by_http, Heed::Nothing, only, (Use, Revalidate)),
            (by_http, Heed::Nothing, max_stale, (Use, Revalidate)),
            (for_a_while, Heed::Everything, only, (Use, Refuse)),
            (for_a_while, Heed::Everything, at_once, (Revalidate, Revalidate)),
            (for_a_while, Heed::NoCache, no_cache, (Revalidate, Revalidate)),
            (for_a_while, Heed::NoCache, at_once, (Use, Revalidate)),
            (for_a_while, Heed::NoCache, only, (Use, Revalidate)),
            (for_a_while, Heed::Nothing, no_cache, (Use, Revalidate)),
            (Freshness::Immutable, Heed::Everything, no_cache, (Use, Use)),
        ] {
            assert_eq!(ask(freshness, heed, directives), expected, "{freshness:?} {heed:?} {directives:?}");
        }
        let mut want = want(by_http);
        (want.asked.heed, want.asked.directives) = (Heed::Everything, only);
        assert_eq!(decide(None, &want, at(0)), Decision::Refuse);
    }

    #[test]
    fn upstream_may_allow_a_stale_answer_while_it_is_asked() {
        let mut reference = cached();
        reference.headers.insert("cache-control".to_owned(), "stale-while-revalidate=9".to_owned());
        let want = want(Freshness::Upstream(Leave::default()));
        assert_eq!(decide(Some(&reference), &want, at(69)), Decision::UseMeanwhile);
        assert_eq!(decide(Some(&reference), &want, at(70)), Decision::Revalidate);
    }

    #[test]
    fn what_is_not_what_is_wanted_is_as_good_as_nothing() {
        let mut gone = cached();
        gone.http = Some(Http { status: 404, ..Http::default() });
        assert_eq!(decide(Some(&gone), &want(Freshness::Immutable), at(0)), Decision::Fetch);
        assert_eq!(decide(Some(&gone), &want(Freshness::Upstream(Leave::default())), at(0)), Decision::Use);
        let mut other = want(Freshness::Immutable);
        other.expect = Some(Digest::of(b"other").into());
        assert_eq!(decide(Some(&cached()), &other, at(0)), Decision::Fetch);
        other.expect = Some(Digest::of(b"").into());
        assert_eq!(decide(Some(&cached()), &other, at(0)), Decision::Use);
    }
}
