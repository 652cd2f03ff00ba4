//! All names that are wanted, and what control is to be told of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sluicegate_api::agent::{Learned, LearnedAddress};
use tokio::time::Instant;

use super::name::{Came, Name};
use super::resolve::Answers;
use super::{Below, Lookups, Row, Wanted};

/// Sentences about names at the most.
const SENTENCES: usize = 16;
/// Addresses that control is told of at the most: it takes no report with more.
const TOLD: usize = 16_384;
/// What they may be of a report, which has other parts: half of what control reads of one, in bytes.
const TOLD_BYTES: usize = 2 << 20;
/// What one of them is on the wire, beside its name and its resource's id, at the most; bytes.
const OVERHEAD: usize = 32;
/// Names below the wildcard of one resource, at the most.
const BELOW_ONE: usize = 256;
/// Names below wildcards in all, at the most.
const BELOW_ALL: usize = 1024;
/// Addresses of one resource that control takes.
const OF_A_RESOURCE: usize = 1024;
/// Why a wildcard has no addresses.
const WILDCARD: &str = "a wildcard: what is below it is looked up when clients ask for it";
/// Why a name is there that nobody wrote down.
const ASKED_FOR: &str = "below a wildcard, asked for by clients";

#[derive(Debug, Default)]
pub(super) struct Table {
    names: BTreeMap<String, Name>,
    /// Names below which anything is a resource's, with those resources.
    wildcards: BTreeMap<String, BTreeSet<String>>,
    /// The overlay's own prefixes.
    overlay: Vec<IpNet>,
    /// What resources stood for when this agent last ran, until it is known which names they have.
    stood_for: BTreeMap<String, BTreeSet<IpAddr>>,
    /// What was asked for below wildcards then, until the same.
    asked_before: Below,
    /// Whether it is known what is wanted.
    told: bool,
    /// Whether every name that was wanted at the start has been looked up once. Those only asked for do not count: they hold what they
    /// stood for, or are new.
    looked: bool,
    lookups: Lookups,
}

/// What is known for a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// The resource has no such name, and no wildcard above it.
    NotOurs,
    /// This.
    Known(Answers),
    /// It must be looked up first, which begins now or is under way.
    Unknown {
        /// Whether it begins now.
        begins: bool,
    },
    /// It is known, but flows go to all that could make room for it.
    NoRoom,
}

impl Table {
    /// `stood_for` is what resources stood for when this agent last ran, `asked_before` what was asked for below wildcards.
    pub(super) fn new(stood_for: BTreeMap<String, BTreeSet<IpAddr>>, asked_before: Below) -> Self {
        Self { stood_for, asked_before, ..Self::default() }
    }

    /// From now on these names are wanted.
    pub(super) fn want(&mut self, wanted: &Wanted, now: Instant) {
        let stood_for = match self.told {
            true => BTreeMap::new(),
            false => std::mem::take(&mut self.stood_for),
        };
        self.told = true;
        let is_wildcard = |name: &str| name.starts_with("*.");
        let wildcards = wanted.names.iter().filter(|(name, _)| is_wildcard(name));
        self.wildcards = wildcards.map(|(name, resources)| (name.clone(), resources.clone())).collect();
        let wildcards = &self.wildcards;
        self.names.retain(|text, name| {
            let exact = wanted.names.get(text);
            name.resources = exact.cloned().unwrap_or_default();
            name.below.retain(|resource| is_below(wildcards, resource, text));
            exact.is_some() || !name.below.is_empty()
        });
        for (name, resources) in wanted.names.iter().filter(|(name, _)| !is_wildcard(name)) {
            if self.names.contains_key(name) {
                continue;
            }
            let before = resources.iter().filter_map(|resource| stood_for.get(resource)).flatten();
            let fresh = Name::new(resources.clone(), &before.copied().collect(), now);
            self.names.insert(name.clone(), fresh);
        }
        for (text, (resources, addresses)) in std::mem::take(&mut self.asked_before) {
            let below: Vec<&String> =
                resources.iter().filter(|resource| is_below(&self.wildcards, resource, &text)).collect();
            if !below.is_empty() {
                let fresh = || Name::new(BTreeSet::new(), &addresses, now);
                let name = self.names.entry(text.clone()).or_insert_with(fresh);
                for resource in below {
                    name.ask_below(resource, now);
                }
            }
        }
        if self.overlay != wanted.overlay {
            self.overlay.clone_from(&wanted.overlay);
            for name in self.names.values_mut() {
                name.keep_only(&self.overlay);
                name.look_again(now);
            }
        }
        self.note_looked();
    }

    /// Looks everything up again at once.
    pub(super) fn look_again(&mut self, now: Instant) {
        self.names.values_mut().for_each(|name| name.look_again(now));
    }

    /// Names to be looked up now. They are under way until they are answered.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<String> {
        let due = self.names.iter_mut().filter_map(|(text, name)| name.take_due(now).then(|| text.clone()));
        due.collect()
    }

    /// Whether anything is to be looked up.
    pub(super) fn any(&self) -> bool {
        !self.names.is_empty()
    }

    /// Whether anything may be.
    pub(super) fn may_look(&self) -> bool {
        self.any() || !self.wildcards.is_empty()
    }

    /// What is known of `name` as one of a resource. One that is below its wildcard is looked up from now on, for as long as it is asked
    /// for or flows go to it.
    pub(super) fn ask(&mut self, resource: &str, text: &str, now: Instant) -> Found {
        let known = self.names.get(text);
        let is_exact = known.is_some_and(|name| name.resources.contains(resource));
        if !is_exact {
            if !is_below(&self.wildcards, resource, text) {
                return Found::NotOurs;
            }
            if known.is_none() {
                self.names.insert(text.to_owned(), Name::new(BTreeSet::new(), &BTreeSet::new(), now));
            }
        }
        let Some(name) = self.names.get_mut(text) else { return Found::NotOurs };
        let is_new = !is_exact && name.ask_below(resource, now) && name.count() > 0;
        if is_new && !self.make_room(resource, text, true, now) {
            self.leave(resource, text);
            return Found::NoRoom;
        }
        let Some(name) = self.names.get_mut(text) else { return Found::NotOurs };
        match name.is_fresh(now) {
            true => Found::Known(name.given(now)),
            false => {
                name.look_again(now);
                Found::Unknown { begins: name.take_due(now) }
            }
        }
    }

    /// What a question for `text` is answered with after a look.
    pub(super) fn given(&self, text: &str, now: Instant) -> Option<Answers> {
        self.names.get(text).map(|name| name.given(now))
    }

    /// Lets go of a name that was only asked for and stands for nothing.
    pub(super) fn forget_empty(&mut self, text: &str) {
        if self.names.get(text).is_some_and(|name| name.only_asked().is_some() && name.count() == 0) {
            self.names.remove(text);
        }
    }

    /// What names that were only asked for stand for.
    pub(super) fn asked_for(&self) -> HashSet<IpAddr> {
        let below = self.names.values().filter(|name| name.only_asked().is_some());
        below.flat_map(|name| name.addresses().into_keys()).collect()
    }

    /// Takes to which of their addresses flows go now.
    pub(super) fn note_flows(&mut self, destinations: &HashSet<IpAddr>, now: Instant) {
        let below = self.names.values_mut().filter(|name| name.only_asked().is_some());
        below.for_each(|name| name.note_flows(destinations, now));
    }

    /// What was asked for is not the resource's any more.
    fn leave(&mut self, resource: &str, text: &str) {
        if let Some(name) = self.names.get_mut(text) {
            name.below.remove(resource);
            if name.resources.is_empty() && name.below.is_empty() {
                self.names.remove(text);
            }
        }
    }

    /// Keeps what was only asked for and stands for something within its bounds: names to which no flow goes make room, those asked for
    /// the longest ago first, but never `but`. Those with flows do only where that `is_new` not; whether there is room.
    fn make_room(&mut self, resource: &str, but: &str, is_new: bool, now: Instant) -> bool {
        loop {
            let is_asked = |name: &Name| name.only_asked().is_some() && name.count() > 0;
            let below = || self.names.values().filter(|name| is_asked(name));
            let of_one = || below().filter(|name| name.below.contains(resource));
            let addresses = |name: &Name| name.count() * name.all_resources().count();
            let of_resource = |name: &&Name| name.all_resources().any(|of| of == resource);
            let one = of_one().count() > BELOW_ONE
                || self.names.values().filter(of_resource).map(Name::count).sum::<usize>() > OF_A_RESOURCE;
            let all = below().count() > BELOW_ALL || self.names.values().map(addresses).sum::<usize>() > TOLD;
            if !one && !all {
                return true;
            }
            let may_go = |(text, name): &(&String, &Name)| {
                *text != but
                    && (!one || name.below.contains(resource))
                    && is_asked(name)
                    && !(is_new && name.has_flows(now))
            };
            let Some(oldest) = self
                .names
                .iter()
                .filter(may_go)
                .min_by_key(|(_, name)| (name.has_flows(now), name.only_asked()))
                .map(|(text, _)| text.clone())
            else {
                return !is_new;
            };
            self.names.remove(&oldest);
        }
    }

    /// What is here because it was asked for: names with their resources and addresses.
    pub(super) fn below(&self) -> Below {
        let below = self.names.iter().filter(|(_, name)| !name.below.is_empty());
        below
            .map(|(text, name)| (text.clone(), (name.below.clone(), name.addresses().into_keys().collect())))
            .collect()
    }

    /// Whether `name` is to be looked up at all.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Takes what a look at `name` gave; the sentences that are new with it.
    pub(super) fn answer(
        &mut self,
        name: &str,
        answers: Answers,
        now: Instant,
        unix_ms: u64,
        early: f64,
    ) -> Vec<String> {
        let Some(known) = self.names.get_mut(name) else { return Vec::new() };
        let before = known.trouble(name);
        let is_new = known.count() == 0;
        match known.answer(answers, &self.overlay, now, unix_ms, early) {
            Came::Found => self.lookups.found += 1,
            Came::Nothing => self.lookups.nothing += 1,
            Came::Failed => self.lookups.failed += 1,
        }
        let after = known.trouble(name);
        // Whoever asks for names could fill the log.
        let is_told = known.only_asked().is_none();
        for resource in known.below.clone() {
            if !self.make_room(&resource, name, is_new, now) {
                self.leave(&resource, name);
            }
        }
        self.note_looked();
        let news = after.into_iter().zip(before).filter_map(|(now, before)| now.filter(|_| before.is_none()));
        news.filter(|_| is_told).collect()
    }

    fn note_looked(&mut self) {
        let mut wanted = self.names.values().filter(|name| name.only_asked().is_none());
        self.looked |= wanted.all(Name::looked);
    }

    /// Addresses that stay only while flows go to them.
    pub(super) fn in_question(&self, now: Instant) -> BTreeSet<IpAddr> {
        self.names.values().flat_map(|name| name.in_question(now)).collect()
    }

    /// Lets go of those of `idle` that are in question, and of what has been held for too long; whether there was any.
    pub(super) fn let_go(&mut self, idle: &BTreeSet<IpAddr>, now: Instant) -> bool {
        let mut gone = false;
        for name in self.names.values_mut() {
            gone |= name.let_go(idle, now);
        }
        self.names.retain(|_, name| !(name.is_idle(now) && name.count() == 0));
        gone
    }

    /// What the names stand for, once that is known: a word too early would close what control still knows. Of more than control
    /// takes, the first by their names.
    pub(super) fn learned(&self) -> Option<Learned> {
        if !self.told || !self.looked {
            return None;
        }
        Some(Learned { addresses: self.tellable().collect() })
    }

    fn tellable(&self) -> impl Iterator<Item = LearnedAddress> {
        let all = self.names.iter().flat_map(|(text, name)| {
            name.addresses().into_keys().flat_map(move |address| {
                name.all_resources().map(move |resource| LearnedAddress {
                    resource_id: resource.clone(),
                    name: text.clone(),
                    address: octets(address),
                })
            })
        });
        let mut bytes = 0;
        all.take(TOLD).take_while(move |next| {
            bytes += next.resource_id.len() + next.name.len() + OVERHEAD;
            bytes <= TOLD_BYTES
        })
    }

    /// That control is not told all of it.
    fn too_many(&self) -> Option<String> {
        let all: usize = self.names.values().map(|name| name.count() * name.all_resources().count()).sum();
        let left = all - self.tellable().count();
        (left > 0).then(|| {
            format!(
                "names stand for {all} addresses, more than control takes: the last {left} by order of their names are shut; \
                 have this machine route fewer resources with names"
            )
        })
    }

    /// What a person should know of names, bounded.
    pub(super) fn trouble(&self) -> Vec<String> {
        let wanted = self.names.iter().filter(|(_, name)| name.only_asked().is_none());
        let of_names = wanted.flat_map(|(text, name)| name.trouble(text)).flatten();
        let mut sentences = self.too_many().into_iter().chain(of_names);
        let mut first: Vec<String> = sentences.by_ref().take(SENTENCES).collect();
        let more = sentences.count();
        if more > 0 {
            first.push(format!(
                "{more} more conditions of names; `sluicegate-gateway status` lists every name"
            ));
        }
        first
    }

    /// Every name as others read it, and how looks came out.
    pub(super) fn rows(&self) -> Vec<Row> {
        let exact = self.names.iter().flat_map(|(text, name)| {
            let trouble = name.trouble(text).into_iter().flatten().next();
            let reason = trouble.or_else(|| (!name.looked()).then(|| "not looked up yet".to_owned()));
            let asked_for = || name.only_asked().map(|_| ASKED_FOR.to_owned());
            let reason = reason.or_else(asked_for);
            let row = move |resource: &String| Row {
                resource: resource.clone(),
                name: text.clone(),
                addresses: name.addresses(),
                looked_ms: name.looked_ms(),
                reason: reason.clone(),
            };
            name.all_resources().map(row).collect::<Vec<_>>()
        });
        let wildcards = self.wildcards.iter().flat_map(|(text, resources)| {
            resources.iter().map(move |resource| Row {
                resource: resource.clone(),
                name: text.clone(),
                addresses: BTreeMap::new(),
                looked_ms: None,
                reason: Some(WILDCARD.to_owned()),
            })
        });
        exact.chain(wildcards).collect()
    }

    /// How looks came out.
    pub(super) fn lookups(&self) -> Lookups {
        self.lookups
    }
}

/// Whether `text` is below a wildcard of the resource: what that stands below is not meant.
fn is_below(wildcards: &BTreeMap<String, BTreeSet<String>>, resource: &str, text: &str) -> bool {
    let domains = text.match_indices('.').map(|(dot, _)| &text[dot..]);
    domains.into_iter().any(|domain| {
        wildcards.get(&format!("*{domain}")).is_some_and(|resources| resources.contains(resource))
    })
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
