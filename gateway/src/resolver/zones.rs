//! Who holds which name: a table of what control says, and the zones that are answered from it.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use hickory_resolver::proto::rr::rdata::{A, AAAA, PTR, SOA};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::wanted::{Host, Wanted};

/// How long addresses of peers are good for, seconds: they seldom change, and what goes is to be gone soon.
const PEER_TTL: u32 = 60;
/// How long it is good for that there is nothing, seconds.
const NEGATIVE_TTL: u32 = 10;

/// Who holds which name.
#[derive(Debug, Default)]
pub(super) struct Table {
    domains: HashMap<Name, Entry>,
    zones: Vec<Zone>,
    forwards: Vec<Servers>,
    /// Names that only the host's own name servers are asked for, unless a zone has their addresses.
    hosts_own: Vec<Name>,
}

/// What holds names at or below a domain.
#[derive(Debug, Default)]
struct Entry {
    zone: Option<usize>,
    /// Resources whose name this is.
    exact: Vec<String>,
    /// Resources whose names are all below.
    below: Vec<String>,
    forward: Option<usize>,
}

/// Name servers of all nameserver groups with the same domain, in the order of the groups.
#[derive(Debug, Default)]
pub(super) struct Servers(pub(super) Vec<SocketAddr>);

/// Who holds a name.
#[derive(Clone, Copy, Debug)]
pub(super) enum Holder<'a> {
    /// A zone that is answered here.
    Zone(&'a Zone),
    /// Resources with these ids.
    Routed(&'a [String]),
    /// Name servers of nameserver groups.
    Forward(&'a Servers),
    /// The name servers that the host had by itself.
    Host,
}

/// What a zone is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Peers' names.
    Peers,
    /// Records as control has them.
    Records,
    /// Names of overlay addresses.
    Reverse,
}

/// A zone that is answered here.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) kind: Kind,
    pub(super) apex: Name,
    /// Records by name; a name that only has names below it has none.
    names: HashMap<Name, Vec<Record>>,
}

/// What a zone says of a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Its records of the type asked for, or the one that says for which it is another name.
    Records(Vec<Record>),
    /// There are no records of the type.
    Nothing,
    /// There is no such name.
    NoSuchName,
}

impl Table {
    /// The table of what is wanted. `own` is where this agent listens itself: it is nobody's name server.
    pub(super) fn new(wanted: &Wanted, own: &[SocketAddr], hosts_own: Vec<Name>) -> Self {
        let mut table = Self { hosts_own, ..Self::default() };
        let peers = table.zone(wanted.domain.clone(), Kind::Peers);
        for host in &wanted.hosts {
            for name in &host.names {
                peers.add(name, PEER_TTL, RData::A(A(host.v4)));
                peers.add(name, PEER_TTL, RData::AAAA(AAAA(host.v6)));
            }
        }
        for wanted in &wanted.zones {
            let zone = table.zone(wanted.domain.clone(), Kind::Records);
            for record in &wanted.records {
                zone.add(&record.name, record.ttl, record.data.clone());
            }
        }
        table.add_reverse(wanted.own, wanted.hosts.iter());
        for routed in &wanted.routed {
            let entry = table.domains.entry(routed.domain.clone()).or_default();
            let resources = if routed.below { &mut entry.below } else { &mut entry.exact };
            resources.push(routed.resource.clone());
        }
        for forward in &wanted.forwards {
            let others = forward.servers.iter().filter(|server| !own.contains(server));
            let root = [Name::root()];
            let domains = if forward.domains.is_empty() { &root[..] } else { &forward.domains[..] };
            for domain in domains {
                table.servers(domain).0.extend(others.clone());
            }
        }
        table
    }

    /// Who answers for records of this type. Of the domains that hold `name` the longest decides; of equal ones a zone, then a
    /// resource, which has addresses alone, then a name server. The host's own names are the host's, but for those of which a
    /// zone has an address.
    pub(super) fn holder(&self, name: &Name, kind: RecordType) -> Holder<'_> {
        match self.decided(name, is_of_resources(kind)) {
            Holder::Zone(zone) if zone.has_address(name) => Holder::Zone(zone),
            _ if self.hosts_own.contains(name) => Holder::Host,
            holder => holder,
        }
    }

    /// Whether `name` is a resource's, and records of this type are somebody else's.
    pub(super) fn shares(&self, name: &Name, kind: RecordType) -> bool {
        !is_of_resources(kind) && matches!(self.holder(name, RecordType::A), Holder::Routed(_))
    }

    fn decided(&self, name: &Name, of_resources: bool) -> Holder<'_> {
        let mut suffix = name.clone();
        let mut whole = true;
        loop {
            match self.domains.get(&suffix) {
                Some(Entry { zone: Some(zone), .. }) => return Holder::Zone(&self.zones[*zone]),
                Some(entry) if of_resources && !entry.resources(whole).is_empty() => {
                    return Holder::Routed(entry.resources(whole));
                }
                Some(Entry { forward: Some(forward), .. }) => {
                    return Holder::Forward(&self.forwards[*forward]);
                }
                _ => {}
            }
            if suffix.is_root() {
                return Holder::Host;
            }
            suffix = suffix.base_name();
            whole = false;
        }
    }

    /// Zones, in the order in which they were said.
    pub(super) fn zones(&self) -> &[Zone] {
        &self.zones
    }

    /// Domains that somebody else than the host's own name servers holds names of, each once; not the root.
    pub(super) fn domains(&self) -> Vec<&Name> {
        let mut domains: Vec<&Name> = self.domains.keys().filter(|domain| !domain.is_root()).collect();
        domains.sort();
        domains
    }

    fn zone(&mut self, apex: Name, kind: Kind) -> &mut Zone {
        let zones = &mut self.zones;
        let entry = self.domains.entry(apex.clone()).or_default();
        let place = *entry.zone.get_or_insert_with(|| {
            zones.push(Zone { kind, names: HashMap::from([(apex.clone(), Vec::new())]), apex });
            zones.len() - 1
        });
        &mut self.zones[place]
    }

    fn servers(&mut self, domain: &Name) -> &mut Servers {
        let forwards = &mut self.forwards;
        let entry = self.domains.entry(domain.clone()).or_default();
        let place = *entry.forward.get_or_insert_with(|| {
            forwards.push(Servers::default());
            forwards.len() - 1
        });
        &mut self.forwards[place]
    }

    /// The zones of overlay addresses; each host is looked at once, however many those are.
    fn add_reverse<'a>(&mut self, own: (Ipv4Net, Ipv6Net), hosts: impl Iterator<Item = &'a Host>) {
        let prefixes = [IpNet::V4(own.0), IpNet::V6(own.1)];
        for prefix in prefixes {
            for apex in reverse_apexes(prefix) {
                self.zone(apex, Kind::Reverse);
            }
        }
        for host in hosts {
            let Some(first) = host.names.first() else { continue };
            for (prefix, address) in prefixes.into_iter().zip([IpAddr::V4(host.v4), IpAddr::V6(host.v6)]) {
                if prefix.contains(&address) {
                    let name = reverse(address);
                    let apex = name.trim_to(apex_labels(prefix));
                    self.zone(apex, Kind::Reverse).add(&name, PEER_TTL, RData::PTR(PTR(first.clone())));
                }
            }
        }
    }
}

impl Entry {
    /// Resources that have the domain itself where it is the `whole` name, and else a name below it.
    fn resources(&self, whole: bool) -> &[String] {
        if whole { &self.exact } else { &self.below }
    }
}

impl Zone {
    /// What it says of `name`, which is at or below its apex.
    pub(super) fn look(&self, name: &Name, kind: RecordType) -> Look {
        let Some(records) = self.names.get(name) else { return Look::NoSuchName };
        if kind == RecordType::SOA && *name == self.apex {
            return Look::Records(vec![self.soa()]);
        }
        let of_type = |record: &&Record| kind == RecordType::ANY || record.record_type() == kind;
        let alias = |record: &&Record| record.record_type() == RecordType::CNAME;
        let mut found: Vec<Record> = records.iter().filter(of_type).cloned().collect();
        if found.is_empty() {
            found.extend(records.iter().find(alias).cloned());
        }
        if found.is_empty() { Look::Nothing } else { Look::Records(found) }
    }

    /// Says for how long it is good that there is nothing (RFC 2308).
    pub(super) fn soa(&self) -> Record {
        let hostmaster = self.apex.prepend_label("hostmaster").unwrap_or_else(|_| self.apex.clone());
        let soa = SOA::new(self.apex.clone(), hostmaster, 1, 3600, 600, 86_400, NEGATIVE_TTL);
        Record::from_rdata(self.apex.clone(), NEGATIVE_TTL, RData::SOA(soa))
    }

    /// Whether it has an address of `name`, of whichever family.
    fn has_address(&self, name: &Name) -> bool {
        self.names
            .get(name)
            .is_some_and(|records| records.iter().any(|record| record.data.ip_addr().is_some()))
    }

    /// Names that have records.
    pub(super) fn count(&self) -> usize {
        self.names.values().filter(|records| !records.is_empty()).count()
    }

    fn add(&mut self, name: &Name, ttl: u32, data: RData) {
        // Above a name that is there, all are.
        let mut above = name.clone();
        while !self.names.contains_key(&above) && !above.is_root() {
            let next = above.base_name();
            self.names.insert(above, Vec::new());
            above = next;
        }
        let records = self.names.entry(name.clone()).or_default();
        let known = records.iter().any(|record| record.data == data);
        if !known {
            records.push(Record::from_rdata(name.clone(), ttl, data));
        }
    }
}

/// Whether resources have records of this type: addresses, and what could hold addresses that no router has opened.
fn is_of_resources(kind: RecordType) -> bool {
    use RecordType::{A, AAAA, ANY, HTTPS, SVCB};
    matches!(kind, A | AAAA | HTTPS | SVCB | ANY)
}

/// The name by which an address is looked up.
fn reverse(address: IpAddr) -> Name {
    let mut name = Name::from(address);
    name.set_fqdn(true);
    name
}

/// The zones that the names of a prefix's addresses make up: one, or as many as end at the next label.
fn reverse_apexes(prefix: IpNet) -> Vec<Name> {
    let (bits, _) = label_bits(prefix);
    let length = prefix.prefix_len().div_ceil(bits) * bits;
    let subnets = prefix.trunc().subnets(length);
    let apex = |subnet: IpNet| reverse(subnet.addr()).trim_to(apex_labels(prefix));
    subnets.into_iter().flatten().map(apex).collect()
}

/// Labels of each of a prefix's zones, those of `in-addr.arpa` or `ip6.arpa` among them.
fn apex_labels(prefix: IpNet) -> usize {
    let (bits, labels) = label_bits(prefix);
    2 + usize::from(prefix.prefix_len().div_ceil(bits)).min(labels)
}

/// Bits of an address that a label of its name stands for, and how many such labels there are.
fn label_bits(prefix: IpNet) -> (u8, usize) {
    if prefix.addr().is_ipv4() { (8, 4) } else { (4, 32) }
}

#[cfg(test)]
mod tests {
    use super::super::wanted::tests::wanted;
    use hickory_resolver::proto::rr::rdata::CNAME;

    use super::super::wanted::{Forward, RoutedName, ZoneRecord, ZoneWanted, name};
    use super::*;

    fn table(wanted: &Wanted) -> Table {
        Table::new(wanted, &[], Vec::new())
    }

    /// Who holds the addresses of a name, in a word.
    fn held(table: &Table, of: &str) -> String {
        held_of(table, of, RecordType::A)
    }

    fn held_of(table: &Table, of: &str, kind: RecordType) -> String {
        match table.holder(&name(of).unwrap(), kind) {
            Holder::Zone(zone) => format!("zone {}", zone.apex),
            Holder::Routed(resources) => format!("routed {}", resources.join(" ")),
            Holder::Forward(servers) => format!("forward {}", servers.0[0]),
            Holder::Host => "host".into(),
        }
    }

    fn forward(server: &str, domains: &[&str]) -> Forward {
        Forward {
            id: String::new(),
            name: String::new(),
            servers: vec![server.parse().unwrap()],
            domains: domains.iter().map(|domain| name(domain).unwrap()).collect(),
            search: false,
        }
    }

    fn routed(resource: &str, domain: &str, below: bool) -> RoutedName {
        RoutedName { resource: resource.into(), domain: name(domain).unwrap(), below }
    }

    #[test]
    fn the_longest_domain_decides_wherever_it_stands() {
        let mut wanted = wanted();
        wanted.forwards.push(forward("192.0.2.53:53", &["in.zone.test", "test"]));
        let table = table(&wanted);
        for (name, holder) in [
            ("alpha.peers.test", "zone peers.test."),
            ("www.zone.test", "zone zone.test."),
            ("x.in.zone.test", "forward 192.0.2.53:53"),
            ("in.zone.test", "forward 192.0.2.53:53"),
            ("db.zone.test", "routed r2"),
            ("x.db.zone.test", "zone zone.test."),
            ("a.b.corp.test", "routed r1"),
            ("corp.test", "forward [2001:db8::53]:5353"),
            ("corporate.test", "forward 192.0.2.53:53"),
            ("CORP.TEST", "forward [2001:db8::53]:5353"),
            ("example.org", "host"),
        ] {
            assert_eq!(held(&table, name), holder, "{name}");
        }
    }

    #[test]
    fn of_equal_domains_a_zone_comes_before_a_resource_and_that_before_name_servers() {
        let mut wanted = wanted();
        wanted.zones.clear();
        wanted.routed = vec![routed("r", "same.test", true), routed("s", "same.test", false)];
        wanted.forwards = vec![forward("192.0.2.53:53", &["same.test"])];
        let before = table(&wanted);
        assert_eq!(held(&before, "a.same.test"), "routed r");
        assert_eq!(held(&before, "same.test"), "routed s");
        let domain = name("same.test").unwrap();
        wanted.zones = vec![ZoneWanted { domain, search: false, records: Vec::new() }];
        let with_zone = table(&wanted);
        assert_eq!(held(&with_zone, "a.same.test"), "zone same.test.");
        assert_eq!(held(&with_zone, "same.test"), "zone same.test.");
        wanted.routed.clear();
        wanted.zones.clear();
        assert_eq!(held(&table(&wanted), "a.same.test"), "forward 192.0.2.53:53");
    }

    #[test]
    fn resources_have_addresses_of_their_names_and_others_all_else() {
        use RecordType as T;
        let mut wanted = wanted();
        wanted.routed.push(routed("r3", "example.org", true));
        wanted.routed.push(routed("r4", "peers.test", true));
        let table = table(&wanted);
        for kind in [T::A, T::AAAA, T::HTTPS, T::SVCB, T::ANY] {
            assert_eq!(held_of(&table, "a.corp.test", kind), "routed r1", "{kind}");
            assert_eq!(held_of(&table, "db.zone.test", kind), "routed r2", "{kind}");
            assert_eq!(held_of(&table, "a.example.org", kind), "routed r3", "{kind}");
            assert!(!table.shares(&name("a.example.org").unwrap(), kind), "{kind}");
        }
        for kind in [T::SRV, T::MX, T::TXT, T::NS, T::SOA, T::CNAME, T::PTR, T::CAA, T::DS] {
            assert_eq!(held_of(&table, "a.corp.test", kind), "forward [2001:db8::53]:5353", "{kind}");
            assert_eq!(held_of(&table, "db.zone.test", kind), "zone zone.test.", "{kind}");
            assert_eq!(held_of(&table, "a.example.org", kind), "host", "{kind}");
            assert!(table.shares(&name("a.example.org").unwrap(), kind), "{kind}");
            assert!(!table.shares(&name("example.org").unwrap(), kind), "{kind}");
            assert!(!table.shares(&name("a.peers.test").unwrap(), kind), "{kind}");
        }
    }

    #[test]
    fn a_forward_without_domains_takes_what_nothing_else_holds_and_names_of_the_host_stay_its_own() {
        let mut wanted = wanted();
        wanted.forwards.push(forward("192.0.2.53:53", &[]));
        let control = name("control.corp.test").unwrap();
        let table = Table::new(&wanted, &[], vec![control]);
        assert_eq!(held(&table, "example.org"), "forward 192.0.2.53:53");
        assert_eq!(held(&table, "control.corp.test"), "host");
    }

    #[test]
    fn names_of_the_host_in_a_zone_are_the_hosts_unless_the_zone_has_their_address() {
        let mut wanted = wanted();
        let record = |owner: &str, data: RData| ZoneRecord { name: name(owner).unwrap(), ttl: 120, data };
        wanted.zones[0].records = vec![
            record("v4.zone.test", RData::A(A([192, 0, 2, 1].into()))),
            record("v6.zone.test", RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
            record("below.above.zone.test", RData::A(A([192, 0, 2, 2].into()))),
            record("alias.zone.test", RData::CNAME(CNAME(name("v4.zone.test").unwrap()))),
        ];
        let hosts_own = [
            ("v4.zone.test", "zone zone.test."),
            ("v6.zone.test", "zone zone.test."),
            ("above.zone.test", "host"),
            ("alias.zone.test", "host"),
            ("absent.zone.test", "host"),
            ("zone.test", "host"),
            ("control.peers.test", "host"),
            ("alpha.peers.test", "zone peers.test."),
            ("db.zone.test", "host"),
        ];
        let names = hosts_own.map(|(own, _)| name(own).unwrap()).into();
        let table = Table::new(&wanted, &[], names);
        for (name, holder) in hosts_own {
            assert_eq!(held(&table, name), holder, "{name}");
        }
        assert_eq!(held(&table, "other.zone.test"), "zone zone.test.");
    }

    #[test]
    fn groups_with_the_same_domain_are_asked_one_after_the_other_and_the_agent_never_itself() {
        let mut wanted = wanted();
        wanted.forwards = ["192.0.2.1:53", "100.90.0.7:53", "192.0.2.2:53"]
            .map(|server| forward(server, &["a.test", "b.test"]))
            .into();
        let table = Table::new(&wanted, &["100.90.0.7:53".parse().unwrap()], Vec::new());
        for domain in ["a.test", "b.test"] {
            let Holder::Forward(servers) = table.holder(&name(domain).unwrap(), RecordType::A) else {
                panic!("{domain}")
            };
            assert_eq!(servers.0, ["192.0.2.1:53", "192.0.2.2:53"].map(|s| s.parse().unwrap()));
        }
    }

    /// What a zone says, in a word.
    fn says(table: &Table, of: &str, kind: RecordType) -> String {
        let name = name(of).unwrap();
        let Holder::Zone(zone) = table.holder(&name, kind) else { panic!("{of} is in no zone") };
        match zone.look(&name, kind) {
            Look::Records(records) => {
                let texts: Vec<String> =
                    records.iter().map(|record| format!("{} {}", record.ttl, record.data)).collect();
                texts.join(", ")
            }
            Look::Nothing => "nothing".into(),
            Look::NoSuchName => "no such name".into(),
        }
    }

    #[test]
    fn zones_say_what_there_is_and_what_there_is_not() {
        let table = table(&wanted());
        use RecordType as T;
        for (name, kind, said) in [
            ("alpha.peers.test", T::A, "60 100.90.0.1"),
            ("EXTRA.peers.test", T::AAAA, "60 fd5c::1"),
            ("me.peers.test", T::AAAA, "60 fd5c::7"),
            ("me.peers.test", T::TXT, "nothing"),
            ("peers.test", T::A, "nothing"),
            ("beta.peers.test", T::A, "no such name"),
            ("x.alpha.peers.test", T::A, "no such name"),
            ("zone.test", T::A, "120 192.0.2.1"),
            ("zone.test", T::AAAA, "120 2001:db8::1"),
            ("zone.test", T::ANY, "120 192.0.2.1, 120 2001:db8::1"),
            ("deep.www.zone.test", T::AAAA, "nothing"),
            ("www.zone.test", T::A, "nothing"),
            ("alias.zone.test", T::A, "120 zone.test."),
            ("alias.zone.test", T::CNAME, "120 zone.test."),
            ("other.zone.test", T::AAAA, "no such name"),
        ] {
            assert_eq!(says(&table, name, kind), said, "{name} {kind}");
        }
        let Holder::Zone(zone) = table.holder(&name("zone.test").unwrap(), RecordType::SOA) else { panic!() };
        assert_eq!(zone.look(&zone.apex, T::SOA), Look::Records(vec![zone.soa()]));
        assert_eq!(zone.count(), 3);
    }

    #[test]
    fn addresses_of_the_overlay_have_the_first_name_of_their_peer_or_none() {
        let table = table(&wanted());
        for (name, said) in [
            ("1.0.90.100.in-addr.arpa", "60 alpha.peers.test."),
            ("7.0.90.100.in-addr.arpa", "60 me.peers.test."),
            ("2.0.90.100.in-addr.arpa", "no such name"),
            ("0.90.100.in-addr.arpa", "nothing"),
            (
                &format!("1.{}0.0.0.0.0.0.0.0.0.0.0.0.c.5.d.f.ip6.arpa", "0.".repeat(15)),
                "60 alpha.peers.test.",
            ),
            (&format!("2.{}0.0.0.0.0.0.0.0.0.0.0.0.c.5.d.f.ip6.arpa", "0.".repeat(15)), "no such name"),
        ] {
            assert_eq!(says(&table, name, RecordType::PTR), said, "{name}");
        }
        assert_eq!(held(&table, "1.0.91.100.in-addr.arpa"), "host");
    }

    #[test]
    fn each_of_ten_thousand_hosts_is_looked_at_once_for_however_many_reverse_zones() {
        let own = ("100.90.0.1/17".parse().unwrap(), "fd5c::1/57".parse().unwrap());
        let hosts: Vec<Host> = (0..10_000_u32)
            .map(|n| Host {
                names: vec![name(&format!("h{n}.peers.test")).unwrap()],
                v4: (0x645a_0000 + n).into(),
                // In each of the prefix's zones.
                v6: (0xfd5c_u128 << 112 | u128::from(n % 128) << 64 | u128::from(n)).into(),
            })
            .collect();
        let mut looks = 0;
        let mut table = Table::default();
        table.add_reverse(own, hosts.iter().inspect(|_| looks += 1));
        assert_eq!(looks, hosts.len());
        assert_eq!(table.zones().len(), 128 + 8);
        for (n, host) in hosts.iter().enumerate().step_by(97) {
            for address in [IpAddr::V4(host.v4), IpAddr::V6(host.v6)] {
                let of = reverse(address).to_string();
                assert_eq!(says(&table, &of, RecordType::PTR), format!("60 h{n}.peers.test."), "{of}");
            }
        }
        assert_eq!(table.zones().iter().map(Zone::count).sum::<usize>(), 2 * hosts.len());
    }

    #[test]
    fn addresses_outside_the_overlay_have_no_reverse_zone() {
        let own = ("100.90.0.1/16".parse().unwrap(), "fd5c::1/64".parse().unwrap());
        let names = vec![name("h.peers.test").unwrap()];
        let host = Host { names, v4: [100, 91, 0, 1].into(), v6: "fd5d::1".parse().unwrap() };
        let mut table = Table::default();
        table.add_reverse(own, [host].iter());
        assert_eq!(table.zones().len(), 2);
        assert!(table.zones().iter().all(|zone| zone.count() == 0));
        assert_eq!(held(&table, "1.0.91.100.in-addr.arpa"), "host");
    }

    #[test]
    fn prefixes_that_end_within_a_label_have_several_reverse_zones() {
        let apexes = |prefix: &str| reverse_apexes(prefix.parse().unwrap());
        let text = |names: Vec<Name>| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text(apexes("100.90.0.7/16")), ["90.100.in-addr.arpa."]);
        assert_eq!(text(apexes("10.1.3.1/23")), ["2.1.10.in-addr.arpa.", "3.1.10.in-addr.arpa."]);
        assert_eq!(apexes("100.64.0.1/10").len(), 64);
        assert_eq!(text(apexes("192.0.2.5/31")), ["4.2.0.192.in-addr.arpa.", "5.2.0.192.in-addr.arpa."]);
        assert_eq!(text(apexes("fd5c::7/15")), ["c.5.d.f.ip6.arpa.", "d.5.d.f.ip6.arpa."]);
        assert_eq!(apexes("fd5c::7/64")[0].iter().len(), 18);
    }
}
