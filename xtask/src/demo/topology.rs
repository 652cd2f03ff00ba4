//! Hosts, cables and addresses.
//!
//! ```text
//!             underlay 198.51.100.0/24                       site 10.20.0.0/24
//!  alice .21 ──┐                                            ┌── web     .10
//!  carol .22 ──┤            ┌── .11 gw1 .1 ────────┐        │
//!  mona  .23 ──┼── switch ──┤                      ├ switch ┼── metrics .30
//!  control .1 ─┘            └── .12 gw2 .2 ────────┘        ├── db      .20
//!                                                           ├── app     .41 .42 .45
//!                                                           └── dns     .53
//! ```
//!
//! Each has the same number in fd00:51::/64 and fd00:20::/64.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use sluicegate_lab::{Lab, Namespace, Program, wait};

/// The underlay's device in every host that is on it.
pub(crate) const UNDERLAY_DEVICE: &str = "eth0";
/// The site's device in a gateway.
pub(crate) const SITE_DEVICE: &str = "eth1";

const READY: Duration = Duration::from_secs(10);

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// Underlay address of host `number`.
pub(crate) fn underlay(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 51, 100, number)
}

/// Site address of host `number`: `fd00:20::10` beside `10.20.0.10`.
pub(crate) fn site(number: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 20, 0, number).into(),
        // The number is written the same way in both: the last group is hexadecimal, its digits are the decimal ones.
        Family::V6 => {
            Ipv6Addr::new(0xfd00, 0x20, 0, 0, 0, 0, 0, (number / 10 * 16 + number % 10).into()).into()
        }
    }
}

pub(crate) const GW1: u8 = 1;
pub(crate) const GW2: u8 = 2;
pub(crate) const WEB: u8 = 10;
pub(crate) const DB: u8 = 20;
pub(crate) const METRICS: u8 = 30;
/// The server that is known by its name alone, and where it moves to.
pub(crate) const APP: [u8; 2] = [41, 42];
/// Where a server is whose name nobody has written down, below a wildcard.
pub(crate) const PAGES: u8 = 45;
/// The site's name server.
pub(crate) const DNS: u8 = 53;

/// The namespaces.
#[derive(Debug)]
pub(crate) struct Hosts {
    pub(crate) control: Namespace,
    pub(crate) gateways: [Namespace; 2],
    pub(crate) peers: [Namespace; 3],
    pub(crate) site: SiteHosts,
}

/// The site's servers.
#[derive(Debug)]
pub(crate) struct SiteHosts {
    pub(crate) web: Namespace,
    pub(crate) db: Namespace,
    pub(crate) metrics: Namespace,
    pub(crate) app: Namespace,
    pub(crate) dns: Namespace,
}

impl Hosts {
    pub(crate) fn make(lab: &Lab) -> Result<Self> {
        let underlay = Switch::make(lab, "underlay")?;
        let control = underlay.host(lab, "control", 1)?;
        let gateways = [underlay.host(lab, "gw1", 11)?, underlay.host(lab, "gw2", 12)?];
        let peers = [
            underlay.host(lab, "alice", 21)?,
            underlay.host(lab, "carol", 22)?,
            underlay.host(lab, "mona", 23)?,
        ];
        let switch = Switch::make(lab, "site")?;
        for (gateway, number) in gateways.iter().zip([GW1, GW2]) {
            switch.plug(lab, gateway, SITE_DEVICE)?;
            site_addresses(gateway, SITE_DEVICE, number)?;
        }
        let server = |name, number| -> Result<Namespace> {
            let host = lab.namespace(name)?;
            switch.plug(lab, &host, "eth0")?;
            site_addresses(&host, "eth0", number)?;
            // With masquerade off, answers to the overlay's addresses have to find a gateway.
            host.route("default", &site(GW1, Family::V4).to_string())?;
            host.route("default", &site(GW1, Family::V6).to_string())?;
            Ok(host)
        };
        let site = SiteHosts {
            web: server("web", WEB)?,
            db: server("db", DB)?,
            metrics: server("metrics", METRICS)?,
            app: server("app", APP[0])?,
            dns: server("dns", DNS)?,
        };
        for number in [APP[1], PAGES] {
            site_addresses(&site.app, "eth0", number)?;
        }
        Ok(Self { control, gateways, peers, site })
    }
}

impl SiteHosts {
    /// Starts the servers and waits until they serve by both families.
    pub(crate) fn serve(&self, traffic: &Path) -> Result<()> {
        let servers: [(&Namespace, u8, &[&str], u16); 8] = [
            (&self.web, WEB, &["web", "[::]:443", "--name", "web"], 443),
            (&self.web, WEB, &["tcp-echo", "[::]:8443"], 8443),
            (&self.web, WEB, &["tcp-echo", "[::]:2222"], 2222),
            (&self.web, WEB, &["udp-echo", "[::]:443"], 0),
            (&self.db, DB, &["tcp-echo", "[::]:5432"], 5432),
            (&self.metrics, METRICS, &["web", "[::]:9100", "--name", "metrics"], 9100),
            (&self.app, APP[0], &["tcp-echo", "[::]:8080"], 8080),
            (&self.app, PAGES, &["web", "[::]:8090", "--name", "pages"], 8090),
        ];
        for (host, number, args, port) in servers {
            let name = format!("{}-{}-{}", host.name(), args[0], port);
            let process = host.spawn(&name, &Program::new(traffic).args(args))?;
            process.wait_for_line("listening", READY)?;
            for family in Family::BOTH.into_iter().filter(|_| port != 0) {
                wait::tcp(host, SocketAddr::new(site(number, family), port), &process, READY)?;
            }
        }
        Ok(())
    }
}

/// A switch in a namespace of its own.
struct Switch {
    namespace: Namespace,
}

impl Switch {
    fn make(lab: &Lab, name: &str) -> Result<Self> {
        let namespace = lab.namespace(name)?;
        namespace.bridge("br0")?;
        Ok(Self { namespace })
    }

    /// A new host on the underlay.
    fn host(&self, lab: &Lab, name: &str, number: u8) -> Result<Namespace> {
        let host = lab.namespace(name)?;
        self.plug(lab, &host, UNDERLAY_DEVICE)?;
        host.address(UNDERLAY_DEVICE, &format!("{}/24", underlay(number)))?;
        host.address(UNDERLAY_DEVICE, &format!("fd00:51::{number}/64"))?;
        Ok(host)
    }

    fn plug(&self, lab: &Lab, host: &Namespace, device: &str) -> Result<()> {
        let port = format!("{}-{device}", host.name());
        lab.veth((host, device), (&self.namespace, &port))?;
        self.namespace.plug(&port, "br0")?;
        // XDP reads packets as they are on a wire.
        host.offload_off(device)?;
        self.namespace.offload_off(&port)
    }
}

fn site_addresses(host: &Namespace, device: &str, number: u8) -> Result<()> {
    host.address(device, &format!("{}/24", site(number, Family::V4)))?;
    host.address(device, &format!("{}/64", site(number, Family::V6)))
}
