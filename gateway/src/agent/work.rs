//! What the agent does when something happens.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{NetworkConfig, SyncUpdate};
use sluicegate_api::image::RouteInfo;
use tokio::runtime::Handle;
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;

use super::egress::{Host, Lookups, Resolved};
use super::network::Network;
use super::policy::{Exits, Outcome, Policy};
use super::routing::Plan;
use super::{Agent, Trouble, report};
use crate::config::Settings;
use crate::control::FromControl;
use crate::datapath::{Datapath, Egress};
use crate::netlink::{Changes, Neighbours, Netlink};
use crate::overlay::Overlay;
use crate::system;

/// Between looks at the links.
const LOOK: Duration = Duration::from_millis(100);
/// Between looks while a link is probed briskly: the resolution of failover.
const BRISK_LOOK: Duration = Duration::from_millis(20);
/// A look takes a lock for each link: with more than this many, it stays rare.
const FEW_LINKS: usize = 1000;
/// Between sweeps of the flow table, and between reports of health.
const SWEEP: Duration = Duration::from_secs(1);
/// Between looks at what nobody announced: a route somebody deleted, a change the kernel could not queue.
const REVIEW: Duration = Duration::from_secs(30);
/// How exactly the time of control's last word survives a restart.
const REMEMBER_CONTACT: Duration = Duration::from_secs(10);

impl<O: Overlay> Agent<'_, O> {
    /// Works until something must be opened again: then it returns why. Cancelled at any await, it leaves the
    /// datapath enforcing.
    pub(super) async fn work(&mut self) -> anyhow::Error {
        match self.try_work().await {
            Ok(never) => match never {},
            Err(why) => why,
        }
    }

    async fn try_work(&mut self) -> anyhow::Result<std::convert::Infallible> {
        let mut changes = Changes::watch()?;
        let mut neighbours = Neighbours::watch()?;
        let mut look = every(LOOK);
        let mut sweep = every(SWEEP);
        let mut review = every(REVIEW);
        loop {
            let ends_in = self.policy.ends_in().filter(|_| !self.policy.is_shut());
            tokio::select! {
                () = tokio::time::sleep(ends_in.unwrap_or_default()), if ends_in.is_some() => self.end_grants().await?,
                Some(said) = self.around.control.recv() => self.heard(said).await?,
                () = changes.next() => self.surroundings_changed().await?,
                () = neighbours.next() => self.neighbours_moved(),
                _ = look.tick() => {
                    self.look().await?;
                    if self.links.len() <= FEW_LINKS && self.links.iter().any(|link| link.brisk.is_some()) {
                        look.reset_after(BRISK_LOOK);
                    }
                }
                _ = sweep.tick() => self.sweep()?,
                _ = review.tick() => self.review().await?,
                Some(query) = self.around.queries.recv() => self.answer(query).await,
                Some(check) = self.around.checks.recv() => {
                    self.around.waiting.push(check);
                    self.tell_what_is_open();
                }
                why = self.overlay.failed() => return Err(why),
            }
        }
    }

    /// What flows remember of neighbours is good for a second at the most, whether this works or not.
    fn neighbours_moved(&mut self) {
        if let Err(e) = self.datapath.forget_neighbours() {
            tracing::warn!("where neighbours were is used for up to a second more: {e:#}");
        }
    }

    async fn heard(&mut self, said: FromControl) -> anyhow::Result<()> {
        if let FromControl::Disconnected(why) = said {
            if self.around.contact.error.as_ref() != Some(&why) {
                tracing::warn!("control is away, the last image stands: {why}");
            }
            self.around.contact.connected = false;
            self.around.contact.error = Some(why);
            return Ok(());
        }
        if let FromControl::Expelled(why) = said {
            return self.expelled(why);
        }
        if matches!(said, FromControl::Connected) {
            self.connected();
        }
        self.contact()?;
        if self.around.contact.connected && matches!(said, FromControl::Heard | FromControl::Update(_)) {
            self.around.contact.ended = false;
            self.heed_askers();
        }
        match said {
            FromControl::Update(update) => self.updated(*update).await?,
            FromControl::Connected
            | FromControl::Heard
            | FromControl::Disconnected(_)
            | FromControl::Expelled(_) => {}
        }
        Ok(())
    }

    async fn updated(&mut self, message: SyncUpdate) -> anyhow::Result<()> {
        let SyncUpdate { update, schedule } = message;
        match update {
            Some(Update::Network(config)) => return self.described(config).await,
            Some(Update::NetworkChange(change)) => {
                return match change.apply(std::mem::take(&mut self.described)) {
                    Ok(config) => self.described(config).await,
                    Err(e) => {
                        let sentence = format!("{e}; the whole of it is asked for");
                        self.note(Trouble::Network, Some(sentence));
                        self.around.resync.notify_one();
                        Ok(())
                    }
                };
            }
            Some(Update::Flows(query)) => {
                let list = block_in_place(|| report::flow_list(&query, &self.flows, &self.policy));
                self.around.outbox.flow_list(list);
                return Ok(());
            }
            Some(Update::Snapshot(snapshot)) => {
                self.put(|policy, datapath, exits| {
                    Some(policy.snapshot(datapath, &snapshot, schedule, exits))
                });
            }
            Some(Update::Delta(delta)) => {
                self.put(|policy, datapath, exits| Some(policy.delta(datapath, &delta, schedule, exits)));
            }
            None => {
                let Some(schedule) = schedule else { return Ok(()) };
                block_in_place(|| self.policy.reschedule(schedule));
                self.around.known.send_replace(self.policy.known(self.datapath.as_ref()));
            }
        }
        if self.capped || self.policy.cap().is_some() {
            self.set_deadline()?;
        }
        self.catch_up().await
    }

    /// Puts in force what `put` says; whether there was something, and it was not refused.
    fn put(
        &mut self,
        put: impl FnOnce(&mut Policy, &mut dyn Datapath, &mut Exits<'_>) -> Option<Outcome>,
    ) -> bool {
        // Whoever holds names holds the image, which is changed in place.
        self.names = None;
        let mut resolved = None;
        let outcome = block_in_place(|| {
            let Self { policy, datapath, netlink, sites, around, lookups, .. } = self;
            let host = host(netlink, sites, &around.settings);
            let mut exits = exits(host, lookups, &mut resolved);
            put(policy, datapath.as_mut(), &mut exits)
        });
        let Some(outcome) = outcome else { return false };
        let done = outcome.refused.is_none();
        self.settle(outcome, resolved);
        done
    }

    /// Takes from the image in force what has ended by now.
    async fn end_grants(&mut self) -> anyhow::Result<()> {
        while self.put(|policy, datapath, exits| policy.end(datapath, exits)) {
            self.around.contact.ended = true;
        }
        self.heed_askers();
        self.set_deadline()?;
        self.catch_up().await
    }

    fn connected(&mut self) {
        tracing::info!("connected to control");
        self.around.domains.stream_opened();
        let contact = &mut self.around.contact;
        contact.connected = true;
        contact.error = None;
        if std::mem::take(&mut contact.expelled) {
            contact.deadline_set = None;
            self.answer_names();
            let forgotten = self.around.store.put_expelled(false);
            self.note(Trouble::Store, forgotten.err().map(|e| format!("{e:#}")));
            self.note(Trouble::Expelled, None);
        }
    }

    /// Control knows this agent no more: what it last permitted ends now, and stays ended over a restart.
    fn expelled(&mut self, why: String) -> anyhow::Result<()> {
        self.around.contact.connected = false;
        self.around.contact.error = Some(why);
        if self.around.contact.expelled {
            return Ok(());
        }
        self.around.contact.expelled = true;
        self.answer_names();
        self.note(Trouble::Expelled, Some(super::EXPELLED.to_owned()));
        let remembered = self.around.store.put_expelled(true);
        self.note(Trouble::Store, remembered.err().map(|e| format!("{e:#}")));
        // Should this fail, everything is opened anew, and the image expires there.
        self.allow(Some(Duration::ZERO))?;
        self.tell_what_is_open();
        Ok(())
    }

    /// Tells the datapath for how long the image in force may be enforced from now on.
    fn allow(&mut self, allowance: Option<Duration>) -> anyhow::Result<()> {
        self.around.contact.allowed(allowance, Instant::now());
        self.set_deadline()?;
        self.note_expiry();
        Ok(())
    }

    /// Tells the datapath until when the image in force may be enforced: by the last word of control, and no longer than until
    /// just after something of it ends, should nobody be there to take that from it.
    pub(super) fn set_deadline(&mut self) -> anyhow::Result<()> {
        let cap = self.policy.cap();
        self.capped = cap.is_some();
        let left = self.around.contact.left(Instant::now());
        self.datapath.set_deadline(left.into_iter().chain(cap).min())
    }

    /// Says so when the image in force has outlived its age; why is said already where control has removed this agent.
    fn note_expiry(&mut self) {
        let contact = &self.around.contact;
        let over = self.datapath.in_force().is_some() && !contact.expelled && contact.expired(Instant::now());
        self.note(Trouble::Expired, over.then(|| super::EXPIRED.to_owned()));
        self.heed_askers();
    }

    /// Control said something: the image in force may stand for its whole age again.
    fn contact(&mut self) -> anyhow::Result<()> {
        let contact = &mut self.around.contact;
        if contact.expelled {
            return Ok(());
        }
        contact.last_ms = Some(system::unix_ms());
        let now = Instant::now();
        let due = |last: Option<Instant>, after| last.is_none_or(|last| now.duration_since(last) >= after);
        if due(contact.deadline_set, SWEEP) {
            contact.deadline_set = Some(now);
            self.allow(self.around.settings.max_policy_age)?;
        }
        let contact = &mut self.around.contact;
        if due(contact.remembered, REMEMBER_CONTACT) {
            contact.remembered = Some(now);
            let stored = self.around.store.put_contact();
            self.note(Trouble::Store, stored.err().map(|e| format!("{e:#}")));
        }
        Ok(())
    }

    /// Takes note of what became of an image whose routes leave as `resolved`, where that was asked.
    fn settle(&mut self, outcome: Outcome, resolved: Option<Resolved>) {
        self.names = None;
        match outcome.refused {
            None => {
                if let Some(resolved) = resolved {
                    self.leaves_as(resolved);
                }
                self.around.metrics.applied(outcome.acknowledgement.apply_microseconds);
                self.applied_ms = Some(system::unix_ms());
            }
            Some(reason) => self.around.metrics.refused(reason),
        }
        self.around.known.send_replace(self.policy.known(self.datapath.as_ref()));
        self.around.outbox.acknowledge(outcome.acknowledgement);
        if outcome.resync {
            self.around.resync.notify_one();
        }
        self.tell_what_is_open();
    }

    /// The stream describes the overlay, and its next change starts from this.
    async fn described(&mut self, config: NetworkConfig) -> anyhow::Result<()> {
        self.network(&config).await?;
        self.described = config;
        Ok(())
    }

    /// Takes the overlay control describes, or keeps the one there is and says what is wrong.
    async fn network(&mut self, config: &NetworkConfig) -> anyhow::Result<()> {
        let serial = config.serial;
        let network = match Network::read(config, &self.around.settings.use_routes) {
            Ok(network) => network,
            Err(e) => {
                let sentence = format!(
                    "the overlay description {serial} from control was refused, the one before stays: {e:#}"
                );
                self.note(Trouble::Network, Some(sentence));
                return Ok(());
            }
        };
        let same = self.network.as_ref() == Some(&network);
        if same && !self.trouble.contains_key(&Trouble::Network) {
            return Ok(());
        }
        let stored = self.around.store.put_network(config);
        self.note(
            Trouble::Network,
            stored.err().map(|e| format!("the overlay would not survive a restart: {e:#}")),
        );
        if same { Ok(()) } else { self.adopt(network).await }
    }

    /// Builds the overlay `network` describes.
    pub(super) async fn adopt(&mut self, network: Network) -> anyhow::Result<()> {
        tracing::info!(v4 = %network.own_v4, v6 = %network.own_v6, peers = network.peers.len(), "the overlay is described");
        self.overlay.set_own_address(network.own_v6.addr());
        let told = block_in_place(|| self.datapath.set_overlay(network.own_v4, network.own_v6));
        self.note(
            Trouble::Prefixes,
            told.err().map(|e| format!("the datapath could not be told the overlay's addresses: {e:#}")),
        );
        let (index, addresses) = (self.device.index(), network.addresses());
        let set = match self.device.is_own() {
            true => self.netlink.set_addresses(index, &addresses).await,
            false => self.netlink.add_addresses(index, &addresses).await,
        };
        self.note(Trouble::Device, set.err().map(|e| e.to_string()));
        self.routing.decide(&network, &self.around.settings.failover, Instant::now());
        self.around.wanted.send_replace(network.wanted());
        self.around.domains.want(network.wanted_names());
        self.heed_askers();
        self.around.outbox.tell(network.told);
        self.network = Some(network);
        self.names = None;
        self.tell_routers();
        self.answer_names();
        self.replan(true).await
    }

    /// Answers this host's questions for names as control said last; not at all once control knows this agent no more.
    fn answer_names(&self) {
        let known = self.network.as_ref().filter(|_| !self.around.contact.expelled);
        self.around.resolver.want(known.and_then(|network| network.resolver.as_ref()));
    }

    /// Makes overlay and routes what follows from the choice of routers.
    async fn replan(&mut self, routes_too: bool) -> anyhow::Result<()> {
        let Some(network) = &self.network else { return Ok(()) };
        let plan: Plan = self.routing.plan(network, &self.hints, &self.around.control_addresses);
        let configured = self.overlay.configure(plan.peers.clone()).await;
        self.note(Trouble::Overlay, configured.err().map(|e| format!("{e:#}")));
        // Through whom others are reached on somebody's Ethernet is the operator's to say.
        if self.device.is_own() && (routes_too || plan.routes != self.plan.routes) {
            let set = self.netlink.set_routes(self.device.index(), &plan.routes).await;
            self.note(Trouble::Routes, set.err().map(|e| e.to_string()));
        }
        self.plan = plan;
        self.tell_what_is_open();
        Ok(())
    }

    async fn look(&mut self) -> anyhow::Result<()> {
        // The ring holds what a flood writes in a fraction of a second; and who watches wants to see it now.
        self.tell();
        self.links = self.overlay.links().await;
        let now = Instant::now();
        let failover = &self.around.settings.failover;
        let probed = self.plan.peers.iter().filter(|p| p.probe.is_some()).map(|p| p.key).collect();
        self.routing.observe(&self.links, &probed, failover, now);
        let Some(network) = &self.network else { return Ok(()) };
        self.overlay.hurry(&self.routing.stand_ins(network, &self.links, failover));
        if !network.asked.is_empty() {
            self.tell_routers();
        }
        if self.routing.decide(network, failover, now) {
            self.replan(false).await?;
        }
        Ok(())
    }

    fn sweep(&mut self) -> anyhow::Result<()> {
        let swept = block_in_place(|| self.datapath.sweep()).context("the flow table cannot be read");
        let counted = block_in_place(|| self.datapath.counters()).context("the counters cannot be read");
        let trouble = swept.as_ref().err().or(counted.as_ref().err()).map(|e| format!("{e:#}"));
        self.note(Trouble::Counters, trouble);
        if let Ok(flows) = &swept {
            self.around.domains.flows(flows.iter().map(|flow| flow.destination));
        }
        self.flows = swept.unwrap_or_default();
        if let Ok(counters) = counted {
            self.counters = counters;
        }
        self.note_expiry();
        let remembered = self.policy.remember_moment(REMEMBER_CONTACT);
        self.note(Trouble::Ends, remembered.err().map(|e| format!("{e:#}")));
        self.tell();
        let in_force = self.datapath.in_force().map_or(0, |now| now.revision);
        let health = report::health(
            self.datapath.kind(),
            in_force,
            self.flows.len(),
            &self.counters,
            self.degraded(),
            self.link_states(),
        );
        self.around.outbox.health(health, self.counters.events_lost);
        self.remember_places();
        self.remember_below();
        Ok(())
    }

    /// A device, an address or a route of the host changed.
    async fn surroundings_changed(&mut self) -> anyhow::Result<()> {
        let device = self.netlink.link(self.device.name()).await?;
        match device {
            Some(device) if device.index == self.device.index() => {
                let down = (!device.up)
                    .then(|| format!("the overlay device {} is down; set it up again", self.device.name()));
                let was_down = self.trouble.contains_key(&Trouble::Device);
                if down.is_none() && was_down {
                    // The kernel dropped addresses and routes when the device went down.
                    return Err(anyhow::anyhow!("the overlay device {} is up again", self.device.name()));
                }
                self.note(Trouble::Device, down);
            }
            _ => anyhow::bail!(
                "the overlay device {} was deleted; it is opened again when it is there",
                self.device.name()
            ),
        }
        let sites = super::run::sites(&self.netlink, &self.around.settings).await?;
        self.sites = sites;
        block_in_place(|| self.datapath.addresses_changed());
        self.resolve_egress().await
    }

    async fn review(&mut self) -> anyhow::Result<()> {
        self.surroundings_changed().await?;
        if self.policy.is_shut() {
            self.end_grants().await?;
        }
        self.replan(true).await
    }

    /// Looks up anew where the routes of the image in force leave, and tells the datapath when that has changed.
    pub(super) async fn resolve_egress(&mut self) -> anyhow::Result<()> {
        let none = BTreeMap::new();
        let routes = match self.policy.routes() {
            Some(routes) => routes,
            None if self.datapath.in_force().is_none() => &none,
            // The pinned image is one that could not be remembered: its ways out stay as they were found, until control has sent
            // it again.
            None => return Ok(()),
        };
        self.lookups = Lookups::default();
        let host = host(&self.netlink, &self.sites, &self.around.settings);
        let resolved = self.lookups.resolve(host, routes).await?;
        if self.resolved.as_ref() == Some(&resolved) {
            return Ok(());
        }
        let set = block_in_place(|| self.datapath.set_egress(&resolved.egress));
        let failed = set.is_err();
        self.note(
            Trouble::Egress,
            set.err().map(|e| format!("the ways to the site could not be set: {e:#}")),
        );
        if !failed {
            self.leaves_as(resolved);
        }
        Ok(())
    }

    /// Looks up where routes leave when an image came that was found in force, and is known now.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        if self.resolved.is_none() { self.resolve_egress().await } else { Ok(()) }
    }

    /// The routes of the image in force leave like this.
    fn leaves_as(&mut self, resolved: Resolved) {
        let known = self.resolved.as_ref().map(|before| &before.degraded[..]).unwrap_or_default();
        for sentence in resolved.degraded.iter().filter(|s| !known.contains(s)) {
            tracing::warn!("{sentence}");
        }
        self.resolved = Some(resolved);
    }

    /// Remembers which names were asked for, so that flows to what they stand for go on over a restart.
    fn remember_below(&mut self) {
        let below = self.around.domains.below();
        if below == self.around.below {
            return;
        }
        let stored = self.around.store.put_below(&below);
        if stored.is_ok() {
            self.around.below = below;
        }
        self.note(Trouble::Store, stored.err().map(|e| format!("{e:#}")));
    }

    /// Remembers where peers without a fixed place are, so that they are greeted at once after a restart.
    fn remember_places(&mut self) {
        let Some(network) = &self.network else { return };
        let wandering = |key| network.peers.values().any(|p| p.key == key && p.endpoint.is_none());
        let mut places = self.places.clone();
        places.retain(|key, _| network.peers.values().any(|p| p.key == *key));
        places.extend(
            self.links.iter().filter(|l| wandering(l.key)).filter_map(|l| Some((l.key, l.endpoint?))),
        );
        if places == self.places {
            return;
        }
        let stored = self.around.store.put_places(&places);
        if stored.is_ok() {
            self.places = places;
        }
        self.note(Trouble::Store, stored.err().map(|e| format!("{e:#}")));
    }
}

/// What decides where routes leave.
pub(super) fn host<'a>(
    netlink: &'a Netlink,
    sites: &'a BTreeMap<u32, String>,
    settings: &'a Settings,
) -> Host<'a> {
    Host { netlink, sites, wanted: &settings.datapath.site_devices, pools: &settings.pools }
}

/// Looks up where the routes of an image leave, for who cannot await it: in `block_in_place`. All that is known of it is left
/// in `resolved`.
pub(super) fn exits<'a>(
    host: Host<'a>,
    lookups: &'a mut Lookups,
    resolved: &'a mut Option<Resolved>,
) -> impl FnMut(&BTreeMap<u32, RouteInfo>) -> anyhow::Result<Vec<Egress>> + 'a {
    move |routes| {
        let found = Handle::current().block_on(lookups.resolve(host, routes))?;
        let ways = found.egress.clone();
        *resolved = Some(found);
        Ok(ways)
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
