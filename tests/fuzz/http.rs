//! What HTTP says of caching, in header fields that may hold anything.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use repoxy::model::http_cache::{
    Excuse, MAX_SECONDS, Moment, RequestDirectives, Reuse, Selection, end_to_end, freshen, initial_age,
    is_hop_by_hop, lifetime, may_excuse, may_store, reuse, selection,
};
use repoxy::model::{Digest, Ref, Timestamp};

use super::edit::edited;

/// Fields that caching goes by, as they should be.
const FIELDS: &[(&str, &str)] = &[
    ("cache-control", "public, max-age=60, s-maxage=\"30\", stale-if-error=600, no-cache=\"set-cookie\""),
    ("cache-control", "private, must-understand"),
    ("age", "17"),
    ("date", "Sat, 22 Nov 2025 10:00:00 GMT"),
    ("expires", "Sat, 22 Nov 2025 11:00:00 GMT"),
    ("last-modified", "Saturday, 22-Nov-25 10:00:00 GMT"),
    ("vary", "accept-encoding, X-Thing"),
    ("etag", "W/\"x\""),
    ("pragma", "no-cache"),
    ("connection", "x-thing, close"),
    ("content-encoding", "gzip"),
    ("x-thing", "a, b"),
];

/// What readers of fields stumble over.
const PIECES: &[&str] = &[
    ",",
    ", ",
    ",,",
    "=",
    "\"",
    "\\",
    ";",
    " ",
    "\t",
    "*",
    "-1",
    "0",
    "2147483649",
    "18446744073709551616",
    "1.5",
    "no-store",
    "no-cache",
    "max-age=",
    "MAX-AGE=0",
    "s-maxage",
    "\u{e9}",
    "GMT",
    "1969",
    "9999",
    "x",
];

/// Directives that are understood the same by everybody.
const PLAIN: &[&str] =
    &["no-store", "private", "public", "max-age=60", "s-maxage=5", "must-revalidate", "x=\"no, y\""];

fn fields() -> impl Strategy<Value = HeaderMap> {
    let field = select(FIELDS).prop_flat_map(|(name, value)| (Just(name), edited(vec![value], PIECES)));
    vec(field, 0..5).prop_map(|fields| {
        let fields = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, HeaderValue::from_bytes(&value).ok()?)));
        fields.fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(HeaderName::from_static(name), value);
            headers
        })
    })
}

fn moments() -> impl Strategy<Value = Timestamp> {
    let within = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    let seconds = prop_oneof![4 => 1_763_000_000_i64..1_764_000_000, 1 => within];
    seconds.prop_map(|second| Timestamp::from_second(second).expect("within bounds"))
}

proptest! {
    #![proptest_config(super::cases())]

    #[test]
    fn times_are_bounded_and_what_is_kept_belongs_to_the_answer(
        answer in fields(), request in fields(), asked in moments(), received in moments(), now in moments(),
        status in select(vec![200_u16, 206, 301, 304, 404, 500, 599]), excuse in select(vec![Excuse::Away, Excuse::Erring]),
    ) {
        let status = StatusCode::from_u16(status).expect("a status");
        let age = initial_age(&answer, Moment { asked, received });
        prop_assert!(age <= MAX_SECONDS && lifetime(status, &answer, received) <= MAX_SECONDS);
        let wants = RequestDirectives::of(&request);
        let stores = may_store(&wants, false, status, &answer, received);
        prop_assert!(!stores || selection(&answer) != Selection::Never);
        prop_assert!(stores || !may_store(&wants, true, status, &answer, received), "what is secret is kept sooner");

        let kept = end_to_end(&answer);
        let strangers = kept.keys().filter(|name| is_hop_by_hop(&name.parse().expect("a name")));
        prop_assert_eq!(strangers.count(), 0, "{:?}", kept);
        let renewed = freshen(&kept, &request);
        prop_assert_eq!(renewed.get("content-encoding"), kept.get("content-encoding"));

        let mut reference = Ref::new("generic.file".to_owned(), Digest::of(b""), 0, received);
        reference.ttl_seconds = Some(lifetime(status, &answer, received));
        reference.headers = kept;
        let found = reuse(&reference, &wants, now);
        prop_assert!(!wants.no_cache || found == Reuse::Ask);
        prop_assert!(!wants.no_cache || !may_excuse(&reference, &wants, excuse, Duration::MAX, now));
        prop_assert_eq!(selection(&answer).variant(&request), selection(&answer).variant(&request.clone()));
    }

    #[test]
    fn what_must_not_be_stored_is_not_however_it_is_written(
        directives in subsequence(PLAIN, 1..PLAIN.len()).prop_shuffle(), upper in any::<bool>(), lines in any::<bool>(), now in moments(),
    ) {
        let written: Vec<String> = directives
            .iter()
            .map(|directive| if upper { directive.to_ascii_uppercase() } else { (*directive).to_owned() })
            .collect();
        let values = if lines { written } else { vec![written.join(" ,")] };
        let mut answer = HeaderMap::new();
        for value in &values {
            answer.append("cache-control", value.parse().expect("a value"));
        }
        let forbidden = directives.iter().any(|directive| matches!(*directive, "no-store" | "private"));
        let stores = may_store(&RequestDirectives::default(), false, StatusCode::OK, &answer, now);
        prop_assert_eq!(stores, !forbidden, "{:?}", values);
    }
}
