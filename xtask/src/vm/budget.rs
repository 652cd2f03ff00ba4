//! How many instructions the verifier walked for each program on each kernel, and how many it may: a committed file that the
//! gateway's test `programs_load_and_stay_below_the_verifier_ceiling` reads.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::Table;
use serde::Deserialize;

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
    /// On any kernel. A program without one fails the test.
    ceiling: Option<u32>,
    /// By kernel series.
    #[serde(default)]
    counted: BTreeMap<String, u32>,
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
            if let Some(ceiling) = program.ceiling {
                text += &format!("ceiling = {}\n", grouped(ceiling));
            }
            let mut series: Vec<_> = program.counted.iter().collect();
            series.sort_by_key(|(series, _)| numbers(series));
            let counted: Vec<String> =
                series.iter().map(|(series, count)| format!("\"{series}\" = {}", grouped(**count))).collect();
            text += &format!("counted = {{ {} }}\n", counted.join(", "));
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
        table.set_header(
            ["verified instructions"].into_iter().chain(series.iter().copied()).chain(["ceiling"]),
        );
        for (name, program) in &self.programs {
            let counts = series.iter().map(|series| program.counted.get(*series).copied());
            let cells = counts.chain([program.ceiling]).map(|count| count.map(grouped).unwrap_or_default());
            table.add_row([name.clone()].into_iter().chain(cells));
        }
        write!(f, "{table}")
    }
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
        let text =
            "# why\n# and how\n\n[a]\nceiling = 60_000\ncounted = { \"6.1\" = 999, \"6.12\" = 1_000 }\n";
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
            assert!(program.ceiling.is_some(), "{name} has no ceiling");
        }
    }
}
