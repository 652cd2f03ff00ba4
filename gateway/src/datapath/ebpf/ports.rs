//! Whether the host's own sockets may meet the ports kept for masquerading.
//!
//! The programs tell flows apart by the whole tuple, so a shared port alone takes no packet from anybody; a host socket
//! that talks to the same remote address and port through the same local port would. The range is therefore kept apart
//! from the one the kernel hands out, and what listens inside it is reported.

use std::fs;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

/// Between looks at the host's sockets: what listens today need not have listened yesterday.
const LOOK: Duration = Duration::from_secs(30);

/// What is known of the host's use of the range.
pub(super) struct HostPorts {
    range: RangeInclusive<u16>,
    /// Whether anything is masqueraded at all.
    needed: bool,
    looked: Option<Instant>,
    sentences: Vec<String>,
}

impl HostPorts {
    /// Looks for the first time.
    pub(super) fn new(range: &RangeInclusive<u16>, needed: bool) -> Self {
        let mut ports = Self { range: range.clone(), needed, looked: None, sentences: Vec::new() };
        ports.look();
        ports
    }

    /// Looks again when it is time.
    pub(super) fn look(&mut self) {
        if self.needed && self.looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            self.looked = Some(Instant::now());
            self.sentences = conflicts(&self.range);
        }
    }

    /// What a person should know; nothing when the host keeps out of the range.
    pub(super) fn sentences(&self) -> &[String] {
        &self.sentences
    }
}

/// Sentences about the host's use of `range`; none when it keeps out.
fn conflicts(range: &RangeInclusive<u16>) -> Vec<String> {
    let mut sentences = Vec::new();
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let reserved = read("ip_local_reserved_ports").map(|text| kept_away(&text)).unwrap_or_default();
    if let Some(own) = read("ip_local_port_range").as_deref().and_then(ephemeral) {
        let both = *own.start().max(range.start())..=*own.end().min(range.end());
        if both.clone().any(|port| !reserved.iter().any(|kept| kept.contains(&port))) {
            sentences.push(format!(
                "the host hands out local ports {}-{}, which overlap the masquerade ports {}-{}; set `nat_ports` to others, or \
                 keep the host from them with the sysctl net.ipv4.ip_local_reserved_ports={}-{}",
                own.start(),
                own.end(),
                range.start(),
                range.end(),
                both.start(),
                both.end()
            ));
        }
    }
    let tables = ["tcp", "tcp6", "udp", "udp6"];
    let mut bound: Vec<u16> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(format!("/proc/thread-self/net/{table}")).ok())
        .flat_map(|text| waiting(&text))
        .filter(|port| range.contains(port))
        .collect();
    bound.sort_unstable();
    bound.dedup();
    if !bound.is_empty() {
        let ports = bound.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        sentences.push(format!(
            "programs on this host wait on ports {ports} of the masquerade range; set `nat_ports` to others"
        ));
    }
    sentences
}

fn ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

/// The ranges in `ip_local_reserved_ports` ("8080,9000-9010"): the kernel does not hand these out.
fn kept_away(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// Local ports of sockets without a peer in a table of `/proc/net` (proc_net_tcp(5)): those that wait for anybody.
fn waiting(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, remote) = (fields.next()?, fields.next()?);
        remote.ends_with(":0000").then(|| u16::from_str_radix(local.rsplit(':').next()?, 16).ok())?
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_wait_are_found_and_connected_ones_are_not() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
             0: 00000000:4E20 00000000:0000 0A 00000000:00000000\n\
             1: 0100007F:4E21 0100007F:0050 01 00000000:00000000\n\
             2: 00000000000000000000000000000000:7FFF 00000000000000000000000000000000:0000 0A 0\n";
        assert_eq!(waiting(table), [20_000, 32_767]);
        assert_eq!(ephemeral("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(ephemeral(""), None);
    }

    #[test]
    fn ports_the_administrator_reserved_are_not_handed_out() {
        assert_eq!(kept_away("8080,40000-41000\n"), [8080..=8080, 40_000..=41_000]);
        assert!(kept_away("\n").is_empty());
    }

    #[test]
    fn a_range_the_kernel_hands_out_is_reported() {
        assert!(
            conflicts(&(40_000..=41_000)).iter().any(|sentence| sentence.contains("hands out local ports"))
        );
    }
}
