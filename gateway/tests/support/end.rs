//! The embedded WireGuard in a namespace, on a TUN device of its own.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sluicegate_gateway::netlink::Netlink;
use sluicegate_gateway::overlay::{
    HostSide, Link, Overlay, PeerSpec, PublicKey, Questions, UserspaceOverlay, UserspaceSettings,
};
use sluicegate_gateway::tun::Tun;
use sluicegate_lab::Namespace;

/// The longest anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// One end: a thread in its namespace with a runtime of its own.
pub(crate) struct End {
    commands: tokio::sync::mpsc::UnboundedSender<Command>,
}

enum Command {
    Configure(Vec<PeerSpec>),
    Links(mpsc::Sender<Vec<Link>>),
    Stop,
}

impl End {
    /// Starts it with a key made of one byte; its UDP port is 51820.
    pub(crate) fn start<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        namespace: &'scope Namespace,
        key: u8,
        addresses: [&str; 2],
    ) -> Self {
        let addresses: BTreeSet<ipnet::IpNet> = addresses.iter().map(|a| a.parse().unwrap()).collect();
        let (commands, mut inbox) = tokio::sync::mpsc::unbounded_channel();
        let (ready, is_ready) = mpsc::channel();
        let work = async move {
            let tun = Tun::open("sluice0").unwrap();
            let netlink = Netlink::open().unwrap();
            netlink.bring_up(tun.index(), 1420).await.unwrap();
            netlink.set_addresses(tun.index(), &addresses).await.unwrap();
            netlink.set_routes(tun.index(), &["10.99.0.0/24".parse().unwrap()].into()).await.unwrap();
            let settings = UserspaceSettings {
                key: [key; 32].into(),
                port: 51_820,
                mtu: 1420,
                probe_interval: Duration::from_millis(100),
                questions: Questions::new().0,
            };
            let mut overlay = UserspaceOverlay::start(settings, HostSide::Tun(tun)).await.unwrap();
            let own = addresses.iter().find_map(|a| match a {
                ipnet::IpNet::V6(v6) => Some(v6.addr()),
                ipnet::IpNet::V4(_) => None,
            });
            overlay.set_own_address(own.unwrap());
            ready.send(()).unwrap();
            while let Some(command) = inbox.recv().await {
                match command {
                    Command::Configure(peers) => overlay.configure(peers).await.unwrap(),
                    Command::Links(answer) => answer.send(overlay.links().await).unwrap(),
                    Command::Stop => break,
                }
            }
            overlay.stop().await;
        };
        scope.spawn(move || {
            let inside =
                || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work);
            namespace.enter(inside).unwrap();
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Self { commands }
    }

    /// Gives it its only peer.
    pub(crate) fn configure(&self, peer: &PeerSpec) {
        assert!(self.commands.send(Command::Configure(vec![peer.clone()])).is_ok());
    }

    /// Waits for the link to be so.
    pub(crate) fn link_when(&self, holds: impl Fn(&Link) -> bool) -> Link {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let (answer, answered) = mpsc::channel();
            assert!(self.commands.send(Command::Links(answer)).is_ok());
            let links = answered.recv_timeout(PATIENCE).unwrap();
            if let Some(link) = links.into_iter().find(&holds) {
                return link;
            }
            assert!(Instant::now() < give_up, "the link never came to be as it should");
            std::thread::yield_now();
        }
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
    }
}

/// The public key of the end with this key.
pub(crate) fn public(key: u8) -> PublicKey {
    let secret = gotatun::x25519::StaticSecret::from([key; 32]);
    PublicKey(gotatun::x25519::PublicKey::from(&secret).to_bytes())
}
