//! What was measured, and whether it is what was aimed at.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

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
    /// Ours is at most this at the median: times.
    Limit(f64),
    /// Ours is at most this in every round: counts and memory, of which once too much is too much.
    Ceiling(f64),
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
            Self::Ceiling(limit) => write!(f, "≤ {limit} each time"),
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
    /// How many groups had begun when it was first noted: it belongs to the last of them.
    begun: usize,
}

/// What is known of a group of lines.
#[derive(Debug)]
struct Section<C: 'static> {
    name: &'static str,
    /// Who has to have a figure in it.
    sides: &'static [C],
    took: Option<Duration>,
}

/// All lines.
#[derive(Debug)]
pub(crate) struct Book<C: 'static> {
    /// What the figures depend on, by its name.
    conditions: Vec<(String, String)>,
    sections: Vec<Section<C>>,
    measures: Vec<Measure<C>>,
}

/// The middle of some figures.
pub(crate) fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even % 2 == 0 => Some(sorted[middle - 1].midpoint(sorted[middle])),
        _ => Some(sorted[middle]),
    }
}

impl<C: Column> Measure<C> {
    /// What stands for a column's samples, and is judged: the largest where every round counts, else the median.
    fn figure(&self, column: C) -> Option<f64> {
        let samples = self.samples.get(&column)?;
        match self.goal {
            Goal::Ceiling(_) => samples.iter().copied().max_by(f64::total_cmp),
            _ => median(samples),
        }
    }

    /// Our figure over that of the column the goal names.
    fn ratio(&self) -> Option<f64> {
        match self.goal {
            Goal::AtLeast(_, other) | Goal::AtMost(_, other) => {
                Some(self.figure(C::OURS)? / self.figure(other)?).filter(|ratio| ratio.is_finite())
            }
            Goal::Within(..) | Goal::Limit(_) | Goal::Ceiling(_) | Goal::None => None,
        }
    }

    /// Whether the goal is reached; nothing if there is none, or a figure is missing.
    fn reached(&self) -> Option<bool> {
        let ours = self.figure(C::OURS)?;
        match self.goal {
            Goal::AtLeast(times, _) => Some(self.ratio()? >= times),
            Goal::AtMost(times, _) => Some(self.ratio()? <= times),
            Goal::Within(more, other) => Some(ours <= self.figure(other)? + more),
            Goal::Limit(limit) | Goal::Ceiling(limit) => Some(ours <= limit),
            Goal::None => None,
        }
    }

    fn verdict(&self, judged: bool) -> &'static str {
        match self.reached() {
            Some(_) if !judged => "not judged",
            Some(true) => "ok",
            Some(false) => "MISSED",
            None => "–",
        }
    }

    /// Whether it says something of a column.
    fn tells_of(&self, column: C) -> bool {
        self.samples.get(&column).is_some_and(|samples| samples.iter().any(|sample| sample.is_finite()))
    }

    /// Whether a sample is no figure, or there are not those to judge it by.
    fn is_flawed(&self) -> bool {
        let unjudged = !matches!(self.goal, Goal::None) && self.reached().is_none();
        unjudged || self.samples.values().flatten().any(|sample| !sample.is_finite())
    }
}

impl<C> Default for Book<C> {
    fn default() -> Self {
        Self { conditions: Vec::new(), sections: Vec::new(), measures: Vec::new() }
    }
}

impl<C: Column> Book<C> {
    /// Says what figures depend on.
    pub(crate) fn condition(&mut self, name: &str, value: &str) {
        self.conditions.push((name.to_owned(), value.to_owned()));
    }

    /// Begins a group; each of `sides` has to have a figure in it.
    pub(crate) fn begin(&mut self, name: &'static str, sides: &'static [C]) {
        self.sections.push(Section { name, sides, took: None });
    }

    /// Ends the group that was begun last, and says how long it took.
    pub(crate) fn end(&mut self, took: Duration) {
        if let Some(section) = self.sections.last_mut() {
            section.took = Some(took);
            eprintln!("{} took {:.0} s", section.name, took.as_secs_f64());
        }
    }

    /// Adds a sample, and tells whoever waits.
    pub(crate) fn note(&mut self, name: &str, unit: &'static str, goal: Goal<C>, column: C, value: f64) {
        let position = self.measures.iter().position(|measure| measure.name == name).unwrap_or_else(|| {
            let (name, samples, begun) = (name.to_owned(), BTreeMap::new(), self.sections.len());
            self.measures.push(Measure { name, unit, goal, samples, begun });
            self.measures.len() - 1
        });
        self.measures[position].samples.entry(column).or_default().push(value);
        eprintln!("  {name}: {column} {} {unit}", figure(value));
    }

    /// What there are no figures of: groups that noted nothing of somebody they had to, measures with a sample that is
    /// no figure, or without those to judge them by.
    pub(crate) fn without_figures(&self) -> Vec<String> {
        let mut missing = Vec::new();
        for (at, section) in self.sections.iter().enumerate() {
            let measures = || self.measures.iter().filter(|measure| measure.begun == at + 1);
            let absent =
                section.sides.iter().filter(|side| !measures().any(|measure| measure.tells_of(**side)));
            missing.extend(absent.map(|side| format!("{side} in `{}`", section.name)));
        }
        let flawed = self.measures.iter().filter(|measure| measure.is_flawed());
        missing.extend(flawed.map(|measure| measure.name.clone()));
        missing
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

    /// What the figures depend on, a line each, and the table; `judged` says whether figures are held against goals.
    pub(crate) fn table(&self, judged: bool) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(comfy_table::presets::ASCII_MARKDOWN);
        let tells = |column: &&C| self.measures.iter().any(|measure| measure.tells_of(**column));
        let columns: Vec<&C> = C::ALL.iter().filter(tells).collect();
        let mut header = vec!["measure".to_owned(), "unit".to_owned()];
        header.extend(columns.iter().map(ToString::to_string));
        header.extend(["ratio", "goal", "verdict"].map(str::to_owned));
        table.set_header(header);
        for measure in &self.measures {
            let mut row = vec![measure.name.clone(), measure.unit.to_owned()];
            row.extend(columns.iter().map(|column| measure.figure(**column).map_or("–".to_owned(), figure)));
            row.push(measure.ratio().map_or("–".to_owned(), |ratio| format!("{ratio:.2}")));
            row.push(measure.goal.to_string());
            row.push(measure.verdict(judged).to_owned());
            table.add_row(row);
        }
        let conditions = self.conditions.iter().map(|(name, value)| format!("{name}: {value}\n"));
        conditions.chain([table.to_string()]).collect()
    }

    /// How long each group took, and all of them.
    pub(crate) fn times(&self) -> String {
        let took = |section: &Section<C>| Some((section.name, section.took?.as_secs_f64()));
        let took: Vec<_> = self.sections.iter().filter_map(took).collect();
        let each: Vec<_> = took.iter().map(|(name, seconds)| format!("{name} {seconds:.0}")).collect();
        let all = took.iter().map(|(_, seconds)| seconds).sum::<f64>() / 60.0;
        format!("{all:.1} minutes of measuring; seconds: {}", each.join(", "))
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
        let conditions: BTreeMap<_, _> = self.conditions.iter().map(|(name, value)| (name, value)).collect();
        let seconds: BTreeMap<_, _> = self
            .sections
            .iter()
            .map(|section| (section.name, section.took.map(|took| took.as_secs_f64())))
            .collect();
        json!({ "conditions": conditions, "judged": judged, "measures": measures, "seconds": seconds })
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
