//! What the agent answers to those beside it.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::block_in_place;

use super::{Agent, Trouble, report};
use crate::datapath::Live;
use crate::local::capture::{self, BEHIND, Line, Wanted};
use crate::local::names::{Names, Own, Who};
use crate::local::trace::{self, Request, Trace};
use crate::local::{flows, top};
use crate::overlay::Overlay;
use crate::serve::Query;
use crate::system;

impl<O: Overlay> Agent<'_, O> {
    /// Answers a question from the socket or the metrics page.
    pub(super) async fn answer(&mut self, query: Query) {
        // Whoever asked may be gone.
        match query {
            Query::Status(answer) => {
                self.count();
                let _ = answer.send(Box::new(self.status()));
            }
            Query::Flows(answer) => {
                let names = self.names();
                let _ = answer.send(flows::document(&self.flows, &names));
            }
            Query::Top(answer) => {
                self.count();
                let names = self.names();
                let around = top::Around {
                    names: &names,
                    live: &self.flows,
                    datapath: report::kind_name(self.datapath.kind()),
                    revision: self.revision(),
                    time_ms: system::unix_ms(),
                };
                let _ = answer.send(Box::new(top::document(&self.counters, &around)));
            }
            Query::Capture(wanted, answer) => {
                let _ = answer.send(self.capture(&wanted));
            }
            Query::Trace(request, answer) => {
                let _ = answer.send(self.trace(&request).await.map(Box::new));
            }
        }
    }

    /// Begins a capture; there is one at a time, since the datapath has one filter.
    fn capture(&mut self, wanted: &Wanted) -> Result<mpsc::Receiver<Vec<Line>>, String> {
        if self.capture.as_ref().is_some_and(|capture| !capture.is_closed()) {
            return Err("another capture is running on this agent; only one can at a time".into());
        }
        let filter = wanted.filter(&self.names())?;
        self.datapath.set_capture(Some(filter)).map_err(|e| format!("packets cannot be recorded: {e:#}"))?;
        let (sender, receiver) = mpsc::channel(BEHIND);
        self.capture = Some(sender);
        Ok(receiver)
    }

    /// Hands on what was recorded, and stops recording when nobody reads any more.
    fn hand_on(&mut self) {
        let Some(sender) = self.capture.clone() else { return };
        if sender.is_closed() {
            self.capture = None;
            let stopped = self.datapath.set_capture(None);
            self.note(
                Trouble::Capture,
                stopped.err().map(|e| format!("packets go on being recorded though nobody asks: {e:#}")),
            );
            return;
        }
        let (packets, lost) = self.datapath.captured();
        let names = self.names();
        let epoch = system::unix_ns().saturating_sub(system::monotonic_ns());
        let lines = capture::lines(&packets, lost + std::mem::take(&mut self.capture_missed), &names, epoch);
        if lines.is_empty() {
            return;
        }
        let recorded = packets.len() as u64 + lost;
        if sender.try_send(lines).is_err() {
            self.capture_missed += recorded;
        }
    }

    /// Takes what the datapath has told since the last time, for control and for those who watch.
    pub(super) fn tell(&mut self) {
        self.hand_on();
        let now = system::unix_ms();
        let events = self.datapath.events();
        if events.is_empty() {
            return;
        }
        self.around.exhausted.note(&events, now);
        self.around.outbox.flows(events.iter().map(|event| report::flow_event(event, &self.policy, now)));
        let names = self.names();
        self.around.feed.tell(&events, || names, now);
    }

    /// What numbers and addresses are called now.
    pub(super) fn names(&mut self) -> Arc<Names> {
        let names = self.names_now();
        self.names = Some(names.clone());
        names
    }

    /// The same for those who may not remember it.
    pub(super) fn names_now(&self) -> Arc<Names> {
        if let Some(names) = &self.names {
            return names.clone();
        }
        let card = &self.around.identity.card;
        let network = self.network.as_ref();
        let own = network.map(|network| Own {
            who: Who { id: card.peer_id.clone(), name: card.name.clone() },
            v4: network.own_v4.addr(),
            v6: network.own_v6.addr(),
        });
        let peers = network.into_iter().flat_map(|network| &network.peers).flat_map(|(id, peer)| {
            let who = Who { id: id.clone(), name: peer.name.clone() };
            [(IpAddr::V4(peer.v4), who.clone()), (IpAddr::V6(peer.v6), who)]
        });
        Arc::new(Names::new(self.policy.images(), peers, own))
    }

    fn count(&mut self) {
        if let Ok(counters) = block_in_place(|| self.datapath.counters()) {
            self.counters = counters;
        }
    }

    fn revision(&self) -> Option<u64> {
        self.datapath.in_force().map(|now| now.revision)
    }

    async fn trace(&mut self, request: &Request) -> Result<Trace, String> {
        let (names, revision) = (self.names(), self.revision());
        let unreadable = |e: anyhow::Error| format!("the live tables cannot be read: {e:#}");
        fn around<'a>(
            live: &'a dyn Live,
            names: &'a Names,
            revision: Option<u64>,
        ) -> trace::Surroundings<'a> {
            trace::Surroundings { live, names, revision }
        }
        let judgement = {
            let live = self.datapath.live().map_err(unreadable)?;
            request.judge(&around(&*live, &names, revision))?
        };
        // The tables are not held meanwhile: in user space no packet would be judged.
        let via = match judgement.leaves_for() {
            Some(address) => self.netlink.route_to(address).await.ok().flatten().and_then(|route| route.via),
            None => None,
        };
        let live = self.datapath.live().map_err(unreadable)?;
        Ok(judgement.tell(&around(&*live, &names, revision), via))
    }
}
