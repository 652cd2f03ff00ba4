//! A real name server, dnsmasq, on loopback in the namespace of whoever starts it.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

/// It ends with this.
pub(crate) struct Dnsmasq(Child);

impl Dnsmasq {
    /// Serves on `address` at `port`, and only what `records` say (in dnsmasq's own options). Returns when it answers.
    pub(crate) fn start(address: &str, port: u16, records: &[&str]) -> Self {
        let mut child = Command::new("dnsmasq")
            .args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--user=root"])
            .args(["--log-facility=-", "--no-resolv", "--no-hosts", "--bind-interfaces"])
            .args([format!("--listen-address={address}"), format!("--port={port}")])
            .args(records)
            .stderr(Stdio::piped())
            .spawn()
            .expect("dnsmasq is installed by `cargo xtask setup`");
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("started") {
            assert_ne!(log.read_line(&mut said).unwrap(), 0, "dnsmasq does not start: {said}");
        }
        // Its pipe must not fill up.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self(child)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
