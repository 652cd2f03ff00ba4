//! All names that are wanted, and what control is to be told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;
use sluicegate_api::agent::{Learned, LearnedAddress};
use tokio::time::Instant;

use super::name::{Came, Name};
use super::resolve::Answers;
use super::{Lookups, Row, Wanted};

/// Sentences about names at the most.
const SENTENCES: usize = 16;
/// Addresses that control is told of at the most: it takes no report with more.
const TOLD: usize = 16_384;
/// What they may be of a report, which has other parts: half of what control reads of one, in bytes.
const TOLD_BYTES: usize = 2 << 20;
/// What one of them is on the wire, beside its name and its resource's id, at the most; bytes.
const OVERHEAD: usize = 32;
/// Why a wildcard has no addresses.
const WILDCARD: &str = "a wildcard is not looked up by itself";

#[derive(Debug, Default)]
pub(super) struct Table {
    names: BTreeMap<String, Name>,
    /// Names below which anything is a resource's, with those resources.
    wildcards: BTreeMap<String, BTreeSet<String>>,
    /// The overlay's own prefixes.
    overlay: Vec<IpNet>,
    /// What resources stood for when this agent last ran, until it is known which names they have.
    stood_for: BTreeMap<String, BTreeSet<IpAddr>>,
    /// Whether it is known what is wanted.
    told: bool,
    /// Whether every name that was wanted at the start has been looked up once.
    looked: bool,
    lookups: Lookups,
}

impl Table {
    /// `stood_for` is what resources stood for when this agent last ran.
    pub(super) fn new(stood_for: BTreeMap<String, BTreeSet<IpAddr>>) -> Self {
        Self { stood_for, ..Self::default() }
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
        self.names.retain(|name, _| wanted.names.contains_key(name));
        for (name, resources) in wanted.names.iter().filter(|(name, _)| !is_wildcard(name)) {
            if let Some(known) = self.names.get_mut(name) {
                known.resources.clone_from(resources);
                continue;
            }
            let before = resources.iter().filter_map(|resource| stood_for.get(resource)).flatten();
            let fresh = Name::new(resources.clone(), &before.copied().collect(), now);
            self.names.insert(name.clone(), fresh);
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
        match known.answer(answers, &self.overlay, now, unix_ms, early) {
            Came::Found => self.lookups.found += 1,
            Came::Nothing => self.lookups.nothing += 1,
            Came::Failed => self.lookups.failed += 1,
        }
        let after = known.trouble(name);
        self.note_looked();
        after.into_iter().zip(before).filter_map(|(now, before)| now.filter(|_| before.is_none())).collect()
    }

    fn note_looked(&mut self) {
        self.looked |= self.names.values().all(Name::looked);
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
                name.resources.iter().map(move |resource| LearnedAddress {
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
        let all: usize = self.names.values().map(|name| name.addresses().len() * name.resources.len()).sum();
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
        let of_names = self.names.iter().flat_map(|(text, name)| name.trouble(text)).flatten();
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
            let row = move |resource: &String| Row {
                resource: resource.clone(),
                name: text.clone(),
                addresses: name.addresses(),
                looked_ms: name.looked_ms(),
                reason: reason.clone(),
            };
            name.resources.iter().map(row)
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

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
