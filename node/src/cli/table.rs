//! How commands print: aligned tables for people, JSON for scripts; colours only where somebody sees them.

use serde_json::Value;
use std::io::{self, IsTerminal, Write};

/// A cell, as text or nothing.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// One line on stdout; whether anybody still reads it.
pub(super) fn line(text: &str) -> bool {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).is_ok()
}

/// Whether stdout is a terminal whose user wants colours (no-color.org).
pub(super) fn is_coloured() -> bool {
    let refuses = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    io::stdout().is_terminal() && !refuses
}

/// Rows of cells under one of headings; a cell that is the word of a state has its colour.
pub(super) fn print(rows: &[Vec<String>]) {
    let colours = is_coloured();
    for row in aligned(rows, colours) {
        if !line(&row) {
            return;
        }
    }
}

fn aligned(rows: &[Vec<String>], colours: bool) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |at: usize| rows.iter().filter_map(|row| row.get(at)).map(|cell| len(cell)).max().unwrap_or(0);
    let widths: Vec<_> = (0..columns).map(width).collect();
    let lines = rows.iter().map(|row| {
        let last = row.len().saturating_sub(1);
        let cells = row.iter().zip(&widths).enumerate().map(|(at, (cell, width))| {
            let gap = if at == last { 0 } else { width - len(cell) };
            format!("{}{:gap$}", if colours { painted(cell) } else { cell.clone() }, "")
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    });
    lines.collect()
}

fn len(cell: &str) -> usize {
    cell.chars().count()
}

/// Green is well, yellow is on its way, red is gone, dim is still.
pub(super) fn painted(word: &str) -> String {
    let colour = match word {
        "active" | "live" | "leased" | "joined" => "32",
        "joining" | "draining" | "parked" | "drain_began" | "drain_progress" | "drain_ended" | "takeover"
        | "verdict" | "refused" | "reborn" => "33",
        "dead" | "died" | "lost" => "31",
        "idle" | "left" => "2",
        _ => return word.to_owned(),
    };
    format!("\u{1b}[{colour}m{word}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other_with_colours_and_without() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["NAME", "PHASE", "N"]), row(["b\u{e4}r", "active", "10"]), row(["a", "idle", "1"])];
        let plain = aligned(&rows, false);
        assert_eq!(plain, ["NAME  PHASE   N", "b\u{e4}r   active  10", "a     idle    1"]);
        let coloured = aligned(&rows, true);
        assert_eq!(coloured[1], "b\u{e4}r   \u{1b}[32mactive\u{1b}[0m  10");
        let stripped = coloured[2].replace("\u{1b}[2m", "").replace("\u{1b}[0m", "");
        assert_eq!(stripped, plain[2]);
    }
}
