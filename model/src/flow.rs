//! What the model remembers of a conversation: one record for both directions.

use std::net::IpAddr;

use sluicegate_engine::flow::{Side, State as Life, Timeouts};

use crate::case::{Arrival, FlowDump, WayDump};
use crate::parse::{Header, Transport};

/// One flow, both directions.
#[derive(Clone, Debug)]
pub struct Flow {
    pub opener: Side,
    pub protocol: u8,
    pub echo: bool,
    pub source: (IpAddr, u16),
    pub destination: (IpAddr, u16),
    pub translated: (IpAddr, u16),
    pub replies: Side,
    /// Where to, when it leaves by a site.
    pub route: Option<u16>,
    pub life: Life,
    /// Whether it is kept where nothing makes room for others: its opener has sent again after an answer.
    pub confirmed: bool,
    pub rule: u32,
    /// Revision that admits it.
    pub revision: u32,
    /// Ticks of silence it may have, as its last packet found them.
    pub timeout: u32,
    pub ways: [Way; 2],
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    pub packets: u64,
    pub bytes: u64,
    pub last_seen: u64,
    pub fin: bool,
}

/// The packet in hand.
pub struct Packet<'a> {
    pub arrival: &'a Arrival,
    pub header: Header,
    pub transport: Transport,
}

impl Flow {
    /// Whether neither direction has carried anything for longer than it may.
    pub fn is_over(&self, now: u64) -> bool {
        self.ways.iter().all(|way| now - way.last_seen > u64::from(self.timeout))
    }

    /// How long it may be silent in its state.
    pub fn allowed(&self, timeouts: &Timeouts) -> u32 {
        let icmp = if self.source.0.is_ipv6() { 58 } else { 1 };
        match (self.life, self.protocol) {
            (Life::SynSent | Life::SynReceived, _) => timeouts.tcp_handshake,
            (Life::Established, _) => timeouts.tcp_established,
            (Life::Closing, _) => timeouts.tcp_closing,
            (Life::TimeWait, _) => timeouts.tcp_time_wait,
            (Life::Reset, _) => timeouts.tcp_reset,
            (Life::Unreplied | Life::Answered, 17) => timeouts.udp_unreplied,
            (Life::Replied, 17) => timeouts.udp,
            (_, p) if p == icmp => timeouts.icmp,
            _ => timeouts.other,
        }
    }

    /// Whether its opening no longer counts against its source.
    pub fn is_answered(&self) -> bool {
        !matches!(self.life, Life::Unreplied | Life::SynSent | Life::SynReceived)
    }

    /// For comparison.
    pub fn dump(&self) -> FlowDump {
        let way = |w: &Way| WayDump { packets: w.packets, bytes: w.bytes, last_seen: w.last_seen as u32 };
        FlowDump {
            side: self.opener as u8,
            protocol: self.protocol,
            source: self.source,
            destination: self.destination,
            translated: self.translated,
            replies: self.replies as u8,
            state: self.life as u8,
            rule: self.rule,
            route: self.route,
            ways: [way(&self.ways[0]), way(&self.ways[1])],
            confirmed: self.confirmed,
        }
    }
}

/// One end of a conversation.
pub type End = (IpAddr, u16);

/// The flow a packet belongs to by its tuple, and the direction.
pub fn find(flows: &[Flow], packet: &Packet<'_>) -> Option<(usize, usize)> {
    let from = (packet.header.source, packet.transport.source_port);
    let to = (packet.header.destination, packet.transport.destination_port);
    find_tuple(flows, packet.arrival.side, packet.header.protocol, from, to)
}

/// The flow to which packets from `from` to `to` that come from `side` belong, and the direction.
pub fn find_tuple(flows: &[Flow], side: Side, protocol: u8, from: End, to: End) -> Option<(usize, usize)> {
    flows.iter().enumerate().filter(|(_, flow)| flow.protocol == protocol).find_map(|(i, flow)| {
        if flow.opener == side && (flow.source, flow.destination) == (from, to) {
            Some((i, 0))
        } else if flow.replies == side && (flow.destination, flow.translated) == (from, to) {
            Some((i, 1))
        } else {
            None
        }
    })
}
