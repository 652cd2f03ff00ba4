//! A control that enrols anybody, says on the stream what the test wants, and remembers what agents report.

use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa, KeyPair,
    KeyUsagePurpose,
};
use sluicegate_api::agent::agent_server::{Agent, AgentServer};
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{
    Acknowledgement, EnrollRequest, EnrollResponse, Facts, FlowEvent, FlowList, FlowsQuery, Learned,
    ReportRequest, ReportResponse, Schedule, SyncRequest, SyncUpdate,
};
use sluicegate_gateway::config::Role;
use sluicegate_gateway::join::{Fingerprint, Request, join};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Response, Status};

type Updates = mpsc::UnboundedSender<Result<SyncUpdate, Status>>;

/// The control; clones are the same one.
#[derive(Clone)]
pub(crate) struct Control(Arc<Inner>);

struct Inner {
    authority: CertifiedIssuer<'static, KeyPair>,
    said: Mutex<Said>,
}

/// What is said to agents, and what they said.
#[derive(Default)]
struct Said {
    /// Told to every stream that opens.
    updates: Vec<SyncUpdate>,
    stream: Option<Updates>,
    streams: usize,
    refusal: Option<Status>,
    acknowledgements: Vec<Acknowledgement>,
    facts: Option<Facts>,
    lists_flows: bool,
    asked: (u64, Vec<u8>, u32),
    flow_list: Option<FlowList>,
    flows: Vec<FlowEvent>,
    learned: Option<Learned>,
}

impl Control {
    /// Serves on a free port of loopback; needs a tokio runtime, in which it goes on.
    pub(crate) async fn start() -> Result<(Self, SocketAddr)> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec![sluicegate_api::CONTROL_NAME.into()])?;
        let chain = leaf.signed_by(&key, &authority)?.pem() + &authority.pem();
        let control = Self(Arc::new(Inner { authority, said: Mutex::default() }));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(chain, key.serialize_pem()));
        let server = Server::builder().tls_config(tls)?.add_service(AgentServer::new(control.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok((control, address))
    }

    /// Joins an agent whose state is in `state_dir` below `dir`.
    pub(crate) async fn join(&self, address: SocketAddr, dir: &Path) -> Result<()> {
        let setup_key_file = dir.join("setup-key");
        std::fs::write(&setup_key_file, format!("A-KEY#sha256:{}", Fingerprint::of(self.0.authority.der())))?;
        let request = Request {
            control: format!("https://{address}"),
            setup_key_file,
            ca_file: None,
            role: Role::Gateway,
            name: Some("gw".into()),
            dns_labels: Vec::new(),
            state_dir: dir.join("state"),
        };
        join(request).await.map(drop)
    }

    /// Tells the agent, and whoever opens a stream later.
    pub(crate) fn tell(&self, update: Update) {
        self.tell_until(update, None);
    }

    /// The same, with what ends of it.
    pub(crate) fn tell_until(&self, update: Update, schedule: Option<Schedule>) {
        let mut said = self.said();
        let update = SyncUpdate { update: Some(update), schedule };
        said.updates.push(update.clone());
        if let Some(stream) = &said.stream {
            let _ = stream.send(Ok(update));
        }
    }

    /// Says it on the stream that is open, and on no other.
    pub(crate) fn say(&self, update: Update) {
        if let Some(stream) = &self.said().stream {
            let _ = stream.send(Ok(SyncUpdate { update: Some(update), schedule: None }));
        }
    }

    /// How many streams were opened.
    pub(crate) fn streams(&self) -> usize {
        self.said().streams
    }

    /// What an agent said it has when it opened its stream last: revision, hash, and how many ends it knows.
    pub(crate) fn asked(&self) -> (u64, Vec<u8>, u32) {
        self.said().asked.clone()
    }

    /// Says nothing more to streams that open.
    pub(crate) fn fall_silent(&self) {
        self.said().updates.clear();
    }

    /// Ends the stream and refuses the agent, as one that was deleted.
    pub(crate) fn expel(&self) {
        self.refuse(Some(Status::permission_denied("this peer has been deleted from control; join again")));
    }

    /// Has nothing to say for itself.
    pub(crate) fn go_away(&self) {
        self.refuse(Some(Status::unavailable("control is shutting down; connect again")));
    }

    /// Knows the agent again.
    pub(crate) fn come_back(&self) {
        self.refuse(None);
    }

    fn refuse(&self, refusal: Option<Status>) {
        let mut said = self.said();
        if let (Some(status), Some(stream)) = (&refusal, said.stream.take()) {
            let _ = stream.send(Err(status.clone()));
        }
        said.refusal = refusal;
    }

    /// What agents said about the image of `revision`.
    pub(crate) fn acknowledged(&self, revision: u64) -> Option<Acknowledgement> {
        self.said().acknowledgements.iter().rfind(|a| a.revision == revision).cloned()
    }

    /// What an agent said last of its machine.
    pub(crate) fn facts(&self) -> Option<Facts> {
        self.said().facts.clone()
    }

    /// Asks for flows, where the agent said that it answers; what came of the question before.
    pub(crate) fn ask_flows(&self, query: FlowsQuery) -> Option<FlowList> {
        let mut said = self.said();
        if let Some(stream) = said.stream.as_ref().filter(|_| said.lists_flows) {
            let _ = stream.send(Ok(SyncUpdate { update: Some(Update::Flows(query)), schedule: None }));
        }
        said.flow_list.take()
    }

    /// The flow events that came since this was asked last.
    pub(crate) fn flow_events(&self) -> Vec<FlowEvent> {
        std::mem::take(&mut self.said().flows)
    }

    /// What an agent said last of names.
    pub(crate) fn learned(&self) -> Option<Learned> {
        self.said().learned.clone()
    }

    /// As if it had never been told.
    pub(crate) fn forget_learned(&self) {
        self.said().learned = None;
    }

    fn said(&self) -> std::sync::MutexGuard<'_, Said> {
        self.0.said.lock().unwrap()
    }

    fn certificate(&self, request: &str) -> Result<String> {
        let request =
            CertificateSigningRequestParams::from_pem(request).context("the certificate request")?;
        Ok(request.signed_by(&self.0.authority)?.pem())
    }
}

#[tonic::async_trait]
impl Agent for Control {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<SyncUpdate, Status>> + Send>>;

    async fn enroll(
        &self,
        request: tonic::Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let certificate_pem = self
            .certificate(&request.into_inner().csr_pem)
            .map_err(|e| Status::invalid_argument(format!("{e:#}")))?;
        let authority_pem = self.0.authority.pem();
        Ok(Response::new(EnrollResponse { peer_id: "peer-1".into(), certificate_pem, authority_pem }))
    }

    async fn sync(&self, request: tonic::Request<SyncRequest>) -> Result<Response<Self::SyncStream>, Status> {
        let mut said = self.said();
        let request = request.into_inner();
        said.asked = (request.applied_revision, request.applied_hash, request.scheduled);
        (said.facts, said.lists_flows) = (request.facts, request.lists_flows);
        if let Some(refusal) = &said.refusal {
            return Err(refusal.clone());
        }
        let (stream, updates) = mpsc::unbounded_channel();
        for update in &said.updates {
            let _ = stream.send(Ok(update.clone()));
        }
        said.stream = Some(stream);
        said.streams += 1;
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(updates))))
    }

    async fn report(
        &self,
        request: tonic::Request<ReportRequest>,
    ) -> Result<Response<ReportResponse>, Status> {
        let mut said = self.said();
        if let Some(refusal) = &said.refusal {
            return Err(refusal.clone());
        }
        let report = request.into_inner();
        said.acknowledgements.extend(report.acknowledgements);
        said.facts = report.facts.or(said.facts.take());
        said.flows.extend(report.flows);
        said.learned = report.learned.or(said.learned.take());
        said.flow_list = report.flow_list.or(said.flow_list.take());
        Ok(Response::new(ReportResponse {}))
    }
}
