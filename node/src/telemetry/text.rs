//! The two text formats that `/metrics` is asked for in: OpenMetrics 1.0, which the library writes, and the
//! older one of Prometheus, which is what whoever asks for nothing gets. They differ in few lines.

use crate::headers::Headers;
use hyper::header;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    OpenMetrics,
    Plain,
}

impl Format {
    /// What the asker prefers. Prometheus names both, with qualities.
    pub(crate) fn asked_for(headers: &Headers) -> Self {
        let lists = headers.get_all(header::ACCEPT).filter_map(|list| list.to_str().ok());
        let (mut open, mut plain) = (0.0_f32, 0.0_f32);
        for asked in lists.flat_map(|list| list.split(',')) {
            let mut parts = asked.split(';').map(str::trim);
            let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut is_known) = (1.0_f32, true);
            for (key, value) in parts.filter_map(|part| part.split_once('=')) {
                match key.trim().to_ascii_lowercase().as_str() {
                    "q" => quality = value.trim().parse().unwrap_or(0.0),
                    "version" => is_known = ["0.0.1", "1.0.0", "0.0.4"].contains(&value.trim()),
                    _ => {}
                }
            }
            match kind.as_str() {
                "application/openmetrics-text" if is_known => open = open.max(quality),
                "text/plain" | "text/*" | "*/*" => plain = plain.max(quality),
                _ => {}
            }
        }
        if open > plain { Self::OpenMetrics } else { Self::Plain }
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }

    /// `text` is OpenMetrics. Prometheus' own format names a counter in its descriptions as in its samples,
    /// and knows neither units nor an end.
    pub(super) fn write(self, text: String) -> String {
        match self {
            Self::OpenMetrics => text,
            Self::Plain => plain(&text),
        }
    }
}

fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + 1_024);
    let mut help = None;
    for line in text.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            help = described.split_once(' ');
        } else if let Some(described) = line.strip_prefix("# TYPE ") {
            let (name, of) = described.split_once(' ').unwrap_or((described, "untyped"));
            let total = if of == "counter" { "_total" } else { "" };
            if let Some((_, help)) = help.take().filter(|(described, _)| *described == name) {
                plain.push_str(&format!("# HELP {name}{total} {help}\n"));
            }
            plain.push_str(&format!("# TYPE {name}{total} {of}\n"));
        } else if !line.starts_with('#') {
            plain.push_str(line);
            plain.push('\n');
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn asked(accept: &'static str) -> Format {
        Format::asked_for(&Headers::from_iter([(header::ACCEPT, HeaderValue::from_static(accept))]))
    }

    #[test]
    fn whoever_asks_gets_the_format_that_it_prefers() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
            application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;q=0.3,\
            text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
        assert_eq!(asked(prometheus), Format::OpenMetrics);
        assert_eq!(asked("application/openmetrics-text"), Format::OpenMetrics);
        assert_eq!(asked("application/openmetrics-text;version=9.0.0,text/plain;q=0.1"), Format::Plain);
        for plain in ["*/*", "text/plain", "application/openmetrics-text;q=0.1,text/plain", "text/html"] {
            assert_eq!(asked(plain), Format::Plain, "{plain}");
        }
        assert_eq!(Format::asked_for(&Headers::new()), Format::Plain);
    }

    #[test]
    fn the_older_format_names_counters_as_their_samples_are_named() {
        let text = "# HELP a_b Help.\n# TYPE a_b counter\n# UNIT a_b s\na_b_total{x=\"# y\"} 1\n\
            # HELP c Help.\n# TYPE c gauge\nc 2\n# EOF\n";
        let expected = "# HELP a_b_total Help.\n# TYPE a_b_total counter\na_b_total{x=\"# y\"} 1\n\
            # HELP c Help.\n# TYPE c gauge\nc 2\n";
        assert_eq!(plain(text), expected);
    }
}
