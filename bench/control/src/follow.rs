//! What the driver does for one change, without the process around it: read what has changed, prepare it, find whom it concerns,
//! compile the gateways among them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use sluicegate_control::driver::shared_out;
use sluicegate_control::hub::Compiled;
use sluicegate_control::store::{
    Action, Actor, End, GroupChange, PolicyChange, PostureCheckChange, Protocol, Reading, RuleChange,
    RuleSpec, Store, Told,
};
use sluicegate_policy::Compiler;

use crate::account::Account;
use crate::figure::Figure;

/// DESIGN 7: one change is compiled within so many milliseconds.
const ONE: f64 = 10.0;
/// Addresses that the check below denies.
const DENIED: &str = "10.66.0.0/16";

/// Durations of one kind of change.
#[derive(Default)]
struct Samples {
    read: Vec<Duration>,
    prepared: Vec<Duration>,
    compiled: Vec<Duration>,
}

/// Whoever follows the account.
struct Follower {
    reading: Reading,
    compiler: Compiler,
    gateways: BTreeSet<String>,
    images: std::collections::BTreeMap<String, Arc<Compiled>>,
}

impl Follower {
    /// Follows one change.
    async fn follow(&mut self, store: &Store, samples: &mut Samples) -> Result<()> {
        let begin = Instant::now();
        let snapshot = self.reading.read(store).await?;
        samples.read.push(begin.elapsed());
        let begin = Instant::now();
        let compiler = Compiler::after(Arc::new(snapshot.state), &self.compiler)?;
        let affected = compiler.affected(&self.compiler);
        samples.prepared.push(begin.elapsed());
        let concerned = affected.iter().filter(|id| self.gateways.contains(&***id));
        let work: Vec<_> = concerned.map(|id| (id.to_string(), self.images.remove(&**id))).collect();
        ensure!(!work.is_empty(), "a change that concerns no gateway says nothing");
        let images = shared_out(work, |(gateway, before)| {
            let parts = compiler.compile_parts(&gateway, before.as_ref().map(|before| &before.parts))?;
            Ok((gateway, Compiled::new(parts, before)))
        });
        let images: Vec<_> = images.into_iter().collect::<Result<_>>()?;
        samples.compiled.push(begin.elapsed());
        self.images.extend(images);
        self.compiler = compiler;
        Ok(())
    }
}

/// Makes that many changes of each kind to the account in `directory`, and takes them back.
pub(crate) async fn changes(directory: &Path, account: &Account, times: usize) -> Result<Vec<Figure>> {
    let store = Store::open(directory).await?;
    let actor = Actor::system();
    let policy = account.policies.iter().find(|policy| {
        let members = &account.groups[policy.source].peers;
        !members.is_empty() && !account.concerned_by(policy.destination).is_empty()
    });
    let policy = policy.context("no policy leads from a peer to a resource: take more resources")?;
    let group = store.group(&account.groups[policy.source].id).await?;
    let member = group.peers.first().context("the group has members")?.id.clone();
    let checked = checked(&store, &group.id, &account.groups[policy.destination].id).await?;

    let mut reading = Reading::new();
    let compiler = Compiler::new(Arc::new(reading.read(&store).await?.state))?.remembering();
    let gateways = account.gateways.iter().map(|gateway| gateway.id.clone()).collect();
    let mut follower = Follower { reading, compiler, gateways, images: Default::default() };
    let (mut joined, mut edited, mut flipped) = (Samples::default(), Samples::default(), Samples::default());
    for number in 0..times {
        let mut peers: BTreeSet<String> = group.peers.iter().map(|peer| peer.id.clone()).collect();
        if number % 2 == 0 {
            peers.remove(&member);
        }
        let change = GroupChange {
            name: group.name.clone(),
            peers: peers.into_iter().collect(),
            resources: group.resources.iter().map(|resource| resource.id.clone()).collect(),
        };
        store.update_group(&actor, &group.id, change).await?;
        follower.follow(&store, &mut joined).await?;

        let mut change = stored(&store, &policy.id).await?;
        for rule in &mut change.rules {
            rule.spec.ports = vec![u16::try_from(10_000 + number % 50_000)?];
        }
        store.update_policy(&actor, &policy.id, change).await?;
        follower.follow(&store, &mut edited).await?;

        // Whoever is in a range that is denied fails, and passes elsewhere.
        let at = if number % 2 == 0 { "192.0.2.7/24" } else { "10.66.0.7/16" };
        let told = Told { addresses: Some(vec![at.parse()?]), ..Told::default() };
        let turns = store.note_facts(&checked.1, &told).await?;
        ensure!(turns.len() == 1 || number == 0, "every other report turns the verdict");
        follower.follow(&store, &mut flipped).await?;
    }
    let change = GroupChange {
        name: group.name.clone(),
        peers: group.peers.iter().map(|peer| peer.id.clone()).collect(),
        resources: group.resources.iter().map(|resource| resource.id.clone()).collect(),
    };
    store.update_group(&actor, &group.id, change).await?;
    ensure!(follower.reading.wholes() == 1, "everything was read for one change");
    store.delete_policy(&actor, &checked.0).await?;
    store.close().await;
    let figures = |what: &str, samples: &Samples| {
        let figure = |part: &str, samples: &[Duration]| {
            Figure::milliseconds(format!("{what}: {part}"), &account.shape, samples)
        };
        [
            figure("read from the store", &samples.read),
            figure("prepared", &samples.prepared),
            figure("prepared, and every gateway it concerns compiled", &samples.compiled).median_at_most(ONE),
        ]
    };
    let [joined, edited, flipped] = [
        ("peer leaves or joins a group", &joined),
        ("one rule edited", &edited),
        ("posture of a peer turns", &flipped),
    ]
    .map(|(what, samples)| figures(what, samples));
    Ok(joined.into_iter().chain(edited).chain(flipped).collect())
}

/// A policy between two groups that asks for a posture check, and a peer it is asked of.
async fn checked(store: &Store, source: &str, destination: &str) -> Result<(String, String)> {
    let actor = Actor::system();
    let range = serde_json::json!({"peer_network_range_check": {"ranges": [DENIED], "action": "deny"}});
    let check = PostureCheckChange {
        name: "not there".into(),
        description: String::new(),
        checks: serde_json::from_value(range)?,
    };
    let check = store.create_posture_check(&actor, check).await?.id;
    let spec = RuleSpec {
        name: "from elsewhere".into(),
        description: String::new(),
        enabled: true,
        action: Action::Accept,
        bidirectional: false,
        protocol: Protocol::Udp,
        ports: vec![4_433],
        port_ranges: Vec::new(),
        authorized_groups: Default::default(),
        sources: End::Groups(vec![source.into()]),
        destinations: End::Groups(vec![destination.into()]),
    };
    let change = PolicyChange {
        name: "from elsewhere".into(),
        description: String::new(),
        enabled: true,
        source_posture_checks: vec![check],
        rules: vec![RuleChange { id: None, spec }],
    };
    let policy = store.create_policy(&actor, change).await?.id;
    // The last one: the first comes and goes.
    let peer = store.group(source).await?.peers.pop().context("the group has members")?.id;
    Ok((policy, peer))
}

/// A stored policy as a change that leaves it as it is.
async fn stored(store: &Store, id: &str) -> Result<PolicyChange> {
    let policy = store.policy(id).await?;
    let rules = policy.rules.into_iter().map(|rule| RuleChange { id: Some(rule.id), spec: rule.spec });
    Ok(PolicyChange {
        name: policy.name,
        description: policy.description,
        enabled: policy.enabled,
        source_posture_checks: policy.source_posture_checks,
        rules: rules.collect(),
    })
}
