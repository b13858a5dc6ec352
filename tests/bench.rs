//! What the benchmarks make of their figures: which are judged by what, and when there are too few.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the benchmarks' own modules")]

#[path = "../benches/common/mod.rs"]
#[expect(dead_code, reason = "most of it is for measuring")]
mod common;

use std::fmt;
use std::time::Duration;

use common::Outcome;
use common::book::{Book, Column, Goal};
use common::group::{Group, in_turn, measure};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Ours,
    Other,
}

impl Column for Side {
    const ALL: &'static [Self] = &[Self::Ours, Self::Other];
    const OURS: Self = Self::Ours;
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ours => "ours",
            Self::Other => "other",
        })
    }
}

/// A book of one group from which both sides are expected, with these samples of one measure.
fn book(goal: Goal<Side>, samples: &[(Side, f64)]) -> Book<Side> {
    let mut book = Book::default();
    book.begin("group", Side::ALL);
    for (side, sample) in samples {
        book.note("measure", "ms", goal, *side, *sample);
    }
    book.end(Duration::from_secs(90));
    book
}

const OURS: [(Side, f64); 3] = [(Side::Ours, 1.0), (Side::Ours, 1.0), (Side::Ours, 3.0)];

#[test]
fn times_are_judged_by_the_median_and_what_must_never_be_more_by_the_worst_round() {
    assert_eq!(book(Goal::Limit(2.0), &OURS).count(), (1, 0));
    let never = book(Goal::Ceiling(2.0), &OURS);
    assert_eq!(never.count(), (0, 1));
    insta::assert_snapshot!(never.table(true), @"
    | measure | unit | ours | ratio | goal          | verdict |
    |---------|------|------|-------|---------------|---------|
    | measure | ms   | 3.00 | –     | ≤ 2 each time | MISSED  |
    ");
}

#[test]
fn who_has_a_figure_has_a_column() {
    let both = book(Goal::AtMost(1.0, Side::Other), &[(Side::Ours, 1.0), (Side::Other, 2.0)]);
    insta::assert_snapshot!(both.table(true), @"
    | measure | unit | ours | other | ratio | goal        | verdict |
    |---------|------|------|-------|-------|-------------|---------|
    | measure | ms   | 1.00 | 2.00  | 0.50  | ≤ 1 × other | ok      |
    ");
}

#[test]
fn each_expected_side_has_to_have_a_figure_in_each_group_with_a_goal_or_without() {
    assert_eq!(book(Goal::None, &[]).without_figures(), ["ours in `group`", "other in `group`"]);
    assert_eq!(book(Goal::None, &OURS).without_figures(), ["other in `group`"]);
    let mut two = book(Goal::None, &[(Side::Ours, 1.0), (Side::Other, 1.0)]);
    assert!(two.without_figures().is_empty());
    two.begin("empty", &[Side::Ours]);
    assert_eq!(two.without_figures(), ["ours in `empty`"]);
}

#[test]
fn what_is_no_figure_does_not_count_as_one() {
    let bad = [(Side::Ours, 1.0), (Side::Ours, f64::NAN), (Side::Other, 1.0)];
    assert_eq!(book(Goal::None, &bad).without_figures(), ["measure"]);
    let bad = [(Side::Ours, 1.0), (Side::Other, f64::INFINITY)];
    assert_eq!(book(Goal::None, &bad).without_figures(), ["other in `group`", "measure"]);
    // A ratio to nothing is none.
    let bad = [(Side::Ours, 1.0), (Side::Other, 0.0)];
    assert_eq!(book(Goal::AtLeast(1.0, Side::Other), &bad).without_figures(), ["measure"]);
}

#[test]
fn a_goal_without_the_figures_to_judge_it_by_is_said() {
    let mut book = book(Goal::AtMost(1.0, Side::Other), &OURS);
    book.note("another", "ms", Goal::None, Side::Other, 1.0);
    assert_eq!(book.without_figures(), ["measure"]);
}

#[test]
fn what_figures_depend_on_and_how_long_they_took_is_told() {
    let mut book = book(Goal::None, &[(Side::Ours, 1.0), (Side::Other, 2.0)]);
    book.condition("weather", "fair");
    assert_eq!(book.times(), "1.5 minutes of measuring; seconds: group 90");
    insta::assert_snapshot!(book.table(true), @"
    weather: fair
    | measure | unit | ours | other | ratio | goal | verdict |
    |---------|------|------|-------|-------|------|---------|
    | measure | ms   | 1.00 | 2.00  | –     | –    | –       |
    ");
    let json = book.json(true);
    assert_eq!(json["conditions"], serde_json::json!({ "weather": "fair" }));
    assert_eq!(json["seconds"], serde_json::json!({ "group": 90.0 }));
}

#[test]
fn only_the_group_that_is_asked_for_is_measured() -> Outcome<()> {
    let groups = [
        Group { name: "one", sides: Side::ALL, rows: |(), _| Err("it ran".into()) },
        Group { name: "two", sides: &[Side::Ours], rows: |(), book| note(book) },
    ];
    let mut book = Book::default();
    measure(&groups, Some("two"), &(), &mut book)?;
    assert_eq!((book.len(), book.without_figures().len()), (1, 0));
    let failed = measure(&groups, None, &(), &mut book).map_err(|error| error.to_string());
    assert_eq!(failed, Err("one: it ran".to_owned()));
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "what a group's rows are")]
fn note(book: &mut Book<Side>) -> Outcome<()> {
    book.note("measure", "ms", Goal::None, Side::Ours, 1.0);
    Ok(())
}

#[test]
fn each_round_begins_with_the_next_one() {
    let rounds = (0..4).map(|round| in_turn(&[1, 2, 3], round).copied().collect::<Vec<_>>());
    assert_eq!(rounds.collect::<Vec<_>>(), [[1, 2, 3], [2, 3, 1], [3, 1, 2], [1, 2, 3]]);
    assert_eq!(in_turn::<u8>(&[], 1).count(), 0);
}
