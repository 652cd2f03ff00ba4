//! Tests that cannot run on a machine, by what it lacks: which may stay away, and which did.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use sluicegate_lab::Feature;
use sluicegate_lab::feature::{MAY_SKIP, SKIPPED, Skipped};

/// What this machine lacks.
pub(crate) fn missing_here() -> Vec<Feature> {
    Feature::ALL.into_iter().filter(|feature| !feature.is_there()).collect()
}

/// The variable that allows tests not to run which need any of `missing`.
pub(crate) fn allowance(missing: &[Feature]) -> (String, String) {
    let names: Vec<&str> = missing.iter().map(|feature| feature.name()).collect();
    (MAY_SKIP.to_owned(), names.join(","))
}

/// A file in which tests that do not run leave their names.
pub(crate) struct Record {
    file: PathBuf,
}

impl Record {
    /// An empty one in `dir`.
    pub(crate) fn begin(dir: &Path) -> Result<Self> {
        let file = dir.join("did-not-run");
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))?;
        Ok(Self { file })
    }

    /// Has the tests that `command` runs write here, and allows those not to run that need any of `missing`.
    pub(crate) fn keep(&self, command: &mut Command, missing: &[Feature]) {
        let (name, value) = allowance(missing);
        command.env(name, value).env(SKIPPED, &self.file);
    }

    /// Tests that did not run so far.
    pub(crate) fn read(&self) -> Vec<Skipped> {
        let text = fs::read_to_string(&self.file).unwrap_or_default();
        text.lines().filter_map(Skipped::parse).collect()
    }
}

/// A line for each of them, to be shown.
pub(crate) fn lines(skipped: &[Skipped]) -> String {
    skipped.iter().map(|one| format!("did not run: {}: {}\n", one.test, one.why())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_told_what_may_be_missing_and_its_record_is_read_and_shown() {
        let dir = tempfile::tempdir().unwrap();
        let record = Record::begin(dir.path()).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("echo \"did not run a needs ${MAY_SKIP}\" >> ${SKIPPED}")]);
        record.keep(&mut command, &[Feature::Vlan]);
        assert!(command.status().unwrap().success());
        assert_eq!(record.read(), [Skipped { test: "a".into(), feature: Feature::Vlan }]);
        assert_eq!(lines(&record.read()), "did not run: a: this kernel has no VLAN devices\n");
    }
}
