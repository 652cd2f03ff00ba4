//! Everything the guest has: one archive that the kernel unpacks into memory.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::kernel::{Files, run};
use super::modules;
use super::suite::{PROGRAMS, Suite};
use crate::project;

/// What runs first in the guest.
const INIT: &[u8] = include_bytes!("init.sh");

/// Where the guest has the suites' programs.
const PROGRAMS_IN_GUEST: &str = "/programs";

/// Programs that the tests call, and those that help to see what went wrong.
const TOOLS: [&str; 6] = ["ip", "tc", "nft", "ping", "curl", "dnsmasq"];

/// Writes the image for a guest with the kernel `files`, which runs `suites`.
pub(super) fn write(path: &Path, files: &Files, suites: &[Suite]) -> Result<()> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    fill(&mut archive, files, suites).with_context(|| format!("cannot make {}", path.display()))?;
    archive.finish().with_context(|| format!("cannot write {}", path.display()))
}

fn fill<W: Write>(archive: &mut Archive<W>, files: &Files, suites: &[Suite]) -> Result<()> {
    archive.file("init", INIT)?;
    for dir in ["proc", "sys", "dev", "run", "tmp", "root", "var/lib", "bin"] {
        archive.directory(dir)?;
    }
    archive.file("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n")?;
    archive.file("bin/busybox", &read(&on_path("busybox")?)?)?;
    for tool in TOOLS {
        let host = on_path(tool)?;
        add_program(archive, &format!("usr/bin/{tool}"), &host, read(&host)?)?;
    }
    add_sources(archive, project::root())?;
    let mut order = String::new();
    for module in modules::load_order(&files.modules)? {
        order += &format!("{}\n", module.name);
        archive.file(&format!("modules/{}.ko", module.name), &module.bytes)?;
    }
    archive.file("modules/order", order.as_bytes())?;
    for suite in suites {
        for program in [&suite.program].into_iter().chain(&suite.beside) {
            let to = in_guest(program);
            if !archive.has(&to) {
                add_program(archive, &to, program, stripped(program)?)?;
            }
        }
        for program in &suite.in_place {
            let to = program.to_str().context("a path that is no text")?;
            if !archive.has(to) {
                add_program(archive, to, program, stripped(program)?)?;
            }
        }
    }
    let lines: Vec<String> = suites.iter().map(line).collect();
    archive.file("suites", lines.concat().as_bytes())?;
    Ok(())
}

/// The source tree, where it is on this host: tests read corpora and pages in it.
fn add_sources<W: Write>(archive: &mut Archive<W>, dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))? {
        let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if kind.is_dir() {
            add_sources(archive, &path)?;
        } else if kind.is_file() {
            archive.file(&path.to_string_lossy(), &read(&path)?)?;
        }
    }
    Ok(())
}

/// What the guest's shell is to run: the suite's name, and a command line whose words have nothing to quote.
fn line(suite: &Suite) -> String {
    let env = suite.env.iter().map(|(name, value)| format!("{name}={value} ")).collect::<String>();
    let args = suite.args.iter().map(|arg| format!(" {}", arg.replace(PROGRAMS, PROGRAMS_IN_GUEST)));
    format!("{} env {env}{}{}\n", suite.name, in_guest(&suite.program), args.collect::<String>())
}

fn in_guest(program: &Path) -> String {
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    format!("{PROGRAMS_IN_GUEST}/{name}")
}

/// A program, and the shared libraries that it names, where it looks for them.
fn add_program<W: Write>(archive: &mut Archive<W>, to: &str, host: &Path, bytes: Vec<u8>) -> Result<()> {
    archive.file(to, &bytes)?;
    // Says so, and fails, for a program without any.
    let output = Command::new("ldd").arg(host).output().context("cannot run ldd")?;
    for library in libraries(&String::from_utf8_lossy(&output.stdout)) {
        if !archive.has(&library) {
            archive.file(&library, &read(Path::new(&library))?)?;
        }
    }
    Ok(())
}

/// The paths in what `ldd` prints.
fn libraries(listed: &str) -> Vec<String> {
    let path = |line: &str| {
        let (before, _) = line.rsplit_once(" (0x")?;
        let path = before.rsplit_once("=> ").map_or(before, |(_, path)| path).trim();
        path.starts_with('/').then(|| path.to_owned())
    };
    listed.lines().filter_map(path).collect()
}

/// Without debug information, which is nine tenths of a test program.
fn stripped(program: &Path) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    let to = dir.path().join("stripped");
    run(Command::new("strip").arg("-o").arg(&to).arg(program))?;
    read(&to)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn on_path(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let mut found = dirs.map(|dir| dir.join(name)).filter(|path| path.is_file());
    found
        .next()
        .with_context(|| format!("there is no {name}, which the guest needs: run `cargo xtask setup`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_the_paths_that_ldd_lists() {
        let listed = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n\tstatically linked\n";
        assert_eq!(libraries(listed), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn the_source_tree_is_taken_without_what_is_built_of_it() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["docs/page.md", "target/debug/program", ".git/config"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        let mut archive = Archive::new(Vec::new());
        add_sources(&mut archive, dir.path()).unwrap();
        let has = |file: &str| archive.has(dir.path().join(file).to_str().unwrap());
        assert!(has("docs/page.md") && !has("target") && !has(".git"));
    }

    #[test]
    fn a_suite_is_one_line_with_the_guests_paths() {
        let suite = Suite {
            name: "demo".into(),
            program: "/x/y/xtask".into(),
            args: vec!["demo".into(), "--programs".into(), PROGRAMS.into()],
            env: vec![("A".into(), "1".into())],
            beside: Vec::new(),
            in_place: Vec::new(),
        };
        assert_eq!(line(&suite), "demo env A=1 /programs/xtask demo --programs /programs\n");
    }
}
