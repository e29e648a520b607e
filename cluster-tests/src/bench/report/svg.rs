//! The picture of a report: a panel for each chart, those of a case beside each other. In it a bar for each peer with
//! its median, and a line from the least to the most that was measured. Pure. Called by `save`.

use std::fmt::Write as _;

use super::{Chart, RINGWAY, Report, Spread, number};

const NEVER: &str = "writing to memory can't fail";

const WIDTH: f64 = 1320.0;
const COLUMNS: usize = 3;
const MARGIN: f64 = 24.0;
const HEAD: f64 = 74.0;
const PANEL: f64 = (WIDTH - MARGIN * (COLUMNS as f64 + 1.0)) / COLUMNS as f64;
const PANEL_HEAD: f64 = 34.0;
const PANEL_GAP: f64 = 26.0;
const BAR: f64 = 20.0;
const BAR_STEP: f64 = 28.0;
/// Left of the bars stand names, right of them figures.
const NAMES: f64 = 158.0;
const FIGURES: f64 = 74.0;

const STYLE: &str = "
text { font: 13px system-ui, 'Segoe UI', Helvetica, Arial, sans-serif; fill: #1f2937; }
.title { font-size: 20px; font-weight: 600; }
.about { fill: #4b5563; }
.panel { font-size: 15px; font-weight: 600; }
.end { text-anchor: end; }
.own { font-weight: 600; }
.paper { fill: #ffffff; }
.bar { fill: #b6c2d1; }
.bar.own { fill: #2563eb; }
.spread { stroke: #111827; stroke-width: 1.5; fill: none; }
.axis { stroke: #9ca3af; stroke-width: 1; }
";

/// `None` where nothing that was measured is to be drawn.
pub(super) fn draw(report: &Report, about: &str) -> Option<String> {
    let panels: Vec<Panel<'_>> = report.charts.iter().filter_map(|chart| Panel::of(chart, report)).collect();
    if panels.is_empty() {
        return None;
    }
    let (mut body, mut top) = (String::new(), HEAD);
    for of_case in panels.chunk_by(|one, next| one.case == next.case) {
        for row in of_case.chunks(COLUMNS) {
            for (column, panel) in row.iter().enumerate() {
                panel.draw(MARGIN + column as f64 * (PANEL + MARGIN), top, &mut body);
            }
            top += row.iter().map(Panel::height).fold(0.0, f64::max) + PANEL_GAP;
        }
    }
    let about = escaped(about);
    Some(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {top}\" width=\"{WIDTH}\" height=\"{top}\" \
         role=\"img\">\n<title>Ringway's benchmark</title>\n<style>{STYLE}</style>\n\
         <rect class=\"paper\" width=\"{WIDTH}\" height=\"{top}\"/>\n\
         <text class=\"title\" x=\"{MARGIN}\" y=\"32\">Ringway's benchmark: less is better</text>\n\
         <text class=\"about\" x=\"{MARGIN}\" y=\"54\">bars: medians; lines: least and most of all rounds. {about}</text>\n\
         {body}</svg>\n"
    ))
}

struct Panel<'a> {
    case: &'static str,
    title: String,
    bars: Vec<(&'a str, &'a Spread)>,
}

impl<'a> Panel<'a> {
    fn of(chart: &Chart, report: &'a Report) -> Option<Panel<'a>> {
        let rows = report.rows.iter().filter(|row| row.figure == chart.figure);
        let bars: Vec<_> = rows.map(|row| (row.peer.as_str(), &row.spread)).collect();
        let title = format!("{}, {}", chart.title, chart.figure.unit);
        (!bars.is_empty()).then_some(Panel { case: chart.figure.case, title, bars })
    }

    fn height(&self) -> f64 {
        PANEL_HEAD + self.bars.len() as f64 * BAR_STEP
    }

    fn draw(&self, left: f64, top: f64, body: &mut String) {
        let most = self.bars.iter().map(|(_, spread)| spread.max()).fold(0.0, f64::max);
        let from = left + NAMES;
        let room = PANEL - NAMES - FIGURES;
        // A difference may be below nothing; its bar then has no length.
        let x = |value: f64| from + if most > 0.0 { (value / most).max(0.0) * room } else { 0.0 };
        let title = escaped(&self.title);
        writeln!(body, "<text class=\"panel\" x=\"{left}\" y=\"{:.1}\">{title}</text>", top + 16.0)
            .expect(NEVER);
        for (row, (peer, spread)) in self.bars.iter().enumerate() {
            let y = top + PANEL_HEAD + row as f64 * BAR_STEP;
            let (middle, base) = (y + BAR / 2.0, y + BAR * 0.72);
            let own = if peer.starts_with(RINGWAY) { " own" } else { "" };
            let (length, peer) = (x(spread.median()) - from, escaped(peer));
            let (least, greatest) = (x(spread.min()), x(spread.max()));
            let (names, figure) = (from - 8.0, number(spread.median()));
            writeln!(
                body,
                "<text class=\"end{own}\" x=\"{names:.1}\" y=\"{base:.1}\">{peer}</text>\n\
                 <rect class=\"bar{own}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{BAR}\"/>\n\
                 <path class=\"spread\" d=\"M{least:.1} {middle:.1}H{greatest:.1}\"/>\n\
                 <text class=\"figure{own}\" x=\"{:.1}\" y=\"{base:.1}\">{figure}</text>",
                greatest + 8.0
            )
            .expect(NEVER);
        }
        let bottom = top + self.height() - (BAR_STEP - BAR) / 2.0;
        writeln!(body, "<path class=\"axis\" d=\"M{from:.1} {:.1}V{bottom:.1}\"/>", top + PANEL_HEAD - 4.0)
            .expect(NEVER);
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::Figure;
    use super::*;

    #[test]
    fn a_chart_has_a_bar_for_each_peer() {
        let figure = Figure::new("calls", "saturated", "CPU per request", "us");
        let mut report = Report::default();
        report.chart("CPU <per> request", figure.clone());
        report.chart("a case that did not run", Figure::new("hops", "saturated", "CPU per request", "us"));
        assert_eq!(draw(&report, ""), None);
        report.row(figure.clone(), "nginx", Spread::of([10.0]));
        report.row(figure, "Ringway", Spread::of([20.0]));
        let picture = draw(&report, "a & b").expect("a chart with rows");
        assert_eq!(picture.matches("<rect class=\"bar").count(), 2, "{picture}");
        assert!(
            picture.contains("CPU &lt;per&gt; request, us") && picture.contains("a &amp; b"),
            "{picture}"
        );
        assert!(!picture.contains("did not run"), "{picture}");
        // The longest bar has all the room, the other half of it.
        let full = format!("width=\"{:.1}\"", PANEL - NAMES - FIGURES);
        let half = format!("width=\"{:.1}\"", (PANEL - NAMES - FIGURES) / 2.0);
        assert!(picture.contains(&full) && picture.contains(&half), "{picture}");
    }
}
