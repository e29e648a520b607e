//! What was measured: rows of figures, how some of them compare, goals, and what must be known to read them.
//! Called by everything that measures; `save` writes it down, `markdown` and `svg` show it.

mod circumstances;
mod markdown;
mod save;
mod spread;
mod svg;

use serde::Serialize;

pub(super) use circumstances::Circumstances;
pub(super) use save::save;
pub(super) use spread::Spread;

/// What Ringway itself is called among those that are compared.
pub(super) const RINGWAY: &str = "Ringway";

/// Something that was measured of one or of several peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Figure {
    pub(super) case: &'static str,
    /// Under which load or of which size; empty where there is but one.
    pub(super) setting: String,
    #[serde(rename = "figure")]
    pub(super) name: String,
    pub(super) unit: &'static str,
}

impl Figure {
    pub(super) fn new(
        case: &'static str,
        setting: impl Into<String>,
        name: impl Into<String>,
        unit: &'static str,
    ) -> Figure {
        Figure { case, setting: setting.into(), name: name.into(), unit }
    }
}

/// A figure of one peer.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    figure: Figure,
    peer: String,
    #[serde(flatten)]
    spread: Spread,
}

/// How one peer's figure compares with another's, round by round.
#[derive(Debug, Serialize)]
struct Comparison {
    #[serde(flatten)]
    figure: Figure,
    peer: String,
    against: String,
    how: How,
    #[serde(flatten)]
    spread: Spread,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum How {
    Ratio,
    Difference,
}

/// What a median should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Goal {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    fn is_met_by(self, measured: f64) -> bool {
        match self {
            Goal::AtMost(most) => measured <= most,
            Goal::AtLeast(least) => measured >= least,
        }
    }
}

#[derive(Debug, Serialize)]
struct Verdict {
    what: String,
    goal: Goal,
    unit: &'static str,
    /// `None` where what it is about was left out.
    measured: Option<f64>,
    verdict: &'static str,
}

impl Verdict {
    fn new(what: String, goal: Goal, unit: &'static str, measured: Option<f64>) -> Verdict {
        let verdict = match measured {
            None => "not measured",
            Some(measured) if goal.is_met_by(measured) => "ok",
            Some(_) => "missed",
        };
        Verdict { what, goal, unit, measured, verdict }
    }
}

/// A panel of the picture: a bar for each peer that has the figure.
#[derive(Debug)]
struct Chart {
    title: String,
    figure: Figure,
}

/// Everything that was measured, in the order in which it was.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    rows: Vec<Row>,
    comparisons: Vec<Comparison>,
    goals: Vec<Verdict>,
    notes: Vec<String>,
    #[serde(skip)]
    charts: Vec<Chart>,
}

impl Report {
    pub(super) fn row(&mut self, figure: Figure, peer: impl Into<String>, spread: Spread) {
        self.rows.push(Row { figure, peer: peer.into(), spread });
    }

    /// Writes down, and gives, how often as much one peer's figure is; `None` where one of them was left out.
    pub(super) fn ratio(&mut self, figure: &Figure, peer: &str, against: &str) -> Option<Spread> {
        self.compare(figure, peer, against, How::Ratio)
    }

    /// The same of how much more it is.
    pub(super) fn difference(&mut self, figure: &Figure, peer: &str, against: &str) -> Option<Spread> {
        self.compare(figure, peer, against, How::Difference)
    }

    fn compare(&mut self, figure: &Figure, peer: &str, against: &str, how: How) -> Option<Spread> {
        let (one, other) = (self.spread(figure, peer)?, self.spread(figure, against)?);
        let spread = match how {
            How::Ratio => one.over(other),
            How::Difference => one.minus(other),
        };
        self.comparisons.push(Comparison {
            figure: figure.clone(),
            peer: peer.to_owned(),
            against: against.to_owned(),
            how,
            spread: spread.clone(),
        });
        Some(spread)
    }

    /// A goal of the median; a benchmark does not fail where one is missed.
    pub(super) fn goal(
        &mut self,
        what: impl Into<String>,
        goal: Goal,
        unit: &'static str,
        measured: Option<&Spread>,
    ) {
        self.goals.push(Verdict::new(what.into(), goal, unit, measured.map(Spread::median)));
    }

    /// Something that one must know to read the figures.
    pub(super) fn note(&mut self, note: impl Into<String>) {
        let note = note.into();
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Has a figure drawn.
    pub(super) fn chart(&mut self, title: impl Into<String>, figure: Figure) {
        self.charts.push(Chart { title: title.into(), figure });
    }

    pub(super) fn spread(&self, figure: &Figure, peer: &str) -> Option<&Spread> {
        self.rows.iter().find(|row| row.figure == *figure && row.peer == peer).map(|row| &row.spread)
    }

    pub(super) fn to_markdown(&self) -> String {
        markdown::write(self)
    }
}

/// Three digits that count, and never an exponent.
fn number(value: f64) -> String {
    let decimals = match value.abs() {
        below if below < 10.0 => 2,
        below if below < 100.0 => 1,
        _ => 0,
    };
    let digits = format!("{value:.decimals$}");
    if decimals > 0 || digits.len() < 5 { digits } else { grouped(&digits) }
}

fn grouped(digits: &str) -> String {
    let mut text = String::new();
    for (at, digit) in digits.char_indices() {
        if at > 0 && digit.is_ascii_digit() && (digits.len() - at).is_multiple_of(3) && !text.ends_with('-') {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_digits_that_count() {
        for (value, text) in [
            (1.234, "1.23"),
            (45.67, "45.7"),
            (999.6, "1000"),
            (12_345.0, "12,345"),
            (-123_456.0, "-123,456"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_comparison_needs_both_peers() {
        let figure = Figure::new("calls", "saturated", "CPU per request", "us");
        let mut report = Report::default();
        report.row(figure.clone(), RINGWAY, Spread::of([4.0, 6.0]));
        assert_eq!(report.ratio(&figure, RINGWAY, "nginx"), None);
        report.row(figure.clone(), "nginx", Spread::of([2.0, 2.0]));
        assert_eq!(report.ratio(&figure, RINGWAY, "nginx"), Some(Spread::of([2.0, 3.0])));
        assert_eq!(report.difference(&figure, RINGWAY, "nginx"), Some(Spread::of([2.0, 4.0])));
        let other = Figure { setting: "2,000/s".to_owned(), ..figure };
        assert_eq!(report.ratio(&other, RINGWAY, "nginx"), None);
    }

    #[test]
    fn a_goal_is_met_up_to_itself_and_unknown_where_nothing_was_measured() {
        let verdict = |goal, measured| Verdict::new(String::new(), goal, "x", measured).verdict;
        assert_eq!(verdict(Goal::AtMost(2.0), Some(2.0)), "ok");
        assert_eq!(verdict(Goal::AtMost(2.0), Some(2.1)), "missed");
        assert_eq!(verdict(Goal::AtLeast(2.0), Some(2.0)), "ok");
        assert_eq!(verdict(Goal::AtLeast(2.0), Some(1.9)), "missed");
        assert_eq!(verdict(Goal::AtLeast(2.0), None), "not measured");
    }
}
