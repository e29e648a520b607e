//! A report on disk: `bench.json` with every round, `bench.md` to read, `bench.svg` to look at. Called by `bench::run`.

use std::path::Path;

use anyhow::Context as _;
use serde::Serialize;

use super::{Circumstances, Report, svg};

/// Writes all three into a folder, which is made where it is missing, and gives the Markdown.
pub(in super::super) fn save(
    report: &Report,
    circumstances: &Circumstances,
    dir: &Path,
) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Saved<'a> {
        circumstances: &'a Circumstances,
        #[serde(flatten)]
        report: &'a Report,
    }
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
    let write = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    };
    let markdown =
        format!("# Ringway's benchmark\n\n{}\n{}", circumstances.to_markdown(), report.to_markdown());
    write("bench.json", &(serde_json::to_string_pretty(&Saved { circumstances, report })? + "\n"))?;
    write("bench.md", &markdown)?;
    // A run of cases that draw nothing has no picture, and must not leave an older one beside its figures.
    let picture = svg::draw(report, &circumstances.summary());
    match picture {
        Some(picture) => write("bench.svg", &picture)?,
        None => {
            let _ = std::fs::remove_file(dir.join("bench.svg"));
        }
    }
    Ok(markdown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that can't prepare itself has failed
    use super::super::{Figure, Spread};
    use super::*;
    use crate::real::places;

    #[test]
    fn all_rounds_are_saved() {
        let dir = places::scratch("report").unwrap().join("made");
        let mut report = Report::default();
        let figure = Figure::new("calls", "saturated", "CPU per request", "us");
        report.row(figure.clone(), "nginx", Spread::of([3.0, 1.0, 2.0]));
        report.chart("CPU", figure);
        save(&report, &Circumstances::default(), &dir).unwrap();
        let saved = std::fs::read(dir.join("bench.json")).unwrap();
        let saved: serde_json::Value = serde_json::from_slice(&saved).unwrap();
        let row = &saved["rows"][0];
        assert_eq!(row["case"], "calls");
        assert_eq!(row["figure"], "CPU per request");
        assert_eq!(row["peer"], "nginx");
        assert_eq!(row["median"], 2.0);
        assert_eq!(row["rounds"], serde_json::json!([3.0, 1.0, 2.0]));
        for name in ["bench.md", "bench.svg"] {
            assert!(dir.join(name).is_file(), "no {name}");
        }
    }
}
