//! What was measured, and whether it is what was aimed at.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::json;

use crate::peers::Peer;

/// What a measure is to reach. Ratios are between medians of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    /// repoxy is at least so many times the peer's.
    AtLeast(f64, Peer),
    /// repoxy is at most so many times the peer's.
    AtMost(f64, Peer),
    /// repoxy is at most so much more than the peer's.
    Within(f64, Peer),
    /// repoxy is at most this.
    Limit(f64),
    /// None: shown for comparison.
    None,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(times, peer) => write!(f, "≥ {times} × {peer}"),
            Self::AtMost(times, peer) => write!(f, "≤ {times} × {peer}"),
            Self::Within(more, peer) => write!(f, "≤ {peer} + {more}"),
            Self::Limit(limit) => write!(f, "≤ {limit}"),
            Self::None => f.write_str("–"),
        }
    }
}

/// One line of the table.
#[derive(Debug)]
struct Measure {
    name: String,
    unit: &'static str,
    goal: Goal,
    samples: BTreeMap<Peer, Vec<f64>>,
}

/// All lines.
#[derive(Debug, Default)]
pub(crate) struct Book {
    measures: Vec<Measure>,
}

impl Measure {
    /// The median of a peer's samples.
    fn median(&self, peer: Peer) -> Option<f64> {
        let mut sorted = self.samples.get(&peer)?.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => None,
            even if even % 2 == 0 => Some(sorted[middle - 1].midpoint(sorted[middle])),
            _ => Some(sorted[middle]),
        }
    }

    /// repoxy's median over that of the peer the goal names.
    fn ratio(&self) -> Option<f64> {
        match self.goal {
            Goal::AtLeast(_, peer) | Goal::AtMost(_, peer) => {
                Some(self.median(Peer::Repoxy)? / self.median(peer)?)
            }
            Goal::Within(..) | Goal::Limit(_) | Goal::None => None,
        }
    }

    /// Whether the goal is reached; nothing if there is none, or a figure is missing.
    fn reached(&self) -> Option<bool> {
        let ours = self.median(Peer::Repoxy)?;
        match self.goal {
            Goal::AtLeast(times, _) => Some(self.ratio()? >= times),
            Goal::AtMost(times, _) => Some(self.ratio()? <= times),
            Goal::Within(more, peer) => Some(ours <= self.median(peer)? + more),
            Goal::Limit(limit) => Some(ours <= limit),
            Goal::None => None,
        }
    }
}

impl Book {
    /// Adds a sample.
    pub(crate) fn note(&mut self, name: &str, unit: &'static str, goal: Goal, peer: Peer, value: f64) {
        let position = self.measures.iter().position(|measure| measure.name == name).unwrap_or_else(|| {
            self.measures.push(Measure { name: name.to_owned(), unit, goal, samples: BTreeMap::new() });
            self.measures.len() - 1
        });
        self.measures[position].samples.entry(peer).or_default().push(value);
    }

    /// The names of measures that have a goal but not the figures to judge it by.
    pub(crate) fn without_figures(&self) -> Vec<&str> {
        let has_goal = |measure: &&Measure| !matches!(measure.goal, Goal::None);
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
        let peers = Peer::ALL.map(|peer| peer.to_string());
        let mut header = vec!["measure".to_owned(), "unit".to_owned()];
        header.extend(peers);
        header.extend(["ratio", "goal", "verdict"].map(str::to_owned));
        table.set_header(header);
        for measure in &self.measures {
            let mut row = vec![measure.name.clone(), measure.unit.to_owned()];
            row.extend(Peer::ALL.map(|peer| measure.median(peer).map_or("–".to_owned(), figure)));
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
                    measure.samples.iter().map(|(peer, values)| (peer.to_string(), values)).collect();
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

impl Measure {
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
