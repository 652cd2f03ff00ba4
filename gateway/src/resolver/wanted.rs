//! How the host's questions are to be answered, as control says it, checked.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, bail};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_resolver::proto::rr::{Name, RData};
use ipnet::{Ipv4Net, Ipv6Net};
use sluicegate_api::agent::record::Type;
use sluicegate_api::agent::{self, NetworkConfig};

/// The port of name servers.
pub(super) const PORT: u16 = 53;

/// How the host's questions are to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The agent's own overlay addresses, with the overlay's prefix lengths.
    pub own: (Ipv4Net, Ipv6Net),
    /// The zone of peers.
    pub domain: Name,
    /// The agent itself and the peers that have names in it.
    pub hosts: Vec<Host>,
    /// Zones that are answered here.
    pub zones: Vec<ZoneWanted>,
    /// Names of resources.
    pub routed: Vec<RoutedName>,
    /// What name servers are asked for.
    pub forwards: Vec<Forward>,
}

/// An agent with names in the zone of peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its whole names, the one made of the host's first; at least one.
    pub names: Vec<Name>,
    /// Its overlay IPv4 address.
    pub v4: Ipv4Addr,
    /// Its overlay IPv6 address.
    pub v6: Ipv6Addr,
}

/// A zone that is answered here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneWanted {
    /// Its domain.
    pub domain: Name,
    /// Whether names without a dot are searched for in it.
    pub search: bool,
    /// Its records.
    pub records: Vec<ZoneRecord>,
}

/// A record of a zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneRecord {
    /// The zone's domain, or a name below it.
    pub name: Name,
    /// Seconds it is good for.
    pub ttl: u32,
    /// What it says.
    pub data: RData,
}

/// The name of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedName {
    /// The resource's id.
    pub resource: String,
    /// The name, or what a wildcard is below.
    pub domain: Name,
    /// Whether it is every name below `domain`, in the place of `domain` itself.
    pub below: bool,
}

/// Name servers and what they are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Its id in control.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// Asked in this order.
    pub servers: Vec<SocketAddr>,
    /// Asked for names at or below these; none: for what nothing else holds.
    pub domains: Vec<Name>,
    /// Whether names without a dot are searched for in the domains.
    pub search: bool,
}

impl Wanted {
    /// Reads what control says of names; `None` where that is none of its business.
    pub fn read(config: &NetworkConfig) -> anyhow::Result<Option<Self>> {
        let Some(resolver) = &config.resolver else { return Ok(None) };
        let own: (Ipv4Net, Ipv6Net) = (config.address_v4.parse()?, config.address_v6.parse()?);
        let domain = name(&resolver.domain).context("the zone of peers")?;
        let mut hosts = Vec::new();
        hosts.extend(host(&domain, &resolver.dns_labels, own.0.addr(), own.1.addr())?);
        for peer in &config.peers {
            let (v4, v6) = (peer.address_v4.parse()?, peer.address_v6.parse()?);
            let named = host(&domain, &peer.dns_labels, v4, v6);
            hosts.extend(named.with_context(|| format!("peer {} ({})", peer.id, peer.name))?);
        }
        let of_zone = |z: &agent::Zone| zone(z).with_context(|| format!("zone {:?}", z.domain));
        let of_routed = |r: &agent::RoutedName| {
            routed(r).with_context(|| format!("name {:?} of resource {:?}", r.name, r.resource_id))
        };
        let of_forward = |f: &agent::Forward| {
            forward(f).with_context(|| format!("nameserver group {} ({})", f.id, f.name))
        };
        Ok(Some(Self {
            own,
            hosts,
            zones: resolver.zones.iter().map(of_zone).collect::<anyhow::Result<_>>()?,
            routed: resolver.routed.iter().map(of_routed).collect::<anyhow::Result<_>>()?,
            forwards: resolver.forwards.iter().map(of_forward).collect::<anyhow::Result<_>>()?,
            domain,
        }))
    }

    /// Domains that names without a dot are searched for in, each once.
    pub(super) fn search(&self) -> Vec<Name> {
        let zones = self.zones.iter().filter(|zone| zone.search).map(|zone| &zone.domain);
        let forwards = self.forwards.iter().filter(|forward| forward.search).flat_map(|f| &f.domains);
        let mut found: Vec<Name> = Vec::new();
        for domain in std::iter::once(&self.domain).chain(zones).chain(forwards) {
            if !found.contains(domain) {
                found.push(domain.clone());
            }
        }
        found
    }

    /// Whether a forward takes what nothing else holds.
    pub(super) fn has_primary(&self) -> bool {
        self.forwards.iter().any(|forward| forward.domains.is_empty())
    }
}

/// A domain as control writes it, made one that is whole.
pub(super) fn name(text: &str) -> anyhow::Result<Name> {
    let mut name = Name::from_ascii(text).with_context(|| format!("{text:?} is no name"))?.to_lowercase();
    name.set_fqdn(true);
    if name.is_root() {
        bail!("{text:?} is no name");
    }
    Ok(name)
}

fn host(domain: &Name, labels: &[String], v4: Ipv4Addr, v6: Ipv6Addr) -> anyhow::Result<Option<Host>> {
    let labels = labels.iter().map(|label| name(label)).collect::<anyhow::Result<Vec<Name>>>()?;
    // One that is too long for DNS is nobody's name, and no reason to refuse all others.
    let names: Vec<Name> = labels.into_iter().filter_map(|label| label.append_domain(domain).ok()).collect();
    Ok((!names.is_empty()).then_some(Host { names, v4, v6 }))
}

fn zone(zone: &agent::Zone) -> anyhow::Result<ZoneWanted> {
    let domain = name(&zone.domain)?;
    let checked = |r: &agent::Record| record(&domain, r).with_context(|| format!("record {:?}", r.name));
    let records = zone.records.iter().map(checked).collect::<anyhow::Result<_>>()?;
    Ok(ZoneWanted { search: zone.search, records, domain })
}

fn record(zone: &Name, record: &agent::Record) -> anyhow::Result<ZoneRecord> {
    let owner = name(&record.name)?;
    if !zone.zone_of(&owner) {
        bail!("it is not in the zone");
    }
    let content = &record.content;
    let wrong = || format!("content {content:?}");
    let data = match record.r#type() {
        Type::A => RData::A(A(content.parse().with_context(wrong)?)),
        Type::Aaaa => RData::AAAA(AAAA(content.parse().with_context(wrong)?)),
        Type::Cname => RData::CNAME(CNAME(name(content).with_context(wrong)?)),
        Type::Unspecified => bail!("its type is none that this agent knows"),
    };
    Ok(ZoneRecord { name: owner, ttl: record.ttl, data })
}

fn routed(routed: &agent::RoutedName) -> anyhow::Result<RoutedName> {
    if routed.resource_id.is_empty() {
        bail!("it is of no resource");
    }
    let (domain, below) = match routed.name.strip_prefix("*.") {
        Some(domain) => (domain, true),
        None => (routed.name.as_str(), false),
    };
    Ok(RoutedName { resource: routed.resource_id.clone(), domain: name(domain)?, below })
}

fn forward(forward: &agent::Forward) -> anyhow::Result<Forward> {
    let server = |server: &agent::NameServer| -> anyhow::Result<SocketAddr> {
        let address: IpAddr =
            server.address.parse().with_context(|| format!("name server {:?}", server.address))?;
        let port = match server.port {
            0 => PORT,
            port => u16::try_from(port).with_context(|| format!("port {port}"))?,
        };
        Ok(SocketAddr::new(address, port))
    };
    Ok(Forward {
        id: forward.id.clone(),
        name: forward.name.clone(),
        servers: forward.servers.iter().map(server).collect::<anyhow::Result<_>>()?,
        domains: forward.domains.iter().map(|domain| name(domain)).collect::<anyhow::Result<_>>()?,
        search: forward.search,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What control says in these tests: two peers, a zone, a resource and a nameserver group.
    pub(crate) fn config() -> NetworkConfig {
        let record = |name: &str, kind: Type, content: &str| agent::Record {
            name: name.into(),
            r#type: kind.into(),
            content: content.into(),
            ttl: 120,
        };
        let peer = |n: u8, labels: &[&str]| agent::RemotePeer {
            id: format!("p{n}"),
            address_v4: format!("100.90.0.{n}"),
            address_v6: format!("fd5c::{n:x}"),
            dns_labels: labels.iter().map(|label| (*label).into()).collect(),
            ..Default::default()
        };
        let resolver = agent::Resolver {
            domain: "peers.test".into(),
            dns_labels: vec!["me".into()],
            zones: vec![agent::Zone {
                domain: "zone.test".into(),
                search: true,
                records: vec![
                    record("zone.test", Type::A, "192.0.2.1"),
                    record("zone.test", Type::Aaaa, "2001:db8::1"),
                    record("deep.www.zone.test", Type::A, "192.0.2.2"),
                    record("alias.zone.test", Type::Cname, "zone.test"),
                ],
            }],
            routed: vec![
                agent::RoutedName {
                    resource_id: "r1".into(),
                    name: "*.corp.test".into(),
                    routers: Vec::new(),
                },
                agent::RoutedName {
                    resource_id: "r2".into(),
                    name: "db.zone.test".into(),
                    routers: Vec::new(),
                },
            ],
            forwards: vec![agent::Forward {
                id: "f1".into(),
                name: "corp".into(),
                servers: vec![agent::NameServer { address: "2001:db8::53".into(), port: 5353 }],
                domains: vec!["corp.test".into()],
                search: true,
            }],
        };
        NetworkConfig {
            address_v4: "100.90.0.7/16".into(),
            address_v6: "fd5c::7/64".into(),
            peers: vec![peer(1, &["alpha", "extra"]), peer(2, &[])],
            resolver: Some(resolver),
            ..Default::default()
        }
    }

    pub(crate) fn wanted() -> Wanted {
        Wanted::read(&config()).unwrap().unwrap()
    }

    #[test]
    fn everything_that_control_says_is_read() {
        let wanted = wanted();
        let text = |names: &[Name]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(wanted.hosts.len(), 2, "a peer without labels has no names");
        assert_eq!(text(&wanted.hosts[0].names), ["me.peers.test."]);
        assert_eq!(text(&wanted.hosts[1].names), ["alpha.peers.test.", "extra.peers.test."]);
        assert_eq!(wanted.forwards[0].servers, ["[2001:db8::53]:5353".parse().unwrap()]);
        assert_eq!(text(&wanted.search()), ["peers.test.", "zone.test.", "corp.test."]);
        assert!(!wanted.has_primary());
        let long = |r: &mut agent::Resolver| r.domain = ["abcdefghijklmno"; 15].join(".");
        let mut config = config();
        long(config.resolver.as_mut().unwrap());
        config.peers[0].dns_labels.push("l".repeat(63));
        let hosts = Wanted::read(&config).unwrap().unwrap().hosts;
        assert_eq!(hosts[1].names.len(), 2, "what is too long is left out");
        let none = NetworkConfig { resolver: None, ..config };
        assert_eq!(Wanted::read(&none).unwrap(), None);
    }

    #[test]
    fn one_wrong_value_refuses_all_and_is_named() {
        type Spoil = fn(&mut agent::Resolver);
        let cases: &[(Spoil, &str)] = &[
            (|r| r.domain.clear(), "the zone of peers"),
            (|r| r.dns_labels.push("a..b".into()), "a..b"),
            (|r| r.zones[0].domain = "zo ne".into(), "zo ne"),
            (|r| r.zones[0].records[0].name = "other.test".into(), "not in the zone"),
            (|r| r.zones[0].records[0].content = "2001:db8::1".into(), "2001:db8::1"),
            (|r| r.zones[0].records[1].content = "192.0.2.1".into(), "192.0.2.1"),
            (|r| r.zones[0].records[0].r#type = 9, "its type"),
            (|r| r.routed[0].resource_id.clear(), "of no resource"),
            (|r| r.routed[0].name = "*.".into(), "*."),
            (|r| r.forwards[0].servers[0].address = "dns".into(), "\"dns\""),
            (|r| r.forwards[0].servers[0].port = 65_536, "65536"),
            (|r| r.forwards[0].domains[0] = ".".into(), "corp"),
        ];
        for (spoil, named) in cases {
            let mut config = config();
            spoil(config.resolver.as_mut().unwrap());
            let error = format!("{:#}", Wanted::read(&config).unwrap_err());
            assert!(error.contains(named), "{error}");
        }
    }
}
