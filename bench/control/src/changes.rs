//! One change at a time: from the request to the image at the last gateway it concerns.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::account::Account;
use crate::figure::Figure;
use crate::fleet::{Concerned, Fleet};
use crate::operator::Operator;

/// DESIGN 7: a REST change is in force at one gateway, and at a thousand, within so many milliseconds.
const ONE_GATEWAY: f64 = 50.0;
const MANY_GATEWAYS: f64 = 1_000.0;
/// Between two changes, so that each is alone.
const PAUSE: Duration = Duration::from_millis(20);

/// How often control is asked whether it has compiled a change.
const LOOK: Duration = Duration::from_millis(10);

/// Durations of one kind of change.
#[derive(Default)]
struct Samples {
    answered: Vec<Duration>,
    arrived: Vec<Duration>,
}

/// Measures `count` changes of each kind.
pub(crate) async fn measure(
    account: &Account,
    operator: &Operator,
    fleet: &Fleet,
    count: usize,
    progress: &impl Fn(&str),
) -> Result<Vec<Figure>> {
    let mut random = StdRng::seed_from_u64(7);
    let (mut rule, mut member, mut everywhere) = (Samples::default(), Samples::default(), Samples::default());
    let (edited, joined) = (policies(account)?, groups(account)?);
    for number in 0..count {
        if number % 10 == 0 {
            progress(&format!("{number} of {count} changes of each kind"));
        }
        // Of each kind in turn: what disturbs one disturbs all.
        let policy = &account.policies[*edited.choose(&mut random).context("no policy leads anywhere")?];
        let port = random.random_range(10_000..20_000);
        let change = Change {
            path: format!("/api/policies/{}", policy.id),
            body: policy.body(account, port),
            concerned: Concerned::All(account.concerned_by(policy.destination)),
        };
        change.measure(operator, fleet, &mut rule).await?;

        let index = *joined.choose(&mut random).context("no group is a source")?;
        let mut group = account.groups[index].clone();
        let outside: Vec<_> = account.peers.iter().filter(|peer| !group.peers.contains(*peer)).collect();
        group.peers.insert((*outside.choose(&mut random).context("a group of every peer")?).clone());
        let change = |body| Change {
            path: format!("/api/groups/{}", group.id),
            body,
            concerned: Concerned::Some(account.concerned_by_members(index)),
        };
        change(group.body()).measure(operator, fleet, &mut member).await?;
        change(account.groups[index].body()).measure(operator, fleet, &mut Samples::default()).await?;

        let change = Change {
            path: format!("/api/policies/{}", account.everywhere.id),
            body: account.everywhere.body(account, port),
            concerned: Concerned::All(account.concerned_by(account.everywhere.destination)),
        };
        change.measure(operator, fleet, &mut everywhere).await?;
    }
    let shape = &account.shape;
    let figure = |what: &str, samples: &[Duration]| Figure::milliseconds(what, shape, samples);
    Ok(vec![
        figure("one rule edited: REST answer", &rule.answered),
        figure("one rule edited: request to the last concerned gateway", &rule.arrived)
            .p99_at_most(ONE_GATEWAY),
        figure("peer joins a group: REST answer", &member.answered),
        figure("peer joins a group: request to the last concerned gateway", &member.arrived)
            .p99_at_most(ONE_GATEWAY),
        figure("rule of every gateway edited: REST answer", &everywhere.answered),
        figure("rule of every gateway edited: request to the last gateway", &everywhere.arrived)
            .p99_at_most(MANY_GATEWAYS),
    ])
}

/// Policies that concern some gateway and have sources.
fn policies(account: &Account) -> Result<Vec<usize>> {
    let leads = |policy: &crate::account::Policy| {
        !account.groups[policy.source].peers.is_empty()
            && !account.concerned_by(policy.destination).is_empty()
    };
    let found: Vec<_> = account
        .policies
        .iter()
        .enumerate()
        .filter(|(_, policy)| leads(policy))
        .map(|(index, _)| index)
        .collect();
    ensure!(!found.is_empty(), "no policy leads from a peer to a resource: take more resources");
    Ok(found)
}

/// Groups that are sources at some gateway.
fn groups(account: &Account) -> Result<Vec<usize>> {
    let used: BTreeSet<usize> = account.policies.iter().map(|policy| policy.source).collect();
    let found: Vec<_> =
        used.into_iter().filter(|group| !account.concerned_by_members(*group).is_empty()).collect();
    ensure!(!found.is_empty(), "no group is a source: take more policies");
    Ok(found)
}

/// A change to be made.
struct Change {
    path: String,
    body: serde_json::Value,
    concerned: Concerned,
}

impl Change {
    /// Makes it, alone.
    async fn measure(&self, operator: &Operator, fleet: &Fleet, samples: &mut Samples) -> Result<()> {
        tokio::time::sleep(PAUSE).await;
        ensure!(fleet.forget() == 0, "an image of the change before came after what was taken for the last");
        let before = operator.compiled().await?;
        let begin = Instant::now();
        operator.put(&self.path, &self.body).await?;
        samples.answered.push(begin.elapsed());
        if matches!(self.concerned, Concerned::Some(_)) {
            while operator.compiled().await? == before {
                tokio::time::sleep(LOOK).await;
            }
        }
        let last =
            fleet.images(begin, &self.concerned).await.with_context(|| format!("after PUT {}", self.path))?;
        samples.arrived.extend(last);
        Ok(())
    }
}
