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
        let mut grid = Grid::new();
        grid.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        // A pipe has no width of its own.
        if grid.width().is_none() {
            grid.set_width(180);
        }
        grid.set_header(["", "who", "what", "expected", "seen", "rule"]);
        for row in &self.rows {
            let mark = if row.as_expected { "ok" } else { "NO" };
            grid.add_row([mark, &row.who, &row.what, &row.expected, &row.seen, &row.rule]);
        }
        writeln!(f, "{grid}")?;
        let surprises = self.rows.iter().filter(|row| !row.as_expected).count();
        match surprises {
            0 => write!(f, "all {} rows are as expected", self.rows.len()),
            _ => write!(f, "{surprises} of {} rows are not as expected", self.rows.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(as_expected: bool) -> Row {
        let text = String::new();
        Row {
            who: "alice".into(),
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
        table.add(row(true));
        assert!(table.as_expected());
        table.add(row(false));
        assert!(!table.as_expected());
        assert_eq!(table.json("ebpf")["as_expected"], false);
        assert!(table.to_string().ends_with("1 of 2 rows are not as expected"));
    }
}
