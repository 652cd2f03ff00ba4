//! Random changes, valid and not, made in both stores: answers, states, audit trails and images must be the same. Ids,
//! times and secrets are each store's own, so they are written as who or what they stand for before anything is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::json;
use sluicegate_control::store::{
    Actor, GroupChange, Learned, Nameserver, NameserverGroupSpec, NetworkChange, NewSetupKey, NewUser,
    PeerChange, PeerFacts, PolicyChange, PostureCheckChange, RecordKind, RecordSpec, ResourceChange,
    RevisionKind, Role, RouteSpec, RouterChange, Store, StoreError, Told, UserChange, UserRole, ZoneSpec,
};
use sluicegate_policy::Compiler;
use sluicegate_policy::model::{self, State};
use sluicegate_policy::posture::{Place, ProcessState};

use crate::world::{all, check_trail, join, open, places, policy};

const STEPS: usize = 300;

/// One store with the ids it gave, in the order in which both stores gave theirs.
pub(crate) struct Side {
    pub(crate) store: Store,
    pub(crate) ids: Vec<String>,
    key: String,
    joined: u8,
}

/// What is drawn for a step, the same for both sides.
pub(crate) struct Draw {
    name: String,
    other: usize,
    third: usize,
    number: u16,
    flag: bool,
}

#[tokio::test]
async fn both_stores_give_the_same_answers_states_trails_and_images() {
    for seed in [1, 2] {
        let [(a_dir, a), (b_dir, b)] = places();
        let mut sides = [side(open(&a, a_dir.path()).await).await, side(open(&b, b_dir.path()).await).await];
        let mut random = StdRng::seed_from_u64(seed);
        let mut accepted = 0;
        for step in 0..STEPS {
            let draw = draw(&mut random);
            let what = random.random_range(0..KINDS);
            let mut answers = Vec::new();
            for side in &mut sides {
                let answer = side.step(what, &draw).await;
                accepted += usize::from(answer.is_ok());
                answers.push(match answer {
                    Ok(text) => side.neutral(&text),
                    Err(error) => {
                        assert!(
                            !matches!(error, StoreError::Database(_) | StoreError::Corrupt { .. }),
                            "{error:?}"
                        );
                        side.neutral(&format!("refused: {error}"))
                    }
                });
            }
            assert_eq!(answers[0], answers[1], "seed {seed}, step {step}, kind {what}");
        }
        assert!(accepted > STEPS / 2, "seed {seed}: {accepted}");
        let mut seen = Vec::new();
        for side in &sides {
            check_trail(&side.store).await;
            seen.push(side.neutral(&side.everything().await));
        }
        for (line, (a, b)) in seen[0].lines().zip(seen[1].lines()).enumerate() {
            assert_eq!(a, b, "seed {seed}, line {line}");
        }
        assert_eq!(seen[0].len(), seen[1].len(), "seed {seed}");
    }
}

/// How many kinds of steps there are.
pub(crate) const KINDS: usize = 43;

pub(crate) fn draw(random: &mut StdRng) -> Draw {
    Draw {
        name: ["Ä", "a", "B", "_", "b c", "é", "z", "\u{1f600}", "Z", "", "x\u{0}"]
            [random.random_range(0..11)]
        .repeat(random.random_range(1..3)),
        other: random.random_range(0..1000),
        third: random.random_range(0..1000),
        number: random.random_range(0..30),
        flag: random.random(),
    }
}

pub(crate) async fn side(store: Store) -> Side {
    let mut settings = store.account().await.unwrap().settings;
    settings.network_range = "100.70.0.0/16".into();
    settings.network_range_v6 = "fd00:7::/64".into();
    store.update_settings(&Actor::system(), settings).await.unwrap();
    let key = NewSetupKey { name: "k".into(), reusable: true, ..NewSetupKey::default() };
    let (made, key) = store.create_setup_key(&Actor::system(), key).await.unwrap();
    let policies = store.policies().await.unwrap();
    let owner = store.users().await.unwrap().remove(0);
    let account = store.account().await.unwrap();
    let token = store.tokens(&owner.id).await.unwrap().remove(0);
    let mut ids = vec![all(&store).await, made.id, account.id, owner.id, token.id];
    for policy in policies {
        ids.push(policy.id);
        ids.extend(policy.rules.into_iter().map(|rule| rule.id));
    }
    Side { store, ids, key, joined: 0 }
}

fn peer_change() -> PeerChange {
    PeerChange {
        name: String::new(),
        ssh_enabled: false,
        login_expiration_enabled: false,
        inactivity_expiration_enabled: false,
        approval_required: None,
        ip: None,
        ipv6: None,
    }
}

fn route(name: &str, draw: &Draw, all: &str, group: &str, peer: Option<String>) -> RouteSpec {
    let networks = [
        format!("10.{}.0.0/16", draw.number),
        format!("2001:db8:{:x}::/48", draw.number),
        "0.0.0.0/0".into(),
    ];
    let of_peer = draw.flag && peer.is_some();
    RouteSpec {
        network_id: name.into(),
        description: String::new(),
        network: networks[draw.other % 3].parse().unwrap(),
        peer: peer.filter(|_| of_peer),
        peer_groups: if of_peer { [].into() } else { [group.to_owned()].into() },
        metric: i64::from(draw.number),
        masquerade: draw.flag,
        enabled: !draw.third.is_multiple_of(4),
        groups: [all.to_owned()].into(),
        access_control_groups: if draw.third.is_multiple_of(3) {
            [group.to_owned()].into()
        } else {
            [].into()
        },
        keep_route: !draw.flag,
        skip_auto_apply: draw.third.is_multiple_of(5),
    }
}

fn posture_check(name: String, draw: &Draw) -> PostureCheckChange {
    let least = draw.number.to_string();
    let checks = match draw.third % 5 {
        0 => json!({"nb_version_check": {"min_version": least}}),
        1 => json!({"os_version_check": {"linux": {"min_kernel_version": format!("6.{least}")}}}),
        2 => {
            json!({"peer_network_range_check": {"ranges": ["10.0.0.0/24", "2001:db8::/124"], "action": "deny"}})
        }
        3 => json!({"process_check": {"processes": [{"linux_path": "/x"}]},
                    "geo_location_check": {"locations": [{"country_code": "de"}], "action": "allow"}}),
        _ => json!({}),
    };
    PostureCheckChange { name, description: String::new(), checks: serde_json::from_value(checks).unwrap() }
}

fn told(draw: &Draw) -> Told {
    let system = PeerFacts {
        connection_ip: draw.flag.then(|| IpAddr::from([192, 0, 2, draw.number as u8])),
        os: if draw.flag { "linux".into() } else { String::new() },
        version: format!("{}.1", draw.number),
        ..PeerFacts::default()
    };
    let addresses = [format!("10.0.{}.1/24", draw.number % 2), format!("2001:db8::{:x}/64", draw.number)];
    let state = if draw.flag { ProcessState::Running } else { ProcessState::Stopped };
    Told {
        system,
        os_version: String::new(),
        place: draw.flag.then(|| Place {
            country_code: "DE".into(),
            city_name: "Zürich".into(),
            geoname_id: 7,
        }),
        addresses: (draw.number > 3).then(|| addresses.iter().map(|text| text.parse().unwrap()).collect()),
        processes: [("/x".to_owned(), state)].into(),
    }
}

impl Side {
    fn id(&self, which: usize) -> String {
        self.ids[which % self.ids.len()].clone()
    }

    /// Notes the ids of something made, and shows it.
    fn made(&mut self, ids: impl IntoIterator<Item = String>, shown: &impl std::fmt::Debug) -> String {
        for id in ids {
            if !self.ids.contains(&id) {
                self.ids.push(id);
            }
        }
        format!("{shown:?}")
    }

    pub(crate) async fn step(&mut self, what: usize, draw: &Draw) -> Result<String, StoreError> {
        let (actor, store) = (Actor::system(), self.store.clone());
        let (one, two) = (self.id(draw.other), self.id(draw.third));
        let name = draw.name.clone();
        Ok(match what {
            0 => {
                let change = GroupChange { name, peers: vec![], resources: vec![] };
                let group = store.create_group(&actor, change).await?;
                self.made([group.id.clone()], &group)
            }
            1 => {
                let mut peers = store.peers(None, None).await?;
                peers.retain(|peer| (peer.name.len() % 2 == 1) == draw.flag);
                let peers = peers.into_iter().map(|peer| peer.id).collect();
                let resources = store.resource_kinds().await?.into_keys().collect();
                format!(
                    "{:?}",
                    store.update_group(&actor, &one, GroupChange { name, peers, resources }).await?
                )
            }
            2 => format!("{:?}", store.delete_group(&actor, &one).await?),
            3 => {
                let change = NetworkChange { name, description: "x\ny".into() };
                let network = store.create_network(&actor, change).await?;
                self.made([network.id.clone()], &network)
            }
            4 => {
                let network =
                    store.networks().await?.into_iter().nth(draw.third % 4).map_or(two, |network| network.id);
                let change = ResourceChange {
                    name,
                    description: String::new(),
                    address: [
                        format!("10.0.{}.0/24", draw.number),
                        format!("2001:db8::{:x}", draw.number),
                        "*.example.org".into(),
                        "bad address".into(),
                    ][draw.other % 4]
                        .clone(),
                    enabled: draw.flag,
                    groups: if draw.flag { vec![one] } else { vec![] },
                };
                let resource = store.create_resource(&actor, &network, change).await?;
                self.made([resource.id.clone()], &resource)
            }
            5 => {
                let network =
                    store.networks().await?.into_iter().nth(draw.third % 4).map_or(two, |network| network.id);
                let peer = store.peers(None, None).await?.into_iter().nth(draw.other % 5).map(|peer| peer.id);
                let change = RouterChange {
                    peer,
                    peer_groups: vec![],
                    metric: i64::from(draw.number),
                    masquerade: draw.flag,
                    enabled: true,
                };
                let router = store.create_router(&actor, &network, change).await?;
                self.made([router.id.clone()], &router)
            }
            6 | 7 => {
                let all = if draw.flag { self.ids[0].clone() } else { one };
                let policy = store
                    .create_policy(&actor, policy(&name, &all, usize::from(draw.number % 4), draw.number + 1))
                    .await?;
                let rules: Vec<String> = policy.rules.iter().map(|rule| rule.id.clone()).collect();
                self.made(std::iter::once(policy.id.clone()).chain(rules), &policy)
            }
            8 => {
                let id =
                    store.policies().await?.into_iter().nth(draw.third % 6).map_or(two, |policy| policy.id);
                let all = self.ids[0].clone();
                let policy = store
                    .update_policy(
                        &actor,
                        &id,
                        policy(&name, &all, usize::from(draw.number % 5), draw.number + 1),
                    )
                    .await?;
                let rules: Vec<String> = policy.rules.iter().map(|rule| rule.id.clone()).collect();
                self.made(rules, &policy)
            }
            9 => format!("{:?}", store.delete_policy(&actor, &one).await?),
            10 | 11 => {
                let role = if draw.flag { Role::Gateway } else { Role::Peer };
                self.joined += 1;
                let which = self.joined;
                let joined = join(&store, &self.key, which, role).await;
                self.ids.push(joined.id.clone());
                // Addresses are drawn by the store.
                let change = PeerChange {
                    name: joined.name,
                    ip: Some(format!("100.70.1.{which}").parse().unwrap()),
                    ipv6: Some(format!("fd00:7::1:{which:x}").parse().unwrap()),
                    ..peer_change()
                };
                let peer = store.update_peer(&actor, &joined.id, change).await?;
                format!("{:?}", (peer.name, peer.ip, peer.dns_label, peer.groups))
            }
            12 => {
                let change = PeerChange { name, login_expiration_enabled: draw.flag, ..peer_change() };
                format!(
                    "{:?}",
                    store.update_peer(&actor, &one, change).await.map(|peer| (peer.name, peer.dns_label))?
                )
            }
            13 => format!("{:?}", store.delete_peer(&actor, &one).await?),
            14 => {
                let facts = PeerFacts {
                    os: if draw.flag { "bsd".into() } else { String::new() },
                    ..PeerFacts::default()
                };
                format!("{:?}", store.peer_seen(&one, &facts).await?)
            }
            15 => format!(
                "{:?}",
                store
                    .set_peer_endpoint(&one, Some(format!("192.0.2.1:{}", draw.number + 1).parse().unwrap()))
                    .await?
            ),
            16 => {
                let new = NewUser {
                    name,
                    email: if draw.flag { format!("u{}@example.org", draw.number) } else { String::new() },
                    role: UserRole::Auditor,
                    is_service_user: !draw.flag,
                    auto_groups: vec![one],
                };
                let owner = store.users().await?.remove(0);
                let user = store.create_user(&owner, new).await?;
                self.made([user.id.clone()], &user)
            }
            17 => {
                let owner = store.users().await?.remove(0);
                let change =
                    UserChange { role: UserRole::Admin, auto_groups: vec![two], blocked: Some(draw.flag) };
                format!("{:?}", store.update_user(&owner, &one, change).await?)
            }
            18 => {
                let key = NewSetupKey {
                    name,
                    reusable: draw.flag,
                    auto_groups: vec![one],
                    ..NewSetupKey::default()
                };
                let (key, _) = store.create_setup_key(&actor, key).await?;
                self.made([key.id.clone()], &(key.name, key.auto_groups, key.reusable))
            }
            31 | 32 => {
                let check = store.create_posture_check(&actor, posture_check(name, draw)).await?;
                self.made([check.id.clone()], &check)
            }
            33 => format!("{:?}", store.update_posture_check(&actor, &one, posture_check(name, draw)).await?),
            34 => format!("{:?}", store.delete_posture_check(&actor, &one).await?),
            35 => {
                let checks = store.posture_checks().await?.into_iter().map(|check| check.id);
                let checks = checks.chain((draw.number == 0).then_some(two)).collect();
                let change = policy(&name, &self.ids[0].clone(), 1, draw.number + 1);
                let policy = store
                    .create_policy(&actor, PolicyChange { source_posture_checks: checks, ..change })
                    .await?;
                let rules: Vec<String> = policy.rules.iter().map(|rule| rule.id.clone()).collect();
                self.made(std::iter::once(policy.id.clone()).chain(rules), &policy)
            }
            36 => {
                let peer = store
                    .peers(None, None)
                    .await?
                    .into_iter()
                    .nth(draw.other % 5)
                    .map_or(one, |peer| peer.id);
                format!("{:?}", store.note_facts(&peer, &told(draw)).await?)
            }
            37 => {
                let peer = store
                    .peers(None, None)
                    .await?
                    .into_iter()
                    .nth(draw.other % 5)
                    .map_or(one, |peer| peer.id);
                format!("{:?}", store.note_silence(&peer).await?)
            }
            19 => format!("{:?}", store.peers(Some(&name), None).await?.len()),
            20 => format!("{:?}", (store.group(&name).await.is_ok(), store.routers(Some(&one)).await?.len())),
            21 | 22 => {
                let peer = store.peers(None, None).await?.into_iter().nth(draw.other % 5).map(|peer| peer.id);
                let spec = route(&name, draw, &self.ids[0], &one, peer);
                let route = store.create_route(&actor, spec).await?;
                self.made([route.id.clone()], &route)
            }
            23 => {
                let id = store.routes().await?.into_iter().nth(draw.third % 4).map_or(two, |route| route.id);
                let peer = store.peers(None, None).await?.into_iter().nth(draw.other % 5).map(|peer| peer.id);
                let spec = route(&name, draw, &self.ids[0], &one, peer);
                format!("{:?}", store.update_route(&actor, &id, spec).await?)
            }
            24 => format!("{:?}", store.delete_route(&actor, &one).await?),
            25 => {
                let address = |last: usize| format!("192.0.2.{last}").parse().unwrap();
                let nameservers =
                    (0..draw.third % 5).map(|i| Nameserver { ip: address(i), port: draw.number });
                let spec = NameserverGroupSpec {
                    name,
                    description: String::new(),
                    enabled: draw.flag,
                    primary: draw.flag,
                    search_domains_enabled: draw.other.is_multiple_of(3),
                    nameservers: nameservers.collect(),
                    domains: ["Example.org", "corp", "-"][..draw.other % 4]
                        .iter()
                        .map(|d| (*d).into())
                        .collect(),
                    groups: [self.ids[0].clone()].into(),
                };
                let known = store.nameserver_groups().await?.into_iter().nth(draw.third % 3);
                let group = match known {
                    Some(known) if draw.flag => {
                        store.update_nameserver_group(&actor, &known.id, spec).await?
                    }
                    Some(known) if draw.other.is_multiple_of(5) => {
                        return Ok(format!("{:?}", store.delete_nameserver_group(&actor, &known.id).await?));
                    }
                    _ => store.create_nameserver_group(&actor, spec).await?,
                };
                self.made([group.id.clone()], &group)
            }
            26 => {
                let spec = ZoneSpec {
                    name,
                    domain: ["Zone.example", "b.example.", "nothing", "a..b"][draw.other % 4].into(),
                    enabled: draw.flag,
                    enable_search_domain: !draw.flag,
                    distribution_groups: [self.ids[0].clone()].into(),
                };
                let known = store.zones().await?.into_iter().nth(draw.third % 3);
                let zone = match known {
                    Some(known) if draw.flag => store.update_zone(&actor, &known.id, spec).await?,
                    Some(known) if draw.other.is_multiple_of(5) => {
                        return Ok(format!("{:?}", store.delete_zone(&actor, &known.id).await?));
                    }
                    _ => store.create_zone(&actor, spec).await?,
                };
                self.made([zone.id.clone()], &zone)
            }
            27 | 28 => {
                let Some(zone) = store.zones().await?.into_iter().nth(draw.third % 2) else {
                    return Ok(format!("{:?}", store.record(&one, &two).await?));
                };
                let kinds = [RecordKind::A, RecordKind::Aaaa, RecordKind::Cname];
                let contents = ["192.0.2.7", "2001:DB8::7", "Other.example.", "no name"];
                let spec = RecordSpec {
                    name: format!("{}{}", ["", "www.", "x."][draw.other % 3], zone.spec.domain),
                    kind: kinds[draw.third % 3],
                    content: contents[draw.other % 4].into(),
                    ttl: i64::from(draw.number) - 1,
                };
                let known = zone.records.get(draw.third % 3).map(|record| record.id.clone());
                let record = match known {
                    Some(known) if draw.flag => store.update_record(&actor, &zone.id, &known, spec).await?,
                    Some(known) if draw.other.is_multiple_of(5) => {
                        return Ok(format!("{:?}", store.delete_record(&actor, &zone.id, &known).await?));
                    }
                    _ => store.create_record(&actor, &zone.id, spec).await?,
                };
                self.made([record.id.clone()], &record)
            }
            29 => format!("{:?}", store.set_dns_disabled_groups(&actor, [one].into()).await?.len()),
            38 => {
                let kind = if draw.flag { RevisionKind::Apply } else { RevisionKind::Elsewhere };
                let number =
                    store.keep_policy_revision(&actor, kind, &name.replace('\0', ""), "groups: []\n").await?;
                let kept = store.policy_revision(number).await?;
                let page = store.policy_revisions(Some(number), 3).await?;
                assert_eq!(store.last_policy_revision().await?.as_ref(), Some(&kept));
                format!(
                    "{kept:?} {:?} {page:?}",
                    store.policy_revision(number + 1).await.map_err(|e| e.to_string())
                )
            }
            39 => {
                let max = draw.flag.then(|| u32::from(draw.number) + 1);
                format!("{:?}", store.limit_break_glass(&actor, &one, max).await?)
            }
            40 => {
                let seconds = u32::from(draw.number);
                let on = store
                    .break_glass_on(&actor, &one, seconds, if draw.flag { "why" } else { &name })
                    .await?;
                let until = on.break_glass.as_ref().and_then(|glass| glass.until).is_some();
                assert!(on.enabled && until && store.break_glass().await?.0 > 0);
                format!("{:?}", (on.name, on.rules))
            }
            41 => {
                let ended = store.end_break_glass(if draw.flag { i64::MAX } else { 0 }).await?;
                format!("{ended:?} {:?}", store.break_glass_off(&actor, &one).await?)
            }
            42 => {
                let Some((peer, said)) = learned(&store, draw).await? else { return Ok(String::new()) };
                let noted = store.note_learned(&peer, &said, || !draw.third.is_multiple_of(8)).await?;
                let forgotten =
                    store.forget_learned(if draw.third.is_multiple_of(5) { i64::MAX } else { 0 }).await?;
                format!("{noted:?} {forgotten}")
            }
            _ => {
                let network =
                    store.networks().await?.into_iter().nth(draw.third % 4).map_or(two, |network| network.id);
                format!("{:?}", store.delete_network(&actor, &network).await?)
            }
        })
    }

    /// Everything the store shows, with what is compiled from it.
    async fn everything(&self) -> String {
        let store = &self.store;
        let snapshot = store.snapshot().await.unwrap();
        let mut text =
            format!("{}\n{:#?}\n", snapshot.revision, snapshot.agents.values().collect::<Vec<_>>());
        text += &format!("{:#?}\n", store.groups().await.unwrap());
        text += &format!("{:#?}\n", store.group_counts().await.unwrap());
        text += &format!("{:#?}\n", store.policies().await.unwrap());
        text += &format!("{:#?}\n", store.posture_checks().await.unwrap());
        text += &format!("{:#?}\n", store.failing(None).await.unwrap());
        text += &format!("{:?}\n", store.heard_and_gone().await.unwrap());
        text += &format!("{:#?}\n", store.networks().await.unwrap());
        text += &format!("{:#?}\n", store.routers(None).await.unwrap());
        text += &format!("{:#?}\n", store.routes().await.unwrap());
        text += &format!("{:#?}\n", store.nameserver_groups().await.unwrap());
        text += &format!("{:#?}\n", store.zones().await.unwrap());
        text += &format!("{:#?}\n", store.dns_disabled_groups().await.unwrap());
        text += &format!("{:#?}\n", store.users().await.unwrap());
        text += &format!("{:#?}\n", store.account().await.unwrap().settings);
        for key in store.setup_keys().await.unwrap() {
            text += &format!("{:?}\n", (key.name, key.used_times, key.reusable, key.auto_groups));
        }
        for peer in store.peers(None, None).await.unwrap() {
            text += &format!("{:?}\n", store.places(Some(&peer.id)).await.unwrap().values());
            let failing = store.failing(Some(&peer.id)).await.unwrap();
            let mut all = store.failing(None).await.unwrap();
            all.retain(|failing| failing.peer == peer.id);
            assert_eq!(failing, all, "asked for one or for all");
            text += &format!(
                "{:?}\n",
                (peer.id, peer.name, peer.ip, peer.ipv6, peer.os, peer.connected, peer.groups)
            );
        }
        for event in store.events().await.unwrap() {
            text += &format!("{:?}\n", (event.revision, event.code, event.target_id, event.meta.keys()));
        }
        // Images hold numbers that are drawn from ids, so the ids are made the same first.
        let compiler = Compiler::new(Arc::new(renamed(snapshot.state, |id| self.name(id)))).unwrap();
        for id in self.ids.iter().filter(|id| snapshot.agents.contains_key(*id)) {
            text += &format!("{:?}\n", compiler.compile(&self.name(id)).unwrap());
            text += &format!("{:?}\n", compiler.network(&self.name(id)));
        }
        text
    }

    /// What stands for an id.
    fn name(&self, id: &str) -> String {
        format!("id{:04}", self.ids.iter().position(|known| known == id).unwrap())
    }

    /// Ids as their numbers, and times as one word.
    fn neutral(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (number, id) in self.ids.iter().enumerate() {
            text = text.replace(id, &format!("#{number}"));
        }
        let mut neutral = String::new();
        for word in text.split_inclusive(|char: char| !char.is_ascii_digit()) {
            match word.bytes().take_while(u8::is_ascii_digit).count() {
                13 => neutral += &format!("TIME{}", &word[13..]),
                _ => neutral += word,
            }
        }
        neutral
    }
}

/// A router, and what it says that the names of its networks stand for.
async fn learned(store: &Store, draw: &Draw) -> Result<Option<(String, BTreeSet<Learned>)>, StoreError> {
    let routers = store.routers(None).await?;
    let Some(router) = routers.get(draw.other % routers.len().max(1)) else { return Ok(None) };
    let peer = match (&router.peer, router.peer_groups.first()) {
        (Some(peer), _) => peer.clone(),
        (None, Some(group)) => {
            let group = store.group(group).await?;
            let Some(peer) = group.peers.first() else { return Ok(None) };
            peer.id.clone()
        }
        (None, None) => return Ok(None),
    };
    let addresses =
        [format!("10.9.0.{}", draw.number), format!("fd09::{:x}", draw.number), "127.0.0.1".into()];
    let mut said = BTreeSet::new();
    for resource in store.resources(&router.network_id).await? {
        let name = if draw.flag { "a.example.org" } else { "b.example.org" }.to_owned();
        let learned = |address: &String| Learned {
            resource: resource.id.clone(),
            name: name.clone(),
            address: address.parse().unwrap(),
        };
        said.extend(addresses.iter().map(learned));
    }
    Ok(Some((peer, said)))
}

/// The same state with other ids.
fn renamed(state: State, name: impl Fn(&str) -> String) -> State {
    fn keys<T>(map: BTreeMap<String, T>, name: &impl Fn(&str) -> String) -> BTreeMap<String, T> {
        map.into_iter().map(|(id, value)| (name(&id), value)).collect()
    }
    fn members(ids: &mut BTreeSet<String>, name: &impl Fn(&str) -> String) {
        *ids = ids.iter().map(|id| name(id)).collect();
    }
    let end = |end: &mut model::End| match end {
        model::End::Groups(ids) => members(ids, &name),
        model::End::Peer(id) | model::End::Resource(id) => *id = name(id),
    };
    let mut state = State {
        peers: keys(state.peers.into_inner(), &name).into(),
        groups: keys(state.groups.into_inner(), &name).into(),
        networks: keys(state.networks.into_inner(), &name).into(),
        policies: keys(state.policies.into_inner(), &name).into(),
        ..state
    };
    for group in state.groups.values_mut() {
        members(&mut group.peers, &name);
        members(&mut group.resources, &name);
    }
    for network in state.networks.values_mut() {
        network.resources = keys(std::mem::take(&mut network.resources), &name);
        network.routers = keys(std::mem::take(&mut network.routers), &name);
        network.routers.values_mut().for_each(|router| members(&mut router.peers, &name));
        let bounds = network.resources.values_mut().filter_map(|resource| resource.distribution.as_mut());
        bounds.for_each(|bound| members(&mut bound.groups, &name));
    }
    for policy in state.policies.values_mut() {
        let failed = policy.posture_failed.peers();
        let failed =
            failed.map(|id| (name(id), policy.posture_failed.reason(id).unwrap_or_default().to_owned()));
        policy.posture_failed = failed.collect();
        for rule in &mut policy.rules {
            rule.id = name(&rule.id);
            end(&mut rule.sources);
            end(&mut rule.destinations);
        }
    }
    state
}
