//! What a test needs of its machine and not every machine has. A test that cannot run fails, unless whoever started the tests
//! allows that; then it leaves a record that it did not run.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;
use std::{env, fmt, fs, thread};

use crate::lab::Lab;

/// Names of the features that may be missing, separated by commas. What is missing and not named fails the test.
pub const MAY_SKIP: &str = "SLUICEGATE_MAY_SKIP";

/// The file that gets a line for each test that did not run: [`Skipped`], as it is displayed.
pub const SKIPPED: &str = "SLUICEGATE_SKIPPED";

/// Something a test needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// VLAN devices (CONFIG_VLAN_8021Q).
    Vlan,
    /// An order among the TC programs of a device (Linux 6.6).
    Tcx,
    /// What each driver can do for XDP, as the kernel tells it (Linux 6.3).
    XdpFeatures,
}

impl Feature {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Vlan, Self::Tcx, Self::XdpFeatures];

    /// As it is named in [`MAY_SKIP`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Vlan => "vlan",
            Self::Tcx => "tcx",
            Self::XdpFeatures => "xdp-features",
        }
    }

    /// What is missing, as a sentence's beginning.
    #[must_use]
    pub fn missing(self) -> &'static str {
        match self {
            Self::Vlan => "this kernel has no VLAN devices",
            Self::Tcx => "this kernel has no tcx",
            Self::XdpFeatures => "this kernel does not tell by which devices XDP can send natively",
        }
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn is_there(self) -> bool {
        match self {
            Self::Vlan => has_vlan_devices(),
            Self::Tcx => kernel_version() >= (6, 6),
            Self::XdpFeatures => kernel_version() >= (6, 3),
        }
    }
}

/// Whether the test that calls it, and needs `feature`, can run. If not, it must end at once: that it did not run is on record.
///
/// # Panics
/// When `feature` is missing and [`MAY_SKIP`] does not name it, or the record cannot be written.
#[must_use]
pub fn can_run_with(feature: Feature) -> bool {
    if feature.is_there() {
        return true;
    }
    let thread = thread::current();
    let skipped = Skipped { test: thread.name().unwrap_or("unnamed").to_owned(), feature };
    assert!(
        names(&env::var(MAY_SKIP).unwrap_or_default(), feature),
        "{}, which this test needs: `cargo xtask vm` runs it on kernels that have, and {MAY_SKIP}={} allows it not to run",
        feature.missing(),
        feature.name(),
    );
    eprintln!("did not run: {}", feature.missing());
    if let Some(file) = env::var_os(SKIPPED) {
        let noted = skipped.note(Path::new(&file));
        assert!(noted.is_ok(), "{} cannot be written: {noted:?}", file.display());
    }
    false
}

fn names(list: &str, feature: Feature) -> bool {
    list.split(',').any(|name| name.trim() == feature.name())
}

/// A test that did not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its name.
    pub test: String,
    /// What is missing.
    pub feature: Feature,
}

impl Skipped {
    /// Reads a line of the records; `None` for any other line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let (test, feature) = line.strip_prefix("did not run ")?.split_once(" needs ")?;
        let feature = Feature::ALL.into_iter().find(|known| known.name() == feature)?;
        Some(Self { test: test.to_owned(), feature })
    }

    /// What is missing, as a sentence's beginning.
    #[must_use]
    pub fn why(&self) -> &'static str {
        self.feature.missing()
    }

    /// One write, so that the lines of tests that run at once do not mix.
    fn note(&self, file: &Path) -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).append(true).open(file)?;
        file.write_all(format!("{self}\n").as_bytes())
    }
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "did not run {} needs {}", self.test, self.feature.name())
    }
}

/// Tried, since a module may be loaded by the first who asks. An error of any other kind is for the test to meet.
fn has_vlan_devices() -> bool {
    let Ok(lab) = Lab::new() else { return true };
    let Ok(probe) = lab.namespace("probe") else { return true };
    let added = probe.ip(&["link", "add", "link", "lo", "name", "tagged", "type", "vlan", "id", "7"]);
    !added.is_err_and(|error| error.to_string().contains("Unknown device type"))
}

/// Major and minor number of the version of this kernel.
#[must_use]
pub fn kernel_version() -> (u32, u32) {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_may_be_missing() {
        assert!(names("vlan, tcx", Feature::Tcx) && names("vlan", Feature::Vlan));
        assert!(!names("", Feature::Tcx) && !names("vlans", Feature::Vlan));
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("skipped");
        for feature in Feature::ALL {
            Skipped { test: "world::a_test".into(), feature }.note(&file).unwrap();
        }
        let text = fs::read_to_string(&file).unwrap();
        let read: Vec<Skipped> = text.lines().filter_map(Skipped::parse).collect();
        assert_eq!(read.len(), Feature::ALL.len());
        assert_eq!((read[1].test.as_str(), read[1].why()), ("world::a_test", Feature::Tcx.missing()));
        assert_eq!(Skipped::parse("test world::a_test ... ok"), None);
    }
}
