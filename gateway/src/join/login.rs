//! Has a person log in for this machine: control gives a code, the person agrees with any browser or at control itself, and the
//! machine asks until that is so.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use sluicegate_api::agent::{AskLogin, BeginLogin, EnrollRequest, EnrollResponse, LoginBegun};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::{Fingerprint, ask_to_enroll, csr, keep, reachable, refuse_twice, refused, wire_role};
use crate::config::Role;
use crate::control::{LoginClient, Url, Urls, dial_for_login, reason};
use crate::identity::{Card, Identity, Keys};
use crate::{files, system};

/// Time between two questions where control does not say.
const GAP: Duration = Duration::from_secs(2);
/// The longest time between two questions.
const GAP_MAX: Duration = Duration::from_secs(30);
/// The longest that a login is waited for.
const LIFETIME_MAX: Duration = Duration::from_secs(1800);
/// The longest that a machine that was let in tries to join: control lets it for as long.
const JOIN_WITHIN: Duration = Duration::from_secs(600);
/// How long one question may take: control may ask the identity provider meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest text of control that is shown, in characters.
const TEXT_MAX: usize = 300;

/// What `join --login` was asked.
#[derive(Clone, Debug)]
pub struct LoginRequest {
    /// Control's URL, or those of its replicas with commas between them.
    pub control: String,
    /// Control's authority, PEM; without it the fingerprint names it.
    pub ca_file: Option<PathBuf>,
    /// SHA-256 of control's authority.
    pub fingerprint: Option<Fingerprint>,
    /// What to be.
    pub role: Role,
    /// What to be called; the host's name when nothing is said.
    pub name: Option<String>,
    /// Where the identity goes.
    pub state_dir: PathBuf,
}

/// What a person is shown.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Offer {
    /// What somebody who is logged in at control types: `sluice peer admit CODE`.
    pub code: String,
    /// What tells this machine from others there.
    pub fingerprint: String,
    /// What the machine is to be, or is.
    pub role: Role,
    /// Until when it is good, Unix milliseconds.
    pub until_ms: u64,
    /// Where to agree with a browser, and what to type there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub browser: Option<Browser>,
    /// Why there is no browser to agree with, where that should be possible.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub no_browser: String,
}

/// What to do with a browser.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Browser {
    /// Where.
    pub verification_uri: String,
    /// What to type there.
    pub user_code: String,
    /// The same address with the code in it; empty where the provider gives none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub verification_uri_complete: String,
}

/// Joins by a person's login: `tell` shows the person what to do.
pub async fn join_by_login(request: LoginRequest, tell: impl FnOnce(&Offer)) -> anyhow::Result<Card> {
    refuse_twice(&request.state_dir)?;
    let controls = Urls::parse(&request.control)?;
    if request.ca_file.is_none() && request.fingerprint.is_none() {
        bail!(
            "control is not trusted on first sight: give its ca.pem with --ca-file, or its authority's fingerprint with \
             --fingerprint, as GET /api/login of control's REST API says it"
        );
    }
    let (control, authority) = reachable(&controls, request.fingerprint, request.ca_file.as_deref()).await?;
    files::make_dir(&request.state_dir)?;
    let keys = Keys::load_or_make(&request.state_dir)?;
    let name = request.name.unwrap_or_else(system::host_name);
    let (wireguard_public_key, csr_pem) = (keys.public().0.to_vec(), csr(&keys)?);
    let begin = BeginLogin {
        wireguard_public_key: wireguard_public_key.clone(),
        csr_pem: csr_pem.clone(),
        role: wire_role(request.role).into(),
        hostname: name.clone(),
        system: Some(system::info()),
    };
    let person = Person { controls: &controls, authority: &authority, identity: None };
    let secret = person.log_in(control, begin, (fingerprint(&keys)?, request.role), tell).await?;
    let enrolment = EnrollRequest {
        setup_key: secret,
        wireguard_public_key,
        csr_pem,
        role: wire_role(request.role).into(),
        hostname: name.clone(),
        system: Some(system::info()),
        dns_labels: Vec::new(),
    };
    let enrolled = person.join(control, enrolment).await?;
    let card = Card { peer_id: enrolled.peer_id, control: request.control, role: request.role, name };
    keep(Identity { card, keys, certificate: enrolled.certificate_pem, authority }, &request.state_dir)
}

/// Has the user of this agent, whose identity is in `state_dir`, log in on it again.
pub async fn renew(
    state_dir: &Path,
    control: Option<String>,
    tell: impl FnOnce(&Offer),
) -> anyhow::Result<Card> {
    let identity = Identity::load(state_dir)?.with_context(|| {
        format!("no agent has joined with {}; join first: `sluicegate-gateway join`", state_dir.display())
    })?;
    let controls = Urls::parse(control.as_deref().unwrap_or(&identity.card.control))?;
    let person = Person { controls: &controls, authority: &identity.authority, identity: Some(&identity) };
    let first =
        person.anywhere(&controls.all()[0], async |url| person.dial(url).await.map(|_| url.clone())).await?;
    let shown = (fingerprint(&identity.keys)?, identity.card.role);
    person.log_in(&first, BeginLogin::default(), shown, tell).await?;
    Ok(identity.card)
}

/// How a login is asked for.
struct Person<'a> {
    controls: &'a Urls,
    authority: &'a str,
    identity: Option<&'a Identity>,
}

impl Person<'_> {
    async fn dial(&self, url: &Url) -> anyhow::Result<LoginClient> {
        dial_for_login(url, self.authority, self.identity).await
    }

    /// Begins, shows what to do, and waits until somebody has agreed; the secret by which control knows that.
    async fn log_in(
        &self,
        control: &Url,
        begin: BeginLogin,
        (fingerprint, role): (String, Role),
        tell: impl FnOnce(&Offer),
    ) -> anyhow::Result<String> {
        let begun =
            self.dial(control).await?.begin(begin).await.map_err(|status| unbegun(control, &status))?;
        let begun = begun.into_inner();
        let left = Duration::from_millis(begun.left_ms).min(LIFETIME_MAX);
        let until = Instant::now() + left;
        tell(&offer(&begun, fingerprint, role, left));
        let mut gap = gap(begun.wait_ms);
        loop {
            // Asked once more when the time is over: somebody may have agreed at the end of it, and may join after it.
            let is_last = Instant::now() + gap >= until;
            tokio::time::sleep(gap).await;
            // Each time a connection of its own: control keeps none open for whoever has not joined, and any replica will do.
            let asked = self.anywhere(control, async |url| self.ask(url, &begun.secret).await).await;
            let trouble = match asked {
                Ok(Asked::Admitted) => return Ok(begun.secret),
                Ok(Asked::Waiting(wait)) => {
                    gap = wait;
                    None
                }
                Ok(Asked::Over(why)) => bail!("control at {control} let nobody in: {why}"),
                // Control may be back before the login is over.
                Err(error) => Some(error),
            };
            if is_last {
                return Err(
                    trouble.unwrap_or_else(|| anyhow!("nobody agreed to this login in time; begin anew"))
                );
            }
        }
    }

    /// Joins with a login that somebody has agreed to; control may be away for a while, and no person is asked twice for that.
    async fn join(&self, control: &Url, enrolment: EnrollRequest) -> anyhow::Result<EnrollResponse> {
        let until = Instant::now() + JOIN_WITHIN;
        loop {
            match self.anywhere(control, async |url| self.enroll(url, enrolment.clone()).await).await {
                Ok(answer) => return answer,
                Err(error) if Instant::now() + GAP >= until => return Err(error),
                Err(_) => tokio::time::sleep(GAP).await,
            }
        }
    }

    /// The inner error is final: neither asking again nor another replica helps.
    async fn enroll(
        &self,
        url: &Url,
        enrolment: EnrollRequest,
    ) -> anyhow::Result<anyhow::Result<EnrollResponse>> {
        let asked = tokio::time::timeout(PATIENCE, ask_to_enroll(url, self.authority, enrolment)).await;
        let Ok(asked) = asked else {
            bail!("control at {url} did not answer within {} s", PATIENCE.as_secs());
        };
        match asked? {
            Ok(enrolled) => Ok(Ok(enrolled)),
            Err(status) => match status.code() {
                Code::Unavailable
                | Code::DeadlineExceeded
                | Code::Cancelled
                | Code::Unknown
                | Code::ResourceExhausted => Err(refused(url, &status)),
                _ => Ok(Err(refused(url, &status))),
            },
        }
    }

    async fn ask(&self, url: &Url, secret: &str) -> anyhow::Result<Asked> {
        let asked = async {
            let mut client = self.dial(url).await?;
            Ok::<_, anyhow::Error>(client.ask(AskLogin { secret: secret.to_owned() }).await)
        };
        let Ok(asked) = tokio::time::timeout(PATIENCE, asked).await else {
            bail!("control at {url} did not answer within {} s", PATIENCE.as_secs());
        };
        match asked? {
            Ok(state) => {
                let state = state.into_inner();
                Ok(if state.admitted { Asked::Admitted } else { Asked::Waiting(gap(state.wait_ms)) })
            }
            Err(status) => match status.code() {
                Code::PermissionDenied | Code::NotFound => Ok(Asked::Over(shown(status.message()))),
                Code::ResourceExhausted => Ok(Asked::Waiting(GAP_MAX / 2)),
                _ => {
                    Err(anyhow!("control at {url} cannot say what became of the login: {}", reason(&status)))
                }
            },
        }
    }

    /// Of `first`, or of the first other replica that gives it.
    async fn anywhere<T>(
        &self,
        first: &Url,
        ask: impl AsyncFn(&Url) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        let mut failed = match ask(first).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        for url in self.controls.all().iter().filter(|url| *url != first) {
            match ask(url).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failed = anyhow!("{failed:#}; {error:#}"),
            }
        }
        Err(failed)
    }
}

enum Asked {
    Admitted,
    Waiting(Duration),
    Over(String),
}

fn offer(begun: &LoginBegun, fingerprint: String, role: Role, left: Duration) -> Offer {
    let browser = begun.provider.as_ref().map(|provider| Browser {
        verification_uri: shown(&provider.verification_uri),
        user_code: shown(&provider.user_code),
        verification_uri_complete: shown(&provider.verification_uri_complete),
    });
    let until_ms = system::unix_ms() + u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
    Offer {
        code: shown(&begun.code),
        fingerprint,
        role,
        until_ms,
        browser,
        no_browser: shown(&begun.provider_failed),
    }
}

/// The beginning of the SHA-256 of the machine's public key, as control shows it.
fn fingerprint(keys: &Keys) -> anyhow::Result<String> {
    use rcgen::PublicKeyData as _;
    let key = rcgen::KeyPair::from_pem(&keys.tls).context("the TLS key in the state directory is damaged")?;
    let hash = Fingerprint::of(&key.subject_public_key_info()).to_string();
    let groups: Vec<&str> = (0..5).filter_map(|group| hash.get(group * 4..group * 4 + 4)).collect();
    Ok(groups.join("-"))
}

fn gap(wait_ms: u32) -> Duration {
    match wait_ms {
        0 => GAP,
        wait => Duration::from_millis(wait.into()).min(GAP_MAX),
    }
}

/// What others say, without what a terminal would obey.
fn shown(text: &str) -> String {
    text.chars().filter(|char| !char.is_control()).take(TEXT_MAX).collect()
}

fn unbegun(control: &Url, status: &Status) -> anyhow::Error {
    match status.code() {
        Code::Unimplemented => anyhow!(
            "control at {control} knows no logins of machines: it is of an earlier version; join with a setup key"
        ),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            anyhow!("control at {control} cannot be reached: {}", reason(status))
        }
        _ => anyhow!("control at {control} began no login: {}", shown(status.message())),
    }
}
