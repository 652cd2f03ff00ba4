//! What an operator chooses about flows: how long they live, how many there can be, and from whom.

use serde::Deserialize;
use sluicegate_engine::flow::Timeouts;
use sluicegate_engine::tables::ENDPOINT_INDEPENDENT;

/// Half-open half-entries unless an operator wants more: with 262,144 answered flows of IPv4 they stay within 80 MB. At 0.3 million
/// unanswered flows a second one lives for 48 ms.
const HALF_OPEN_MOST: u32 = 28_672;

/// What an operator chooses about flows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowSettings {
    /// How long flows live without a packet.
    pub timeouts: FlowTimeouts,
    /// Half-open half-entries of each family; `None`: an eighth of the confirmed ones, 28,672 at the most.
    pub half_open_entries: Option<u32>,
    /// Flows one source may have opened lately that were not answered; 0 for any number.
    pub half_open_per_source: u32,
    /// Whether a UDP source port keeps its masquerade port towards every destination.
    pub endpoint_independent: bool,
}

impl FlowSettings {
    /// The engine's flags for what is chosen here.
    pub(crate) fn flags(&self) -> u32 {
        if self.endpoint_independent { ENDPOINT_INDEPENDENT } else { 0 }
    }

    /// Half-open half-entries of each family, for so many confirmed ones. How many flows wait for an answer at a time does not grow
    /// with how many were answered.
    pub fn half_open_entries(&self, confirmed: u32) -> u32 {
        self.half_open_entries.unwrap_or((confirmed / 8).min(HALF_OPEN_MOST)).max(1024)
    }
}

/// Seconds without a packet after which a flow is over, by state: the table `[timeouts]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(missing_docs, reason = "each is documented at the field of its name in the engine")]
pub struct FlowTimeouts {
    pub tcp_handshake: u32,
    pub tcp_established: u32,
    pub tcp_closing: u32,
    pub tcp_time_wait: u32,
    pub tcp_reset: u32,
    pub udp_unreplied: u32,
    pub udp: u32,
    pub icmp: u32,
    pub other: u32,
    pub fragment: u32,
}

impl Default for FlowTimeouts {
    fn default() -> Self {
        let seconds = Timeouts::defaults(1);
        Self {
            tcp_handshake: seconds.tcp_handshake,
            tcp_established: seconds.tcp_established,
            tcp_closing: seconds.tcp_closing,
            tcp_time_wait: seconds.tcp_time_wait,
            tcp_reset: seconds.tcp_reset,
            udp_unreplied: seconds.udp_unreplied,
            udp: seconds.udp,
            icmp: seconds.icmp,
            other: seconds.other,
            fragment: seconds.fragment,
        }
    }
}

impl FlowTimeouts {
    /// The longest, seconds: 14 days. Ages are 31 bits of ticks, of which there are a thousand a second at the most.
    pub const LONGEST: u32 = 14 * 24 * 3600;

    /// By name, in the order of the documentation.
    pub fn named(&self) -> [(&'static str, u32); 10] {
        [
            ("tcp_handshake", self.tcp_handshake),
            ("tcp_established", self.tcp_established),
            ("tcp_closing", self.tcp_closing),
            ("tcp_time_wait", self.tcp_time_wait),
            ("tcp_reset", self.tcp_reset),
            ("udp_unreplied", self.udp_unreplied),
            ("udp", self.udp),
            ("icmp", self.icmp),
            ("other", self.other),
            ("fragment", self.fragment),
        ]
    }

    /// What is wrong with them, as a sentence.
    pub fn trouble(&self) -> Option<String> {
        let bad = self.named().into_iter().find(|(_, seconds)| !(1..=Self::LONGEST).contains(seconds));
        bad.map(|(name, seconds)| {
            format!("[timeouts] {name} = {seconds} is not between 1 and {} seconds", Self::LONGEST)
        })
    }

    /// As the engine reads them, for `hz` ticks a second.
    pub fn ticks(&self, hz: u32) -> Timeouts {
        let ticks = |seconds: u32| seconds.saturating_mul(hz);
        Timeouts {
            tcp_handshake: ticks(self.tcp_handshake),
            tcp_established: ticks(self.tcp_established),
            tcp_closing: ticks(self.tcp_closing),
            tcp_time_wait: ticks(self.tcp_time_wait),
            tcp_reset: ticks(self.tcp_reset),
            udp_unreplied: ticks(self.udp_unreplied),
            udp: ticks(self.udp),
            icmp: ticks(self.icmp),
            other: ticks(self.other),
            fragment: ticks(self.fragment),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_the_engines_at_every_tick_rate() {
        for hz in [100, 250, 1000] {
            assert_eq!(FlowTimeouts::default().ticks(hz), Timeouts::defaults(hz));
        }
    }

    #[test]
    fn the_table_of_unanswered_flows_is_a_share_up_to_a_bound_unless_it_is_chosen() {
        let sizes = |flows: &FlowSettings| {
            [0, 4096, 65_536, 262_144, 524_288].map(|entries| flows.half_open_entries(entries))
        };
        assert_eq!(sizes(&FlowSettings::default()), [1024, 1024, 8192, 28_672, 28_672]);
        let chosen = |entries| FlowSettings { half_open_entries: Some(entries), ..FlowSettings::default() };
        assert_eq!((sizes(&chosen(65_536)), sizes(&chosen(1))), ([65_536; 5], [1024; 5]));
    }

    #[test]
    fn the_longest_time_out_is_an_age_the_engine_can_tell() {
        assert!(i32::try_from(u64::from(FlowTimeouts::LONGEST) * 1000).is_ok());
        let zero = FlowTimeouts { icmp: 0, ..FlowTimeouts::default() };
        assert!(zero.trouble().unwrap().contains("icmp = 0"));
        let long = FlowTimeouts { udp: FlowTimeouts::LONGEST + 1, ..FlowTimeouts::default() };
        assert!(long.trouble().unwrap().contains("udp ="));
        assert_eq!(FlowTimeouts::default().trouble(), None);
    }
}
