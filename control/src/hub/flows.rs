//! Which flows are live: asked from the agents that have them.

use std::sync::Arc;
use std::time::Duration;

use sluicegate_api::agent::{FlowList, FlowsQuery};
use tokio::sync::oneshot;

use super::{Hub, bounds};

/// What became of a question.
#[derive(Clone, Debug)]
pub enum Asked {
    /// Its live flows.
    Listed(Arc<FlowList>),
    /// Nothing came in time, or the stream ended meanwhile.
    Silent,
    /// Its version does not know the question.
    TooOld,
    /// It has no stream to the control that was asked.
    Away,
}

/// A question that an agent has not answered yet. Whoever asks meanwhile waits for the same answer.
pub(super) struct Asking {
    query: FlowsQuery,
    sent: bool,
    waiting: Vec<oneshot::Sender<Arc<FlowList>>>,
}

impl Asking {
    /// The question, when it is still to be sent.
    pub(super) fn unsent(&self) -> Option<FlowsQuery> {
        (!self.sent).then_some(self.query)
    }

    /// Takes note that a question was sent.
    pub(super) fn sent(&mut self, id: u64) {
        self.sent |= self.query.id == id;
    }

    /// Whether this answers it.
    pub(super) fn is_answered_by(&self, list: &FlowList) -> bool {
        self.sent && self.query.id == list.query
    }

    /// Hands the answer on.
    pub(super) fn answer(self, list: FlowList) {
        let list = Arc::new(bounds::flow_list(list, self.query.most));
        // Who asked may have given up.
        self.waiting.into_iter().for_each(|waiting| drop(waiting.send(list.clone())));
    }
}

impl Hub {
    /// Asks agents for their live flows, all at once, and waits for no longer than `patience`; an answer for each, in their order.
    /// Each lists at most `most`, and says how many it has.
    pub async fn live_flows(&self, agents: &[String], most: u32, patience: Duration) -> Vec<Asked> {
        let until = tokio::time::Instant::now() + patience;
        let asked: Vec<_> = agents.iter().map(|agent| self.ask(agent, most)).collect();
        let mut answers = Vec::with_capacity(asked.len());
        for one in asked {
            answers.push(match one {
                Err(answer) => answer,
                Ok(answer) => match tokio::time::timeout_at(until, answer).await {
                    Ok(Ok(list)) => Asked::Listed(list),
                    Ok(Err(_)) | Err(_) => Asked::Silent,
                },
            });
        }
        answers
    }

    fn ask(&self, agent: &str, most: u32) -> Result<oneshot::Receiver<Arc<FlowList>>, Asked> {
        let mut guard = self.lock();
        let inner = &mut *guard;
        let stream =
            inner.agents.get_mut(agent).and_then(|entry| entry.stream.as_mut()).ok_or(Asked::Away)?;
        if !stream.lists_flows {
            return Err(Asked::TooOld);
        }
        let (sender, receiver) = oneshot::channel();
        let going_on = stream.asking.as_mut().filter(|asking| {
            asking.query.most >= most && asking.waiting.iter().any(|waiting| !waiting.is_closed())
        });
        match going_on {
            Some(asking) => {
                asking.waiting.retain(|waiting| !waiting.is_closed());
                asking.waiting.push(sender);
            }
            None => {
                inner.next_query += 1;
                let query = FlowsQuery { id: inner.next_query, most };
                // Whoever waits for an answer to less of it still gets one.
                let waiting = stream.asking.take().map(|asking| asking.waiting).unwrap_or_default();
                let waiting = waiting.into_iter().filter(|waiting| !waiting.is_closed()).chain([sender]);
                stream.asking = Some(Asking { query, sent: false, waiting: waiting.collect() });
                stream.notify.notify_one();
            }
        }
        Ok(receiver)
    }
}
