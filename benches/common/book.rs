//! What was measured, and whether it is what was aimed at.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

/// What the columns of a table stand for: ours, and those beside it.
pub(crate) trait Column: Copy + Ord + fmt::Display + fmt::Debug + 'static {
    /// All, in the order of the table.
    const ALL: &'static [Self];
    /// The one that is judged.
    const OURS: Self;
}

/// What a measure is to reach. Ratios are between medians of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal<C> {
    /// Ours is at least so many times the other.
    AtLeast(f64, C),
    /// Ours is at most so many times the other.
    AtMost(f64, C),
    /// Ours is at most so much more than the other.
    Within(f64, C),
    /// Ours is at most this.
    Limit(f64),
    /// None: shown for comparison.
    None,
}

impl<C: Column> fmt::Display for Goal<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(times, other) => write!(f, "≥ {times} × {other}"),
            Self::AtMost(times, other) => write!(f, "≤ {times} × {other}"),
            Self::Within(more, other) => write!(f, "≤ {other} + {more}"),
            Self::Limit(limit) => write!(f, "≤ {limit}"),
            Self::None => f.write_str("–"),
        }
    }
}

/// One line of the table.
#[derive(Debug)]
struct Measure<C> {
    name: String,
    unit: &'static str,
    goal: Goal<C>,
    samples: BTreeMap<C, Vec<f64>>,
}

/// All lines.
#[derive(Debug)]
pub(crate) struct Book<C> {
    measures: Vec<Measure<C>>,
}

impl<C: Column> Measure<C> {
    /// The median of a column's samples.
    fn median(&self, column: C) -> Option<f64> {
        let mut sorted = self.samples.get(&column)?.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            even if even % 2 == 0 => Some(sorted[middle - 1].midpoint(sorted[middle])),
            _ => Some(sorted[middle]),
        }
    }

    /// Our median over that of the column the goal names.
    fn ratio(&self) -> Option<f64> {
        match self.goal {
            Goal::AtLeast(_, other) | Goal::AtMost(_, other) => {
                Some(self.median(C::OURS)? / self.median(other)?)
            }
            Goal::Within(..) | Goal::Limit(_) | Goal::None => None,
        }
    }

    /// Whether the goal is reached; nothing if there is none, or a figure is missing.
    fn reached(&self) -> Option<bool> {
        let ours = self.median(C::OURS)?;
        match self.goal {
            Goal::AtLeast(times, _) => Some(self.ratio()? >= times),
            Goal::AtMost(times, _) => Some(self.ratio()? <= times),
            Goal::Within(more, other) => Some(ours <= self.median(other)? + more),
            Goal::Limit(limit) => Some(ours <= limit),
            Goal::None => None,
        }
    }
}

impl<C> Default for Book<C> {
    fn default() -> Self {
        Self { measures: Vec::new() }
    }
}

impl<C: Column> Book<C> {
    /// Adds a sample, and tells whoever waits.
    pub(crate) fn note(&mut self, name: &str, unit: &'static str, goal: Goal<C>, column: C, value: f64) {
        let position = self.measures.iter().position(|measure| measure.name == name).unwrap_or_else(|| {
            self.measures.push(Measure { name: name.to_owned(), unit, goal, samples: BTreeMap::new() });
            self.measures.len() - 1
        });
        self.measures[position].samples.entry(column).or_default().push(value);
        eprintln!("  {name}: {column} {} {unit}", figure(value));
    }

    /// The names of measures that have a goal but not the figures to judge it by.
    pub(crate) fn without_figures(&self) -> Vec<&str> {
        let has_goal = |measure: &&Measure<C>| !matches!(measure.goal, Goal::None);
        let unjudged = self.measures.iter().filter(has_goal).filter(|measure| measure.reached().is_none());
        unjudged.map(|measure| measure.name.as_str()).collect()
    }

    /// How many goals are reached and how many are missed.
    pub(crate) fn count(&self) -> (usize, usize) {
        let count = |what| self.measures.iter().filter(|measure| measure.reached() == Some(what)).count();
        (count(true), count(false))
    }

    /// How many measures there are.
    pub(crate) fn len(&self) -> usize {
        self.measures.len()
    }

    /// The table; `judged` says whether figures are held against goals.
    pub(crate) fn table(&self, judged: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        let mut header = vec!["measure".to_owned(), "unit".to_owned()];
        header.extend(C::ALL.iter().map(ToString::to_string));
        header.extend(["ratio", "goal", "verdict"].map(str::to_owned));
        table.set_header(header);
        for measure in &self.measures {
            let mut row = vec![measure.name.clone(), measure.unit.to_owned()];
            row.extend(C::ALL.iter().map(|column| measure.median(*column).map_or("–".to_owned(), figure)));
            row.push(measure.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2}")));
            row.push(measure.goal.to_string());
            row.push(measure.verdict(judged).to_owned());
            table.add_row(row);
        }
        table.to_string()
    }

    /// Everything, samples included.
    pub(crate) fn json(&self, judged: bool) -> serde_json::Value {
        let measures: Vec<_> = self
            .measures
            .iter()
            .map(|measure| {
                let samples: BTreeMap<_, _> =
                    measure.samples.iter().map(|(column, values)| (column.to_string(), values)).collect();
                json!({
                    "name": measure.name,
                    "unit": measure.unit,
                    "samples": samples,
                    "ratio": measure.ratio(),
                    "goal": measure.goal.to_string(),
                    "verdict": measure.verdict(judged),
                })
            })
            .collect();
        json!({ "judged": judged, "measures": measures })
    }
}

impl<C: Column> Measure<C> {
    fn verdict(&self, judged: bool) -> &'static str {
        match self.reached() {
            Some(_) if !judged => "not judged",
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "–",
        }
    }
}

/// Three significant digits or all before the point.
fn figure(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        small if small >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
