//! Starts the agent, and starts it again when its devices went away.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use sluicegate_api::agent::NetworkConfig;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::block_in_place;

use super::device::Device;
use super::egress::Lookups;
use super::masquerade::Exhausted;
use super::network::Network;
use super::policy::{Policy, Remembered};
use super::routing::{Plan, Routing};
use super::store::Store;
use super::{Agent, Contact, Surroundings, Trouble, work};
use crate::config::{OverlayKind, Role, Settings};
use crate::control::{Known, Outbox, Session, Urls, report};
use crate::datapath::{self, Counters};
use crate::facts::Watcher;
use crate::identity::Identity;
use crate::local::events::Feed;
use crate::lock::Lock;
use crate::metrics::Metrics;
use crate::names;
use crate::netlink::{Netlink, NetlinkError};
use crate::overlay::{
    AnyOverlay, EthernetOverlay, HostSide, Overlay, Questions, UserspaceOverlay, UserspaceSettings,
};
use crate::resolver;
use crate::serve::{self, Asker};
use crate::system;

/// Between attempts to open devices again.
const PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Runs until `stop` completes. The datapath goes on enforcing afterwards where it lives in the kernel.
pub async fn run(settings: Settings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    if !system::is_root() {
        bail!(
            "the gateway must run as root: it makes a network device, sets routes and loads programs into the kernel"
        );
    }
    let state_dir = settings.places.state_dir.clone();
    let identity = Identity::load(&state_dir)?.with_context(|| {
        format!(
            "this agent has not joined ({} holds no identity); run `sluicegate-gateway join` first",
            state_dir.display()
        )
    })?;
    let _lock = Lock::acquire(&state_dir, &settings.places.bpf_dir, &settings.datapath.site_devices)?;
    let mut around = surround(settings, identity).await?;
    let ended = go_on(&mut around, stop).await;
    if let Err(e) = around.resolver.stop().await {
        tracing::warn!("questions for names were not ended as they should be: {e}");
    }
    ended
}

/// Works until `stop` completes, or until devices cannot be opened at the start.
async fn go_on(around: &mut Surroundings, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::pin!(stop);
    let mut worked = false;
    let mut pause = PAUSE;
    loop {
        let ended = tokio::select! {
            () = &mut stop => return Ok(()),
            ended = once(around) => ended,
        };
        let why = match ended {
            Ended::Worked(why) => {
                worked = true;
                pause = PAUSE;
                why
            }
            // At the start a person is watching and can mend it; later the agent tries again by itself.
            Ended::NotOpened(why) if !worked => return Err(why),
            Ended::NotOpened(why) => why,
        };
        tracing::warn!("{why:#}");
        // The addresses at which the host asked may be gone with the device.
        around.resolver.want(None);
        tokio::select! {
            () = &mut stop => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Why devices have to be opened again.
enum Ended {
    /// They could not be opened.
    NotOpened(anyhow::Error),
    /// They went away while they were used.
    Worked(anyhow::Error),
}

/// Devices of the settings that lead to the site and are there now, by index.
pub(super) async fn sites(
    netlink: &Netlink,
    settings: &Settings,
) -> Result<BTreeMap<u32, String>, NetlinkError> {
    let mut sites = BTreeMap::new();
    for name in &settings.datapath.site_devices {
        if let Some(link) = netlink.link(name).await? {
            sites.insert(link.index, name.clone());
        }
    }
    Ok(sites)
}

async fn surround(settings: Settings, identity: Identity) -> anyhow::Result<Surroundings> {
    let identity = Arc::new(identity);
    let metrics = Arc::new(Metrics::new()?);
    let outbox = Arc::new(Outbox::default());
    let (ask, queries) = mpsc::channel(16);
    let feed = Arc::new(Feed::default());
    let asker = Asker::new(ask, metrics.clone(), feed.clone());
    serve::unix(&settings.places.socket, asker.clone()).await?;
    if let Some(address) = settings.metrics {
        serve::tcp(address, asker).await?;
    }
    let urls = Urls::parse(settings.places.control.as_deref().unwrap_or(&identity.card.control))?;
    // Before anything is looked up: what is left of an earlier run may lead nowhere.
    let answers = resolver::start(resolver_settings(&settings, &urls), Netlink::open()?);
    let control_addresses = addresses(&urls).await;
    let (to_agent, control) = mpsc::channel(64);
    let (known, known_now) = watch::channel(Known::default());
    let (client, client_now) = watch::channel(None);
    let resync = Arc::new(Notify::new());
    let store = Arc::new(Store::new(&settings.places.state_dir));
    // As the overlay was described last, so that the first word to control is already a whole one.
    let before = store.network().ok().flatten().and_then(|config| Network::try_from(&config).ok());
    let (questions, heard) = Questions::new();
    let below = store.below();
    let (domains, names::Tasks { watcher, answerer, checks }) = {
        let files = names::Files { resolv_conf: settings.dns.resolv_conf.clone(), ..Default::default() };
        let resolver = names::Dns::new(settings.name_servers.clone(), files);
        let before = names::Before {
            wanted: before.as_ref().map(Network::wanted_names),
            stood_for: before.as_ref().map(Network::stood_for).unwrap_or_default(),
            below: below.clone(),
        };
        names::start(resolver, before, (questions.clone(), heard), outbox.clone())
    };
    tokio::spawn(watcher.run());
    tokio::spawn(answerer.run());
    answers.route(Some(Arc::new(domains.asker())));
    let (wanted, wanted_now) = watch::channel(before.map(|network| network.wanted()).unwrap_or_default());
    let (latest, facts) = watch::channel(None);
    let watcher = Watcher::start(Netlink::open()?, wanted_now, latest, outbox.clone()).await;
    tokio::spawn(watcher.run());
    let session = Session {
        urls,
        identity: identity.clone(),
        endpoint: settings.endpoint.map(|e| e.to_string()).unwrap_or_default(),
        known: known_now,
        facts,
        resync: resync.clone(),
        agent: to_agent.clone(),
        client,
    };
    tokio::spawn(report(outbox.clone(), client_now, to_agent));
    let contact = Contact { expelled: store.expelled(), ..Contact::default() };
    let around = Surroundings {
        settings,
        identity,
        store,
        outbox,
        metrics,
        control_addresses,
        control,
        queries,
        known,
        resync,
        contact,
        feed,
        wanted,
        domains,
        below,
        questions,
        checks,
        waiting: Vec::new(),
        resolver: answers,
        exhausted: Exhausted::default(),
    };
    tokio::spawn(session_when_known(session));
    Ok(around)
}

fn resolver_settings(settings: &Settings, urls: &Urls) -> resolver::Settings {
    resolver::Settings {
        dns: settings.dns.clone(),
        state_dir: settings.places.state_dir.clone(),
        device: settings.places.device.clone(),
        resolvectl: resolver::RESOLVECTL.into(),
        resolved_servers: "/run/systemd/resolve/resolv.conf".into(),
        hosts_own: urls.all().iter().map(|url| url.host().to_owned()).collect(),
    }
}

/// Opens the stream only once the datapath has said what is in force: before, control would send it all again.
async fn session_when_known(mut session: Session) {
    if session.known.changed().await.is_ok() {
        session.run().await;
    }
}

/// Opens everything and works for as long as it can.
async fn once(around: &mut Surroundings) -> Ended {
    let mut agent = match open(around).await {
        Ok(agent) => agent,
        Err(why) => return Ended::NotOpened(why),
    };
    let why = agent.work().await;
    agent.overlay.stop().await;
    Ended::Worked(why)
}

async fn open(around: &mut Surroundings) -> anyhow::Result<Agent<'_, AnyOverlay>> {
    let settings = &around.settings;
    let netlink = Netlink::open()?;
    let (device, mtu) = Device::open(settings, &netlink).await?;
    let sites = sites(&netlink, settings).await?;
    let remembered =
        around.store.network().and_then(|c| c.map(|c| Network::read(&c, &settings.use_routes)).transpose());
    let places = around.store.places();
    let mut routing = Routing::default();
    let mut early = None;
    let kept = block_in_place(|| Remembered::load(&around.store));
    if !kept.has_ended()
        && let Ok(Some(network)) = &remembered
        && let Device::Tun(tun) = &device
        && datapath::guarded(&settings.datapath, tun)
    {
        // Loading programs takes a second or more. Those of the run before judge meanwhile, so the overlay carries again at once.
        let mut overlay = start_overlay(around, HostSide::Tun(tun.clone())).await?;
        routing.decide(network, &settings.failover, Instant::now());
        overlay.set_own_address(network.own_v6.addr());
        overlay.configure(routing.plan(network, &places, &around.control_addresses).peers).await?;
        early = Some(overlay);
    }
    let judged = datapath::Settings { mtu, ..settings.datapath.clone() };
    let opened = block_in_place(|| device.judge(&judged))?;
    let mut datapath = opened.datapath;
    let overlay = match (early, opened.packets) {
        (Some(overlay), None) => overlay,
        (None, None) => match &device {
            Device::Tun(tun) => start_overlay(around, HostSide::Tun(tun.clone())).await?,
            Device::Ethernet { .. } => AnyOverlay::Ethernet(EthernetOverlay),
        },
        (early, Some(channels)) => {
            if let Some(overlay) = early {
                overlay.stop().await;
            }
            start_overlay(around, HostSide::Channels(channels)).await?
        }
    };
    datapath.set_listen_port(overlay.listen_port())?;
    // Before an image comes into force: one that has outlived its age must not pass a single packet.
    let allowance = around.contact.allowance(settings.max_policy_age, around.store.since_contact());
    datapath.set_deadline(allowance.into_iter().chain(kept.cap(datapath.in_force())).min())?;
    around.contact.allowed(allowance, Instant::now());
    around.contact.deadline_set = None;
    let mut lookups = Lookups::default();
    let policy = block_in_place(|| {
        let mut resolved = None;
        let mut exits = work::exits(work::host(&netlink, &sites, settings), &mut lookups, &mut resolved);
        Policy::take_up(around.store.clone(), kept, datapath.as_mut(), &mut exits)
    });
    let known = policy.known(datapath.as_ref());
    let before = around.known.send_replace(known);
    // A stream that is open, or was opened meanwhile, has said what was here before: what is not here any more is not sent again by itself.
    if before.hash.is_some() && known != before {
        around.resync.notify_one();
    }
    let nowhere = around.identity.card.role == Role::Gateway
        && settings.overlay == OverlayKind::Wireguard
        && settings.endpoint.is_none();
    let endpoint =
        nowhere.then(|| "no --endpoint is set: peers are not told where to reach this gateway".to_owned());
    let mut agent = Agent {
        around,
        netlink,
        device,
        overlay,
        datapath,
        policy,
        applied_ms: None,
        capped: true,
        network: None,
        described: NetworkConfig::default(),
        routing,
        plan: Plan::default(),
        links: Vec::new(),
        hints: places.clone(),
        places,
        sites,
        resolved: None,
        lookups,
        flows: Vec::new(),
        counters: Counters::default(),
        names: None,
        capture: None,
        capture_missed: 0,
        trouble: BTreeMap::new(),
    };
    agent.around.contact.ended |= agent.policy.has_ended();
    agent.set_deadline()?;
    agent.note(Trouble::Datapath, opened.degraded);
    agent.note(Trouble::Endpoint, endpoint);
    if agent.around.contact.expelled {
        agent.note(Trouble::Expelled, Some(super::EXPELLED.to_owned()));
    }
    match remembered {
        Ok(Some(network)) => agent.adopt(network).await?,
        Ok(None) => {}
        Err(e) => agent.note(Trouble::Network, Some(format!("{e:#}; control is asked for it"))),
    }
    agent.resolve_egress().await?;
    Ok(agent)
}

async fn start_overlay(around: &Surroundings, host: HostSide) -> anyhow::Result<AnyOverlay> {
    let settings = &around.settings;
    let wireguard = UserspaceSettings {
        key: around.identity.keys.wireguard.clone(),
        port: settings.listen_port(around.identity.card.role),
        mtu: settings.datapath.mtu,
        probe_interval: settings.failover.probe_interval,
        questions: around.questions.clone(),
    };
    UserspaceOverlay::start(wireguard, host).await.map(AnyOverlay::Wireguard)
}

async fn addresses(urls: &Urls) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for url in urls.all() {
        if let Ok(found) = tokio::net::lookup_host((url.host(), url.port())).await {
            addresses.extend(found.map(|address| address.ip()));
        }
    }
    addresses
}
