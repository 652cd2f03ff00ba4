//! Operators reading while another one changes policies: how long each kind of request takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::account::Account;
use crate::figure::Figure;
use crate::operator::Operator;

/// Operators that read, each its next request as soon as it has the answer.
const READERS: u64 = 4;
/// The one that writes makes a change this often.
const CHANGE_EVERY: Duration = Duration::from_millis(100);

type Samples = BTreeMap<&'static str, Vec<Duration>>;

/// Lets them work for that long.
pub(crate) async fn measure(account: &Account, operator: &Operator, length: Duration) -> Result<Vec<Figure>> {
    let until = Instant::now() + length;
    let readers = (0..READERS).map(|seed| read(account, operator, until, seed));
    let (written, read) = tokio::join!(write(account, operator, until), try_join_all(readers));
    let mut samples = written?;
    for (what, mut more) in read?.into_iter().flatten() {
        samples.entry(what).or_default().append(&mut more);
    }
    Ok(samples.iter().map(|(what, samples)| Figure::milliseconds(*what, &account.shape, samples)).collect())
}

async fn read(account: &Account, operator: &Operator, until: Instant, seed: u64) -> Result<Samples> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut samples = Samples::new();
    while Instant::now() < until {
        let (what, path) = match random.random_range(0..100) {
            0 => ("under load: GET /api/peers, all", "/api/peers".to_owned()),
            1..3 => ("under load: GET /api/policies, all", "/api/policies".to_owned()),
            3..35 => (
                "under load: GET /api/peers/ID",
                format!("/api/peers/{}", account.peers.choose(&mut random).context("no peer")?),
            ),
            35..70 => ("under load: GET /api/policies/ID", {
                format!("/api/policies/{}", account.policies.choose(&mut random).context("no policy")?.id)
            }),
            _ => (
                "under load: GET /api/groups/ID",
                format!("/api/groups/{}", account.groups.choose(&mut random).context("no group")?.id),
            ),
        };
        let begin = Instant::now();
        operator.get(&path).await?;
        samples.entry(what).or_default().push(begin.elapsed());
    }
    Ok(samples)
}

async fn write(account: &Account, operator: &Operator, until: Instant) -> Result<Samples> {
    let mut random = StdRng::seed_from_u64(99);
    let mut samples = Samples::new();
    while Instant::now() < until {
        let policy = account.policies.choose(&mut random).context("no policy")?;
        let body = policy.body(account, random.random_range(20_000..30_000));
        let begin = Instant::now();
        operator.put(&format!("/api/policies/{}", policy.id), &body).await?;
        samples.entry("under load: PUT /api/policies/ID").or_default().push(begin.elapsed());
        tokio::time::sleep(CHANGE_EVERY.saturating_sub(begin.elapsed())).await;
    }
    Ok(samples)
}
