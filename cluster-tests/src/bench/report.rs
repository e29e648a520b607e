//! Numbers with their spread, as a Markdown table and verdicts. Called by everything that measures.

use std::fmt::Write as _;

/// The same thing measured several times.
#[derive(Debug, Clone)]
pub(super) struct Spread(Vec<f64>);

impl Spread {
    /// # Panics
    /// Where nothing was measured.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        assert!(!values.is_empty(), "a spread of at least one value");
        values.sort_by(f64::total_cmp);
        Spread(values)
    }

    /// The middle value, or the mean of the two in the middle.
    pub(super) fn median(&self) -> f64 {
        let half = self.0.len() / 2;
        if self.0.len() % 2 == 1 { self.0[half] } else { (self.0[half - 1] + self.0[half]) / 2.0 }
    }

    /// The same in another unit.
    pub(super) fn scaled(&self, by: f64) -> Spread {
        Spread(self.0.iter().map(|value| value * by).collect())
    }

    fn min(&self) -> f64 {
        self.0[0]
    }

    fn max(&self) -> f64 {
        self.0[self.0.len() - 1]
    }
}

/// A line of the table; its goal, if it has one, is an upper bound.
#[derive(Debug)]
struct Row {
    what: String,
    unit: &'static str,
    spread: Spread,
    /// Beside the same measure of the bare proxy, round by round.
    ratio: Option<Spread>,
}

#[derive(Debug)]
struct Verdict {
    what: String,
    goal: f64,
    measured: f64,
    unit: &'static str,
}

/// Everything that was measured, in the order in which it was.
#[derive(Debug, Default)]
pub(super) struct Report {
    rows: Vec<Row>,
    verdicts: Vec<Verdict>,
    notes: Vec<String>,
}

impl Report {
    pub(super) fn row(&mut self, what: impl Into<String>, unit: &'static str, spread: Spread) {
        self.rows.push(Row { what: what.into(), unit, spread, ratio: None });
    }

    /// A row whose ratio to the bare proxy is shown too.
    pub(super) fn compared(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        spread: Spread,
        ratio: Spread,
    ) {
        self.rows.push(Row { what: what.into(), unit, spread, ratio: Some(ratio) });
    }

    /// Whether a median is within its upper bound.
    pub(super) fn goal(&mut self, what: impl Into<String>, unit: &'static str, goal: f64, measured: &Spread) {
        self.verdicts.push(Verdict { what: what.into(), goal, measured: measured.median(), unit });
    }

    pub(super) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    pub(super) fn to_markdown(&self) -> String {
        let mut text =
            String::from("| what | unit | median | min-max | ratio (min-max) |\n|---|---|---:|---:|---:|\n");
        for Row { what, unit, spread, ratio } in &self.rows {
            let ratio = ratio.as_ref().map_or_else(String::new, |ratio| {
                format!("{:.2} ({:.2}-{:.2})", ratio.median(), ratio.min(), ratio.max())
            });
            let (median, min, max) = (number(spread.median()), number(spread.min()), number(spread.max()));
            writeln!(text, "| {what} | {unit} | {median} | {min}-{max} | {ratio} |").expect(NEVER);
        }
        text.push('\n');
        for Verdict { what, goal, measured, unit } in &self.verdicts {
            let verdict = if measured <= goal { "ok" } else { "missed" };
            let (goal, measured) = (number(*goal), number(*measured));
            writeln!(text, "goal: {what} <= {goal} {unit}  measured: {measured}  {verdict}").expect(NEVER);
        }
        text.push('\n');
        for note in &self.notes {
            writeln!(text, "- {note}").expect(NEVER);
        }
        text
    }
}

const NEVER: &str = "writing to memory can't fail";

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
    fn the_median_is_in_the_middle() {
        assert_eq!(Spread::of([3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]).median(), 2.5);
    }

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
    fn a_goal_is_met_up_to_itself() {
        let mut report = Report::default();
        report.goal("a", "ns", 2.0, &Spread::of([2.0]));
        report.goal("b", "ns", 2.0, &Spread::of([2.1]));
        let text = report.to_markdown();
        assert!(text.contains("goal: a <= 2.00 ns  measured: 2.00  ok"), "{text}");
        assert!(text.contains("goal: b <= 2.00 ns  measured: 2.10  missed"), "{text}");
    }
}
