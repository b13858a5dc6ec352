//! `docs/reliability.md`, made from the suite itself: its tests are asked for by their names, what a
//! row has no test for is in [`NOT_RUN`], and results are those of the last full run.
//!
//! Every run checks that the page names the rows and tests that there are. `tests/run --all-faults`
//! runs all of them and writes the page anew.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::process::Command;

use super::reasons::{NOT_RUN, NOTES, SECTIONS};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reliability.md");

const INTRODUCTION: &str = "\
# Reliability

What repoxy withstands, row by row of the fault matrix, each proved by a test in `tests/faults/` against the real binary.
Made by the suite: `tests/run --all-faults` runs everything and writes this page with the results, every other run of the
tests fails if a row, a test or a reason has changed since.

*passed* and *failed* are results of the last full run; *not run* has its reason in the note. A test that is known to fail
is not part of ordinary runs and says so here.
";

/// The rows in order: `A1` to the last.
fn rows() -> impl Iterator<Item = String> {
    SECTIONS.iter().flat_map(|(letter, count, _)| (1..=*count).map(move |n| format!("{letter}{n}")))
}

/// The row that a test is named for.
fn row_of(test: &str) -> Option<String> {
    let name = test.rsplit("::").next()?;
    let row = name.split('_').next()?.to_uppercase();
    let digits = row.get(1..)?;
    let numbered = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    (numbered && rows().any(|known| known == row)).then_some(row)
}

/// The tests of this binary, by row, without the modules that they are in.
fn tests() -> BTreeMap<String, Vec<String>> {
    let binary = std::env::current_exe().expect("a path");
    let output = Command::new(binary).args(["--list", "--format", "terse"]).output().expect("it runs");
    let list = String::from_utf8(output.stdout).expect("text");
    let mut tests: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for test in list.lines().filter_map(|line| line.strip_suffix(": test")) {
        if let Some(row) = row_of(test) {
            let name = test.rsplit("::").next().unwrap_or(test);
            tests.entry(row).or_default().push(name.to_owned());
        }
    }
    for tests in tests.values_mut() {
        tests.sort();
    }
    tests
}

/// A row's line but for the result.
fn line(row: &str, tests: &[String], result: &str) -> String {
    let told =
        |table: &[(&str, &'static str)]| table.iter().find(|(known, _)| *known == row).map(|(_, why)| *why);
    let note = told(NOT_RUN).or_else(|| told(NOTES)).unwrap_or("");
    let names = tests.iter().map(|test| format!("`{test}`")).collect::<Vec<_>>().join("<br>");
    format!("| {row} | {names} | {result} | {note} |\n")
}

/// The page, with the result that each row had.
fn page(results: impl Fn(&str, &[String]) -> String) -> String {
    let tests = tests();
    let mut page = INTRODUCTION.to_owned();
    for (letter, count, title) in SECTIONS {
        let _ = write!(
            page,
            "\n## {letter}. {title}\n\n| row | test | last result | note |\n|---|---|---|---|\n"
        );
        for n in 1..=*count {
            let row = format!("{letter}{n}");
            let own = tests.get(&row).map(Vec::as_slice).unwrap_or_default();
            page += &line(&row, own, &results(&row, own));
        }
    }
    page
}

/// The results in a log file of the test runner: `ok <test>`, `failed <test>`, `ignored <test>`.
fn read_results(log: &str) -> HashMap<String, String> {
    let lines = log.lines().filter_map(|line| line.split_once(' '));
    lines
        .filter_map(|(result, test)| {
            Some((test.rsplit("::").next()?.split(' ').next()?.to_owned(), result.to_owned()))
        })
        .collect()
}

/// What a row's tests came to: the worst of them.
fn outcome(tests: &[String], results: &HashMap<String, String>) -> &'static str {
    let of = |test: &String| results.get(test).map_or("", String::as_str);
    if tests.is_empty() || tests.iter().any(|test| matches!(of(test), "ignored" | "")) {
        "not run"
    } else if tests.iter().all(|test| of(test) == "ok") {
        "passed"
    } else {
        "failed"
    }
}

/// The results that a written page states, by row.
fn stated(page: &str) -> HashMap<&str, &str> {
    let cells = page.lines().map(|line| line.split(" | ").collect::<Vec<_>>());
    cells
        .filter(|cells| cells.len() == 4)
        .map(|cells| (cells[0].trim_start_matches("| "), cells[2]))
        .collect()
}

#[test]
fn every_row_has_a_test_or_a_reason_and_not_both_by_mistake() {
    let tests = tests();
    for row in rows() {
        let proved = tests.contains_key(&row);
        let excused = NOT_RUN.iter().any(|(known, _)| *known == row);
        assert!(proved != excused, "{row}: tests {proved}, reason {excused}");
    }
    for (row, _) in NOT_RUN.iter().chain(NOTES) {
        assert!(rows().any(|known| known == *row), "{row} is no row");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "asks whether to write the page instead of checking it")]
fn the_page_on_reliability_is_what_the_suite_says() {
    let written = std::fs::read_to_string(PAGE).unwrap_or_default();
    let stated = stated(&written);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let log =
            std::env::var("FAULT_RESULTS").ok().map(|path| std::fs::read_to_string(path).expect("a log"));
        let results = log.as_deref().map(read_results);
        let new = page(|row, tests| match &results {
            Some(results) => outcome(tests, results).to_owned(),
            None => (*stated.get(row).unwrap_or(&"not run")).to_owned(),
        });
        std::fs::write(PAGE, new).expect("written");
        return;
    }
    let expected = page(|row, _| (*stated.get(row).unwrap_or(&"not run")).to_owned());
    assert!(
        written == expected,
        "docs/reliability.md is out of date; `UPDATE_DOCS=1 cargo test --test faults reliability` writes it"
    );
}

#[test]
fn a_row_is_as_good_as_the_worst_of_its_tests() {
    let log = "ok a::a1_x\nfailed a::a1_y\nignored a::a2_z\nok a::a3_w\n";
    let results = read_results(log);
    for (tests, expected) in [
        (&["a1_x"][..], "passed"),
        (&["a1_x", "a1_y"], "failed"),
        (&["a2_z"], "not run"),
        (&["a3_w", "a4_new"], "not run"),
        (&[], "not run"),
    ] {
        let tests: Vec<_> = tests.iter().map(|&test| test.to_owned()).collect();
        assert_eq!(outcome(&tests, &results), expected, "{tests:?}");
    }
    assert_eq!(row_of("outage::a11_one_probe").as_deref(), Some("A11"));
    for none in ["matrix::a_row_is", "x::a26_no_such_row", "x::every_row", "x::z1_x"] {
        assert_eq!(row_of(none), None, "{none}");
    }
}
