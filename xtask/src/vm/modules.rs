//! Kernel modules, in the order in which they are loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What the lab, the gateway and the benchmarks' rival use. Those that a kernel does not have as modules are built in, or
/// not there at all, and then the test that needs them says so.
const WANTED: [&str; 22] = [
    "veth",
    "tun",
    "bridge",
    "8021q",
    "dummy",
    "vrf",
    "sch_ingress",
    "cls_bpf",
    "wireguard",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_masq",
    "nft_chain_nat",
    "nft_limit",
    "nft_reject_inet",
    "nft_fib_inet",
    "nft_log",
    "nft_compat",
    "nf_conntrack",
    "xt_MASQUERADE",
    "sch_netem",
];

/// A module.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Module {
    /// Its name, with underscores.
    pub(super) name: String,
    /// What `insmod` takes.
    pub(super) bytes: Vec<u8>,
}

/// The wanted modules below `dir` and those they depend on, each after all it depends on.
pub(super) fn load_order(dir: &Path) -> Result<Vec<Module>> {
    let mut paths = BTreeMap::new();
    index(dir, &mut paths)?;
    let mut order = Vec::new();
    for name in WANTED {
        add(name, &paths, &mut order)?;
    }
    Ok(order)
}

fn add(name: &str, paths: &BTreeMap<String, PathBuf>, order: &mut Vec<Module>) -> Result<()> {
    let name = name.replace('-', "_");
    let Some(path) = paths.get(&name).filter(|_| order.iter().all(|module| module.name != name)) else {
        return Ok(());
    };
    let bytes = read(path)?;
    for needed in depends(&bytes) {
        add(&needed, paths, order)?;
    }
    order.push(Module { name, bytes });
    Ok(())
}

/// Modules by name, below `dir`.
fn index(dir: &Path, paths: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?.flatten() {
        let path = entry.path();
        if path.is_dir() {
            index(&path, paths)?;
        } else if let Some((name, _)) = entry.file_name().to_string_lossy().split_once(".ko") {
            paths.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

/// A module as the kernel takes it: Debian compresses them since 6.12.
fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "ko") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let output = Command::new("busybox").arg("xzcat").arg(path).output().context("cannot run busybox")?;
    if !output.status.success() {
        bail!("{} cannot be unpacked: {}", path.display(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

/// The modules a module names in its section `.modinfo`, a list of strings that each end with a zero.
fn depends(module: &[u8]) -> Vec<String> {
    const TAG: &[u8] = b"\0depends=";
    let Some(start) = module.windows(TAG.len()).position(|window| window == TAG) else { return Vec::new() };
    let rest = &module[start + TAG.len()..];
    let text = String::from_utf8_lossy(rest.split(|byte| *byte == 0).next().unwrap_or_default());
    text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_comes_after_all_it_depends_on_and_once() {
        let dir = tempfile::tempdir().unwrap();
        let module = |name: &str, depends: &str| {
            let text = format!("ELF\0license=GPL\0depends={depends}\0name={name}\0");
            fs::write(dir.path().join(format!("{name}.ko")), text).unwrap();
        };
        module("bridge", "stp,llc");
        module("stp", "llc");
        module("llc", "");
        module("8021q", "mrp,garp");
        module("garp", "stp,llc");
        module("mrp", "");
        module("unwanted", "");
        let order: Vec<String> = load_order(dir.path()).unwrap().into_iter().map(|m| m.name).collect();
        assert_eq!(order, ["llc", "stp", "bridge", "mrp", "garp", "8021q"]);
    }
}
