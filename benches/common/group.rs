//! Groups of rows, measured one after the other, each timed.

use std::time::Instant;

use super::Outcome;
use super::book::{Book, Column};

/// Rows that are measured together.
#[derive(Debug)]
pub(crate) struct Group<B, C: 'static> {
    /// What `--only` calls it.
    pub(crate) name: &'static str,
    /// Who has to have a figure in it.
    pub(crate) sides: &'static [C],
    /// Measures, and notes what it has seen.
    pub(crate) rows: fn(&B, &mut Book<C>) -> Outcome<()>,
}

/// Measures all groups, or the one of that name.
pub(crate) fn measure<B, C: Column>(
    groups: &[Group<B, C>],
    only: Option<&str>,
    bench: &B,
    book: &mut Book<C>,
) -> Outcome<()> {
    for group in groups.iter().filter(|group| only.is_none_or(|only| only == group.name)) {
        eprintln!("measuring: {}", group.name);
        book.begin(group.name, group.sides);
        let began = Instant::now();
        (group.rows)(bench, book).map_err(|error| format!("{}: {error}", group.name))?;
        book.end(began.elapsed());
    }
    Ok(())
}

/// All of them, each round beginning with the next one, so that nobody is always the first.
pub(crate) fn in_turn<T>(all: &[T], round: usize) -> impl Iterator<Item = &T> {
    all.iter().cycle().skip(round % all.len().max(1)).take(all.len())
}
