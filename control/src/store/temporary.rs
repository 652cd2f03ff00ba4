//! Temporary access: a peer without an agent, let to one other peer for as long as it is there.
//!
//! It is ephemeral, in no group, not even `All`, so that no other policy says anything of it, and it has a policy of its own,
//! which has its id and goes with it.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::account::account;
use super::error::{duplicate, invalid};
use super::peers::{self, Peer, allocate_v4, allocate_v6, free_dns_label, free_name};
use super::policies::{self, Action, End, PolicyChange, RuleChange, RuleSpec};
use super::sql;
use super::write::{Meta, Write};
use super::{Activity, Actor, PortRange, Protocol, Result, Role, Store, StoreError, text};
use crate::ids::{new_id, now};

/// Services that one grant may open.
const SERVICES_MAX: usize = 64;

/// What temporary access is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTemporaryAccess {
    /// The new peer's name.
    pub name: String,
    /// Its WireGuard key, X25519.
    pub wireguard_public_key: [u8; 32],
    /// What it may open.
    pub services: Vec<TemporaryService>,
}

/// Temporary access as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryAccess {
    /// The new peer.
    pub peer: Peer,
    /// The peer it is let to.
    pub target: Peer,
    /// That peer's WireGuard key.
    pub target_key: Vec<u8>,
}

/// A service that temporary access opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemporaryService {
    /// As it was written, which names its rule.
    pub text: String,
    /// Protocol.
    pub protocol: Protocol,
    /// Destination ports; empty is every port.
    pub ports: Vec<PortRange>,
}

impl Store {
    /// Lets a new peer to the peer `target`.
    pub async fn grant_temporary_access(
        &self,
        actor: &Actor,
        target: &str,
        new: NewTemporaryAccess,
    ) -> Result<TemporaryAccess> {
        let mut write = self.write(actor).await?;
        let target = peers::peer(write.db(), target).await?;
        let wanted = text::name("peer", &new.name)?;
        if !(1..=SERVICES_MAX).contains(&new.services.len()) {
            return invalid(format!(
                "rules: {} of them; 1 to {SERVICES_MAX} can be named",
                new.services.len()
            ));
        }
        if new.wireguard_public_key == [0; 32] {
            return invalid(
                "wg_pub_key is empty: name the X25519 public key of the machine that is to be let in",
            );
        }
        let known: Option<String> = sql::query_scalar("SELECT name FROM peers WHERE wireguard_key = $1")
            .bind(new.wireguard_public_key.as_slice())
            .fetch_optional(write.db())
            .await?;
        if let Some(name) = known {
            return duplicate(format!("wg_pub_key belongs to peer {name} already: make a new key"));
        }
        let id = new_id();
        insert(&mut write, &id, &wanted, &new.wireguard_public_key).await?;
        let peer = peers::peer(write.db(), &id).await?;
        let meta = Meta::name(&peer.name)
            .with("target_name", &target.name)
            .with("target_id", &target.id)
            .after(&peer);
        write.event(Activity::PeerUserAdd, &id, meta).await?;

        let rule = |service: TemporaryService| {
            let (ports, port_ranges) = match service.ports.iter().all(|range| range.start == range.end) {
                true => (service.ports.iter().map(|range| range.start).collect(), Vec::new()),
                false => (Vec::new(), service.ports),
            };
            let spec = RuleSpec {
                name: service.text,
                description: String::new(),
                enabled: true,
                action: Action::Accept,
                bidirectional: false,
                protocol: service.protocol,
                ports,
                port_ranges,
                authorized_groups: Default::default(),
                sources: End::Peer(id.clone()),
                destinations: End::Peer(target.id.clone()),
            };
            RuleChange { id: None, spec }
        };
        let change = PolicyChange {
            name: format!("temporary access of {}", peer.name),
            description: format!("To {}, for as long as {} is there", target.name, peer.name),
            enabled: true,
            source_posture_checks: Vec::new(),
            rules: new.services.into_iter().map(rule).collect(),
        };
        policies::insert_as(&mut write, &id, change).await?;
        let policy = policies::policy(write.db(), &id).await?;
        write.event(Activity::PolicyAdd, &id, Meta::name(&policy.name).after(&policy)).await?;
        let target_key = sql::query_scalar("SELECT wireguard_key FROM peers WHERE id = $1")
            .bind(&target.id)
            .fetch_one(write.db())
            .await?;
        write.commit().await?;
        Ok(TemporaryAccess { peer, target, target_key })
    }

    /// Notes that other agents hear of peers: one without an agent stays for as long as that is so.
    pub async fn peers_heard(&self, ids: &[String]) -> Result<()> {
        for id in ids {
            sql::query(
                "UPDATE peers SET last_seen = $1 WHERE id = $2 AND ephemeral AND NOT connected AND length(identity_key) = 0",
            )
            .bind(now())
            .bind(id)
            .execute(&mut self.writer().await?)
            .await?;
        }
        Ok(())
    }

    /// Ids of the peers that have no agent.
    pub async fn peers_without_agent(&self) -> Result<Vec<String>> {
        sql::query_scalar("SELECT id FROM peers WHERE length(identity_key) = 0 ORDER BY id")
            .fetch_all(&mut self.reader().await?)
            .await
    }
}

async fn insert(write: &mut Write, id: &str, wanted: &str, key: &[u8; 32]) -> Result<()> {
    let (ip, ipv6) = addresses(write).await?;
    let name = free_name(write.db(), wanted).await?;
    let dns_label = free_dns_label(write.db(), &name, id).await?;
    sql::query(
        "INSERT INTO peers (id, wireguard_key, identity_key, setup_key_id, role, name, hostname, dns_label, ip, ipv6,
         connection_ip, os, kernel_version, version, created_at, last_seen, last_login, connected, ephemeral,
         approval_required, ssh_enabled, login_expiration_enabled, inactivity_expiration_enabled)
         VALUES ($1, $2, $3, '', $4, $5, $5, $6, $7, $8, '', '', '', '', $9, $9, $9, FALSE, TRUE, FALSE, FALSE, FALSE, FALSE)",
    )
    .bind(id)
    .bind(key.as_slice())
    // No agent has this identity.
    .bind([].as_slice())
    .bind(Role::Peer.as_str())
    .bind(&name)
    .bind(&dns_label)
    .bind(ip.to_string())
    .bind(ipv6.to_string())
    .bind(write.at())
    .execute(write.db())
    .await?;
    Ok(())
}

async fn addresses(write: &mut Write) -> Result<(Ipv4Addr, Ipv6Addr)> {
    let (range_v4, range_v6) = account(write.db()).await?.settings.overlay()?;
    let full = |range: String| {
        let message =
            format!("the overlay range {range} has no free address: widen it in the account settings");
        StoreError::Invalid(message)
    };
    let ip = allocate_v4(write.db(), range_v4).await?.ok_or_else(|| full(range_v4.to_string()))?;
    let ipv6 = allocate_v6(write.db(), range_v6).await?.ok_or_else(|| full(range_v6.to_string()))?;
    Ok((ip, ipv6))
}
