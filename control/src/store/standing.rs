//! How machines stand by the posture checks that policies ask for.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use sluicegate_policy::model::PostureFailed;
use sluicegate_policy::posture::{Facts, Platform, Verdict};

use super::posture::PostureCheck;
use super::sql::{self, Connection};
use super::{NamedRef, Result, Store, facts, posture};

/// Checks with the peers they are asked of: who is a source of an accept rule that counts, or opens flows by its mirror image. Of all
/// peers, or of one.
const ASKED: &str = "
    SELECT l.check_id, m.peer_id FROM policy_posture_checks l
    JOIN policies p ON p.id = l.policy_id JOIN rules r ON r.policy_id = p.id
    JOIN rule_groups g ON g.rule_id = r.id JOIN group_peers m ON m.group_id = g.group_id
    WHERE p.enabled AND r.enabled AND r.action = 'accept' AND ($1 IS NULL OR m.peer_id = $1)
    AND (g.side = 0 OR r.bidirectional OR r.protocol IN ('all', 'icmp')
         OR (r.protocol <> 'netbird-ssh' AND r.ports = '[]' AND r.port_ranges = '[]'))
    UNION
    SELECT l.check_id, r.source_peer FROM policy_posture_checks l
    JOIN policies p ON p.id = l.policy_id JOIN rules r ON r.policy_id = p.id
    WHERE p.enabled AND r.enabled AND r.action = 'accept' AND r.source_peer IS NOT NULL
    AND ($1 IS NULL OR r.source_peer = $1)
    UNION
    SELECT l.check_id, r.destination_peer FROM policy_posture_checks l
    JOIN policies p ON p.id = l.policy_id JOIN rules r ON r.policy_id = p.id
    WHERE p.enabled AND r.enabled AND r.action = 'accept' AND r.destination_peer IS NOT NULL
    AND ($1 IS NULL OR r.destination_peer = $1)
    AND (r.bidirectional OR r.protocol IN ('all', 'icmp')
         OR (r.protocol <> 'netbird-ssh' AND r.ports = '[]' AND r.port_ranges = '[]'))";

/// A machine that fails a check that a policy asks of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failing {
    /// Peer id.
    pub peer: String,
    /// The check.
    pub check: NamedRef,
    /// What fails.
    pub verdict: Verdict,
}

impl Store {
    /// Which machines, or whether this one, fail what policies ask of them.
    pub async fn failing(&self, peer: Option<&str>) -> Result<Vec<Failing>> {
        let mut tx = self.read().await?;
        let asked: Vec<(String, String)> = sql::query_as(ASKED).bind(peer).fetch_all(&mut tx).await?;
        if asked.is_empty() {
            return Ok(Vec::new());
        }
        let checks: HashMap<String, PostureCheck> =
            posture::all(&mut tx).await?.into_iter().map(|check| (check.id.clone(), check)).collect();
        let known = facts::rows(&mut tx, peer).await?;
        let known =
            known.iter().map(|row| Ok((row.id.as_str(), row.facts()?))).collect::<Result<HashMap<_, _>>>()?;
        let mut failing = Vec::new();
        for (check, peer) in asked {
            let (Some(check), Some(facts)) = (checks.get(&check), known.get(peer.as_str())) else { continue };
            let verdict = check.checks.judge(facts);
            if !verdict.passed() {
                let check = NamedRef { id: check.id.clone(), name: check.name.clone() };
                failing.push(Failing { peer, check, verdict });
            }
        }
        failing.sort_by(|a, b| (&a.peer, &a.check.name).cmp(&(&b.peer, &b.check.name)));
        Ok(failing)
    }
}

impl Store {
    /// The executables of which something is to be known on a machine: those that checks name for its system, `os`, or, where that
    /// is empty, the one it had last.
    pub async fn watched(&self, peer: &str, os: &str) -> Result<BTreeSet<String>> {
        let mut tx = self.read().await?;
        let os = match facts::rows(&mut tx, Some(peer)).await?.pop() {
            Some(known) if os.is_empty() => known.facts()?.os,
            _ => os.to_owned(),
        };
        let Some(platform) = Platform::parse(&os) else { return Ok(BTreeSet::new()) };
        Ok(watched(&posture::all(&mut tx).await?, platform).iter().cloned().collect())
    }
}

/// The checks that policies ask of a peer.
pub(super) async fn asked_of(db: &mut Connection, peer: &str) -> Result<BTreeSet<String>> {
    let asked: Vec<(String, String)> = sql::query_as(ASKED).bind(peer).fetch_all(db).await?;
    Ok(asked.into_iter().map(|(check, _)| check).collect())
}

/// Every verdict that the compiler needs.
#[derive(Default)]
pub(super) struct Standing {
    /// The checks that policies ask for.
    checks: Vec<PostureCheck>,
    /// By check id: everybody who fails it. Whether anybody asks it of them is the compiler's to find out.
    failed: HashMap<String, PostureFailed>,
    /// By lists of check ids.
    lists: HashMap<Vec<String>, PostureFailed>,
    /// The executables that agents are to watch, by platform.
    watched: [Arc<[String]>; 3],
}

/// The platforms whose executables checks name.
const WATCHED: [Platform; 3] = [Platform::Linux, Platform::Darwin, Platform::Windows];

impl Standing {
    /// Judges every machine by every check that a policy asks for.
    pub(super) async fn load(db: &mut Connection) -> Result<Self> {
        let mut checks = posture::all(db).await?;
        if checks.is_empty() {
            return Ok(Self::default());
        }
        let linked: BTreeSet<String> = posture::links(db, None).await?.into_values().flatten().collect();
        let watched = WATCHED.map(|platform| watched(&checks, platform));
        checks.retain(|check| linked.contains(&check.id));
        let mut standing = Standing { watched, checks, ..Self::default() };
        if standing.checks.is_empty() {
            return Ok(standing);
        }
        let known = facts::rows(db, None).await?;
        let known = known.iter().map(|row| Ok((&row.id, row.facts()?))).collect::<Result<Vec<_>>>()?;
        for check in &standing.checks {
            let failed =
                known.iter().filter_map(|(peer, facts)| Some(((*peer).clone(), fails(check, facts)?)));
            standing.failed.insert(check.id.clone(), failed.collect());
        }
        Ok(standing)
    }

    /// Whether these are the checks by which machines were judged.
    pub(super) fn is_of(&self, linked: &BTreeSet<&String>) -> bool {
        self.checks.len() == linked.len() && self.checks.iter().all(|check| linked.contains(&check.id))
    }

    /// Whether any check is asked for.
    pub(super) fn asks(&self) -> bool {
        !self.checks.is_empty()
    }

    /// Judges one machine anew, or forgets one that is gone; whether any verdict is another one.
    pub(super) fn judge_again(&mut self, peer: &str, known: Option<&facts::Row>) -> Result<bool> {
        let facts = known.map(facts::Row::facts).transpose()?;
        let mut turned = false;
        for check in &self.checks {
            let why = facts.as_ref().and_then(|facts| fails(check, facts));
            turned |= self.failed.entry(check.id.clone()).or_default().set(peer, why);
        }
        if turned {
            self.lists.clear();
        }
        Ok(turned)
    }

    /// Everybody who fails one of these checks.
    pub(super) fn failed(&mut self, checks: &[String]) -> PostureFailed {
        if let Some(known) = self.lists.get(checks) {
            return known.clone();
        }
        let lists = checks.iter().filter_map(|check| self.failed.get(check));
        let failed = lists.fold(PostureFailed::default(), |all, one| all.union(one));
        self.lists.insert(checks.to_vec(), failed.clone());
        failed
    }

    /// The executables about which the agent of a machine with this system is to report. Those of checks that no policy asks for
    /// are among them, so that linking one cuts nobody off for the time that agents need to look.
    pub(super) fn watched(&self, os: &str) -> Arc<[String]> {
        let platform = Platform::parse(os).and_then(|os| WATCHED.iter().position(|known| *known == os));
        platform.map(|place| self.watched[place].clone()).unwrap_or_default()
    }
}

/// Why a machine fails a check, if it does.
fn fails(check: &PostureCheck, facts: &Facts) -> Option<String> {
    let verdict = check.checks.judge(facts);
    (!verdict.passed()).then(|| format!("{}: {verdict}", check.name))
}

fn watched(checks: &[PostureCheck], platform: Platform) -> Arc<[String]> {
    let paths: BTreeSet<&str> = checks.iter().flat_map(|check| check.checks.watched(platform)).collect();
    paths.into_iter().map(str::to_owned).collect()
}
