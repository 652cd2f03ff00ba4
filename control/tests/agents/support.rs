//! A control service and machines that talk to it as agents do.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use sluicegate_api::CONTROL_NAME;
use sluicegate_api::agent::agent_client::AgentClient;
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{
    Acknowledgement, EnrollRequest, EnrollResponse, NetworkConfig, ReportRequest, Role, SyncRequest,
    SyncUpdate,
};
use sluicegate_api::image::{Delta, Image};
use sluicegate_control::agents::Agents;
use sluicegate_control::geo::Places;
use sluicegate_control::identity::Identity as Known;
use sluicegate_control::store::{
    Action, Actor, End, GroupChange, NetworkChange, NewSetupKey, PolicyChange, Protocol, ResourceChange,
    RouterChange, RuleChange, RuleSpec, Store,
};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Status, Streaming};

/// Far beyond what anything here takes on a loaded machine: only a hang reaches it.
const HANG: Duration = Duration::from_secs(60);

/// The future's value; a hang fails the test with a sentence.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(HANG, future)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing happened for {HANG:?}"))
}

/// A running control service.
pub(crate) struct Control {
    pub(crate) store: Store,
    pub(crate) agents: Agents,
    pub(crate) address: SocketAddr,
    identity: Known,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    driver: JoinHandle<()>,
    tasks: [JoinHandle<()>; 2],
    dir: TempDir,
}

impl Control {
    pub(crate) async fn start() -> Self {
        Self::start_on("127.0.0.1:0").await
    }

    pub(crate) async fn start_on(address: &str) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), address).await
    }

    /// With people of an identity provider.
    pub(crate) async fn start_known(address: &str, identity: Known) -> Self {
        Self::start_knowing(tempfile::tempdir().unwrap(), address, identity).await
    }

    /// Two of them on one PostgreSQL database, with one authority.
    pub(crate) async fn replicas() -> [Self; 2] {
        Self::replicas_known(Known::default()).await
    }

    /// The same, with people of an identity provider.
    pub(crate) async fn replicas_known(identity: Known) -> [Self; 2] {
        let (url, first, second) =
            (crate::postgres::database(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for dir in [&first, &second] {
            crate::stores::belongs(dir.path(), &url);
        }
        let first = Self::start_knowing(first, "127.0.0.1:0", identity.clone()).await;
        for file in ["ca.pem", "ca.key"] {
            std::fs::copy(first.dir.path().join(file), second.path().join(file)).unwrap();
        }
        [first, Self::start_knowing(second, "127.0.0.1:0", identity).await]
    }

    async fn start_in(dir: TempDir, address: &str) -> Self {
        Self::start_knowing(dir, address, Known::default()).await
    }

    async fn start_knowing(dir: TempDir, address: &str, identity: Known) -> Self {
        // Another test of this process may have been first.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let store = open(dir.path()).await;
        let agents =
            Agents::open(store.clone(), Places::none(), dir.path()).unwrap().knowing(identity.clone());
        let driver = agents.start_driver();
        let tasks = [agents.start_flow_writer(), agents.start_answering()];
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = agents.clone();
        let serving = tokio::spawn(async move {
            let shutdown = async { drop(stopped.await) };
            service.serve(listener, Vec::new(), shutdown).await.unwrap();
        });
        Self { store, agents, address, identity, stop, serving, driver, tasks, dir }
    }

    /// Ends the service as a process that is asked to stop does, and starts it again over the same directory.
    pub(crate) async fn restart(self) -> Self {
        self.start_again(true).await
    }

    /// The same, of one that has no time to write what it heard last of flows.
    pub(crate) async fn restart_killed(self) -> Self {
        self.start_again(false).await
    }

    async fn start_again(self, in_order: bool) -> Self {
        self.agents.end_streams();
        self.stop.send(()).unwrap();
        soon("the service ends", self.serving).await.unwrap();
        self.driver.abort();
        let _ = self.driver.await;
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        if in_order {
            self.agents.write_last_flows().await.unwrap();
        }
        self.store.close().await;
        drop((self.store, self.agents));
        Self::start_knowing(self.dir, "127.0.0.1:0", self.identity).await
    }

    /// Runs statements on the database beside the store: `text[0]` over SQLite, `text[1]` over PostgreSQL.
    pub(crate) async fn sql(&self, text: [&str; 2]) {
        let statement = |text: &str| sqlx::raw_sql(sqlx::AssertSqlSafe(text.to_owned()));
        match crate::stores::url(self.dir.path()) {
            None => {
                statement(text[0]).execute(&mut self.sqlite().await).await.unwrap();
            }
            Some(url) => {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                statement(text[1]).execute(&mut connection).await.unwrap();
            }
        }
    }

    /// The one text that a query gives.
    pub(crate) async fn sql_text(&self, query: &'static str) -> String {
        match crate::stores::url(self.dir.path()) {
            None => sqlx::query_scalar(query).fetch_one(&mut self.sqlite().await).await.unwrap(),
            Some(url) => {
                let mut connection = PgConnection::connect(&url).await.unwrap();
                sqlx::query_scalar(query).fetch_one(&mut connection).await.unwrap()
            }
        }
    }

    async fn sqlite(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.dir.path().join("control.db")).connect().await.unwrap()
    }

    /// The token that a new account begins with.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("bootstrap-token")).unwrap().trim().to_owned()
    }

    pub(crate) fn ca(&self) -> String {
        self.agents.authority().pem().to_owned()
    }

    pub(crate) async fn setup_key(&self, reusable: bool) -> String {
        self.setup_key_with(reusable, 0).await.1
    }

    /// Id and text of a new key.
    pub(crate) async fn setup_key_with(&self, reusable: bool, expires_in: i64) -> (String, String) {
        let new = NewSetupKey {
            name: format!("key {}", rand::random::<u32>()),
            reusable,
            expires_in,
            usage_limit: 0,
            ephemeral: false,
            allow_extra_dns_labels: false,
            auto_groups: Vec::new(),
        };
        let (key, text) = self.store.create_setup_key(&Actor::system(), new).await.unwrap();
        (key.id, text)
    }

    /// Enrols a machine.
    pub(crate) async fn join(&self, role: Role) -> FakeAgent {
        let key = self.setup_key(false).await;
        let machine = Machine::new(role);
        let joined = machine.enroll(self, &self.ca(), &key).await.unwrap();
        FakeAgent { machine, joined, held: None, network: None }
    }

    /// Waits until the images stand for everything done so far.
    pub(crate) async fn settled(&self) {
        let revision = self.store.revision().await.unwrap();
        soon("a compilation", self.agents.hub().compiled(revision)).await;
    }

    pub(crate) async fn group(&self, name: &str, peers: &[&FakeAgent]) -> String {
        let peers = peers.iter().map(|agent| agent.id()).collect();
        let change = GroupChange { name: name.into(), peers, resources: Vec::new() };
        self.store.create_group(&Actor::system(), change).await.unwrap().id
    }

    /// A network with one resource, routed by one agent; the resource's id.
    pub(crate) async fn site(&self, name: &str, address: &str, gateway: &FakeAgent, group: &str) -> String {
        let actor = Actor::system();
        let network = NetworkChange { name: name.into(), description: String::new() };
        let network = self.store.create_network(&actor, network).await.unwrap().id;
        let resource = ResourceChange {
            name: format!("{name} resource"),
            description: String::new(),
            address: address.into(),
            enabled: true,
            groups: vec![group.to_owned()],
        };
        let resource = self.store.create_resource(&actor, &network, resource).await.unwrap().id;
        let router = RouterChange {
            peer: Some(gateway.id()),
            peer_groups: Vec::new(),
            metric: 100,
            masquerade: true,
            enabled: true,
        };
        self.store.create_router(&actor, &network, router).await.unwrap();
        resource
    }

    /// Removes the policy that a new account begins with.
    pub(crate) async fn no_default_policy(&self) {
        for policy in self.store.policies().await.unwrap() {
            self.store.delete_policy(&Actor::system(), &policy.id).await.unwrap();
        }
    }

    /// A policy of one TCP rule between groups; its id.
    pub(crate) async fn policy(&self, name: &str, from: &str, to: &str, port: u16) -> String {
        self.store.create_policy(&Actor::system(), policy(name, from, to, port)).await.unwrap().id
    }

    pub(crate) async fn set_port(&self, id: &str, name: &str, from: &str, to: &str, port: u16) {
        self.store.update_policy(&Actor::system(), id, policy(name, from, to, port)).await.unwrap();
    }
}

/// The lock of a store that was just dropped goes with its last task.
async fn open(dir: &Path) -> Store {
    soon("the store opens", async {
        loop {
            match crate::stores::open(dir).await {
                Ok(store) => return store,
                Err(sluicegate_control::store::OpenError::InUse(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await
}

pub(crate) fn policy(name: &str, from: &str, to: &str, port: u16) -> PolicyChange {
    let spec = RuleSpec {
        name: name.into(),
        description: String::new(),
        enabled: true,
        action: Action::Accept,
        bidirectional: false,
        protocol: Protocol::Tcp,
        ports: vec![port],
        port_ranges: Vec::new(),
        authorized_groups: Default::default(),
        sources: End::Groups(vec![from.into()]),
        destinations: End::Groups(vec![to.into()]),
    };
    let rules = vec![RuleChange { id: None, spec }];
    PolicyChange {
        name: name.into(),
        description: String::new(),
        enabled: true,
        source_posture_checks: Vec::new(),
        rules,
    }
}

/// A machine that wants to join: its keys never leave it.
pub(crate) struct Machine {
    pub(crate) role: Role,
    pub(crate) wireguard: Vec<u8>,
    pub(crate) tls: KeyPair,
}

impl Machine {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, wireguard: rand::random::<[u8; 32]>().to_vec(), tls: KeyPair::generate().unwrap() }
    }

    pub(crate) fn request(&self, setup_key: &str) -> EnrollRequest {
        let csr = CertificateParams::default().serialize_request(&self.tls).unwrap();
        EnrollRequest {
            setup_key: setup_key.into(),
            wireguard_public_key: self.wireguard.clone(),
            csr_pem: csr.pem().unwrap(),
            role: self.role.into(),
            hostname: "machine".into(),
            system: None,
            dns_labels: Vec::new(),
        }
    }

    pub(crate) async fn enroll(
        &self,
        control: &Control,
        ca: &str,
        setup_key: &str,
    ) -> Result<EnrollResponse, Status> {
        let mut client =
            connect(control.address, ca, None).await.map_err(|e| Status::unknown(e.to_string()))?;
        Ok(client.enroll(self.request(setup_key)).await?.into_inner())
    }
}

/// An agent's connection; `Err` when TLS fails.
pub(crate) async fn connect(
    address: SocketAddr,
    ca: &str,
    identity: Option<Identity>,
) -> Result<AgentClient<Channel>, tonic::transport::Error> {
    Ok(AgentClient::new(channel(address, ca, identity).await?).max_decoding_message_size(64 << 20))
}

/// The same, for whatever is said on it.
pub(crate) async fn channel(
    address: SocketAddr,
    ca: &str,
    identity: Option<Identity>,
) -> Result<Channel, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca)).domain_name(CONTROL_NAME);
    if let Some(identity) = identity {
        tls = tls.identity(identity);
    }
    Endpoint::from_shared(format!("https://{address}"))?.tls_config(tls)?.connect().await
}

/// A machine that has joined.
pub(crate) struct FakeAgent {
    pub(crate) machine: Machine,
    pub(crate) joined: EnrollResponse,
    pub(crate) held: Option<(u64, Image)>,
    pub(crate) network: Option<NetworkConfig>,
}

/// An agent's open stream.
pub(crate) struct Session {
    pub(crate) client: AgentClient<Channel>,
    pub(crate) stream: Streaming<SyncUpdate>,
}

impl FakeAgent {
    pub(crate) fn id(&self) -> String {
        self.joined.peer_id.clone()
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity::from_pem(&self.joined.certificate_pem, self.machine.tls.serialize_pem())
    }

    pub(crate) async fn client(&self, control: &Control) -> AgentClient<Channel> {
        connect(control.address, &self.joined.authority_pem, Some(self.identity())).await.unwrap()
    }

    /// Opens the stream, telling what is held.
    pub(crate) async fn sync(&self, control: &Control) -> Result<Session, Status> {
        self.open(control, SyncRequest::default()).await
    }

    /// The same, as an agent that answers when it is asked for its flows.
    pub(crate) async fn sync_listing(&self, control: &Control) -> Session {
        let request = SyncRequest { lists_flows: true, ..SyncRequest::default() };
        self.open(control, request).await.unwrap()
    }

    /// The same, as an agent that ends grants by itself.
    pub(crate) async fn sync_following(&self, control: &Control) -> Session {
        let request = SyncRequest { follows_schedules: true, ..SyncRequest::default() };
        self.open(control, request).await.unwrap()
    }

    async fn open(&self, control: &Control, request: SyncRequest) -> Result<Session, Status> {
        let mut client = self.client(control).await;
        let (applied_revision, applied_hash) = match &self.held {
            Some((revision, image)) => (*revision, image.hash().to_vec()),
            None => (0, Vec::new()),
        };
        let request = SyncRequest {
            applied_revision,
            applied_hash,
            protocol: sluicegate_api::PROTOCOL,
            follows_network: true,
            ..request
        };
        let stream = client.sync(request).await?.into_inner();
        Ok(Session { client, stream })
    }

    /// Takes messages, without a word to control, until an image comes; says of what kind it was.
    pub(crate) async fn take(&mut self, session: &mut Session) -> &'static str {
        loop {
            let message = soon("an update", session.stream.message()).await.unwrap();
            match message.and_then(|message| message.update).expect("the stream goes on") {
                Update::Network(network) => self.network = Some(network),
                Update::NetworkChange(change) => {
                    self.network = Some(change.apply(self.network.take().unwrap()).unwrap());
                }
                Update::Flows(query) => panic!("{query:?} was not expected"),
                Update::Snapshot(snapshot) => {
                    let image = Image::decode(&snapshot.image).unwrap();
                    assert_eq!(image.hash().to_vec(), snapshot.hash);
                    assert!(
                        self.held.as_ref().is_none_or(|(held, _)| snapshot.revision > *held),
                        "revisions rise"
                    );
                    self.held = Some((snapshot.revision, image));
                    return "snapshot";
                }
                Update::Delta(delta) => {
                    let (revision, base) = self.held.as_ref().expect("a delta needs a base");
                    assert_eq!((*revision, base.hash().to_vec()), (delta.base_revision, delta.base_hash));
                    let image = base.apply(&Delta::decode(&delta.delta).unwrap()).unwrap();
                    assert_eq!(image.hash().to_vec(), delta.hash, "the delta leads to the announced image");
                    assert!(delta.revision > *revision, "revisions rise");
                    self.held = Some((delta.revision, image));
                    return "delta";
                }
            }
        }
    }

    /// Takes the next image and acknowledges it.
    pub(crate) async fn apply(&mut self, session: &mut Session) -> &'static str {
        let kind = self.take(session).await;
        self.acknowledge(session, "").await;
        kind
    }

    /// Says that the held image is in force, or why it is not.
    pub(crate) async fn acknowledge(&self, session: &mut Session, refusal: &str) {
        let (revision, image) = self.held.as_ref().unwrap();
        let acknowledgement = Acknowledgement {
            revision: *revision,
            hash: image.hash().to_vec(),
            applied: refusal.is_empty(),
            apply_microseconds: 2_500,
            refusal: refusal.into(),
        };
        let report = ReportRequest { acknowledgements: vec![acknowledgement], ..ReportRequest::default() };
        session.client.report(report).await.unwrap();
    }

    /// Says that an image is in force.
    pub(crate) async fn say(&self, session: &mut Session, revision: u64, hash: &[u8]) {
        let acknowledgement =
            Acknowledgement { revision, hash: hash.to_vec(), applied: true, ..Acknowledgement::default() };
        let report = ReportRequest { acknowledgements: vec![acknowledgement], ..ReportRequest::default() };
        session.client.report(report).await.unwrap();
    }

    pub(crate) fn revision(&self) -> u64 {
        self.held.as_ref().unwrap().0
    }
}
