//! Destinations that are this host's own, or every host's on one of its networks.

use super::world::{SITE, Twin, World};
use crate::family::{V4, V6};
use crate::flow::Side;
use crate::host::HostAddress;
use crate::packet::tcp::SYN;
use crate::pipeline::Verdict;
use crate::reason::DropReason;

/// By TC alone, and by XDP where it may look first: no flow is opened to such a destination, and one that was goes on.
fn opened<F: Twin>(masquerade: bool) {
    for (what, reason) in
        [(HostAddress::Own, DropReason::Hairpin), (HostAddress::Broadcast, DropReason::NotUnicast)]
    {
        for by_xdp in [false, true] {
            for flags in [None, Some(SYN)] {
                let mut world = World::<F>::new(masquerade);
                let judge = |world: &mut World<F>, now| {
                    let mut packet = world.there(flags);
                    if by_xdp {
                        world.carry(Side::Overlay, &mut packet, now)
                    } else {
                        (false, world.judge(Side::Overlay, &mut packet, now))
                    }
                };
                world.host.insert(F::FAR, what);
                assert_eq!(judge(&mut world, 1000), (by_xdp, Verdict::Drop(reason)));
                assert_eq!((world.half_open.len(), world.admitted, world.started), (0, 0, 0));

                world.host.clear();
                assert_eq!(judge(&mut world, 1001).1, Verdict::Site(SITE));
                world.host.insert(F::FAR, what);
                let asked = world.asked.get();
                assert_eq!(judge(&mut world, 1002).1, Verdict::Site(SITE), "the flow is there");
                assert_eq!(world.asked.get(), asked, "packets of a flow ask for no address");
            }
        }
    }
}

#[test]
fn no_flow_is_opened_to_the_hosts_own_addresses_and_to_broadcasts() {
    for masquerade in [false, true] {
        opened::<V4>(masquerade);
        opened::<V6>(masquerade);
    }
}

/// What no rule admits is refused for that, whatever the destination is to the host.
#[test]
fn what_no_rule_admits_is_told_as_that() {
    let mut world = World::<V4>::new(true);
    world.accepts = false;
    world.host.insert(V4::FAR, HostAddress::Broadcast);
    let mut packet = world.there(None);
    assert_eq!(world.judge(Side::Overlay, &mut packet, 1000), Verdict::Drop(DropReason::NoRule));
    assert_eq!(world.asked.get(), 0);
}
