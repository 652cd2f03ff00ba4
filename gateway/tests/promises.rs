//! Every test that docs/security.md names in its table of others' failures is there.

use std::fs;
use std::path::Path;

const HEADING: &str = "## Failures of others, and the test that holds each";

#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let (_, section) = page.split_once(HEADING).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 20, "{} rows: is this the table?", rows.len());
    let mut missing = Vec::new();
    for row in rows {
        let named: Vec<(&str, &str)> =
            row.split('`').skip(1).step_by(2).filter_map(|word| word.split_once("::")).collect();
        assert!(!named.is_empty(), "no test is named in: {row}");
        for (file, test) in named {
            let source = fs::read_to_string(root.join(file)).unwrap_or_default();
            if !is_test(&source, test) {
                missing.push(format!("{file}::{test}"));
            }
        }
    }
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:#?}");
}

/// Whether `source` has a test function of that name that is not ignored.
fn is_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let starts = [format!("fn {name}("), format!("async fn {name}(")];
    let Some(at) = lines.iter().position(|line| starts.iter().any(|start| line.starts_with(start.as_str())))
    else {
        return false;
    };
    let attributes: Vec<&str> =
        lines[..at].iter().rev().take_while(|line| line.starts_with("#[")).copied().collect();
    let is = |start: &str| attributes.iter().any(|line| line.starts_with(start));
    (is("#[test]") || is("#[tokio::test")) && !is("#[ignore")
}

#[test]
fn an_ignored_or_absent_test_is_no_test() {
    let source = "#[test]\nfn a() {}\n#[test]\n#[ignore = \"slow\"]\nfn b() {}\nfn c() {}\n#[tokio::test(x)]\nasync fn d() {}\n";
    assert_eq!(
        ["a", "b", "c", "d", "e"].map(|name| is_test(source, name)),
        [true, false, false, true, false]
    );
}
