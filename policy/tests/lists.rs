//! Lists of rows and columns: what several of them decide together, and that they are there at all.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::net::IpAddr;

use sluicegate_engine::image::{Decision, LINE, LIST_MAX, header};
use sluicegate_engine::{InvalidImage, validate};
use sluicegate_policy::model::*;
use sluicegate_policy::naive;
use support::*;

/// Peer `pa` is in every group, `pb` to `pe` in one each; the first resource holds the others, in both families.
fn crossing(rules: impl Fn(usize) -> Rule) -> State {
    let mut state = world();
    add_network(
        &mut state,
        "n",
        &[
            ("site", &["10.0.0.0/8", "fd01::/16"]),
            ("floor", &["10.1.0.0/16", "fd01:1::/32"]),
            ("host", &["10.1.2.3/32", "fd01:1::5/128"]),
        ],
        &[("pf", 1)],
    );
    for (i, id) in ["ga", "gb", "gc", "gd"].into_iter().enumerate() {
        add_group(&mut state, id, &["pa", PEERS[1 + i]], &[]);
    }
    for i in 0..4 {
        add_policy(&mut state, &format!("policy{i}"), vec![rules(i)]);
    }
    state
}

/// The one image of the router with everything apart, which agrees with the naive model on ports 70 to 99.
fn apart_and_agreed(state: &State) -> Vec<u32> {
    let image = compiler(state).with_limits(apart(0)).compile("pf").unwrap();
    assert_eq!(validate(image.words.as_chunks().0), Ok(()));
    for (id, peer) in &state.peers {
        for (source, ends) in [
            (IpAddr::V4(peer.v4), ["10.1.2.3", "10.1.9.9", "10.9.9.9", "11.0.0.1"]),
            (IpAddr::V6(peer.v6), ["fd01:1::5", "fd01:1::9", "fd01:9::9", "fd02::1"]),
        ] {
            for (end, port) in ends.into_iter().flat_map(|end| (70..100).map(move |port| (end, port))) {
                let packet = (source, end.parse().unwrap(), tcp(port));
                let expected = naive::decide(state, "pf", packet.0, packet.1, packet.2);
                assert_eq!(look_up(&image, packet), expected, "{id} to {end}:{port}");
            }
        }
    }
    image.words
}

const ENDS: [&str; 4] = ["site", "floor", "host", "site"];
const GROUPS_OF: [&str; 4] = ["ga", "gb", "gc", "gd"];

#[test]
fn of_accepts_in_several_rows_and_columns_the_first_is_named() {
    // Slots fall while the order rises: what decides is the order.
    let state = crossing(|i| Rule {
        slot: 9 - i as u32,
        ..accept(
            groups(&[GROUPS_OF[i]]),
            End::Resource(ENDS[i].into()),
            ["tcp/80-90", "tcp/75-85", "all", "tcp/70-95"][i],
        )
    });
    let words = apart_and_agreed(&state);
    assert!(words[header::ROW_LISTS_LEN] > 0 && words[header::COLUMN_LISTS_LEN] > 0);
    assert!(words[header::RANKS_LEN] >= words[header::RULE_SLOTS]);
}

#[test]
fn a_drop_in_one_row_beats_accepts_in_others_before_and_after_it() {
    for dropping in 0..4 {
        let state = crossing(|i| Rule {
            action: if i == dropping || i == 3 { Action::Drop } else { Action::Accept },
            slot: (i as u32 * 7 + 3) % 11,
            ..accept(
                groups(&[GROUPS_OF[i]]),
                End::Resource(ENDS[i].into()),
                ["tcp/80-90", "all", "tcp/85", "tcp/88-99"][i],
            )
        });
        apart_and_agreed(&state);
    }
}

#[test]
fn more_sets_than_a_list_holds_share_rows_and_columns() {
    let mut state = crossing(|i| accept(groups(&[GROUPS_OF[i]]), End::Resource("host".into()), "tcp/80"));
    // pa and the host are in 40 groups each, of which no two have the same other members.
    let others = |i: usize| (1..5).filter(move |bit| i & 1 << bit != 0).map(|bit| PEERS[bit]);
    for i in 0..40usize {
        let peers: Vec<&str> = ["pa"].into_iter().chain(others(i)).collect();
        add_group(&mut state, &format!("from{i}"), &peers, &[]);
        let ends: &[&str] =
            [&["host"][..], &["host", "floor"], &["host", "site"], &["host", "floor", "site"]][i % 4];
        add_group(&mut state, &format!("to{i}"), &[], ends);
        let rule =
            accept(groups(&[&format!("from{i}")]), groups(&[&format!("to{i}")]), &format!("tcp/{}", 60 + i));
        add_policy(&mut state, &format!("many{i}"), vec![Rule { slot: 100 + i as u32, ..rule }]);
    }
    let words = apart_and_agreed(&state);
    let lists =
        &words[words[header::ROW_LISTS] as usize..][..words[header::ROW_LISTS_LEN] as usize * LIST_MAX];
    let longest = lists.chunks(LIST_MAX).map(|list| list.iter().filter(|&&row| row != 0).count()).max();
    assert!(longest > Some(4), "{longest:?}");
}

#[test]
fn a_list_with_a_gap_an_unknown_row_or_no_ranks_is_refused() {
    let state = crossing(|i| accept(groups(&[GROUPS_OF[i]]), End::Resource(ENDS[i].into()), "tcp/80"));
    let words = apart_and_agreed(&state);
    let at = words[header::ROW_LISTS] as usize;
    let list =
        (0..words[header::ROW_LISTS_LEN] as usize).find(|i| words[at + i * LIST_MAX + 1] != 0).unwrap();
    let list = at + list * LIST_MAX;
    let spoilt = |index: usize, value: u32| {
        let mut words = words.clone();
        words[index] = value;
        validate(words.as_chunks().0)
    };
    assert_eq!(spoilt(list, 0), Err(InvalidImage::Reference(list)));
    assert_eq!(spoilt(list, words[header::ROWS_LEN]), Err(InvalidImage::Reference(list)));
    assert_eq!(spoilt(header::RANKS_LEN, 0), Err(InvalidImage::Ranks));
    let hosts = words[header::HOSTS4] as usize;
    let beyond = 1 << 31 | words[header::ROW_LISTS_LEN];
    assert_eq!(spoilt(hosts, beyond), Err(InvalidImage::Reference(hosts)));
    let class = words[header::CLASSES] as usize + 2;
    assert_eq!(
        spoilt(class + 1, 1 << 31 | words[header::COLUMN_LISTS_LEN]),
        Err(InvalidImage::Reference(class))
    );
    assert_eq!(
        spoilt(words[header::PAGES] as usize + 17, words[header::BLOCKS_LEN]),
        Err(InvalidImage::Reference(words[header::PAGES] as usize + 17))
    );
    // Every look-up of a pair without a rule goes through them.
    for i in 0..LINE {
        assert_eq!(spoilt(words[header::PAGES] as usize + i, 1), Err(InvalidImage::Nobody), "page 0, {i}");
        let everything = Decision::accept(1).0;
        assert_eq!(
            spoilt(words[header::BLOCKS] as usize + i, everything),
            Err(InvalidImage::Nobody),
            "block 0, {i}"
        );
    }
}
