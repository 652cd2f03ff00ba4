//! A whole agent in a namespace of its own, against a control that says what the test wants. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod control;
#[path = "../support/dnsmasq.rs"]
mod dnsmasq;
mod ends;
mod facts;
#[path = "../userspace/image.rs"]
mod image;
mod names;
mod overlay;
mod questions;
mod resolver;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Acknowledgement, FlowsQuery, NetworkConfig, Snapshot};
use sluicegate_api::image::{Image, RuleInfo};
use sluicegate_gateway::config::{Failover, OverlayKind, Places, Settings};
use sluicegate_gateway::datapath::{self, Choice};
use sluicegate_gateway::status::Status;
use sluicegate_gateway::{agent, identity, system};
use sluicegate_lab::Lab;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, block_in_place};

use control::Control;
use image::Rule;

/// An emulated kernel takes the better part of a minute to verify the programs.
const PATIENCE: Duration = Duration::from_secs(180);

/// A joined agent that does not run yet.
struct World {
    control: Control,
    settings: Settings,
}

/// The agent while it runs, in a runtime of its own: nothing of it outlives its stop.
struct Running {
    runtime: Runtime,
    task: JoinHandle<Result<()>>,
    stop: oneshot::Sender<()>,
}

/// Runs `test` in a namespace with a joined agent whose image of revision 1 permits everything.
fn with_agent(
    choice: Choice,
    change: impl FnOnce(&mut Settings) + Send,
    test: impl AsyncFnOnce(&World) + Send,
) {
    assert!(system::is_root(), "this test needs root, for network namespaces");
    let lab = Lab::new().unwrap();
    let bpf_dir = lab.bpffs().unwrap().join("agent");
    let host = lab.namespace("host").unwrap();
    let inside = || {
        runtime().block_on(async {
            let (control, address) = Control::start().await.unwrap();
            control.join(address, lab.dir()).await.unwrap();
            let mut settings = settings(choice, lab.dir(), &bpf_dir);
            change(&mut settings);
            control.tell(Update::Network(overlay(1)));
            control.tell(Update::Snapshot(snapshot(1, &image::image(Rule::Accept { masquerade: true }))));
            test(&World { control, settings }).await;
        });
    };
    host.enter(inside).unwrap();
}

fn settings(choice: Choice, dir: &Path, bpf_dir: &Path) -> Settings {
    Settings {
        places: Places {
            state_dir: dir.join("state"),
            socket: dir.join("agent.sock"),
            bpf_dir: bpf_dir.into(),
            device: "sluice0".into(),
            control: None,
            role: None,
        },
        overlay: OverlayKind::Wireguard,
        metrics: Some(SocketAddr::from(([127, 0, 0, 1], 9464))),
        listen_port: Some(51820),
        use_routes: Vec::new(),
        endpoint: None,
        datapath: datapath::Settings {
            choice,
            bpf_dir: bpf_dir.into(),
            site_devices: Vec::new(),
            nat_ports: 20_000..=20_063,
            flow_entries: 4096,
            image_words: 4096,
            mtu: 1420,
            flows: datapath::FlowSettings::default(),
            xdp: datapath::XdpSettings::default(),
        },
        pools: BTreeMap::new(),
        max_policy_age: None,
        failover: Failover {
            probe_interval: Duration::from_secs(1),
            dead_after: Duration::from_secs(3),
            return_after: Duration::from_secs(2),
        },
        name_servers: Vec::new(),
        dns: sluicegate_gateway::config::Dns {
            listen: Vec::new(),
            host: sluicegate_gateway::config::HostMode::Off,
            resolv_conf: dir.join("resolv.conf"),
        },
    }
}

fn overlay(serial: u64) -> NetworkConfig {
    NetworkConfig {
        protocol: sluicegate_api::PROTOCOL,
        serial,
        address_v4: "100.64.0.1/24".into(),
        address_v6: "fd64::1/64".into(),
        ..NetworkConfig::default()
    }
}

fn snapshot(revision: u64, image: &Image) -> Snapshot {
    Snapshot { revision, hash: image.hash().to_vec(), image: image.encode() }
}

impl World {
    fn run(&self) -> Running {
        let (stop, stopped) = oneshot::channel();
        let settings = self.settings.clone();
        let runtime = runtime();
        let task = runtime.spawn(agent::run(settings, async { drop(stopped.await) }));
        Running { runtime, task, stop }
    }

    /// Asks the agent until its status is as `wanted`.
    async fn status(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let begun = Instant::now();
        loop {
            let last = self.ask();
            match last {
                Ok(status) if wanted(&status) => return status,
                last => assert!(begun.elapsed() < PATIENCE, "{what}: {last:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn ask(&self) -> Result<Status> {
        let mut stream = UnixStream::connect(&self.settings.places.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /v1/status HTTP/1.0\r\nHost: agent\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
        if !head.contains(" 200 ") {
            bail!("{body}");
        }
        Ok(serde_json::from_str(body)?)
    }

    /// Has the host send `count` packets of each family into the overlay.
    fn send(&self, count: u16) {
        for (from, to) in [("100.64.0.1:0", "100.64.0.2"), ("[fd64::1]:0", "fd64::2")] {
            let socket = UdpSocket::bind(from).unwrap();
            for port in 0..count {
                // A packet dropped on its way out is told the sender as an error.
                let _ = socket.send_to(b"x", (to, 9000 + port));
            }
        }
    }

    async fn acknowledged(&self, revision: u64) -> Acknowledgement {
        let begun = Instant::now();
        loop {
            if let Some(acknowledgement) = self.control.acknowledged(revision) {
                return acknowledgement;
            }
            assert!(begun.elapsed() < PATIENCE, "revision {revision} was not acknowledged");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.settings.metrics.unwrap()).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: agent\r\n\r\n").await.unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).await.unwrap();
        page
    }
}

impl Running {
    async fn stop(self) {
        let _ = self.stop.send(());
        self.task.await.unwrap().unwrap();
        block_in_place(|| self.runtime.shutdown_timeout(PATIENCE));
    }
}

/// Its threads are in the namespace of the one that makes it.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn drops(status: &Status, reason: &str) -> u64 {
    status.counters.drops.iter().find(|d| d.reason == reason).map_or(0, |d| d.packets)
}

fn forwarded(status: &Status) -> u64 {
    status.counters.forwarded.iter().map(|f| f.packets).sum()
}

/// The gateway of a deleted peer must not wait for its image to grow old, and a restart must not bring it back.
async fn expelled(world: &World) {
    let running = world.run();
    let is_up =
        |s: &Status| s.policy.revision == Some(1) && s.identity.address_v6.is_some() && s.control.connected;
    let before = world.status("the agent comes up", is_up).await;
    world.send(5);
    let open = world.status("both families pass", |s| forwarded(s) >= forwarded(&before) + 10).await;
    assert_eq!(drops(&open, "policy_expired"), 0);

    world.control.expel();
    world.status("the agent notices", |s| s.degraded.iter().any(|d| d.contains("join again"))).await;
    world.send(5);
    let shut = world.status("both families are dropped", |s| drops(s, "policy_expired") >= 10).await;
    assert_eq!(forwarded(&shut), forwarded(&open));
    running.stop().await;

    // Nobody is there to say it again: what control said last holds.
    world.control.go_away();
    let running = world.run();
    let again = world
        .status("it is shut again", |s| s.policy.revision == Some(1) && s.identity.address_v6.is_some())
        .await;
    world.send(5);
    let shut = world
        .status("dropped again", |s| drops(s, "policy_expired") >= drops(&again, "policy_expired") + 10)
        .await;
    assert_eq!(forwarded(&shut), forwarded(&again));

    world.control.come_back();
    let back = world
        .status("control knows it again", |s| {
            s.control.connected && s.degraded.iter().all(|d| !d.contains("join again"))
        })
        .await;
    world.send(5);
    world.status("both families pass again", |s| forwarded(s) >= forwarded(&back) + 10).await;
    running.stop().await;
}

#[test]
fn an_agent_that_control_has_removed_forwards_nothing_over_a_restart_too() {
    with_agent(Choice::Ebpf, |_| {}, expelled);
}

#[test]
fn an_agent_that_control_has_removed_forwards_nothing_in_user_space_either() {
    with_agent(Choice::Userspace, |_| {}, expelled);
}

/// Whatever is wrong with an image, the old one stays, control hears why, and a metric counts it.
async fn refused(world: &World) {
    let running = world.run();
    world.status("the agent comes up", |s| s.policy.revision == Some(1)).await;
    assert!(world.acknowledged(1).await.applied);
    let whole = snapshot(2, &image::image(Rule::None));
    let image_of = |bytes: Vec<u8>, revision| Snapshot {
        revision,
        hash: <sha2::Sha256 as sha2::Digest>::digest(&bytes).to_vec(),
        image: bytes,
    };
    let words = |change: &dyn Fn(&mut Vec<u32>), revision| {
        let mut image = image::image(Rule::None);
        change(&mut image.words);
        snapshot(revision, &image)
    };
    let cases = [
        ("malformed", "truncated", image_of(whole.image[..whole.image.len() - 3].to_vec(), 10)),
        ("malformed", "unknown fields", image_of([&whole.image[..], &[1, 2, 3]].concat(), 11)),
        ("hash", "wrong hash", Snapshot { hash: vec![7; 32], revision: 12, ..whole.clone() }),
        ("too_large", "too large", words(&|w| w.resize(8192, 0), 13)),
        (
            "invalid",
            "a reserved header word",
            words(&|w| w[sluicegate_engine::image::header::OWN + 1] = 1, 14),
        ),
        (
            "invalid",
            "a row that is not there",
            words(&|w| w[sluicegate_engine::image::header::ROWS_LEN] = 1, 15),
        ),
        ("stale", "an older revision", Snapshot { revision: 0, ..whole.clone() }),
    ];
    for (label, what, bad) in cases {
        let revision = bad.revision;
        world.control.tell(Update::Snapshot(bad));
        let acknowledgement = world.acknowledged(revision).await;
        assert!(
            !acknowledgement.applied && !acknowledgement.refusal.is_empty(),
            "{what}: {acknowledgement:?}"
        );
        let counted = format!("sluicegate_gateway_policy_apply_failures_total{{reason=\"{label}\"}}");
        let page = world.metrics().await;
        let line = page.lines().find(|l| l.starts_with(&counted)).unwrap();
        assert!(!line.ends_with(" 0"), "{what}: {line}");
    }
    let before = world.status("the old image stays", |s| s.policy.revision == Some(1)).await;
    world.send(5);
    world.status("and is enforced", |s| forwarded(s) >= forwarded(&before) + 10).await;
    world.control.tell(Update::Snapshot(Snapshot { revision: 16, ..whole }));
    assert!(world.acknowledged(16).await.applied, "a good one is taken after all that");
    running.stop().await;
}

/// Control asks before it changes something: the answer is of the flows there are, of both families, and no longer than was asked.
async fn tells_its_flows(world: &World) {
    let running = world.run();
    let is_up =
        |s: &Status| s.policy.revision == Some(1) && s.identity.address_v6.is_some() && s.control.connected;
    let before = world.status("the agent comes up", is_up).await;
    let mut named = image::image(Rule::Accept { masquerade: true });
    let rule = RuleInfo {
        policy_id: "policy-1".into(),
        policy_name: "all".into(),
        rule_id: "rule-1".into(),
        rule_name: "everything".into(),
        accept: true,
    };
    named.rules.insert(0, rule);
    world.control.tell(Update::Snapshot(snapshot(2, &named)));
    assert!(world.acknowledged(2).await.applied);
    world.send(5);
    world.status("both families pass", |s| forwarded(s) >= forwarded(&before) + 10).await;
    let answer = async |id: u64, most: u32| {
        let begun = Instant::now();
        loop {
            // Flows are those of the last sweep.
            match world.control.ask_flows(FlowsQuery { id, most }) {
                Some(list) if list.query == id && list.live >= 10 => return list,
                last => assert!(begun.elapsed() < PATIENCE, "{last:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let whole = answer(7, 1000).await;
    assert_eq!(whole.live, whole.flows.len() as u64);
    for (from, to) in [
        (vec![100, 64, 0, 1], vec![100, 64, 0, 2]),
        (
            "fd64::1".parse::<Ipv6Addr>().unwrap().octets().to_vec(),
            "fd64::2".parse::<Ipv6Addr>().unwrap().octets().to_vec(),
        ),
    ] {
        let mine = whole.flows.iter().filter(|flow| flow.source == from && flow.destination == to);
        let mut ports: Vec<u32> = mine
            .inspect(|flow| {
                assert_eq!((flow.protocol, flow.packets, flow.confirmed), (17, 1, false), "{flow:?}");
                assert!(flow.bytes > 0 && flow.source_port > 0, "{flow:?}");
                let rule = &whole.rules[flow.rule as usize - 1];
                assert_eq!((&*rule.policy_id, &*rule.rule_id), ("policy-1", "rule-1"));
            })
            .map(|flow| flow.destination_port)
            .filter(|port| (9000..9005).contains(port))
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, [9000, 9001, 9002, 9003, 9004]);
    }
    let some = answer(8, 3).await;
    assert_eq!((some.flows.len(), some.live >= 10), (3, true));
    running.stop().await;
}

/// Control may want no events of flows; those of the meantime are not told later either.
async fn tells_of_flows_while_control_wants_it(world: &World) {
    let running = world.run();
    let is_up =
        |s: &Status| s.policy.revision == Some(1) && s.identity.address_v6.is_some() && s.control.connected;
    world.status("the agent comes up", is_up).await;
    let permit = image::image(Rule::Accept { masquerade: true });
    // Ten flows, and who opened those of which control is told.
    let opened = async || {
        world.send(5);
        let (begun, mut ports) = (Instant::now(), BTreeSet::new());
        while ports.len() < 10 {
            assert!(begun.elapsed() < PATIENCE, "{ports:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            let events = world.control.flow_events();
            let mine = events.iter().filter(|event| (9000..9005).contains(&event.destination_port));
            ports.extend(mine.map(|event| (event.source.clone(), event.source_port, event.destination_port)));
        }
        ports
    };
    opened().await;
    world.control.tell(Update::Network(NetworkConfig { no_flow_events: true, ..overlay(2) }));
    // Updates are taken in order, and reports come in order.
    world.control.tell(Update::Snapshot(snapshot(2, &permit)));
    assert!(world.acknowledged(2).await.applied);
    world.control.flow_events();
    world.send(5);
    let begun = Instant::now();
    let unseen = loop {
        match world.control.ask_flows(FlowsQuery { id: 1, most: 1000 }) {
            Some(list) if list.live >= 20 => break list,
            last => assert!(begun.elapsed() < PATIENCE, "{last:?}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let told = world.control.flow_events();
    assert!(told.is_empty(), "{told:?}");
    world.control.tell(Update::Network(overlay(3)));
    world.control.tell(Update::Snapshot(snapshot(3, &permit)));
    assert!(world.acknowledged(3).await.applied);
    for (address, port, _) in opened().await {
        let address: std::net::IpAddr = address.parse().unwrap();
        let bytes = match address {
            std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
            std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
        };
        let of_then = unseen.flows.iter().any(|flow| flow.source == bytes && flow.source_port == port);
        assert!(!of_then, "{address} {port}");
    }
    running.stop().await;
}

#[test]
fn an_agent_tells_of_flows_while_control_wants_it() {
    with_agent(Choice::Ebpf, |_| {}, tells_of_flows_while_control_wants_it);
}

#[test]
fn an_agent_tells_of_flows_while_control_wants_it_in_user_space_too() {
    with_agent(Choice::Userspace, |_| {}, tells_of_flows_while_control_wants_it);
}

#[test]
fn an_agent_tells_control_its_flows_when_it_is_asked() {
    with_agent(Choice::Ebpf, |_| {}, tells_its_flows);
}

#[test]
fn an_agent_tells_control_its_flows_in_user_space_too() {
    with_agent(Choice::Userspace, |_| {}, tells_its_flows);
}

/// The others do not answer, in either family; whichever the agent begins with, it comes to the one that does.
async fn among_several(world: &World) {
    let card = identity::card(&world.settings.places.state_dir).unwrap().unwrap();
    let control = Some(format!("https://127.0.0.1:1,{},https://[::1]:1", card.control));
    let places = Places { control, ..world.settings.places.clone() };
    let settings = Settings { places, ..world.settings.clone() };
    let world = World { control: world.control.clone(), settings };
    let running = world.run();
    for _ in 0..3 {
        world.status("a control is found", |s| s.control.connected && s.policy.revision == Some(1)).await;
        world.control.go_away();
        world.status("it is gone", |s| !s.control.connected).await;
        world.control.come_back();
    }
    running.stop().await;
}

#[test]
fn of_several_controls_the_one_that_answers_is_followed() {
    with_agent(Choice::Userspace, |_| {}, among_several);
}

/// Devices go away and come back under an open stream, and what was remembered of the image is gone.
async fn opened_again_without_its_image(world: &World) {
    let up = |s: &Status| s.policy.revision.is_some() && s.control.connected;
    let first = world.run();
    world.status("the agent comes up", up).await;
    first.stop().await;
    let running = world.run();
    world.status("the agent comes up again", up).await;
    assert!(!world.control.asked().1.is_empty(), "it knows the image");
    // Control says the first one again to every stream: when the second is acknowledged, nothing is being written any more.
    world.control.tell(Update::Snapshot(snapshot(2, &image::image(Rule::Accept { masquerade: false }))));
    assert!(world.acknowledged(2).await.applied);

    for name in ["image", "image.journal"] {
        std::fs::remove_file(world.settings.places.state_dir.join(name)).or_else(absent).unwrap();
    }
    let deleted =
        Command::new("ip").args(["link", "delete", &world.settings.places.device]).status().unwrap();
    assert!(deleted.success());
    let begun = Instant::now();
    while !world.control.asked().1.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "control was not asked for the image");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let sent = |s: &Status| up(s) && s.policy.revision == Some(2) && s.identity.address_v6.is_some();
    let back = world.status("it is sent", sent).await;
    world.send(5);
    world.status("both families pass again", |s| forwarded(s) >= forwarded(&back) + 10).await;
    running.stop().await;
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[test]
fn an_image_that_is_lost_under_an_open_stream_is_asked_for() {
    with_agent(Choice::Ebpf, |_| {}, opened_again_without_its_image);
}

#[test]
fn an_image_that_is_lost_under_an_open_stream_is_asked_for_in_user_space_too() {
    with_agent(Choice::Userspace, |_| {}, opened_again_without_its_image);
}

#[test]
fn bad_images_are_refused_by_the_kernel_datapath_and_the_old_one_stays() {
    with_agent(Choice::Ebpf, |_| {}, refused);
}

#[test]
fn bad_images_are_refused_by_the_user_space_datapath_and_the_old_one_stays() {
    with_agent(Choice::Userspace, |_| {}, refused);
}

/// On a bridge, which no driver runs XDP for, with the generic kind chosen.
fn guarded(settings: &mut Settings) {
    for args in [&["link", "add", "br0", "type", "bridge"][..], &["link", "set", "br0", "up"]] {
        assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
    }
    let guard =
        datapath::GuardSettings { devices: vec!["br0".into()], handshakes_per_second: 20, burst: 100 };
    settings.datapath.xdp =
        datapath::XdpSettings { choice: datapath::XdpChoice::Generic, guard: Some(guard) };
}

#[test]
fn the_guard_knows_wireguards_port_and_status_and_metrics_show_it_and_the_mode_of_xdp() {
    with_agent(Choice::Ebpf, guarded, async |world: &World| {
        let running = world.run();
        let status = world.status("the agent comes up", |s| s.policy.revision == Some(1)).await;
        let guard = status.datapath.guard.unwrap();
        assert_eq!((guard.port, guard.devices), (status.identity.listen_port, vec!["br0".to_owned()]));
        let [xdp] = &status.datapath.xdp[..] else { panic!("{:?}", status.datapath.xdp) };
        assert_eq!((&*xdp.device, &*xdp.mode), ("br0", "generic"), "{:?}", status.degraded);
        let page = world.metrics().await;
        for line in [
            "sluicegate_gateway_xdp_mode{device=\"br0\",mode=\"generic\"} 1",
            "sluicegate_gateway_underlay_guard 1",
            "sluicegate_gateway_dropped_packets_total{reason=\"underlay_malformed\"} 0",
            "sluicegate_gateway_dropped_packets_total{reason=\"underlay_handshake_rate\"} 0",
        ] {
            assert!(page.contains(line), "{line}");
        }
        running.stop().await;
    });
}

#[test]
fn in_user_space_the_missing_guard_is_said() {
    with_agent(Choice::Userspace, guarded, async |world: &World| {
        let running = world.run();
        let status = world.status("the agent comes up", |s| s.policy.revision == Some(1)).await;
        assert!(status.degraded.iter().any(|d| d.contains("underlay guard")), "{:?}", status.degraded);
        assert_eq!((status.datapath.guard, status.datapath.xdp.len()), (None, 0));
        running.stop().await;
    });
}

fn on_an_ethernet(settings: &mut Settings) {
    for args in [
        &["link", "add", "name", "eth2", "type", "veth", "peer", "name", "far"][..],
        &["link", "set", "eth2", "up"],
        &["link", "set", "far", "up"],
        &["address", "add", "192.0.2.9/24", "dev", "eth2"],
    ] {
        assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
    }
    settings.overlay = OverlayKind::Ethernet;
    settings.places.device = "eth2".into();
}

fn addresses_of_eth2() -> String {
    let shown = std::process::Command::new("ip").args(["-o", "address", "show", "dev", "eth2"]).output();
    String::from_utf8(shown.unwrap().stdout).unwrap()
}

/// The device is somebody else's: it gets the overlay's addresses, keeps its own, and outlives the agent.
#[test]
fn an_ethernet_that_is_there_can_be_the_overlay() {
    with_agent(Choice::Ebpf, on_an_ethernet, async |world: &World| {
        let running = world.run();
        let is_up = |s: &Status| {
            s.policy.revision == Some(1) && s.identity.address_v6.is_some() && s.control.connected
        };
        let status = world.status("the agent comes up", is_up).await;
        let identity = &status.identity;
        assert_eq!((&*identity.overlay_kind, &*identity.device), ("ethernet", "eth2"));
        assert_eq!((identity.listen_port, status.datapath.kind.as_str()), (0, "ebpf"));
        let [xdp] = &status.datapath.xdp[..] else { panic!("{:?}", status.datapath.xdp) };
        assert_eq!((&*xdp.device, &*xdp.mode, xdp.sends), ("eth2", "native", false));
        let there = |when: &str| {
            let shown = addresses_of_eth2();
            for address in ["192.0.2.9/24", "100.64.0.1/24", "fd64::1/64"] {
                assert!(shown.contains(address), "{when}: {address} in {shown}");
            }
        };
        there("while the agent runs");
        for peer in ["100.64.0.2", "fd64::2"] {
            let args = ["neighbour", "replace", peer, "lladdr", "02:00:00:00:00:09", "dev", "eth2"];
            assert!(std::process::Command::new("ip").args(args).status().unwrap().success());
        }
        world.send(3);
        world.status("both families pass", |s| forwarded(s) >= 6).await;
        running.stop().await;
        there("afterwards");
    });
}
