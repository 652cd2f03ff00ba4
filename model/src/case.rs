//! What a case is made of, and what each implementation answers.

use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_engine::DropReason;
use sluicegate_engine::answer::Answer;
use sluicegate_engine::event::Event;
use sluicegate_engine::flow::{Side, Timeouts};
use sluicegate_engine::pipeline::Verdict;
use sluicegate_policy::model::State;

/// The peer whose gateway is tested.
pub const AGENT: &str = "pa";
/// Index of the overlay device.
pub const OVERLAY_DEVICE: u32 = 7;

/// What holds for a whole case.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The clock's first reading, ticks.
    pub start: u64,
    /// MTU of the overlay device; 0 for no limit.
    pub overlay_mtu: u32,
    /// First masquerade port.
    pub nat_first: u16,
    /// Number of them.
    pub nat_count: u16,
    /// How long flows live.
    pub timeouts: Timeouts,
    /// Flows a source may have opened lately that nobody answered; 0 for any number.
    pub half_open_per_source: u32,
    /// Whether a UDP source port keeps its masquerade port towards every destination.
    pub endpoint_independent: bool,
    /// Ticks for which a neighbour is good that a packet has left to; 0 for none, so that XDP carries nothing.
    pub hop_lifetime: u32,
    /// Overlay ranges: `(network, prefix length)`.
    pub overlay: [(IpAddr, u8); 2],
}

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A packet arrives.
    Packet(Arrival),
    /// Ticks go by.
    Advance(u32),
    /// A new revision with this state, or with the same once more; and where its routes leave from then on, where not as
    /// before.
    Image(Arc<State>, Option<Vec<Exit>>),
    /// Where routes leave, by [`exit_of`] their number.
    Egress(Vec<Exit>),
    /// The addresses of the host's devices from then on, with the lengths of their prefixes.
    Addresses(Vec<(IpAddr, u8)>),
    /// The agent's pass over the flow table.
    Sweep,
    /// Other time-outs, for flows from their next packet on.
    Timeouts(Timeouts),
    /// The image may be enforced for this many ticks more; `None` for ever.
    Deadline(Option<u32>),
}

/// A packet and where it arrives.
#[derive(Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The hook.
    pub side: Side,
    /// What the link layer says it is.
    pub six: bool,
    /// From the IP header on.
    pub bytes: Vec<u8>,
    /// Payload bytes of each packet that segmentation offload will cut this one into; 0 for none.
    pub segment: u16,
    /// Whether the XDP program looks at it first; not what the host sends.
    pub screened: bool,
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
pub struct Hex<'a>(pub &'a [u8]);

impl std::fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes:", self.0.len())?;
        let mut bytes = self.0.iter().take(96).enumerate();
        bytes.try_for_each(|(i, b)| write!(f, "{}{b:02x}", if i % 4 == 0 { " " } else { "" }))
    }
}

/// Where a route leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Exit {
    /// Index of the device; 0 for none.
    pub device: u32,
    /// Its MTU; 0 for no limit.
    pub mtu: u32,
    /// First masquerade source by family.
    pub source: [Option<IpAddr>; 2],
    /// How many sources of each family there are from it on.
    pub pool: u16,
}

/// Where the route with a number leaves.
pub fn exit_of(exits: &[Exit], route: u16) -> Option<Exit> {
    exits.get(usize::from(route).checked_rem(exits.len())?).copied()
}

impl Exit {
    /// Addresses to masquerade with.
    pub fn addresses(&self, six: bool) -> Vec<IpAddr> {
        let Some(first) = self.source[usize::from(six)] else { return Vec::new() };
        (0..self.pool.max(1))
            .map(|i| match first {
                IpAddr::V4(a) => IpAddr::V4((a.to_bits() + u32::from(i)).into()),
                IpAddr::V6(a) => IpAddr::V6((a.to_bits() + u128::from(i)).into()),
            })
            .collect()
    }
}

/// Everything that can be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// By reason.
    pub drops: [u64; DropReason::COUNT],
    /// What became of the wish to answer them, by `Answer` number.
    pub answers: [u64; Answer::COUNT],
    /// Packets and bytes, by `Side` number.
    pub forwarded: [[u64; 2]; 4],
    /// Flows admitted and packets refused, by rule slot.
    pub rules: Vec<[u64; 2]>,
}

/// Rule slots are below this in every case.
pub const SLOTS: usize = 32;

impl Counters {
    /// All zero.
    pub fn new() -> Self {
        Self { rules: vec![[0; 2]; SLOTS], ..Self::default() }
    }
}

/// One live flow, as each implementation must remember it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FlowDump {
    /// `Side` number of the opener.
    pub side: u8,
    /// IP protocol.
    pub protocol: u8,
    /// Who opened it.
    pub source: (IpAddr, u16),
    /// Where to.
    pub destination: (IpAddr, u16),
    /// The source as the far end sees it.
    pub translated: (IpAddr, u16),
    /// `Side` number replies come from.
    pub replies: u8,
    /// `State` number.
    pub state: u8,
    /// Slot of the rule that admits it.
    pub rule: u32,
    /// Route number, of flows to the site.
    pub route: Option<u16>,
    /// There, and back.
    pub ways: [WayDump; 2],
    /// Whether the table that never evicts holds it.
    pub confirmed: bool,
}

/// One direction of a flow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct WayDump {
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
    /// Tick of the last packet, or of the flow's start.
    pub last_seen: u32,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Where it goes.
    pub verdict: Verdict,
    /// As it leaves; of a dropped packet, empty.
    pub bytes: Vec<u8>,
    /// What was told.
    pub events: Vec<Event>,
}
