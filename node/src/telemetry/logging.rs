//! Logs on stderr, as text for people or as JSON lines for machines.
//!
//! A JSON line is one flat object: `ts` (RFC 3339, UTC), `level`, `msg`, and the fields of the event beside
//! them, as numbers and booleans where they are such.

use serde_json::{Map, Value};
use std::{
    fmt, io,
    time::{Duration, SystemTime},
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::filter_fn,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer, layer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Begins to log; `filter` is in `tracing`'s own language (`info`, `ringway=debug,quinn=warn`).
pub(crate) fn start_logging(filter: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter).map_err(|error| anyhow::anyhow!("--log {filter:?}: {error}"))?;
    let lines = layer().with_writer(io::stderr).with_target(false).with_ansi(false);
    let lines = match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.event_format(JsonLines).boxed(),
    };
    // What libraries trace are the bytes and headers of connections: tokens and session ids among them.
    let is_ours = |target: &str| target == "ringway" || target.starts_with("ringway::");
    let discreet = filter_fn(move |event| *event.level() < Level::TRACE || is_ours(event.target()));
    tracing_subscriber::registry().with(filter).with(discreet).with(lines).init();
    Ok(())
}

struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::default();
        event.record(&mut line);
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        writeln!(writer, "{}", line.finish(SystemTime::now(), &level))
    }
}

#[derive(Default)]
struct Line {
    message: String,
    fields: Map<String, Value>,
}

impl Line {
    fn put(&mut self, field: &Field, value: Value) {
        match field.name() {
            // As they are called in every line.
            "ts" | "level" | "msg" => drop(self.fields.insert(format!("{}_", field.name()), value)),
            name => drop(self.fields.insert(name.to_owned(), value)),
        }
    }

    fn finish(self, at: SystemTime, level: &str) -> String {
        let head = [("ts", rfc3339(at)), ("level", level.to_owned()), ("msg", self.message)];
        let mut text = String::from("{");
        for (key, value) in head {
            text.push_str(&format!("{}:{},", Value::from(key), Value::from(value)));
        }
        for (key, value) in self.fields {
            text.push_str(&format!("{}:{value},", Value::from(key)));
        }
        text.pop();
        text.push('}');
        text
    }
}

impl Visit for Line {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into()); // null where it is not finite, which JSON has no word for
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            _ => self.put(field, value.into()),
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            _ => self.put(field, format!("{value:?}").into()),
        }
    }
}

/// `2026-11-28T10:46:49.123Z`.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let seconds = since.as_secs();
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(seconds / 86_400);
    let ms = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// Year, month and day of a number of days since 1970-01-01: years from March on, so that the leap day is
/// the last of its year, in eras of 400 years or 146,097 days; 719,468 days before 1970 the first began.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153; // from March on, of 30.6 days each
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[test]
    fn times_are_written_as_calendars_have_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000Z"),
            (1_709_251_200, "2024-03-01T00:00:00.000Z"),
            (1_796_000_000, "2026-11-30T00:53:20.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("one writer").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_json_line_is_one_flat_object() {
        let written = Written::default();
        let writer = written.clone();
        let lines = layer().with_writer(move || writer.clone()).event_format(JsonLines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), || {
            tracing::warn!(count = 3, ok = true, name = %"a \"b\"\n", ms = 1.5, level = "x", "said {}", "so");
        });
        let text = String::from_utf8(written.0.lock().expect("one writer").clone()).expect("UTF-8");
        assert_eq!((text.matches('\n').count(), text.starts_with("{\"ts\":\"20")), (1, true), "{text}");
        let line: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!((&line["level"], &line["msg"]), (&"warn".into(), &"said so".into()), "{line}");
        assert_eq!((&line["count"], &line["ok"], &line["ms"]), (&3.into(), &true.into(), &1.5.into()));
        assert_eq!((&line["name"], &line["level_"]), (&"a \"b\"\n".into(), &"x".into()), "{line}");
    }
}
