//! Questions that replicas ask each other: which flows agents have that have their streams at another one.
//!
//! A question is a row for each agent in an unlogged table of PostgreSQL, of which `NOTIFY` tells; whoever has the agent's stream writes the
//! answer into its row and tells so. Lists of flows are far larger than a notification may be. A row lives as long as its question:
//! whoever asks removes it, and of one who is gone, the replica that leads. In SQLite there is nobody to ask.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::database::Database;
use super::sql;
use super::{Result, Store};
use crate::ids::new_id;

/// Where questions and answers are told of.
pub(super) const CHANNEL: &str = "sluicegate_flows";
/// Notes that wait for whoever is slow; a question that is missed is not answered.
pub(super) const NOTES: usize = 256;

/// What is told of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Note {
    /// It is there, by its id.
    Asked(String),
    /// A replica has answered it.
    Answered(String, String),
}

impl Note {
    pub(super) fn read(payload: &str) -> Option<Self> {
        let mut words = payload.split(' ').map(str::to_owned);
        match (words.next()?.as_str(), words.next()?, words.next()) {
            ("asked", id, None) => Some(Note::Asked(id)),
            ("answered", id, Some(replica)) => Some(Note::Answered(id, replica)),
            _ => None,
        }
    }

    fn text(&self) -> String {
        match self {
            Note::Asked(id) => format!("asked {id}"),
            Note::Answered(id, replica) => format!("answered {id} {replica}"),
        }
    }
}

/// A question that is open.
pub struct Asking {
    id: String,
    notes: broadcast::Receiver<Note>,
    /// The replicas that are to answer.
    open: BTreeSet<String>,
}

/// A question to this replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Peer ids of agents with a stream here.
    pub agents: Vec<String>,
    /// How many flows each is to list at the most.
    pub most: u32,
    /// For how much longer somebody waits.
    pub left: Duration,
}

/// What became of a question to one agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Peer id.
    pub agent: String,
    /// A word of who asks and answers for what became of it; empty when nothing came.
    pub outcome: String,
    /// Its flows, encoded.
    pub list: Vec<u8>,
}

/// The questions that are asked of this replica, among those of others.
pub struct Questions(broadcast::Receiver<Note>);

impl Questions {
    /// The id of the next question of any replica; `None` when there will be none. What was missed is passed over.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            match self.0.recv().await {
                Ok(Note::Asked(id)) => return Some(id),
                Ok(Note::Answered(..)) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Store {
    /// Asks the replicas that have streams of `agents` for their flows; `None` where no other one has any.
    pub async fn ask_elsewhere(
        &self,
        agents: &[String],
        most: u32,
        patience: Duration,
    ) -> Result<Option<Asking>> {
        let Database::Postgres { .. } = self.inner.database else { return Ok(None) };
        if agents.is_empty() {
            return Ok(None);
        }
        let notes = self.inner.shared.notes.subscribe();
        let id = new_id();
        let mut db = self.inner.database.aside(&self.inner.shared.observed).await?;
        let asked: Vec<String> = sql::query_scalar(
            "INSERT INTO flow_questions (id, agent, replica, most, until)
             SELECT $1, p.id, p.replica, $2, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + $3 FROM peers p
             WHERE p.connected AND p.replica <> '' AND p.replica <> $4 AND p.id = ANY (string_to_array($5, ' '))
             RETURNING replica",
        )
        .bind(&id)
        .bind(most)
        .bind(i64::try_from(patience.as_millis()).unwrap_or(i64::MAX))
        .bind(&self.inner.shared.id)
        .bind(agents.join(" "))
        .fetch_all(&mut db)
        .await?;
        if asked.is_empty() {
            return Ok(None);
        }
        self.tell(&mut db, &Note::Asked(id.clone())).await?;
        db.commit().await?;
        Ok(Some(Asking { id, notes, open: asked.into_iter().collect() }))
    }

    /// Waits until every replica has answered, and no longer than until then; what each agent was asked came to.
    pub async fn answers(&self, mut asking: Asking, until: Instant) -> Result<Vec<Answer>> {
        while !asking.open.is_empty() {
            match tokio::time::timeout_at(until, asking.notes.recv()).await {
                Ok(Ok(Note::Answered(id, replica))) if id == asking.id => drop(asking.open.remove(&replica)),
                Ok(Ok(_)) => {}
                // Somebody's answer may be among what was missed: it is looked for when the time is over.
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) | Err(_) => break,
            }
        }
        let mut db = self.writer().await?;
        let rows: Vec<(String, String, Vec<u8>)> =
            sql::query_as("DELETE FROM flow_questions WHERE id = $1 RETURNING agent, outcome, list")
                .bind(&asking.id)
                .fetch_all(&mut db)
                .await?;
        Ok(rows.into_iter().map(|(agent, outcome, list)| Answer { agent, outcome, list }).collect())
    }

    /// The questions that replicas ask from now on.
    pub fn questions(&self) -> Questions {
        Questions(self.inner.shared.notes.subscribe())
    }

    /// What a question asks of this replica, if anything.
    pub async fn question(&self, id: &str) -> Result<Option<Question>> {
        let rows: Vec<(String, i64, i64)> = sql::query_as(
            "SELECT agent, most, until - (extract(epoch FROM clock_timestamp()) * 1000)::bigint FROM flow_questions
             WHERE id = $1 AND replica = $2 AND outcome = '' ORDER BY agent",
        )
        .bind(id)
        .bind(&self.inner.shared.id)
        .fetch_all(&mut self.reader().await?)
        .await?;
        let Some((_, most, left)) = rows.first() else { return Ok(None) };
        let (most, left) =
            (u32::try_from(*most).unwrap_or_default(), u64::try_from(*left).unwrap_or_default());
        let agents = rows.into_iter().map(|(agent, ..)| agent).collect();
        Ok(Some(Question { agents, most, left: Duration::from_millis(left) }))
    }

    /// Answers a question for some of its agents. Where nobody waits any more, nothing is written.
    pub async fn answer(&self, id: &str, answers: &[Answer]) -> Result<()> {
        let mut db = self.inner.database.aside(&self.inner.shared.observed).await?;
        for Answer { agent, outcome, list } in answers {
            sql::query(
                "UPDATE flow_questions SET outcome = $1, list = $2 WHERE id = $3 AND agent = $4 AND replica = $5",
            )
            .bind(outcome)
            .bind(&list[..])
            .bind(id)
            .bind(agent)
            .bind(&self.inner.shared.id)
            .execute(&mut db)
            .await?;
        }
        db.commit().await
    }

    /// Says that a question has all its answers of this replica.
    pub async fn answered(&self, id: &str) -> Result<()> {
        let mut db = self.writer().await?;
        self.tell(&mut db, &Note::Answered(id.to_owned(), self.inner.shared.id.clone())).await
    }

    /// Answers a question, if it is one to this replica, for all its agents by the same word.
    pub async fn refuse(&self, id: &str, outcome: &str) -> Result<()> {
        let refused = sql::query(
            "UPDATE flow_questions SET outcome = $1 WHERE id = $2 AND replica = $3 AND outcome = ''",
        )
        .bind(outcome)
        .bind(id)
        .bind(&self.inner.shared.id)
        .execute(&mut self.writer().await?)
        .await?;
        if refused.rows_affected() > 0 { self.answered(id).await } else { Ok(()) }
    }

    async fn tell(&self, db: &mut sql::Connection, note: &Note) -> Result<()> {
        sql::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(note.text()).execute(db).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_as_they_are_written_and_nothing_else_is_one() {
        for note in [Note::Asked("q".into()), Note::Answered("q".into(), "r".into())] {
            assert_eq!(Note::read(&note.text()), Some(note));
        }
        for other in ["", "asked", "asked q r", "answered q", "42", "told q"] {
            assert_eq!(Note::read(other), None, "{other:?}");
        }
    }
}
