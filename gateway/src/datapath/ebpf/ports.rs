//! Keeps the host's own sockets out of the ports for masquerading, and masquerading out of the host's.
//!
//! The programs tell flows apart by the whole tuple, so a shared port alone takes no packet from anybody; a host socket
//! that talks to the same remote address and port through the same local port would. The range is therefore kept apart
//! from the one the kernel hands out, and ports inside it that a socket uses all the same are left out of it.

use std::collections::BTreeSet;
use std::fs;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::Ebpf;
use aya::maps::{Array, MapData};

use super::load;

/// Between looks at the host's sockets: what is bound today need not have been yesterday.
const LOOK: Duration = Duration::from_secs(10);
/// Ports named in one sentence; the others are counted.
const NAMED: usize = 8;

/// The host's use of the range.
pub(super) struct HostPorts {
    range: RangeInclusive<u16>,
    /// Whether anything is masqueraded at all.
    needed: bool,
    looked: Option<Instant>,
    /// A bit for each port that is left out, as the programs know it.
    map: Array<MapData, u64>,
    known: Vec<u64>,
    sentences: Vec<String>,
}

impl HostPorts {
    /// Looks for the first time.
    pub(super) fn new(ebpf: &mut Ebpf, range: &RangeInclusive<u16>, needed: bool) -> anyhow::Result<Self> {
        let map = load::take(ebpf, "HOST_PORTS")?;
        let known = vec![0; 65_536 / 64];
        let mut ports =
            Self { range: range.clone(), needed, looked: None, map, known, sentences: Vec::new() };
        ports.look()?;
        Ok(ports)
    }

    /// Looks again when it is time.
    pub(super) fn look(&mut self) -> anyhow::Result<()> {
        if !self.needed || self.looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return Ok(());
        }
        self.looked = Some(Instant::now());
        let used = in_use(&self.range);
        let mut words = vec![0u64; self.known.len()];
        used.iter().for_each(|port| words[usize::from(port / 64)] |= 1 << (port % 64));
        for (index, (word, known)) in (0u32..).zip(words.iter().zip(&mut self.known)) {
            if word != known {
                self.map.set(index, word, 0).context("map HOST_PORTS could not be written")?;
                *known = *word;
            }
        }
        self.sentences = handed_out(&self.range).into_iter().chain(left_out(&used)).collect();
        Ok(())
    }

    /// Whether a socket of the host's has the port, as of the last look.
    pub(super) fn has(&self, port: u16) -> bool {
        self.known[usize::from(port / 64)] & 1 << (port % 64) != 0
    }

    /// What a person should know; nothing when the host keeps out of the range.
    pub(super) fn sentences(&self) -> &[String] {
        &self.sentences
    }
}

/// Says so when the kernel hands out ports of the range.
fn handed_out(range: &RangeInclusive<u16>) -> Option<String> {
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).ok();
    let own = ephemeral(&read("ip_local_port_range")?)?;
    let reserved = read("ip_local_reserved_ports").map(|text| kept_away(&text)).unwrap_or_default();
    let both = *own.start().max(range.start())..=*own.end().min(range.end());
    if both.clone().all(|port| reserved.iter().any(|kept| kept.contains(&port))) {
        return None;
    }
    Some(format!(
        "the host hands out local ports {}-{}, which overlap the masquerade ports {}-{}; set `nat_ports` to others, or keep the \
         host from them with the sysctl net.ipv4.ip_local_reserved_ports={}-{}",
        own.start(),
        own.end(),
        range.start(),
        range.end(),
        both.start(),
        both.end()
    ))
}

/// Ports of the range that sockets of this network namespace use.
fn in_use(range: &RangeInclusive<u16>) -> BTreeSet<u16> {
    let tables = ["tcp", "tcp6", "udp", "udp6"].map(|table| format!("/proc/thread-self/net/{table}"));
    let ports = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    ports.flat_map(|text| local_ports(&text)).filter(|port| range.contains(port)).collect()
}

/// Says which ports the host uses.
fn left_out(used: &BTreeSet<u16>) -> Option<String> {
    if used.is_empty() {
        return None;
    }
    let named: Vec<String> = used.iter().take(NAMED).map(u16::to_string).collect();
    let more = match used.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "programs on this host use ports {}{more} of the masquerade range, which are left out of it; set `nat_ports` to others",
        named.join(", ")
    ))
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

/// Local ports of the sockets in a table of `/proc/net` (proc_net_tcp(5)): waiting, connected, or closing.
fn local_ports(table: &str) -> Vec<u16> {
    let port = |line: &str| {
        let local = line.split_whitespace().nth(1)?;
        u16::from_str_radix(local.rsplit(':').next()?, 16).ok()
    };
    table.lines().skip(1).filter_map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_found_whether_they_wait_or_are_connected() {
        let table = "  sl  local_address rem_address   st tx_queue\n\
             0: 00000000:4E20 00000000:0000 0A 00000000:00000000\n\
             1: 0100007F:4E21 0100007F:0050 01 00000000:00000000\n\
             2: 00000000000000000000000000000000:7FFF 00000000000000000000000000000000:0000 0A 0\n";
        assert_eq!(local_ports(table), [20_000, 20_001, 32_767]);
        assert_eq!(ephemeral("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(ephemeral(""), None);
    }

    #[test]
    fn ports_the_administrator_reserved_are_not_handed_out() {
        assert_eq!(kept_away("8080,40000-41000\n"), [8080..=8080, 40_000..=41_000]);
        assert!(kept_away("\n").is_empty());
    }

    #[test]
    fn a_range_the_kernel_hands_out_is_reported_with_what_to_do() {
        let sentence = handed_out(&(40_000..=41_000)).unwrap();
        assert!(sentence.contains("ip_local_reserved_ports=40000-41000"), "{sentence}");
        assert_eq!(handed_out(&(100..=200)), None);
        assert_eq!(left_out(&BTreeSet::new()), None);
        assert!(left_out(&(1..=10).collect()).unwrap().contains("7, 8 and 2 more"));
    }
}
