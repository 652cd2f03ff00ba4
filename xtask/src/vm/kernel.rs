//! Debian's cloud kernels, small and with BTF.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sluicegate_lab::Feature;

use crate::skipped;

/// A kernel the tests run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kernel {
    /// Debian 12's own: before tcx, with the clsact fallback.
    #[value(name = "6.1")]
    V6_1,
    /// Debian 13's, which Debian 12 has too.
    #[value(name = "6.12")]
    V6_12,
    /// The one this host runs, without QEMU.
    #[value(name = "host")]
    Host,
}

/// A kernel unpacked.
#[derive(Debug)]
pub(super) struct Files {
    /// As `uname -r` tells it.
    pub(super) release: String,
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// The directory of the modules.
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// From the oldest to the newest.
    pub(super) const ALL: [Self; 3] = [Self::V6_1, Self::V6_12, Self::Host];

    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V6_1 => "6.1",
            Self::V6_12 => "6.12",
            Self::Host => "host",
        }
    }

    /// What tests may need that it does not have. All else must run.
    pub(super) fn lacks(self) -> Vec<Feature> {
        match self {
            Self::V6_1 => vec![Feature::Tcx, Feature::XdpFeatures],
            Self::V6_12 => Vec::new(),
            Self::Host => skipped::missing_here(),
        }
    }

    /// Downloads and unpacks the newest package of the series below `directory`, unless that was done.
    pub(super) fn fetch(self, directory: &Path) -> Result<Files> {
        let own = directory.join(self.name());
        let stamp = own.join("package");
        let there = fs::read_to_string(&stamp).ok();
        let Some(package) = self.newest_package()? else {
            // The lists may be gone while what they led to is still here.
            return match there {
                Some(_) => unpacked(&own),
                None => bail!(
                    "apt knows no linux-image-{}.*-cloud-amd64: run `apt-get update`; Debian 12 has 6.1 in bookworm and 6.12 in \
                     bookworm-security or bookworm-backports",
                    self.name()
                ),
            };
        };
        if there.as_deref() != Some(package.as_str()) {
            println!("fetching {package}");
            download(&own, &package)?;
            fs::write(&stamp, &package).with_context(|| format!("cannot write {}", stamp.display()))?;
        }
        unpacked(&own)
    }

    fn newest_package(self) -> Result<Option<String>> {
        let series = self.name().replace('.', "\\.");
        let pattern = format!("^linux-image-{series}\\.[0-9].*-cloud-amd64$");
        let output = Command::new("apt-cache").args(["search", "--names-only", &pattern]).output();
        let output = output.context("cannot run apt-cache: the kernels are Debian's packages")?;
        Ok(newest(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// The name with the highest numbers among those `apt-cache search` lists.
fn newest(listed: &str) -> Option<String> {
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    names.max_by_key(|name| numbers(name)).map(str::to_owned)
}

fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn download(own: &Path, package: &str) -> Result<()> {
    // What an older package left must not be found beside the new one.
    let _ = fs::remove_dir_all(own);
    fs::create_dir_all(own).with_context(|| format!("cannot make {}", own.display()))?;
    run(Command::new("apt-get").args(["download", "--quiet", "--quiet", package]).current_dir(own))?;
    let archive = find(own, |name| name.ends_with(".deb"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(own))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}

fn unpacked(own: &Path) -> Result<Files> {
    let image = find(&own.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    let release = image.file_name().map(|name| name.to_string_lossy().replacen("vmlinuz-", "", 1));
    let release = release.context("a kernel without name")?;
    // Below /usr since Debian 13.
    let modules = ["lib/modules", "usr/lib/modules"].map(|dir| own.join(dir).join(&release));
    let modules = modules.into_iter().find(|dir| dir.is_dir());
    Ok(Files { image, modules: modules.context("the kernel's package has no modules")?, release })
}

fn find(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let mut paths = entries.flatten().filter(|entry| wanted(&entry.file_name().to_string_lossy()));
    let found = paths.next().map(|entry| entry.path());
    found.with_context(|| format!("{} is incomplete: remove it, and it is fetched again", dir.display()))
}

/// Runs `command` to its end, which is to be a success.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().display().to_string();
    let output = command.output().with_context(|| format!("cannot run {name}"))?;
    if !output.status.success() {
        let args: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy()).collect();
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("`{name} {}` failed ({}): {}", args.join(" "), output.status, said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_package_has_the_highest_numbers_not_letters() {
        let listed =
            "linux-image-6.1.0-9-cloud-amd64 - Linux 6.1\nlinux-image-6.1.0-56-cloud-amd64 - Linux\n";
        assert_eq!(newest(listed).unwrap(), "linux-image-6.1.0-56-cloud-amd64");
        let listed =
            "linux-image-6.12.99+deb12-cloud-amd64 - L\nlinux-image-6.12.117+deb12-cloud-amd64 - L\n";
        assert_eq!(newest(listed).unwrap(), "linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(newest(""), None);
    }
}
