//! The kernel's devices and routes as the agent sees them, in a namespace of its own. Needs root.
#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

#[path = "support/tun.rs"]
mod reopen;

use std::time::Duration;

use reopen::reopened;
use sluicegate_gateway::netlink::{Changes, Netlink, Target};
use sluicegate_gateway::system;
use sluicegate_gateway::tun::Tun;
use sluicegate_lab::{Lab, Namespace};

const PATIENCE: Duration = Duration::from_secs(60);

fn inside<T: Send>(namespace: &Namespace, work: impl AsyncFnOnce() -> T + Send) -> T {
    let run = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work());
    namespace.enter(run).unwrap()
}

fn lab() -> Lab {
    assert!(system::is_root(), "these tests need root, for network namespaces");
    Lab::new().unwrap()
}

/// The agent asks for changes beside other things, so its question is dropped and asked again all the time.
#[test]
fn a_change_is_told_even_to_one_who_keeps_being_interrupted() {
    let lab = lab();
    let host = lab.namespace("host").unwrap();
    inside(&host, async || {
        let mut changes = Changes::watch().unwrap();
        host.ip(&["link", "add", "br0", "type", "bridge"]).unwrap();
        let told = async {
            loop {
                tokio::select! {
                    () = changes.next() => break,
                    () = tokio::time::sleep(Duration::from_millis(5)) => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, told).await.expect("the change was lost");
    });
}

#[test]
fn addresses_and_routes_become_what_is_wanted_and_others_are_left_alone() {
    let lab = lab();
    let host = lab.namespace("host").unwrap();
    host.ip(&["link", "add", "br0", "type", "bridge"]).unwrap();
    host.ip(&["link", "set", "br0", "up"]).unwrap();
    host.ip(&["address", "add", "192.0.2.1/24", "dev", "br0"]).unwrap();
    host.ip(&["route", "add", "10.5.0.0/16", "dev", "br0"]).unwrap();
    inside(&host, async || {
        let netlink = Netlink::open().unwrap();
        let tun = Tun::open("sluice0").unwrap();
        netlink.bring_up(tun.index(), 1300).await.unwrap();
        assert_eq!(netlink.link("sluice0").await.unwrap().unwrap().mtu, 1300);
        assert_eq!(netlink.link("nothing").await.unwrap(), None);
        let set = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect();
        for (addresses, routes) in [
            (["100.90.0.1/16", "fd77::1/64"], ["10.1.0.0/24", "fd99::/48"]),
            (["100.90.0.9/16", "fd77::1/64"], ["10.2.0.0/24", "fd99::/48"]),
        ] {
            // Twice: what is there already stays.
            for _ in 0..2 {
                netlink.set_addresses(tun.index(), &set(&addresses)).await.unwrap();
                netlink.set_routes(tun.index(), &set(&routes)).await.unwrap();
            }
            let there = host.ip(&["address", "show", "dev", "sluice0"]).unwrap();
            assert!(addresses.iter().all(|a| there.contains(a)) && !there.contains("fe80"), "{there}");
        }
        assert!(!host.ip(&["address", "show", "dev", "sluice0"]).unwrap().contains("100.90.0.1/"));
        let routes = host.ip(&["route"]).unwrap() + &host.ip(&["-6", "route"]).unwrap();
        assert!(routes.contains("10.2.0.0/24") && routes.contains("fd99::/48"), "{routes}");
        assert!(!routes.contains("10.1.0.0/24"), "{routes}");
        assert!(routes.contains("10.5.0.0/16 dev br0"), "not ours: {routes}");

        let to = async |address: &str| netlink.route_to(address.parse().unwrap()).await.unwrap();
        let site = to("10.5.0.1").await.unwrap();
        assert_eq!(site.target, Target::Device(netlink.link("br0").await.unwrap().unwrap().index));
        assert_eq!(site.source, Some("192.0.2.1".parse().unwrap()));
        assert_eq!(to("192.0.2.1").await.unwrap().target, Target::Here);
        assert_eq!(to("203.0.113.1").await, None);
        assert_eq!(to("2001:db8::1").await, None);
    });
}

#[test]
fn the_device_outlives_its_reader_and_only_one_reads_it() {
    let lab = lab();
    let host = lab.namespace("host").unwrap();
    inside(&host, async || {
        let first = Tun::open("sluice0").unwrap();
        let second = Tun::open("sluice0").err().unwrap().to_string();
        assert!(second.contains("in use by another process"), "{second}");
        let index = first.index();
        drop(first);
        assert_eq!(reopened("sluice0").index(), index);
        Tun::delete("sluice0").unwrap();
        Tun::delete("sluice0").unwrap();
        assert!(!host.ip(&["link"]).unwrap().contains("sluice0"));
        host.ip(&["link", "add", "sluice0", "type", "bridge"]).unwrap();
        let taken = Tun::open("sluice0").err().unwrap().to_string();
        assert!(taken.contains("not a TUN device"), "{taken}");
    });
}

#[test]
fn a_deleted_device_is_an_error_for_its_reader() {
    let lab = lab();
    let host = lab.namespace("host").unwrap();
    inside(&host, async || {
        let tun = Tun::open("sluice0").unwrap();
        host.ip(&["link", "delete", "sluice0"]).unwrap();
        let mut buffer = [0; 64];
        let read =
            tokio::time::timeout(PATIENCE, tun.recv(&mut buffer)).await.expect("the reader waits for ever");
        assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EBADFD));
    });
}
