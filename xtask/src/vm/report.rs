//! What came of the suites on one kernel, from the lines they write.

use std::collections::BTreeMap;
use std::fmt;

use comfy_table::Table;
use sluicegate_lab::feature::Skipped;

/// The suites on one kernel.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Report {
    /// As on the command line.
    pub(super) kernel: &'static str,
    /// As `uname -r` tells it; empty until the kernel runs.
    pub(super) release: String,
    /// In the order they ran in.
    pub(super) suites: Vec<Ran>,
    /// Instructions that the verifier walked, by program.
    pub(super) verified: BTreeMap<String, u32>,
    /// What kept the suites from running to their end, or the kernel's complaints.
    pub(super) trouble: Option<String>,
    finished: bool,
}

/// One suite that began.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Ran {
    pub(super) name: String,
    /// Tests that passed.
    pub(super) passed: u64,
    /// Names of those that did not.
    pub(super) failed: Vec<String>,
    /// Those that passed for want of what they need: they did not run, and do not count as passed.
    pub(super) skipped: Vec<Skipped>,
    /// `None` when it did not come to its end.
    pub(super) code: Option<i32>,
    pub(super) seconds: f64,
    /// The test whose line has begun.
    current: Option<String>,
}

impl Report {
    pub(super) fn new(kernel: &'static str) -> Self {
        Self {
            kernel,
            release: String::new(),
            suites: Vec::new(),
            verified: BTreeMap::new(),
            trouble: None,
            finished: false,
        }
    }

    /// Takes in a line; returns what is worth telling while it runs.
    ///
    /// | line | by | means |
    /// |---|---|---|
    /// | `vm up RELEASE` | init | the kernel runs, its modules are loaded |
    /// | `vm begin NAME`, `vm end NAME CODE START END` | init | a suite, with seconds since the kernel's start |
    /// | `vm kernel complained` | init | there are warnings in the kernel's log |
    /// | `vm down` | init | all suites ran |
    /// | `vm cannot load module NAME` | init | something of the kernel's own failed |
    /// | `did not run NAME needs FEATURE` | the tests | one that stayed away |
    /// | `test NAME ... ok`, `FAILED`, `ignored` | the test programs | one test |
    /// | `verified PROGRAM COUNT` | the test of the verifier's ceilings | one program |
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["vm", "up", release] => {
                release.clone_into(&mut self.release);
                Some(format!("{release} is up"))
            }
            ["vm", "begin", name] => {
                self.suites.push(Ran { name: name.to_owned(), ..Ran::default() });
                None
            }
            ["vm", "end", _, code, start, end] => {
                let suite = self.suites.last_mut()?;
                suite.code = code.parse().ok();
                suite.seconds = end.parse::<f64>().ok()? - start.parse::<f64>().ok()?;
                Some(suite.to_string())
            }
            ["vm", "kernel", "complained"] => {
                self.trouble = Some("the kernel wrote warnings, which are in the log".to_owned());
                None
            }
            ["vm", "cannot", "load", "module", name] => {
                self.trouble = Some(format!("module {name} cannot be loaded"));
                None
            }
            ["did", "not", "run", ..] => {
                let skipped = Skipped::parse(line)?;
                let news = format!("{}: {}", skipped.test, skipped.why());
                let suite = self.suites.last_mut()?;
                suite.passed = suite.passed.saturating_sub(1);
                suite.skipped.push(skipped);
                Some(format!("{}: did not run: {news}", suite.name))
            }
            ["vm", "down"] => {
                self.finished = true;
                None
            }
            ["verified", program, count] => {
                self.verified.insert(program.to_owned(), count.parse().ok()?);
                None
            }
            _ => self.suites.last_mut()?.test(line),
        }
    }

    /// The series of the kernel: `6.1` of `6.1.0-56-cloud-amd64`.
    pub(super) fn series(&self) -> &str {
        let mut dots = self.release.match_indices('.').map(|(at, _)| at);
        let end = dots.nth(1).unwrap_or(self.release.len());
        &self.release[..end]
    }

    pub(super) fn passed(&self) -> bool {
        self.finished && self.trouble.is_none() && self.suites.iter().all(Ran::is_well)
    }
}

impl Ran {
    fn is_well(&self) -> bool {
        self.code == Some(0) && self.failed.is_empty()
    }

    /// Takes in a line of a test program. What a test's own children write may stand between its name and the result.
    fn test(&mut self, line: &str) -> Option<String> {
        if let Some((name, rest)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
            self.current = Some(name.to_owned());
            return self.result(rest.trim());
        }
        if self.current.is_some() { self.result(line.trim()) } else { None }
    }

    fn result(&mut self, word: &str) -> Option<String> {
        // `ignored` may be followed by a reason.
        let known = ["ok", "FAILED", "ignored"].into_iter().find(|known| word.ends_with(known))?;
        let name = self.current.take()?;
        match known {
            "ok" => self.passed += 1,
            "FAILED" => self.failed.push(name.clone()),
            _ => {}
        }
        Some(format!("{}: {name} ... {known}", self.name))
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_well() { "ok" } else { "FAILED" };
        write!(f, "{}: {word}, {} tests passed in {:.0} s", self.name, self.passed, self.seconds)?;
        match self.skipped.len() {
            0 => Ok(()),
            count => write!(f, ", {count} did not run"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.set_header([self.release.as_str(), "result", "passed", "failed", "did not run", "seconds"]);
        for suite in &self.suites {
            let result = match suite.code {
                Some(0) if suite.failed.is_empty() => "ok".to_owned(),
                Some(code) => format!("FAILED ({code})"),
                None => "not finished".to_owned(),
            };
            let seconds = format!("{:.0}", suite.seconds);
            let skipped: Vec<String> =
                suite.skipped.iter().map(|one| format!("{}: {}", one.test, one.why())).collect();
            table.add_row([
                &suite.name,
                &result,
                &suite.passed.to_string(),
                &suite.failed.join("\n"),
                &skipped.join("\n"),
                &seconds,
            ]);
        }
        write!(f, "{table}")?;
        match &self.trouble {
            Some(trouble) => write!(f, "\n{}: {trouble}", self.kernel),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &str) -> Report {
        let mut report = Report::new("6.1");
        for line in lines.lines() {
            report.line(line);
        }
        report
    }

    const GOOD: &str = "vm up 6.1.0-56-cloud-amd64\nvm begin a\ntest one ... ok\ntest two ... listening on 7\nok\n\
                        test three ... ignored, by a reason\nverified site_in 70659\nvm end a 0 2.5 6.0\nvm down\n";

    #[test]
    fn what_passes_is_counted_whatever_stands_between() {
        let report = report(GOOD);
        assert!(report.passed(), "{report}");
        assert_eq!((report.series(), report.suites[0].passed), ("6.1", 2));
        assert_eq!(report.suites[0].seconds, 3.5);
        assert_eq!(report.verified["site_in"], 70_659);
    }

    #[test]
    fn what_did_not_run_is_named_and_does_not_count() {
        let report = report(&GOOD.replace("vm end a", "did not run one needs tcx\nvm end a"));
        assert!(report.passed(), "{report}");
        let suite = &report.suites[0];
        assert_eq!((suite.passed, suite.skipped.len()), (1, 1));
        assert!(report.to_string().contains("one: this kernel has no tcx"), "{report}");
    }

    #[test]
    fn a_failure_a_missing_end_and_the_kernels_complaint_each_fail_it() {
        let failed = report(&GOOD.replace("one ... ok", "one ... FAILED"));
        assert_eq!(failed.suites[0].failed, ["one"]);
        for bad in [
            failed,
            report(&GOOD.replace("a 0 2.5", "a 101 2.5")),
            report(&GOOD.replace("vm down\n", "")),
            report(&format!("vm cannot load module veth\n{GOOD}")),
            report(&GOOD.replace("vm down", "vm kernel complained\nvm down")),
            report("vm up 6.1.0-56-cloud-amd64\nvm begin a\ntest one ... "),
            Report::new("6.1"),
        ] {
            assert!(!bad.passed(), "{bad:?}");
        }
    }
}
