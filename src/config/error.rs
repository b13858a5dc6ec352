//! What is wrong with a configuration: one thing, where it stands, and what to do.

use std::fmt;

use super::Origin;

/// The first thing that is wrong with the configuration.
///
/// Shown as `<where>: <message>`, and `hint: <what to do>` on a line of its own. What the system said is
/// part of the message, for the hint comes last. A secret's value is never part of it.
#[derive(Debug)]
pub struct ConfigError {
    origin: Origin,
    message: String,
    hint: Option<String>,
}

impl ConfigError {
    pub(super) fn new(origin: &Origin, message: impl Into<String>) -> Self {
        Self { origin: origin.clone(), message: message.into(), hint: None }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            Origin::Default => {}
            origin => write!(f, "{origin}: ")?,
        }
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, "\nhint: {hint}"))
    }
}

impl std::error::Error for ConfigError {}

/// What is wrong with a value, before it is known where the value stands.
#[derive(Debug)]
pub(super) struct Problem {
    message: String,
    hint: Option<String>,
}

impl Problem {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(super) fn at(self, origin: &Origin) -> ConfigError {
        ConfigError { origin: origin.clone(), message: self.message, hint: self.hint }
    }
}

/// The word of `known` that somebody who wrote `written` most likely meant: at most a third of its
/// letters away.
pub(super) fn nearest<'k>(written: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    known
        .into_iter()
        .map(|word| (distance(written, word), word))
        .filter(|(distance, word)| *distance <= word.len().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// The fewest letters to insert, delete, replace or swap with their neighbour to make `b` of `a`, none of
/// them touched twice (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    // Of what each beginning of `b` is away from the beginnings of `a` before this one.
    let (mut before_last, mut last) = (Vec::new(), (0..=b.len()).collect::<Vec<_>>());
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && (a[i - 2], a[i - 1]) == (b[j - 1], b[j - 2]) {
                least = least.min(before_last[j - 2] + 1);
            }
            row.push(least);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_offered_only_if_it_is_near() {
        let known = ["listen", "log", "public_url", "ns"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("public-url", known), Some("public_url"));
        assert_eq!(nearest("lgo", known), Some("log"), "a swap of neighbours is one slip");
        assert_eq!(nearest("gol", known), None, "two of three letters");
        assert_eq!(nearest("lo", known), Some("log"));
        assert_eq!(nearest("storage", known), None);
    }

    #[test]
    fn the_distance_counts_single_letters_and_swaps_of_neighbours() {
        for (a, b, expected) in [
            ("", "", 0),
            ("", "ab", 2),
            ("kitten", "sitting", 3),
            ("a", "a", 0),
            ("ab", "ba", 1),
            ("mtach", "match", 1),
            ("abcd", "badc", 2),
            ("ca", "abc", 3),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
