//! The gateway's own addresses and its networks' broadcasts as destinations, where a rule opens the whole network: dropped for
//! their reason by XDP and by TC, as the devices have them at the time.

use sluicegate_gateway::datapath::XdpChoice;

use crate::policy;
use crate::until;
use crate::world::{ADDRESSES, PORT, World, drops, sending, udp};
use sluicegate_policy::model::Service;

#[test]
fn nothing_is_opened_to_the_hosts_addresses_and_to_broadcasts() {
    let (xdp, _) = sending();
    for (choice, masquerade) in [(xdp, true), (XdpChoice::Off, true), (XdpChoice::Off, false)] {
        refused(choice, masquerade);
    }
}

fn refused(choice: XdpChoice, masquerade: bool) {
    let world = World::new();
    let network = ("server", vec!["10.128.0.0/24".to_owned(), "fd10::/64".to_owned()]);
    let rule = policy::rule(0, Service::Udp(vec![PORT..=PORT]));
    let image = policy::compile(&[policy::parsed(policy::USER)], &[network], masquerade, vec![rule]);
    let mut datapath = world.open_with(choice, &image);
    for (family, [client, _, site, _]) in ADDRESSES.into_iter().enumerate() {
        let four = family == 0;
        let client = udp(&world.client, client, 0);
        let server = udp(&world.server, if four { "0.0.0.0" } else { "::" }, PORT);
        let send = |to: &str, text: &str| {
            let to = std::net::SocketAddr::new(to.parse().unwrap(), PORT);
            client.send_to(text.as_bytes(), to).unwrap();
        };
        let (second, length) = if four { ("10.128.0.77", 24) } else { ("fd10::77", 64) };
        let (last, first) = if four { ("10.128.0.255", "10.128.0.0") } else { ("fd10::ffff", "fd10::") };
        world.gateway.address("site", &format!("{second}/{length}")).unwrap();
        world.sweep(&mut datapath);
        let no_unicast = if four { "not_unicast" } else { "hairpin" };
        let destinations = [(site, "hairpin"), (second, "hairpin"), (first, no_unicast), (last, no_unicast)];
        // The last address of an IPv6 network is like any other.
        for (to, reason) in destinations.into_iter().filter(|(to, _)| *to != "fd10::ffff") {
            let before = drops(&mut datapath, reason);
            let tap = world.tap();
            (0..3).for_each(|_| send(to, "refused"));
            // The client's kernel sends multicast by itself.
            until(|| drops(&mut datapath, reason) >= before + 3);
            if choice != XdpChoice::Off {
                assert_eq!(tap.seen("refused"), 0, "{to}: an skb was made of it");
            }
        }
        // The address moves to the server, and the gateway hears of it.
        let assigned = format!("{second}/{length}");
        world.gateway.ip(&["address", "del", &assigned, "dev", "site"]).unwrap();
        world.server.address("in", &assigned).unwrap();
        world.sweep(&mut datapath);
        send(second, "permitted");
        let mut buffer = [0; 16];
        let (got, from) = server.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..got], b"permitted", "the server heard what was refused");
        assert_eq!(from.ip() == client.local_addr().unwrap().ip(), !masquerade);
    }
}
