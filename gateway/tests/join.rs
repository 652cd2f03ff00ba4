//! Joining a control over real TLS: who is believed, who is not, and what is left on disk.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose};
use sluicegate_api::agent::agent_server::{Agent, AgentServer};
use sluicegate_api::agent::logins_server::{Logins, LoginsServer};
use sluicegate_api::agent::{
    AskLogin, BeginLogin, EnrollRequest, EnrollResponse, LoginBegun, LoginState, ReportRequest,
    ReportResponse, SyncRequest, SyncUpdate,
};
use sluicegate_gateway::config::Role;
use sluicegate_gateway::identity::Identity;
use sluicegate_gateway::join::{Fingerprint, LoginRequest, Request, join, join_by_login};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity as TlsIdentity, Server, ServerTlsConfig};
use tonic::{Response, Status};

const GOOD_KEY: &str = "A-GOOD-KEY";

/// A control that knows one setup key and remembers who enrolled. It may fail to enrol so many times first.
#[derive(Clone, Default)]
struct FakeControl(Arc<Mutex<Vec<EnrollRequest>>>, Arc<AtomicUsize>);

/// A person agrees to a login at its end; it is asked about for the first time after that.
#[tonic::async_trait]
impl Logins for FakeControl {
    async fn begin(&self, _: tonic::Request<BeginLogin>) -> Result<Response<LoginBegun>, Status> {
        let (secret, code) = (GOOD_KEY.into(), "BCDF-GHJK".into());
        Ok(Response::new(LoginBegun { secret, code, left_ms: 300, wait_ms: 500, ..LoginBegun::default() }))
    }

    async fn ask(&self, _: tonic::Request<AskLogin>) -> Result<Response<LoginState>, Status> {
        Ok(Response::new(LoginState { admitted: true, wait_ms: 0 }))
    }
}

#[tonic::async_trait]
impl Agent for FakeControl {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<SyncUpdate, Status>> + Send>>;

    async fn enroll(
        &self,
        request: tonic::Request<EnrollRequest>,
    ) -> Result<Response<EnrollResponse>, Status> {
        let request = request.into_inner();
        if request.setup_key != GOOD_KEY {
            return Err(Status::permission_denied("setup key has expired: create a new one"));
        }
        let one_less = |left: usize| left.checked_sub(1);
        if self.1.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_less).is_ok() {
            return Err(Status::unavailable("control could not complete the enrolment; try again"));
        }
        self.0.lock().unwrap().push(request);
        Ok(Response::new(EnrollResponse {
            peer_id: "peer-1".into(),
            certificate_pem: "a certificate".into(),
            authority_pem: "another authority, which must not be believed".into(),
        }))
    }

    async fn sync(&self, _: tonic::Request<SyncRequest>) -> Result<Response<Self::SyncStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }

    async fn report(&self, _: tonic::Request<ReportRequest>) -> Result<Response<ReportResponse>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

/// A control on loopback, and what an agent needs to join it.
struct Bench {
    control: FakeControl,
    url: String,
    authority: String,
    fingerprint: Fingerprint,
    dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        Self::at("127.0.0.1:0").await
    }

    async fn at(address: &str) -> Self {
        // Every test of this process wants the same one; the second attempt to install it is refused, which is fine.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let ca = authority();
        let key = KeyPair::generate().unwrap();
        let leaf = CertificateParams::new(vec![sluicegate_api::CONTROL_NAME.into()]).unwrap();
        let leaf = leaf.signed_by(&key, &ca).unwrap();
        let identity = TlsIdentity::from_pem(leaf.pem() + &ca.pem(), key.serialize_pem());
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let control = FakeControl::default();
        let server = Server::builder()
            .tls_config(ServerTlsConfig::new().identity(identity))
            .unwrap()
            .add_service(AgentServer::new(control.clone()))
            .add_service(LoginsServer::new(control.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        let fingerprint = Fingerprint::of(ca.der());
        Self { control, url, authority: ca.pem(), fingerprint, dir: tempfile::tempdir().unwrap() }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn request(&self, key_file: &str) -> Request {
        Request {
            control: self.url.clone(),
            setup_key_file: self.file("key", key_file),
            ca_file: None,
            role: Role::Gateway,
            name: Some("gw".into()),
            dns_labels: vec!["mail".into()],
            state_dir: self.state(),
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    async fn refusal(&self, request: Request) -> String {
        let error = format!("{:#}", join(request).await.unwrap_err());
        assert!(Identity::load(&self.state()).unwrap().is_none(), "nobody joined: {error}");
        assert!(!error.contains(GOOD_KEY), "the setup key is a secret: {error}");
        error
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

#[tokio::test]
async fn the_fingerprint_in_the_key_file_is_enough_to_know_control() {
    let bench = Bench::new().await;
    let card = join(bench.request(&format!("{GOOD_KEY}#sha256:{}", bench.fingerprint))).await.unwrap();
    assert_eq!(card.peer_id, "peer-1");
    let identity = Identity::load(&bench.state()).unwrap().unwrap();
    assert_eq!(identity.authority.replace(['\r', '\n'], ""), bench.authority.replace(['\r', '\n'], ""));
    let enrolled = bench.control.0.lock().unwrap().remove(0);
    assert_eq!(enrolled.wireguard_public_key, identity.keys.public().0);
    assert_eq!(enrolled.dns_labels, ["mail"]);
    assert!(enrolled.csr_pem.contains("CERTIFICATE REQUEST"));
    assert!(!format!("{enrolled:?}").contains("PRIVATE KEY"), "keys never leave");
}

#[tokio::test]
async fn a_ca_file_is_enough_too_and_joining_twice_is_refused() {
    let bench = Bench::new().await;
    let request =
        Request { ca_file: Some(bench.file("ca.pem", &bench.authority)), ..bench.request(GOOD_KEY) };
    join(request.clone()).await.unwrap();
    let error = format!("{:#}", join(request).await.unwrap_err());
    assert!(error.contains("has joined") && error.contains("run"), "{error}");
    assert_eq!(bench.control.0.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_is_trusted_on_first_sight() {
    let bench = Bench::new().await;
    let error = bench.refusal(bench.request(GOOD_KEY)).await;
    assert!(error.contains("--ca-file"), "{error}");
}

#[tokio::test]
async fn another_fingerprint_or_authority_ends_it_before_the_key_is_sent() {
    let bench = Bench::new().await;
    let error = bench.refusal(bench.request(&format!("{GOOD_KEY}#sha256:{}", "ab".repeat(32)))).await;
    assert!(error.contains("identity"), "{error}");
    let other =
        Request { ca_file: Some(bench.file("ca.pem", &authority().pem())), ..bench.request(GOOD_KEY) };
    let error = bench.refusal(other).await;
    assert!(error.contains("identity"), "{error}");
    assert!(bench.control.0.lock().unwrap().is_empty());
}

/// Whoever shows the authority's certificate, which is public, without a certificate it signed, must not pass.
#[tokio::test]
async fn showing_the_authority_is_not_being_it() {
    let bench = Bench::new().await;
    let impostor = Bench::new().await;
    let ca = authority();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![sluicegate_api::CONTROL_NAME.into()]).unwrap();
    let chain = leaf.signed_by(&key, &ca).unwrap().pem() + &bench.authority;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(TlsIdentity::from_pem(chain, key.serialize_pem())))
        .unwrap()
        .add_service(AgentServer::new(impostor.control.clone()));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    let request =
        Request { control: url, ..bench.request(&format!("{GOOD_KEY}#sha256:{}", bench.fingerprint)) };
    let error = bench.refusal(request).await;
    assert!(error.contains("identity"), "{error}");
    assert!(impostor.control.0.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_refused_key_is_told_as_control_told_it_and_can_be_tried_again() {
    let bench = Bench::new().await;
    let error = bench.refusal(bench.request(&format!("OLD#sha256:{}", bench.fingerprint))).await;
    assert!(error.contains("setup key has expired: create a new one"), "{error}");
    join(bench.request(&format!("{GOOD_KEY}#sha256:{}", bench.fingerprint))).await.unwrap();
}

#[tokio::test]
async fn an_unreachable_control_is_named() {
    let bench = Bench::new().await;
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let request = Request {
        control: format!("https://{free}"),
        ca_file: Some(bench.file("ca.pem", &bench.authority)),
        ..bench.request(GOOD_KEY)
    };
    let error = bench.refusal(request).await;
    assert!(error.contains(&free.to_string()) && error.contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn who_was_let_in_at_the_last_moment_joins_once_control_can_do_it() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let bench = Bench::at(address).await;
        bench.control.1.store(2, Ordering::SeqCst);
        let request = LoginRequest {
            control: bench.url.clone(),
            ca_file: None,
            fingerprint: Some(bench.fingerprint),
            role: Role::Peer,
            name: Some("laptop".into()),
            state_dir: bench.state(),
        };
        let mut shown = None;
        let card = join_by_login(request, |offer| shown = Some(offer.role)).await.unwrap();
        assert_eq!((card.peer_id.as_str(), shown), ("peer-1", Some(Role::Peer)));
        assert_eq!(bench.control.0.lock().unwrap().len(), 1);
    }
}
