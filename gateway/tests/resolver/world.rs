//! A host in a namespace, its resolver, and who asks it.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hickory_resolver::proto::op::{Edns, Message, Query};
use hickory_resolver::proto::rr::{Name, RecordType};
use sluicegate_api::agent::record::Type;
use sluicegate_api::agent::{Forward, NameServer, NetworkConfig, Record, RemotePeer, Resolver, Zone};
use sluicegate_gateway::config::{Dns, HostMode};
use sluicegate_gateway::netlink::Netlink;
use sluicegate_gateway::resolver::{self, Handle, Wanted};
use sluicegate_gateway::{status, system};
use sluicegate_lab::{Lab, Namespace, Program};

/// The host's own addresses in the overlay.
pub(crate) const OWN: [&str; 2] = ["100.90.0.7", "fd5c::7"];
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A host with an overlay device, and a directory with its resolv.conf.
pub(crate) struct World {
    pub(crate) host: Namespace,
    pub(crate) lab: Lab,
    pub(crate) dir: PathBuf,
}

impl World {
    pub(crate) fn new() -> Self {
        assert!(system::is_root(), "this test needs root, for network namespaces");
        let lab = Lab::new().unwrap();
        let host = lab.namespace("host").unwrap();
        host.ip(&["tuntap", "add", "dev", "sluice0", "mode", "tun"]).unwrap();
        host.ip(&["link", "set", "sluice0", "up"]).unwrap();
        host.ip(&["address", "add", "100.90.0.7/16", "dev", "sluice0"]).unwrap();
        host.ip(&["address", "add", "fd5c::7/64", "dev", "sluice0", "nodad"]).unwrap();
        let dir = lab.dir().join("etc");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("nsswitch.conf"), "hosts: dns\n").unwrap();
        Self { host, dir, lab }
    }

    /// Runs `test` on the host.
    pub(crate) fn run(&self, test: impl AsyncFnOnce(&Self) + Send) {
        self.host.enter(|| runtime().block_on(test(self))).unwrap();
    }

    pub(crate) fn resolv_conf(&self) -> PathBuf {
        self.dir.join("resolv.conf")
    }

    /// What the host's resolv.conf says, but for comments.
    pub(crate) fn resolv_conf_lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.resolv_conf()).unwrap();
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }

    /// A resolver that listens at `listen`, or at the overlay addresses.
    pub(crate) fn start(&self, listen: &[&str], host: HostMode) -> Handle {
        let listen = listen.iter().map(|address| address.parse().unwrap()).collect();
        let settings = resolver::Settings {
            dns: Dns { listen, host, resolv_conf: self.resolv_conf() },
            state_dir: self.dir.join("state"),
            device: "sluice0".into(),
            resolvectl: self.dir.join("resolvectl"),
            resolved_servers: self.dir.join("resolved.conf"),
            hosts_own: vec!["control.corp.test".into()],
        };
        resolver::start(settings, Netlink::open().unwrap())
    }

    /// What the C library says of `name`, by the host's resolv.conf as it is now: addresses, or nothing.
    pub(crate) fn getent(&self, database: &str, name: &str) -> Vec<String> {
        let script = "mount --bind $0/resolv.conf /etc/resolv.conf && mount --bind $0/nsswitch.conf /etc/nsswitch.conf && \
                      exec getent $1 $2";
        let dir = self.dir.to_str().unwrap();
        let program = Program::new("unshare").args(["--mount", "sh", "-c", script, dir, database, name]);
        let finished = self.host.run(&program, PATIENCE).unwrap();
        let mut found: Vec<String> = finished.stdout.lines().map(str::to_owned).collect();
        for line in &mut found {
            if database == "ahosts" {
                line.truncate(line.find(' ').unwrap_or(line.len()));
            }
        }
        found.sort();
        found.dedup();
        found
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// Waits until the status is as it is `wanted`.
pub(crate) async fn until(handle: &Handle, what: &str, wanted: impl Fn(&status::Dns) -> bool) -> status::Dns {
    let begun = Instant::now();
    loop {
        let status = handle.status();
        match status {
            Some(status) if wanted(&status) => return status,
            status => {
                let degraded = handle.degraded();
                assert!(begun.elapsed() < PATIENCE, "{what}: {status:#?} {degraded:#?}");
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Has `handle` answer as `config` says, and waits until it listens at `sockets` addresses.
pub(crate) async fn want(handle: &Handle, config: &NetworkConfig, sockets: usize) {
    handle.want(Wanted::read(config).unwrap().as_ref());
    let domain = &config.resolver.as_ref().unwrap().domain;
    until(handle, "it listens", |status| {
        status.listening.len() == sockets && status.zones.first().is_some_and(|zone| zone.domain == *domain)
    })
    .await;
}

/// Two peers, a zone, and these nameserver groups: servers, and domains.
pub(crate) fn config(groups: &[(&[&str], &[&str])]) -> NetworkConfig {
    let record = |name: &str, kind: Type, content: &str| Record {
        name: name.into(),
        r#type: kind.into(),
        content: content.into(),
        ttl: 120,
    };
    let group = |(servers, domains): &(&[&str], &[&str])| Forward {
        id: "g".into(),
        name: "group".into(),
        servers: servers.iter().map(|server| name_server(server)).collect(),
        domains: domains.iter().map(|domain| (*domain).into()).collect(),
        search: false,
    };
    let resolver = Resolver {
        domain: "peers.test".into(),
        dns_labels: vec!["me".into()],
        zones: vec![Zone {
            domain: "zone.test".into(),
            search: true,
            records: vec![
                record("www.zone.test", Type::A, "192.0.2.1"),
                record("www.zone.test", Type::Aaaa, "2001:db8::1"),
                record("peer.zone.test", Type::Cname, "alpha.peers.test"),
                record("db.zone.test", Type::Cname, "db.corp.test"),
            ],
        }],
        routed: Vec::new(),
        forwards: groups.iter().map(group).collect(),
    };
    let alpha = RemotePeer {
        id: "p1".into(),
        name: "alpha".into(),
        address_v4: "100.90.0.1".into(),
        address_v6: "fd5c::1".into(),
        dns_labels: vec!["alpha".into(), "extra".into()],
        ..RemotePeer::default()
    };
    NetworkConfig {
        address_v4: "100.90.0.7/16".into(),
        address_v6: "fd5c::7/64".into(),
        peers: vec![alpha],
        resolver: Some(resolver),
        ..NetworkConfig::default()
    }
}

/// One at `address`, with its port behind a `#` where that is not 53.
fn name_server(address: &str) -> NameServer {
    let (address, port) = address.split_once('#').unwrap_or((address, "53"));
    NameServer { address: address.into(), port: port.parse().unwrap() }
}

/// By which way a question goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
}

pub(crate) fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    let mut name = Name::from_ascii(name).unwrap();
    name.set_fqdn(true);
    message.add_query(Query::query(name, kind));
    message.metadata.recursion_desired = true;
    message
}

pub(crate) fn with_edns(mut message: Message, payload: u16) -> Message {
    message.set_edns(Edns::new().set_max_payload(payload).clone());
    message
}

/// Sends bytes to `server` and returns what comes back within a while.
pub(crate) fn exchange(server: SocketAddr, by: By, bytes: &[u8], patience: Duration) -> Option<Vec<u8>> {
    match by {
        By::Udp => {
            let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0u16; 8].into() };
            let socket = UdpSocket::bind((any, 0)).unwrap();
            socket.set_read_timeout(Some(patience)).unwrap();
            socket.connect(server).unwrap();
            socket.send(bytes).unwrap();
            let mut buffer = vec![0; 65_536];
            let length = socket.recv(&mut buffer).ok()?;
            buffer.truncate(length);
            Some(buffer)
        }
        By::Tcp => {
            let mut stream = TcpStream::connect(server).ok()?;
            stream.set_read_timeout(Some(patience)).unwrap();
            stream.write_all(&(bytes.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(bytes).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).ok()?;
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut answer).ok()?;
            Some(answer)
        }
    }
}

/// Asks without holding up the resolver's own runtime.
pub(crate) fn ask_message(server: &str, by: By, message: &Message) -> Message {
    let server = SocketAddr::new(server.parse().unwrap(), 53);
    let bytes = message.to_vec().unwrap();
    let answer = tokio::task::block_in_place(|| exchange(server, by, &bytes, PATIENCE));
    let answer = answer.unwrap_or_else(|| panic!("{server} does not answer {message}"));
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!((answer.metadata.id, &answer.queries), (message.metadata.id, &message.queries));
    answer
}

pub(crate) fn ask(server: &str, by: By, name: &str, kind: RecordType) -> Message {
    ask_message(server, by, &question(name, kind))
}

/// An answer in a line: its code, and time to live and data of each record.
pub(crate) fn line(answer: &Message) -> String {
    let records = answer.answers.iter().map(|record| format!(" {} {}", record.ttl, record.data));
    format!("{:?}{}", answer.metadata.response_code, records.collect::<String>())
}

/// The same of a question by UDP to the first of the host's own addresses.
pub(crate) fn said(name: &str, kind: RecordType) -> String {
    line(&ask(OWN[0], By::Udp, name, kind))
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
