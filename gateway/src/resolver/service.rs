//! Keeps listening, table and host as they are wanted.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::rr::Name;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::answer::Known;
use super::host::{Host, Upstreams, Wish};
use super::listen::{Listening, Server, may_listen};
use super::state::Shared;
use super::wanted::{PORT, Wanted};
use super::zones::Table;
use super::{Settings, wanted};
use crate::config::HostMode;

/// Between looks at what others may have changed: ports that were taken, the host's files.
const TICK: Duration = Duration::from_secs(1);

/// Runs the resolver.
pub(super) struct Service {
    settings: Settings,
    server: Server,
    listening: Listening,
    host: Host,
    upstreams: Upstreams,
    hosts_own: Vec<Name>,
    shared: Shared,
    wanted: watch::Receiver<Option<Arc<Wanted>>>,
    /// What questions are answered by now, beside the table itself.
    by: Option<(Arc<Wanted>, Vec<SocketAddr>, Vec<SocketAddr>)>,
}

impl Service {
    pub(super) fn new(
        settings: Settings,
        server: Server,
        shared: Shared,
        wanted: watch::Receiver<Option<Arc<Wanted>>>,
    ) -> Self {
        // Of what is an address there is nothing to ask for.
        let hosts_own = settings.hosts_own.iter().filter_map(|text| wanted::name(text).ok()).collect();
        let listening = Listening::new(server.clone());
        let host = Host::new(&settings);
        let upstreams = Upstreams::new(&settings.dns.resolv_conf, &settings.resolved_servers);
        Self { settings, server, listening, host, upstreams, hosts_own, shared, wanted, by: None }
    }

    /// Runs until nobody wants anything any more; then the host is as it was before, or why that cannot be.
    pub(super) async fn run(mut self) -> io::Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                changed = self.wanted.changed() => if changed.is_err() { break },
            }
            let wanted = self.wanted.borrow_and_update().clone();
            match wanted {
                Some(wanted) => self.work(wanted).await,
                None => self.rest().await,
            }
        }
        self.rest().await;
        let failed = self.shared.lock().degraded.join("; ");
        if failed.is_empty() { Ok(()) } else { Err(io::Error::other(failed)) }
    }

    async fn work(&mut self, wanted: Arc<Wanted>) {
        let mut degraded = Vec::new();
        let places = self.places(&wanted, &mut degraded);
        self.answer_by(&wanted, &places, &mut degraded);
        for (address, cause) in self.listening.at(&places).await {
            degraded.push(format!(
                "questions for names are not answered at {address}: {cause}; end the name server that has the port, or name \
                 another address in `[dns] listen`; it is tried again"
            ));
        }
        let servers: Vec<SocketAddr> = self.listening.addresses().collect();
        let table = self.server.answers.known();
        // Who can answer nothing but control's names would take all others from the host.
        let finds_all = wanted.has_primary() || !table.upstreams.is_empty();
        let wish = (!servers.is_empty() && finds_all).then(|| Wish {
            servers: servers.clone(),
            search: wanted.search(),
            domains: table.table.domains().into_iter().cloned().collect(),
            all: wanted.has_primary(),
        });
        degraded.extend(self.host.set(wish.as_ref()).await);
        self.say(Some(wanted), servers, degraded);
    }

    /// Answers nobody, and leaves the host as it was.
    async fn rest(&mut self) {
        let degraded = self.host.set(None).await.into_iter().collect();
        self.listening.at(&BTreeSet::new()).await;
        self.by = None;
        self.server.answers.know(Known::default());
        self.say(None, Vec::new(), degraded);
    }

    /// Where to listen.
    fn places(&self, wanted: &Wanted, degraded: &mut Vec<String>) -> BTreeSet<SocketAddr> {
        let overlay = [IpAddr::V4(wanted.own.0.addr()), IpAddr::V6(wanted.own.1.addr())];
        if self.settings.dns.listen.is_empty() {
            return overlay.map(|address| SocketAddr::new(address, PORT)).into();
        }
        let (may, may_not): (BTreeSet<SocketAddr>, BTreeSet<SocketAddr>) =
            self.settings.dns.listen.iter().partition(|address| may_listen(address.ip(), overlay));
        degraded.extend(may_not.iter().map(|address| {
            format!(
                "questions for names are not answered at {address}, which is neither of loopback nor this agent's in the \
                 overlay: take it out of `[dns] listen`"
            )
        }));
        may
    }

    /// Has questions answered by what is wanted, and by the host's name servers as they are now.
    fn answer_by(&mut self, wanted: &Arc<Wanted>, places: &BTreeSet<SocketAddr>, degraded: &mut Vec<String>) {
        let own: Vec<SocketAddr> = places.iter().copied().collect();
        let upstreams = match self.upstreams.now(&own) {
            Ok(found) => found,
            Err(why) => {
                // Where the host does not ask, it finds all others as it always did.
                if !wanted.has_primary() && self.settings.dns.host != HostMode::Off {
                    degraded.push(format!(
                        "names that control says nothing of cannot be found out here, so the host does not ask this agent: {why}; \
                         name servers there, or give this machine's groups a primary nameserver group"
                    ));
                }
                Vec::new()
            }
        };
        let by = (wanted.clone(), own, upstreams);
        if self.by.as_ref() == Some(&by) {
            return;
        }
        let (_, own, upstreams) = &by;
        let table = Table::new(wanted, own, self.hosts_own.clone());
        let servers = wanted.forwards.iter().flat_map(|forward| &forward.servers);
        let servers = servers.chain(upstreams).filter(|server| !own.contains(server)).copied().collect();
        self.server.answers.forwarder.keep(&servers);
        self.server.answers.know(Known { table, upstreams: upstreams.clone() });
        self.by = Some(by);
    }

    fn say(&self, wanted: Option<Arc<Wanted>>, listening: Vec<SocketAddr>, degraded: Vec<String>) {
        let mut state = self.shared.lock();
        for sentence in degraded.iter().filter(|sentence| !state.degraded.contains(sentence)) {
            tracing::warn!("{sentence}");
        }
        state.wanted = wanted;
        state.listening = listening;
        state.host_asks = self.host.asks();
        state.degraded = degraded;
    }
}
