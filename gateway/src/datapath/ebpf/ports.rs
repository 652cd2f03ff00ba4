//! Whether the host's own sockets may meet the ports kept for masquerading.
//!
//! The programs tell flows apart by the whole tuple, so a shared port alone takes no packet from anybody; a host socket
//! that talks to the same remote address and port through the same local port would. The range is therefore kept apart
//! from the one the kernel hands out, and what listens inside it is reported.

use std::fs;
use std::ops::RangeInclusive;

/// Sentences about the host's use of `range`; none when it keeps out.
pub(super) fn conflicts(range: &RangeInclusive<u16>) -> Vec<String> {
    let mut sentences = Vec::new();
    let handed_out = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    if let Some(own) = handed_out.as_deref().and_then(ephemeral)
        && own.start() <= range.end()
        && range.start() <= own.end()
    {
        sentences.push(format!(
            "the host hands out local ports {}-{}, which overlap the masquerade ports {}-{}; set `nat_ports` to others",
            own.start(),
            own.end(),
            range.start(),
            range.end()
        ));
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
    fn a_range_the_kernel_hands_out_is_reported() {
        assert!(
            conflicts(&(40_000..=41_000)).iter().any(|sentence| sentence.contains("hands out local ports"))
        );
    }
}
