//! Packets and what became of them, for one who watches beside the agent.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sluicegate_engine::capture::{Captured, DROPS, Fate, Filter, PASSES};
use sluicegate_engine::family::{Family as _, V4, V6};
use sluicegate_engine::flow::Side;
use sluicegate_engine::packet::protocol;
use sluicegate_engine::reason::DropReason;

use super::names::{Names, Rule};
use crate::datapath::device;

/// Batches a slow reader may be behind, each of a tenth of a second, before it misses one.
pub const BEHIND: usize = 64;

/// Which packets are asked for; every part that is given must match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// Either address, or the name or id of an agent or of a resource that is one address.
    pub host: Option<String>,
    /// Either port.
    pub port: Option<u16>,
    /// `tcp`, `udp`, `icmp`, or a protocol number.
    pub proto: Option<String>,
    /// `drop` or `pass`.
    pub verdict: Option<String>,
}

/// One line of a capture.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Packets that were wanted and not recorded since the last line.
    #[serde(skip_serializing_if = "is_zero")]
    pub lost: u64,
    /// A packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet: Option<Recorded>,
}

/// A packet and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Recorded {
    /// When, nanoseconds since 1970.
    pub time_ns: u64,
    /// `overlay`, `site` or `local`: where it came from.
    pub side: &'static str,
    /// `drop`, `host`, `site` or `overlay`: where it went.
    pub verdict: &'static str,
    /// Why it was dropped; empty when it was not.
    pub reason: &'static str,
    /// Name of the site device it left by; empty when it did not.
    pub device: String,
    /// The rule by which it went on or did not; empty texts when none was concerned.
    pub rule: Rule,
    /// The source as the destination sees it, when it differs: `ADDRESS:PORT`, or the address where there is no port.
    pub translated_source: String,
    /// Bytes it had, from the IP header on.
    pub length: u32,
    /// The first of them, base64.
    pub bytes: String,
}

impl Wanted {
    /// As the datapath takes it. `Err` says what makes no sense.
    pub fn filter(&self, names: &Names) -> Result<Filter, String> {
        let mut filter = Filter { port: self.port.unwrap_or(0), ..Filter::default() };
        if let Some(host) = &self.host {
            let addresses = names.addresses(host);
            if addresses.is_empty() {
                return Err(format!("'{host}' is no address, and this agent knows nobody of that name"));
            }
            // A name stands for one address of each family.
            for (place, six) in filter.addresses.iter_mut().zip([false, true]) {
                *place = addresses.iter().find(|a| a.is_ipv6() == six).map_or([0; 4], |a| words(*a));
            }
        }
        filter.protocol = match self.proto.as_deref() {
            None => 0,
            Some("tcp") => protocol::TCP,
            Some("udp") => protocol::UDP,
            Some("icmp") => V4::ICMP,
            Some(other) => match other.parse() {
                Ok(number) if number > 0 => {
                    if number == V6::ICMP {
                        V4::ICMP
                    } else {
                        number
                    }
                }
                _ => return Err(format!("'{other}' is no protocol; say tcp, udp, icmp or a number")),
            },
        };
        filter.verdicts = match self.verdict.as_deref() {
            None => 0,
            Some("drop") => DROPS,
            Some("pass") => PASSES,
            Some(other) => return Err(format!("'{other}' is no verdict; say drop or pass")),
        };
        Ok(filter)
    }
}

/// The lines that tell of `packets`, and of `lost` ones; `epoch` is what the monotonic clock must be set forward by, ns.
pub fn lines(packets: &[Captured], lost: u64, names: &Names, epoch: u64) -> Vec<Line> {
    let mut lines: Vec<Line> =
        packets.iter().map(|packet| Line { lost: 0, packet: Some(recorded(packet, names, epoch)) }).collect();
    match lines.first_mut() {
        Some(first) => first.lost = lost,
        None if lost > 0 => lines.push(Line { lost, packet: None }),
        None => {}
    }
    lines
}

fn recorded(packet: &Captured, names: &Names, epoch: u64) -> Recorded {
    let fate = Fate::from_number(packet.fate);
    let translated = Ipv6Addr::from(packet.translated);
    let bytes = packet.bytes.get(..usize::from(packet.captured)).unwrap_or(&packet.bytes);
    Recorded {
        time_ns: packet.nanoseconds.saturating_add(epoch),
        side: Side::from_number(packet.side).name(),
        verdict: fate.name(),
        reason: match fate {
            Fate::Drop => DropReason::from_number(packet.reason).unwrap_or(DropReason::Internal).name(),
            _ => "",
        },
        device: match packet.device {
            0 => String::new(),
            index => device::name(index).unwrap_or_else(|_| format!("device {index}")),
        },
        rule: names.told(packet.rule.checked_sub(1)),
        translated_source: match (translated.is_unspecified(), packet.translated_port) {
            (true, _) => String::new(),
            (false, 0) => translated.to_canonical().to_string(),
            (false, port) => SocketAddr::new(translated.to_canonical(), port).to_string(),
        },
        length: packet.length,
        bytes: STANDARD.encode(bytes),
    }
}

fn words(address: IpAddr) -> [u32; 4] {
    let mapped = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    std::array::from_fn(|i| u32::from_ne_bytes(std::array::from_fn(|j| mapped[i * 4 + j])))
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::names::tests::names;

    #[test]
    fn what_is_asked_for_becomes_a_filter_or_a_sentence() {
        let names = names();
        let wanted = |host: &str, proto: &str, verdict: &str| Wanted {
            host: Some(host.into()),
            port: Some(443),
            proto: Some(proto.into()),
            verdict: Some(verdict.into()),
        };
        let filter = wanted("alice", "tcp", "drop").filter(&names).unwrap();
        assert_eq!((filter.port, filter.protocol, filter.verdicts), (443, 6, DROPS));
        assert_eq!(filter.addresses, ["100.64.0.2", "fd64::2"].map(|a| words(a.parse().unwrap())));
        assert_eq!(wanted("fd09::7", "58", "pass").filter(&names).unwrap().protocol, V4::ICMP);
        for (host, proto, verdict, says) in [
            ("nobody", "tcp", "drop", "nobody of that name"),
            ("alice", "sctpx", "drop", "is no protocol"),
            ("alice", "0", "drop", "is no protocol"),
            ("alice", "tcp", "maybe", "is no verdict"),
        ] {
            let why = wanted(host, proto, verdict).filter(&names).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_line_tells_verdict_rule_and_translation() {
        let mut packet = Captured {
            nanoseconds: 5,
            length: 1500,
            rule: 1,
            fate: Fate::Site as u8,
            side: Side::Overlay as u8,
            translated: "::ffff:10.9.0.1".parse::<Ipv6Addr>().unwrap().octets(),
            translated_port: 20_000,
            captured: 3,
            ..Captured::default()
        };
        packet.bytes[0] = 0x45;
        let lines = lines(&[packet], 2, &names(), 1_000);
        let told = serde_json::to_value(&lines[0]).unwrap();
        for (path, value) in [
            ("/lost", serde_json::json!(2)),
            ("/packet/time_ns", serde_json::json!(1_005)),
            ("/packet/verdict", serde_json::json!("site")),
            ("/packet/rule/rule_name", serde_json::json!("users to web")),
            ("/packet/translated_source", serde_json::json!("10.9.0.1:20000")),
            ("/packet/bytes", serde_json::json!("RQAA")),
        ] {
            assert_eq!(told.pointer(path), Some(&value), "{path} in {told}");
        }
        let dropped =
            Captured { fate: 0, reason: DropReason::NoRule as u8, rule: 0, translated: [0; 16], ..packet };
        let told = recorded(&dropped, &names(), 0);
        assert_eq!((told.verdict, told.reason, told.rule), ("drop", "no_rule", Rule::default()));
        assert_eq!(super::lines(&[], 3, &names(), 0), [Line { lost: 3, packet: None }]);
        assert!(super::lines(&[], 0, &names(), 0).is_empty());
    }
}
