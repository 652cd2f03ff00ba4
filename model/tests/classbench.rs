//! Images of rule sets as they are found in the field say what the oracle says.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_engine::classify::Line;
use sluicegate_engine::family::{Address4, Address6, Family, V4, V6};
use sluicegate_engine::image::{Attributes, Decision, LINE};
use sluicegate_engine::validate;
use sluicegate_model::classbench::{GATEWAY, Header, Kind, Size, Trace, state};
use sluicegate_policy::{Compiler, naive};

/// Packets of each set.
const PACKETS: usize = 12_000;

#[test]
fn images_of_field_like_rule_sets_judge_as_the_oracle() {
    let (mut packets, mut accepted, mut dropped, mut six) = (0, 0, 0, 0);
    for kind in Kind::ALL {
        for (rules, seeds) in [(20, 1..=3), (150, 4..=5), (700, 6..=6)] {
            for seed in seeds {
                let state = Arc::new(state(kind, Size::of(rules), seed));
                let image = Compiler::new(state.clone()).unwrap().compile(GATEWAY).unwrap();
                let (lines, _) = image.words.as_chunks::<LINE>();
                validate(lines).unwrap();
                let mut trace = Trace::new(&state, seed);
                let mut known = HashMap::new();
                for _ in 0..PACKETS {
                    let header = trace.next();
                    let Header { source, destination, l4 } = header;
                    let oracle = || naive::decide(&state, GATEWAY, source, destination, l4);
                    let expected = *known.entry(header).or_insert_with(oracle);
                    let judged = judge(lines, &header);
                    assert_eq!(judged, expected, "{} of {rules} rules, seed {seed}: {header:?}", kind.name());
                    packets += 1;
                    accepted += usize::from(judged.0.accepts());
                    dropped += usize::from(judged.0.is_set() && !judged.0.accepts());
                    six += usize::from(source.is_ipv6());
                }
            }
        }
    }
    println!("{packets} packets: {accepted} accepted, {dropped} dropped by a rule, {six} over IPv6");
    assert!(packets >= 200_000, "{packets}");
    assert!(
        accepted > packets / 5 && dropped > packets / 20 && six > packets / 10,
        "the trace proves too little"
    );
}

fn judge(lines: &[Line], header: &Header) -> (Decision, Attributes) {
    let judged = match (header.source, header.destination) {
        (IpAddr::V4(a), IpAddr::V4(b)) => V4::classify(lines, Address4::from(a), b.into(), header.l4),
        (IpAddr::V6(a), IpAddr::V6(b)) => V6::classify(lines, Address6::from(a), b.into(), header.l4),
        mixed => panic!("two families: {mixed:?}"),
    };
    (judged.decision, judged.attributes)
}
