//! The agents' side of control, assembled: authority, compiler driver, hub, flow events, metrics, and their HTTP routes.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::FromRef;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::driver::Driver;
use crate::flows::{self, Flows};
use crate::gateways::{self, GatewaysState};
use crate::geo::Places;
use crate::grpc::{AgentService, ServeError};
use crate::health::{self, HealthState};
use crate::hub::Hub;
use crate::identity::Identity;
use crate::metrics::{Metrics, metrics_page};
use crate::pki::{Authority, PkiError};
use crate::policy_file::{self, Files, Queue};
use crate::posture::{Keeper, Watch};
use crate::store::{Store, StoreError};

/// Everything agents need of control; clones share it.
#[derive(Clone)]
pub struct Agents {
    store: Store,
    hub: Arc<Hub>,
    flows: Arc<Flows>,
    metrics: Metrics,
    authority: Arc<Authority>,
    watch: Arc<Watch>,
    places: Places,
    plans: Arc<Queue>,
    identity: Identity,
}

/// Why the agents' side could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The authority in the data directory.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The metrics' names contradict each other.
    #[error("the metrics could not be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl Agents {
    /// Opens the authority in `directory`, making it on first start. Nothing runs yet. Where agents are is looked up in `places`.
    pub fn open(store: Store, places: Places, directory: &Path) -> Result<Self, OpenError> {
        let authority = Arc::new(Authority::open(directory)?);
        let metrics = Metrics::new()?;
        metrics.show_store(store.observed())?;
        let flows = Flows::new(metrics.clone());
        let hub = Hub::new(metrics.clone(), flows.clone());
        Ok(Self {
            store,
            hub,
            flows,
            metrics,
            authority,
            watch: Arc::default(),
            places,
            plans: Arc::default(),
            identity: Identity::default(),
        })
    }

    /// Lets people log in for machines by what `identity` says.
    #[must_use]
    pub fn knowing(self, identity: Identity) -> Self {
        Self { identity, ..self }
    }

    /// The authority that agents pin.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.authority
    }

    /// What every agent is to enforce and says it does.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// The instruments; REST counts its requests here (see [`crate::metrics::count_requests`]).
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Starts turning changes of the store into images. It ends with the runtime.
    pub fn start_driver(&self) -> JoinHandle<()> {
        let driver =
            Driver::new(self.store.clone(), self.hub.clone(), self.flows.clone(), self.metrics.clone());
        tokio::spawn(driver.run())
    }

    /// When each agent was last heard of.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }

    /// Where addresses are.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// Starts keeping posture true while nobody says anything. It ends with the runtime.
    pub fn start_keeper(&self) -> JoinHandle<()> {
        let keeper = Keeper::new(
            self.store.clone(),
            self.hub.clone(),
            self.watch.clone(),
            self.places.clone(),
            self.metrics.clone(),
        );
        tokio::spawn(keeper.run())
    }

    /// Starts answering other replicas which flows agents here have. It ends with the runtime.
    pub fn start_answering(&self) -> JoinHandle<()> {
        tokio::spawn(self.hub.clone().keep_answering(self.store.clone()))
    }

    /// Starts writing sums of flow events to the store. It ends with the runtime.
    pub fn start_flow_writer(&self) -> JoinHandle<()> {
        tokio::spawn(self.flows.clone().keep_writing(self.store.clone()))
    }

    /// Writes the sums of what was heard of flows so far.
    ///
    /// # Errors
    /// When the store cannot be written: then they wait.
    pub async fn write_flows(&self) -> Result<(), StoreError> {
        self.flows.write(&self.store).await
    }

    /// The same at the end, when nothing more is heard.
    ///
    /// # Errors
    /// As above: then it is noted that something is missing.
    pub async fn write_last_flows(&self) -> Result<(), StoreError> {
        self.flows.write(&self.store).await?;
        if self.flows.are_written() { self.store.flow_sums_are_whole().await } else { Ok(()) }
    }

    /// Serves agents on `listener` until `shutdown` resolves and their streams have ended (see [`Agents::end_streams`]).
    /// The certificate carries `addresses` beside control's own name.
    pub async fn serve(
        &self,
        listener: TcpListener,
        addresses: Vec<IpAddr>,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<(), ServeError> {
        let service = AgentService::new(
            self.store.clone(),
            self.hub.clone(),
            self.authority.clone(),
            self.metrics.clone(),
            self.watch.clone(),
            self.places.clone(),
            self.identity.clone(),
        );
        service.serve(listener, addresses, shutdown).await
    }

    /// Ends agents' streams and flow watchers, so that both listeners can finish. Agents connect again by themselves.
    pub fn end_streams(&self) {
        self.hub.shut_down();
        self.flows.close();
    }

    /// Routes under `/api`, for users who have shown their token: the caller adds the check.
    pub fn api_routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(gateways::list))
            .routes(routes!(gateways::show))
            .routes(routes!(gateways::rules))
            .routes(routes!(flows::http::network_traffic))
            .routes(routes!(flows::http::flow_stream))
            .with_state(self.clone())
            .merge(policy_file::http::routes().merge(policy_file::glass::routes()).with_state(self.files()))
    }

    /// `/healthz` (also as `/livez`), `/readyz` and `/metrics`, which need no token.
    pub fn open_routes(&self) -> OpenApiRouter {
        OpenApiRouter::new()
            .routes(routes!(health::healthz))
            .routes(routes!(health::readyz))
            .route("/livez", get(health::healthz))
            .route("/metrics", get(metrics_page))
            .with_state(self.clone())
            .merge(policy_file::http::open_routes().with_state(self.files()))
    }

    fn files(&self) -> Files {
        Files {
            store: self.store.clone(),
            hub: self.hub.clone(),
            flows: self.flows.clone(),
            places: self.places.clone(),
            plans: self.plans.clone(),
        }
    }
}

impl FromRef<Agents> for Arc<Flows> {
    fn from_ref(agents: &Agents) -> Self {
        agents.flows.clone()
    }
}

impl FromRef<Agents> for Store {
    fn from_ref(agents: &Agents) -> Self {
        agents.store.clone()
    }
}

impl FromRef<Agents> for Places {
    fn from_ref(agents: &Agents) -> Self {
        agents.places.clone()
    }
}

impl FromRef<Agents> for GatewaysState {
    fn from_ref(agents: &Agents) -> Self {
        Self::new(agents.store.clone(), agents.hub.clone())
    }
}

impl FromRef<Agents> for HealthState {
    fn from_ref(agents: &Agents) -> Self {
        Self::new(agents.store.clone(), agents.hub.clone(), agents.authority.clone())
    }
}

impl FromRef<Agents> for Metrics {
    fn from_ref(agents: &Agents) -> Self {
        agents.metrics.clone()
    }
}
