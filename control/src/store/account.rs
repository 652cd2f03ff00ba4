//! The account: its settings and its overlay ranges.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use sqlx::FromRow;
use utoipa::ToSchema;

use super::error::{corrupt, invalid};
use super::peers::{allocate_v4, allocate_v6, peer};
use super::sql::{self, Connection};
use super::write::{Meta, Write};
use super::{
    Activity, Actor, Peer, Result, Store, expiry, flow_sums, groups, inherit, resources, text, unserved,
    zones,
};

/// Zone of the peers' names unless the settings name another.
pub(crate) const DNS_DOMAIN: &str = "sluicegate.internal";

/// Where most providers have a user's groups.
const GROUPS_CLAIM: &str = "groups";

/// The shortest time a login on a peer can last, in seconds, as NetBird has it.
const LOGIN_EXPIRATION_MIN: i64 = 3600;
/// The shortest absence after which a peer can expire, in seconds, as NetBird has it.
const INACTIVITY_EXPIRATION_MIN: i64 = 600;

/// The account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Account id.
    pub id: String,
    /// Domain of its owner, may be empty.
    pub domain: String,
    /// Unix milliseconds.
    pub created_at: i64,
    /// User id.
    pub created_by: String,
    /// Number of changes so far.
    pub revision: u64,
    /// Its settings.
    pub settings: Settings,
}

/// Account settings. A change replaces the whole object: what is left out takes its default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AccountSettings)]
#[serde(default)]
pub struct Settings {
    /// Whether the sessions of peers enrolled by users expire. Peers enrolled by a setup key never do.
    pub peer_login_expiration_enabled: bool,
    /// Seconds.
    pub peer_login_expiration: i64,
    /// Whether idle peers enrolled by users expire.
    pub peer_inactivity_expiration_enabled: bool,
    /// Seconds.
    pub peer_inactivity_expiration: i64,
    /// Whether users of role `user` are refused every view of the account, that of their own peers included. Their user, tokens
    /// and logins stay theirs.
    pub regular_users_view_blocked: bool,
    /// Whether a user's auto groups reach the user's peers, when they join and whenever the groups change.
    pub groups_propagation_enabled: bool,
    /// Whether groups are taken from the identity provider's tokens.
    pub jwt_groups_enabled: bool,
    /// The claim that holds them; a way through objects has dots (`realm_access.roles`). Empty is `groups`.
    pub jwt_groups_claim_name: String,
    /// Who logs in must be in one of these by that claim, if any is named, whether or not groups are taken from it.
    pub jwt_allow_groups: Vec<String>,
    /// Whether the routers of domain resources look up what their names stand for.
    pub routing_peer_dns_resolution_enabled: bool,
    /// Zone of the peers' names.
    pub dns_domain: String,
    /// Overlay IPv4 range in CIDR form, /16 to /28.
    pub network_range: String,
    /// Overlay IPv6 range in CIDR form, /48 to /120.
    pub network_range_v6: String,
    /// Whether peers may expose services: there is no reverse proxy here, so it cannot be turned on.
    pub peer_expose_enabled: bool,
    /// The groups whose peers may: none.
    pub peer_expose_groups: Vec<String>,
    /// Approval and flow records.
    pub extra: ExtraSettings,
    /// Whether agents connect to each other on demand only: they never do, so it cannot be turned on.
    pub lazy_connection_enabled: bool,
    /// Which version agents update themselves to: `disabled`, as control updates no agent.
    pub auto_update_version: String,
    /// Whether agents update without asking: they never do, so it cannot be turned on.
    pub auto_update_always: bool,
    /// Whether agents push metrics: they never do, so it cannot be turned on.
    pub metrics_push_enabled: bool,
    /// Whether the dashboard shows NetBird's agent network only: there is none, so it cannot be turned on.
    pub agent_network_only: bool,
    /// Whether built-in users log in with one-time codes only: who has none sets them up at the next login.
    pub local_mfa_enabled: bool,
    /// What the dashboard shows: there is none here. Not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dashboard_features: Option<DashboardFeatures>,
    /// Whether there are built-in users, by control's configuration. Not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub embedded_idp_enabled: Option<bool>,
    /// Whether there are none, so that nobody logs in by a password. Not kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(read_only)]
    pub local_auth_disabled: Option<bool>,
    /// The groups whose peers have an overlay IPv6 address: always `All` here.
    pub ipv6_enabled_groups: Vec<String>,
}

/// Approval and flow records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AccountExtraSettings)]
#[serde(default)]
pub struct ExtraSettings {
    /// Whether a new peer takes part only once somebody approved it.
    pub peer_approval_enabled: bool,
    /// Whether somebody who was not invited must be approved after the first login.
    pub user_approval_required: bool,
    /// Whether agents tell control of flows, and control keeps what they tell.
    pub network_traffic_logs_enabled: bool,
    /// Only flows of peers in these groups are kept, if any is named: as source, destination or reporter.
    pub network_traffic_logs_groups: Vec<String>,
    /// Whether flow events carry packets and bytes; 0 otherwise.
    pub network_traffic_packet_counter_enabled: bool,
}

/// What NetBird's dashboard shows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AccountDashboardFeatures)]
#[serde(default)]
pub struct DashboardFeatures {
    /// Whether it shows NetBird's agent network: there is none, so it cannot be turned on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_network: Option<bool>,
}

/// Which flow events are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowLog {
    /// Whether any are.
    pub enabled: bool,
    /// Ids of the groups to whose peers' flows they are limited; empty for those of all.
    pub groups: Vec<String>,
    /// Whether packets and bytes are.
    pub counters: bool,
}

impl FlowLog {
    /// Whether the groups leave out somebody whose flows were kept before.
    pub fn is_narrower_than(&self, before: &Self) -> bool {
        !self.groups.is_empty()
            && (before.groups.is_empty() || before.groups.iter().any(|group| !self.groups.contains(group)))
    }
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            peer_login_expiration_enabled: true,
            peer_login_expiration: 24 * 3600,
            peer_inactivity_expiration_enabled: false,
            peer_inactivity_expiration: 600,
            regular_users_view_blocked: true,
            groups_propagation_enabled: true,
            jwt_groups_enabled: false,
            jwt_groups_claim_name: String::new(),
            jwt_allow_groups: Vec::new(),
            routing_peer_dns_resolution_enabled: true,
            dns_domain: String::new(),
            network_range: String::new(),
            network_range_v6: String::new(),
            peer_expose_enabled: false,
            peer_expose_groups: Vec::new(),
            extra: ExtraSettings::default(),
            lazy_connection_enabled: false,
            auto_update_version: "disabled".into(),
            auto_update_always: false,
            metrics_push_enabled: false,
            agent_network_only: false,
            local_mfa_enabled: false,
            dashboard_features: None,
            embedded_idp_enabled: None,
            local_auth_disabled: None,
            ipv6_enabled_groups: Vec::new(),
        }
    }
}

impl Default for ExtraSettings {
    fn default() -> Self {
        ExtraSettings {
            peer_approval_enabled: false,
            user_approval_required: true,
            network_traffic_logs_enabled: true,
            network_traffic_logs_groups: Vec::new(),
            network_traffic_packet_counter_enabled: true,
        }
    }
}

impl Settings {
    /// The zone of the peers' names.
    pub fn dns_domain(&self) -> &str {
        if self.dns_domain.is_empty() { DNS_DOMAIN } else { &self.dns_domain }
    }

    /// The claim with a user's groups.
    pub fn groups_claim(&self) -> &str {
        if self.jwt_groups_claim_name.is_empty() { GROUPS_CLAIM } else { &self.jwt_groups_claim_name }
    }

    /// Which flow events are kept.
    pub fn flow_log(&self) -> FlowLog {
        FlowLog {
            enabled: self.extra.network_traffic_logs_enabled,
            groups: self.extra.network_traffic_logs_groups.clone(),
            counters: self.extra.network_traffic_packet_counter_enabled,
        }
    }

    /// The overlay ranges, masked.
    pub fn overlay(&self) -> Result<(Ipv4Net, Ipv6Net)> {
        let v4: Ipv4Net =
            self.network_range.parse().map_err(|error| corrupt("account.settings")(Box::new(error)))?;
        let v6: Ipv6Net =
            self.network_range_v6.parse().map_err(|error| corrupt("account.settings")(Box::new(error)))?;
        Ok((v4.trunc(), v6.trunc()))
    }

    /// Ids of the groups the settings refer to, with the setting's name.
    pub(crate) fn group_links(&self) -> impl Iterator<Item = (&'static str, &String)> {
        let lists = [
            ("peer_expose_groups", &self.peer_expose_groups),
            ("network_traffic_logs_groups", &self.extra.network_traffic_logs_groups),
            ("ipv6_enabled_groups", &self.ipv6_enabled_groups),
        ];
        lists.into_iter().flat_map(|(name, list)| list.iter().map(move |id| (name, id)))
    }
}

impl Store {
    /// The account.
    pub async fn account(&self) -> Result<Account> {
        let mut db = self.read().await?;
        account(&mut db).await
    }

    /// Replaces the settings. Peers whose address leaves a changed range get a new one.
    pub async fn update_settings(&self, actor: &Actor, mut settings: Settings) -> Result<Account> {
        let mut write = self.write(actor).await?;
        let before = account(write.db()).await?;
        let all = groups::all_id(write.db()).await?;

        if settings.network_range.is_empty() {
            settings.network_range.clone_from(&before.settings.network_range);
        }
        if settings.network_range_v6.is_empty() {
            settings.network_range_v6.clone_from(&before.settings.network_range_v6);
        }
        if settings.auto_update_version.is_empty() {
            settings.auto_update_version = Settings::default().auto_update_version;
        }
        if settings.ipv6_enabled_groups.is_empty() {
            settings.ipv6_enabled_groups = vec![all.clone()];
        }
        validate(&mut settings)?;
        unserved::refuse(&before.settings, &settings)?;
        if settings.ipv6_enabled_groups != [all] {
            return invalid(
                "ipv6_enabled_groups: every peer has an overlay IPv6 address here; name group All or leave it out",
            );
        }
        let linked: BTreeSet<&String> = settings.group_links().map(|(_, id)| id).collect();
        groups::must_exist(write.db(), linked).await?;
        if settings.dns_domain() != before.settings.dns_domain() {
            zones::must_not_be(write.db(), settings.dns_domain()).await?;
        }

        if settings == before.settings {
            return Ok(before);
        }
        store_settings(write.db(), &settings).await?;
        flow_sums::forget(write.db(), &before.settings.flow_log(), &settings.flow_log()).await?;
        for activity in activities(&before.settings, &settings) {
            let meta = Meta::default().before(&before.settings).after(&settings);
            write.event(activity, &before.id, meta).await?;
        }
        if settings.overlay()? != before.settings.overlay()? {
            let moved = readdress(&mut write, &settings).await?;
            let meta = Meta::default()
                .before(&before.settings)
                .after(&settings)
                .with("network_range", &settings.network_range)
                .with("network_range_v6", &settings.network_range_v6)
                .with("peers_readdressed", moved.len().to_string());
            write.event(Activity::AccountNetworkRangeUpdate, &before.id, meta).await?;
            for (was, is) in &moved {
                let meta = Meta::name(&is.name).before(was).after(is);
                write.event(Activity::PeerIpUpdate, &is.id, meta).await?;
            }
        }
        if settings.groups_propagation_enabled && !before.settings.groups_propagation_enabled {
            inherit::everybody(&mut write).await?;
        }
        expiry::apply(&mut write).await?;
        write.commit().await?;
        self.account().await
    }
}

/// What a change of the settings did, by NetBird's codes; what has none of its own is an update of the settings. The
/// overlay's ranges, whose change has effects to be told, are not among it.
fn activities(before: &Settings, after: &Settings) -> Vec<Activity> {
    use Activity::*;
    let switch = |of: fn(&Settings) -> bool, on, off| Activity::of_switch((of(before), of(after), on, off));
    let differs = |differs: bool, activity| differs.then_some(activity);
    let own = |settings: &Settings| {
        let (mut settings, default) = (settings.clone(), Settings::default());
        settings.peer_login_expiration_enabled = default.peer_login_expiration_enabled;
        settings.peer_login_expiration = default.peer_login_expiration;
        settings.peer_inactivity_expiration_enabled = default.peer_inactivity_expiration_enabled;
        settings.peer_inactivity_expiration = default.peer_inactivity_expiration;
        settings.extra.peer_approval_enabled = default.extra.peer_approval_enabled;
        settings.groups_propagation_enabled = default.groups_propagation_enabled;
        settings.routing_peer_dns_resolution_enabled = default.routing_peer_dns_resolution_enabled;
        settings.lazy_connection_enabled = default.lazy_connection_enabled;
        settings.peer_expose_enabled = default.peer_expose_enabled;
        settings.local_mfa_enabled = default.local_mfa_enabled;
        settings.auto_update_always = default.auto_update_always;
        settings.auto_update_version = default.auto_update_version;
        settings.dns_domain = default.dns_domain;
        settings.network_range = default.network_range;
        settings.network_range_v6 = default.network_range_v6;
        settings
    };
    // Another spelling of the same range is a change too, and has no effects.
    let spelled = (&before.network_range, &before.network_range_v6)
        != (&after.network_range, &after.network_range_v6)
        && before.overlay().ok() == after.overlay().ok();
    [
        switch(|s| s.peer_login_expiration_enabled, LoginExpirationEnable, LoginExpirationDisable),
        differs(before.peer_login_expiration != after.peer_login_expiration, LoginExpirationUpdate),
        switch(
            |s| s.peer_inactivity_expiration_enabled,
            InactivityExpirationEnable,
            InactivityExpirationDisable,
        ),
        differs(
            before.peer_inactivity_expiration != after.peer_inactivity_expiration,
            InactivityExpirationUpdate,
        ),
        switch(|s| s.extra.peer_approval_enabled, PeerApprovalEnable, PeerApprovalDisable),
        switch(|s| s.groups_propagation_enabled, GroupPropagationEnable, GroupPropagationDisable),
        switch(|s| s.routing_peer_dns_resolution_enabled, RoutingPeerDnsEnable, RoutingPeerDnsDisable),
        switch(|s| s.lazy_connection_enabled, LazyConnectionEnable, LazyConnectionDisable),
        switch(|s| s.peer_expose_enabled, PeerExposeEnable, PeerExposeDisable),
        switch(|s| s.local_mfa_enabled, LocalMfaEnable, LocalMfaDisable),
        switch(|s| s.auto_update_always, AutoUpdateAlwaysEnable, AutoUpdateAlwaysDisable),
        differs(before.auto_update_version != after.auto_update_version, AutoUpdateVersion),
        differs(before.dns_domain != after.dns_domain, DnsDomainUpdate),
        differs(own(before) != own(after) || spelled, AccountSettingsUpdate),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The account as the connection's transaction sees it.
pub(super) async fn account(db: &mut Connection) -> Result<Account> {
    #[derive(FromRow)]
    struct Row {
        id: String,
        domain: String,
        created_at: i64,
        created_by: String,
        revision: i64,
        settings: String,
    }
    let row: Row =
        sql::query_as("SELECT id, domain, created_at, created_by, revision, settings FROM account")
            .fetch_one(db)
            .await?;
    let settings =
        serde_json::from_str(&row.settings).map_err(|error| corrupt("account.settings")(error.into()))?;
    Ok(Account {
        id: row.id,
        domain: row.domain,
        created_at: row.created_at,
        created_by: row.created_by,
        revision: row.revision.unsigned_abs(),
        settings,
    })
}

/// A random /16 of 100.64.0.0/10 and a random unique local /64 (RFC 4193).
pub(super) fn random_overlay() -> (Ipv4Net, Ipv6Net) {
    let v4 = Ipv4Addr::new(100, 64 + rand::random_range(0..64), 0, 0);
    let global: [u8; 7] = rand::random();
    let mut v6 = [0u8; 16];
    v6[0] = 0xfd;
    v6[1..8].copy_from_slice(&global);
    (Ipv4Net::new_assert(v4, 16), Ipv6Net::new_assert(Ipv6Addr::from(v6), 64))
}

pub(super) fn settings_text(settings: &Settings) -> Result<String> {
    serde_json::to_string(settings).map_err(|error| corrupt("account.settings")(error.into()))
}

async fn store_settings(db: &mut Connection, settings: &Settings) -> Result<()> {
    sql::query("UPDATE account SET settings = $1").bind(settings_text(settings)?).execute(db).await?;
    Ok(())
}

/// Checks what can be checked without the store, and masks the ranges.
fn validate(settings: &mut Settings) -> Result<()> {
    for (name, seconds, least) in [
        ("peer_login_expiration", settings.peer_login_expiration, LOGIN_EXPIRATION_MIN),
        ("peer_inactivity_expiration", settings.peer_inactivity_expiration, INACTIVITY_EXPIRATION_MIN),
    ] {
        if seconds < least {
            return invalid(format!(
                "{name}: {seconds} seconds would cut off peers that are in use: it must be at least {least}"
            ));
        }
    }
    let Ok(v4) = settings.network_range.parse::<Ipv4Net>() else {
        return invalid(format!("network_range: {:?} is not an IPv4 prefix", settings.network_range));
    };
    if !(16..=28).contains(&v4.prefix_len()) {
        return invalid(format!("network_range: {v4} must be between /16 and /28"));
    }
    let Ok(v6) = settings.network_range_v6.parse::<Ipv6Net>() else {
        return invalid(format!("network_range_v6: {:?} is not an IPv6 prefix", settings.network_range_v6));
    };
    if !(48..=120).contains(&v6.prefix_len()) {
        return invalid(format!("network_range_v6: {v6} must be between /48 and /120"));
    }
    let first = v4.addr().octets()[0];
    if first == 0 || first >= 224 || v4.addr().is_loopback() || v4.addr().is_link_local() {
        return invalid(format!(
            "network_range: {v4} has no host addresses; take one of 100.64.0.0/10 or of RFC 1918"
        ));
    }
    let first = v6.addr().segments()[0];
    if first >> 8 == 0 || first & 0xffc0 == 0xfe80 || first >> 8 == 0xff {
        return invalid(format!("network_range_v6: {v6} has no host addresses; take one of fd00::/8"));
    }
    if !settings.dns_domain.is_empty() && !resources::is_domain(&settings.dns_domain) {
        return invalid(format!("dns_domain: {:?} is no domain name", settings.dns_domain));
    }
    text::optional_name("jwt_groups_claim", &settings.jwt_groups_claim_name)?;
    for group in &settings.jwt_allow_groups {
        text::name("jwt_allow_groups", group)?;
    }
    text::optional_name("auto_update_version", &settings.auto_update_version)?;
    settings.network_range = v4.trunc().to_string();
    settings.network_range_v6 = v6.trunc().to_string();
    Ok(())
}

/// Gives every peer outside the ranges a new address inside; these peers, before and after.
async fn readdress(write: &mut Write, settings: &Settings) -> Result<Vec<(Peer, Peer)>> {
    let db = write.db();
    let (range_v4, range_v6) = settings.overlay()?;
    let peers: Vec<(String, String, String)> =
        sql::query_as("SELECT id, ip, ipv6 FROM peers ORDER BY id").fetch_all(&mut *db).await?;
    // Room for twice the peers, so that the next joins find an address too.
    let hosts = 1usize << (32 - range_v4.prefix_len());
    if hosts - 3 < peers.len() * 2 {
        return invalid(format!("network_range: {range_v4} is too small for {} peers", peers.len()));
    }
    let mut moved = Vec::new();
    for (id, v4, v6) in &peers {
        let inside_v4 = v4.parse().is_ok_and(|address: Ipv4Addr| range_v4.contains(&address));
        let inside_v6 = v6.parse().is_ok_and(|address: Ipv6Addr| range_v6.contains(&address));
        if inside_v4 && inside_v6 {
            continue;
        }
        let before = peer(db, id).await?;
        let mut after = before.clone();
        if !inside_v4 {
            let Some(address) = allocate_v4(db, range_v4).await? else {
                return invalid(format!("network_range: {range_v4} is too small for {} peers", peers.len()));
            };
            after.ip = address;
            sql::query("UPDATE peers SET ip = $1 WHERE id = $2")
                .bind(address.to_string())
                .bind(id)
                .execute(&mut *db)
                .await?;
        }
        if !inside_v6 {
            let Some(address) = allocate_v6(db, range_v6).await? else {
                return invalid(format!(
                    "network_range_v6: {range_v6} is too small for {} peers",
                    peers.len()
                ));
            };
            after.ipv6 = address;
            sql::query("UPDATE peers SET ipv6 = $1 WHERE id = $2")
                .bind(address.to_string())
                .bind(id)
                .execute(&mut *db)
                .await?;
        }
        moved.push((before, after));
    }
    Ok(moved)
}
