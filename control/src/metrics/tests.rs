use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

/// Every family with at least one series, so that the page names them all.
fn page() -> String {
    let metrics = Metrics::new().unwrap();
    metrics.http_requests.with_label_values(&["/api/peers", "GET", "200"]).inc();
    metrics.http_seconds.with_label_values(&["/api/peers", "GET"]).observe(0.001);
    metrics.show_store(&Observed::new("sqlite").unwrap()).unwrap();
    metrics.certificate_expiry.with_label_values(&["server"]).set(1.0);
    metrics.render().unwrap()
}

#[test]
fn promtool_accepts_the_page() {
    let spawned = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            panic!("promtool cannot be started ({error}): run `cargo xtask setup`, which installs it")
        }
    };
    child.stdin.take().unwrap().write_all(page().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
}

#[test]
fn names_types_and_help_are_the_published_ones() {
    let page = page();
    let seen: Vec<&str> = page.lines().filter(|line| line.starts_with('#')).collect();
    let published: Vec<&str> = include_str!("names.txt").lines().collect();
    assert_eq!(
        seen, published,
        "control/src/metrics/names.txt is the published list; change both or neither"
    );
}

#[test]
fn rates_over_first_events_are_not_lost() {
    let metrics = Metrics::new().unwrap();
    metrics.show_store(&Observed::new("sqlite").unwrap()).unwrap();
    let page = metrics.render().unwrap();
    for series in [
        "sluicegate_control_store_errors_total{reason=\"unavailable\"} 0",
        "sluicegate_control_store_polled_changes_total 0",
        "sluicegate_control_images_pushed_total{kind=\"delta\"} 0",
        "sluicegate_control_enrolments_total{result=\"ok\"} 0",
        "sluicegate_control_flow_events_total{kind=\"drop\"} 0",
        "sluicegate_control_connected_agents{role=\"gateway\"} 0",
    ] {
        assert!(page.contains(series), "{series}");
    }
}
