//! The picture of a run: a lane per node, the faults across everything, and below them answers per second and their
//! latency. One time axis for all. Pure. Called by `report`.

mod style;

use std::fmt::Write as _;
use std::time::Duration;

use super::ledger::At;
use super::timeline::{Bucket, INTERVAL, Phase, Timeline};
use style::STYLE;

const WIDTH: f64 = 1200.0;
/// Left of it stand names and units.
const LEFT: f64 = 92.0;
const RIGHT: f64 = 1176.0;

const HEAD: f64 = 82.0;
/// Names of faults stand in rows, so that neighbours don't cover each other.
const LABEL_ROWS: usize = 3;
const LABEL_ROW: f64 = 15.0;
const LANE: f64 = 20.0;
const LANE_GAP: f64 = 6.0;
const CHART: f64 = 130.0;
const CHART_GAP: f64 = 44.0;

/// The latency axis, each step ten times the last.
const DECADES: [&str; 6] = ["0.1 ms", "1 ms", "10 ms", "100 ms", "1 s", "10 s"];

/// Draws a run under a title and a line on what came of it.
pub(super) fn draw(timeline: &Timeline, title: &str, verdict: &str) -> String {
    let mut svg = Svg::new(timeline);
    svg.head(title, verdict);
    let top = HEAD + LABEL_ROWS as f64 * LABEL_ROW + 6.0;
    let lanes: Vec<_> = timeline.lanes().collect();
    let rate_top = top + lanes.len() as f64 * (LANE + LANE_GAP) + CHART_GAP - LANE_GAP;
    let latency_top = rate_top + CHART + CHART_GAP;
    let bottom = latency_top + CHART;
    svg.grid(top, bottom);
    svg.marks(timeline, bottom);
    for (row, (node, stretches)) in lanes.into_iter().enumerate() {
        let y = top + row as f64 * (LANE + LANE_GAP);
        svg.text("name", LEFT - 10.0, y + LANE * 0.72, node);
        for stretch in stretches {
            svg.stretch(y, stretch.phase, stretch.from, stretch.until);
        }
    }
    svg.rates(timeline.buckets(), rate_top);
    svg.latencies(timeline.buckets(), latency_top);
    svg.finish(bottom + 46.0, title)
}

struct Svg {
    body: String,
    end: f64,
}

impl Svg {
    fn new(timeline: &Timeline) -> Svg {
        Svg { body: String::new(), end: timeline.end().as_secs_f64().max(1.0) }
    }

    fn x(&self, at: At) -> f64 {
        LEFT + (at.as_secs_f64() / self.end).min(1.0) * (RIGHT - LEFT)
    }

    fn head(&mut self, title: &str, verdict: &str) {
        self.text("title", 20.0, 28.0, title);
        self.text("verdict", 20.0, 48.0, verdict);
        let mut x = 20.0;
        let phases = Phase::ALL.map(|phase| (class(phase), phase.name()));
        let others = [("fault", "a fault"), ("ok", "ok"), ("failed", "failed"), ("band", "p50 to p99")];
        for (class, name) in phases.into_iter().chain(others) {
            self.rect(class, [x, 60.0, 14.0, 12.0], "");
            self.text("key", x + 19.0, 70.0, name);
            x += 44.0 + name.len() as f64 * 6.6;
        }
    }

    fn grid(&mut self, top: f64, bottom: f64) {
        let step = step_of(self.end, 14.0);
        let mut at = 0.0;
        while at <= self.end {
            let x = LEFT + at / self.end * (RIGHT - LEFT);
            self.line("grid", [x, top, x, bottom]);
            self.text("tick middle", x, bottom + 17.0, &format!("{at}"));
            at += step;
        }
        self.text("unit middle", (LEFT + RIGHT) / 2.0, bottom + 36.0, "seconds since the start");
    }

    fn marks(&mut self, timeline: &Timeline, bottom: f64) {
        for (number, mark) in timeline.marks().iter().enumerate() {
            let y = HEAD + 12.0 + (number % LABEL_ROWS) as f64 * LABEL_ROW;
            let (from, until) = (self.x(mark.from), self.x(mark.until.unwrap_or(timeline.end())));
            let width = (until - from).max(1.5);
            self.rect("fault", [from, y - 10.0, width, bottom - y + 10.0], &mark.label);
            self.line("edge", [from, y - 10.0, from, bottom]);
            // Near the end there is no room to its right.
            let (class, x) =
                if from < RIGHT - 120.0 { ("label", from + 4.0) } else { ("label end", from - 4.0) };
            self.text(class, x, y, &mark.label);
        }
    }

    fn stretch(&mut self, y: f64, phase: Phase, from: At, until: At) {
        let (left, right) = (self.x(from), self.x(until));
        let (from, until) = (from.as_secs_f64(), until.as_secs_f64());
        let told = format!("{} from {from:.1} to {until:.1} s", phase.name());
        self.rect(class(phase), [left, y, (right - left).max(0.5), LANE], &told);
        // Not by colour alone, where there is room.
        if phase != Phase::Up && right - left > phase.name().len() as f64 * 7.0 + 6.0 {
            self.text("inside middle", f64::midpoint(left, right), y + LANE * 0.7, phase.name());
        }
    }

    /// Good answers, and failed ones on top of them.
    fn rates(&mut self, buckets: &[Bucket], top: f64) {
        let per_second = |count: u32| f64::from(count) / INTERVAL.as_secs_f64();
        let most = buckets.iter().map(|bucket| per_second(bucket.ok + bucket.failed)).fold(1.0, f64::max);
        let step = step_of(most, 4.0);
        let scale = (most / step).ceil() * step;
        let y = |value: f64| top + CHART * (1.0 - value / scale);
        self.text("unit", LEFT, top - 8.0, "answers per second, where they ended");
        let mut value = 0.0;
        while value <= scale {
            self.line("grid", [LEFT, y(value), RIGHT, y(value)]);
            self.text("tick", LEFT - 10.0, y(value) + 4.0, &format!("{value}"));
            value += step;
        }
        for (class, from, to) in [
            ("ok", (|_| 0) as fn(&Bucket) -> u32, (|bucket| bucket.ok) as fn(&Bucket) -> u32),
            ("failed", |bucket| bucket.ok, |bucket| bucket.ok + bucket.failed),
        ] {
            let mut path = String::new();
            for (at, bucket) in (0..).zip(buckets).filter(|(_, bucket)| to(bucket) > from(bucket)) {
                let (left, right) = (self.x(INTERVAL * at), self.x(INTERVAL * (at + 1)));
                let (low, high) = (y(per_second(from(bucket))), y(per_second(to(bucket))));
                write!(path, "M{left:.1} {low:.1}V{high:.1}H{right:.1}V{low:.1}Z").expect(NEVER);
            }
            self.path(class, &path);
        }
    }

    /// The band from the median to the 99th percentile of the good answers, and the median as a line.
    fn latencies(&mut self, buckets: &[Bucket], top: f64) {
        let y = |latency: Duration| top + CHART * (1.0 - height_of(latency));
        self.text("unit", LEFT, top - 8.0, "latency of good answers, p50 to p99 of each 250 ms");
        for (decade, name) in DECADES.into_iter().enumerate() {
            let y = top + CHART * (1.0 - decade as f64 / DECADES.len() as f64);
            self.line("grid", [LEFT, y, RIGHT, y]);
            self.text("tick", LEFT - 10.0, y + 4.0, name);
        }
        let (mut band, mut median) = (String::new(), String::new());
        let mut was_there = false;
        for (at, bucket) in (0..).zip(buckets) {
            let Some(latency) = bucket.latency() else {
                was_there = false;
                continue;
            };
            let (left, right) = (self.x(INTERVAL * at), self.x(INTERVAL * (at + 1)));
            // A band without height would not be seen.
            let (low, high) = (y(latency.p50), y(latency.p99).min(y(latency.p50) - 1.0));
            write!(band, "M{left:.1} {low:.1}V{high:.1}H{right:.1}V{low:.1}Z").expect(NEVER);
            let begin = if was_there { 'L' } else { 'M' };
            write!(median, "{begin}{left:.1} {low:.1}H{right:.1}").expect(NEVER);
            was_there = true;
        }
        self.path("band", &band);
        self.path("median", &median);
    }

    fn text(&mut self, class: &str, x: f64, y: f64, text: &str) {
        writeln!(self.body, r#"<text class="{class}" x="{x:.1}" y="{y:.1}">{}</text>"#, escaped(text))
            .expect(NEVER);
    }

    fn line(&mut self, class: &str, [x1, y1, x2, y2]: [f64; 4]) {
        writeln!(self.body, r#"<path class="{class}" d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}"/>"#).expect(NEVER);
    }

    fn path(&mut self, class: &str, path: &str) {
        if !path.is_empty() {
            writeln!(self.body, r#"<path class="{class}" d="{path}"/>"#).expect(NEVER);
        }
    }

    fn rect(&mut self, class: &str, [x, y, width, height]: [f64; 4], told: &str) {
        write!(
            self.body,
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}""#
        )
        .expect(NEVER);
        if told.is_empty() {
            self.body.push_str("/>\n");
        } else {
            writeln!(self.body, "><title>{}</title></rect>", escaped(told)).expect(NEVER);
        }
    }

    fn finish(self, height: f64, title: &str) -> String {
        let (title, body) = (escaped(title), self.body);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
             height=\"{height:.0}\" role=\"img\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n{body}</svg>\n"
        )
    }
}

const NEVER: &str = "writing to a string does not fail";

fn class(phase: Phase) -> &'static str {
    match phase {
        Phase::Up => "up",
        Phase::Frozen => "frozen",
        Phase::CutOff => "cut",
        Phase::Draining => "draining",
        Phase::Down => "down",
    }
}

/// Its share of the axis, up to one decade beyond the last step.
fn height_of(latency: Duration) -> f64 {
    let decades = (latency.as_secs_f64() * 1e4).max(1.0).log10();
    (decades / DECADES.len() as f64).min(1.0)
}

/// A round distance of ticks, so that there are about `count` of them.
fn step_of(length: f64, count: f64) -> f64 {
    let rough = (length / count).max(1.0);
    let decade = 10_f64.powf(rough.log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| step * decade).into_iter().find(|step| *step >= rough).unwrap_or(rough)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> At {
        Duration::from_millis(ms)
    }

    #[test]
    fn everything_that_happened_is_in_the_picture() {
        let mut timeline = Timeline::default();
        timeline.phase("a<b", ms(0), Phase::Up);
        timeline.begun("freeze a<b".to_owned(), ms(1_000));
        timeline.phase("a<b", ms(1_000), Phase::Frozen);
        timeline.healed(ms(3_000));
        timeline.phase("a<b", ms(3_000), Phase::Up);
        for at in 0..16 {
            timeline.answered(ms(at * 250), ms(at * 250 + 20), at != 5);
        }
        let svg = draw(&timeline, "5 nodes & 200 sessions", "FAILED");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("class=\"frozen\"").count(), 2, "in the legend and in the lane");
        assert!(svg.contains("frozen from 1.0 to 3.0 s"));
        for part in
            ["freeze a&lt;b", "5 nodes &amp; 200 sessions", "class=\"failed\" d=", "class=\"band\" d="]
        {
            assert!(svg.contains(part), "{part}");
        }
        assert!(svg.contains("prefers-color-scheme: dark"));
        assert!(!svg.contains("<script") && !svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn an_empty_run_is_a_picture_too() {
        let svg = draw(&Timeline::default(), "nothing", "ok");
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn a_latency_stands_beside_its_own_step() {
        for (decade, latency) in [(0.0, 100), (1.0, 1_000), (5.0, 10_000_000)] {
            assert!((height_of(Duration::from_micros(latency)) * 6.0 - decade).abs() < 1e-9, "{latency} us");
        }
        assert_eq!(height_of(Duration::ZERO), 0.0);
        assert_eq!(height_of(Duration::from_secs(1_000)), 1.0);
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(step_of(60.0, 14.0), 5.0);
        assert_eq!(step_of(600.0, 14.0), 50.0);
        assert_eq!(step_of(900.0, 4.0), 500.0);
        assert_eq!(step_of(3.0, 14.0), 1.0);
    }
}
