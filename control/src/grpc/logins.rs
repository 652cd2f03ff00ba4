//! Logins of people for machines that reach nothing but this service.
//!
//! Where there is an identity provider that knows the device flow, it is begun there, and asked what became of it whenever the
//! machine asks: a machine that has gone costs the provider nothing. The provider's device code and token stay here.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sluicegate_api::agent::logins_server::Logins;
use sluicegate_api::agent::{AskLogin, BeginLogin, LoginBegun, LoginState, ProviderLogin};
use tonic::{Code, Request, Response, Status};

use super::enroll::{Refusal, role, wireguard};
use super::{AgentService, caller, clip, facts, source, store_status};
use crate::identity::oidc::{Begun, Polled, TokenError};
use crate::ids::now;
use crate::pki::AgentRequest;
use crate::sealed;
use crate::secret::{SecretHash, machine_login_hash, new_machine_login};
use crate::store::{
    BeginError, MachineLogin, MachineLoginState, NewMachineLogin, Role, Sealed, Store, StoreError,
};

/// Label values of `machine_logins_total`.
pub(crate) const RESULTS: [&str; 5] = ["begun", "not_begun", "admitted", "refused", "over"];

/// Milliseconds between two questions of a machine.
const ASK_GAP: u32 = 2_000;
/// By how much the provider is asked less often when it wants that (RFC 8628, section 3.5), in milliseconds.
const SLOWER: i64 = 5_000;
/// How long a machine waits for the answer to one question; what the provider said is taken in meanwhile, and after it.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// For how long it is tried to take in what the provider said: a login is good for no longer.
const TAKEN_IN_WITHIN: Duration = Duration::from_secs(600);
/// Between two attempts at that.
const AGAIN: Duration = Duration::from_secs(3);

#[tonic::async_trait]
impl Logins for AgentService {
    async fn begin(&self, request: Request<BeginLogin>) -> Result<Response<LoginBegun>, Status> {
        let begun = self.begin_login(request).await;
        self.count_login(if begun.is_ok() { "begun" } else { "not_begun" });
        begun.map(Response::new)
    }

    async fn ask(&self, request: Request<AskLogin>) -> Result<Response<LoginState>, Status> {
        if let Some(from) = source(&request) {
            let counted = self.logins.ask(from, Instant::now());
            counted.map_err(|wait| Status::resource_exhausted(too_often(wait)))?;
        }
        let asked = self.ask_login(&request.into_inner().secret).await;
        // A machine asks until it is told one of these, and then no more.
        match &asked {
            Ok(state) if state.admitted => self.count_login("admitted"),
            Err(status) if status.code() == Code::PermissionDenied => self.count_login("refused"),
            Err(status) if status.code() == Code::NotFound => self.count_login("over"),
            _ => {}
        }
        asked.map(Response::new)
    }
}

impl AgentService {
    fn count_login(&self, result: &str) {
        self.metrics.machine_logins.with_label_values(&[result]).inc();
    }

    async fn begin_login(&self, request: Request<BeginLogin>) -> Result<LoginBegun, Status> {
        let from = source(&request);
        if let Some(from) = from {
            let counted = self.logins.begin(from, Instant::now());
            counted.map_err(|wait| Status::resource_exhausted(too_often(wait)))?;
        }
        let peer = match request.peer_certs().is_some_and(|chain| !chain.is_empty()) {
            true => Some(caller(&request)?),
            false => None,
        };
        let request = request.into_inner();
        let secret = new_machine_login();
        let Some(hash) = machine_login_hash(&secret) else {
            return Err(Status::internal("the secret is malformed"));
        };
        let machine = Machine { hash, from };
        let mut new = match &peer {
            Some(id) => machine.joined(&self.store, id).await?,
            None => machine.newcomer(&request)?,
        };
        // Whoever finds no room does not make us ask the provider.
        if peer.is_none() {
            self.store.room_for_login(from).await.map_err(begin_status)?;
        }
        let (begun, provider_failed) = match new.role {
            Role::Peer => self.at_provider().await,
            // The provider's page does not say what is let in there: routes of a site are for who sees that.
            Role::Gateway => (None, String::new()),
        };
        if let Some(begun) = &begun {
            let sealed = sealed::seal(&secret, &begun.device_code);
            let code = sealed.ok_or_else(|| Status::internal("the system gave no random bytes"))?;
            let milliseconds = |seconds: u64| i64::try_from(seconds.saturating_mul(1000)).unwrap_or(i64::MAX);
            let (gap, lifetime) = (milliseconds(begun.interval), milliseconds(begun.expires_in));
            new.device = Some(Sealed { code, gap, lifetime });
        }
        let (code, expires_at) = self.store.begin_login(&new).await.map_err(begin_status)?;
        let from = from.map(|ip| ip.to_string()).unwrap_or_default();
        tracing::info!(from, hostname = new.hostname, peer, "a machine waits for somebody to log in for it");
        let provider = begun.map(|begun| ProviderLogin {
            verification_uri: begun.verification_uri,
            user_code: begun.user_code,
            verification_uri_complete: begun.verification_uri_complete,
        });
        let left_ms = expires_at.saturating_sub(now()).max(0).unsigned_abs();
        Ok(LoginBegun { secret, code, left_ms, wait_ms: ASK_GAP, provider, provider_failed })
    }

    async fn ask_login(&self, secret: &str) -> Result<LoginState, Status> {
        if let Some(state) = self.state(secret).await? {
            return Ok(state);
        }
        if let Some(sealed) = self.store.due_device_code(secret).await.map_err(store_status)? {
            // The machine may go away: what the provider says once is taken in to its end.
            let (service, secret) = (self.clone(), secret.to_owned());
            let asked = tokio::spawn(async move { service.ask_provider(&secret, sealed).await });
            if let Ok(asked) = tokio::time::timeout(ANSWER_WITHIN, asked).await {
                asked.map_err(|error| Status::internal(error.to_string()))?;
            }
        }
        let state = self.state(secret).await?;
        Ok(state.unwrap_or(LoginState { admitted: false, wait_ms: ASK_GAP }))
    }

    /// What the machine is told; `None` while nobody has agreed.
    async fn state(&self, secret: &str) -> Result<Option<LoginState>, Status> {
        let Some(login) = self.store.machine_login(secret).await.map_err(store_status)? else {
            return Err(Status::not_found("this login is over: nobody agreed to it in time; begin anew"));
        };
        match login.state {
            MachineLoginState::Waiting => Ok(None),
            MachineLoginState::Admitted => Ok(Some(LoginState { admitted: true, wait_ms: 0 })),
            MachineLoginState::Refused(why) => Err(Status::permission_denied(why)),
        }
    }

    /// Begins at the provider, where there is one that may let machines in; and why not where it should have been possible.
    async fn at_provider(&self) -> (Option<Begun>, String) {
        let Some(provider) = self.identity.provider().filter(|provider| provider.options().machine_logins)
        else {
            return (None, String::new());
        };
        match provider.begin_device().await {
            Ok(begun) => (begun, String::new()),
            Err(reason) => {
                tracing::warn!(reason, "no login could be begun at the identity provider");
                (None, "the identity provider gives no code to log in with now".into())
            }
        }
    }

    /// Asks the provider what became of a login, and does what follows from it.
    async fn ask_provider(&self, secret: &str, device_code: Vec<u8>) {
        let Some(provider) = self.identity.provider() else { return };
        let Some(device_code) = sealed::open(secret, device_code) else { return };
        let done = match provider.poll_device(&device_code).await {
            Polled::Pending => self.store.device_code_waits(secret, 0).await,
            Polled::Slower => self.store.device_code_waits(secret, SLOWER).await,
            Polled::Token(token) => self.take_in(secret, &token).await,
            Polled::Over(code) => self.store.fail_login(secret, &over(&code)).await,
        };
        if let Err(error) = done {
            tracing::warn!(%error, "it could not be kept what became of a login");
        }
    }

    /// Lets the machine in by a token, which the provider gives once: what fails for a while is tried again while the login lives.
    async fn take_in(&self, secret: &str, token: &str) -> Result<(), StoreError> {
        let until = Instant::now() + TAKEN_IN_WITHIN;
        loop {
            let why = match self.admit(secret, token).await {
                Ok(()) => return Ok(()),
                Err(NotAdmitted::Refused(why)) => return self.store.fail_login(secret, &why).await,
                Err(NotAdmitted::Now(why)) => why,
            };
            tracing::warn!(why, "a login at the identity provider could not be taken in, and is tried again");
            // Another replica that asks the provider meanwhile would hear that the code is used up.
            let held = self.store.hold_device_code(secret).await;
            tokio::time::sleep(AGAIN).await;
            let login = self.store.machine_login(secret).await;
            let waits = |login: MachineLogin| login.state == MachineLoginState::Waiting;
            if login.is_ok_and(|login| !login.is_some_and(waits)) {
                return Ok(());
            }
            if Instant::now() >= until {
                return held;
            }
        }
    }

    /// Lets the machine in as one of the token's user.
    async fn admit(&self, secret: &str, token: &str) -> Result<(), NotAdmitted> {
        let claims = self.identity.verify(token).await.map_err(|error| match error {
            TokenError::Unavailable(reason) => NotAdmitted::Now(reason),
            error => NotAdmitted::Refused(format!("the identity provider's token is of no use: {error}")),
        })?;
        let person = &claims.person;
        let user = self.store.sign_in(person, |claim| claims.groups_at_login(claim)).await?;
        Ok(self.store.admit_by_provider(&user, secret).await?)
    }
}

/// Why a machine is not let in by a token.
enum NotAdmitted {
    /// For good; what the machine is told.
    Refused(String),
    /// Something failed that may work later; for the log.
    Now(String),
}

impl From<StoreError> for NotAdmitted {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Denied(_) | StoreError::Invalid(_) | StoreError::NotFound { .. } => {
                Self::Refused(error.to_string())
            }
            error => Self::Now(error.to_string()),
        }
    }
}

/// Where a machine asks from, and its secret.
struct Machine {
    hash: SecretHash,
    from: Option<IpAddr>,
}

impl Machine {
    /// One that is a peer already.
    async fn joined(self, store: &Store, id: &str) -> Result<NewMachineLogin, Status> {
        let peer = store.peer(id).await.map_err(store_status)?;
        Ok(NewMachineLogin {
            hash: self.hash,
            identity_key: store.identity_key(id).await.map_err(store_status)?,
            wireguard_public_key: peer.wireguard_public_key,
            role: peer.role,
            hostname: peer.name,
            os: peer.os,
            from: self.from,
            peer: Some(peer.id),
            device: None,
        })
    }

    /// One that is to join.
    fn newcomer(self, request: &BeginLogin) -> Result<NewMachineLogin, Refusal> {
        let csr = AgentRequest::from_pem(&request.csr_pem)
            .map_err(|error| Refusal::BadRequest(error.to_string()))?;
        Ok(NewMachineLogin {
            hash: self.hash,
            identity_key: csr.key_hash(),
            wireguard_public_key: wireguard(&request.wireguard_public_key)?,
            role: role(request.role())?,
            hostname: clip(&request.hostname),
            os: facts(request.system.as_ref(), self.from).os,
            from: self.from,
            peer: None,
            device: None,
        })
    }
}

/// Why the provider let nobody in (RFC 8628, section 3.5).
fn over(code: &str) -> String {
    match code {
        "access_denied" | "authorization_declined" => {
            "the login was declined at the identity provider".into()
        }
        "expired_token" => "nobody agreed at the identity provider in time; begin anew".into(),
        code => format!("the identity provider let nobody in: {code}"),
    }
}

fn too_often(wait: std::time::Duration) -> String {
    format!("too many logins from this address; wait {} s and try again", wait.as_secs() + 1)
}

fn begin_status(error: BeginError) -> Status {
    match error {
        BeginError::Here | BeginError::Everywhere => Status::resource_exhausted(error.to_string()),
        BeginError::NoLogin => Status::failed_precondition(error.to_string()),
        BeginError::Store(error) => store_status(error),
    }
}
