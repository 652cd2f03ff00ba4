//! The figures with targets: ours in XDP and in TC against everybody else, all in turn within every round.

use anyhow::Result;
use sluicegate_lab::Lab;

use crate::Effort;
use crate::account::{self, FEW, MANY};
use crate::contestant::{Contestant, Way};
use crate::figure::{Figure, Target};
use crate::programs;
use crate::traffic::Family;

/// The names of rivals in figures.
const SETS: &str = "nftables sets, conntrack, masquerade";
const NETBIRD: &str = "NetBird's ruleset";
const PLAIN: &str = "plain forwarding, no firewall";
const FLOOR: &str = "bare XDP route and redirect";

/// Every contestant of the comparison.
struct Field {
    xdp: Contestant,
    xdp_some: Contestant,
    xdp_many: Contestant,
    tc: Contestant,
    tc_some: Contestant,
    tc_many: Contestant,
    xdp_huge: Contestant,
    tc_huge: Contestant,
    netbird_few: Contestant,
    netbird_some: Contestant,
    netbird_many: Contestant,
    sets: Contestant,
    plain: Contestant,
    floor: Contestant,
}

/// Resources of the middle account.
const SOME: u32 = 100;
/// Policies of the largest account.
const HUGE: u32 = 100_000;
/// How many times fewer first packets a round has: all rounds together fit the table of unanswered flows, in which each stays for half
/// a minute.
const FEWER: u32 = 64;

impl Field {
    fn new(lab: &Lab) -> Result<Self> {
        let ours = |name, way| Contestant::new(lab, name, &way, FEW);
        let ours_with = |name, way, resources| Contestant::new(lab, name, &way, resources);
        let netbird = |name, resources| {
            Contestant::new(lab, name, &Way::Nftables(account::netbird_ruleset(resources)), resources)
        };
        Ok(Self {
            xdp: ours("xdp", Way::OursXdp(FEW))?,
            xdp_some: ours_with("xdp-some", Way::OursXdp(SOME), SOME)?,
            xdp_many: ours_with("xdp-many", Way::OursXdp(MANY), MANY)?,
            tc: ours("tc", Way::Ours(FEW))?,
            tc_some: ours_with("tc-some", Way::Ours(SOME), SOME)?,
            tc_many: ours_with("tc-many", Way::Ours(MANY), MANY)?,
            xdp_huge: ours("xdp-huge", Way::OursXdp(HUGE))?,
            tc_huge: ours("tc-huge", Way::Ours(HUGE))?,
            netbird_few: netbird("nb-few", FEW)?,
            netbird_some: netbird("nb-some", SOME)?,
            netbird_many: netbird("nb-many", MANY)?,
            sets: Contestant::new(lab, "sets", &Way::Nftables(account::expert_ruleset(FEW)), FEW)?,
            plain: ours("plain", Way::Plain)?,
            floor: ours("floor", Way::Floor)?,
        })
    }

    /// Everybody, with how many times fewer packets say the same of the slow ones.
    fn all(&mut self) -> [(&mut Contestant, u32); 14] {
        [
            (&mut self.xdp, 1),
            (&mut self.xdp_some, 1),
            (&mut self.xdp_many, 1),
            (&mut self.tc, 1),
            (&mut self.tc_some, 1),
            (&mut self.tc_many, 1),
            (&mut self.xdp_huge, 1),
            (&mut self.tc_huge, 1),
            (&mut self.netbird_few, 1),
            (&mut self.netbird_some, 8),
            (&mut self.netbird_many, 40),
            (&mut self.sets, 1),
            (&mut self.plain, 1),
            (&mut self.floor, 1),
        ]
    }
}

/// Measures every figure with a target.
pub(crate) fn measure(lab: &Lab, effort: &Effort) -> Result<Vec<Figure>> {
    eprintln!("bench: building contestants");
    let mut field = Field::new(lab)?;
    let mut figures = Vec::new();
    for family in Family::BOTH {
        figures.extend(single_runs(&mut field.tc, family, effort)?);
        for &flows in effort.flows {
            figures.extend(established(&mut field, family, flows, effort)?);
        }
        figures.extend(first_and_denied(&mut field, family, effort)?);
    }
    Ok(figures)
}

/// Measures first packets alone: our program by itself, both hooks, and the rival.
pub(crate) fn first(lab: &Lab, effort: &Effort) -> Result<Vec<Figure>> {
    let mut xdp = Contestant::new(lab, "xdp", &Way::OursXdp(FEW), FEW)?;
    let mut tc = Contestant::new(lab, "tc", &Way::Ours(FEW), FEW)?;
    let mut sets = Contestant::new(lab, "sets", &Way::Nftables(account::expert_ruleset(FEW)), FEW)?;
    let mut figures = Vec::new();
    for family in Family::BOTH {
        for contestant in [&mut xdp, &mut tc, &mut sets] {
            contestant.establish(family, account::PEERS)?;
        }
        let mut rounds: [Vec<f64>; 3] = Default::default();
        for _ in 0..effort.rounds {
            for (rounds, contestant) in rounds.iter_mut().zip([&mut xdp, &mut tc, &mut sets]) {
                rounds.push(contestant.first(family, effort.packets / FEWER)?);
            }
        }
        let [with_xdp, with_tc, with_sets] = rounds;
        figures.extend(first_figures(family, with_xdp, with_tc, with_sets));
        // Last: its flows would be half of what that table holds.
        figures.extend(single_runs(&mut tc, family, effort)?);
    }
    Ok(figures)
}

fn first_figures(family: Family, xdp: Vec<f64>, tc: Vec<f64>, sets: Vec<f64>) -> [Figure; 2] {
    let name = |hook: &str| format!("{hook}, first packets, never seen tuples, {}", family.name());
    [
        Figure::against(name("XDP"), xdp, SETS, sets.clone(), Some(Target::Times(2.5))),
        Figure::against(name("TC"), tc, SETS, sets, Some(Target::Times(2.5))),
    ]
}

fn established(field: &mut Field, family: Family, flows: u32, effort: &Effort) -> Result<Vec<Figure>> {
    eprintln!("bench: established, {flows} flows, {}", family.name());
    for (contestant, _) in field.all() {
        contestant.establish(family, flows)?;
    }
    let mut rounds: [Vec<f64>; 14] = Default::default();
    for _ in 0..effort.rounds {
        for (rounds, (contestant, fewer)) in rounds.iter_mut().zip(field.all()) {
            rounds.push(contestant.established(family, flows, effort.packets / fewer)?);
        }
    }
    let [
        xdp,
        xdp_some,
        xdp_many,
        tc,
        tc_some,
        tc_many,
        xdp_huge,
        tc_huge,
        nb_few,
        nb_some,
        nb_many,
        sets,
        plain,
        floor,
    ] = rounds;
    let what =
        |hook: &str, rest: &str| format!("{hook}, established, {flows} flows, {}, {rest}", family.name());
    let hot = |target| (flows <= 256).then_some(Target::Times(target));
    let against_sets = |hot, warm, cold| match flows {
        0..=256 => hot,
        257..=4096 => warm,
        _ => cold,
    };
    let whole = "ACL and masquerade";
    Ok(vec![
        Figure::against(
            what("XDP", whole),
            xdp.clone(),
            SETS,
            sets.clone(),
            Some(Target::Times(against_sets(4.0, 3.2, 2.5))),
        ),
        Figure::against(what("XDP", whole), xdp.clone(), PLAIN, plain.clone(), hot(2.2)),
        Figure::against(what("XDP", whole), xdp.clone(), FLOOR, floor, None),
        Figure::against(what("XDP", "10 resources"), xdp.clone(), NETBIRD, nb_few.clone(), hot(8.0)),
        Figure::against(what("XDP", "100 resources"), xdp_some, NETBIRD, nb_some.clone(), hot(45.0)),
        Figure::against(what("XDP", "1,000 resources"), xdp_many, NETBIRD, nb_many.clone(), hot(400.0)),
        // The ratio of 10 policies to 100,000: 1 / 1.03 is what is allowed.
        Figure::against(
            what("XDP", "100,000 policies"),
            xdp_huge,
            "ours with 10 policies",
            xdp,
            Some(Target::Times(1.0 / 1.03)),
        ),
        Figure::against(
            what("TC", whole),
            tc.clone(),
            SETS,
            sets,
            Some(Target::Times(against_sets(1.7, 1.5, 1.35))),
        ),
        Figure::against(what("TC", whole), tc.clone(), PLAIN, plain, hot(1.0)),
        Figure::against(what("TC", "10 resources"), tc.clone(), NETBIRD, nb_few, hot(3.8)),
        Figure::against(what("TC", "100 resources"), tc_some, NETBIRD, nb_some, hot(22.0)),
        Figure::against(what("TC", "1,000 resources"), tc_many, NETBIRD, nb_many, hot(200.0)),
        Figure::against(
            what("TC", "100,000 policies"),
            tc_huge,
            "ours with 10 policies",
            tc,
            Some(Target::Times(1.0 / 1.03)),
        ),
    ])
}

fn single_runs(ours: &mut Contestant, family: Family, effort: &Effort) -> Result<Vec<Figure>> {
    eprintln!("bench: single program runs, {}", family.name());
    ours.establish(family, account::PEERS)?;
    let mut rounds: [Vec<f64>; 3] = Default::default();
    for round in 0..effort.rounds {
        let costs = programs::round(ours, family, effort.samples, round)?;
        for (rounds, cost) in rounds.iter_mut().zip([costs.established, costs.first, costs.denied]) {
            rounds.push(cost);
        }
    }
    let [established, first, denied] = rounds;
    let name = |kind: &str| format!("program overlay_in_l2 alone, {kind} packet, {}", family.name());
    Ok(vec![
        Figure::alone(name("established"), established),
        Figure::alone(name("first"), first),
        Figure::alone(name("denied"), denied),
    ])
}

fn first_and_denied(field: &mut Field, family: Family, effort: &Effort) -> Result<Vec<Figure>> {
    eprintln!("bench: first and denied packets, {}", family.name());
    let new = effort.packets / FEWER;
    let mut rounds: [Vec<f64>; 6] = Default::default();
    for _ in 0..effort.rounds {
        rounds[0].push(field.xdp.first(family, new)?);
        rounds[1].push(field.tc.first(family, new)?);
        rounds[2].push(field.sets.first(family, new)?);
        rounds[3].push(field.xdp.denied(family, effort.packets)?);
        rounds[4].push(field.tc.denied(family, effort.packets)?);
        rounds[5].push(field.netbird_many.denied(family, effort.packets / 40)?);
    }
    let [xdp_first, tc_first, sets, xdp_denied, tc_denied, netbird] = rounds;
    let name = |hook: &str| format!("{hook}, denied packets, {}", family.name());
    let behind = "NetBird's ruleset, 1,000 resources";
    let mut figures = Vec::from(first_figures(family, xdp_first, tc_first, sets));
    figures.push(Figure::against(
        name("XDP"),
        xdp_denied,
        behind,
        netbird.clone(),
        Some(Target::Times(18.0)),
    ));
    figures.push(Figure::against(name("TC"), tc_denied, behind, netbird, None));
    Ok(figures)
}
