//! Resources come, go and are refused under traffic to two sites. Each image numbers its routes anew, as no compiler does: an
//! image that reads the ways out of another sends by the wrong device, with the address of the wrong site.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use aya::maps::{Array, Map, MapData};
use ipnet::IpNet;
use sluicegate_api::image::Image;
use sluicegate_engine::image::{Attributes, ROUTES_MAX, header};
use sluicegate_engine::tables::Active;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{ApplyError, Datapath as _, Egress, Settings, XdpChoice};
use sluicegate_lab::Namespace;
use sluicegate_model::random::Random;
use sluicegate_policy::model::Service;

use crate::account::{self, EGRESS, PERMITTED, SERVER, USER, rule};
use crate::world::{World, chosen, dropped, sending, settings, socket};

/// Images in a run of the test suite; `SLUICEGATE_ROUTES=2000` for the long run.
const IMAGES: u32 = 120;
/// The gateway and the server on the second site.
const EGRESS_2: [&str; 2] = ["10.131.0.1", "fd11::1"];
const SERVER_2: [&str; 2] = ["10.131.0.53", "fd11::53"];
/// How long a datagram may be under way before it counts as lost.
const LOST: Duration = Duration::from_secs(10);
/// Flows that each client opens beside the one that stays: fewer than the flow table holds.
const OPENED: u64 = 400;

#[test]
fn resources_come_go_and_are_refused_and_no_packet_leaves_by_another_site() {
    for xdp in [XdpChoice::Off, sending()] {
        let sites = Sites::new(xdp);
        let [stop, over] = [const { AtomicBool::new(false) }; 2];
        let rounds: [AtomicU64; 4] = Default::default();
        let pairs = [(0, 0), (0, 1), (1, 0), (1, 1)];
        let (clients, servers) = std::thread::scope(|scope| {
            let (sites, stop, over) = (&sites, &stop, &over);
            let servers = pairs.map(|(site, family)| scope.spawn(move || sites.serve(site, family, over)));
            let clients = pairs.map(|(site, family)| {
                let rounds = &rounds[site * 2 + family];
                scope.spawn(move || sites.ask(site, family, stop, rounds))
            });
            // Servers answer for as long as anybody asks.
            let (asking, answering) = (Stopper(stop), Stopper(over));
            let wait = || {
                let begun = rounds.each_ref().map(|rounds| rounds.load(SeqCst));
                let is_over = || rounds.iter().zip(begun).all(|(now, then)| now.load(SeqCst) > then + 1);
                let late = Instant::now() + 2 * LOST;
                while !is_over() && Instant::now() < late {
                    std::thread::yield_now();
                }
            };
            sites.change(xdp, &wait);
            wait();
            drop(asking);
            let clients = clients.map(|client| client.join().unwrap());
            drop(answering);
            (clients, servers.map(|server| server.join().unwrap()))
        });
        let dropped = dropped(&mut sites.open());
        for (((site, family), client), server) in pairs.into_iter().zip(clients).zip(servers) {
            let what = format!("XDP {xdp:?}, site {site}, family {family}");
            println!(
                "{what}: {} sent, {} lost, {} flows",
                client.sent,
                client.lost.len(),
                server.ports.len()
            );
            assert_eq!(client.lost, [0; 0], "{what}: datagrams were lost; the gateway dropped {dropped:?}");
            let own: IpAddr = [EGRESS, EGRESS_2][site][family].parse().unwrap();
            assert_eq!(server.sources, BTreeSet::from([own]), "{what}: it saw another address");
            assert_eq!(server.steady.len(), 1, "{what}: the flow that stays changed its port");
            assert!(client.sent > 100 && server.ports.len() > 3, "{what}: next to nothing was sent");
        }
    }
}

/// The world with a second site.
struct Sites {
    world: World,
    server: Namespace,
    devices: [u32; 2],
    settings: Settings,
}

#[derive(Default)]
struct Asked {
    sent: u64,
    lost: Vec<u64>,
}

#[derive(Default)]
struct Served {
    sources: BTreeSet<IpAddr>,
    /// Source ports of the flow that stays, and of all.
    steady: BTreeSet<u16>,
    ports: BTreeSet<u16>,
}

struct Stopper<'a>(&'a AtomicBool);

impl Drop for Stopper<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

impl Sites {
    fn new(xdp: XdpChoice) -> Self {
        let world = World::new();
        let server = world.lab.namespace("second").unwrap();
        world.lab.veth((&world.gateway, "site2"), (&server, "in")).unwrap();
        for (namespace, device, addresses) in [(&world.gateway, "site2", EGRESS_2), (&server, "in", SERVER_2)]
        {
            for (address, length) in addresses.iter().zip([16, 64]) {
                namespace.address(device, &format!("{address}/{length}")).unwrap();
            }
        }
        server.offload_off("in").unwrap();
        server.feature("in", "rx-gro", true).unwrap();
        world.gateway.knows("site2", &SERVER_2, (&server, "in")).unwrap();
        server.knows("in", &EGRESS_2, (&world.gateway, "site2")).unwrap();
        let devices = ["site", "site2"].map(|device| world.gateway.index(device).unwrap());
        let settings = Settings {
            site_devices: vec!["site".into(), "site2".into()],
            ..settings(&world.bpf_dir, xdp, 16_384)
        };
        Self { world, server, devices, settings }
    }

    fn open(&self) -> EbpfDatapath {
        let opened = self.world.gateway.enter(|| -> anyhow::Result<EbpfDatapath> {
            let mut datapath = EbpfDatapath::open(&self.settings, "overlay")?;
            datapath.set_overlay("100.64.0.1/16".parse()?, "fd64::6440:1/64".parse()?)?;
            Ok(datapath)
        });
        opened.unwrap().unwrap()
    }

    /// Where the routes of an image leave: by the site that their prefix is on.
    fn ways(&self, image: &Image) -> Vec<Egress> {
        let way = |(number, route): (&u32, &sluicegate_api::image::RouteInfo)| {
            let site = usize::from(is_second(&route.prefix));
            let sources = [EGRESS, EGRESS_2][site];
            Egress {
                route: *number as u16,
                device: self.devices[site],
                source_v4: sources[0].parse().ok(),
                source_v6: sources[1].parse().ok(),
                pool: [1; 2],
            }
        };
        image.routes.iter().map(way).collect()
    }

    /// Puts one image after another in force, and has some refused; the agent dies now and then between ways and image.
    fn change(&self, xdp: XdpChoice, wait: &dyn Fn()) {
        let mut random = Random::new(u64::from(std::process::id()));
        let mut datapath = self.open();
        let count = chosen("SLUICEGATE_ROUTES", IMAGES) / 2;
        for revision in 1..=u64::from(count) {
            let image = renumbered(&image(&mut random), &mut random);
            let ways = self.ways(&image);
            self.world
                .gateway
                .enter(|| datapath.put(revision, image.hash(), &image, &ways))
                .unwrap()
                .unwrap();
            if revision % 5 == 0 {
                let large = Image { words: vec![0; (1 << 17) + 16], ..image.clone() };
                let wrong: Vec<Egress> = ways.iter().map(|way| self.other_site(way)).collect();
                let put = || datapath.put(revision + 1, large.hash(), &large, &wrong);
                let refused = self.world.gateway.enter(put).unwrap().unwrap_err();
                assert!(matches!(refused, ApplyError::TooLarge { .. }), "{refused}");
                assert_eq!(datapath.egress(), ways, "XDP {xdp:?}: the refused image left its ways out");
                wait();
            }
            if revision % 20 == 0 {
                drop(datapath);
                self.die_before_the_image(&image);
                wait();
                datapath = self.open();
                assert_eq!(sorted(datapath.egress()), sorted(&ways), "XDP {xdp:?}");
                wait();
            }
            if revision % 7 == 0 {
                // The host's own doing: nothing about the image changes.
                self.world.gateway.enter(|| datapath.set_egress(&ways)).unwrap().unwrap();
            }
        }
    }

    fn other_site(&self, way: &Egress) -> Egress {
        let site = usize::from(way.device == self.devices[0]);
        Egress { device: self.devices[site], source_v4: [EGRESS, EGRESS_2][site][0].parse().ok(), ..*way }
    }

    /// Leaves the maps as an agent does that is killed when it has written the ways out of the next image and not yet put that
    /// in force: with ways that lead nowhere.
    fn die_before_the_image(&self, image: &Image) {
        let groups = std::fs::read_dir(&self.world.bpf_dir).unwrap().map(|entry| entry.unwrap().path());
        let rules: PathBuf = groups.into_iter().find(|path| path.join("EGRESS").exists()).unwrap();
        let pinned = |name: &str| Map::Array(MapData::from_pin(rules.join(name)).unwrap());
        let active: Array<MapData, u64> = pinned("ACTIVE").try_into().unwrap();
        let mut ways: Array<MapData, [u8; 64]> = pinned("EGRESS").try_into().unwrap();
        let idle = 1 - Active(active.get(&0, 0).unwrap()).half();
        for route in image.routes.keys() {
            ways.set(idle * ROUTES_MAX + route, [0xee; 64], 0).unwrap();
        }
    }

    /// Has the server of a site answer, and notes who asks.
    fn serve(&self, site: usize, family: usize, over: &AtomicBool) -> Served {
        let own: IpAddr = [SERVER, SERVER_2][site][family].parse().unwrap();
        let namespace = [&self.world.server, &self.server][site];
        let socket = socket(namespace, SocketAddr::new(own, PERMITTED), Duration::from_millis(20));
        let (mut served, mut buffer) = (Served::default(), [0; 64]);
        while !over.load(SeqCst) {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
            served.sources.insert(from.ip());
            served.ports.insert(from.port());
            if buffer[0] == 0 {
                served.steady.insert(from.port());
            }
            socket.send_to(&buffer[..length], from).unwrap();
        }
        served
    }

    /// Asks the server of a site again and again, by one flow that stays and by new ones.
    fn ask(&self, site: usize, family: usize, stop: &AtomicBool, rounds: &AtomicU64) -> Asked {
        let [user, server] =
            [USER, [SERVER, SERVER_2][site]].map(|both| both[family].parse::<IpAddr>().unwrap());
        let open = || socket(&self.world.peer, SocketAddr::new(user, 0), LOST);
        let to = SocketAddr::new(server, PERMITTED);
        let steady = open();
        let mut asked = Asked::default();
        // Before the first image nothing passes.
        steady.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < 6 * LOST && !stop.load(SeqCst) {
            steady.send_to(&[0; 9], to).unwrap();
            if steady.recv(&mut [0; 64]).is_ok() {
                break;
            }
        }
        steady.set_read_timeout(Some(LOST)).unwrap();
        let mut number = 0u64;
        while !stop.load(SeqCst) {
            let fresh = (number.is_multiple_of(16) && number / 16 < OPENED).then(open);
            for (kind, socket) in [(0, Some(&steady)), (1, fresh.as_ref())] {
                let Some(socket) = socket else { continue };
                number += 1;
                let mut datagram = [kind; 9];
                datagram[1..].copy_from_slice(&number.to_be_bytes());
                socket.send_to(&datagram, to).unwrap();
                asked.sent += 1;
                let mut answer = [0; 64];
                // Answers to what was sent before the first image may come late.
                while answer[..9] != datagram {
                    if socket.recv(&mut answer).is_err() {
                        asked.lost.push(number);
                        break;
                    }
                }
            }
            rounds.fetch_add(1, SeqCst);
        }
        asked
    }
}

/// Whether a prefix is on the second site.
fn is_second(prefix: &IpNet) -> bool {
    let sites: [IpNet; 2] = ["10.131.0.0/16", "fd11::/64"].map(|site| site.parse().unwrap());
    sites.iter().any(|site| site.contains(prefix))
}

fn sorted(ways: &[Egress]) -> Vec<(u16, u32)> {
    let mut ways: Vec<(u16, u32)> = ways.iter().map(|way| (way.route, way.device)).collect();
    ways.sort_unstable();
    ways
}

/// An image that opens both servers, beside any resources of both sites.
fn image(random: &mut Random) -> Image {
    let both = |addresses: [&str; 2]| [format!("{}/32", addresses[0]), format!("{}/128", addresses[1])];
    let mut resources = vec![("server".to_owned(), [both(SERVER), both(SERVER_2)].concat())];
    for i in 0..random.below(12) {
        let site = random.pick(&["10.128", "10.131"]);
        let name = random.pick(&["a", "s", "z"]);
        let prefixes =
            vec![format!("{site}.{}.0/24", 10 + i), format!("fd1{}::{i:x}00/120", random.below(2))];
        resources.push((format!("{name}{i}"), prefixes));
    }
    let resources: Vec<(&str, Vec<String>)> =
        resources.iter().map(|(name, prefixes)| (name.as_str(), prefixes.clone())).collect();
    account::compile(vec![rule(0, Service::Udp(vec![PERMITTED..=PERMITTED]))], &resources)
}

/// The image with its routes numbered from 0 on in any order.
fn renumbered(image: &Image, random: &mut Random) -> Image {
    let mut left: Vec<u32> = (0..image.routes.len() as u32).collect();
    let numbers: BTreeMap<u32, u32> =
        image.routes.keys().map(|route| (*route, left.swap_remove(random.below(left.len())))).collect();
    let mut next = image.clone();
    next.routes = image.routes.iter().map(|(route, info)| (numbers[route], info.clone())).collect();
    let (start, count) = (next.words[header::CLASSES] as usize, next.words[header::CLASSES_LEN] as usize);
    // Attributes, and columns, in turn.
    for word in next.words[start..start + 2 * count].iter_mut().step_by(2) {
        if let Some(route) = Attributes(*word).route() {
            *word = *word & !0xffff | numbers[&u32::from(route)];
        }
    }
    next.words[header::ROUTES] = image.routes.len() as u32;
    next
}
