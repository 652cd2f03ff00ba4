//! What the names of domain resources stand for, as the routers of their networks have looked it up.
//!
//! A router says all of what it knows each time, and that takes the place of what it said before. An address counts while any peer that
//! is a router of the resource's network says it (the view `resource_addresses`). For how long a router says it after the name
//! server did is the router's to see to: it knows the time to live.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use serde::Serialize;

use super::account::account;
use super::error::parse;
use super::resources::never_routed;
use super::sql::{self, Connection};
use super::write::Meta;
use super::{Activity, Actor, Result, Store};

/// Addresses that one router may say of one name. Names with more are those of content networks, which belong to everybody.
const OF_A_NAME: usize = 64;
/// Addresses that one router may say of one resource: what names below a wildcard have together.
const OF_A_RESOURCE: usize = 1024;

/// An address of a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Learned {
    /// The domain resource.
    pub resource: String,
    /// The name that was looked up, in lower case: the resource's own, or one below its wildcard.
    pub name: String,
    /// What it stands for.
    pub address: IpAddr,
}

/// What came of what a router said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Noted {
    /// The resources whose addresses are others now.
    pub changed: usize,
    /// What was not taken, each a clause that names the address and says why.
    pub refused: Vec<String>,
}

impl Store {
    /// Takes in what a router says that names stand for, all of it; unless that is something else than before and `may_change` says no:
    /// then nothing is taken in, and this gives `None`, having waited for no other change. What it does not route, or not under this
    /// name any more, is passed over.
    pub async fn note_learned(
        &self,
        peer: &str,
        said: &BTreeSet<Learned>,
        may_change: impl FnOnce() -> bool,
    ) -> Result<Option<Noted>> {
        self.take_in(peer, said, None, may_change).await
    }

    /// The same in the name of somebody else than the router.
    async fn take_in(
        &self,
        peer: &str,
        said: &BTreeSet<Learned>,
        by: Option<Actor>,
        may_change: impl FnOnce() -> bool,
    ) -> Result<Option<Noted>> {
        let actor = {
            let mut db = self.read().await?;
            let served = Served::by(&mut db, peer).await?;
            let (taken, refused) = served.taken(said);
            if of_peer(&mut db, peer).await? == taken {
                return Ok(Some(Noted { changed: 0, refused }));
            }
            if !may_change() {
                return Ok(None);
            }
            by.unwrap_or(Actor { id: peer.to_owned(), name: served.router, email: String::new() })
        };
        let mut write = self.write(&actor).await?;
        let served = Served::by(write.db(), peer).await?;
        let (taken, refused) = served.taken(said);
        let before = of_peer(write.db(), peer).await?;
        let concerned: BTreeSet<&str> =
            before.symmetric_difference(&taken).map(|learned| learned.resource.as_str()).collect();
        let mut were = BTreeMap::new();
        for id in &concerned {
            were.insert(*id, of_resource(write.db(), id).await?);
        }
        for gone in before.difference(&taken) {
            remove(write.db(), peer, gone).await?;
        }
        for new in taken.difference(&before) {
            insert(write.db(), peer, new).await?;
        }
        let mut changed = 0;
        for (id, was) in were {
            let is = of_resource(write.db(), id).await?;
            if is == was {
                continue;
            }
            changed += 1;
            let (name, network): (String, String) = sql::query_as(
                "SELECT s.name, n.name FROM resources s JOIN networks n ON n.id = s.network_id WHERE s.id = $1",
            )
            .bind(id)
            .fetch_one(write.db())
            .await?;
            // Those that stay are not said again: a wildcard may have a thousand, and peers ask for another every second.
            let (gone, new) = (Addresses::of(was.difference(&is)), Addresses::of(is.difference(&was)));
            let meta =
                Meta::name(&name).with("network_name", network).with("addresses", is.len().to_string());
            let meta = meta.before(&gone).after(&new);
            write.event(Activity::ResourceAddresses, id, meta).await?;
        }
        write.commit().await?;
        Ok(Some(Noted { changed, refused }))
    }

    /// Lets go of what routers said that have been away since before `since`, Unix milliseconds; of how many.
    pub async fn forget_learned(&self, since: i64) -> Result<usize> {
        let away: Vec<String> = sql::query_scalar(
            "SELECT DISTINCT p.id FROM learned_addresses l JOIN peers p ON p.id = l.peer_id
             WHERE NOT p.connected AND p.last_seen < $1 ORDER BY p.id",
        )
        .bind(since)
        .fetch_all(&mut self.reader().await?)
        .await?;
        for peer in &away {
            self.take_in(peer, &BTreeSet::new(), Some(Actor::system()), || true).await?;
        }
        Ok(away.len())
    }
}

/// Addresses of a resource that count no more, or only now; in order.
#[derive(Serialize)]
struct Addresses {
    addresses: Vec<String>,
}

impl Addresses {
    fn of<'a>(addresses: impl Iterator<Item = &'a IpAddr>) -> Self {
        Self { addresses: addresses.map(IpAddr::to_string).collect() }
    }
}

/// The domain resources that a peer routes.
struct Served {
    router: String,
    /// Names by resource id.
    names: BTreeMap<String, String>,
    overlay: [IpNet; 2],
}

impl Served {
    async fn by(db: &mut Connection, peer: &str) -> Result<Self> {
        let (v4, v6) = account(db).await?.settings.overlay()?;
        let router: Option<String> = sql::query_scalar("SELECT name FROM peers WHERE id = $1")
            .bind(peer)
            .fetch_optional(&mut *db)
            .await?;
        let names: Vec<(String, String)> = sql::query_as(
            "SELECT s.id, s.address FROM resources s WHERE s.kind = 'domain' AND (
             EXISTS (SELECT 1 FROM routers r WHERE r.network_id = s.network_id AND r.enabled AND r.peer_id = $1)
             OR EXISTS (SELECT 1 FROM routers r JOIN router_groups g ON g.router_id = r.id
             JOIN group_peers m ON m.group_id = g.group_id AND m.peer_id = $1
             WHERE r.network_id = s.network_id AND r.enabled))",
        )
        .bind(peer)
        .fetch_all(db)
        .await?;
        let names = names.into_iter().collect();
        Ok(Self { router: router.unwrap_or_default(), names, overlay: [v4.into(), v6.into()] })
    }

    /// What of it is taken, and why the rest is not.
    fn taken(&self, said: &BTreeSet<Learned>) -> (BTreeSet<Learned>, Vec<String>) {
        let (mut taken, mut refused) = (BTreeSet::new(), Vec::new());
        let mut of_names = BTreeMap::<(&str, &str), usize>::new();
        let mut of_resources = BTreeMap::<&str, usize>::new();
        for learned in said {
            let Learned { resource, name, address } = learned;
            if !self.names.get(resource).is_some_and(|pattern| covers(pattern, name)) {
                continue;
            }
            if let Some(what) = self.never(*address) {
                refused.push(format!("{name} stands for {address}, which is {what}"));
                continue;
            }
            let of_name = of_names.entry((resource, name)).or_default();
            let of_resource = of_resources.entry(resource).or_default();
            if *of_name == OF_A_NAME || *of_resource == OF_A_RESOURCE {
                refused.push(format!(
                    "{name} stands for {address} as well, beyond {OF_A_NAME} addresses of a name or {OF_A_RESOURCE} of a resource"
                ));
                continue;
            }
            (*of_name, *of_resource) = (*of_name + 1, *of_resource + 1);
            taken.insert(learned.clone());
        }
        (taken, refused)
    }

    /// What an address is that no name may open: nothing of the site's, whatever a name server says.
    fn never(&self, address: IpAddr) -> Option<&'static str> {
        if self.overlay.iter().any(|overlay| overlay.contains(&address)) {
            return Some("an address of the overlay");
        }
        match address {
            // A machine's own metadata service is at one of these.
            IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
            IpAddr::V6(v6) if is_metadata(v6) => Some("a cloud's metadata service"),
            _ => match translated(address) {
                Some(v4) => self.never(v4.into()),
                None => never_routed(&address.into()),
            },
        }
    }
}

/// fd00:ec2::/32, where EC2 has services that are IPv4's link-local ones.
fn is_metadata(address: Ipv6Addr) -> bool {
    address.segments()[..2] == [0xfd00, 0xec2]
}

/// The IPv4 address to which a translator brings packets for one of 64:ff9b::/96 (RFC 6052 2.1).
fn translated(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let bits = v6.to_bits();
    (bits >> 32 == 0x64_ff9b << 64).then(|| Ipv4Addr::from_bits(bits as u32))
}

/// Whether a name is that of a resource, or below its wildcard. What the wildcard stands below is not meant.
fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(base) => name.len() > base.len() && name.ends_with(base),
        None => name == pattern,
    }
}

async fn of_peer(db: &mut Connection, peer: &str) -> Result<BTreeSet<Learned>> {
    let rows: Vec<(String, String, String)> =
        sql::query_as("SELECT resource_id, name, address FROM learned_addresses WHERE peer_id = $1")
            .bind(peer)
            .fetch_all(db)
            .await?;
    let learned = |(resource, name, address): (String, String, String)| {
        let address = parse("learned_addresses.address", &address)?;
        Ok(Learned { resource, name, address })
    };
    rows.into_iter().map(learned).collect()
}

/// The addresses that count of a domain resource, in order.
pub(super) async fn of_resource(db: &mut Connection, resource: &str) -> Result<BTreeSet<IpAddr>> {
    let rows: Vec<String> =
        sql::query_scalar("SELECT DISTINCT address FROM resource_addresses WHERE resource_id = $1")
            .bind(resource)
            .fetch_all(db)
            .await?;
    rows.iter().map(|address| parse("learned_addresses.address", address)).collect()
}

/// The addresses that count of every domain resource, or of those of a network, by resource id.
pub(super) async fn of_resources(
    db: &mut Connection,
    network: Option<&str>,
) -> Result<BTreeMap<String, BTreeSet<IpAddr>>> {
    const ALL: &str = "SELECT DISTINCT resource_id, address FROM resource_addresses";
    const ONE: &str = "SELECT DISTINCT resource_id, address FROM resource_addresses WHERE network_id = $1";
    let rows: Vec<(String, String)> = match network {
        Some(network) => sql::query_as(ONE).bind(network).fetch_all(db).await?,
        None => sql::query_as(ALL).fetch_all(db).await?,
    };
    let mut of_resources = BTreeMap::<String, BTreeSet<IpAddr>>::new();
    for (resource, address) in rows {
        let address = parse("learned_addresses.address", &address)?;
        of_resources.entry(resource).or_default().insert(address);
    }
    Ok(of_resources)
}

async fn insert(db: &mut Connection, peer: &str, new: &Learned) -> Result<()> {
    sql::query("INSERT INTO learned_addresses (resource_id, peer_id, name, address) VALUES ($1, $2, $3, $4)")
        .bind(&new.resource)
        .bind(peer)
        .bind(&new.name)
        .bind(new.address.to_string())
        .execute(db)
        .await?;
    Ok(())
}

async fn remove(db: &mut Connection, peer: &str, gone: &Learned) -> Result<()> {
    sql::query(
        "DELETE FROM learned_addresses WHERE resource_id = $1 AND peer_id = $2 AND name = $3 AND address = $4",
    )
    .bind(&gone.resource)
    .bind(peer)
    .bind(&gone.name)
    .bind(gone.address.to_string())
    .execute(db)
    .await?;
    Ok(())
}

/// Lets go of all that was said of a resource, which has another name now.
pub(super) async fn forget(db: &mut Connection, resource: &str) -> Result<()> {
    sql::query("DELETE FROM learned_addresses WHERE resource_id = $1").bind(resource).execute(db).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_stands_for_what_is_the_sites_own() {
        let overlay = ["100.90.0.0/16".parse().unwrap(), "fd5c::/64".parse().unwrap()];
        let served = Served { router: String::new(), names: BTreeMap::new(), overlay };
        for (address, wrong) in [
            ("100.90.3.4", Some("an address of the overlay")),
            ("fd5c::9", Some("an address of the overlay")),
            ("64:ff9b::100.90.3.4", Some("an address of the overlay")),
            ("169.254.169.254", Some("link-local")),
            ("fe80::1", Some("link-local")),
            ("64:ff9b::169.254.169.254", Some("link-local")),
            ("fd00:ec2::254", Some("a cloud's metadata service")),
            ("fd00:ec2:ffff::1", Some("a cloud's metadata service")),
            ("127.0.0.1", Some("loopback")),
            ("64:ff9b::127.0.0.1", Some("loopback")),
            ("64:ff9b::", Some("unspecified")),
            ("64:ff9b::224.0.0.1", Some("multicast")),
            ("64:ff9b::255.255.255.255", Some("broadcast")),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
            ("64:ff9b::192.0.2.1", None),
            ("64:ff9b:1::127.0.0.1", None),
            ("fd00:ec1::254", None),
        ] {
            assert_eq!(served.never(address.parse().unwrap()), wrong, "{address}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_what_is_below_it() {
        for (pattern, name, expected) in [
            ("db.example.org", "db.example.org", true),
            ("db.example.org", "x.db.example.org", false),
            ("*.example.org", "db.example.org", true),
            ("*.example.org", "a.b.example.org", true),
            ("*.example.org", "example.org", false),
            ("*.example.org", ".example.org", false),
            ("*.example.org", "badexample.org", false),
        ] {
            assert_eq!(covers(pattern, name), expected, "{pattern} {name}");
        }
    }
}
