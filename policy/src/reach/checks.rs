//! Whether what the tests of a policy file say is so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::Serialize;
use sluicegate_engine::image::axis;

use super::places::{Around, Place, Places};
use super::ranges::{self, Ranges};
use super::sources::{Reached, View};
use super::{Classes, Key, destination_key, source_key};
use crate::compile::{CompileError, Compiler};
use crate::evaluate::{Query, accepting, explain};
use crate::file::{Claim, End, Target, Test};
use crate::model::State;
use crate::resolve::Resolved;
use crate::service::Probe;

/// What came of one test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// The test's name.
    pub name: String,
    /// Whether everything it says is so.
    pub holds: bool,
    /// How many pairs of a source and a destination were asked about.
    pub asked: u64,
    /// How many of them are not as the test says.
    pub wrong: u64,
    /// Some of those, of each claim the first ones.
    pub failures: Vec<Failed>,
    /// What makes the test say less than it seems to, such as a group without members.
    pub remarks: Vec<String>,
}

/// Something that is not as a test says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// The claim, as in the file.
    pub claim: String,
    /// What the test wants: `may reach` or `may not reach`.
    pub wants: &'static str,
    /// Name of the source peer; none when a name in the test leads nowhere.
    pub source: Option<String>,
    /// Name of the destination peer or resource, or the address.
    pub destination: Option<String>,
    /// The address asked about.
    pub address: Option<IpAddr>,
    /// The first packets that are wrong, as in a policy file.
    pub service: Option<String>,
    /// The rule that opens it, or what is missing.
    pub why: String,
}

/// Judges tests in a state as if every posture check were passed. At most `examples` failures of each claim are named.
pub fn check(state: &State, tests: &[Test], examples: usize) -> Result<Vec<Checked>, CompileError> {
    let mut state = state.clone();
    state.policies.values_mut().for_each(|policy| policy.posture_failed = Default::default());
    super::stand_in(&mut [&mut state]);
    let compiler = Compiler::new(Arc::new(state))?;
    let r = compiler.resolved();
    let places = Places::new(&[r]);
    let destinations = Classes::new(&[r, r], r.peers.iter().map(|(_, peer)| &peer.id), destination_key);
    let numbers = destinations.numbers(r);
    let mut asker = Asker {
        compiler: &compiler,
        r,
        places: &places,
        view: View::new(r, 0, &places, true),
        numbers,
        known: FxHashMap::default(),
        examples,
    };
    Ok(tests.iter().map(|test| asker.test(test)).collect())
}

struct Asker<'a> {
    compiler: &'a Compiler,
    r: &'a Resolved,
    places: &'a Places,
    view: View<'a>,
    /// The class of each peer as a destination.
    numbers: Vec<u32>,
    known: FxHashMap<Key, Rc<Reached>>,
    examples: usize,
}

/// Where a claim leads, alike destinations together.
#[derive(Default)]
struct Ends {
    /// Peers by their class.
    peers: BTreeMap<u32, Vec<u32>>,
    /// Places, each with the resource that was meant.
    places: BTreeMap<u32, Option<u32>>,
    /// Addresses where nothing is.
    nowhere: BTreeSet<IpAddr>,
}

impl Asker<'_> {
    fn test(&mut self, test: &Test) -> Checked {
        let mut done = Checked {
            name: test.name.clone(),
            holds: true,
            asked: 0,
            wrong: 0,
            failures: Vec::new(),
            remarks: Vec::new(),
        };
        let sources = match self.sources(&test.from) {
            Ok(sources) => sources,
            Err(why) => {
                let claims = test.may_reach.first().map(|c| (c, true));
                let Some((claim, may)) = claims.or(test.may_not_reach.first().map(|c| (c, false))) else {
                    return done;
                };
                unknown(&mut done, claim, may, why);
                return done;
            }
        };
        if sources.is_empty() {
            done.remarks.push(format!("no peer is asked: {} has none", test.from.sorted()));
        }
        for (claims, may) in [(&test.may_reach, true), (&test.may_not_reach, false)] {
            for claim in claims {
                match self.ends(&claim.to) {
                    Ok(mut ends) => {
                        ends.peers.values_mut().for_each(|peers| peers.sort_by_key(|&peer| self.name(peer)));
                        if ends.peers.is_empty() && ends.places.is_empty() && ends.nowhere.is_empty() {
                            done.remarks.push(format!(
                                "nothing is asked about: `{claim}` leads to no peer or resource"
                            ));
                        }
                        self.claim(&mut done, &sources, claim, &ends, may);
                    }
                    Err(why) => unknown(&mut done, claim, may, why),
                }
            }
        }
        done.holds = done.wrong == 0;
        done
    }

    fn claim(
        &mut self,
        done: &mut Checked,
        sources: &BTreeMap<Key, Vec<u32>>,
        claim: &Claim,
        ends: &Ends,
        may: bool,
    ) {
        let asked = Ranges::new(claim.service.axis_ranges());
        let mut named = 0;
        for (key, sources) in sources {
            let reached = self.reached(key, sources[0]);
            let wrong = |open: Option<&Arc<Ranges>>| match (open, may) {
                (Some(open), true) => asked.minus(open),
                (Some(open), false) => asked.and(open),
                (None, true) => asked.clone(),
                (None, false) => Ranges::default(),
            };
            for (class, peers) in &ends.peers {
                let own = sources.iter().filter(|source| peers.contains(source)).count();
                let pairs = (sources.len() * peers.len() - own) as u64;
                done.asked += pairs;
                let wrong = wrong(reached.peers.get(class));
                let Some(range) = wrong.iter().next().filter(|_| pairs > 0) else { continue };
                done.wrong += pairs;
                for &source in sources {
                    let Some(&to) = peers.iter().find(|to| **to != source) else { continue };
                    if named < self.examples {
                        named += 1;
                        let peer = &self.r.state.peers[&*self.r.peers[to as usize].id];
                        done.failures.push(self.failed(
                            claim,
                            may,
                            source,
                            peer.name.clone(),
                            peer.v4.into(),
                            range,
                        ));
                    }
                }
            }
            // What nobody may reach must be out of reach by every gateway: flows move when one is gone, and a peer may send by
            // whichever it wants.
            let open = if may { &reached.places } else { &reached.by_any };
            // What a source routes itself does not cross the overlay, and nobody judges it.
            let judged = ends.places.iter().filter(|(place, _)| {
                let around = &self.places.places[**place as usize].around[0];
                open.contains_key(place)
                    || !around.iter().any(|(q, _)| self.r.routes_resource(sources[0], *q))
            });
            let to_places: Vec<_> = judged
                .map(|(&place, &meant)| (self.places.places[place as usize].address, meant, open.get(&place)))
                .collect();
            let to_nothing = ends.nowhere.iter().map(|&address| (address, None, None));
            for (address, meant, open) in to_places.into_iter().chain(to_nothing) {
                done.asked += sources.len() as u64;
                let wrong = wrong(open);
                let Some(range) = wrong.iter().next() else { continue };
                done.wrong += sources.len() as u64;
                for &source in sources.iter().take(self.examples.saturating_sub(named)) {
                    named += 1;
                    let to =
                        meant.map_or_else(|| address.to_string(), |resource| self.resource_name(resource));
                    done.failures.push(self.failed(claim, may, source, to, address, range));
                }
            }
        }
    }

    fn failed(
        &self,
        claim: &Claim,
        may: bool,
        source: u32,
        destination: String,
        address: IpAddr,
        range: &Range<u32>,
    ) -> Failed {
        let id = &*self.r.peers[source as usize].id;
        let query = Query { source: id.into(), destination: address.to_string(), probe: probe(range.start) };
        let told = explain(self.compiler, &query);
        let by = told
            .rule
            .as_ref()
            .map(|rule| format!("policy '{}', rule '{}'", rule.policy_name, rule.rule_name));
        let missing = told.missing.first().map(ToString::to_string);
        // Then it is by a gateway that is not the first choice.
        let detour = if may || told.allowed() { None } else { self.detour(source, address, range.start) };
        Failed {
            claim: claim.to_string(),
            wants: wants(may),
            source: Some(self.r.state.peers[id].name.clone()),
            destination: Some(destination),
            address: Some(address).filter(|address| !super::is_stand_in(*address)),
            service: Some(ranges::text(range)),
            why: match (may, by, missing) {
                (false, ..) if detour.is_some() => detour.unwrap_or_default(),
                (false, Some(by), _) => format!("{by} admits it"),
                (true, Some(by), _) => format!("{by} refuses it"),
                (_, None, Some(missing)) => missing,
                (_, None, None) if told.near_misses.is_empty() => "no rule admits it".to_owned(),
                (_, None, None) => {
                    let near = &told.near_misses[0];
                    let unmet: Vec<String> = near.unmet.iter().map(ToString::to_string).collect();
                    format!(
                        "no rule admits it; nearest is policy '{}', rule '{}', but {}",
                        near.rule.policy_name,
                        near.rule.rule_name,
                        unmet.join(" and ")
                    )
                }
            },
        }
    }

    /// How packets get through by a gateway that is not the first choice.
    fn detour(&self, source: u32, address: IpAddr, l4: u32) -> Option<String> {
        let around = self.around(address);
        let gateways: BTreeSet<u32> =
            around.iter().flat_map(|(q, _)| self.r.routers(*q)).map(|routing| routing.peer).collect();
        let found = gateways
            .into_iter()
            .filter(|&gateway| gateway != source)
            .find_map(|gateway| Some((gateway, accepting(self.compiler, gateway, source, address, l4)?)));
        let (gateway, rule) = found?;
        Some(format!(
            "policy '{}', rule '{}' admits it at {}, which is a router of it too",
            rule.policy_name,
            rule.rule_name,
            self.name(gateway)
        ))
    }

    fn reached(&mut self, key: &Key, source: u32) -> Rc<Reached> {
        if let Some(known) = self.known.get(key) {
            return known.clone();
        }
        let reached = Rc::new(self.view.from(source, &self.numbers));
        self.known.insert(key.clone(), reached.clone());
        reached
    }

    /// The peers that are asked about, those alike together; the error says what there is not.
    fn sources(&self, from: &End) -> Result<BTreeMap<Key, Vec<u32>>, String> {
        let mut peers = BTreeSet::new();
        match from {
            End::Groups(names) => {
                for name in names {
                    peers.extend(self.group(name)?.peers.iter().filter_map(|id| self.r.peer(id)));
                }
            }
            End::Peer(name) => drop(peers.insert(self.peer(name)?)),
            End::Resource(name) => return Err(format!("resource `{name}` opens no flows")),
        }
        let mut sources = BTreeMap::<_, Vec<u32>>::new();
        // By names, so that the same account is always told of in the same words.
        let mut peers: Vec<u32> = peers.into_iter().collect();
        peers.sort_by_key(|&peer| self.name(peer));
        peers.into_iter().for_each(|peer| sources.entry(source_key(self.r, peer)).or_default().push(peer));
        Ok(sources)
    }

    fn ends(&self, target: &Target) -> Result<Ends, String> {
        let mut ends = Ends::default();
        match target {
            Target::Peer(name) => self.add_peer(&mut ends, self.peer(name)?),
            Target::Resource(name) => self.add_resource(&mut ends, self.resource(name)?),
            Target::Group(name) => {
                let group = self.group(name)?;
                group
                    .peers
                    .iter()
                    .filter_map(|id| self.r.peer(id))
                    .for_each(|peer| self.add_peer(&mut ends, peer));
                for (number, _) in
                    (0..).zip(&*self.r.resources).filter(|(_, q)| group.resources.contains(&*q.id))
                {
                    self.add_resource(&mut ends, number);
                }
            }
            Target::Address(address) if self.r.in_overlay(*address) => match self.r.peer_at(*address) {
                Some(peer) => self.add_peer(&mut ends, peer),
                None => drop(ends.nowhere.insert(*address)),
            },
            Target::Address(address) => {
                let around = self.around(*address);
                let alike =
                    |place: &Place| place.around[0] == around && place.address.is_ipv4() == address.is_ipv4();
                match self.places.places.iter().position(alike) {
                    Some(place) => drop(ends.places.insert(place as u32, None)),
                    None => drop(ends.nowhere.insert(*address)),
                }
            }
        }
        Ok(ends)
    }

    fn add_peer(&self, ends: &mut Ends, peer: u32) {
        ends.peers.entry(self.numbers[peer as usize]).or_default().push(peer);
    }

    fn add_resource(&self, ends: &mut Ends, resource: u32) {
        for &place in self.places.of(0, resource) {
            ends.places.entry(place).or_insert(Some(resource));
        }
    }

    fn around(&self, address: IpAddr) -> Around {
        let longest = |(number, resource): (u32, &crate::resolve::ResourceEntry)| {
            let around = resource.prefixes.iter().filter(|prefix| prefix.contains(&address));
            Some((number, around.map(ipnet::IpNet::prefix_len).max()?))
        };
        (0..).zip(&*self.r.resources).filter_map(longest).collect()
    }

    fn name(&self, peer: u32) -> &str {
        &self.r.state.peers[&*self.r.peers[peer as usize].id].name
    }

    fn group(&self, name: &str) -> Result<&crate::model::Group, String> {
        let group = self.r.state.groups.values().find(|group| group.name == name);
        group.ok_or_else(|| format!("there is no group `{name}`"))
    }

    fn peer(&self, name: &str) -> Result<u32, String> {
        let peer = self.r.state.peers.iter().find(|(_, peer)| peer.name == name);
        let (id, _) = peer.ok_or_else(|| format!("there is no peer `{name}`"))?;
        self.r
            .peer(id)
            .ok_or_else(|| format!("peer `{name}` may not take part: it waits for approval, or is blocked"))
    }

    fn resource(&self, name: &str) -> Result<u32, String> {
        let resources = || self.r.state.networks.values().flat_map(|network| &network.resources);
        // Routes are resources of the compiler's, but have no name in files.
        let known =
            resources().find(|(_, resource)| resource.distribution.is_none() && resource.name == name);
        let (id, _) = known.ok_or_else(|| format!("there is no resource `{name}`"))?;
        let number = self.r.resources.iter().position(|resource| *resource.id == **id);
        number.map(|number| number as u32).ok_or_else(|| format!("resource `{name}` is off"))
    }

    fn resource_name(&self, resource: u32) -> String {
        let resource = &self.r.resources[resource as usize];
        let network = &self.r.state.networks[&*self.r.networks[resource.network as usize].id];
        network.resources[&*resource.id].name.clone()
    }
}

fn unknown(done: &mut Checked, claim: &Claim, may: bool, why: String) {
    done.holds = false;
    done.wrong += 1;
    done.failures.push(Failed {
        claim: claim.to_string(),
        wants: wants(may),
        source: None,
        destination: None,
        address: None,
        service: None,
        why,
    });
}

fn wants(may: bool) -> &'static str {
    if may { "may reach" } else { "may not reach" }
}

/// A packet of a range: the first one.
fn probe(value: u32) -> Probe {
    let port = (value & 0xffff) as u16;
    match value & 0xffff_0000 {
        axis::TCP => Probe::Tcp(port),
        axis::UDP => Probe::Udp(port),
        axis::ICMP | axis::ICMPV6 => Probe::Icmp,
        _ => Probe::Protocol(port.min(255) as u8),
    }
}
