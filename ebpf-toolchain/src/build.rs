//! Runs the nested cargo that compiles and links the programs.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::linker::cargo_home;
use crate::toolchain::{Compiler, Missing, Toolchain};
use crate::{OBJECT, TARGET};

/// Why there is no object.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No toolchain.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The kernel's registers are named per architecture, and this one is not known.
    #[error("eBPF programs for {0} are not supported: choose one of x86_64, aarch64, riscv64")]
    Arch(String),
    /// A program or file could not be used.
    #[error("{what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The compiler refused.
    #[error("the eBPF programs do not build with {toolchain}:\n{output}")]
    Compile {
        /// What it was built with.
        toolchain: String,
        /// The compiler's messages; empty when they went to the terminal.
        output: String,
    },
}

/// Architecture of the kernel that will run the programs; decides how `pt_regs` is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// amd64.
    X86_64,
    /// arm64.
    Aarch64,
    /// RISC-V, 64 bits.
    Riscv64,
}

impl Arch {
    /// From Rust's name of the architecture.
    ///
    /// # Errors
    /// [`BuildError::Arch`] for one that is not known.
    pub fn from_name(name: &str) -> Result<Self, BuildError> {
        match name {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            "riscv64" | "riscv64gc" => Ok(Self::Riscv64),
            other => Err(BuildError::Arch(other.to_owned())),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
            Self::Riscv64 => "riscv64",
        }
    }
}

/// For a build script: builds the object, copies it to `$OUT_DIR/sluicegate` and tells cargo when to run again. Does
/// nothing for a target that is not Linux. Leaves with a sentence on stderr when the object cannot be built.
pub fn build_for_cargo() {
    build_objects_for_cargo(&[OBJECT]);
}

/// As [`build_for_cargo`], for the named binaries of `gateway-ebpf/`.
pub fn build_objects_for_cargo(names: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".."));
    let own = ["gateway-ebpf/src", "gateway-ebpf/Cargo.toml", "gateway-ebpf/Cargo.lock"];
    let others = ["engine/src", "engine/Cargo.toml"];
    // Binaries other than the gateway's own are kept with the benchmarks.
    let benchmarks = names.iter().any(|name| *name != OBJECT).then_some("bench/ebpf");
    for path in own.into_iter().chain(others).chain(benchmarks) {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    if env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    if let Err(error) = build_into_out_dir(root, names) {
        eprintln!("{error}");
        // Cargo shows `error` directives without the noise of a panic.
        for line in error.to_string().lines().filter(|line| !line.trim().is_empty()) {
            println!("cargo::error={line}");
        }
        std::process::exit(1);
    }
}

fn build_into_out_dir(root: &Path, names: &[&str]) -> Result<(), BuildError> {
    let arch = Arch::from_name(&env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default())?;
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let toolchain = Toolchain::find()?;
    for name in names {
        let object = build(&toolchain, root, name, &shared_target_dir(&out), arch, Stdio::piped())?;
        let copy = out.join(name);
        fs::copy(&object, &copy).map_err(|source| BuildError::Io {
            what: "cannot write",
            path: copy,
            source,
        })?;
    }
    Ok(())
}

/// Builds the binary `name` of the project at `root` and returns the object's path below `target_dir`. With
/// [`Stdio::piped`] the compiler's messages come back in the error, otherwise they go where `messages` says.
///
/// The sources, the lock file, the compiler and where the sources are decide on the object (cargo makes crate hashes of
/// the latter); the paths themselves are remapped and are not in it.
///
/// # Errors
/// When cargo cannot be run or refuses.
pub fn build(
    toolchain: &Toolchain,
    root: &Path,
    name: &str,
    target_dir: &Path,
    arch: Arch,
    messages: Stdio,
) -> Result<PathBuf, BuildError> {
    let mut command = cargo_command(toolchain, root, arch, "build");
    command
        .args(["--release", "--locked", "--bin", name])
        .arg("--target-dir")
        .arg(target_dir)
        .stdin(Stdio::null())
        .stderr(messages);
    let spawned = command.stdout(Stdio::null()).spawn();
    let output = spawned.and_then(std::process::Child::wait_with_output).map_err(|source| {
        BuildError::Io { what: "cannot run", path: command.get_program().into(), source }
    })?;
    if !output.status.success() {
        let output = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(BuildError::Compile { toolchain: toolchain.to_string(), output });
    }
    Ok(target_dir.join(TARGET).join("release").join(name))
}

/// Cargo `verb` on `gateway-ebpf/` with the compiler, target and flags of the programs, free of what an outer cargo put
/// into the environment.
#[must_use]
pub fn cargo_command(toolchain: &Toolchain, root: &Path, arch: Arch, verb: &str) -> Command {
    let mut command = match &toolchain.compiler {
        Compiler::Nightly { toolchain } => {
            let mut command = Command::new("rustup");
            command.args(["run", toolchain, "cargo", verb, "-Z", "build-std=core"]);
            command
        }
        Compiler::Sysroot { .. } => {
            let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            command.arg(verb);
            command
        }
    };
    command.arg("--target").arg(TARGET).arg("--manifest-path").arg(root.join("gateway-ebpf/Cargo.toml"));
    clear_environment(&mut command);
    if let Compiler::Sysroot { rustc } = &toolchain.compiler {
        // aya-ebpf needs unstable features, which only this variable opens in a stable compiler.
        command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1");
    }
    // An empty wrapper overrides one from the user's configuration: caches do not know the linker's inputs.
    command.env("RUSTC_WRAPPER", "").env("RUSTC_WORKSPACE_WRAPPER", "");
    command.env("CARGO_ENCODED_RUSTFLAGS", rustflags(root, arch));
    if let Some(dir) = toolchain.linker.path.parent() {
        command.env("PATH", path_with(dir));
    }
    command
}

fn rustflags(root: &Path, arch: Arch) -> OsString {
    let mut flags: Vec<OsString> = vec![
        "-Cdebuginfo=2".into(), // BTF is made from debug information
        "-Clink-arg=--btf".into(),
        "-Ctarget-cpu=v3".into(), // 32-bit registers and jumps; every kernel with BTF has it
        format!("--cfg=bpf_target_arch=\"{}\"", arch.name()).into(),
    ];
    let home = cargo_home();
    for (from, to) in [(Some(root), "."), (home.as_deref(), "/cargo")] {
        let Some(from) = from else { continue };
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    flags.join(OsStr::new("\u{1f}"))
}

fn clear_environment(command: &mut Command) {
    for (name, _) in env::vars_os() {
        if name.to_str().is_none_or(|name| !belongs_to_outer_build(name)) {
            continue;
        }
        command.env_remove(name);
    }
}

/// Whether `name` was set for another build. Where crates come from, and how the terminal looks, is kept.
fn belongs_to_outer_build(name: &str) -> bool {
    const OWN: [&str; 10] = [
        "TARGET",
        "HOST",
        "OUT_DIR",
        "PROFILE",
        "OPT_LEVEL",
        "DEBUG",
        "NUM_JOBS",
        "RUSTFLAGS",
        "RUSTDOCFLAGS",
        "LD_LIBRARY_PATH",
    ];
    const KEPT: [&str; 9] = [
        "CARGO_HOME",
        "CARGO_MAKEFLAGS",
        "CARGO_NET_",
        "CARGO_HTTP_",
        "CARGO_HTTPS_",
        "CARGO_REGISTRIES_",
        "CARGO_REGISTRY_",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
    ];
    if KEPT.iter().any(|kept| name.starts_with(kept)) {
        return false;
    }
    let prefixed =
        ["CARGO", "RUSTC", "RUSTDOC", "DEP_", "CLIPPY_"].iter().any(|prefix| name.starts_with(prefix));
    prefixed || OWN.contains(&name) || name == "RUSTUP_TOOLCHAIN" || name == "__CARGO_DEFAULT_LIB_METADATA"
}

fn path_with(first: &Path) -> OsString {
    let rest = env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(first.to_path_buf()).chain(env::split_paths(&rest));
    env::join_paths(all).unwrap_or(rest)
}

/// One directory for all profiles and crates that need the object: `target/ebpf`, or below `OUT_DIR` when the target
/// directory cannot be told.
fn shared_target_dir(out: &Path) -> PathBuf {
    let target = out.ancestors().find(|dir| dir.join("CACHEDIR.TAG").is_file());
    target.unwrap_or(out).join("ebpf")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Linker;

    #[test]
    fn the_outer_build_does_not_leak_and_the_registry_does() {
        for name in [
            "RUSTFLAGS",
            "CARGO_ENCODED_RUSTFLAGS",
            "CARGO",
            "CARGO_PKG_NAME",
            "RUSTC",
            "RUSTC_WRAPPER",
            "TARGET",
            "CARGO_TARGET_DIR",
            "CARGO_BUILD_TARGET",
            "RUSTUP_TOOLCHAIN",
            "CARGO_PROFILE_RELEASE_LTO",
            "RUSTC_LINKER",
        ] {
            assert!(belongs_to_outer_build(name), "{name}");
        }
        for name in [
            "CARGO_HOME",
            "CARGO_NET_OFFLINE",
            "CARGO_HTTP_PROXY",
            "PATH",
            "HOME",
            "RUSTUP_HOME",
            "CARGO_TERM_COLOR",
        ] {
            assert!(!belongs_to_outer_build(name), "{name}");
        }
    }

    #[test]
    fn flags_keep_paths_with_spaces_whole() {
        let flags = rustflags(Path::new("/a b"), Arch::Aarch64).into_string().unwrap();
        let flags: Vec<_> = flags.split('\u{1f}').collect();
        assert!(flags.contains(&"--remap-path-prefix=/a b=."), "{flags:?}");
        assert!(flags.contains(&"--cfg=bpf_target_arch=\"aarch64\""), "{flags:?}");
    }

    #[test]
    fn a_nightly_builds_core_and_debian_opens_unstable_features() {
        let linker = Linker { path: "/opt/bin/bpf-linker".into(), llvm: Some(22) };
        let nightly = Toolchain {
            compiler: Compiler::Nightly { toolchain: "nightly-x".into() },
            version: String::new(),
            linker: linker.clone(),
        };
        let command = cargo_command(&nightly, Path::new("/p"), Arch::X86_64, "build");
        let args: Vec<_> = command.get_args().filter_map(OsStr::to_str).collect();
        assert_eq!(command.get_program(), "rustup");
        assert!(args.join(" ").contains("run nightly-x cargo build -Z build-std=core"), "{args:?}");

        let debian = Toolchain {
            compiler: Compiler::Sysroot { rustc: "/usr/bin/rustc".into() },
            version: String::new(),
            linker,
        };
        let command = cargo_command(&debian, Path::new("/p"), Arch::X86_64, "build");
        let env: Vec<_> = command.get_envs().collect();
        assert!(env.contains(&(OsStr::new("RUSTC_BOOTSTRAP"), Some(OsStr::new("1")))));
        let path = env.iter().find(|(name, _)| *name == "PATH").and_then(|(_, value)| *value).unwrap();
        assert!(path.to_str().unwrap().starts_with("/opt/bin:"));
    }

    #[test]
    fn all_builds_share_one_target_directory() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("target/debug/build/x/out");
        fs::create_dir_all(&out).unwrap();
        assert_eq!(shared_target_dir(&out), out.join("ebpf"));
        fs::write(dir.path().join("target/CACHEDIR.TAG"), "").unwrap();
        assert_eq!(shared_target_dir(&out), dir.path().join("target/ebpf"));
    }
}
