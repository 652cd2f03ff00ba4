//! What a case is made of, and what each implementation answers.

use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_engine::DropReason;
use sluicegate_engine::event::Event;
use sluicegate_engine::flow::{Side, Timeouts};
use sluicegate_engine::pipeline::Verdict;
use sluicegate_policy::model::State;

/// The peer whose gateway is tested.
pub(crate) const AGENT: &str = "pa";
/// Index of the overlay device.
pub(crate) const OVERLAY_DEVICE: u32 = 7;

/// What holds for a whole case.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The clock's first reading, ticks.
    pub(crate) start: u64,
    /// MTU of the overlay device; 0 for no limit.
    pub(crate) overlay_mtu: u32,
    /// First masquerade port.
    pub(crate) nat_first: u16,
    /// Number of them.
    pub(crate) nat_count: u16,
    /// How long flows live.
    pub(crate) timeouts: Timeouts,
    /// Overlay ranges: `(network, prefix length)`.
    pub(crate) overlay: [(IpAddr, u8); 2],
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A packet arrives.
    Packet(Arrival),
    /// Ticks go by.
    Advance(u32),
    /// A new revision with this state, or with the same once more.
    Image(Arc<State>),
    /// The egress table, by route number.
    Egress(Vec<Exit>),
    /// The agent's pass over the flow table.
    Sweep,
    /// The image may be enforced for this many ticks more; `None` for ever.
    Deadline(Option<u32>),
}

/// A packet and where it arrives.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// The hook.
    pub(crate) side: Side,
    /// What the link layer says it is.
    pub(crate) six: bool,
    /// From the IP header on.
    pub(crate) bytes: Vec<u8>,
    /// Payload bytes of each packet that segmentation offload will cut this one into; 0 for none.
    pub(crate) segment: u16,
    /// Whether the XDP program looks at it first; site packets only.
    pub(crate) screened: bool,
}

impl std::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let screened = if self.screened { ", screened" } else { "" };
        let segment =
            if self.segment != 0 { format!(", in segments of {}", self.segment) } else { String::new() };
        let family = if self.six { "IPv6" } else { "IPv4" };
        write!(f, "{} {family}{screened}{segment}, {:?}", self.side.name(), Hex(&self.bytes))
    }
}

/// The first bytes of a packet, for people.
#[derive(PartialEq)]
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl std::fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes:", self.0.len())?;
        let mut bytes = self.0.iter().take(96).enumerate();
        bytes.try_for_each(|(i, b)| write!(f, "{}{b:02x}", if i % 4 == 0 { " " } else { "" }))
    }
}

/// Where a route leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    /// Index of the device; 0 for none.
    pub(crate) device: u32,
    /// Its MTU; 0 for no limit.
    pub(crate) mtu: u32,
    /// Masquerade source by family.
    pub(crate) source: [Option<IpAddr>; 2],
}

/// Everything that can be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    /// By reason.
    pub(crate) drops: [u64; DropReason::COUNT],
    /// Packets and bytes, by `Side` number.
    pub(crate) forwarded: [[u64; 2]; 4],
    /// Flows admitted and packets refused, by rule slot.
    pub(crate) rules: Vec<[u64; 2]>,
}

/// Rule slots are below this in every case.
pub(crate) const SLOTS: usize = 32;

impl Counters {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self { rules: vec![[0; 2]; SLOTS], ..Self::default() }
    }
}

/// One live flow, as each implementation must remember it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FlowDump {
    /// `Side` number of the opener.
    pub(crate) side: u8,
    /// IP protocol.
    pub(crate) protocol: u8,
    /// Who opened it.
    pub(crate) source: (IpAddr, u16),
    /// Where to.
    pub(crate) destination: (IpAddr, u16),
    /// The source as the far end sees it.
    pub(crate) translated: (IpAddr, u16),
    /// `Side` number replies come from.
    pub(crate) replies: u8,
    /// `State` number.
    pub(crate) state: u8,
    /// Slot of the rule that admits it.
    pub(crate) rule: u32,
    /// Route number, of flows to the site.
    pub(crate) route: Option<u16>,
    /// There, and back.
    pub(crate) ways: [WayDump; 2],
    /// Whether the table that never evicts holds it.
    pub(crate) confirmed: bool,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WayDump {
    /// Packets.
    pub(crate) packets: u64,
    /// Bytes from the IP header on.
    pub(crate) bytes: u64,
    /// Tick of the last packet, or of the flow's start.
    pub(crate) last_seen: u32,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Where it goes.
    pub(crate) verdict: Verdict,
    /// As it leaves; of a dropped packet, empty.
    pub(crate) bytes: Vec<u8>,
    /// What was told.
    pub(crate) events: Vec<Event>,
}
