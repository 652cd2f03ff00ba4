//! The stages of a traced packet, in a person's words.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;
use sluicegate_engine::flow::{Exit, Side, State};
use sluicegate_engine::image::axis;
use sluicegate_engine::packet::{protocol, tcp};
use sluicegate_engine::pipeline::Verdict;
use sluicegate_engine::reason::DropReason;
use sluicegate_engine::tables::Stage as Table;

use super::classes::{Classes, Service, classes};
use super::probe::Probe;
use super::sandbox::{Half, Seen};
use crate::datapath::{Live, device};
use crate::local::names::Names;

/// One stage of a packet's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Stage {
    /// Its name.
    pub stage: &'static str,
    /// `passed`, or `stopped` for the one where the packet ended.
    pub outcome: &'static str,
    /// What it found, as a sentence.
    pub found: String,
}

/// The stages, in the order of the packet's way.
const PARSE: &str = "parse";
const IMAGE: &str = "image";
const SPOOF: &str = "spoof check";
const FLOW: &str = "flow";
const CLASS: &str = "class";
const SERVICE: &str = "service";
const VERDICT: &str = "verdict";
const NAT: &str = "nat";
const NEXT_HOP: &str = "next hop";

/// What is known of one traced packet.
pub(super) struct Facts<'a> {
    pub(super) probe: &'a Probe,
    pub(super) live: &'a dyn Live,
    pub(super) names: &'a Names,
    pub(super) seen: &'a Seen,
    pub(super) verdict: Verdict,
    /// Revision of the image in force.
    pub(super) revision: Option<u64>,
    /// The next router towards the destination after translation, when the host's routes name one.
    pub(super) via: Option<IpAddr>,
}

/// Every stage that the packet reached.
pub(super) fn stages(facts: &Facts<'_>) -> Vec<Stage> {
    let stopped_at = match facts.verdict {
        // A broadcast of this host's networks: no flow is opened to it, whatever admits it.
        Verdict::Drop(DropReason::NotUnicast) if facts.seen.judged.is_some() => Some(NAT),
        Verdict::Drop(reason) => Some(stage_of(reason)),
        _ => None,
    };
    let told = [
        (PARSE, Some(facts.parse())),
        (IMAGE, Some(facts.image())),
        (SPOOF, facts.spoof()),
        (FLOW, facts.flow()),
        (CLASS, facts.class()),
        (SERVICE, facts.service()),
        (VERDICT, facts.decision()),
        (NAT, facts.nat()),
        (NEXT_HOP, facts.next_hop()),
    ];
    let end = stopped_at.and_then(|stage| told.iter().position(|(name, _)| *name == stage));
    let mut stages = Vec::new();
    for (i, (stage, found)) in told.into_iter().enumerate() {
        let here = end == Some(i);
        let found = match (facts.verdict, here) {
            (Verdict::Drop(reason), true) => Some(facts.stopped(reason, found)),
            _ if end.is_some_and(|end| i > end) => None,
            _ => found,
        };
        if let Some(found) = found {
            stages.push(Stage { stage, outcome: if here { "stopped" } else { "passed" }, found });
        }
    }
    stages
}

/// The stage in which a packet dropped for `reason` ends.
fn stage_of(reason: DropReason) -> &'static str {
    match reason {
        DropReason::NoImage | DropReason::PolicyExpired => IMAGE,
        DropReason::SpoofedSource => SPOOF,
        DropReason::NoFlow
        | DropReason::FlowTableFull
        | DropReason::InvalidTcp
        | DropReason::NotOpening
        | DropReason::IcmpError
        | DropReason::Fragment
        | DropReason::FragmentOverlap
        | DropReason::FragmentTableFull
        | DropReason::SourceLimit => FLOW,
        DropReason::NoRule | DropReason::RuleDrop | DropReason::Revoked => VERDICT,
        DropReason::NatExhausted | DropReason::Hairpin => NAT,
        DropReason::NoEgress | DropReason::TtlExpired | DropReason::TooBig | DropReason::Internal => NEXT_HOP,
        DropReason::Malformed
        | DropReason::BadVersion
        | DropReason::NotUnicast
        | DropReason::BadExtension
        | DropReason::BadOption
        | DropReason::UnderlayMalformed
        | DropReason::UnderlayHandshakeRate => PARSE,
    }
}

impl Facts<'_> {
    fn parse(&self) -> String {
        let Probe { protocol, source_port, destination_port, .. } = *self.probe;
        let ends = |has_ports: bool| {
            let end = |address: IpAddr, port: u16| match has_ports {
                true => SocketAddr::new(address, port).to_string(),
                false => address.to_string(),
            };
            format!(
                "{} -> {}",
                end(self.probe.source, source_port),
                end(self.probe.destination, destination_port)
            )
        };
        let what = match protocol {
            protocol::TCP => format!("tcp {} {}", flags(self.probe.tcp_flags), ends(true)),
            protocol::UDP => format!("udp {}", ends(true)),
            _ if self.probe.is_icmp() => {
                let kind = if self.probe.side == Side::Site { "reply" } else { "request" };
                format!("icmp echo {kind}, id {source_port}, {}", ends(false))
            }
            other => format!("ip protocol {other}, {}", ends(false)),
        };
        let from = match self.probe.side {
            Side::Overlay => "from the overlay",
            Side::Site => "from a site device",
            Side::Local => "from this host",
        };
        format!("{what}, {} bytes, TTL {}, {from}", self.probe.bytes().len(), self.probe.ttl)
    }

    fn image(&self) -> String {
        match self.revision {
            Some(revision) => format!("revision {revision} is in force"),
            None => "none is in force".into(),
        }
    }

    /// Whose address the source is. For a packet of a flow that is there, the key of the flow has said it.
    fn spoof(&self) -> Option<String> {
        let source = self.probe.source;
        let who = match self.names.peer(source) {
            Some(_) if self.names.own().is_some_and(|own| own.has(source)) => "this agent's own".to_owned(),
            Some(who) => format!("{}'s", who.name),
            None => "nobody's".to_owned(),
        };
        match self.probe.side {
            Side::Site => Some(format!(
                "{source} is {}",
                match self.names.peer(source) {
                    Some(_) => who + " address in the overlay",
                    None => "not of the overlay, as it must be from a site".into(),
                }
            )),
            _ if self.seen.judged.is_none() && self.seen.found.is_some() => {
                Some(format!("{source} is {who} address; checked when the flow was opened"))
            }
            Side::Overlay => Some(format!("{source} is {who} address")),
            Side::Local => Some(format!("{source} is {who} address, sent by this host")),
        }
    }

    fn flow(&self) -> Option<String> {
        let Some((table, half)) = &self.seen.found else {
            return match self.probe.side {
                Side::Site if self.verdict == Verdict::Pass => {
                    Some("none expects it: the host's own business".into())
                }
                Side::Site => Some("none expects it".into()),
                _ if self.seen.judged.is_some() => Some("none: judged as the first packet of one".into()),
                _ => None,
            };
        };
        let table = if *table == Table::Confirmed { "confirmed" } else { "half-open" };
        let way = if half.reply { "its reply direction" } else { "its first direction" };
        let idle = f64::from(half.idle) / f64::from(self.live.hz().max(1));
        let mut told = format!(
            "{table}, {}, {way}, packets so far {}, the last {idle:.1} s ago",
            State::from_number(half.state).name(),
            half.packets
        );
        if half.over && self.seen.admitted.is_some() {
            told.push_str("; over, so judged as the first packet of a new one");
        } else if self.seen.judged.is_some() {
            told.push_str("; admitted by an older image, so judged anew");
        }
        Some(told)
    }

    fn classes(&self) -> Option<Classes> {
        let judged = self.seen.judged?;
        classes(self.live.image(), judged.source, judged.destination, judged.axis)
    }

    fn class(&self) -> Option<String> {
        let judged = self.seen.judged?;
        let c = self.classes()?;
        let places = |what: &str, numbers: &[u32], of: u32, none: &str| match numbers {
            [] => format!("{none}, no {what} of {of}"),
            [one] => format!("{what} {one} of {of}"),
            _ => {
                let numbers: Vec<String> = numbers.iter().map(u32::to_string).collect();
                format!("{what}s {} of {of}", numbers.join(", "))
            }
        };
        let attributes = judged.judgement.attributes;
        let to = if attributes.local() {
            ", this agent itself".to_owned()
        } else if let Some(number) = attributes.route() {
            match self.names.route(number) {
                Some(route) => format!(", resource {} {}", route.resource_name, route.prefix),
                None => format!(", route {number}"),
            }
        } else if attributes.remote() {
            match self.names.peer(judged.destination) {
                Some(who) => format!(", {} in the overlay", who.name),
                None => ", in the overlay".to_owned(),
            }
        } else {
            String::new()
        };
        Some(format!(
            "{}; {}{to}",
            places("row", &c.rows, c.rows_of, "source unknown"),
            places("column", &c.columns, c.columns_of, "no rule leads there")
        ))
    }

    fn service(&self) -> Option<String> {
        Some(match self.classes()?.service {
            Service::None => "no rule names the pair".into(),
            Service::Everything => "one rule decides the pair, whatever the protocol".into(),
            Service::Interval { first, last, of } => {
                let list = if of == 1 { "the only entry".into() } else { format!("one of {of} entries") };
                format!("{}, {list} of the pair's list", span(first, last))
            }
        })
    }

    /// Slot of the rule that the packet passes or ends by.
    pub(super) fn rule(&self) -> Option<u32> {
        let dropped = matches!(self.verdict, Verdict::Drop(_));
        let by_event = self.seen.events.iter().rev().find_map(|event| event.rule.checked_sub(1));
        if dropped {
            return by_event.or(self.seen.refused);
        }
        self.seen.admitted.or_else(|| self.seen.left.map(|half| half.rule))
    }

    fn says(&self, slot: u32) -> String {
        match self.names.rule(slot) {
            Some(rule) if rule.rule_name == rule.policy_name || rule.rule_name.is_empty() => {
                format!("policy '{}'", rule.policy_name)
            }
            Some(rule) => format!("policy '{}', rule '{}'", rule.policy_name, rule.rule_name),
            None => format!("the rule in slot {slot}"),
        }
    }

    fn decision(&self) -> Option<String> {
        if self.verdict == Verdict::Pass {
            return Some("passed to the host as if there were no gateway".into());
        }
        let slot = self.rule()?;
        let how = if self.seen.judged.is_some() { "accepted" } else { "accepted, with its flow," };
        Some(format!("{how} by {}", self.says(slot)))
    }

    fn nat(&self) -> Option<String> {
        if matches!(self.verdict, Verdict::Pass | Verdict::Drop(_))
            && self.seen.admitted.is_none()
            && self.seen.left.is_none()
        {
            return None;
        }
        let half = self.seen.left?;
        let ports = matches!(self.probe.protocol, protocol::TCP | protocol::UDP);
        let icmp = self.probe.is_icmp();
        let shown = |(address, port): (IpAddr, u16)| match (ports, icmp) {
            (true, _) => SocketAddr::new(address, port).to_string(),
            (false, true) => format!("{address} with id {port}"),
            _ => address.to_string(),
        };
        let before = (self.probe.source, self.probe.destination);
        if half.source.0 != before.0 || (ports && half.source.1 != self.probe.source_port) {
            let taken = match self.seen.taken {
                0 => String::new(),
                1 => ", the second port tried".into(),
                n => format!(", after {n} ports that were taken"),
            };
            return Some(format!("the source becomes {}{taken}", shown(half.source)));
        }
        if half.destination.0 != before.1 {
            return Some(format!("the destination becomes {} again", shown(half.destination)));
        }
        Some("addresses stay".into())
    }

    fn next_hop(&self) -> Option<String> {
        let via = || self.via.map_or_else(|| "directly".to_owned(), |via| format!("by {via}"));
        Some(match self.verdict {
            Verdict::Drop(_) | Verdict::Answer => return None,
            Verdict::Pass => "this host's own stack".into(),
            Verdict::Host if self.probe.side == Side::Local => {
                let to = self.names.peer(self.probe.destination);
                to.map_or_else(
                    || "into the overlay".into(),
                    |who| format!("into the overlay, to {}", who.name),
                )
            }
            Verdict::Host => "this host's own stack".into(),
            Verdict::Overlay => {
                let to = self.seen.left.map_or(self.probe.destination, |half| half.destination.0);
                let who = self.names.peer(to).map(|who| format!(", to {}", who.name)).unwrap_or_default();
                format!("into the overlay{who}{}", mtu(self.live.config().overlay_mtu))
            }
            Verdict::Site(index) => {
                let name = device::name(index).unwrap_or_else(|_| format!("device {index}"));
                let route = self.seen.left.map(|half| half.route);
                let egress = route.and_then(|route| self.live.egress(route));
                let mtu = mtu(egress.map_or(0, |egress| egress.mtu));
                format!("out of {name}{mtu}, {}", via())
            }
        })
    }

    /// What is said of the stage that stopped the packet.
    fn stopped(&self, reason: DropReason, found: Option<String>) -> String {
        let before = found.map(|found| found + "; ").unwrap_or_default();
        let why = match reason {
            DropReason::NoRule => {
                return "denied: no rule accepts it, and what no rule accepts is denied".into();
            }
            DropReason::RuleDrop => match self.rule() {
                Some(slot) => return format!("denied by {}", self.says(slot)),
                None => "a drop rule matches it".into(),
            },
            DropReason::Revoked => "its flow is revoked: the image in force no longer admits it".into(),
            DropReason::SpoofedSource if self.probe.side == Side::Local => {
                "this host may send with its own address only".to_owned()
            }
            DropReason::SpoofedSource if self.probe.side == Side::Site => {
                "an overlay address cannot come from a site".to_owned()
            }
            DropReason::SpoofedSource if self.names.peer(self.probe.source).is_some() => {
                "no rule of this image has it as a source, so it may open nothing here".to_owned()
            }
            DropReason::SpoofedSource => "nobody may send with it from the overlay".to_owned(),
            DropReason::InvalidTcp if self.seen.found.is_none() => {
                "a flow begins with a SYN; these flags belong to one that is not there".into()
            }
            DropReason::InvalidTcp => "flags that do not fit the state of the flow".into(),
            DropReason::NoEgress => match self.seen.judged.map(|judged| judged.judgement.attributes) {
                Some(a) if a.route().is_none() && !a.local() && !a.remote() => {
                    "a rule accepts it, but the destination is behind no route of this agent".into()
                }
                Some(a) if a.route().is_some() => {
                    "the route has no device or no address to masquerade with now".into()
                }
                _ => "the destination lies in no direction that is open from there".into(),
            },
            DropReason::TooBig => {
                format!("{} bytes are more than the MTU of the way out", self.probe.bytes().len())
            }
            other => lower(other.explanation().trim().trim_end_matches('.')),
        };
        format!("{before}{why}")
    }
}

/// How a half-entry leaves, for summaries.
pub(super) fn destination(half: Option<&Half>, probe: &Probe) -> IpAddr {
    half.map_or(probe.destination, |half| half.destination.0)
}

/// Whether a verdict lets the packet go on.
pub(super) fn exit(verdict: Verdict, side: Side) -> Option<Exit> {
    match verdict {
        Verdict::Drop(_) | Verdict::Answer => None,
        Verdict::Host if side == Side::Local => Some(Exit::Overlay),
        Verdict::Pass | Verdict::Host => Some(Exit::Host),
        Verdict::Site(_) => Some(Exit::Site),
        Verdict::Overlay => Some(Exit::Overlay),
    }
}

fn mtu(mtu: u32) -> String {
    if mtu == 0 { String::new() } else { format!(" (MTU {mtu})") }
}

fn flags(bits: u8) -> String {
    let names = [(tcp::SYN, "SYN"), (tcp::ACK, "ACK"), (tcp::FIN, "FIN"), (tcp::RST, "RST")];
    let set: Vec<&str> = names.into_iter().filter(|(bit, _)| bits & bit != 0).map(|(_, name)| name).collect();
    if set.is_empty() { "without flags".into() } else { set.join("+") }
}

/// An interval of the protocol/port axis; one that runs over several protocols is told by its two ends.
fn span(first: u32, last: u32) -> String {
    let at = |value: u32| match (value >> 16, value & 0xffff) {
        (0, number) => format!("protocol {number}"),
        (1, port) => format!("tcp {port}"),
        (2, port) => format!("udp {port}"),
        (3, kind) => format!("icmp type {}", kind >> 8),
        (_, kind) => format!("icmpv6 type {}", kind >> 8),
    };
    if first == last {
        return at(first);
    }
    if (first, last) == (axis::ICMP, axis::END - 1) {
        return "every icmp and icmpv6 type".into();
    }
    if first >> 16 == last >> 16 && matches!(first >> 16, 1 | 2) {
        let name = if first & !0xffff == axis::TCP { "tcp" } else { "udp" };
        return match (first & 0xffff, last & 0xffff) {
            (0, 0xffff) => format!("every {name} port"),
            (first, last) => format!("{name} {first} to {last}"),
        };
    }
    format!("{} to {}", at(first), at(last))
}

fn lower(sentence: &str) -> String {
    let mut letters = sentence.chars();
    match letters.next() {
        // `IP`, `TTL`, `MTU` stay as they are.
        Some(first) if !letters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => sentence.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_read_like_services() {
        assert_eq!(span(axis::TCP | 443, axis::TCP | 443), "tcp 443");
        assert_eq!(span(axis::UDP, axis::UDP | 0xffff), "every udp port");
        assert_eq!(span(axis::TCP | 8000, axis::TCP | 8999), "tcp 8000 to 8999");
        assert_eq!(span(axis::ICMP, axis::END - 1), "every icmp and icmpv6 type");
        assert_eq!(span(axis::ICMP, axis::ICMPV6 - 1), "icmp type 0 to icmp type 255");
        assert_eq!(span(0, axis::TCP | 21), "protocol 0 to tcp 21");
    }

    #[test]
    fn a_reason_ends_where_what_is_behind_it_was_not_looked_at() {
        for (reason, stage) in [
            (DropReason::BadExtension, PARSE),
            (DropReason::PolicyExpired, IMAGE),
            (DropReason::SpoofedSource, SPOOF),
            (DropReason::SourceLimit, FLOW),
            (DropReason::NoRule, VERDICT),
            (DropReason::Hairpin, NAT),
            (DropReason::NatExhausted, NAT),
            (DropReason::TooBig, NEXT_HOP),
        ] {
            assert_eq!(stage_of(reason), stage, "{}", reason.name());
        }
    }

    #[test]
    fn sentences_become_clauses() {
        assert_eq!(lower("No rule admits it"), "no rule admits it");
        assert_eq!(lower("TTL or hop limit"), "TTL or hop limit");
        assert_eq!(flags(tcp::SYN | tcp::ACK), "SYN+ACK");
    }
}
