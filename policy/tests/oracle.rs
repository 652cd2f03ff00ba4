//! The compiler against the naive model, and its promises about changes, on random states.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use sluicegate_api::image::Delta;
use sluicegate_engine::validate::validate;
use sluicegate_policy::evaluate::{self, Query, Verdict};
use sluicegate_policy::model::{Network, State};
use sluicegate_policy::naive;
use sluicegate_policy::service::Probe;
use sluicegate_policy::{Compiler, NetworkView};
use support::*;

fn agents() -> impl Iterator<Item = &'static str> {
    PEERS.into_iter().chain(["unknown"])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn compiled_images_say_what_the_naive_model_says(state in states(), packets in packets(96)) {
        let compilers = every_compiler(&state);
        for (compiler, agent) in compilers.iter().flat_map(|c| agents().map(move |agent| (c, agent))) {
            let image = compiler.compile(agent).unwrap();
            prop_assert_eq!(validate(image.words.as_chunks().0), Ok(()));
            for &packet in &packets {
                let (source, destination, l4) = packet;
                let expected = naive::decide(&state, agent, source, destination, l4);
                let seen = look_up(&image, packet);
                prop_assert_eq!(seen, expected, "{} {:?}", agent, packet);
                if seen.0.is_set() {
                    let info = image.rules.get(&seen.0.slot());
                    prop_assert_eq!(info.map(|i| i.accept), Some(seen.0.accepts()));
                }
                if let Some(route) = seen.1.route() {
                    prop_assert!(image.routes[&u32::from(route)].prefix.contains(&destination));
                }
            }
        }
    }

    #[test]
    fn the_evaluator_says_what_the_images_say(state in states(), packets in packets(64)) {
        let compiler = compiler(&state);
        for agent in agents() {
            let image = compiler.compile(agent).unwrap();
            for &packet in &packets {
                let (source, destination, l4) = packet;
                let decision = evaluate::decide(&compiler, agent, source, destination, l4);
                prop_assert_eq!(decision, look_up(&image, packet).0, "{} {:?}", agent, packet);
            }
        }
    }

    #[test]
    fn an_explanation_agrees_with_every_image_on_the_way(state in states(), packets in packets(64)) {
        let compiler = compiler(&state);
        for (source, destination, l4) in packets {
            let probe = match l4 >> 16 {
                1 => Probe::Tcp(l4 as u16),
                2 => Probe::Udp(l4 as u16),
                3 | 4 => Probe::Icmp,
                _ => Probe::Protocol(l4 as u8),
            };
            let query = Query { source: source.to_string(), destination: destination.to_string(), probe };
            let answer = evaluate::explain(&compiler, &query);
            prop_assert!(!answer.summary.is_empty());
            let l4 = probe.axis(destination);
            for judgement in &answer.judgements {
                let image = compiler.compile(&judgement.agent_id).unwrap();
                let decision = look_up(&image, (source, destination, l4)).0;
                prop_assert_eq!(judgement.accepts, decision.accepts());
                let named = judgement.rule.as_ref().map(|r| &r.rule_id);
                prop_assert_eq!(named, decision.is_set().then(|| &image.rules[&decision.slot()].rule_id));
            }
            let Some(from) = answer.source.as_ref().and_then(|s| s.peer_id.as_deref()) else { continue };
            let routes = compiler.network(from).routes;
            let around = routes.iter().filter(|r| r.prefix.contains(&destination));
            let longest = around.max_by_key(|r| r.prefix.prefix_len()).map(|r| r.prefix);
            if let Some(carrier) = &answer.carrier {
                prop_assert_eq!(Some(carrier.prefix), longest);
                let of_prefix = routes.iter().filter(|r| r.prefix == carrier.prefix).flat_map(|r| &r.routers);
                let best = of_prefix.min_by_key(|r| (r.metric, r.peer_id.clone())).unwrap();
                prop_assert_eq!((&carrier.router.peer_id[..], carrier.router.metric), (&*best.peer_id, best.metric));
                prop_assert_eq!(answer.judgements.len(), 2);
                prop_assert_eq!(&answer.judgements[1].agent_id, &carrier.router.peer_id);
            }
            let accepted = answer.judgements.len() == 2 && answer.judgements.iter().all(|j| j.accepts);
            prop_assert_eq!(answer.allowed(), accepted);
            let reasons = answer.missing.len() + answer.near_misses.len() + usize::from(answer.rule.is_some());
            prop_assert!(reasons > 0 || matches!(answer.verdict, Verdict::NotJudged | Verdict::NoRule));
        }
    }

    #[test]
    fn equal_states_compile_to_equal_images(state in states()) {
        let (one, two) = (compiler(&state), compiler(&state));
        for agent in agents().collect::<Vec<_>>().into_iter().rev() {
            prop_assert_eq!(one.compile(agent).unwrap(), two.compile(agent).unwrap());
            prop_assert_eq!(one.network(agent), two.network(agent));
        }
    }

    #[test]
    fn a_delta_leads_from_one_state_to_the_next((old, new) in changed_states()) {
        let compilers = every_compiler(&old).into_iter().zip(every_compiler(&new));
        let compilers: Vec<_> = compilers.collect();
        for ((before, after), agent) in compilers.iter().flat_map(|c| agents().map(move |agent| (c, agent))) {
            let (before, after) = (before.compile(agent).unwrap(), after.compile(agent).unwrap());
            let delta = Delta::decode(&Delta::between(&before, &after).encode()).unwrap();
            let result = before.apply(&delta).unwrap();
            prop_assert_eq!(result.hash(), after.hash());
            prop_assert_eq!(result, after);
        }
    }

    #[test]
    fn who_is_not_affected_keeps_image_and_view((old, new) in changed_states()) {
        let (before, after) = (compiler(&old), compiler(&new));
        let affected = after.affected(&before);
        for agent in agents().filter(|a| !affected.contains(*a)) {
            prop_assert_eq!(before.compile(agent).unwrap(), after.compile(agent).unwrap(), "{}", agent);
            prop_assert_eq!(before.network(agent), after.network(agent), "{}", agent);
        }
        prop_assert!(after.affected(&after).is_empty());
    }

    #[test]
    fn what_shares_parts_with_a_state_before_is_prepared_as_from_scratch((old, new) in changed_states()) {
        let (before, scratch) = (compiler(&old), compiler(&new));
        let after = Compiler::after(Arc::new(new.clone()), &before).unwrap();
        let back = Compiler::after(Arc::new(old.clone()), &after).unwrap();
        for agent in agents() {
            prop_assert_eq!(after.compile(agent).unwrap(), scratch.compile(agent).unwrap(), "{}", agent);
            prop_assert_eq!(after.network(agent), scratch.network(agent), "{}", agent);
            prop_assert_eq!(back.compile(agent).unwrap(), before.compile(agent).unwrap(), "{}", agent);
            prop_assert_eq!(back.network(agent), before.network(agent), "{}", agent);
        }
        prop_assert_eq!(after.affected(&before), scratch.affected(&before));
    }

    #[test]
    fn names_are_asked_of_routers_by_those_to_whom_they_are_opened(state in states()) {
        let compiler = compiler(&state);
        let views: BTreeMap<&str, NetworkView> = agents().map(|agent| (agent, compiler.network(agent))).collect();
        let routes = |agent: &str, network: &Network| {
            state.peers.get(agent).is_some_and(|peer| peer.allowed)
                && network.routers.values().any(|router| router.enabled && router.peers.contains(agent))
        };
        for agent in agents() {
            let view = &views[agent];
            let (mut own, mut asked) = (Vec::new(), Vec::new());
            for (network, id, resource) in
                state.networks.values().flat_map(|n| n.resources.iter().map(move |(id, r)| (n, id, r)))
            {
                let Some(name) = resource.domain.as_deref().filter(|_| resource.enabled) else { continue };
                let users = PEERS.into_iter().filter(|peer| naive::opens(&state, peer, id) && !routes(peer, network));
                if routes(agent, network) {
                    own.push((id.as_str(), name, users.collect::<Vec<_>>()));
                } else if users.into_iter().any(|user| user == agent) && PEERS.iter().any(|peer| routes(peer, network)) {
                    asked.push((id.as_str(), name));
                }
            }
            asked.retain(|(_, name)| !own.iter().any(|(_, own, _)| own == name));
            let seen = view.names.iter().map(|name| {
                let askers = name.askers.map_or(&[][..], |place| &view.askers[place]);
                let askers = askers.iter().map(|&place| &*view.peers[place as usize]).collect();
                (&*name.resource_id, name.name.as_str(), askers)
            });
            prop_assert_eq!(seen.collect::<Vec<_>>(), own, "{}", agent);
            let seen: Vec<_> = view.asked.iter().map(|asked| (&*asked.resource_id, asked.name.as_str())).collect();
            prop_assert_eq!(seen, asked, "{}", agent);
            prop_assert!(view.askers.iter().all(|list| !list.is_empty() && list.is_sorted()));
            prop_assert!(view.askers.iter().enumerate().all(|(place, list)| !view.askers[..place].contains(list)));
            for asked in &view.asked {
                prop_assert!(!asked.routers.is_empty() && asked.routers.is_sorted_by_key(|r| (r.metric, &r.peer_id)));
                for router in &asked.routers {
                    let names = &views[&*router.peer_id].names;
                    prop_assert!(names.iter().any(|name| name.resource_id == asked.resource_id && name.askers.is_some()));
                    prop_assert!(view.peers.contains(&router.peer_id));
                }
            }
        }
    }

    #[test]
    fn neighbours_are_mutual_and_can_reach_what_they_are_told(state in states(), packets in packets(64)) {
        let compiler = compiler(&state);
        let view = |agent: &str| compiler.network(agent);
        for agent in PEERS {
            let mine = view(agent);
            prop_assert!(mine.peers.is_sorted() && !mine.peers.iter().any(|p| &**p == agent));
            for peer in &mine.peers {
                prop_assert!(view(peer).peers.iter().any(|p| &**p == agent), "{} and {}", agent, peer);
            }
            for route in &mine.routes {
                prop_assert!(!route.routers.is_empty());
                for router in &route.routers {
                    prop_assert!(mine.peers.contains(&router.peer_id));
                    let routed = view(&router.peer_id).routed;
                    prop_assert!(routed.iter().any(|r| (r.prefix, &r.resource_id) == (route.prefix, &route.resource_id)));
                }
            }
            // Whatever the agent may open is at a neighbour, behind one that has a route to it, or behind itself.
            for &(_, destination, l4) in &packets {
                let Some(peer) = state.peers.get(agent) else { continue };
                let source = if destination.is_ipv4() { peer.v4.into() } else { peer.v6.into() };
                if naive::decide(&state, agent, source, destination, l4).0.accepts() {
                    let owner = mine.peers.iter().any(|p| owns(&state, p, destination));
                    let routed = mine.routes.iter().any(|r| r.prefix.contains(&destination));
                    // A router of a prefix goes there by itself, through no other.
                    let own = mine.routed.iter().any(|r| r.prefix.contains(&destination));
                    prop_assert!(owner || routed || own, "{} to {}", agent, destination);
                }
            }
        }
    }
}

fn owns(state: &State, peer: &Arc<str>, address: std::net::IpAddr) -> bool {
    let peer = &state.peers[&**peer];
    address == peer.v4 || address == peer.v6
}
