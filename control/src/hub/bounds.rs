//! What is kept of an agent's report: enough for every honest agent, and never what one agent could fill memory with.

use sluicegate_api::agent::{FlowList, Health};

use crate::text::printable;

/// Answers to images in one report; an agent has one or two to give.
pub(super) const ACKNOWLEDGEMENTS: usize = 64;
/// Longest text, in characters.
const TEXT: usize = 512;
/// Drop reasons: the closed list has a few dozen.
const DROPS: usize = 256;
/// Conditions a person should know of.
const DEGRADED: usize = 32;
/// Rules and links: as many as an image can have rules and an account peers.
const ENTRIES: usize = 65_536;

/// A text of an agent, short and printable.
pub(super) fn text(text: &str) -> String {
    printable(text, TEXT)
}

/// A health report with every list and text cut to its bound.
pub(super) fn health(mut health: Health) -> Health {
    health.datapath = text(&health.datapath);
    health.drops = health.drops.iter().take(DROPS).map(|(reason, count)| (text(reason), *count)).collect();
    health.rules.truncate(ENTRIES);
    health.rules.shrink_to_fit();
    health.degraded = health.degraded.iter().take(DEGRADED).map(|sentence| text(sentence)).collect();
    health.links.truncate(ENTRIES);
    health.links.shrink_to_fit();
    for link in &mut health.links {
        link.peer_id = printable(&link.peer_id, 64);
        link.endpoint = printable(&link.endpoint, 64);
    }
    health
}

/// A list of flows with no more of them than was asked for, and what names them short.
pub(super) fn flow_list(mut list: FlowList, most: u32) -> FlowList {
    list.flows.truncate(most as usize);
    list.flows.shrink_to_fit();
    list.live = list.live.max(list.flows.len() as u64);
    list.rules.truncate(ENTRIES);
    list.rules.shrink_to_fit();
    for rule in &mut list.rules {
        rule.policy_id = printable(&rule.policy_id, 64);
        rule.rule_id = printable(&rule.rule_id, 64);
    }
    list
}

#[cfg(test)]
mod tests {
    use sluicegate_api::agent::LinkState;

    use super::*;

    #[test]
    fn a_report_is_cut_to_its_bounds_and_an_honest_one_stays_as_it_is() {
        let honest = Health {
            datapath: "ebpf".into(),
            drops: [("no_rule".to_owned(), 7)].into(),
            degraded: vec!["no BTF".into()],
            links: vec![LinkState {
                peer_id: "p".into(),
                endpoint: "[2001:db8::1]:51820".into(),
                ..Default::default()
            }],
            ..Health::default()
        };
        assert_eq!(health(honest.clone()), honest);

        let huge = Health {
            datapath: "x".repeat(1 << 20),
            drops: (0..10_000).map(|i| (format!("{i}{}", "y".repeat(1000)), 1)).collect(),
            degraded: vec!["z".repeat(1 << 16); 100],
            links: vec![LinkState { endpoint: "e".repeat(1 << 16), ..Default::default() }; 10],
            ..Health::default()
        };
        let kept = health(huge);
        assert_eq!((kept.datapath.len(), kept.drops.len(), kept.degraded.len()), (TEXT, DROPS, DEGRADED));
        assert!(kept.drops.keys().chain(&kept.degraded).all(|text| text.len() <= TEXT));
        assert!(kept.links.iter().all(|link| link.endpoint.len() == 64));
    }
}
