//! Builds the real programs. Needs the toolchain that `cargo xtask setup` installs.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use sluicegate_ebpf_toolchain::{Arch, Toolchain, build};

/// The object is a function of its sources: another directory gives the same bytes. It carries BTF and its licence.
#[test]
fn the_object_depends_on_its_sources_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let toolchain = Toolchain::find().unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    for part in ["Cargo.toml", "engine", "gateway-ebpf"] {
        let copied = Command::new("cp")
            .args(["-r", "--"])
            .arg(root.join(part))
            .arg(elsewhere.path())
            .status()
            .unwrap();
        assert!(copied.success(), "{part}");
    }
    let objects: Vec<_> = [root, elsewhere.path()]
        .iter()
        .map(|root| {
            let target = elsewhere.path().join("target").join(root.file_name().unwrap());
            let object = build(&toolchain, root, &target, Arch::X86_64, Stdio::piped())
                .unwrap_or_else(|e| panic!("{e}"));
            fs::read(object).unwrap()
        })
        .collect();
    assert!(objects[0] == objects[1], "the path of the sources is in the object");
    let contains = |text: &[u8]| objects[0].windows(text.len()).any(|window| window == text);
    assert!(contains(b".BTF\0") && contains(b".BTF.ext\0"), "no BTF");
    assert!(
        contains(b"Dual MIT/GPL\0"),
        "the kernel refuses GPL-only helpers to programs without this licence"
    );
}
