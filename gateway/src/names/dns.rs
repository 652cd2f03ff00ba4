//! Looks names up as this machine does: in its hosts file, else at the name servers of its resolv.conf, or at others.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, TokioResolver, system_conf};
use tokio::time::Instant;

use super::{Answer, Answers, Resolve};

/// How long one server is waited for at the most, whatever resolv.conf says: with a thousand names, others wait meanwhile.
const SERVER: Duration = Duration::from_secs(5);
/// How long a question may take, over all servers and all names that a name is another one for.
const QUESTION: Duration = Duration::from_secs(15);
/// How long a server that gave no answer is asked after the others.
const PAUSE: Duration = Duration::from_secs(30);
/// How long what the hosts file says is good for; when the file changes, it is read again.
const HOSTS: Duration = Duration::from_secs(60);
/// The questions of a name, as answers are ordered.
const TYPES: [RecordType; 2] = [RecordType::A, RecordType::AAAA];

/// Where this machine says how names are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// Name servers: resolv.conf(5).
    pub resolv_conf: PathBuf,
    /// Names that are not asked for: hosts(5).
    pub hosts: PathBuf,
}

impl Default for Files {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

/// Looks names up by DNS.
pub struct Dns {
    servers: Vec<SocketAddr>,
    files: Files,
    pause: Duration,
    read: Mutex<Option<Arc<Read>>>,
}

/// What was read of the files.
struct Read {
    stamps: [Option<Stamp>; 2],
    /// Where to ask, or why that is not known.
    servers: Result<Vec<Server>, String>,
    hosts: Hosts,
}

/// What is different about a file that was written or replaced: device, inode, size, and when.
type Stamp = (u64, u64, u64, i64, i64);

struct Server {
    address: SocketAddr,
    resolver: TokioResolver,
    /// When it was last asked in vain, unless it answered since.
    silent: Mutex<Option<Instant>>,
}

impl Dns {
    /// Asks `servers`, or those of resolv.conf when there are none.
    pub fn new(servers: Vec<SocketAddr>, files: Files) -> Self {
        Self { servers, files, pause: PAUSE, read: Mutex::default() }
    }

    /// The same with another time for which a server that gave no answer is asked after the others.
    #[must_use]
    pub fn with_pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// What the files say; read anew if `anew`, or if they were never read.
    async fn read(&self, anew: bool) -> Arc<Read> {
        if !anew && let Some(read) = self.known() {
            return read;
        }
        let (servers, files) = (self.servers.clone(), self.files.clone());
        let read = tokio::task::spawn_blocking(move || Read::of(&servers, &files)).await;
        // The pool only refuses while the runtime ends.
        let read = Arc::new(read.unwrap_or_else(|_| Read::nothing("this agent is ending")));
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(read.clone());
        read
    }

    fn known(&self) -> Option<Arc<Read>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Resolve for Dns {
    async fn look(&self, name: &str) -> Answers {
        let read = self.read(false).await;
        let mut asked = match Name::from_ascii(name) {
            Ok(name) => name,
            Err(e) => return TYPES.map(|_| Answer::Failed(format!("it is no name: {e}"))),
        };
        // Not one to be looked for in search domains.
        asked.set_fqdn(true);
        if let Some(answers) = read.hosts_answer(&asked) {
            return answers;
        }
        let (v4, v6) =
            tokio::join!(read.ask(&asked, TYPES[0], self.pause), read.ask(&asked, TYPES[1], self.pause));
        [v4, v6]
    }

    async fn renewed(&self) -> bool {
        let now = stamps(&self.files);
        if self.known().is_some_and(|known| known.stamps == now) {
            return false;
        }
        self.read(true).await;
        true
    }
}

impl Read {
    fn of(servers: &[SocketAddr], files: &Files) -> Self {
        // Before the files: what is written meanwhile is found by the next look.
        let stamps = stamps(files);
        let servers = match servers {
            [] => servers_of(&files.resolv_conf),
            named => named.iter().map(|address| Server::new(*address, ResolverOpts::default())).collect(),
        };
        let mut hosts = Hosts::default();
        let read = std::fs::File::open(&files.hosts).and_then(|file| hosts.read_hosts_conf(file));
        if let Err(e) = read
            && e.kind() != ErrorKind::NotFound
        {
            tracing::warn!("{} cannot be read, its names are asked for by DNS: {e}", files.hosts.display());
        }
        Self { stamps, servers, hosts }
    }

    fn nothing(why: &str) -> Self {
        Self { stamps: [None; 2], servers: Err(why.to_owned()), hosts: Hosts::default() }
    }

    /// What the hosts file says of `name`: where it has one family, there is no other.
    fn hosts_answer(&self, name: &Name) -> Option<Answers> {
        let found = TYPES.map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)));
        if found.iter().all(Option::is_none) {
            return None;
        }
        Some(found.map(|lookup| match lookup {
            Some(lookup) => {
                let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr()).collect();
                Answer::Addresses { addresses, ttl: HOSTS }
            }
            None => Answer::Nothing { ttl: Some(HOSTS), exists: true },
        }))
    }

    /// Asks one server after the other in the order given, until one answers. Other than in the C library, those that were
    /// silent within the last `pause` come last: not every name is to wait for them.
    async fn ask(&self, name: &Name, kind: RecordType, pause: Duration) -> Answer {
        let servers = match &self.servers {
            Ok(servers) => servers,
            Err(why) => return Answer::Failed(why.clone()),
        };
        let mut reasons = Vec::new();
        let asked = async {
            let mut in_turn: Vec<&Server> = servers.iter().collect();
            in_turn.sort_by_cached_key(|server| server.was_silent(pause));
            for server in in_turn {
                match server.ask(name, kind).await {
                    Ok(answer) => return Some(answer),
                    Err(why) => reasons.push(why),
                }
            }
            None
        };
        match tokio::time::timeout(QUESTION, asked).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Answer::Failed(reasons.join(", ")),
            Err(_) => {
                reasons.push(format!("no answer within {} s", QUESTION.as_secs()));
                Answer::Failed(reasons.join(", "))
            }
        }
    }
}

impl Server {
    fn new(address: SocketAddr, options: ResolverOpts) -> Result<Self, String> {
        let (mut udp, mut tcp) = (ConnectionConfig::udp(), ConnectionConfig::tcp());
        (udp.port, tcp.port) = (address.port(), address.port());
        let server = NameServerConfig::new(address.ip(), true, vec![udp, tcp]);
        let config = ResolverConfig::from_name_servers(vec![server]);
        let mut builder =
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default()).with_options(options);
        let options = builder.options_mut();
        options.timeout = options.timeout.min(SERVER);
        // A datagram that got lost is sent again within the time-out.
        options.attempts = 0;
        // What is remembered of names is not here.
        options.cache_size = 0;
        options.use_hosts_file = ResolveHosts::Never;
        options.max_active_requests = 128;
        let resolver = builder.build().map_err(|e| format!("{address} cannot be asked: {e}"))?;
        Ok(Self { address, resolver, silent: Mutex::default() })
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Answer, String> {
        let came = self.resolver.lookup(name.clone(), kind).await;
        match &came {
            Err(NetError::Timeout | NetError::Io(_)) => *self.silent() = Some(Instant::now()),
            Ok(_) | Err(NetError::Dns(_)) => *self.silent() = None,
            // It was not asked, or said what cannot be read.
            Err(_) => {}
        }
        match came {
            Ok(lookup) => Ok(answer(name, &lookup)),
            Err(NetError::Dns(DnsError::NoRecordsFound(nothing))) => Ok(Answer::Nothing {
                ttl: nothing.negative_ttl.map(|ttl| Duration::from_secs(ttl.into())),
                exists: nothing.response_code != ResponseCode::NXDomain,
            }),
            Err(e) => Err(format!("{}: {}", self.address, self.reason(&e))),
        }
    }

    /// Whether it gave no answer within the last `pause`.
    fn was_silent(&self, pause: Duration) -> bool {
        self.silent().is_some_and(|since| since.elapsed() < pause)
    }

    fn silent(&self) -> MutexGuard<'_, Option<Instant>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reason(&self, error: &NetError) -> String {
        match error {
            NetError::Dns(DnsError::ResponseCode(code)) => format!("it answers {code}"),
            NetError::Timeout => {
                format!("no answer within {} s", self.resolver.options().timeout.as_secs())
            }
            NetError::Io(e) => e.to_string(),
            other => other.to_string(),
        }
    }
}

/// Addresses of `name`, and of the names that it is another one for; others that came along are nobody's.
fn answer(name: &Name, lookup: &Lookup) -> Answer {
    let records = lookup.answers();
    let mut chain = BTreeSet::from([name]);
    let mut known = 0;
    while known != chain.len() {
        known = chain.len();
        for record in records {
            if let RData::CNAME(target) = &record.data
                && chain.contains(&record.name)
            {
                chain.insert(&target.0);
            }
        }
    }
    let ours = || records.iter().filter(|record| chain.contains(&record.name));
    let is_of_chain = |data: &RData| data.ip_addr().is_some() || matches!(data, RData::CNAME(_));
    let ttl = ours().filter(|record| is_of_chain(&record.data)).map(|record| record.ttl).min().unwrap_or(0);
    let addresses: BTreeSet<IpAddr> = ours().filter_map(|record| record.data.ip_addr()).collect();
    let ttl = Duration::from_secs(ttl.into());
    match addresses.is_empty() {
        true => Answer::Nothing { ttl: Some(ttl), exists: true },
        false => Answer::Addresses { addresses, ttl },
    }
}

fn servers_of(path: &Path) -> Result<Vec<Server>, String> {
    // Not what this agent has put there for others to ask it.
    let text =
        crate::resolver::original(path).map_err(|e| format!("{} cannot be read: {e}", path.display()))?;
    let (config, options) = system_conf::parse_resolv_conf(&text)
        .map_err(|e| format!("{} names no server: {e}", path.display()))?;
    let servers = config.name_servers().iter().map(|server| {
        let port = server.connections.first().map_or(53, |connection| connection.port);
        Server::new(SocketAddr::new(server.ip, port), options.clone())
    });
    servers.collect()
}

fn stamps(files: &Files) -> [Option<Stamp>; 2] {
    [crate::resolver::original_path(&files.resolv_conf), files.hosts.clone()].map(|path| stamp(&path))
}

fn stamp(path: &Path) -> Option<Stamp> {
    let file = std::fs::metadata(path).ok()?;
    Some((file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec()))
}
