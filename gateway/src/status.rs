//! What an agent says of itself: the document behind `status`, the metrics and the health pages.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Names the document and its version.
pub const SCHEMA: &str = "sluicegate.gateway.status/1";

/// The state of a running agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: String,
    /// The agent's version.
    pub version: String,
    /// Who it is.
    pub identity: Identity,
    /// The conversation with control.
    pub control: Control,
    /// What judges.
    pub datapath: Datapath,
    /// The image in force.
    pub policy: Policy,
    /// The other agents.
    pub peers: Vec<Peer>,
    /// Prefixes reached through routers.
    pub routes: Vec<Route>,
    /// Prefixes this agent is a router of.
    pub routed: Vec<Routed>,
    /// Flows that leave with addresses of this host.
    #[serde(default)]
    pub masquerade: Masquerade,
    /// Names of resources that this agent looks up as a router of them.
    #[serde(default)]
    pub names: Vec<Name>,
    /// How this host's questions for names are answered; `None` where control says nothing of that.
    #[serde(default)]
    pub dns: Option<Dns>,
    /// Totals.
    pub counters: Counters,
    /// Conditions a person should know of, each a sentence.
    pub degraded: Vec<String>,
}

/// Who an agent is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// Peer id in control.
    pub peer_id: String,
    /// Its name.
    pub name: String,
    /// `gateway` or `peer`.
    pub role: String,
    /// WireGuard public key, base64.
    pub public_key: String,
    /// Overlay IPv4 address with prefix length, once known.
    pub address_v4: Option<String>,
    /// Overlay IPv6 address with prefix length, once known.
    pub address_v6: Option<String>,
    /// Overlay device.
    pub device: String,
    /// What the overlay is: `wireguard` or `ethernet`.
    #[serde(default)]
    pub overlay_kind: String,
    /// WireGuard's UDP port.
    pub listen_port: u16,
    /// Where others reach this agent's WireGuard.
    pub endpoint: Option<String>,
}

/// The conversation with control.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Control {
    /// Its URL.
    pub url: String,
    /// Whether the stream is open.
    pub connected: bool,
    /// When control last said anything, Unix milliseconds.
    pub last_contact_ms: Option<u64>,
    /// Why the stream is not open.
    pub error: Option<String>,
    /// Whether the user of this machine has to log in again before it takes part in anything.
    #[serde(default)]
    pub login_expired: bool,
}

/// What judges packets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Datapath {
    /// `ebpf` or `userspace`.
    pub kind: String,
    /// Devices that lead to the site.
    pub site_devices: Vec<String>,
    /// How XDP is attached to each device that is to have it.
    #[serde(default)]
    pub xdp: Vec<Xdp>,
    /// The underlay guard, where there is one.
    #[serde(default)]
    pub guard: Option<Guard>,
    /// The flow tables.
    #[serde(default)]
    pub tables: Vec<FlowTable>,
    /// Bytes of memory in all maps or tables; those of the kernel are taken from the start.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Seconds without a packet after which a flow is over, by state.
    #[serde(default)]
    pub timeouts: BTreeMap<String, u32>,
}

/// A flow table of one family.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowTable {
    /// `confirmed` or `half_open`.
    pub stage: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// Half-entries in it, two for each flow.
    pub entries: u64,
    /// Half-entries it can hold.
    pub capacity: u64,
    /// Bytes of memory it takes when it is full.
    pub bytes: u64,
}

/// How flows leave with addresses of this host.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Masquerade {
    /// First and last port, or ICMP id.
    pub ports: (u16, u16),
    /// What is in use, by address and protocol.
    pub in_use: Vec<PortsInUse>,
    /// Destinations for which no port was free, the worst first; 32 at the most.
    pub exhausted: Vec<Exhausted>,
    /// Flows by how many ports were taken before one was free: 0 to 31.
    pub collisions: Vec<u64>,
}

/// Ports in use at one address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PortsInUse {
    /// The address flows leave with.
    pub address: String,
    /// IP protocol number.
    pub protocol: u8,
    /// Flows.
    pub flows: u64,
    /// Distinct ports they use: one serves many destinations.
    pub ports: u64,
}

/// A destination for which no port was free.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Exhausted {
    /// Address.
    pub destination: String,
    /// Port; 0 for protocols without.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Drop events that told of it: a sample, and at the most.
    pub events: u64,
    /// How many of them may have told of another destination.
    pub error: u64,
    /// When the last one was told, Unix milliseconds.
    pub last_ms: u64,
}

/// How XDP is attached to a device.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Xdp {
    /// The device.
    pub device: String,
    /// `native`, `generic`, `off` (not wanted), or `refused`: `degraded` says why.
    pub mode: String,
    /// Whether XDP sends frames by it, which it does between Ethernets.
    pub sends: bool,
}

/// The underlay guard.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guard {
    /// Devices named for it.
    pub devices: Vec<String>,
    /// WireGuard's UDP port.
    pub port: u16,
    /// Handshake initiations a source prefix (/24, /56) may send a second.
    pub handshakes_per_second: u32,
    /// How many at once after silence.
    pub burst: u32,
}

/// The image in force.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Control's revision; `None` before the first image: nothing is forwarded.
    pub revision: Option<u64>,
    /// SHA-256 of the image.
    pub hash: Option<String>,
    /// When this agent put it in force, Unix milliseconds; `None` when an earlier run did.
    pub applied_ms: Option<u64>,
    /// Seconds it may stand without word from control; `None` is for ever.
    pub max_age_seconds: Option<u64>,
    /// Whether it has: then nothing is forwarded.
    #[serde(default)]
    pub expired: bool,
    /// When the next grant of it ends, Unix milliseconds by this host's clock; `None` when nothing ends.
    #[serde(default)]
    pub ends_ms: Option<u64>,
    /// At how many moments grants of it end.
    #[serde(default)]
    pub ends: u64,
    /// Whether nothing is forwarded because a grant ended that could not be taken from it: `degraded` says why.
    #[serde(default)]
    pub shut: bool,
    /// Whether what control has sent since was refused: `degraded` says why.
    #[serde(default)]
    pub refused: bool,
}

/// Another agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Peer id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Where it is now.
    pub endpoint: Option<String>,
    /// Whether it was heard of lately.
    pub live: bool,
    /// Age of the WireGuard session in seconds.
    pub handshake_seconds: Option<f64>,
    /// Round trip of the last probe in milliseconds, when it is probed.
    pub round_trip_ms: Option<f64>,
    /// Bytes received from it.
    pub received: u64,
    /// Bytes sent to it.
    pub sent: u64,
}

/// A prefix reached through routers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The prefix.
    pub prefix: String,
    /// Network id.
    pub network_id: String,
    /// Resource id.
    pub resource_id: String,
    /// Peer id of the router in use.
    pub active: Option<String>,
    /// Its metric.
    pub metric: Option<u32>,
    /// All routers.
    pub routers: Vec<Router>,
}

/// A router of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Router {
    /// Peer id.
    pub peer_id: String,
    /// Its name.
    pub name: String,
    /// Its metric.
    pub metric: u32,
    /// Whether it was heard of lately.
    pub live: bool,
}

/// A prefix this agent is a router of.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Routed {
    /// The prefix.
    pub prefix: String,
    /// Network id.
    pub network_id: String,
    /// Resource id.
    pub resource_id: String,
    /// Whether sources are replaced by this agent's.
    pub masquerade: bool,
    /// This router's metric.
    pub metric: u32,
    /// The device it leaves by; `None` when it cannot be reached.
    pub device: Option<String>,
}

/// A name of a resource, and what it stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Name {
    /// The name; `*.` before what a wildcard is below.
    pub name: String,
    /// Resource id.
    pub resource_id: String,
    /// What it stands for.
    pub addresses: Vec<Address>,
    /// When it was looked up last, Unix milliseconds.
    pub looked_up_ms: Option<u64>,
    /// What is wrong with it, or why it has no addresses.
    pub reason: Option<String>,
}

/// An address that a name stands for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Address {
    /// The address.
    pub address: String,
    /// Seconds since a server last gave it.
    pub age_seconds: u64,
}

/// How questions for names came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NameQuestions {
    /// `asked` of routers by this agent, or `heard` by this agent as a router.
    pub side: String,
    /// `answered`, `none`, `refused`, `failed`, `late`, `limited`; `silent` of those asked, `malformed` of those heard.
    pub result: String,
    /// So many.
    pub count: u64,
}

/// How this host's questions for names are answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dns {
    /// Where they are answered.
    pub listening: Vec<String>,
    /// How this host is to ask: `off`, `resolv.conf` or `systemd-resolved`.
    pub host: String,
    /// Whether it was made to ask this agent.
    pub host_asks: bool,
    /// Zones that are answered by this agent itself.
    pub zones: Vec<DnsZone>,
    /// Names that routers are asked for.
    pub routed: Vec<DnsRouted>,
    /// Nameserver groups.
    pub forwards: Vec<DnsForward>,
    /// This host's own name servers, which are asked for all else.
    pub upstreams: Vec<DnsServer>,
    /// Questions since the agent started, zeros too.
    pub questions: Vec<DnsQuestions>,
    /// Questions that were not considered since then, zeros too: `stranger`, `malformed` or `busy`.
    pub refused: Vec<DnsFailures>,
}

/// A zone that the agent answers itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsZone {
    /// Its domain.
    pub domain: String,
    /// `peers`, `records`, or `reverse`: names of overlay addresses.
    pub kind: String,
    /// Names that have records.
    pub names: u64,
}

/// A name that routers are asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsRouted {
    /// The name; `*.` before what a wildcard is below.
    pub name: String,
    /// Resource id.
    pub resource_id: String,
}

/// A nameserver group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsForward {
    /// Its id in control.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What it is asked for; nothing named: all that nothing else holds.
    pub domains: Vec<String>,
    /// Its name servers, in the order in which they are asked.
    pub servers: Vec<DnsServer>,
}

/// A name server that is asked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsServer {
    /// Address and port.
    pub address: String,
    /// Whether it gave no answer lately: then it is asked after the others.
    pub silent: bool,
    /// Questions that it was asked.
    pub questions: u64,
    /// Those that it did not answer, zeros too: `timeout`, `unreachable`, `servfail`, `refused` or `malformed`.
    pub failures: Vec<DnsFailures>,
}

/// Questions by who answered them, and how.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsQuestions {
    /// `peers`, `zone`, `reverse`, `routed`, `forward` or `host`.
    pub by: String,
    /// `answered`; `nothing`, there is no such record; `no_such_name`; or `failed`.
    pub result: String,
    /// Questions.
    pub count: u64,
}

/// Questions that came to nothing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DnsFailures {
    /// Why.
    pub reason: String,
    /// Questions.
    pub count: u64,
}

/// How looks at names came out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NameLookups {
    /// `ok`; `none`, there is no address; or `failed`.
    pub result: String,
    /// Looks.
    pub count: u64,
}

/// Totals since the programs were first loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets and bytes forwarded, by where they came from.
    pub forwarded: Vec<Forwarded>,
    /// Packets dropped, by reason; zeros too.
    pub drops: Vec<Drops>,
    /// ICMP errors the gateway sent itself, and those it did not send, by kind; zeros too.
    #[serde(default)]
    pub icmp_answers: Vec<IcmpAnswers>,
    /// Live flows.
    pub flows: u64,
    /// Flows started.
    pub flows_started: u64,
    /// Entries of the flow table in use.
    pub flow_entries: u64,
    /// Entries it can hold.
    pub flow_entries_max: u64,
    /// Half-open half-entries that made room for others.
    #[serde(default)]
    pub half_open_evicted: u64,
    /// The busiest rules, 256 at the most, and all others as one called `other`.
    #[serde(default)]
    pub rules: Vec<Traffic>,
    /// The same of the resources this agent is a router of.
    #[serde(default)]
    pub resources: Vec<Traffic>,
    /// Events left out by sampling: one alike was told in the same second.
    #[serde(default)]
    pub events_suppressed: u64,
    /// Events lost, from all causes.
    pub events_lost: u64,
    /// How often a prefix moved to another router.
    pub failovers: u64,
    /// How questions for names through the tunnel came out since the agent started; zeros too.
    #[serde(default)]
    pub name_questions: Vec<NameQuestions>,
    /// How looks at names came out since the agent started; zeros too.
    #[serde(default)]
    pub name_lookups: Vec<NameLookups>,
}

/// Dropped packets that were to be answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct IcmpAnswers {
    /// `time_exceeded` and `too_big` were sent; `suppressed` and `impossible` were not.
    pub kind: String,
    /// Packets.
    pub packets: u64,
}

/// What a rule or a resource carried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Policy of the rule, or id of the resource's network.
    pub group: String,
    /// Its name.
    pub name: String,
    /// Flows admitted.
    pub flows: u64,
    /// Packets of its flows, both directions.
    pub packets: u64,
    /// Bytes of its flows, both directions.
    pub bytes: u64,
    /// Packets it refused, or that were refused for it.
    pub refused: u64,
}

/// Packets forwarded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Forwarded {
    /// `overlay`, `site` or `local`.
    pub direction: String,
    /// Packets.
    pub packets: u64,
    /// Bytes from the IP header on.
    pub bytes: u64,
}

/// Packets dropped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drops {
    /// Why.
    pub reason: String,
    /// Packets.
    pub packets: u64,
}
