//! Flow events summed up, until they are written to the store: what `policy suggest` is answered by, of all replicas.
//!
//! What makes one flow another of its kind, its source's port above all, is in no sum. Memory is bounded as the store is: by all sums and by
//! those of one source, so that a port scan costs what it may and no more; what does not fit is counted.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use super::{Directory, FlowRecord, PartyKind};
use crate::ids::DAY;
use crate::store::{FlowAmount, FlowBatch, FlowDay, FlowKey, FlowLog, FlowVerdict};

/// Sums that wait, each of some 400 bytes with what finds it.
const WAITING: usize = 32_768;
/// Policies whose events are counted apart: before the account is known, an agent may name any.
const POLICIES: usize = 16_384;
/// Ports matter where the protocol has them (IANA: TCP, UDP, SCTP); of ICMP the type does.
const WITH_PORTS: [u32; 3] = [6, 17, 132];
const ICMP: [u32; 2] = [1, 58];

/// Sums that are not written yet.
#[derive(Default)]
pub(super) struct Sums {
    sums: HashMap<FlowKey, FlowAmount>,
    of_sources: HashMap<(i64, String, FlowVerdict), usize>,
    days: BTreeMap<(i64, String), FlowDay>,
    lost: BTreeMap<String, (u64, i64)>,
    /// What each agent said last that it had lost.
    told: HashMap<String, u64>,
}

impl Sums {
    /// Adds an event; whether it fits.
    pub(super) fn add(&mut self, directory: &Directory, record: &FlowRecord) -> bool {
        let at = seen_at(record);
        let policy = directory.known_policy(&record.rule.policy_id);
        let fits = match summed(directory, record, at) {
            Some((key, amount)) => self.fit(key, amount),
            None => false,
        };
        self.day(
            (at.div_euclid(DAY), policy),
            FlowDay { events: 1, unfit: u64::from(!fits), first_seen: at },
        );
        fits
    }

    /// Takes note of how many events an agent says that it has lost since it started.
    pub(super) fn note_lost(&mut self, agent: &str, total: u64, at: i64) {
        if self.told.insert(agent.to_owned(), total) != Some(total) {
            self.lost.insert(agent.to_owned(), (total, at));
        }
    }

    /// Forgets what may not be kept from now on.
    pub(super) fn keep(&mut self, before: &FlowLog, log: &FlowLog, is_in: impl Fn(&str) -> bool) {
        let batch = forget(self.take(), before, log, is_in);
        self.put_back(batch);
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.sums.is_empty() && self.days.is_empty() && self.lost.is_empty()
    }

    /// Everything, to be written.
    pub(super) fn take(&mut self) -> FlowBatch {
        self.of_sources.clear();
        FlowBatch {
            // In order, so that rows next to each other are written one after the other.
            sums: BTreeMap::from_iter(self.sums.drain()).into_iter().collect(),
            days: std::mem::take(&mut self.days),
            lost: std::mem::take(&mut self.lost),
        }
    }

    /// What could not be written comes back.
    pub(super) fn put_back(&mut self, batch: FlowBatch) {
        for (key, amount) in batch.sums {
            let (day, policy, events, first_seen) =
                (key.day, key.policy_id.clone(), amount.begun + amount.ended, amount.first_seen);
            if !self.fit(key, amount) {
                self.day((day, policy), FlowDay { events: 0, unfit: events, first_seen });
            }
        }
        for (day, of) in batch.days {
            self.day(day, of);
        }
        for (agent, said) in batch.lost {
            self.lost.entry(agent).or_insert(said);
        }
    }

    fn fit(&mut self, key: FlowKey, amount: FlowAmount) -> bool {
        if let Some(known) = self.sums.get_mut(&key) {
            known.add(&amount);
            return true;
        }
        let of_source = self.of_sources.entry(source(&key)).or_default();
        if self.sums.len() >= WAITING || *of_source >= key.verdict.of_a_source() {
            return false;
        }
        *of_source += 1;
        self.sums.insert(key, amount);
        true
    }

    fn day(&mut self, (day, policy): (i64, String), more: FlowDay) {
        let crowded = self.days.len() >= POLICIES && !self.days.contains_key(&(day, policy.clone()));
        let day = (day, if crowded { String::new() } else { policy });
        self.days.entry(day).and_modify(|of| of.add(&more)).or_insert(more);
    }
}

/// What may be kept by the settings of now, of what was by those before. Events that are forgotten stay counted, as in the store.
pub(super) fn forget(
    mut batch: FlowBatch,
    before: &FlowLog,
    log: &FlowLog,
    is_in: impl Fn(&str) -> bool,
) -> FlowBatch {
    if !log.enabled {
        return FlowBatch::default();
    }
    let narrower = log.is_narrower_than(before);
    batch.sums.retain_mut(|(key, amount)| {
        if !log.counters {
            (amount.packets, amount.bytes) = (0, 0);
        }
        let kept = !narrower || is_in(&key.peer) || is_in(&key.destination);
        if !kept {
            let unfit = amount.begun + amount.ended;
            let more = FlowDay { events: 0, unfit, first_seen: amount.first_seen };
            batch
                .days
                .entry((key.day, key.policy_id.clone()))
                .and_modify(|day| day.add(&more))
                .or_insert(more);
        }
        kept
    });
    batch
}

fn source(key: &FlowKey) -> (i64, String, FlowVerdict) {
    (key.day, key.peer.clone(), key.verdict)
}

/// When the agent saw it, by its own clock where that makes sense: events wait while control is away, but not for longer than a day.
fn seen_at(record: &FlowRecord) -> i64 {
    let received = i64::try_from(record.received_ms).unwrap_or(i64::MAX);
    let seen = i64::try_from(record.time_ms).unwrap_or(i64::MAX);
    if (received - DAY..=received).contains(&seen) { seen } else { received }
}

/// The sum that an event is of, and what it adds; none where its addresses or protocol make no sense.
fn summed(directory: &Directory, record: &FlowRecord, at: i64) -> Option<(FlowKey, FlowAmount)> {
    let (from, to) = (&record.source, &record.destination);
    let (source, address): (IpAddr, IpAddr) = (from.address.parse().ok()?, to.address.parse().ok()?);
    let is_peer = from.party.kind == PartyKind::Peer;
    let port = match record.protocol {
        protocol if WITH_PORTS.contains(&protocol) => u16::try_from(to.port).ok()?,
        protocol if ICMP.contains(&protocol) => u16::try_from(to.port >> 8).ok()?,
        _ => 0,
    };
    let (policy_id, rule_id) =
        (directory.known_policy(&record.rule.policy_id), directory.known_rule(&record.rule.rule_id));
    let key = FlowKey {
        day: at.div_euclid(DAY),
        peer: if is_peer { from.party.id.clone() } else { String::new() },
        verdict: match record.kind {
            "start" | "end" => FlowVerdict::Accept,
            "revoke" => FlowVerdict::Revoke,
            _ => FlowVerdict::Drop,
        },
        source: if is_peer { String::new() } else { source.to_string() },
        destination: match to.party.kind {
            PartyKind::Unknown => address.to_string(),
            _ => to.party.id.clone(),
        },
        version: if address.is_ipv4() { 4 } else { 6 },
        protocol: u8::try_from(record.protocol).ok()?,
        port,
        policy_id,
        rule_id,
        enters: record.direction != "overlay",
    };
    let begun = u64::from(record.kind == "start");
    let amount = FlowAmount {
        address,
        begun,
        ended: 1 - begun,
        packets: record.packets,
        bytes: record.bytes,
        first_seen: at,
        last_seen: at,
    };
    Some((key, amount))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::record;
    use super::super::{FlowEnd, Party};
    use super::*;

    const NOON: u64 = 20_000 * 86_400_000 + 43_200_000;

    /// An event of a peer; `port` is the destination's.
    fn event(kind: &'static str, destination: &str, source_port: u32, port: u32) -> FlowRecord {
        let to = Party { id: "res".into(), name: "web".into(), kind: PartyKind::HostResource };
        FlowRecord {
            kind,
            time_ms: NOON,
            received_ms: NOON + 5,
            source: FlowEnd { port: source_port, ..record(1).source },
            destination: FlowEnd { address: destination.into(), port, party: to },
            ..record(1)
        }
    }

    fn taken(sums: &mut Sums) -> Vec<(FlowKey, FlowAmount)> {
        sums.take().sums
    }

    #[test]
    fn flows_that_differ_in_their_sources_port_alone_are_one_sum() {
        for address in ["10.0.0.1", "fd00::1"] {
            let mut sums = Sums::default();
            for port in 0..1_000 {
                assert!(sums.add(&Directory::default(), &event("start", address, port, 443)));
                assert!(sums.add(&Directory::default(), &event("end", address, port, 443)));
            }
            let [(key, amount)] = &taken(&mut sums)[..] else { panic!("one sum") };
            assert_eq!((amount.begun, amount.ended, amount.bytes), (1_000, 1_000, 600_000));
            assert_eq!((key.port, key.day, key.peer.as_str()), (443, 20_000, "peer-1"));
            assert_eq!(key.version, if address.contains(':') { 6 } else { 4 });
        }
    }

    #[test]
    fn of_icmp_the_type_counts_and_of_what_has_no_ports_nothing() {
        let mut sums = Sums::default();
        for code in 0..3 {
            for (protocol, address) in [(1, "10.0.0.1"), (58, "fd00::1"), (47, "10.0.0.1")] {
                let echo = event("start", address, code, (8 << 8) + code);
                sums.add(&Directory::default(), &FlowRecord { protocol, ..echo });
            }
        }
        let ports: Vec<(u8, u16)> =
            taken(&mut sums).iter().map(|(key, _)| (key.protocol, key.port)).collect();
        assert_eq!(ports, [(1, 8), (47, 0), (58, 8)]);
    }

    #[test]
    fn a_port_scan_takes_the_room_of_its_source_and_is_counted_beyond() {
        let mut sums = Sums::default();
        for (kind, verdict) in [("drop", FlowVerdict::Drop), ("start", FlowVerdict::Accept)] {
            for port in 1..=65_535 {
                sums.add(&Directory::default(), &event(kind, "10.0.0.1", 9, port));
            }
            let other = FlowRecord { source: record(2).source, ..event(kind, "fd00::1", 9, 443) };
            assert!(sums.add(&Directory::default(), &other), "another source has its own room");
            let batch = sums.take();
            assert_eq!(batch.sums.len(), verdict.of_a_source() + 1);
            let [day] = Vec::from_iter(batch.days.values())[..] else { panic!("one day") };
            assert_eq!((day.events, day.unfit), (65_536, 65_535 - verdict.of_a_source() as u64));
        }
    }

    #[test]
    fn all_sources_together_have_bounded_memory() {
        let mut sums = Sums::default();
        for number in 0..(WAITING as u64 + 10) {
            let from = FlowEnd {
                party: Party { id: format!("peer-{number}"), kind: PartyKind::Peer, ..Party::default() },
                ..record(1).source
            };
            sums.add(
                &Directory::default(),
                &FlowRecord { source: from, ..event("start", "fd00::1", 9, 443) },
            );
        }
        let batch = sums.take();
        assert_eq!((batch.sums.len(), batch.days.values().next().unwrap().unfit), (WAITING, 10));
    }

    #[test]
    fn an_agents_clock_counts_where_it_makes_sense() {
        let at = |time_ms| seen_at(&FlowRecord { time_ms, ..event("end", "10.0.0.1", 1, 1) });
        let received = NOON as i64 + 5;
        assert_eq!([at(NOON), at(NOON - 3_600_000)], [received - 5, received - 3_600_005]);
        assert_eq!([at(NOON + 6), at(0), at(u64::MAX), at(NOON - 86_400_000)], [received; 4]);
    }

    #[test]
    fn what_makes_no_sense_is_counted_and_in_no_sum() {
        let mut sums = Sums::default();
        let good = event("start", "10.0.0.1", 1, 443);
        for wrong in [
            event("start", "not an address", 1, 443),
            event("start", "10.0.0.1", 1, 1 << 20),
            FlowRecord { protocol: 256, ..good.clone() },
            FlowRecord { source: FlowEnd { address: "x".into(), ..good.source.clone() }, ..good },
        ] {
            assert!(!sums.add(&Directory::default(), &wrong), "{wrong:?}");
        }
        let batch = sums.take();
        assert!(batch.sums.is_empty());
        assert_eq!(batch.days.into_values().map(|day| (day.events, day.unfit)).collect::<Vec<_>>(), [(4, 4)]);
    }

    #[test]
    fn what_could_not_be_written_comes_back_and_adds_up() {
        let mut sums = Sums::default();
        let directory = Directory::default();
        sums.add(&directory, &event("start", "fd00::1", 1, 443));
        sums.note_lost("gw", 3, 1);
        let batch = sums.take();
        assert!(sums.take().is_empty());
        sums.add(&directory, &event("end", "fd00::1", 1, 443));
        sums.note_lost("gw", 3, 2);
        sums.put_back(batch);
        let batch = sums.take();
        let [(_, amount)] = &batch.sums[..] else { panic!("one sum") };
        assert_eq!((amount.begun, amount.ended), (1, 1));
        assert_eq!(batch.days.into_values().map(|day| day.events).sum::<u64>(), 2);
        assert_eq!(batch.lost, BTreeMap::from([("gw".to_owned(), (3, 1))]));
    }

    #[test]
    fn settings_forget_what_waits_as_they_forget_what_is_kept() {
        let mut sums = Sums::default();
        let both = |sums: &mut Sums| {
            sums.add(&Directory::default(), &event("end", "10.0.0.1", 1, 443));
            sums.add(
                &Directory::default(),
                &FlowRecord { source: record(2).source, ..event("end", "fd00::1", 1, 443) },
            );
            sums.note_lost("gw", sums.told.len() as u64, 1);
        };
        let log = |enabled, groups: &[&str], counters| FlowLog {
            enabled,
            groups: groups.iter().map(ToString::to_string).collect(),
            counters,
        };
        let all = log(true, &[], true);
        both(&mut sums);
        sums.keep(&all, &log(true, &["g"], false), |id| id == "peer-2");
        let batch = sums.take();
        let [(key, amount)] = &batch.sums[..] else { panic!("one sum") };
        assert_eq!((key.peer.as_str(), amount.bytes), ("peer-2", 0));
        let [day] = Vec::from_iter(batch.days.values())[..] else { panic!("one day") };
        assert_eq!((day.events, day.unfit), (2, 1), "what is forgotten is missing");
        // Who was in a group when it was told of may have left it since.
        both(&mut sums);
        sums.keep(&log(true, &["g"], true), &log(true, &["h", "g"], true), |_| false);
        let batch = sums.take();
        assert_eq!((batch.sums.len(), batch.days.values().map(|day| day.unfit).sum::<u64>()), (2, 0));
        both(&mut sums);
        sums.keep(&all, &log(false, &[], true), |_| true);
        assert!(sums.take().is_empty(), "nor what agents lost");
    }

    #[test]
    fn policies_and_rules_that_are_not_known_make_no_sums_of_their_own() {
        let state = Arc::new(super::super::tests::state());
        let directory = Directory::new(&state);
        let mut sums = Sums::default();
        for number in 0..100 {
            let mut made_up = event("start", "10.0.0.1", 1, 443);
            made_up.rule.policy_id = format!("p{number}");
            made_up.rule.rule_id = format!("r{number}");
            sums.add(&directory, &made_up);
        }
        let batch = sums.take();
        assert_eq!((batch.sums.len(), batch.days.len()), (1, 1));
        assert_eq!(batch.sums[0].0.policy_id, "");
    }
}
