//! Connections to control: TLS with the pinned authority and nothing else, under control's own name.

use std::error::Error as _;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use sluicegate_api::agent::agent_client::AgentClient;
use sluicegate_api::agent::logins_client::LoginsClient;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::{Client, LoginClient, Url};
use crate::identity::Identity;

/// An image of 100,000 policies is a few tens of megabytes.
const LARGEST_MESSAGE: usize = 256 << 20;
const CONNECT: Duration = Duration::from_secs(5);
/// A dead connection is found within two of these.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// Connects with `identity`'s certificate.
pub async fn dial(control: &Url, identity: &Identity) -> anyhow::Result<Client> {
    Ok(client(connect(control, own(identity)).await?))
}

/// Connects to have somebody log in: with `identity`'s certificate on an agent that has joined, and else without one.
pub async fn dial_for_login(
    control: &Url,
    authority: &str,
    identity: Option<&Identity>,
) -> anyhow::Result<LoginClient> {
    let tls = identity.map_or_else(|| tls(authority), own);
    Ok(LoginsClient::new(connect(control, tls).await?))
}

/// Connects without a certificate of one's own, to ask for one.
pub async fn dial_for_enrolment(control: &Url, authority: &str) -> anyhow::Result<Client> {
    Ok(client(connect(control, tls(authority)).await?))
}

/// The innermost reason of an error, which is the one that says something.
pub fn reason(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    match error.downcast_ref::<tonic::Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    }
}

fn client(channel: Channel) -> Client {
    AgentClient::new(channel).max_decoding_message_size(LARGEST_MESSAGE)
}

fn own(identity: &Identity) -> ClientTlsConfig {
    let own = tonic::transport::Identity::from_pem(&identity.certificate, identity.keys.tls.as_bytes());
    tls(&identity.authority).identity(own)
}

fn tls(authority: &str) -> ClientTlsConfig {
    ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority))
        .domain_name(sluicegate_api::CONTROL_NAME)
}

async fn connect(control: &Url, tls: ClientTlsConfig) -> anyhow::Result<Channel> {
    let endpoint = Endpoint::from_shared(control.to_string())
        .and_then(|endpoint| endpoint.tls_config(tls))
        .context("the certificates of this agent are damaged; restore the state directory, or join again")?
        .connect_timeout(CONNECT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|e| unreachable(control, &e))
}

fn unreachable(control: &Url, error: &tonic::transport::Error) -> anyhow::Error {
    let why = error.source().map_or_else(|| error.to_string(), reason);
    if why.contains("certificate") {
        anyhow!(
            "control at {control} does not have the identity this agent trusts: {why}; it is another control or somebody in between"
        )
    } else {
        anyhow!("control at {control} cannot be reached: {why}")
    }
}
