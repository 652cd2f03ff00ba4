//! Which flows agents have, wherever their streams are: those of other replicas are asked by way of the store.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use prost::Message;
use sluicegate_api::agent::FlowList;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::{Asked, Hub};
use crate::store::{Answer, Store, StoreError};

/// What is left of the patience of whoever asks for the answers' way through the store: a list has up to 1.6 MB.
const WAY: Duration = Duration::from_millis(400);
/// Questions of others that are answered at a time; as many plans are worked out by two replicas. To further ones the answer is that.
const AT_ONCE: usize = 4;

/// What became of a question, in the words between replicas.
const LISTED: &str = "listed";
const SILENT: &str = "silent";
const TOO_OLD: &str = "too old";
const AWAY: &str = "away";
const BUSY: &str = "busy";

/// Answers that are written at once, of those that have come by then.
const WRITTEN: usize = 16;

impl Hub {
    /// As [`Hub::live_flows`], also of agents that have their streams at other replicas: no longer than `patience` as well.
    pub async fn live_flows_anywhere(
        &self,
        store: &Store,
        agents: &[String],
        most: u32,
        patience: Duration,
    ) -> Vec<Asked> {
        let until = Instant::now() + patience;
        let (here, others): (Vec<String>, Vec<String>) =
            agents.iter().cloned().partition(|agent| self.connected(agent));
        let elsewhere = async {
            match tokio::time::timeout_at(until, ask(store, &others, most, patience, until)).await {
                Ok(Ok(answers)) => answers,
                Ok(Err(error)) => {
                    tracing::warn!(%error, "other replicas could not be asked which flows their agents have");
                    unheard(&others)
                }
                Err(_) => unheard(&others),
            }
        };
        let (near, mut far) = tokio::join!(self.live_flows(&here, most, patience), elsewhere);
        far.extend(here.into_iter().zip(near));
        agents.iter().map(|agent| far.remove(agent).unwrap_or(Asked::Away)).collect()
    }

    /// Answers what other replicas ask of agents with a stream here. It ends with the store.
    pub(crate) async fn keep_answering(self: Arc<Self>, store: Store) {
        let mut questions = store.questions();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        while let Some(id) = questions.next().await {
            let Ok(turn) = turns.clone().try_acquire_owned() else {
                if let Err(error) = store.refuse(&id, BUSY).await {
                    tracing::warn!(%error, "another replica asked while others did, and could not be told so");
                }
                continue;
            };
            let (hub, store) = (self.clone(), store.clone());
            tokio::spawn(async move {
                let _turn = turn;
                if let Err(error) = hub.answer(&store, &id).await {
                    tracing::warn!(%error, "another replica asked which flows agents have, and could not be answered");
                }
            });
        }
    }

    async fn answer(&self, store: &Store, id: &str) -> Result<(), StoreError> {
        let Some(question) = store.question(id).await? else { return Ok(()) };
        let patience = question.left.saturating_sub(WAY);
        let most = question.most;
        let asked: FuturesUnordered<_> = (question.agents.into_iter())
            .map(async |agent| {
                let asked = self.live_flows(std::slice::from_ref(&agent), most, patience).await.pop();
                written(agent, asked.unwrap_or(Asked::Silent))
            })
            .collect();
        // One that is silent does not hold up what others said.
        let mut answers = asked.ready_chunks(WRITTEN);
        while let Some(some) = answers.next().await {
            store.answer(id, &some).await?;
        }
        store.answered(id).await
    }
}

fn written(agent: String, asked: Asked) -> Answer {
    let (outcome, list) = match asked {
        Asked::Listed(list) => (LISTED, list.encode_to_vec()),
        Asked::Silent => (SILENT, Vec::new()),
        Asked::TooOld => (TOO_OLD, Vec::new()),
        Asked::Away => (AWAY, Vec::new()),
    };
    Answer { agent, outcome: outcome.to_owned(), list }
}

/// By agent; of those that no replica has, nothing.
async fn ask(
    store: &Store,
    agents: &[String],
    most: u32,
    patience: Duration,
    until: Instant,
) -> Result<HashMap<String, Asked>, StoreError> {
    let Some(asking) = store.ask_elsewhere(agents, most, patience).await? else { return Ok(HashMap::new()) };
    // The answers are still to be read.
    let answers = store.answers(asking, until - WAY / 4).await?;
    Ok(answers.into_iter().map(|answer| (answer.agent.clone(), read(&answer))).collect())
}

fn read(answer: &Answer) -> Asked {
    match (answer.outcome.as_str(), FlowList::decode(&answer.list[..])) {
        (LISTED, Ok(list)) => Asked::Listed(Arc::new(list)),
        (TOO_OLD, _) => Asked::TooOld,
        (AWAY, _) => Asked::Away,
        _ => Asked::Silent,
    }
}

fn unheard(agents: &[String]) -> HashMap<String, Asked> {
    agents.iter().map(|agent| (agent.clone(), Asked::Silent)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        let answer = |outcome: &str, list: &[u8]| {
            read(&Answer { agent: "a".into(), outcome: outcome.into(), list: list.into() })
        };
        let list = FlowList { live: 3, ..FlowList::default() };
        assert!(matches!(answer(LISTED, &list.encode_to_vec()), Asked::Listed(read) if *read == list));
        assert!(matches!(answer(TOO_OLD, &[]), Asked::TooOld));
        assert!(matches!(answer(AWAY, &[]), Asked::Away));
        for (outcome, list) in [("", &[][..]), (SILENT, &[]), ("what", &[]), (LISTED, &[0xff; 9])] {
            assert!(matches!(answer(outcome, list), Asked::Silent), "{outcome:?}");
        }
    }
}
