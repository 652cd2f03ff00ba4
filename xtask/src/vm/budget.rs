//! How many instructions the verifier walked for each program on each kernel, and how many it may: a committed file that the
//! gateway's test `programs_load_and_stay_below_the_verifier_ceiling` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::Table;
use serde::Deserialize;

/// Stands for every kernel series that has no ceiling of its own.
const ANY: &str = "any";

/// The file's contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Budget {
    /// The comment it begins with.
    head: String,
    programs: BTreeMap<String, Program>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Program {
    /// By kernel series, and for [`ANY`] other. A program without one fails the test.
    #[serde(default)]
    ceiling: BTreeMap<String, u32>,
    /// By kernel series.
    #[serde(default)]
    counted: BTreeMap<String, u32>,
    /// Bytes of stack, by what may need as many, on any kernel; `gateway/tests/stack.rs` reads them.
    #[serde(default)]
    stack: BTreeMap<String, u32>,
}

impl Budget {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not as it should be", path.display()))
    }

    fn parse(text: &str) -> Result<Self> {
        let head =
            text.lines().take_while(|line| line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        Ok(Self { head, programs: toml::from_str(text)? })
    }

    /// Takes down what was counted on a kernel of `series`.
    pub(super) fn note(&mut self, series: &str, verified: &BTreeMap<String, u32>) {
        for (name, count) in verified {
            let program = self.programs.entry(name.clone()).or_default();
            program.counted.insert(series.to_owned(), *count);
        }
    }

    pub(super) fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, self.text()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn text(&self) -> String {
        let mut text = self.head.clone();
        for (name, program) in &self.programs {
            text += &format!("\n[{name}]\n");
            let tables =
                [("ceiling", &program.ceiling), ("counted", &program.counted), ("stack", &program.stack)];
            for (key, values) in tables {
                if !values.is_empty() {
                    text += &format!("{key} = {{ {} }}\n", inline(values));
                }
            }
        }
        text
    }

    /// Kernel series that anything was counted on, from the oldest to the newest.
    fn series(&self) -> Vec<&str> {
        let all: BTreeSet<_> = self.programs.values().flat_map(|program| program.counted.keys()).collect();
        let mut all: Vec<&str> = all.into_iter().map(String::as_str).collect();
        all.sort_by_key(|series| numbers(series));
        all
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        let series = self.series();
        // Counted, and what it may be.
        let pair = |program: &Program, series: &str| {
            let count = program.counted.get(series).copied().map(grouped).unwrap_or_default();
            let ceiling = program.ceiling.get(series).or_else(|| program.ceiling.get(ANY)).copied();
            format!("{count} of {}", ceiling.map_or("none".to_owned(), grouped))
        };
        table.set_header(["verified instructions"].into_iter().chain(series.iter().copied()));
        for (name, program) in &self.programs {
            let cells = series.iter().map(|series| pair(program, series));
            table.add_row([name.clone()].into_iter().chain(cells));
        }
        write!(f, "{table}")
    }
}

/// The values of an inline table, from the oldest kernel to the newest.
fn inline(values: &BTreeMap<String, u32>) -> String {
    let mut values: Vec<_> = values.iter().collect();
    values.sort_by_key(|(series, _)| numbers(series));
    let values = values.into_iter().map(|(series, count)| match series.as_str() {
        series if series.contains('.') => format!("\"{series}\" = {}", grouped(*count)),
        word => format!("{word} = {}", grouped(*count)),
    });
    values.collect::<Vec<_>>().join(", ")
}

fn numbers(series: &str) -> Vec<u32> {
    series.split('.').filter_map(|part| part.parse().ok()).collect()
}

/// With underscores between thousands, as TOML takes them.
fn grouped(number: u32) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        let text = "# why\n# and how\n\n[a]\nceiling = { any = 60_000, \"6.1\" = 70_000 }\ncounted = { \"6.1\" = 999, \"6.12\" = 1_000 }\nstack = { chain = 512, function = 99 }\n";
        let mut budget = Budget::parse(text).unwrap();
        assert_eq!(budget.text(), text);
        budget.note("6.2", &BTreeMap::from([("a".to_owned(), 1_234_567), ("b".to_owned(), 5)]));
        let after = budget.text();
        assert!(after.contains("\"6.1\" = 999, \"6.2\" = 1_234_567, \"6.12\" = 1_000"), "{after}");
        assert!(after.ends_with("\n[b]\ncounted = { \"6.2\" = 5 }\n"), "{after}");
        assert_eq!(Budget::parse(&after).unwrap(), budget);
    }

    #[test]
    fn the_committed_file_has_a_ceiling_for_every_program() {
        let path = crate::project::root().join("gateway/tests/verifier-budget.toml");
        let budget = Budget::read(&path).unwrap();
        assert!(!budget.programs.is_empty());
        for (name, program) in &budget.programs {
            assert!(program.ceiling.contains_key(ANY), "{name} has no ceiling");
            for what in ["function", "chain", "compact"] {
                assert!(program.stack.contains_key(what), "{name} has no ceiling of its stack by {what}");
            }
        }
    }
}
