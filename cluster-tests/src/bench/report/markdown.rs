//! A report as Markdown: goals first, then a section for each case with a table for each setting. Pure.
//! Called by `save` and by the benchmarks that print only.

use std::fmt::Write as _;

use super::{Comparison, Goal, How, Report, Row, Spread, number};

const NEVER: &str = "writing to memory can't fail";

pub(super) fn write(report: &Report) -> String {
    let mut text = String::new();
    goals(report, &mut text);
    for case in distinct(report.rows.iter().map(|row| row.figure.case)) {
        writeln!(text, "## {case}\n").expect(NEVER);
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.figure.case == case).collect();
        for setting in distinct(rows.iter().map(|row| row.figure.setting.as_str())) {
            if !setting.is_empty() {
                writeln!(text, "### {case}: {setting}\n").expect(NEVER);
            }
            table(&rows, setting, &mut text);
        }
        comparisons(report.comparisons.iter().filter(|one| one.figure.case == case), &mut text);
    }
    if !report.notes.is_empty() {
        text += "## How to read it\n\n";
        report.notes.iter().for_each(|note| writeln!(text, "- {note}").expect(NEVER));
    }
    text
}

fn goals(report: &Report, text: &mut String) {
    if report.goals.is_empty() {
        return;
    }
    *text += "## Goals\n\n";
    for verdict in &report.goals {
        let (sign, goal) = match verdict.goal {
            Goal::AtMost(goal) => ("<=", goal),
            Goal::AtLeast(goal) => (">=", goal),
        };
        let measured = verdict.measured.map_or_else(|| "-".to_owned(), number);
        let (what, unit, word) = (&verdict.what, verdict.unit, verdict.verdict);
        let goal = number(goal);
        writeln!(text, "- goal: {what} {sign} {goal} {unit}  measured: {measured}  {word}").expect(NEVER);
    }
    text.push('\n');
}

/// Peers beside figures where there are several; a list of figures where there is one peer.
fn table(rows: &[&Row], setting: &str, text: &mut String) {
    let rows: Vec<&Row> = rows.iter().copied().filter(|row| row.figure.setting == setting).collect();
    let peers = distinct(rows.iter().map(|row| row.peer.as_str()));
    let figures = distinct(rows.iter().map(|row| &row.figure));
    if let [peer] = peers[..] {
        writeln!(text, "| {peer} | unit | median | min-max |\n|---|---|---:|---:|").expect(NEVER);
        for Row { figure, spread, .. } in rows {
            let (median, range) = (number(spread.median()), range(spread));
            writeln!(text, "| {} | {} | {median} | {range} |", figure.name, figure.unit).expect(NEVER);
        }
    } else {
        text.push_str("| median (min-max) |");
        figures.iter().for_each(|one| write!(text, " {}, {} |", one.name, one.unit).expect(NEVER));
        writeln!(text, "\n|---|{}", "---:|".repeat(figures.len())).expect(NEVER);
        for peer in peers {
            write!(text, "| {peer} |").expect(NEVER);
            for figure in &figures {
                let row = rows.iter().find(|row| row.peer == peer && row.figure == **figure);
                let cell = row.map_or_else(|| "-".to_owned(), |row| cell(&row.spread));
                write!(text, " {cell} |").expect(NEVER);
            }
            text.push('\n');
        }
    }
    text.push('\n');
}

fn comparisons<'a>(compared: impl Iterator<Item = &'a Comparison>, text: &mut String) {
    let mut compared = compared.peekable();
    if compared.peek().is_none() {
        return;
    }
    *text += "| round by round | setting | figure | median | min-max |\n|---|---|---|---:|---:|\n";
    for Comparison { figure, peer, against, how, spread } in compared {
        let (sign, unit) = match how {
            How::Ratio => ('/', "x"),
            How::Difference => ('-', figure.unit),
        };
        let (median, range) = (number(spread.median()), range(spread));
        let (name, setting) = (&figure.name, &figure.setting);
        writeln!(text, "| {peer} {sign} {against} | {setting} | {name} | {median} {unit} | {range} |")
            .expect(NEVER);
    }
    text.push('\n');
}

fn cell(spread: &Spread) -> String {
    format!("{} ({})", number(spread.median()), range(spread))
}

fn range(spread: &Spread) -> String {
    format!("{}-{}", number(spread.min()), number(spread.max()))
}

/// Each once, in the order in which they first come.
fn distinct<T: PartialEq>(items: impl Iterator<Item = T>) -> Vec<T> {
    items.fold(Vec::new(), |mut known, item| {
        if !known.contains(&item) {
            known.push(item);
        }
        known
    })
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::*;

    #[test]
    fn several_peers_stand_beside_their_figures() {
        let figure = Figure::new("calls", "saturated", "CPU per request", "us");
        let mut report = Report::default();
        report.row(figure.clone(), "nginx", Spread::of([10.0, 12.0, 11.0]));
        report.row(Figure::new("calls", "saturated", "requests", "1/s"), "nginx", Spread::of([80_000.0]));
        report.row(figure.clone(), "Ringway", Spread::of([11.0, 12.0, 22.0]));
        let ratio = report.ratio(&figure, "Ringway", "nginx");
        report.goal("local", Goal::AtMost(1.25), "x", ratio.as_ref());
        report.note("a note");
        assert_eq!(
            report.to_markdown(),
            "## Goals\n\n- goal: local <= 1.25 x  measured: 1.10  ok\n\n## calls\n\n### calls: saturated\n\n\
             | median (min-max) | CPU per request, us | requests, 1/s |\n|---|---:|---:|\n\
             | nginx | 11.0 (10.0-12.0) | 80,000 (80,000-80,000) |\n| Ringway | 12.0 (11.0-22.0) | - |\n\n\
             | round by round | setting | figure | median | min-max |\n|---|---|---|---:|---:|\n\
             | Ringway / nginx | saturated | CPU per request | 1.10 x | 1.00-2.00 |\n\n\
             ## How to read it\n\n- a note\n"
        );
    }

    #[test]
    fn one_peer_is_a_list() {
        let mut report = Report::default();
        report.row(Figure::new("functions", "", "ring owner", "ns"), "Ringway", Spread::of([50.0]));
        assert_eq!(
            report.to_markdown(),
            "## functions\n\n| Ringway | unit | median | min-max |\n|---|---|---:|---:|\n\
             | ring owner | ns | 50.0 | 50.0-50.0 |\n\n"
        );
    }
}
