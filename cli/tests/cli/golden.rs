//! Output that is written down, so that every change of it is seen in review.

use std::path::Path;

/// Compares with `tests/cli/golden/<name>`; `UPDATE_GOLDEN=1` writes it instead.
#[track_caller]
pub(crate) fn check(name: &str, seen: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, seen).unwrap();
    }
    let written = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(seen, written, "{name}: run with UPDATE_GOLDEN=1 when the change is meant");
}
