//! Builds the real programs. Needs the toolchain that `cargo xtask setup` installs.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use sluicegate_ebpf_toolchain::{Arch, OBJECT, Toolchain, build};

/// The object carries BTF and the licence that the kernel asks for, and nothing of the machine it was built on.
#[test]
fn the_object_is_whole_and_names_no_path_of_the_machine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let toolchain = Toolchain::find().unwrap();
    // The directory the gateway's build uses, so that nothing is compiled twice.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("ebpf");
    let object = build(&toolchain, root, OBJECT, &target, Arch::X86_64, Stdio::piped());
    let object = fs::read(object.unwrap_or_else(|error| panic!("{error}"))).unwrap();
    let contains = |text: &[u8]| object.windows(text.len()).any(|window| window == text);
    assert!(contains(b".BTF\0") && contains(b".BTF.ext\0"), "no BTF");
    assert!(
        contains(b"Dual MIT/GPL\0"),
        "the kernel refuses GPL-only helpers to programs without this licence"
    );
    for part in ["engine", "gateway-ebpf"] {
        let path = root.join(part);
        assert!(!contains(path.to_str().unwrap().as_bytes()), "{} is in the object", path.display());
    }
    let home = std::env::var("HOME").unwrap();
    assert!(!contains(format!("{home}/.cargo").as_bytes()), "the path of cargo's registry is in the object");
}
