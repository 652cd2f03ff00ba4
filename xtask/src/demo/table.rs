//! Who, what, expected, seen, rule.

use std::fmt;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{ContentArrangement, Table as Grid};
use serde::Serialize;
use serde_json::{Value, json};

/// One thing that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) who: String,
    pub(crate) what: String,
    pub(crate) expected: String,
    pub(crate) seen: String,
    /// The rule that decided, or what is missing.
    pub(crate) rule: String,
    pub(crate) as_expected: bool,
}

/// All of them, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Whether there are rows, and none that surprises.
    pub(crate) fn as_expected(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.as_expected)
    }

    pub(crate) fn json(&self, datapath: &str) -> Value {
        json!({
            "schema": "sluicegate.demo/1", "datapath": datapath, "as_expected": self.as_expected(), "rows": self.rows,
        })
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", grid(self.rows.iter()))?;
        let surprises: Vec<&Row> = self.rows.iter().filter(|row| !row.as_expected).collect();
        if surprises.is_empty() {
            return write!(f, "all {} rows are as expected", self.rows.len());
        }
        // Once more at the end: the table is long, and its end is what is read first.
        writeln!(f, "not as expected:\n{}", grid(surprises.iter().copied()))?;
        write!(f, "{} of {} rows are not as expected", surprises.len(), self.rows.len())
    }
}

fn grid<'a>(rows: impl Iterator<Item = &'a Row>) -> Grid {
    let mut grid = Grid::new();
    grid.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    // A pipe has no width of its own.
    if grid.width().is_none() {
        grid.set_width(180);
    }
    grid.set_header(["", "who", "what", "expected", "seen", "rule"]);
    for row in rows {
        let mark = if row.as_expected { "ok" } else { "NO" };
        grid.add_row([mark, &row.who, &row.what, &row.expected, &row.seen, &row.rule]);
    }
    grid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(who: &str, as_expected: bool) -> Row {
        let text = String::new();
        Row {
            who: who.into(),
            what: text.clone(),
            expected: text.clone(),
            seen: text.clone(),
            rule: text,
            as_expected,
        }
    }

    #[test]
    fn one_surprise_is_enough_and_nothing_is_no_success() {
        let mut table = Table::default();
        assert!(!table.as_expected());
        table.add(row("alice", true));
        assert!(table.as_expected());
        table.add(row("bob", false));
        assert!(!table.as_expected());
        assert_eq!(table.json("ebpf")["as_expected"], false);
        let shown = table.to_string();
        assert!(shown.ends_with("1 of 2 rows are not as expected"));
        let (_, end) = shown.split_once("not as expected:\n").unwrap();
        assert!(end.contains("bob") && !end.contains("alice"), "{end}");
    }
}
