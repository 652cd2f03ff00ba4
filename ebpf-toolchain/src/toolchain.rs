//! Which compiler there is that can produce eBPF.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::TARGET;
use crate::linker::Linker;

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// First line of `rustc -vV`.
    pub version: String,
    /// The linker.
    pub linker: Linker,
}

/// A compiler for [`TARGET`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// A rustup nightly with rust-src: core is built along (`-Z build-std=core`).
    Nightly {
        /// Rustup's name of it.
        toolchain: String,
    },
    /// A compiler whose sysroot has core for the target: Debian's `rustc-web` with `libstd-rust-web-dev-bpf`.
    Sysroot {
        /// The compiler.
        rustc: PathBuf,
    },
}

/// No toolchain; says what was looked for and found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the eBPF programs cannot be built on this machine: {reason}; run `cargo xtask setup`, which installs what is missing"
)]
pub struct Missing {
    /// What is missing.
    pub reason: String,
}

impl Toolchain {
    /// The first candidate with a linker of its LLVM: rustup nightlies with rust-src, then `/usr/bin/rustc`.
    ///
    /// # Errors
    /// When there is no compiler, no linker, or none that fit each other.
    pub fn find() -> Result<Self, Missing> {
        choose(Self::compilers(), Linker::find())
    }

    /// The compilers there are, the preferred one first.
    #[must_use]
    pub fn compilers() -> Vec<Candidate> {
        nightlies().into_iter().chain(debian()).collect()
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.compiler {
            Compiler::Nightly { toolchain } => write!(f, "rustup {toolchain} with rust-src")?,
            Compiler::Sysroot { rustc } => write!(f, "{} with core for {TARGET}", rustc.display())?,
        }
        write!(f, " ({}), {}", self.version, self.linker.path.display())
    }
}

/// A compiler for [`TARGET`] that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which.
    pub compiler: Compiler,
    /// First line of `rustc -vV`.
    pub version: String,
    /// LLVM's major version; a linker must have the same.
    pub llvm: u32,
}

fn choose(compilers: Vec<Candidate>, linker: Option<Linker>) -> Result<Toolchain, Missing> {
    let missing = |reason: String| Err(Missing { reason });
    let no_compiler = format!(
        "there is neither a rustup nightly with rust-src nor a /usr/bin/rustc with core for {TARGET} \
         (Debian: rustc-web and libstd-rust-web-dev-bpf)"
    );
    let Some(linker) = linker else {
        let compiler = if compilers.is_empty() { format!(", and {no_compiler}") } else { String::new() };
        return missing(format!("bpf-linker is neither on PATH nor in cargo's home{compiler}"));
    };
    if compilers.is_empty() {
        return missing(no_compiler);
    }
    let found: Vec<_> = compilers.iter().map(|c| format!("{} has LLVM {}", c.version, c.llvm)).collect();
    match compilers.into_iter().find(|candidate| linker.reads(candidate.llvm)) {
        Some(Candidate { compiler, version, .. }) => Ok(Toolchain { compiler, version, linker }),
        None => missing(format!(
            "{} was built with LLVM {} and reads no other, but {}",
            linker.path.display(),
            linker.llvm.unwrap_or_default(),
            found.join(" and ")
        )),
    }
}

fn nightlies() -> Vec<Candidate> {
    let Some(list) = stdout(&mut plain("rustup", &["toolchain", "list"])) else { return Vec::new() };
    let names =
        list.lines().filter_map(|line| line.split_whitespace().next()).filter(|n| n.starts_with("nightly"));
    names
        .filter_map(|name| {
            let sysroot = stdout(&mut plain("rustup", &["run", name, "rustc", "--print", "sysroot"]))?;
            Path::new(sysroot.trim())
                .join("lib/rustlib/src/rust/library/core/Cargo.toml")
                .is_file()
                .then_some(())?;
            let verbose = stdout(&mut plain("rustup", &["run", name, "rustc", "-vV"]))?;
            candidate(&verbose, Compiler::Nightly { toolchain: name.to_owned() })
        })
        .collect()
}

fn debian() -> Option<Candidate> {
    let rustc = PathBuf::from("/usr/bin/rustc");
    let sysroot = stdout(Command::new(&rustc).env_remove("RUSTUP_TOOLCHAIN").args(["--print", "sysroot"]))?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib");
    let has_core = std::fs::read_dir(libraries)
        .ok()?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"));
    has_core.then_some(())?;
    let verbose = stdout(Command::new(&rustc).arg("-vV"))?;
    candidate(&verbose, Compiler::Sysroot { rustc })
}

fn candidate(verbose: &str, compiler: Compiler) -> Option<Candidate> {
    let llvm = verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    let llvm = llvm.split('.').next()?.parse().ok()?;
    Some(Candidate { compiler, version: verbose.lines().next()?.to_owned(), llvm })
}

fn plain(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    // A proxy's choice of toolchain for the outer build must not reach the question.
    command.args(args).env_remove("RUSTUP_TOOLCHAIN");
    command
}

fn stdout(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn debian_rustc(llvm: u32) -> Candidate {
        let verbose = format!("rustc 1.96.0 (x)\nhost: x\nLLVM version: {llvm}.1.8\n");
        candidate(&verbose, Compiler::Sysroot { rustc: "/usr/bin/rustc".into() }).unwrap()
    }

    fn nightly(llvm: u32) -> Candidate {
        let verbose = format!("rustc 1.97.0-nightly (x)\nLLVM version: {llvm}.1.4\n");
        candidate(&verbose, Compiler::Nightly { toolchain: "nightly-x".into() }).unwrap()
    }

    fn linker(llvm: u32) -> Option<Linker> {
        Some(Linker { path: "/bin/bpf-linker".into(), llvm: Some(llvm) })
    }

    #[test]
    fn the_nightly_comes_first_unless_its_llvm_differs() {
        let chosen = choose(vec![nightly(22), debian_rustc(22)], linker(22)).unwrap();
        assert_eq!(chosen.compiler, Compiler::Nightly { toolchain: "nightly-x".into() });
        let chosen = choose(vec![nightly(23), debian_rustc(22)], linker(22)).unwrap();
        assert_eq!(chosen.compiler, Compiler::Sysroot { rustc: "/usr/bin/rustc".into() });
    }

    #[test]
    fn whatever_is_missing_is_named_along_with_the_command_that_installs_it() {
        for (compilers, linker, word) in [
            (vec![debian_rustc(22)], None, "bpf-linker is neither"),
            (vec![], linker(22), "rustc-web"),
            (vec![], None, "rustc-web"),
            (vec![debian_rustc(22)], linker(21), "LLVM 21"),
        ] {
            let message = choose(compilers, linker).unwrap_err().to_string();
            assert!(message.contains(word), "{message}");
            assert!(message.contains("cargo xtask setup"), "{message}");
        }
    }
}
