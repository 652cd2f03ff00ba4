//! The name servers that the host has by itself: those of its resolv.conf, or of systemd-resolved where that leads there.
//!
//! systemd-resolved answers at addresses of loopback and asks this agent for names as it is told. Who asked it there would ask
//! himself, so the servers that it asks itself are read from the file where it writes them.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};

use super::resolv_conf::original;
use crate::resolver::wanted::PORT;
use crate::tun::index_of;

/// Where systemd-resolved answers.
const STUBS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 54))];
/// Whom the C library asks where its file names nobody.
const NOBODY_NAMED: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Reads them again when their files change.
pub(in crate::resolver) struct Upstreams {
    host: NameServers,
    resolved: NameServers,
}

/// The name servers of a file.
struct NameServers {
    path: PathBuf,
    /// What it said last, and what that means.
    read: Option<(Vec<u8>, Vec<Named>)>,
}

/// A name server as it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Named {
    address: IpAddr,
    /// The device of a link-local address.
    scope: Option<String>,
}

impl Upstreams {
    /// Those of the file at `path`; systemd-resolved writes its own to `resolved`.
    pub(in crate::resolver) fn new(path: &Path, resolved: &Path) -> Self {
        Self { host: NameServers::new(path), resolved: NameServers::new(resolved) }
    }

    /// As they are now, without `own` addresses, at which this agent itself answers; why there are none.
    pub(in crate::resolver) fn now(&mut self, own: &[SocketAddr]) -> Result<Vec<SocketAddr>, String> {
        let mut named = self.host.named(original)?;
        if named.is_empty() {
            named = NOBODY_NAMED.map(Named::from).into();
        }
        let (stubs, mut servers): (Vec<Named>, Vec<Named>) =
            named.into_iter().partition(|named| named.is_stub());
        if !stubs.is_empty() {
            let asked = self.resolved.named(|path| std::fs::read(path))?;
            servers.extend(asked.into_iter().filter(|named| !named.is_stub()));
        }
        let mut found = Vec::new();
        for server in servers.iter().filter_map(Named::server) {
            if !own.contains(&server) && !found.contains(&server) {
                found.push(server);
            }
        }
        if found.is_empty() {
            let path = if stubs.is_empty() { &self.host.path } else { &self.resolved.path };
            return Err(format!("{} names no server but this agent", path.display()));
        }
        Ok(found)
    }
}

impl NameServers {
    fn new(path: &Path) -> Self {
        Self { path: path.into(), read: None }
    }

    /// Those that the file names; none where there is no file.
    fn named(&mut self, read: impl FnOnce(&Path) -> io::Result<Vec<u8>>) -> Result<Vec<Named>, String> {
        let bytes = match read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(format!("{} cannot be read: {e}", self.path.display())),
        };
        if let Some((before, named)) = &self.read
            && *before == bytes
        {
            return Ok(named.clone());
        }
        let named = parse(&String::from_utf8_lossy(&bytes), &self.path);
        self.read = Some((bytes, named.clone()));
        Ok(named)
    }
}

impl Named {
    /// As resolv.conf(5) has it.
    fn read(text: &str) -> Option<Self> {
        let (address, scope) = match text.split_once('%') {
            Some((address, scope)) => (address, Some(scope.to_owned())),
            None => (text, None),
        };
        Some(Self { address: address.parse().ok()?, scope })
    }

    fn is_stub(&self) -> bool {
        STUBS.contains(&self.address)
    }

    /// Where it is asked; nowhere while there is no device of that name.
    fn server(&self) -> Option<SocketAddr> {
        match (self.address, &self.scope) {
            (IpAddr::V6(address), Some(scope)) => {
                let index = scope.parse().ok().or_else(|| index_of(scope).ok())?;
                Some(SocketAddrV6::new(address, PORT, 0, index).into())
            }
            (address, _) => Some(SocketAddr::new(address, PORT)),
        }
    }
}

impl From<IpAddr> for Named {
    fn from(address: IpAddr) -> Self {
        Self { address, scope: None }
    }
}

fn parse(text: &str, path: &Path) -> Vec<Named> {
    let mut found = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        match words.next().and_then(Named::read) {
            Some(named) => found.push(named),
            None => tracing::warn!("{} has a line that names no server: {line:?}", path.display()),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A directory with the host's file and systemd-resolved's, where they say something.
    fn world(host: Option<&str>, resolved: Option<&str>) -> (TempDir, Upstreams) {
        let dir = tempfile::tempdir().unwrap();
        let paths = ["resolv.conf", "resolved.conf"].map(|name| dir.path().join(name));
        for (path, text) in paths.iter().zip([host, resolved]) {
            if let Some(text) = text {
                fs::write(path, text).unwrap();
            }
        }
        let upstreams = Upstreams::new(&paths[0], &paths[1]);
        (dir, upstreams)
    }

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn in_the_place_of_systemd_resolved_those_are_asked_that_it_asks_itself() {
        let own = addresses(&["100.90.0.7:53", "[fd5c::7]:53"]);
        for stub in ["127.0.0.53", "127.0.0.54"] {
            let host = format!("nameserver {stub}\noptions edns0\n");
            let resolved =
                "nameserver 192.0.2.53\nnameserver 100.90.0.7\nnameserver 2001:db8::53\nnameserver fd5c::7\n";
            let (_dir, mut upstreams) = world(Some(&host), Some(resolved));
            assert_eq!(
                upstreams.now(&own).unwrap(),
                addresses(&["192.0.2.53:53", "[2001:db8::53]:53"]),
                "{stub}"
            );
        }
    }

    #[test]
    fn systemd_resolved_that_asks_nobody_but_this_agent_leaves_none() {
        let own = addresses(&["100.90.0.7:53", "[fd5c::7]:53"]);
        for resolved in
            [None, Some(""), Some("nameserver 100.90.0.7\nnameserver fd5c::7\nnameserver 127.0.0.53\n")]
        {
            let (_dir, mut upstreams) = world(Some("nameserver 127.0.0.53\n"), resolved);
            let why = upstreams.now(&own).unwrap_err();
            assert!(why.contains("resolved.conf names no server"), "{why}");
        }
    }

    #[test]
    fn where_nobody_is_named_loopback_is_asked_as_the_c_library_does() {
        for host in [None, Some(""), Some("search example.org\n"), Some("# nameserver 192.0.2.1\n")] {
            let (_dir, mut upstreams) = world(host, None);
            assert_eq!(upstreams.now(&[]).unwrap(), addresses(&["127.0.0.1:53", "[::1]:53"]), "{host:?}");
            let own = addresses(&["127.0.0.1:53", "[::1]:53"]);
            assert!(upstreams.now(&own).unwrap_err().contains("names no server but this agent"));
        }
    }

    #[test]
    fn a_link_local_server_keeps_its_device() {
        let (_dir, mut upstreams) = world(
            Some("nameserver fe80::1%lo\nnameserver fe80::2%7\nnameserver fe80::3%no-such-dev\n"),
            None,
        );
        let at = |last: u16, scope| {
            SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, last), PORT, 0, scope).into()
        };
        let expected: [SocketAddr; 2] = [at(1, 1), at(2, 7)];
        assert_eq!(upstreams.now(&[]).unwrap(), expected);
    }

    #[test]
    fn a_line_that_is_wrong_takes_nothing_from_the_others_and_the_file_is_followed() {
        let (dir, mut upstreams) =
            world(Some("nameserver nobody\nnameserver\nnameserver 192.0.2.1 # mine\n"), None);
        assert_eq!(upstreams.now(&[]).unwrap(), addresses(&["192.0.2.1:53"]));
        fs::write(dir.path().join("resolv.conf"), "nameserver 2001:db8::1\n").unwrap();
        assert_eq!(upstreams.now(&[]).unwrap(), addresses(&["[2001:db8::1]:53"]));
    }
}
