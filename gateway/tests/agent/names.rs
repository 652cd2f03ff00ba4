//! What an agent tells of the names it is to look up, at a real name server.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Learned, Name, NetworkConfig};
use sluicegate_gateway::datapath::Choice;

use crate::dnsmasq::Dnsmasq;
use crate::{PATIENCE, World, overlay, with_agent};

/// Resource, name and address, as a person writes them.
type Known = BTreeSet<(String, String, String)>;

fn known(learned: &Learned) -> Known {
    let address = |octets: &[u8]| match <[u8; 4]>::try_from(octets) {
        Ok(v4) => IpAddr::from(Ipv4Addr::from(v4)).to_string(),
        Err(_) => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap())).to_string(),
    };
    learned.addresses.iter().map(|a| (a.resource_id.clone(), a.name.clone(), address(&a.address))).collect()
}

fn expected(rows: &[[&str; 3]]) -> Known {
    rows.iter().map(|row| row.map(str::to_owned).into()).collect()
}

fn named(serial: u64, names: &[(&str, &str)]) -> NetworkConfig {
    let name = |(resource, name): &(&str, &str)| Name {
        resource_id: (*resource).into(),
        name: (*name).into(),
        askers: 0,
    };
    let names = names.iter().map(name);
    NetworkConfig { names: names.collect(), ..overlay(serial) }
}

impl World {
    /// Waits until control has been told exactly this of names.
    async fn learned(&self, what: &str, wanted: &[[&str; 3]]) {
        let (begun, wanted) = (Instant::now(), expected(wanted));
        loop {
            let last = self.control.learned().map(|learned| known(&learned));
            if last.as_ref() == Some(&wanted) {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{what}: {last:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn serve(address: &str, records: &[&str]) -> Dnsmasq {
    let options = [&["--local=/example.org/"], records].concat();
    Dnsmasq::start(address, 5300, &options)
}

async fn tells_what_names_stand_for(world: &World) {
    const DB: &str = "db.example.org";
    let server = serve("127.0.0.1", &["--host-record=db.example.org,192.0.2.7,2001:db8::7,5"]);
    let running = world.run();
    world.status("the agent comes up", |s| s.control.connected && s.policy.revision == Some(1)).await;
    assert_eq!(world.control.learned().unwrap_or_default(), Learned::default(), "nothing was asked");
    world.control.tell(Update::Network(named(2, &[("r1", DB), ("r2", DB), ("r3", "*.example.org")])));
    let both =
        |v4: &'static str, v6: &'static str| [["r1", DB, v4], ["r1", DB, v6], ["r2", DB, v4], ["r2", DB, v6]];
    world.learned("both families, for both resources", &both("192.0.2.7", "2001:db8::7")).await;
    let status = world.status("what they are is shown", |s| s.names.len() == 3).await;
    let shown = |resource: &str| status.names.iter().find(|name| name.resource_id == resource).unwrap();
    assert_eq!(shown("r1").addresses.len(), 2);
    assert_eq!((shown("r1").reason.as_deref(), shown("r3").addresses.len()), (None, 0));
    assert!(shown("r3").reason.as_ref().unwrap().contains("wildcard"));
    let page = world.metrics().await;
    for line in ["sluicegate_gateway_names 3", "sluicegate_gateway_name_addresses 4"] {
        assert!(page.lines().any(|there| there == line), "{line}\n{page}");
    }

    // Control is told again by who opens a stream, whether or not there is news.
    world.control.forget_learned();
    world.control.go_away();
    world.control.come_back();
    world.learned("again on a new stream", &both("192.0.2.7", "2001:db8::7")).await;

    // The name moves, and what it stood for stays for who still holds the old answer.
    drop(server);
    let server = serve("127.0.0.1", &["--host-record=db.example.org,192.0.2.8,2001:db8::8,5"]);
    let moved = [both("192.0.2.7", "2001:db8::7"), both("192.0.2.8", "2001:db8::8")].concat();
    world.learned("the new addresses beside the old", &moved).await;

    // The server is gone: what is known stays, and a person is told. The other one is asked then.
    drop(server);
    let failing =
        |s: &sluicegate_gateway::status::Status| s.degraded.iter().any(|d| d.contains("cannot be looked up"));
    world.status("a person is told", failing).await;
    assert_eq!(world.control.learned().map(|learned| known(&learned)), Some(expected(&moved)));
    let _server = serve("::1", &["--host-record=db.example.org,192.0.2.8,2001:db8::8,5"]);
    world.status("the other server is asked", |s| !failing(s)).await;

    // A restart does not take back what control knows before the names have been looked up.
    running.stop().await;
    let running = world.run();
    world.status("the agent is back", |s| s.control.connected && s.names.len() == 3).await;
    world.learned("after a restart", &both("192.0.2.8", "2001:db8::8")).await;

    world.control.tell(Update::Network(named(3, &[])));
    world.learned("nothing is asked any more", &[]).await;
    running.stop().await;
}

fn servers(settings: &mut sluicegate_gateway::config::Settings) {
    settings.name_servers = ["127.0.0.1:5300", "[::1]:5300"].map(|server| server.parse().unwrap()).into();
}

#[test]
fn an_agent_tells_what_names_stand_for_as_long_as_it_is_asked() {
    with_agent(Choice::Ebpf, servers, tells_what_names_stand_for);
}

#[test]
fn an_agent_tells_what_names_stand_for_in_user_space_too() {
    with_agent(Choice::Userspace, servers, tells_what_names_stand_for);
}
