//! The whole agent is killed at any moment of its start and of its images, and then asked through the device it left: the
//! flow that was there goes on, both ways and by its port, and nothing else passes. The host forwards by itself here, so a
//! hook without its program would show.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{NetworkConfig, RoutedPrefix, Snapshot};
use sluicegate_api::image::Image;
use sluicegate_gateway::tun::Tun;
use sluicegate_lab::{Program, wait};
use sluicegate_model::packets::{Draft, Payload};
use sluicegate_model::random::Random;
use tokio::time::timeout;

use crate::account::{self, DENIED, EGRESS, PERMITTED, SERVER, USER, above};
use crate::control::Control;
use crate::reopen::reopened;
use crate::world::{World, chosen, socket};

/// How often it is killed; `SLUICEGATE_KILLS=100` for the long run.
const KILLS: u32 = 10;
const PATIENCE: Duration = Duration::from_secs(240);
const DEVICE: &str = "sluice0";
/// The user's port.
const PORT: u16 = 4000;
/// Where the server sends to unasked.
const UNASKED: u16 = 7000;

#[test]
fn an_agent_killed_while_it_starts_or_applies_leaves_the_gate_neither_open_nor_cut() {
    let world = World::new();
    // The overlay is the agent's own device.
    world.gateway.ip(&["link", "delete", "overlay"]).unwrap();
    for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
        world.gateway.sysctl(path, "1").unwrap();
    }
    for (to, via) in [("100.64.0.0/16", EGRESS[0]), ("fd64::/64", EGRESS[1])] {
        world.server.route(to, via).unwrap();
    }
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    world.gateway.enter(|| runtime().unwrap().block_on(kill_again_and_again(&world))).unwrap();
}

async fn kill_again_and_again(world: &World) {
    let dir = world.lab.dir();
    let (control, address) = Control::start().await.unwrap();
    control.join(address, dir).await.unwrap();
    let (_, image) = account::image(1, true);
    control.tell(Update::Network(network(&image)));
    let tell = |revision: u64| {
        let (hash, image) = account::image(revision as u32 % 4, true);
        let snapshot = Snapshot { revision, hash: hash.to_vec(), image: image.encode() };
        control.tell(Update::Snapshot(snapshot));
    };
    let program = Program::new(env!("CARGO_BIN_EXE_sluicegate-gateway"))
        .arg("run")
        .args(["--state-dir".as_ref(), dir.join("state").as_os_str()])
        .args(["--socket".as_ref(), dir.join("agent.sock").as_os_str()])
        .args(["--bpf-dir".as_ref(), world.bpf_dir.as_os_str()])
        .args(["--datapath", "ebpf", "--site-device", "site"])
        .args(["--flow-entries", "4096", "--image-words", "131072"]);

    let mut flows = [0, 1].map(|family| Flow::new(world, family));
    tell(1);
    let first = world.gateway.spawn("first", &program).unwrap();
    let begun = std::time::Instant::now();
    let applied = wait::until(PATIENCE, || {
        if first.is_running() { Ok(control.acknowledged(1).filter(|said| said.applied)) } else { Err(()) }
    });
    assert!(matches!(applied, Ok(Some(_))), "revision 1 never came into force: {}", first.tail());
    let whole = begun.elapsed();
    first.kill();
    ask(&mut flows).await;

    let mut random = Random::new(u64::from(std::process::id()));
    for number in 0..chosen("SLUICEGATE_KILLS", KILLS) {
        tell(u64::from(number) + 2);
        let agent = world.gateway.spawn("killed", &program).unwrap();
        tokio::time::sleep(whole * random.below(1000) as u32 / 1000).await;
        assert!(agent.is_running(), "it ended by itself: {}", agent.tail());
        agent.kill();
        ask(&mut flows).await;
    }
    let kills = chosen("SLUICEGATE_KILLS", KILLS);
    let applied = (2..=u64::from(kills) + 1).filter(|r| control.acknowledged(*r).is_some()).count();
    println!(
        "the first start took {whole:?}; {applied} images were acknowledged, by the agent told or the next"
    );
}

/// What control says of the overlay to the agent with this image.
pub(crate) fn network(image: &Image) -> NetworkConfig {
    let routed = image.routes.iter().map(|(route, info)| RoutedPrefix {
        route: *route,
        network_id: info.network_id.clone(),
        resource_id: info.resource_id.clone(),
        prefix: info.prefix.to_string(),
        masquerade: info.masquerade,
        metric: 100,
    });
    NetworkConfig {
        protocol: sluicegate_api::PROTOCOL,
        serial: 1,
        address_v4: "100.64.0.1/16".into(),
        address_v6: "fd64::6440:1/64".into(),
        routed: routed.collect(),
        ..NetworkConfig::default()
    }
}

/// One family's flow, which is there from the first kill on, and who must hear nothing.
struct Flow {
    user: IpAddr,
    server: SocketAddr,
    far: UdpSocket,
    denied: UdpSocket,
    /// Where it comes from, as the server sees it.
    from: Option<SocketAddr>,
    sent: u64,
}

impl Flow {
    fn new(world: &World, family: usize) -> Self {
        let server: IpAddr = SERVER[family].parse().unwrap();
        let far = |port| socket(&world.server, SocketAddr::new(server, port), Duration::from_secs(10));
        let (far, denied) = (far(PERMITTED), far(DENIED));
        denied.set_nonblocking(true).unwrap();
        let server = SocketAddr::new(server, PERMITTED);
        Self { user: USER[family].parse().unwrap(), server, far, denied, from: None, sent: 0 }
    }

    fn packet(&self, source: IpAddr, port: u16) -> Vec<u8> {
        let data = 8 + self.sent as usize;
        let udp = Payload::Udp { source: PORT, destination: port, data, unchecked: false };
        Draft::new(source, self.server.ip(), udp).build()
    }
}

/// Takes the place of the agent that is dead at the device it left, and sends what must pass and what must not.
async fn ask(flows: &mut [Flow; 2]) {
    let tun = reopened(DEVICE);
    for flow in flows {
        flow.sent += 1;
        // Every datagram of a round has its own length.
        let length = 8 + flow.sent as usize;
        let stranger = above(flow.user, 5000);
        for (source, port) in [(flow.user, DENIED), (stranger, PERMITTED), (stranger, DENIED)] {
            tun.send(&flow.packet(source, port)).await.unwrap();
        }
        tun.send(&flow.packet(flow.user, PERMITTED)).await.unwrap();
        let mut buffer = [0; 2048];
        let (got, from) = flow.far.recv_from(&mut buffer).expect("the flow was cut");
        assert_eq!(got, length);
        assert_eq!(*flow.from.get_or_insert(from), from, "the flow has another port");
        assert!(flow.denied.recv(&mut buffer).is_err(), "a denied datagram passed to {}", flow.server);

        // The device takes a moment to send again after somebody reads it anew, so the server repeats itself.
        let mut answered = false;
        for _ in 0..20 {
            flow.far.send_to(b"unasked", SocketAddr::new(flow.user, UNASKED)).unwrap();
            flow.far.send_to(&vec![7; length], from).unwrap();
            let heard = timeout(Duration::from_millis(500), answer(&tun, flow.server)).await;
            answered = heard.is_ok();
            if answered {
                break;
            }
        }
        assert!(answered, "no answer of {} came through", flow.server);
    }
}

/// Waits for an answer of `server` to the user's port; one to any other port must not come.
async fn answer(tun: &Tun, server: SocketAddr) {
    let mut buffer = [0; 2048];
    loop {
        let length = tun.recv(&mut buffer).await.unwrap();
        // Behind a header without options: what the host says of itself here is no UDP of the server's.
        let (protocol, ports) = if buffer[0] >> 4 == 4 { (buffer[9], 20) } else { (buffer[6], 40) };
        if protocol != 17 || length < ports + 8 {
            continue;
        }
        let port = u16::from_be_bytes([buffer[ports + 2], buffer[ports + 3]]);
        assert_ne!(port, UNASKED, "an unasked datagram came from {server}");
        if port == PORT {
            return;
        }
    }
}
