//! Every kind of event there is, over both databases: each says what it is about as it was before and as it is after, as far as there
//! is such a thing, and no event holds a secret.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sluicegate_control::ids::now;
use sluicegate_control::secret::{machine_login_hash, new_machine_login};
use sluicegate_control::store::{
    Activity, Actor, Enrollment, FirstUser, GroupChange, Learned, Location, Nameserver, NameserverGroupSpec,
    NetworkChange, NewInvite, NewMachineLogin, NewSetupKey, NewTemporaryAccess, NewUser, PeerChange, Person,
    PolicyChange, PostureCheckChange, Protocol, RecordKind, RecordSpec, ResourceChange, RevisionKind, Role,
    RouteSpec, RouterChange, Settings, Source, Store, TOKEN_FILE, TemporaryService, Told, User, UserChange,
    UserRole, Via, ZoneSpec,
};
use totp_rs::TOTP;

use crate::audit::{behind, verify};
use crate::world::{all, check_trail, group, join, machine, open, places, policy, setup_key};

const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "another password";

/// What the events of an activity say of what they are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum States {
    /// It was, and is something else now.
    Both,
    /// It was not there before.
    Made,
    /// It is not there any more.
    Gone,
    /// As [`States::Both`], or for some as [`States::Made`].
    MadeOrBoth,
    /// Neither: it is the same before and after, or is not told; and why.
    Neither(&'static str),
}

/// The states of each. A new activity has to be put somewhere here, and something below has to do it.
fn states(activity: Activity) -> States {
    use Activity::*;
    match activity {
        AccountCreate | GroupAdd | NetworkCreate | ResourceCreate | RouterCreate | PeerAdd | PeerUserAdd
        | PolicyAdd | RouteAdd | NameserverGroupAdd | ZoneCreate | RecordCreate | PostureCheckCreate
        | SetupKeyAdd | TokenCreate | DashboardLogin | InviteLinkCreate | UserInvite | ServiceUserCreate => {
            States::Made
        }
        GroupDelete
        | NetworkDelete
        | ResourceDelete
        | RouterDelete
        | PeerDelete
        | PolicyDelete
        | RouteDelete
        | NameserverGroupDelete
        | ZoneDelete
        | RecordDelete
        | PostureCheckDelete
        | SetupKeyDelete
        | TokenDelete
        | UserReject
        | UserDelete
        | ServiceUserDelete
        | SessionEnd
        | InviteLinkDelete => States::Gone,
        // Somebody unknown, and somebody who was invited.
        UserJoin | InviteLinkAccept => States::MadeOrBoth,
        PeerLoginAdmit | PeerLoginRefuse => {
            States::Neither("the machine is no peer yet; where it is one, its login has an event of its own")
        }
        SetupKeyOveruse => States::Neither("the key is what it was: it was refused"),
        AuditPrune => {
            States::Neither("what is gone is the events; the anchor that is left stands in the event")
        }
        AccountSettingsUpdate
        | LoginExpirationEnable
        | LoginExpirationDisable
        | LoginExpirationUpdate
        | InactivityExpirationEnable
        | InactivityExpirationDisable
        | InactivityExpirationUpdate
        | PeerApprovalEnable
        | PeerApprovalDisable
        | GroupPropagationEnable
        | GroupPropagationDisable
        | RoutingPeerDnsEnable
        | RoutingPeerDnsDisable
        | LazyConnectionEnable
        | LazyConnectionDisable
        | PeerExposeEnable
        | PeerExposeDisable
        | LocalMfaEnable
        | LocalMfaDisable
        | AutoUpdateAlwaysEnable
        | AutoUpdateAlwaysDisable
        | AutoUpdateVersion
        | DnsDomainUpdate
        | AccountNetworkRangeUpdate
        | GroupUpdate
        | NetworkUpdate
        | ResourceUpdate
        | ResourceAddresses
        | ResourceGroupAdd
        | ResourceGroupDelete
        | RouterUpdate
        | PeerRename
        | PeerSshEnable
        | PeerSshDisable
        | PeerLoginExpirationEnable
        | PeerLoginExpirationDisable
        | PeerInactivityExpirationEnable
        | PeerInactivityExpirationDisable
        | PeerIpUpdate
        | PeerGroupAdd
        | PeerGroupDelete
        | PeerApprove
        | PeerApprovalRevoke
        | PeerEndpointUpdate
        | PeerPostureFail
        | PeerPosturePass
        | PolicyUpdate
        | PolicyFileApply
        | PolicyFileRollback
        | BreakGlassOn
        | BreakGlassOff
        | BreakGlassExpire
        | RouteUpdate
        | NameserverGroupUpdate
        | DnsDisabledGroupAdd
        | DnsDisabledGroupDelete
        | ZoneUpdate
        | RecordUpdate
        | PostureCheckUpdate
        | SetupKeyGroupAdd
        | SetupKeyGroupDelete
        | SetupKeyRevoke
        | PeerLogin
        | PeerLoginExpire
        | UserApprove
        | InviteLinkRegenerate
        | PasswordChange
        | PasswordReset
        | OneTimeCodesOn
        | OneTimeCodesOff
        | UserGroupAdd
        | UserGroupDelete
        | UserRoleUpdate
        | UserBlock
        | UserUnblock
        | OwnerTransfer => States::Both,
    }
}

/// Why there can be no event of an activity at all.
fn never(activity: Activity) -> Option<&'static str> {
    use Activity::*;
    match activity {
        LazyConnectionEnable | PeerExposeEnable | AutoUpdateAlwaysEnable | PeerSshEnable => Some(
            "a setting that cannot be turned on; an earlier version may have, so that it can be turned off",
        ),
        _ => None,
    }
}

/// A store, and the secrets that it must not tell.
struct Trail {
    store: Store,
    system: Actor,
    secrets: Vec<String>,
}

#[tokio::test]
async fn every_event_has_its_states_and_no_secret_and_there_is_a_way_to_each() {
    for (directory, location) in places() {
        let store = open(&location, directory.path()).await;
        let token = std::fs::read_to_string(directory.path().join(TOKEN_FILE)).unwrap().trim().to_owned();
        let mut trail = Trail {
            store,
            system: Actor::system(),
            secrets: vec![token, PASSWORD.into(), OTHER.into(), "argon2".into()],
        };
        let owner = trail.set_up().await;
        trail.users(&owner).await;
        trail.built_in_users(&owner).await;
        trail.peers(&owner, &location).await;
        trail.objects().await;
        trail.policies().await;
        trail.settings(&location).await;

        let mut seen = BTreeMap::<String, BTreeSet<(bool, bool)>>::new();
        for event in trail.store.events().await.unwrap() {
            let (before, after) = (event.meta.get("before"), event.meta.get("after"));
            seen.entry(event.code.clone()).or_default().insert((before.is_some(), after.is_some()));
            assert!(before.is_none() || before != after, "{event:?}");
            assert!(!event.activity.is_empty(), "{event:?}");
            let text = format!("{event:?}");
            assert!(trail.secrets.iter().all(|secret| !text.contains(secret)), "{text}");
            // Nor what would let somebody look for one: hashes and keys of agents.
            assert!(event.code == "audit.prune" || !text.contains("hash"), "{text}");
            assert!(!text.contains("wireguard_key") && !text.contains("identity_key"), "{text}");
        }
        // The trail begins anew with what removed it, so that this comes last.
        check_trail(&trail.store).await;
        trail.store.prune_events(i64::MAX).await.unwrap();
        let pruned = trail.store.events().await.unwrap().remove(0);
        seen.insert(pruned.code, [(pruned.meta.contains_key("before"), false)].into());
        verify(&trail.store, None).await.unwrap();

        for activity in Activity::ALL.iter().copied() {
            let seen = seen.remove(activity.code()).unwrap_or_default();
            let expected: BTreeSet<(bool, bool)> = match (never(activity), states(activity)) {
                (Some(_), _) => [].into(),
                (None, States::Both) => [(true, true)].into(),
                (None, States::Made) => [(false, true)].into(),
                (None, States::Gone) => [(true, false)].into(),
                (None, States::MadeOrBoth) => [(false, true), (true, true)].into(),
                (None, States::Neither(_)) => [(false, false)].into(),
            };
            assert_eq!(seen, expected, "{activity:?}: before and after");
        }
        assert!(seen.is_empty(), "codes that no activity has: {seen:?}");
        trail.store.close().await;
    }
}

impl Trail {
    /// The first person, who is made the owner.
    async fn set_up(&mut self) -> User {
        let bootstrap = self.store.users().await.unwrap().remove(0);
        let first = FirstUser {
            email: "olga@example.org".into(),
            name: "Olga".into(),
            password: PASSWORD.into(),
            token_days: Some(7),
        };
        let (owner, token) = self.store.set_up(&bootstrap.actor(), first).await.unwrap().unwrap();
        self.secrets.push(token.unwrap());
        owner
    }

    /// People of a provider and service users, their roles, groups and tokens.
    async fn users(&mut self, owner: &User) {
        let store = &self.store;
        let new = |name: &str, role| NewUser {
            name: name.into(),
            email: format!("{name}@example.org"),
            role,
            is_service_user: name == "robot",
            auto_groups: vec![],
        };
        let robot = store.create_user(owner, new("robot", UserRole::Admin)).await.unwrap();
        for days in [1, 2] {
            self.secrets.push(store.create_token(owner, &robot.id, "t", days).await.unwrap().1);
        }
        let token = store.tokens(&robot.id).await.unwrap().remove(0);
        store.delete_token(owner, &robot.id, &token.id).await.unwrap();
        store.delete_user(owner, &robot.id).await.unwrap();

        let ops = store.create_group(&self.system, group("ops")).await.unwrap().id;
        let ann = store.create_user(owner, new("ann", UserRole::Admin)).await.unwrap();
        assert_eq!(store.sign_in(&person("ann"), |_| None).await.unwrap().id, ann.id);
        let change = |role, blocked, groups: &[&String]| UserChange {
            role,
            auto_groups: groups.iter().map(|id| (*id).clone()).collect(),
            blocked: Some(blocked),
        };
        for (role, blocked, groups) in [
            (UserRole::Auditor, true, vec![&ops]),
            (UserRole::Admin, false, vec![]),
            (UserRole::Owner, false, vec![]),
        ] {
            store.update_user(owner, &ann.id, change(role, blocked, &groups)).await.unwrap();
        }
        let ann = store.user(&ann.id).await.unwrap();
        store.update_user(&ann, &owner.id, change(UserRole::Owner, false, &[])).await.unwrap();
        for (who, taken) in [("bob", true), ("carl", false)] {
            assert!(store.sign_in(&person(who), |_| None).await.is_err(), "{who} waits for approval");
            let waiting = self.named(who).await;
            match taken {
                true => drop(store.approve_user(owner, &waiting.id).await.unwrap()),
                false => store.reject_user(owner, &waiting.id).await.unwrap(),
            }
        }
        store.delete_user(owner, &self.named("bob").await.id).await.unwrap();
    }

    async fn named(&self, name: &str) -> User {
        self.store.users().await.unwrap().into_iter().find(|user| user.name == name).unwrap()
    }

    /// Invitations, passwords, codes and logins.
    async fn built_in_users(&mut self, owner: &User) {
        let (store, home) = (&self.store, Source::default());
        let invitation = |email: &str| NewInvite {
            email: email.into(),
            name: email.into(),
            role: UserRole::User,
            auto_groups: vec![],
            expires_in: None,
        };
        let (taken_back, _) = store.create_invite(owner, invitation("x@example.org")).await.unwrap();
        store.delete_invite(owner, &taken_back.id).await.unwrap();
        let (invite, secret) = store.create_invite(owner, invitation("eve@example.org")).await.unwrap();
        self.secrets.push(secret);
        let (_, secret) = store.renew_invite(owner, &invite.id, Some(7200)).await.unwrap();
        let eve = store.accept_invite(&home, &secret, PASSWORD).await.unwrap();
        // Forgotten: a link for who is there.
        let (_, link) = store.invite_user(owner, &eve.id).await.unwrap();
        store.accept_invite(&home, &link, OTHER).await.unwrap();
        self.secrets.extend([secret, link]);
        store.change_password(&eve, &home, OTHER, PASSWORD).await.unwrap();
        for by_server in [false, true] {
            let url = store.begin_codes(&eve, PASSWORD).await.unwrap();
            let totp = TOTP::from_url(&url).unwrap();
            self.secrets.push(totp.get_secret_base32());
            store.confirm_codes(&eve, &totp.generate((now() / 1000).unsigned_abs())).await.unwrap();
            if by_server {
                store.reset_password(&Actor::at_server(0), &eve.email, OTHER, true).await.unwrap();
            } else {
                store.end_own_codes(&eve, PASSWORD).await.unwrap();
            }
        }
        let (session, text) = store.create_session(&eve, &Via::default()).await.unwrap();
        self.secrets.push(text);
        store.end_session_of(owner, &eve.id, &session.id).await.unwrap();
    }

    /// What happens to peers: of setup keys, of users, and without an agent.
    async fn peers(&mut self, owner: &User, location: &Location) {
        let ops =
            self.store.groups().await.unwrap().into_iter().find(|group| group.name == "ops").unwrap().id;
        let store = &self.store;
        let one_off = NewSetupKey { name: "one-off".into(), ..NewSetupKey::default() };
        let (key, text) = store.create_setup_key(&self.system, one_off).await.unwrap();
        join(store, &text, 1, Role::Peer).await;
        for _ in 0..3 {
            let late = Enrollment { setup_key: text.clone(), ..machine(2, Role::Peer) };
            assert!(store.enroll(&late).await.is_err(), "it is used up");
        }
        self.secrets.push(text);
        let tried = store.events().await.unwrap();
        let tried = tried.iter().filter(|event| event.code == "setupkey.overuse");
        assert_eq!(
            tried.map(|event| event.target_id.as_str()).collect::<Vec<_>>(),
            [&key.id],
            "once in a while"
        );
        for (revoked, groups) in [(false, vec![ops.clone()]), (false, vec![]), (true, vec![])] {
            store.update_setup_key(&self.system, &key.id, revoked, &groups).await.unwrap();
        }
        store.delete_setup_key(&self.system, &key.id).await.unwrap();

        // A user's, which follow the user's groups, and expire.
        let eve = self.named("eve@example.org").await;
        let (key, _) = store.create_join_key(&eve).await.unwrap();
        let own = Enrollment { setup_key: key.clone(), ..machine(3, Role::Peer) };
        let own = store.enroll(&own).await.unwrap();
        self.secrets.push(key);
        for groups in [vec![ops.clone()], vec![]] {
            let change = UserChange { role: UserRole::User, blocked: None, auto_groups: groups };
            store.update_user(owner, &eve.id, change).await.unwrap();
        }
        store.age_peer(&own.id, 48 * 3_600_000).await.unwrap();
        assert_eq!(store.expire_peers().await.unwrap(), 1);
        store.renew_peer(&eve, &own.id).await.unwrap();

        // Machines that wait for her.
        for refused in [false, true] {
            let secret = new_machine_login();
            let waiting = machine(4, Role::Peer);
            let new = NewMachineLogin {
                hash: machine_login_hash(&secret).unwrap(),
                identity_key: waiting.identity_key,
                wireguard_public_key: waiting.wireguard_public_key,
                role: waiting.role,
                hostname: waiting.hostname,
                os: waiting.os,
                from: None,
                peer: None,
                device: None,
            };
            let (code, _) = store.begin_login(&new).await.unwrap();
            match refused {
                true => store.refuse_machine(&eve, &code).await.unwrap(),
                false => store.admit_machine(&eve, &code).await.unwrap(),
            };
            self.secrets.extend([secret, code]);
        }

        let base = store.peer(&own.id).await.unwrap();
        let as_it_is = PeerChange {
            name: base.name.clone(),
            ssh_enabled: base.ssh_enabled,
            login_expiration_enabled: base.login_expiration_enabled,
            inactivity_expiration_enabled: base.inactivity_expiration_enabled,
            approval_required: None,
            ip: None,
            ipv6: None,
        };
        let other = PeerChange {
            name: "other".into(),
            login_expiration_enabled: !base.login_expiration_enabled,
            inactivity_expiration_enabled: !base.inactivity_expiration_enabled,
            approval_required: Some(true),
            ..as_it_is.clone()
        };
        store.update_peer(&self.system, &own.id, other).await.unwrap();
        let stored = format!("UPDATE peers SET ssh_enabled = TRUE WHERE id = '{}'", own.id);
        behind(location, stored).await;
        let back = PeerChange { approval_required: Some(false), ..as_it_is };
        store.update_peer(&self.system, &own.id, back).await.unwrap();
        store.set_peer_endpoint(&own.id, Some("[2001:db8::1]:51820".parse().unwrap())).await.unwrap();
        let granted = NewTemporaryAccess {
            name: "guest".into(),
            wireguard_public_key: [9; 32],
            services: vec![TemporaryService {
                text: "tcp/22".into(),
                protocol: Protocol::Tcp,
                ports: Vec::new(),
            }],
        };
        let guest = store.grant_temporary_access(&self.system, &own.id, granted).await.unwrap();
        store.delete_peer(&self.system, &guest.peer.id).await.unwrap();
        self.secrets.push(setup_key(store).await);
    }

    /// Groups, networks with what is in them, routes, names.
    async fn objects(&self) {
        let (store, by) = (&self.store, &self.system);
        let everybody = all(store).await;
        let web = store.create_group(by, group("web")).await.unwrap().id;
        let peer = store.peers(None, None).await.unwrap().remove(0).id;
        let change = GroupChange { name: "www".into(), peers: vec![peer.clone()], resources: vec![] };
        store.update_group(by, &web, change).await.unwrap();

        let network = |name: &str| NetworkChange { name: name.into(), description: String::new() };
        let site = store.create_network(by, network("site")).await.unwrap().id;
        store.update_network(by, &site, network("place")).await.unwrap();
        let resource = |name: &str, groups: &[&String]| ResourceChange {
            name: name.into(),
            description: String::new(),
            address: "2001:db8::/64".into(),
            enabled: true,
            groups: groups.iter().map(|id| (*id).clone()).collect(),
        };
        let made = store.create_resource(by, &site, resource("shop", &[])).await.unwrap().id;
        let before = self.codes("resource.group.").await;
        assert_eq!(before, Vec::<String>::new(), "it was in no group");
        store.update_resource(by, &site, &made, resource("shop", &[&web])).await.unwrap();
        store.update_resource(by, &site, &made, resource("shop", &[])).await.unwrap();
        let kept = store.create_resource(by, &site, resource("kept", &[&web])).await.unwrap().id;
        store.update_resource(by, &site, &kept, resource("as it was", &[&web])).await.unwrap();
        store.delete_resource(by, &site, &made).await.unwrap();
        let router = |metric| RouterChange {
            peer: Some(peer.clone()),
            peer_groups: Vec::new(),
            metric,
            masquerade: true,
            enabled: true,
        };
        let gateway = store.create_router(by, &site, router(1)).await.unwrap().id;
        store.update_router(by, &site, &gateway, router(2)).await.unwrap();
        let named = ResourceChange { address: "db.example.org".into(), ..resource("named", &[]) };
        let named = store.create_resource(by, &site, named).await.unwrap().id;
        let learned = ["10.9.0.1", "fd09::1"].map(|address| Learned {
            resource: named.clone(),
            name: "db.example.org".into(),
            address: address.parse().unwrap(),
        });
        store.note_learned(&peer, &learned.into(), || true).await.unwrap();
        store.delete_network(by, &site).await.unwrap();
        // One when it came and one when it went, each of what was in the group.
        let (add, delete) = ("resource.group.add", "resource.group.delete");
        assert_eq!(self.codes("resource.group.").await, [add, delete, add, delete]);
        store.delete_group(by, &web).await.unwrap();

        let route = |metric| RouteSpec {
            network_id: "lab".into(),
            description: String::new(),
            network: "10.9.0.0/16".parse().unwrap(),
            peer: Some(peer.clone()),
            peer_groups: [].into(),
            metric,
            masquerade: true,
            enabled: true,
            groups: [everybody.clone()].into(),
            access_control_groups: [].into(),
            keep_route: false,
            skip_auto_apply: false,
        };
        let lab = store.create_route(by, route(1)).await.unwrap().id;
        store.update_route(by, &lab, route(2)).await.unwrap();
        store.delete_route(by, &lab).await.unwrap();

        let names = |port| NameserverGroupSpec {
            name: "own".into(),
            description: String::new(),
            enabled: true,
            primary: true,
            search_domains_enabled: false,
            nameservers: vec![Nameserver { ip: "2001:db8::53".parse().unwrap(), port }],
            domains: Vec::new(),
            groups: [everybody.clone()].into(),
        };
        let own = store.create_nameserver_group(by, names(53)).await.unwrap().id;
        store.update_nameserver_group(by, &own, names(5353)).await.unwrap();
        store.delete_nameserver_group(by, &own).await.unwrap();
        for groups in [[everybody.clone()].into(), BTreeSet::new()] {
            store.set_dns_disabled_groups(by, groups).await.unwrap();
        }
        let zone = |enabled| ZoneSpec {
            name: "zone".into(),
            domain: "zone.example".into(),
            enabled,
            enable_search_domain: false,
            distribution_groups: [everybody.clone()].into(),
        };
        let id = store.create_zone(by, zone(true)).await.unwrap().id;
        store.update_zone(by, &id, zone(false)).await.unwrap();
        let record = |content: &str| RecordSpec {
            name: "www.zone.example".into(),
            kind: RecordKind::Aaaa,
            content: content.into(),
            ttl: 300,
        };
        let www = store.create_record(by, &id, record("2001:db8::7")).await.unwrap().id;
        store.update_record(by, &id, &www, record("2001:db8::8")).await.unwrap();
        store.delete_record(by, &id, &www).await.unwrap();
        store.delete_zone(by, &id).await.unwrap();
    }

    /// The codes of the trail that begin so, in order.
    async fn codes(&self, prefix: &str) -> Vec<String> {
        let events = self.store.events().await.unwrap().into_iter().rev();
        events.map(|event| event.code).filter(|code| code.starts_with(prefix)).collect()
    }

    /// Policies, posture checks with their verdicts, files and emergencies.
    async fn policies(&self) {
        let (store, by) = (&self.store, &self.system);
        let everybody = all(store).await;
        let check = |least: &str| PostureCheckChange {
            name: "fresh".into(),
            description: String::new(),
            checks: serde_json::from_value(json!({"nb_version_check": {"min_version": least}})).unwrap(),
        };
        let fresh = store.create_posture_check(by, check("0.3.0")).await.unwrap().id;
        let change = |port| PolicyChange {
            source_posture_checks: vec![fresh.clone()],
            ..policy("web", &everybody, 1, port)
        };
        let web = store.create_policy(by, change(80)).await.unwrap().id;
        store.update_policy(by, &web, change(443)).await.unwrap();
        let peer = store.peers(None, None).await.unwrap().remove(0).id;
        for version in ["0.2.0", "0.3.0"] {
            let mut told = Told::default();
            told.system.version = version.into();
            assert_eq!(store.note_facts(&peer, &told).await.unwrap().len(), 1, "{version}");
        }
        store.update_posture_check(by, &fresh, check("0.2.0")).await.unwrap();
        store.limit_break_glass(by, &web, Some(3600)).await.unwrap();
        store.break_glass_on(by, &web, 60, "a test").await.unwrap();
        store.break_glass_off(by, &web).await.unwrap();
        store.break_glass_on(by, &web, 60, "a test").await.unwrap();
        assert_eq!(store.end_break_glass(i64::MAX).await.unwrap(), ["web"]);
        store.delete_policy(by, &web).await.unwrap();
        store.delete_posture_check(by, &fresh).await.unwrap();
        for (kind, file) in
            [(RevisionKind::Apply, "groups: []\n"), (RevisionKind::Rollback, "policies: []\n")]
        {
            store.keep_policy_revision(by, kind, "why", file).await.unwrap();
        }
    }

    /// Settings, each with its own code, some of which only an earlier version could turn on.
    async fn settings(&self, location: &Location) {
        let (store, by) = (&self.store, &self.system);
        let change = async |change: fn(&mut Settings)| {
            let mut settings = store.account().await.unwrap().settings;
            change(&mut settings);
            store.update_settings(by, settings).await.unwrap();
        };
        let apart = GroupChange { name: "apart".into(), ..GroupChange::default() };
        store.create_group(by, apart).await.unwrap();
        for _ in 0..2 {
            change(|all| {
                all.peer_login_expiration_enabled = !all.peer_login_expiration_enabled;
                all.peer_inactivity_expiration_enabled = !all.peer_inactivity_expiration_enabled;
                all.groups_propagation_enabled = !all.groups_propagation_enabled;
                all.extra.peer_approval_enabled = !all.extra.peer_approval_enabled;
                all.local_mfa_enabled = !all.local_mfa_enabled;
                all.peer_login_expiration += 3600;
                all.peer_inactivity_expiration += 600;
                all.regular_users_view_blocked = !all.regular_users_view_blocked;
                all.routing_peer_dns_resolution_enabled = !all.routing_peer_dns_resolution_enabled;
            })
            .await;
        }
        change(|all| all.dns_domain = "example.org".into()).await;
        let before = store.peers(None, None).await.unwrap();
        let moved = self.codes("peer.ip.update").await.len();
        change(|all| {
            // An account begins with a range by chance, which may be this one.
            let other = if all.network_range == "100.99.0.0/16" { "100.98.0.0/16" } else { "100.99.0.0/16" };
            all.network_range = other.into();
        })
        .await;
        assert!(before.len() > 1);
        assert_eq!(self.codes("peer.ip.update").await.len() - moved, before.len(), "each peer has its own");
        for event in store.events().await.unwrap().iter().filter(|event| event.code == "peer.ip.update") {
            let known = before.iter().find(|peer| peer.id == event.target_id).unwrap();
            assert!(event.meta["before"].contains(&format!("\"ip\":\"{}\"", known.ip)), "{event:?}");
            let now = store.peer(&known.id).await.unwrap();
            assert!(event.meta["after"].contains(&format!("\"ip\":\"{}\"", now.ip)), "{event:?}");
        }

        let mut stored = serde_json::to_value(store.account().await.unwrap().settings).unwrap();
        for setting in ["lazy_connection_enabled", "peer_expose_enabled", "auto_update_always"] {
            stored[setting] = json!(true);
        }
        stored["auto_update_version"] = json!("0.2.0");
        behind(location, format!("UPDATE account SET settings = '{stored}'")).await;
        change(|all| {
            all.lazy_connection_enabled = false;
            all.peer_expose_enabled = false;
            all.auto_update_always = false;
            all.auto_update_version = "disabled".into();
        })
        .await;
    }
}

fn person(name: &str) -> Person {
    Person {
        issuer: "https://idp.example".into(),
        subject: name.into(),
        name: name.into(),
        email: format!("{name}@example.org"),
        email_verified: true,
        at: 0,
    }
}
