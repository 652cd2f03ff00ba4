//! A host with a life of its own, on which a gateway is started and stopped: containers behind DNAT, a firewall, marks.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use sluicegate_api::image::Image;
use sluicegate_gateway::datapath::ebpf::EbpfDatapath;
use sluicegate_gateway::datapath::{Datapath as _, Settings, XdpChoice};
use sluicegate_lab::{Lab, Namespace, Program};
use sluicegate_policy::model::Service;

use crate::gateway::{self, Way};
use crate::policy;

/// The longest a command may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a connection that a firewall swallows is tried.
const SWALLOWED: Duration = Duration::from_millis(400);

/// The gateway between an Ethernet overlay and a site, with a container of its own.
pub(crate) struct World {
    pub(crate) peers: Namespace,
    pub(crate) gateway: Namespace,
    pub(crate) site: Namespace,
    pub(crate) container: Namespace,
    pub(crate) bpf_dir: PathBuf,
    pub(crate) lab: Lab,
}

impl World {
    pub(crate) fn new() -> Self {
        let lab = Lab::new().expect("these tests need root");
        let [peers, gateway, site, container] =
            ["peers", "gateway", "site", "container"].map(|name| lab.namespace(name).unwrap());
        lab.veth((&peers, "out"), (&gateway, "overlay")).unwrap();
        lab.veth((&gateway, "site"), (&site, "in")).unwrap();
        lab.veth((&gateway, "docker0"), (&container, "eth0")).unwrap();
        for (namespace, device, addresses) in [
            (&peers, "out", ["100.64.0.5/16", "fd64::6440:5/64"]),
            (&gateway, "overlay", ["100.64.0.1/16", "fd64::6440:1/64"]),
            (&gateway, "site", ["10.128.0.1/24", "fd10::1/64"]),
            (&site, "in", ["10.128.0.53/24", "fd10::53/64"]),
            (&gateway, "docker0", ["172.17.0.1/16", "fd17::1/64"]),
            (&container, "eth0", ["172.17.0.2/16", "fd17::2/64"]),
        ] {
            for address in addresses {
                namespace.address(device, address).unwrap();
            }
        }
        for (namespace, via) in
            [(&container, ["172.17.0.1", "fd17::1"]), (&peers, ["100.64.0.1", "fd64::6440:1"])]
        {
            for via in via {
                namespace.route("default", via).unwrap();
            }
        }
        // Neighbours of the overlay are known, as on a tunnel: their resolution is nobody's rule.
        peers.knows("out", &policy::GATEWAY, (&gateway, "overlay")).unwrap();
        gateway.knows("overlay", &policy::USER, (&peers, "out")).unwrap();
        // For the containers, as Docker sets it.
        gateway.sysctl("net/ipv4/ip_forward", "1").unwrap();
        gateway.sysctl("net/ipv6/conf/all/forwarding", "1").unwrap();
        let bpf_dir = lab.bpffs().unwrap().join("gateway");
        Self { peers, gateway, site, container, bpf_dir, lab }
    }

    pub(crate) fn settings(&self, xdp: XdpChoice) -> Settings {
        gateway::settings(self.bpf_dir.clone(), xdp)
    }

    /// Starts a gateway with the image of [`image`] in force.
    pub(crate) fn open(&self, xdp: XdpChoice) -> EbpfDatapath {
        let settings = self.settings(xdp);
        let mut datapath = self.gateway.enter(|| EbpfDatapath::open(&settings, "overlay")).unwrap().unwrap();
        let way = Way {
            device: self.gateway.index("site").unwrap(),
            sources: ["10.128.0.1", "fd10::1"],
            pool: [0, 0],
        };
        let image = image();
        let set_up = || {
            gateway::prepare(&mut datapath, &image, &way).unwrap();
            let revision = datapath.in_force().map_or(1, |now| now.revision + 1);
            datapath.apply(revision, &image).unwrap();
        };
        self.gateway.enter(set_up).unwrap();
        datapath
    }

    /// Takes the gateway off as an operator does.
    pub(crate) fn detach(&self) {
        let verb = Program::new(env!("CARGO_BIN_EXE_sluicegate-gateway"))
            .arg("detach")
            .args(["--bpf-dir".as_ref(), self.bpf_dir.as_os_str()])
            .args(["--state-dir".as_ref(), self.lab.dir().join("state").as_os_str()]);
        self.gateway.run(&verb, PATIENCE).unwrap().output().unwrap();
    }

    pub(crate) fn sweep(&self, datapath: &mut EbpfDatapath) {
        self.gateway.enter(|| datapath.sweep()).unwrap().unwrap();
    }

    /// Packets dropped for `reason`.
    pub(crate) fn drops(&self, datapath: &mut EbpfDatapath, reason: &str) -> u64 {
        let drops: BTreeMap<_, _> = datapath.counters().unwrap().drops.into_iter().collect();
        drops[reason]
    }

    /// Whether the peer reaches the site's name server (which a rule admits) and gets an answer.
    pub(crate) fn is_forwarded(&self, to: &str) -> bool {
        let server = udp(&self.site, &format!("{to}:53"));
        let own = if to.starts_with('[') { "[fd64::6440:5]:0" } else { "100.64.0.5:0" };
        let client = udp(&self.peers, own);
        client.connect(format!("{to}:53")).unwrap();
        let mut buffer = [0; 64];
        // The first packet may be lost to the resolution of neighbours.
        (0..3).any(|_| {
            client.send(b"question").unwrap();
            let Ok((length, from)) = server.recv_from(&mut buffer) else { return false };
            server.send_to(&buffer[..length], from).unwrap();
            client.recv(&mut buffer).is_ok()
        })
    }

    /// Loads a ruleset into the gateway.
    pub(crate) fn nft(&self, ruleset: &str) {
        let path = self.lab.dir().join("ruleset.nft");
        fs::write(&path, ruleset).unwrap();
        self.gateway.run(&Program::new("nft").arg("-f").arg(&path), PATIENCE).unwrap().output().unwrap();
    }

    /// What `tc` says to this in the gateway.
    pub(crate) fn tc(&self, args: &[&str]) -> anyhow::Result<String> {
        self.gateway.run(&Program::new("tc").args(args), PATIENCE)?.output()
    }

    pub(crate) fn ruleset(&self) -> String {
        self.gateway.run(&Program::new("nft").args(["list", "ruleset"]), PATIENCE).unwrap().output().unwrap()
    }

    /// Everything about the gateway host that a neighbour could have changed.
    pub(crate) fn snapshot(&self) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for command in [
            &["ip", "-d", "address", "show"][..],
            &["ip", "route", "show", "table", "all"],
            &["ip", "-6", "route", "show", "table", "all"],
            &["ip", "rule", "show"],
            &["ip", "-6", "rule", "show"],
            &["tc", "qdisc", "show"],
            &["nft", "list", "ruleset"],
        ] {
            let ran = self.gateway.run(&Program::new(command[0]).args(&command[1..]), PATIENCE).unwrap();
            all.insert(command.join(" "), without_time(&ran.output().unwrap()));
        }
        for device in ["overlay", "site", "docker0"] {
            for side in ["ingress", "egress"] {
                let place = if side == "ingress" { TcAttachType::Ingress } else { TcAttachType::Egress };
                let tcx = self.gateway.enter(|| SchedClassifier::query_tcx(device, place)).unwrap();
                let ids = tcx.map(|(_, programs)| programs.iter().map(ProgramInfo::id).collect::<Vec<_>>());
                all.insert(format!("tcx of {device}, {side}"), format!("{ids:?}"));
                let tc = Program::new("tc").args(["filter", "show", "dev", device, side]);
                let filters = self.gateway.run(&tc, PATIENCE).unwrap();
                all.insert(format!("tc filter show dev {device} {side}"), filters.stdout);
            }
        }
        let sysctls = self.gateway.enter(|| read_all(Path::new("/proc/sys/net"))).unwrap();
        all.extend(sysctls.into_iter().filter(|(path, _)| !counts(path)));
        all
    }

    /// Opens a TCP connection from the site to `to` and returns what the server says.
    pub(crate) fn ask(&self, to: &str) -> Option<String> {
        let to: SocketAddr = to.parse().unwrap();
        let answer = self.site.enter(|| {
            let mut stream = TcpStream::connect_timeout(&to, SWALLOWED).ok()?;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).ok().map(|_| answer)
        });
        answer.unwrap()
    }
}

/// Serves `answer` at `address` of `namespace` to whoever connects, for as long as the process lives.
pub(crate) fn serve(namespace: &Namespace, address: &str, answer: &'static str) {
    let address: SocketAddr = address.parse().unwrap();
    let listener = namespace.listen(address).unwrap();
    thread::spawn(move || {
        for client in listener.incoming() {
            // A client that has gone is served no more.
            let _ = client.and_then(|mut client| client.write_all(answer.as_bytes()));
        }
    });
}

pub(crate) fn udp(namespace: &Namespace, address: &str) -> UdpSocket {
    let address: SocketAddr = address.parse().unwrap();
    let socket = namespace.udp(address).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket
}

/// One peer may ask one dual-stack name server.
fn image() -> Image {
    let server = ("server", vec!["10.128.0.53/32".to_owned(), "fd10::53/128".to_owned()]);
    let rule = policy::rule(0, Service::Udp(vec![53..=53]));
    policy::compile(&[policy::parsed(policy::USER)], &[server], true, vec![rule])
}

/// The text without words that change by themselves: remaining lifetimes, and how long a route was not used.
fn without_time(text: &str) -> String {
    let mut kept = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace().peekable();
        let mut line = Vec::new();
        while let Some(word) = words.next() {
            if matches!(word, "expires" | "valid_lft" | "preferred_lft") {
                words.next();
            } else {
                line.push(word);
            }
        }
        kept.push(line.join(" "));
    }
    kept.sort();
    kept.join("\n")
}

/// Settings that are really readings.
fn counts(path: &str) -> bool {
    path.ends_with("nf_conntrack_count") || path.contains("stable_secret")
}

fn read_all(dir: &Path) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.append(&mut read_all(&path));
        } else if let Ok(value) = fs::read_to_string(&path) {
            all.insert(path.display().to_string(), value);
        }
    }
    all
}
