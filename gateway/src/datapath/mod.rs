//! What judges packets: the kernel's eBPF programs or the same engine in user space, behind one trait.

mod check;
pub(crate) mod device;
pub mod ebpf;
mod events;
#[cfg(test)]
pub(crate) mod fake;
mod flow_settings;
pub(crate) mod host;
mod ledger;
mod live;
mod open;
pub(crate) mod records;
mod settings;
mod slots;
mod totals;
pub mod userspace;
mod xdp;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use sluicegate_api::image::{Delta, Hash, Image};
use sluicegate_engine::capture::{Captured, Filter};

pub use flow_settings::{FlowSettings, FlowTimeouts};
pub use live::{Live, LiveFamily};
pub use open::{Opened, detach, guarded, open, open_ethernet};
pub use settings::{Choice, Settings};
pub use xdp::{GuardSettings, GuardState, XdpChoice, XdpDevice, XdpMode, XdpSettings};

/// Which datapath judges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// XDP and TC programs in the kernel.
    Ebpf,
    /// The engine in this process.
    Userspace,
}

/// Judges every packet between overlay, site and host by the image in force; forwards nothing before a first image.
pub trait Datapath: Send {
    /// Which one this is.
    fn kind(&self) -> Kind;

    /// The image that is being enforced: after a restart, the one whose maps were found pinned.
    fn in_force(&self) -> Option<InForce>;

    /// Puts `image` in force as a whole, or leaves the one before it in force and says why. When this returns, every
    /// packet is judged by it. Where its routes leave the host comes into force with it: `ways`, of which a route that is not
    /// among them has none, and its packets are dropped. A refused image leaves the ways out as they were too. `revision` is above the one in force; `hash` is the image's, which the caller has checked: it
    /// is not worked out again, since for a large image that takes longer than all else here.
    fn put(&mut self, revision: u64, hash: Hash, image: &Image, ways: &[Egress]) -> Result<(), ApplyError>;

    /// As [`Datapath::put`], for an image that came from the one in force by a change: the same, at the cost of what was
    /// changed. Where something else is in force than `change` starts from, the image is put in force as a whole.
    fn change(
        &mut self,
        revision: u64,
        hash: Hash,
        image: &Image,
        ways: &[Egress],
        change: Change<'_>,
    ) -> Result<(), ApplyError> {
        let _ = change;
        self.put(revision, hash, image, ways)
    }

    /// As [`Datapath::put`], for whoever does not know the hash, and whose routes leave as they were named last.
    fn apply(&mut self, revision: u64, image: &Image) -> Result<(), ApplyError> {
        let ways = self.egress().to_vec();
        self.put(revision, image.hash(), image, &ways)
    }

    /// The agent's own addresses and, by their lengths, the overlay's prefixes: what comes from the site for these, or
    /// pretends to come from them, is the gateway's business; with those it answers into the overlay.
    fn set_overlay(&mut self, v4: ipnet::Ipv4Net, v6: ipnet::Ipv6Net) -> anyhow::Result<()>;

    /// Where the routes of the image in force leave from now on, when something about this host has changed. A route not named
    /// here has no egress: its packets are dropped.
    fn set_egress(&mut self, routes: &[Egress]) -> anyhow::Result<()>;

    /// Where they leave now: after a restart, as the maps found pinned say.
    fn egress(&self) -> &[Egress];

    /// Until when the image in force may be enforced without word from control; `None` is for ever.
    /// Afterwards every packet is dropped as `policy_expired`.
    fn set_deadline(&mut self, after: Option<Duration>) -> anyhow::Result<()>;

    /// Counters since the programs were first loaded.
    fn counters(&mut self) -> anyhow::Result<Counters>;

    /// One pass over the flow table: ends what has timed out (an end event each) and returns what lives.
    /// Called about once a second.
    fn sweep(&mut self) -> anyhow::Result<Vec<FlowRecord>>;

    /// Events since the last call, oldest first.
    fn events(&mut self) -> Vec<Event>;

    /// Records the packets that `filter` wants from now on, or none any more.
    fn set_capture(&mut self, filter: Option<Filter>) -> anyhow::Result<()>;

    /// Packets recorded since the last call, oldest first, and how many that were wanted were not recorded.
    fn captured(&mut self) -> (Vec<Captured>, u64);

    /// The tables as they are, for a look that changes nothing.
    fn live(&mut self) -> anyhow::Result<Box<dyn Live + '_>>;

    /// WireGuard listens on this UDP port: for the underlay guard, where there is one.
    fn set_listen_port(&mut self, port: u16) -> anyhow::Result<()> {
        let _ = port;
        Ok(())
    }

    /// Neighbours on an Ethernet have changed: what flows know of them is asked anew.
    fn forget_neighbours(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Addresses of this host's devices have changed, or may have.
    fn addresses_changed(&mut self) {}

    /// How XDP is attached to each device that is to have it.
    fn xdp(&self) -> Vec<XdpDevice> {
        Vec::new()
    }

    /// What the underlay guard does, where there is one.
    fn guard(&self) -> Option<GuardState> {
        None
    }

    /// Conditions a person should know of, each a sentence: "site device eth1 uses generic XDP because ...".
    fn degraded(&self) -> Vec<String>;
}

/// How an image came to be.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    /// Hash of the image before.
    pub base: Hash,
    /// What leads back to it: the words that were changed, as they were, and the names.
    pub undo: &'a Delta,
}

/// An image that is being enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InForce {
    /// Control's revision.
    pub revision: u64,
    /// [`Image::hash`].
    pub hash: Hash,
}

/// Why an image was refused; the one before it is still in force.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The words are not a valid image.
    #[error("the image is not valid: {0}")]
    Invalid(String),
    /// The image does not fit.
    #[error("the image needs {needed} {table} and this gateway has room for {capacity}; {remedy}")]
    TooLarge {
        /// What there is too little of: "words of policy", "rule slots".
        table: &'static str,
        /// How many are needed.
        needed: u64,
        /// How many there are.
        capacity: u64,
        /// What helps.
        remedy: &'static str,
    },
    /// The image is not newer than the one in force.
    #[error("revision {offered} is not newer than revision {in_force}")]
    Stale {
        /// The revision offered.
        offered: u64,
        /// The revision in force.
        in_force: u64,
    },
    /// The kernel refused.
    #[error("the image could not be written to the maps: {0:#}")]
    Kernel(anyhow::Error),
}

/// Where packets of one route leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Egress {
    /// Route number in the image.
    pub route: u16,
    /// Index of the site device.
    pub device: u32,
    /// Source of masqueraded IPv4 packets.
    pub source_v4: Option<Ipv4Addr>,
    /// Source of masqueraded IPv6 packets.
    pub source_v6: Option<Ipv6Addr>,
    /// How many IPv4 and IPv6 addresses there are to masquerade with, from the sources on; 0 counts as 1.
    pub pool: [u16; 2],
}

/// Totals since the programs were first loaded.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Packets and bytes forwarded or delivered, by direction: "overlay", "site", "local" (where they came from).
    pub forwarded: Vec<(&'static str, u64, u64)>,
    /// Packets dropped, by `DropReason` name (every reason of the closed list, zeros too).
    pub drops: Vec<(&'static str, u64)>,
    /// ICMP errors the gateway sent itself, and those it did not send, by `Answer` name (every kind, zeros too).
    pub answers: Vec<(&'static str, u64)>,
    /// Per rule slot: flows admitted, packets refused, packets and bytes of its flows.
    pub rules: Vec<RuleCounters>,
    /// Per route number: the same of flows and packets for it.
    pub routes: Vec<RouteCounters>,
    /// Flows started.
    pub flows_started: u64,
    /// Events lost because nobody read them in time.
    pub events_lost: u64,
    /// Events left out by sampling.
    pub events_suppressed: u64,
    /// Live half-entries, and how many there can be.
    pub flow_entries: (u64, u64),
    /// The flow tables.
    pub tables: Vec<FlowTable>,
    /// Half-open half-entries that made room for others.
    pub half_open_evicted: u64,
    /// Masqueraded flows by how many ports were taken before one was free: 0 to 31.
    pub port_collisions: Vec<u64>,
    /// Bytes of the kernel's memory in maps, or of this process's in tables, at the most.
    pub memory_bytes: u64,
}

/// A flow table of one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowTable {
    /// `confirmed` or `half_open`.
    pub stage: &'static str,
    /// `ipv4` or `ipv6`.
    pub family: &'static str,
    /// Half-entries in it at the last sweep; two for each flow.
    pub entries: u64,
    /// Half-entries it can hold.
    pub capacity: u64,
    /// Bytes of memory it takes: of the kernel's, all of it from the start; of this process's, when it is full.
    pub bytes: u64,
}

/// Totals of one rule slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounters {
    /// The slot.
    pub slot: u32,
    /// Flows admitted.
    pub flows: u64,
    /// Packets refused.
    pub drops: u64,
    /// Packets of admitted flows, both directions.
    pub packets: u64,
    /// Bytes of admitted flows, both directions, from the IP header on.
    pub bytes: u64,
}

/// Totals of one route number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteCounters {
    /// The number.
    pub route: u16,
    /// Flows admitted.
    pub flows: u64,
    /// First packets refused that were for it, for want of a rule or by one.
    pub drops: u64,
    /// Packets of admitted flows, both directions.
    pub packets: u64,
    /// Bytes of admitted flows, both directions, from the IP header on.
    pub bytes: u64,
}

/// One live flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Who opened it.
    pub source: IpAddr,
    /// Source port, or ICMP id.
    pub source_port: u16,
    /// Where to.
    pub destination: IpAddr,
    /// Destination port; 0 for ICMP.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Where it was opened from: "overlay" or "local".
    pub side: &'static str,
    /// The rule that admitted it.
    pub rule: u32,
    /// Number of the route it leaves by, when it is for the site.
    pub route: Option<u16>,
    /// Source after masquerade.
    pub translated: Option<(IpAddr, u16)>,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes, both directions, from the IP header on.
    pub bytes: u64,
    /// Packets and bytes of the replies alone.
    pub replies: (u64, u64),
    /// Whether it was answered: its entries are never evicted.
    pub confirmed: bool,
    /// State: "syn_sent", "established", "closing", "unreplied", ...
    pub state: &'static str,
    /// Time since the last packet.
    pub idle: Duration,
}

/// Something worth telling about a flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// Where the packet came from: "overlay", "site" or "local".
    pub side: &'static str,
    /// The packet's or flow's source.
    pub source: IpAddr,
    /// Source port, or ICMP id.
    pub source_port: u16,
    /// Its destination.
    pub destination: IpAddr,
    /// Destination port; for ICMP type << 8 | code.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The rule concerned, when one matched.
    pub rule: Option<u32>,
    /// Number of the route concerned, where it is known: of ends always.
    pub route: Option<u16>,
    /// Source after masquerade.
    pub translated: Option<(IpAddr, u16)>,
    /// Packets, both directions (end and revoke).
    pub packets: u64,
    /// Bytes, both directions (end and revoke).
    pub bytes: u64,
}

/// What happened to a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A rule admitted it.
    Start,
    /// It closed or timed out.
    End,
    /// A packet was refused, for this reason (a `DropReason` name).
    Drop(&'static str),
    /// A new image no longer admits it.
    Revoke,
}
