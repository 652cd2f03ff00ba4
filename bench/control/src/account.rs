//! A large account, written through the store, and what the measurements know of it.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use rcgen::{CertificateParams, KeyPair};
use serde::Serialize;
use serde_json::{Value, json};
use sluicegate_control::pki::{AgentRequest, Authority};
use sluicegate_control::store::{
    Action, Actor, End, Enrollment, GroupChange, NetworkChange, NewSetupKey, PolicyChange, Protocol,
    ResourceChange, Role, RouterChange, RuleChange, RuleSpec, Store,
};

/// Every account of one shape is the same, but for ids and keys.
const SEED: u64 = 20_261_122;
/// Groups of each peer.
const GROUPS_OF_A_PEER: usize = 5;
/// Groups of each resource.
const GROUPS_OF_A_RESOURCE: usize = 2;

/// How much there is of everything.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Shape {
    pub(crate) peers: usize,
    pub(crate) groups: usize,
    pub(crate) policies: usize,
    pub(crate) resources: usize,
    pub(crate) gateways: usize,
}

/// What was written.
pub(crate) struct Account {
    pub(crate) shape: Shape,
    pub(crate) gateways: Vec<Gateway>,
    /// Ids of the peers that are no gateways.
    pub(crate) peers: Vec<String>,
    pub(crate) groups: Vec<Group>,
    pub(crate) policies: Vec<Policy>,
    /// A policy that concerns every gateway.
    pub(crate) everywhere: Policy,
}

/// A gateway, with what it proves itself by.
pub(crate) struct Gateway {
    pub(crate) id: String,
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A group of peers and resources.
#[derive(Clone)]
pub(crate) struct Group {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) peers: BTreeSet<String>,
    resources: Vec<(String, usize)>,
}

/// A policy of one rule.
#[derive(Clone)]
pub(crate) struct Policy {
    pub(crate) id: String,
    name: String,
    /// Index of the group of sources, and of destinations.
    pub(crate) source: usize,
    pub(crate) destination: usize,
}

impl Group {
    /// The body of a PUT.
    pub(crate) fn body(&self) -> Value {
        let resources: Vec<_> =
            self.resources.iter().map(|(id, _)| json!({"id": id, "type": "subnet"})).collect();
        json!({"name": self.name, "peers": self.peers, "resources": resources})
    }
}

impl Policy {
    /// The body of a PUT with another port.
    pub(crate) fn body(&self, account: &Account, port: u16) -> Value {
        let group = |index: usize| account.groups[index].id.clone();
        json!({
            "name": self.name, "description": "", "enabled": true,
            "rules": [{
                "name": self.name, "description": "", "enabled": true, "action": "accept",
                "bidirectional": false, "protocol": "tcp", "ports": [port.to_string()],
                "sources": [group(self.source)], "destinations": [group(self.destination)],
            }],
        })
    }
}

impl Account {
    /// The gateways, by index, whose image has rules to this group.
    pub(crate) fn concerned_by(&self, destination: usize) -> BTreeSet<usize> {
        self.groups[destination].resources.iter().map(|(_, gateway)| *gateway).collect()
    }

    /// The gateways whose image knows the peers of this group as sources.
    pub(crate) fn concerned_by_members(&self, group: usize) -> BTreeSet<usize> {
        let policies = self.policies.iter().chain([&self.everywhere]);
        let with = policies.filter(|policy| policy.source == group);
        with.flat_map(|policy| self.concerned_by(policy.destination)).collect()
    }

    /// Writes an account of that shape into a new store in `directory`.
    pub(crate) async fn fill(directory: &Path, shape: Shape, progress: &impl Fn(&str)) -> Result<Self> {
        let store = Store::open(directory).await?;
        let account = Filler {
            store: &store,
            authority: Authority::open(directory)?,
            random: StdRng::seed_from_u64(SEED),
            shape,
        }
        .fill(progress)
        .await;
        store.close().await;
        account
    }
}

struct Filler<'a> {
    store: &'a Store,
    authority: Authority,
    random: StdRng,
    shape: Shape,
}

impl Filler<'_> {
    async fn fill(mut self, progress: &impl Fn(&str)) -> Result<Account> {
        let (shape, actor) = (self.shape, Actor::system());
        for policy in self.store.policies().await? {
            self.store.delete_policy(&actor, &policy.id).await?;
        }
        let key = self.setup_key().await?;
        let mut gateways = Vec::new();
        for number in 0..shape.gateways {
            gateways.push(self.gateway(&key, number).await?);
        }
        let mut peers = Vec::new();
        for number in 0..shape.peers {
            if number % 1_000 == 0 {
                progress(&format!("{number} of {} peers", shape.peers));
            }
            let identity = self.random.random();
            peers.push(self.enroll(&key, &format!("peer{number:05}"), Role::Peer, identity).await?);
        }
        progress("networks and resources");
        let resources = self.networks(&gateways).await?;
        progress("groups and policies");
        let mut groups = self.groups(&peers, &resources).await?;
        let mut policies = Vec::new();
        for number in 0..shape.policies {
            let (source, destination) =
                (self.random.random_range(0..shape.groups), self.random.random_range(0..shape.groups));
            policies.push(self.policy(&groups, format!("policy{number:05}"), source, destination).await?);
        }
        // The first resource of every gateway, reached by a group of its own.
        let mut seen = BTreeSet::new();
        let first: Vec<_> = resources.iter().filter(|(_, gateway)| seen.insert(*gateway)).cloned().collect();
        let few = peers.iter().take(10).cloned().collect();
        groups.push(self.group("operators".into(), few, Vec::new()).await?);
        groups.push(self.group("one of every site".into(), BTreeSet::new(), first).await?);
        let everywhere =
            self.policy(&groups, "everywhere".into(), groups.len() - 2, groups.len() - 1).await?;
        Ok(Account { shape, gateways, peers, groups, policies, everywhere })
    }

    async fn setup_key(&self) -> Result<String> {
        let new = NewSetupKey {
            name: "bench".into(),
            reusable: true,
            expires_in: 0,
            usage_limit: 0,
            ephemeral: false,
            allow_extra_dns_labels: false,
            auto_groups: Vec::new(),
        };
        Ok(self.store.create_setup_key(&Actor::system(), new).await?.1)
    }

    async fn enroll(
        &mut self,
        key: &str,
        hostname: &str,
        role: Role,
        identity_key: [u8; 32],
    ) -> Result<String> {
        let enrollment = Enrollment {
            setup_key: key.into(),
            wireguard_public_key: self.random.random(),
            identity_key,
            role,
            hostname: hostname.into(),
            os: "linux".into(),
            kernel_version: String::new(),
            version: env!("CARGO_PKG_VERSION").into(),
            connection_ip: None,
            dns_labels: Vec::new(),
        };
        Ok(self.store.enroll(&enrollment).await?.id)
    }

    async fn gateway(&mut self, key: &str, number: usize) -> Result<Gateway> {
        let pair = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&pair)?.pem()?;
        let request = AgentRequest::from_pem(&request)?;
        let name = format!("gateway{number:04}");
        let id = self.enroll(key, &name, Role::Gateway, request.key_hash()).await?;
        let certificate = self.authority.sign_agent(&request, &id)?;
        Ok(Gateway { id, certificate, key: pair.serialize_pem() })
    }

    /// A network for each gateway; every resource's id with the gateway that routes it. Every second one is IPv6.
    async fn networks(&mut self, gateways: &[Gateway]) -> Result<Vec<(String, usize)>> {
        let actor = Actor::system();
        let mut networks = Vec::new();
        for (number, gateway) in gateways.iter().enumerate() {
            let network = NetworkChange { name: format!("site{number:04}"), description: String::new() };
            let network = self.store.create_network(&actor, network).await?.id;
            let router = RouterChange {
                peer: Some(gateway.id.clone()),
                peer_groups: Vec::new(),
                metric: 100,
                masquerade: true,
                enabled: true,
            };
            self.store.create_router(&actor, &network, router).await?;
            networks.push(network);
        }
        let mut resources = Vec::new();
        for number in 0..self.shape.resources {
            let gateway = number % gateways.len();
            let address = if number % 2 == 0 {
                format!("10.{}.{}.0/24", number / 256, number % 256)
            } else {
                format!("2001:db8:{number:x}::/64")
            };
            let resource = ResourceChange {
                name: format!("resource{number:04}"),
                description: String::new(),
                address,
                enabled: true,
                groups: Vec::new(),
            };
            let resource = self.store.create_resource(&actor, &networks[gateway], resource).await?;
            resources.push((resource.id, gateway));
        }
        Ok(resources)
    }

    async fn groups(&mut self, peers: &[String], resources: &[(String, usize)]) -> Result<Vec<Group>> {
        let count = self.shape.groups;
        let mut members = vec![BTreeSet::new(); count];
        for peer in peers {
            for _ in 0..GROUPS_OF_A_PEER {
                members[self.random.random_range(0..count)].insert(peer.clone());
            }
        }
        let mut places = vec![Vec::new(); count];
        for resource in resources {
            let group = self.random.random_range(0..count);
            for step in 0..GROUPS_OF_A_RESOURCE {
                places[(group + step) % count].push(resource.clone());
            }
        }
        let mut groups = Vec::new();
        for (number, (peers, resources)) in members.into_iter().zip(places).enumerate() {
            groups.push(self.group(format!("group{number:04}"), peers, resources).await?);
        }
        Ok(groups)
    }

    async fn group(
        &self,
        name: String,
        peers: BTreeSet<String>,
        resources: Vec<(String, usize)>,
    ) -> Result<Group> {
        let change = GroupChange {
            name: name.clone(),
            peers: peers.iter().cloned().collect(),
            resources: resources.iter().map(|(id, _)| id.clone()).collect(),
        };
        let id = self.store.create_group(&Actor::system(), change).await?.id;
        Ok(Group { id, name, peers, resources })
    }

    async fn policy(
        &mut self,
        groups: &[Group],
        name: String,
        source: usize,
        destination: usize,
    ) -> Result<Policy> {
        let ports: Vec<u16> = vec![*[22, 80, 443, 5432, 8080].choose(&mut self.random).context("no port")?];
        let spec = RuleSpec {
            name: name.clone(),
            description: String::new(),
            enabled: true,
            action: Action::Accept,
            bidirectional: false,
            protocol: Protocol::Tcp,
            ports,
            port_ranges: Vec::new(),
            authorized_groups: Default::default(),
            sources: End::Groups(vec![groups[source].id.clone()]),
            destinations: End::Groups(vec![groups[destination].id.clone()]),
        };
        let rules = vec![RuleChange { id: None, spec }];
        let change = PolicyChange {
            name: name.clone(),
            description: String::new(),
            enabled: true,
            source_posture_checks: Vec::new(),
            rules,
        };
        let id = self.store.create_policy(&Actor::system(), change).await?.id;
        Ok(Policy { id, name, source, destination })
    }
}
