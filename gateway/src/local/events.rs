//! Flow events for those who watch beside the agent, as they come.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use tokio::sync::broadcast;

use super::names::{End, Names, Resource, Rule};
use crate::datapath::{Event, EventKind};

/// Events a slow reader may be behind before it misses some.
const BEHIND: usize = 8_192;
/// Events of each kind that are kept for those who come later.
const KEPT: usize = 256;

/// One event, in the shape of control's stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowEvent {
    /// When it was read from the datapath, Unix milliseconds.
    pub time_ms: u64,
    /// `start`, `end`, `drop` or `revoke`.
    pub kind: &'static str,
    /// This agent.
    pub reporter: Reporter,
    /// Where the packet came from: `overlay`, `site` or `local`.
    pub direction: &'static str,
    /// IP protocol number.
    pub protocol: u8,
    /// Who sent it, or opened the flow.
    pub source: End,
    /// To whom.
    pub destination: End,
    /// The source as the destination sees it, when it differs: `ADDRESS:PORT`.
    pub translated_source: String,
    /// The rule that admitted or refused it; empty texts when none did.
    pub rule: Rule,
    /// The resource it was for.
    pub resource: Option<Resource>,
    /// Why it was dropped; empty for starts and ends.
    pub drop_reason: &'static str,
    /// Packets of both directions, of ends and revocations.
    pub packets: u64,
    /// Bytes of both directions, from the IP header on.
    pub bytes: u64,
}

/// The agent that tells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reporter {
    /// Peer id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// Where watchers get events from.
#[derive(Debug)]
pub struct Feed {
    sender: broadcast::Sender<Arc<FlowEvent>>,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Number of the next event.
    next: u64,
    flows: VecDeque<(u64, Arc<FlowEvent>)>,
    drops: VecDeque<(u64, Arc<FlowEvent>)>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { sender: broadcast::channel(BEHIND).0, kept: Mutex::default() }
    }
}

impl Feed {
    /// Tells of `events`, oldest first. Without a watcher only those that are kept get their names looked up.
    pub fn tell(&self, events: &[Event], names: impl FnOnce() -> Arc<Names>, now_ms: u64) {
        if events.is_empty() {
            return;
        }
        let names = names();
        let watched = self.sender.receiver_count() > 0;
        let skipped = if watched { 0 } else { events.len().saturating_sub(4 * KEPT) };
        for event in &events[skipped..] {
            let event = Arc::new(FlowEvent::new(event, &names, now_ms));
            self.kept().keep(event.clone());
            // Nobody may be watching.
            let _ = self.sender.send(event);
        }
    }

    /// Follows the events, after the last `replay` that `wanted` takes.
    pub fn watch(
        &self,
        replay: usize,
        wanted: impl Fn(&FlowEvent) -> bool,
    ) -> (Vec<Arc<FlowEvent>>, broadcast::Receiver<Arc<FlowEvent>>) {
        let kept = self.kept();
        let mut recent: Vec<_> =
            kept.flows.iter().chain(&kept.drops).filter(|(_, e)| wanted(e)).cloned().collect();
        recent.sort_by_key(|(number, _)| *number);
        let from = recent.len().saturating_sub(replay);
        let recent = recent.split_off(from).into_iter().map(|(_, event)| event).collect();
        // While events are kept out: what is told from now on is not among the recent ones.
        (recent, self.sender.subscribe())
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn keep(&mut self, event: Arc<FlowEvent>) {
        let drop = matches!(event.kind, "drop" | "revoke");
        let queue = if drop { &mut self.drops } else { &mut self.flows };
        if queue.len() >= KEPT {
            queue.pop_front();
        }
        queue.push_back((self.next, event));
        self.next += 1;
    }
}

impl FlowEvent {
    /// An event with the names of the moment.
    pub fn new(event: &Event, names: &Names, time_ms: u64) -> Self {
        let (kind, drop_reason) = match event.kind {
            EventKind::Start => ("start", ""),
            EventKind::End => ("end", ""),
            EventKind::Drop(reason) => ("drop", reason),
            EventKind::Revoke => ("revoke", "revoked"),
        };
        let translated = event.translated.map(|(address, port)| std::net::SocketAddr::new(address, port));
        let resource =
            event.route.and_then(|route| names.route(route)).or_else(|| names.resource(event.destination));
        Self {
            time_ms,
            kind,
            reporter: names
                .own()
                .map(|own| Reporter { id: own.who.id.clone(), name: own.who.name.clone() })
                .unwrap_or_default(),
            direction: event.side,
            protocol: event.protocol,
            source: names.end(event.source, event.source_port),
            destination: names.end(event.destination, event.destination_port),
            translated_source: translated.map(|address| address.to_string()).unwrap_or_default(),
            rule: names.told(event.rule),
            resource: resource.map(Resource::from),
            drop_reason,
            packets: event.packets,
            bytes: event.bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::names::tests::names;

    fn event(kind: EventKind, port: u16) -> Event {
        Event {
            kind,
            side: "overlay",
            source: "100.64.0.2".parse().unwrap(),
            source_port: port,
            destination: "10.9.7.1".parse().unwrap(),
            destination_port: 443,
            protocol: 6,
            rule: Some(0),
            route: None,
            translated: Some(("10.9.0.1".parse().unwrap(), 20_000)),
            packets: 0,
            bytes: 0,
        }
    }

    #[test]
    fn an_event_carries_the_names_of_everything() {
        let told = serde_json::to_value(FlowEvent::new(&event(EventKind::Start, 5), &names(), 7)).unwrap();
        for (path, value) in [
            ("/kind", "start"),
            ("/reporter/name", "gw"),
            ("/source/name", "alice"),
            ("/destination/name", "lab"),
            ("/destination/type", "RESOURCE"),
            ("/rule/policy_name", "web"),
            ("/rule/rule_name", "users to web"),
            ("/resource/prefix", "10.9.7.0/24"),
            ("/translated_source", "10.9.0.1:20000"),
        ] {
            assert_eq!(told.pointer(path).and_then(|v| v.as_str()), Some(value), "{path} in {told}");
        }
    }

    #[test]
    fn drops_do_not_push_flows_out_and_come_back_in_order() {
        let feed = Feed::default();
        let tell = |events: &[Event]| feed.tell(events, || Arc::new(names()), 1);
        tell(&[event(EventKind::Start, 1)]);
        let drops: Vec<Event> = (0..2000).map(|i| event(EventKind::Drop("no_rule"), i)).collect();
        tell(&drops);
        tell(&[event(EventKind::End, 2)]);
        let (all, _) = feed.watch(usize::MAX, |_| true);
        assert_eq!((all.first().unwrap().kind, all.last().unwrap().kind), ("start", "end"));
        assert_eq!(all.len(), KEPT + 2);
        let (drops, _) = feed.watch(3, |event| event.kind == "drop");
        assert_eq!(drops.iter().map(|e| e.source.port).collect::<Vec<_>>(), [1997, 1998, 1999]);
    }

    #[test]
    fn a_watcher_misses_nothing_after_what_was_replayed() {
        let feed = Feed::default();
        feed.tell(&[event(EventKind::Start, 1)], || Arc::new(names()), 1);
        let (recent, mut coming) = feed.watch(10, |_| true);
        feed.tell(&[event(EventKind::Start, 2)], || Arc::new(names()), 2);
        assert_eq!((recent.len(), recent[0].source.port), (1, 1));
        assert_eq!(coming.try_recv().unwrap().source.port, 2);
        assert!(coming.try_recv().is_err());
    }
}
