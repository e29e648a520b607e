//! Reads the Prometheus text format as far as tests need it: the samples of one name, chosen by labels.
//! Called by `cluster` and by tests.

/// The sum of all samples of `name` that carry every one of `labels`. Nothing there counts as 0.
pub fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    text.lines()
        .filter_map(Sample::parse)
        .filter(|sample| sample.name == name)
        .filter(|sample| labels.iter().all(|&(label, value)| sample.label(label) == Some(value)))
        .map(|sample| sample.value)
        .sum()
}

/// The names of all samples, in the order of the text, each once.
pub fn names(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for sample in text.lines().filter_map(Sample::parse) {
        if !names.contains(&sample.name) {
            names.push(sample.name);
        }
    }
    names
}

struct Sample<'a> {
    name: &'a str,
    labels: Vec<(&'a str, String)>,
    value: f64,
}

impl<'a> Sample<'a> {
    /// A line such as `name{label="value",...} 12 [timestamp]`; comments and empty lines are none.
    fn parse(line: &'a str) -> Option<Sample<'a>> {
        if line.starts_with('#') {
            return None;
        }
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (Vec::new(), rest),
        };
        // A timestamp and an exemplar may follow the value.
        let value = rest.split_whitespace().next()?.parse().ok()?;
        Some(Sample { name, labels, value })
    }

    fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_str())
    }
}

/// The labels up to the closing brace, and what follows it. Values may hold braces, commas and escaped quotes.
fn labels(mut rest: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, after) = rest.split_once("=\"")?;
        let mut value = String::new();
        let mut characters = after.char_indices();
        let end = loop {
            match characters.next()? {
                (at, '"') => break at,
                (_, '\\') => match characters.next()?.1 {
                    'n' => value.push('\n'),
                    escaped => value.push(escaped),
                },
                (_, plain) => value.push(plain),
            }
        };
        labels.push((name, value));
        rest = &after[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = concat!(
        "# HELP ringway_requests_total Requests.\n# TYPE ringway_requests_total counter\n",
        "ringway_requests_total{route=\"/mcp\",outcome=\"ok\",hops=\"0\"} 10\n",
        "ringway_requests_total{route=\"/mcp\",outcome=\"ok\",hops=\"1\"} 20.5 1700000000\n",
        "ringway_requests_total{route=\"/a,b}\\\"c\",outcome=\"ok\",hops=\"1\"} 4\n",
        "ringway_streams 3\n# EOF\n",
    );

    #[test]
    fn samples_are_summed_by_name_and_labels() {
        assert_eq!(sum(TEXT, "ringway_requests_total", &[("route", "/mcp")]), 30.5);
        assert_eq!(sum(TEXT, "ringway_requests_total", &[("hops", "1"), ("outcome", "ok")]), 24.5);
        assert_eq!(sum(TEXT, "ringway_requests_total", &[("route", "/a,b}\"c")]), 4.0);
        assert_eq!(sum(TEXT, "ringway_streams", &[]), 3.0);
        assert_eq!(sum(TEXT, "ringway_requests", &[]), 0.0);
    }

    #[test]
    fn names_come_once_each() {
        assert_eq!(names(TEXT), ["ringway_requests_total", "ringway_streams"]);
    }
}
