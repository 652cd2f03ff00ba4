//! Exchanges a setup key, or the login of a person, for an identity.

mod login;
mod pin;
mod setup_key;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sluicegate_api::agent;
use tonic::Code;

pub use login::{Browser, LoginRequest, Offer, join_by_login, renew};
pub use setup_key::{Fingerprint, SetupKey};

use crate::config::Role;
use crate::control::{Url, Urls, dial_for_enrolment, reason};
use crate::identity::{self, Card, Identity, Keys};
use crate::{files, system};

/// What `join` was asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Control's URL, or those of its replicas with commas between them.
    pub control: String,
    /// The file with the setup key.
    pub setup_key_file: PathBuf,
    /// Control's authority, PEM; without it the fingerprint in the key file names it.
    pub ca_file: Option<PathBuf>,
    /// What to be.
    pub role: Role,
    /// What to be called; the host's name when nothing is said.
    pub name: Option<String>,
    /// DNS labels asked for beside the one that control makes of the name.
    pub dns_labels: Vec<String>,
    /// Where the identity goes.
    pub state_dir: PathBuf,
}

/// Joins: makes keys, verifies control, enrols, stores the identity.
pub async fn join(request: Request) -> anyhow::Result<Card> {
    refuse_twice(&request.state_dir)?;
    let controls = Urls::parse(&request.control)?;
    let setup_key = SetupKey::read(&request.setup_key_file)?;
    let (control, authority) = reachable(&controls, setup_key.authority, request.ca_file.as_deref()).await?;
    files::make_dir(&request.state_dir)?;
    let keys = Keys::load_or_make(&request.state_dir)?;
    let name = request.name.unwrap_or_else(system::host_name);
    let enrolment = agent::EnrollRequest {
        setup_key: setup_key.key.to_string(),
        wireguard_public_key: keys.public().0.to_vec(),
        csr_pem: csr(&keys)?,
        role: wire_role(request.role).into(),
        hostname: name.clone(),
        system: Some(system::info()),
        dns_labels: request.dns_labels,
    };
    let enrolled = enroll(control, &authority, enrolment).await?;
    let card = Card { peer_id: enrolled.peer_id, control: request.control, role: request.role, name };
    // The authority is the one that was pinned, whatever the answer says.
    keep(Identity { card, keys, certificate: enrolled.certificate_pem, authority }, &request.state_dir)
}

async fn enroll(
    control: &Url,
    authority: &str,
    enrolment: agent::EnrollRequest,
) -> anyhow::Result<agent::EnrollResponse> {
    let asked = ask_to_enroll(control, authority, enrolment).await?;
    asked.map_err(|status| refused(control, &status))
}

/// The inner error is what control says to it.
async fn ask_to_enroll(
    control: &Url,
    authority: &str,
    enrolment: agent::EnrollRequest,
) -> anyhow::Result<Result<agent::EnrollResponse, tonic::Status>> {
    let mut client = dial_for_enrolment(control, authority).await?;
    let enrolled = match client.enroll(enrolment).await {
        Ok(enrolled) => enrolled.into_inner(),
        Err(status) => return Ok(Err(status)),
    };
    if enrolled.peer_id.is_empty() || enrolled.certificate_pem.is_empty() {
        bail!("control at {control} let this agent join but sent no identity; it may be of another version");
    }
    Ok(Ok(enrolled))
}

fn wire_role(role: Role) -> agent::Role {
    match role {
        Role::Gateway => agent::Role::Gateway,
        Role::Peer => agent::Role::Peer,
    }
}

fn keep(identity: Identity, dir: &Path) -> anyhow::Result<Card> {
    identity.store(dir).context(
        "control knows this agent now, but its identity could not be stored; free the disk and join again",
    )?;
    Ok(identity.card)
}

fn refuse_twice(dir: &Path) -> anyhow::Result<()> {
    match identity::card(dir)? {
        None => Ok(()),
        // Control's data may be below the same directory: the files are named, not the directory.
        Some(card) => bail!(
            "this agent has joined {} as {} ({}); start it with `sluicegate-gateway run`, or, to join anew, stop it, run \
             `sluicegate-gateway detach`, and remove its files (identity.json, *.key, *.crt, image, network) from {}",
            card.control,
            card.name,
            card.peer_id,
            dir.display()
        ),
    }
}

/// The first control that answers, with its authority.
async fn reachable<'a>(
    controls: &'a Urls,
    pinned: Option<Fingerprint>,
    ca_file: Option<&Path>,
) -> anyhow::Result<(&'a Url, String)> {
    let mut failures = Vec::new();
    for control in controls.all() {
        let tried = async {
            let authority = authority(control, pinned, ca_file).await?;
            dial_for_enrolment(control, &authority).await?;
            Ok::<String, anyhow::Error>(authority)
        };
        match tried.await {
            Ok(authority) => return Ok((control, authority)),
            Err(error) => failures.push(error),
        }
    }
    let texts: Vec<String> = failures.iter().map(|error| format!("{error:#}")).collect();
    match (failures.pop(), texts.len()) {
        (Some(error), 1) => Err(error),
        _ => bail!("no control could be joined: {}", texts.join("; ")),
    }
}

async fn authority(
    control: &Url,
    pinned: Option<Fingerprint>,
    ca_file: Option<&Path>,
) -> anyhow::Result<String> {
    if let Some(path) = ca_file {
        let pem = std::fs::read_to_string(path)
            .with_context(|| format!("the authority's file {} cannot be read", path.display()))?;
        return match pem.contains("-----BEGIN CERTIFICATE-----") {
            true => Ok(pem),
            false => bail!("{} holds no certificate in PEM", path.display()),
        };
    }
    match pinned {
        Some(fingerprint) => pin::authority(control, fingerprint).await,
        None => bail!(
            "the setup key names no authority, and control is not trusted on first sight: give control's ca.pem with \
             --ca-file, or a key file of the form KEY#sha256:HEX"
        ),
    }
}

fn csr(keys: &Keys) -> anyhow::Result<String> {
    let key = rcgen::KeyPair::from_pem(&keys.tls).context("the TLS key in the state directory is damaged")?;
    let request = rcgen::CertificateParams::default().serialize_request(&key);
    request.and_then(|r| r.pem()).context("a certificate request could not be made")
}

fn refused(control: &Url, status: &tonic::Status) -> anyhow::Error {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            anyhow::anyhow!("control at {control} cannot be reached: {}", reason(status))
        }
        _ => anyhow::anyhow!("control at {control} refused to let this agent join: {}", status.message()),
    }
}
