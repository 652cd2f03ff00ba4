//! Who may work a plan out now: it holds the account twice, compiled, and what gateways say of their flows.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Refusal;

/// Plans worked out at a time.
const AT_WORK: usize = 2;
/// So many more wait, each for no longer than this.
const WAITING: usize = 16;
const PATIENCE: Duration = Duration::from_secs(30);

/// The turns of those who plan.
pub(crate) struct Queue {
    places: Arc<Semaphore>,
    at_work: Arc<Semaphore>,
    made: Arc<Semaphore>,
}

/// A turn; another one's when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Turn(#[expect(dead_code, reason = "held until it is dropped")] Arc<[OwnedSemaphorePermit]>);

impl Default for Queue {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self { places: semaphore(AT_WORK + WAITING), at_work: semaphore(AT_WORK), made: semaphore(1) }
    }
}

impl Queue {
    /// The turn of a question; refused where too many wait, or for too long. Not in a unit of work, for which those at work may wait.
    pub(crate) async fn question(&self) -> Result<Turn, Refusal> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let turn = tokio::time::timeout(PATIENCE, self.at_work.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| Refusal::Busy)?.map_err(|_| Refusal::Busy)?;
        Ok(Turn([place, turn].into()))
    }

    /// The turn of whoever tells what a change did that is made: one at a time, and nobody is refused.
    pub(crate) async fn made(&self) -> Turn {
        // It is never closed.
        Turn(self.made.clone().acquire_owned().await.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn two_plan_some_wait_for_a_while_and_the_next_is_refused() {
        let queue = Arc::new(Queue::default());
        let (one, _other) = (queue.question().await.ok().unwrap(), queue.question().await.ok().unwrap());
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let queue = queue.clone();
                tokio::spawn(async move { queue.question().await.map(drop) })
            })
            .collect();
        tokio::task::yield_now().await;
        assert!(matches!(queue.question().await, Err(Refusal::Busy)));
        let _made = queue.made().await;
        let still = one.clone();
        drop(one);
        tokio::task::yield_now().await;
        assert_eq!(queue.at_work.available_permits(), 0, "somebody works for it yet");
        drop(still);
        for waits in waiting {
            waits.await.unwrap().ok().unwrap();
        }

        let _one = queue.question().await.ok().unwrap();
        assert!(matches!(queue.question().await, Err(Refusal::Busy)), "nobody waits for ever");
    }
}
