//! Where `bpf-linker` is and which LLVM it was linked with.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// An installed `bpf-linker`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linker {
    /// The executable.
    pub path: PathBuf,
    /// LLVM's major version; `None` when neither cargo's records nor the executable tell.
    pub llvm: Option<u32>,
}

impl Linker {
    /// The first one on `PATH`, else the one `cargo install` puts in cargo's home.
    #[must_use]
    pub fn find() -> Option<Self> {
        let on_path =
            env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
        let cargo_bin = cargo_home().map(|home| home.join("bin"));
        on_path
            .into_iter()
            .chain(cargo_bin)
            .map(|dir| dir.join("bpf-linker"))
            .find(|path| path.is_file())
            .map(Self::at)
    }

    fn at(path: PathBuf) -> Self {
        let llvm = llvm_of_cargo_install(&path).or_else(|| llvm_of_executable(&path));
        Self { path, llvm }
    }

    /// Whether objects of a compiler with LLVM `major` can be linked: bitcode is read by the same major only. One that
    /// does not tell its version is given a try.
    #[must_use]
    pub fn reads(&self, major: u32) -> bool {
        self.llvm.is_none_or(|own| own == major)
    }
}

/// Cargo's home: `CARGO_HOME`, else `~/.cargo`.
pub(crate) fn cargo_home() -> Option<PathBuf> {
    env::var_os("CARGO_HOME")
        .filter(|home| !home.is_empty())
        .map(PathBuf::from)
        .or_else(|| env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
}

/// From cargo's record of what it installed beside the executable: the features name the LLVM.
fn llvm_of_cargo_install(path: &Path) -> Option<u32> {
    let bin = path.parent().filter(|dir| dir.file_name() == Some(OsStr::new("bin")))?;
    let records = fs::read_to_string(bin.parent()?.join(".crates2.json")).ok()?;
    llvm_of_record(&records)
}

fn llvm_of_record(records: &str) -> Option<u32> {
    let (_, entry) = records.split_once("\"bpf-linker ")?;
    let (_, features) = entry.split_once("\"features\":[")?;
    let (features, _) = features.split_once(']')?;
    features.split(',').find_map(|feature| {
        let name = feature.trim().trim_matches('"');
        name.strip_prefix("rust-llvm-").or_else(|| name.strip_prefix("llvm-"))?.parse().ok()
    })
}

/// From the name of the shared LLVM in the executable: `libLLVM.so.22.1` or `libLLVM-14.so`.
fn llvm_of_executable(path: &Path) -> Option<u32> {
    let bytes = fs::read(path).ok()?;
    let needle: &[u8] = b"libLLVM";
    let mut from = 0;
    while let Some(found) = bytes[from..].iter().position(|&byte| byte == b'l').map(|at| from + at) {
        from = found + 1;
        let Some(rest) = bytes[found..].strip_prefix(needle) else { continue };
        let rest = rest.strip_prefix(b".so.").or_else(|| rest.strip_prefix(b"-"));
        let digits: String = rest
            .unwrap_or_default()
            .iter()
            .take_while(|b| b.is_ascii_digit())
            .map(|&b| char::from(b))
            .collect();
        if let Ok(major) = digits.parse() {
            return Some(major);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_cargo_install_names_the_llvm() {
        let record = r#"{"installs":{"a 1":{"features":["llvm-9"]},"bpf-linker 0.13.0 (r)":{"bins":["bpf-linker"],"features":["llvm-22"]}}}"#;
        assert_eq!(llvm_of_record(record), Some(22));
        assert_eq!(
            llvm_of_record(r#"{"installs":{"bpf-linker 0.1":{"features":["rust-llvm-21","x"]}}}"#),
            Some(21)
        );
        assert_eq!(llvm_of_record(r#"{"installs":{}}"#), None);
        assert_eq!(llvm_of_record(r#"{"installs":{"bpf-linker 0.1":{"features":["default"]}}}"#), None);
    }

    #[test]
    fn the_executable_names_the_shared_llvm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bpf-linker");
        for (content, expected) in [
            (&b"..lib\0libLLVM.so.22.1\0"[..], Some(22)),
            (b"llibLLVM-14.so", Some(14)),
            (b"libLLVM.so\0libLLVMCore", None),
            (b"", None),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(llvm_of_executable(&path), expected, "{content:?}");
        }
    }

    #[test]
    fn another_major_is_not_read() {
        let linker = |llvm| Linker { path: PathBuf::new(), llvm };
        assert!(linker(Some(22)).reads(22));
        assert!(!linker(Some(21)).reads(22));
        assert!(linker(None).reads(22));
    }
}
