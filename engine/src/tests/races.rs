//! Two packets at once on two processors, the second one between any two uses of the tables by the first.

extern crate std;

use std::cell::RefCell;
use std::rc::Rc;
use std::vec::Vec;

use super::world::{SITE, Twin, World, port};
use crate::family::{V4, V6};
use crate::flow::Side;
use crate::packet::tcp::{ACK, FIN, SYN};
use crate::pipeline::Verdict;
use crate::reason::DropReason;

/// What became of the packet on the other processor.
type Other = Rc<RefCell<Option<(Verdict, Vec<u8>)>>>;

/// Lets `packet` in before use `number` of the tables.
fn interrupt<F: Twin>(world: &mut World<F>, number: u32, side: Side, mut packet: Vec<u8>) -> Other {
    let other = Other::default();
    let told = other.clone();
    world.interrupt(number, move |world| {
        let verdict = world.judge(side, &mut packet, 103);
        *told.borrow_mut() = Some((verdict, packet));
    });
    other
}

fn is_one_flow<F: Twin>(world: &World<F>, what: &str) {
    let halves = world.confirmed.len() + world.half_open.len();
    assert_eq!(halves, 2, "{what}: {:?} {:?}", world.confirmed, world.half_open);
    assert!(world.confirmed.is_empty() || world.half_open.is_empty(), "{what}: halves in two tables");
    assert_eq!((world.admitted, world.started), (1, 1), "{what}: counted or told more than once");
    for (key, flow) in world.confirmed.iter().chain(&world.half_open) {
        let other = flow.other_key(key.protocol);
        assert!(world.confirmed.contains_key(&other) || world.half_open.contains_key(&other), "{what}");
    }
}

/// `first`, with `second` in between at every place there is; packets are named by whether they answer, and by their flags.
fn confirmed_at_once<F: Twin>(masquerade: bool, first: (bool, Option<u8>), second: (bool, Option<u8>)) {
    let tcp = first.1.is_some();
    for number in 0.. {
        let what = std::format!("{first:?}, {second:?}, {number}");
        let mut world = World::<F>::new(masquerade);
        let mut opening = world.there(tcp.then_some(SYN));
        assert_eq!(world.judge(Side::Overlay, &mut opening, 100), Verdict::Site(SITE));
        let mut answer = world.answer(&opening, tcp.then_some(SYN | ACK));
        assert_eq!(world.judge(Side::Site, &mut answer, 101), Verdict::Overlay);
        assert_eq!(world.half_open.len(), 2, "an answer alone has confirmed the flow");
        let packet = |world: &World<F>, (answers, flags): (bool, Option<u8>)| {
            if answers {
                (Side::Site, Verdict::Overlay, world.answer(&opening, flags))
            } else {
                (Side::Overlay, Verdict::Site(SITE), world.there(flags))
            }
        };
        let (second_side, second_verdict, bytes) = packet(&world, second);
        let other = interrupt(&mut world, number, second_side, bytes);
        let (side, verdict, mut bytes) = packet(&world, first);
        assert_eq!(world.judge(side, &mut bytes, 103), verdict, "{what}");
        if world.is_undisturbed() {
            assert!(number > 3, "the tables were hardly used");
            return;
        }
        let (said, seen) = other.take().unwrap();
        assert_eq!(said, second_verdict, "{what}");
        for (answers, packet) in [(first.0, &bytes), (second.0, &seen)] {
            if !answers {
                assert_eq!(port::<F>(packet), port::<F>(&opening), "{what}: another port");
            }
        }
        is_one_flow(&world, &what);
    }
}

#[test]
fn a_flow_that_another_processor_confirms_is_not_opened_again() {
    for masquerade in [true, false] {
        for second in [false, true] {
            confirmed_at_once::<V4>(masquerade, (false, None), (second, None));
            confirmed_at_once::<V6>(masquerade, (false, None), (second, None));
            confirmed_at_once::<V4>(masquerade, (true, None), (false, None));
            confirmed_at_once::<V6>(masquerade, (true, None), (false, None));
            confirmed_at_once::<V4>(masquerade, (false, Some(ACK)), (second, Some(ACK)));
            confirmed_at_once::<V6>(masquerade, (false, Some(ACK)), (second, Some(ACK)));
            confirmed_at_once::<V4>(masquerade, (true, Some(ACK)), (false, Some(ACK)));
            confirmed_at_once::<V6>(masquerade, (true, Some(ACK)), (false, Some(ACK)));
            confirmed_at_once::<V4>(masquerade, (false, Some(FIN | ACK)), (false, Some(ACK)));
        }
    }
}

fn opened_at_once<F: Twin>(masquerade: bool, flags: Option<u8>) {
    for number in 0.. {
        let what = std::format!("masquerade {masquerade}, {flags:?}, {number}");
        let mut world = World::<F>::new(masquerade);
        let second = world.there(flags);
        let other = interrupt(&mut world, number, Side::Overlay, second);
        let mut first = world.there(flags);
        assert_eq!(world.judge(Side::Overlay, &mut first, 103), Verdict::Site(SITE), "{what}");
        if world.is_undisturbed() {
            assert!(number > 3, "the tables were hardly used");
            return;
        }
        let (said, second) = other.take().unwrap();
        assert_eq!(said, Verdict::Site(SITE), "{what}");
        assert_eq!(port::<F>(&first), port::<F>(&second), "{what}: they left by two ports");
        is_one_flow(&world, &what);
        let mut answer = world.answer(&first, flags.map(|_| SYN | ACK));
        assert_eq!(world.judge(Side::Site, &mut answer, 104), Verdict::Overlay, "{what}");
    }
}

#[test]
fn two_first_packets_at_once_open_one_flow() {
    for masquerade in [true, false] {
        for flags in [None, Some(SYN)] {
            opened_at_once::<V4>(masquerade, flags);
            opened_at_once::<V6>(masquerade, flags);
        }
    }
}

fn begun_at_once<F: Twin>() {
    for number in 0.. {
        let mut world = World::<F>::new(true);
        let whole = world.there(None);
        let other = interrupt(&mut world, number, Side::Overlay, F::first_fragment(&whole, 3));
        let said = world.judge(Side::Overlay, &mut F::first_fragment(&whole, 2), 103);
        if world.is_undisturbed() {
            assert!(number > 3, "the tables were hardly used");
            return;
        }
        let (other, _) = other.take().unwrap();
        let passed = [said, other].into_iter().filter(|verdict| *verdict == Verdict::Site(SITE)).count();
        assert_eq!(passed, 1, "{number}: {said:?} and {other:?}");
        let lost = [said, other].into_iter().find(|verdict| *verdict != Verdict::Site(SITE)).unwrap();
        assert!(
            matches!(lost, Verdict::Drop(DropReason::Fragment | DropReason::FragmentOverlap)),
            "{number}: {lost:?}"
        );
    }
}

#[test]
fn of_two_first_fragments_at_once_one_passes() {
    begun_at_once::<V4>();
    begun_at_once::<V6>();
}
