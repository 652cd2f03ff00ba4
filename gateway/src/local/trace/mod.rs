//! One synthetic packet through the live tables, with every stage it passes.
//!
//! The engine itself judges it, over tables that read the live ones and keep what it writes to themselves
//! (`sandbox`): the answer is what would become of the packet at this moment, and nothing changes by asking.

mod classes;
mod explain;
mod probe;
mod sandbox;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use sluicegate_engine::family::{V4, V6};
use sluicegate_engine::flow::{Exit, Key, Side};
use sluicegate_engine::packet::{Packet, Slice, protocol, tcp};
use sluicegate_engine::pipeline::Verdict;
use sluicegate_engine::tables::Stage as Table;

pub use explain::Stage;
pub use probe::{Probe, TCP_FLAGS, icmp};
pub use sandbox::{Half, Judged, Seen};

use super::names::{Names, Resource, Rule};
use crate::datapath::{Live, LiveFamily, device};

/// A trace as it is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Address, or name or id of an agent.
    pub source: String,
    /// Source port or ICMP id; otherwise the first from 49152 on that no flow uses.
    #[serde(default)]
    pub source_port: Option<u16>,
    /// Address, or name or id of an agent or of a resource that is one address.
    pub destination: String,
    /// Destination port, of tcp and udp.
    #[serde(default)]
    pub destination_port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, or a protocol number.
    pub protocol: String,
    /// `overlay`, `local` or `site`; otherwise `local` for this agent's own address, `overlay` for any other.
    #[serde(default)]
    pub side: Option<String>,
    /// One of [`TCP_FLAGS`]; otherwise `syn`, or `ack` when there is a flow with these ports.
    #[serde(default)]
    pub tcp_flags: Option<String>,
    /// TTL or hop limit; otherwise 64.
    #[serde(default)]
    pub ttl: Option<u8>,
    /// Length from the IP header on; otherwise the headers'.
    #[serde(default)]
    pub length: Option<u16>,
    /// The IPv6 addresses of names that have one of each family.
    #[serde(default)]
    pub ipv6: bool,
}

/// What became of a traced packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Trace {
    /// Whether it goes on.
    pub passes: bool,
    /// `overlay`, `site`, `host` or `drop`.
    pub verdict: &'static str,
    /// Why it was dropped; empty when it was not.
    pub reason: &'static str,
    /// What that means, as a sentence; empty when it was not dropped.
    pub explanation: &'static str,
    /// Name of the device by which it leaves; empty when it does not.
    pub device: String,
    /// The rule that decided; empty texts when none did.
    pub rule: Rule,
    /// The resource it is for.
    pub resource: Option<Resource>,
    /// The packet that was followed.
    pub packet: Followed,
    /// What the destination sees, when it passes.
    pub leaves: Option<Ends>,
    /// Every stage it reached.
    pub stages: Vec<Stage>,
}

/// The packet that was followed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Followed {
    /// `overlay`, `site` or `local`.
    pub side: &'static str,
    /// IP protocol number.
    pub protocol: u8,
    /// From whom to whom.
    #[serde(flatten)]
    pub ends: Ends,
    /// Who the source is; empty when nobody is known there.
    pub source_name: String,
    /// Who or what the destination is.
    pub destination_name: String,
    /// Bytes from the IP header on.
    pub length: usize,
}

/// Addresses and ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ends {
    /// Source address.
    pub source: IpAddr,
    /// Its port or ICMP id.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Its port.
    pub destination_port: u16,
}

/// Judges a packet by `live` as the engine would, and says what it asked on the way; `packet` is rewritten.
pub fn judge(live: &dyn Live, side: Side, six: bool, packet: &mut impl Packet) -> (Verdict, Seen) {
    match six {
        false => sandbox::judge::<V4>(live, side, packet),
        true => sandbox::judge::<V6>(live, side, packet),
    }
}

/// What surrounds a trace.
pub struct Surroundings<'a> {
    /// The tables.
    pub live: &'a dyn Live,
    /// What things are called.
    pub names: &'a Names,
    /// Revision of the image in force.
    pub revision: Option<u64>,
}

/// A packet and its fate, before it is told: the host's own route of where it goes may be asked for in between.
pub struct Judgement {
    probe: Probe,
    verdict: Verdict,
    seen: Seen,
}

impl Request {
    /// Makes the packet and has it judged.
    pub fn judge(&self, around: &Surroundings<'_>) -> Result<Judgement, String> {
        let probe = self.probe(around)?;
        let mut bytes = probe.bytes();
        let (verdict, seen) = judge(around.live, probe.side, probe.source.is_ipv6(), &mut Slice(&mut bytes));
        Ok(Judgement { probe, verdict, seen })
    }

    fn probe(&self, around: &Surroundings<'_>) -> Result<Probe, String> {
        let names = around.names;
        let (source, destination) = self.ends(names)?;
        let six = source.is_ipv6();
        let own = names.own().is_some_and(|own| own.has(source));
        let side = match self.side.as_deref() {
            None if own => Side::Local,
            None => Side::Overlay,
            Some(name) => Side::ALL
                .into_iter()
                .find(|side| side.name() == name)
                .ok_or_else(|| format!("'{name}' is no side; say overlay, local or site"))?,
        };
        let number = match self.protocol.as_str() {
            "tcp" => protocol::TCP,
            "udp" => protocol::UDP,
            "icmp" => icmp(six),
            other => other
                .parse()
                .map_err(|_| format!("'{other}' is no protocol; say tcp, udp, icmp or a number"))?,
        };
        let has_ports = matches!(number, protocol::TCP | protocol::UDP);
        let destination_port = match (has_ports, self.destination_port) {
            (true, None) => return Err("tcp and udp need a destination port".into()),
            (true, Some(port)) => port,
            (false, _) => 0,
        };
        let mut probe = Probe {
            side,
            source,
            destination,
            protocol: number,
            source_port: 0,
            destination_port,
            tcp_flags: tcp::SYN,
            ttl: self.ttl.unwrap_or(64),
            length: self.length.unwrap_or(0),
        };
        probe.source_port = match self.source_port {
            Some(port) => port,
            None if has_ports || probe.is_icmp() => unused(around.live, &probe),
            None => 0,
        };
        if number == protocol::TCP {
            probe.tcp_flags = match self.tcp_flags.as_deref() {
                None if is_there(around.live, &probe) => tcp::ACK,
                None => tcp::SYN,
                Some(name) => {
                    let flags = TCP_FLAGS.into_iter().find(|(known, _)| *known == name);
                    let known = || TCP_FLAGS.map(|(name, _)| name).join(", ");
                    flags.ok_or_else(|| format!("'{name}' is no set of TCP flags; say one of {}", known()))?.1
                }
            };
        }
        Ok(probe)
    }

    /// Both ends, of one family: where both are names and both have each, IPv4 unless IPv6 is asked for.
    fn ends(&self, names: &Names) -> Result<(IpAddr, IpAddr), String> {
        let found = |host: &str, what: &str| match names.addresses(host) {
            none if none.is_empty() => {
                Err(format!("{what} '{host}' is no address, and this agent knows nobody of that name"))
            }
            addresses => Ok(addresses),
        };
        let sources = found(&self.source, "the source")?;
        let destinations = found(&self.destination, "the destination")?;
        let pair = |six: bool| {
            let of_family = |all: &[IpAddr]| all.iter().copied().find(|address| address.is_ipv6() == six);
            Some((of_family(&sources)?, of_family(&destinations)?))
        };
        pair(self.ipv6).or_else(|| pair(!self.ipv6)).ok_or_else(|| {
            format!("'{}' and '{}' have no address of the same family", self.source, self.destination)
        })
    }
}

impl Judgement {
    /// Where the packet leaves to, when it goes out of a site device: the host's route there names the next router.
    pub fn leaves_for(&self) -> Option<IpAddr> {
        matches!(self.verdict, Verdict::Site(_))
            .then(|| explain::destination(self.seen.left.as_ref(), &self.probe))
    }

    /// The whole story. `via` is the next router towards [`Self::leaves_for`], if the host's routes name one.
    pub fn tell(&self, around: &Surroundings<'_>, via: Option<IpAddr>) -> Trace {
        let Self { probe, verdict, seen } = self;
        let facts = explain::Facts {
            probe,
            live: around.live,
            names: around.names,
            seen,
            verdict: *verdict,
            revision: around.revision,
            via,
        };
        let (reason, explanation) = match verdict {
            Verdict::Drop(reason) => (reason.name(), reason.explanation().trim()),
            _ => ("", ""),
        };
        let exit = explain::exit(*verdict, probe.side);
        let ends = Ends {
            source: probe.source,
            source_port: probe.source_port,
            destination: probe.destination,
            destination_port: probe.destination_port,
        };
        let leaves = seen.left.filter(|_| exit.is_some()).map(|half| Ends {
            source: half.source.0,
            source_port: half.source.1,
            destination: half.destination.0,
            destination_port: half.destination.1,
        });
        Trace {
            passes: exit.is_some(),
            verdict: match exit {
                None => "drop",
                Some(Exit::Host) => "host",
                Some(Exit::Site) => "site",
                Some(Exit::Overlay) => "overlay",
            },
            reason,
            explanation,
            device: match verdict {
                Verdict::Site(index) => device::name(*index).unwrap_or_else(|_| index.to_string()),
                _ => String::new(),
            },
            rule: around.names.told(facts.rule()),
            resource: around.names.resource(probe.destination).map(Resource::from),
            packet: Followed {
                side: probe.side.name(),
                protocol: probe.protocol,
                source_name: around.names.end(ends.source, 0).name,
                destination_name: around.names.end(ends.destination, 0).name,
                ends,
                length: probe.bytes().len(),
            },
            leaves,
            stages: explain::stages(&facts),
        }
    }
}

/// First port or id that no flow with these addresses uses.
fn unused(live: &dyn Live, probe: &Probe) -> u16 {
    const FIRST: u16 = 49_152;
    const TRIED: u16 = 64;
    let with = |source_port| Probe { source_port, ..probe.clone() };
    (FIRST..FIRST + TRIED).find(|port| !is_there(live, &with(*port))).unwrap_or(FIRST)
}

/// Whether a flow has the packet's tuple.
fn is_there(live: &dyn Live, probe: &Probe) -> bool {
    let (source_port, destination_port) = match probe.is_icmp() && probe.side == Side::Site {
        true => (0, probe.source_port),
        false => (probe.source_port, probe.destination_port),
    };
    fn there<F: LiveFamily>(live: &dyn Live, key: &Key<F::Address>) -> bool {
        [Table::Confirmed, Table::HalfOpen].into_iter().any(|table| F::flow(live, table, key).is_some())
    }
    macro_rules! key {
        ($source:expr, $destination:expr) => {
            Key {
                source: $source.into(),
                destination: $destination.into(),
                source_port,
                destination_port,
                protocol: probe.protocol,
                side: probe.side as u8,
                padding: 0,
            }
        };
    }
    match (probe.source, probe.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => there::<V4>(live, &key!(source, destination)),
        (IpAddr::V6(source), IpAddr::V6(destination)) => there::<V6>(live, &key!(source, destination)),
        _ => false,
    }
}
