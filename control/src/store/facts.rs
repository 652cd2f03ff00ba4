//! What is known of each machine, and what follows when something new is told: facts are written beside the peer, and a verdict
//! that turns by them is a change of the account, in the same transaction.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;
use sluicegate_policy::posture::{Facts, Kind, Live, Place, ProcessState, Verdict};
use sqlx::FromRow;

use super::error::{corrupt, not_found};
use super::posture::{self, PostureCheck};
use super::sql::{self, Connection};
use super::standing::asked_of;
use super::write::{Meta, Write};
use super::{Activity, Actor, PeerFacts, Result, Store, StoreError};

/// What an agent, and the connection it came by, say of a machine: all of it. What is not there is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Connection, system and versions; of these, what is empty leaves what is known.
    pub system: PeerFacts,
    /// Version of the operating system; empty leaves what is known.
    pub os_version: String,
    /// Where the connection comes from.
    pub place: Option<Place>,
    /// Addresses of its interfaces.
    pub addresses: Option<Vec<IpNet>>,
    /// How executables stand, by path.
    pub processes: BTreeMap<String, ProcessState>,
}

/// A check whose verdict on a machine is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// Name of the check.
    pub check: String,
    /// The verdict now.
    pub verdict: Verdict,
}

impl Store {
    /// Notes what a machine's agent says, and what turns by it.
    pub async fn note_facts(&self, peer: &str, told: &Told) -> Result<Vec<Turn>> {
        Ok(self.note_facts_if(peer, told, || true).await?.unwrap_or_default())
    }

    /// Notes what a machine's agent says, and what turns by it, unless something turns and `may_turn` says no: then nothing is noted,
    /// and this gives `None`.
    pub async fn note_facts_if(
        &self,
        peer: &str,
        told: &Told,
        may_turn: impl FnOnce() -> bool,
    ) -> Result<Option<Vec<Turn>>> {
        self.note(peer, |known| known.heard(told), may_turn).await
    }

    /// Notes that nothing was heard of a machine for too long: what may have changed meanwhile is not known any more.
    pub async fn note_silence(&self, peer: &str) -> Result<Vec<Turn>> {
        let silent = |known: &Row| Row { current: known.current.map(|_| false), ..known.clone() };
        Ok(self.note(peer, silent, || true).await?.unwrap_or_default())
    }

    /// Looks up where every machine is that was heard of; what turns by those that are somewhere else than was thought. One of which
    /// that cannot be noted does not keep the others: the last such error is given beside.
    pub async fn note_places(
        &self,
        place: impl Fn(IpAddr) -> Option<Place>,
    ) -> Result<(Vec<Turn>, Option<StoreError>)> {
        let rows = rows(&mut self.reader().await?, None).await?;
        let (mut turns, mut failed) = (Vec::new(), None);
        for known in rows.into_iter().filter(|row| row.current.is_some()) {
            let found = known.connection_ip.parse().ok().and_then(&place);
            if found == known.place() {
                continue;
            }
            // Told of another address meanwhile, it was looked up by whoever was told.
            let moved = |now: &Row| match now.connection_ip == known.connection_ip {
                true => now.at(found.as_ref()),
                false => now.clone(),
            };
            match self.note(&known.id, moved, || true).await {
                Ok(turned) => turns.extend(turned.unwrap_or_default()),
                Err(StoreError::NotFound { .. }) => {}
                Err(error) => failed = Some(error),
            }
        }
        Ok((turns, failed))
    }

    /// Where machines are, or this one, by peer id, as far as that is known.
    pub async fn places(&self, peer: Option<&str>) -> Result<HashMap<String, Place>> {
        let rows = rows(&mut self.reader().await?, peer).await?;
        Ok(rows.into_iter().filter_map(|row| row.place().map(|place| (row.id, place))).collect())
    }

    /// The machines that were heard of lately and have no stream to any control now.
    pub async fn heard_and_gone(&self) -> Result<Vec<String>> {
        sql::query_scalar(
            "SELECT f.peer_id FROM peer_facts f JOIN peers p ON p.id = f.peer_id WHERE f.current AND NOT p.connected
             ORDER BY f.peer_id",
        )
        .fetch_all(&mut self.reader().await?)
        .await
    }

    async fn note(
        &self,
        peer: &str,
        change: impl Fn(&Row) -> Row,
        may_turn: impl FnOnce() -> bool,
    ) -> Result<Option<Vec<Turn>>> {
        {
            let before = row(&mut self.reader().await?, peer).await?;
            if change(&before) == before {
                return Ok(Some(Vec::new()));
            }
        }
        let mut write = self.write(&Actor::system()).await?;
        let before = row(write.db(), peer).await?;
        let after = change(&before);
        if after == before {
            return Ok(Some(Vec::new()));
        }
        after.write(write.db()).await?;
        let turns = turns(&mut write, &before, &after).await?;
        if !turns.is_empty() && !may_turn() {
            return Ok(None);
        }
        write.commit().await?;
        Ok(Some(turns))
    }
}

/// What turns between two states of a machine; an event each.
async fn turns(write: &mut Write, before: &Row, after: &Row) -> Result<Vec<Turn>> {
    let asked = asked_of(write.db(), &after.id).await?;
    if asked.is_empty() {
        return Ok(Vec::new());
    }
    let (old, new) = (before.facts()?, after.facts()?);
    let mut turns = Vec::new();
    for check in posture::all(write.db()).await?.into_iter().filter(|check| asked.contains(&check.id)) {
        let PostureCheck { id, name, checks, .. } = check;
        let (was, is) = (checks.judge(&old), checks.judge(&new));
        // A machine that is heard of for the first time and fails was known to fail by nobody.
        let first = before.current.is_none() && !is.passed();
        if kinds(&was).eq(kinds(&is)) && !first {
            continue;
        }
        let activity = if is.passed() { Activity::PeerPosturePass } else { Activity::PeerPostureFail };
        let meta = Meta::name(&after.name)
            .with("posture_check", &name)
            .with("posture_check_id", &id)
            .with("before", was.to_string())
            .with("after", is.to_string());
        write.event(activity, &after.id, meta).await?;
        turns.push(Turn { check: name, verdict: is });
    }
    Ok(turns)
}

fn kinds(verdict: &Verdict) -> impl Iterator<Item = Kind> {
    verdict.failures.iter().map(|failure| failure.kind)
}

/// What is known of a machine, as one row.
macro_rules! select {
    ($of:literal) => {
        concat!(
            "SELECT p.id, p.name, p.version, p.os, p.kernel_version, p.connection_ip, f.current,
             coalesce(f.os_version, '') AS os_version, f.addresses, coalesce(f.processes, '{}') AS processes,
             coalesce(f.country_code, '') AS country_code, coalesce(f.city_name, '') AS city_name,
             coalesce(f.geoname_id, 0) AS geoname_id
             FROM peers p LEFT JOIN peer_facts f ON f.peer_id = p.id ",
            $of
        )
    };
}

/// What is known of every machine, or of one, by id.
pub(super) async fn rows(db: &mut Connection, peer: Option<&str>) -> Result<Vec<Row>> {
    match peer {
        // Two queries: one for both would look at every peer for one.
        Some(peer) => sql::query_as(select!("WHERE p.id = $1")).bind(peer).fetch_all(db).await,
        None => sql::query_as(select!("ORDER BY p.id")).fetch_all(db).await,
    }
}

async fn row(db: &mut Connection, peer: &str) -> Result<Row> {
    match rows(db, Some(peer)).await?.pop() {
        Some(row) => Ok(row),
        None => not_found("peer", peer),
    }
}

/// What is known of a machine, as the database has it.
#[derive(Clone, Debug, PartialEq, Eq, FromRow)]
pub(super) struct Row {
    pub(super) id: String,
    pub(super) name: String,
    version: String,
    os: String,
    kernel_version: String,
    connection_ip: String,
    /// `None` before anything was heard of it.
    current: Option<bool>,
    os_version: String,
    addresses: Option<String>,
    processes: String,
    country_code: String,
    city_name: String,
    geoname_id: i64,
}

impl Row {
    /// What posture checks judge it by.
    pub(super) fn facts(&self) -> Result<Facts> {
        let addresses =
            self.addresses.as_deref().map(|text| json("peer_facts.addresses", text)).transpose()?;
        let live = Live {
            connection_ip: self.connection_ip.parse().ok(),
            place: self.place(),
            addresses,
            processes: json("peer_facts.processes", &self.processes)?,
        };
        Ok(Facts {
            version: self.version.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            kernel_version: self.kernel_version.clone(),
            live: self.current.unwrap_or_default().then_some(live),
        })
    }

    fn place(&self) -> Option<Place> {
        let known = !self.country_code.is_empty();
        known.then(|| Place {
            country_code: self.country_code.clone(),
            city_name: self.city_name.clone(),
            geoname_id: u32::try_from(self.geoname_id).unwrap_or_default(),
        })
    }

    fn at(&self, place: Option<&Place>) -> Self {
        let Place { country_code, city_name, geoname_id } = place.cloned().unwrap_or_default();
        Row { country_code, city_name, geoname_id: geoname_id.into(), ..self.clone() }
    }

    fn heard(&self, told: &Told) -> Self {
        let said = |new: &String, old: &String| if new.is_empty() { old.clone() } else { new.clone() };
        let from = told.system.connection_ip.map(|address| address.to_canonical().to_string());
        // Maps of text and lists of prefixes cannot fail to serialise.
        let addresses = told.addresses.as_ref().map(|list| serde_json::to_string(list).unwrap_or_default());
        let known = Row {
            version: said(&told.system.version, &self.version),
            os: said(&told.system.os, &self.os),
            kernel_version: said(&told.system.kernel_version, &self.kernel_version),
            connection_ip: from.unwrap_or_else(|| self.connection_ip.clone()),
            current: Some(true),
            os_version: said(&told.os_version, &self.os_version),
            addresses,
            processes: serde_json::to_string(&told.processes).unwrap_or_default(),
            ..self.clone()
        };
        known.at(told.place.as_ref())
    }

    async fn write(&self, db: &mut Connection) -> Result<()> {
        sql::query(
            "UPDATE peers SET version = $1, os = $2, kernel_version = $3, connection_ip = $4 WHERE id = $5",
        )
        .bind(&self.version)
        .bind(&self.os)
        .bind(&self.kernel_version)
        .bind(&self.connection_ip)
        .bind(&self.id)
        .execute(&mut *db)
        .await?;
        sql::query(
            "INSERT INTO peer_facts (peer_id, current, os_version, addresses, processes, country_code, city_name, geoname_id)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (peer_id) DO UPDATE SET current = excluded.current,
             os_version = excluded.os_version, addresses = excluded.addresses, processes = excluded.processes,
             country_code = excluded.country_code, city_name = excluded.city_name, geoname_id = excluded.geoname_id",
        )
        .bind(&self.id)
        .bind(self.current.unwrap_or_default())
        .bind(&self.os_version)
        .bind(self.addresses.as_deref())
        .bind(&self.processes)
        .bind(&self.country_code)
        .bind(&self.city_name)
        .bind(self.geoname_id)
        .execute(db)
        .await?;
        Ok(())
    }
}

fn json<T: serde::de::DeserializeOwned>(column: &'static str, text: &str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| corrupt(column)(error.into()))
}
