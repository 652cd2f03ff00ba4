//! Debian's packages.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::on_path;

/// Services that come with packages of which only programs are wanted: promtool; initdb and postgres, which the tests start
/// over directories of their own.
const SERVICES: [(&str, &str); 2] =
    [("prometheus", "prometheus.service"), ("postgresql", "postgresql.service")];

/// Installs those of `packages` that are not installed; refreshes the package lists when they are too old for that.
pub(super) fn install(packages: &[&str]) -> Result<()> {
    let wanted: Vec<_> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    println!("installing {} with apt", wanted.join(", "));
    let quiet = NoServices::start()?;
    if apt_get(&install_args(&wanted), Stdio::null()).is_err() {
        println!("refreshing the package lists");
        apt_get(&["update", "--quiet", "--quiet"], Stdio::inherit())?;
        apt_get(&install_args(&wanted), Stdio::inherit())?;
    }
    drop(quiet);
    for (package, service) in SERVICES {
        if wanted.contains(&package) && on_path("systemctl") {
            // Wanted for its programs only. Fails where systemd does not run, and then it is not started either.
            let _ = privileged("systemctl", &["disable", "--quiet", service])?.stderr(Stdio::null()).status();
        }
    }
    Ok(())
}

/// Whether apt knows a version of `package`.
pub(super) fn has(package: &str) -> bool {
    let output = Command::new("apt-cache").args(["show", "--no-all-versions", package]).output();
    output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
}

fn installed(package: &str) -> bool {
    let output = Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]).output();
    output.is_ok_and(|output| output.stdout == b"installed")
}

fn install_args<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["install", "--yes", "--quiet", "--quiet", "--no-install-recommends"];
    args.extend(packages);
    args
}

fn apt_get(args: &[&str], messages: Stdio) -> Result<()> {
    let mut all = vec!["DEBIAN_FRONTEND=noninteractive", "apt-get"];
    all.extend(args);
    // `env`, because sudo drops the variable otherwise.
    let status = privileged("env", &all)?
        .stdout(Stdio::null())
        .stderr(messages)
        .status()
        .context("cannot run apt-get")?;
    if !status.success() {
        bail!("`apt-get {}` failed ({status})", args.join(" "));
    }
    Ok(())
}

/// `program` as root: by sudo when this process is not.
fn privileged(program: &str, args: &[&str]) -> Result<Command> {
    // SAFETY: no arguments, cannot fail.
    let mut command = if unsafe { libc::geteuid() } == 0 {
        Command::new(program)
    } else if on_path("sudo") {
        let mut command = Command::new("sudo");
        command.arg(program);
        command
    } else {
        bail!(
            "packages are installed by root, and there is no sudo: run as root `{program} {}`",
            args.join(" ")
        );
    };
    command.args(args);
    Ok(command)
}

/// While it lives, packages that are installed do not start their services (Debian Policy 9.3.3, invoke-rc.d).
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn start() -> Result<Self> {
        // SAFETY: no arguments, cannot fail.
        let root = unsafe { libc::geteuid() } == 0;
        if !root || Path::new(POLICY).exists() {
            // Somebody decides already, or this process cannot; the service is disabled afterwards in any case.
            return Ok(Self { ours: false });
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o755).open(POLICY)?;
        file.write_all(b"#!/bin/sh\nexit 101\n").with_context(|| format!("cannot write {POLICY}"))?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours
            && let Err(error) = fs::remove_file(POLICY)
        {
            eprintln!("cannot remove {POLICY}, which keeps services from starting: {error}");
        }
    }
}
