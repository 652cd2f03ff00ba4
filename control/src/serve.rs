//! `sluicegate-control serve`: opens the store, listens, and ends cleanly.

mod http;
mod leading;
mod options;
mod sums;
mod trail;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use axum::middleware::from_fn_with_state;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::agents::Agents;
use crate::app::App;
use crate::geo::Places;
use crate::hub::Hub;
use crate::identity::Identity;
use crate::ids::now;
use crate::metrics::count_requests;
use crate::pki::Authority;
use crate::policy_file::glass;
use crate::rest::limits::Remote;
use crate::rest::{self, Extra};
use crate::store::{PeerFacts, Store, StoreError, TOKEN_FILE};
use http::{Bounded, Limits};
pub use options::{Data, DataArgs, Options, ServeArgs};

/// How long requests under way may take after a signal, before the process ends without them.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the end may take to write what was heard last of flows.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// How long an ephemeral peer may be away before it is removed, as NetBird has it.
const EPHEMERAL_LIFETIME: Duration = Duration::from_secs(600);
/// How often that is looked at.
const EPHEMERAL_SWEEP: Duration = Duration::from_secs(60);
/// How often it is looked at whose login has expired: a login is at most this much longer than the settings say.
const EXPIRY_SWEEP: Duration = Duration::from_secs(5);
/// What a router has looked up counts for so long after it has gone, in milliseconds: while it is away nobody keeps it up to date.
const LEARNED: i64 = 3_600_000;

/// Serves until SIGTERM or SIGINT.
pub async fn run(options: Options) -> anyhow::Result<()> {
    let stop = stop_signal()?;
    // Ports first: a start that fails on one leaves nothing behind.
    let http = listen("REST", "--http", options.http).await?;
    let grpc = listen("agents", "--grpc", options.grpc).await?;
    let directory = &options.data.directory;
    let store = Store::open_at(&options.data.store, directory).await?;
    // Before one is made: agents may trust another, whose files are still to be put here.
    store.pin_authority(Authority::stored_fingerprint(directory)?.as_deref()).await?;
    let places = options.geo_database.as_deref().map_or_else(|| Ok(Places::none()), Places::open)?;
    let identity = Identity::new(&options.identity)?;
    let agents = Agents::open(store.clone(), places.clone(), directory)?.knowing(identity.clone());
    let fingerprint = agents.authority().fingerprint();
    store.pin_authority(Some(&fingerprint)).await?;

    let app = App {
        store: store.clone(),
        control_fingerprint: Some(fingerprint.clone().into()),
        places: places.clone(),
        identity,
    };
    let extra = Extra {
        protected: agents.api_routes(),
        open: agents.open_routes(),
        rates: options.rates,
        origins: options.origins,
    };
    let (router, _) = rest::router(app, extra);
    let router = router.layer(from_fn_with_state(agents.metrics().clone(), count_requests));

    let driver = agents.start_driver();
    let sweep = tokio::spawn(sweep_ephemeral(store.clone(), agents.hub().clone()));
    let expire = tokio::spawn(expire_peers(store.clone()));
    let trail = tokio::spawn(trail::keep(store.clone(), options.retention_days));
    let sums = tokio::spawn(sums::keep(store.clone(), options.flow_days));
    let (writer, answering) = (agents.start_flow_writer(), agents.start_answering());
    let glass = tokio::spawn(glass::keep(store.clone(), agents.metrics().clone()));
    let mark = tokio::spawn(mark_streams(store.clone(), agents.clone()));
    let (keeper, atlas) = (agents.start_keeper(), tokio::spawn(places.follow()));
    let addresses: Vec<IpAddr> =
        [grpc.local_addr()?.ip()].into_iter().filter(|address| !address.is_unspecified()).collect();
    let token = directory.join(TOKEN_FILE);
    // Taken away by its reader, or in the directory of the replica that made the account.
    let about_token = match token.exists() {
        true => format!("; the owner's token is in {}", token.display()),
        false => String::new(),
    };
    tracing::info!(
        http = %http.local_addr()?,
        grpc = %grpc.local_addr()?,
        data_dir = %directory.display(),
        store = options.data.store.name(),
        authority_sha256 = fingerprint,
        "control is ready{about_token}",
    );

    let served = {
        let service = router.into_make_service_with_connect_info::<Remote>();
        let rest = axum::serve(Bounded::new(http, Limits::default()), service)
            .with_graceful_shutdown(stopped(stop.clone()));
        let agents_stop = stop.clone();
        let both = async {
            tokio::try_join!(async { rest.await.context("the REST listener failed") }, async {
                agents
                    .serve(grpc, addresses, stopped(agents_stop))
                    .await
                    .context("the agents' listener failed")
            },)
        };
        let deadline = async {
            stopped(stop.clone()).await;
            agents.end_streams();
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            served = both => served.map(drop),
            why = store.lost() => Err(anyhow!(why)),
            () = deadline => {
                tracing::warn!("requests were still under way after {DRAIN:?}; ending without them");
                Ok(())
            }
        }
    };
    sweep.abort();
    expire.abort();
    trail.abort();
    sums.abort();
    writer.abort();
    answering.abort();
    glass.abort();
    mark.abort();
    keeper.abort();
    atlas.abort();
    driver.abort();
    match tokio::time::timeout(LAST_WORDS, agents.write_last_flows()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "what was heard last of flows is in no sum"),
        Err(_) => tracing::warn!(
            "what was heard last of flows is in no sum: the store takes longer than {LAST_WORDS:?}"
        ),
    }
    store.close().await;
    served
}

async fn listen(what: &str, flag: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    use std::io::ErrorKind;
    match TcpListener::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            bail!(
                "{address} for {what} is taken by another program: stop it, or choose another address by {flag}"
            )
        }
        Err(error) => {
            bail!("cannot listen on {address} for {what}: {error}: choose another address by {flag}")
        }
    }
}

/// True from the first SIGTERM or SIGINT on.
fn stop_signal() -> anyhow::Result<watch::Receiver<bool>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: no new requests, waiting for those under way");
        stop.send_replace(true);
        // Held open: a dropped sender would read as a stop as well, and only a signal is one.
        stop.closed().await;
    });
    Ok(stopped)
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn sweep_ephemeral(store: Store, hub: Arc<Hub>) {
    let lifetime = i64::try_from(EPHEMERAL_LIFETIME.as_millis()).unwrap_or(i64::MAX);
    // Not before every agent has had as long to come back as it may stay away: what the store says of connections is
    // from before control was stopped.
    let mut ticks =
        tokio::time::interval_at(tokio::time::Instant::now() + EPHEMERAL_LIFETIME, EPHEMERAL_SWEEP);
    loop {
        ticks.tick().await;
        if let Err(error) = note_heard(&store, &hub).await {
            tracing::warn!(%error, "cannot note which peers without an agent are heard of");
            continue;
        }
        if !*store.leads().borrow() {
            continue;
        }
        match store.delete_stale_ephemeral(now() - lifetime).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "removed ephemeral peers that stayed away"),
            Err(error) => tracing::warn!(%error, "ephemeral peers that stayed away could not be removed"),
        }
    }
}

/// Notices peers whose user has to log in again; and lets go of what absent routers had looked up, and of what nobody follows the
/// account by any more.
async fn expire_peers(store: Store) {
    let mut ticks = tokio::time::interval(EXPIRY_SWEEP);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if !*store.leads().borrow() {
            continue;
        }
        match store.expire_peers().await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "logins of peers expired"),
            Err(error) => tracing::warn!(%error, "it could not be seen which peers' logins have expired"),
        }
        match store.forget_learned(now() - LEARNED).await {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "what routers had looked up that stayed away was let go"),
            Err(error) => tracing::warn!(%error, "what absent routers had looked up could not be let go"),
        }
        if let Err(error) = store.forget_touched().await {
            tracing::warn!(%error, "what was written down of old changes could not be removed");
        }
    }
}

/// Peers without an agent are there for as long as the agents they talk to hear of them.
async fn note_heard(store: &Store, hub: &Hub) -> Result<(), StoreError> {
    let mut peers = store.peers_without_agent().await?;
    if !peers.is_empty() {
        let live = hub.live_links();
        peers.retain(|peer| live.contains(peer));
    }
    store.peers_heard(&peers).await
}

/// After a time without word from the database, in which the other replicas took this one for gone: its agents are here.
async fn mark_streams(store: Store, agents: Agents) {
    let mut returned = store.returned();
    while returned.changed().await.is_ok() {
        // What agents said may have been taken for too old.
        agents.watch().forget_marks();
        for peer in agents.hub().streams() {
            match store.peer_seen(&peer, &PeerFacts::default()).await {
                Ok(()) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => tracing::warn!(peer, %error, "cannot note that an agent is connected"),
            }
        }
    }
}
