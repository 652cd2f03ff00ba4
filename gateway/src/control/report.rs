//! Sends reports while there is a connection.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::sync::FromControl;
use super::{Client, Outbox, reason};

/// Time between reports when nothing is urgent.
const INTERVAL: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);

/// Reports for as long as the agent lives: acknowledgements at once, the rest once a second. Each report that arrives
/// is told to the agent, since it is word from control.
pub async fn report(
    outbox: Arc<Outbox>,
    mut client: watch::Receiver<Option<Client>>,
    agent: mpsc::Sender<FromControl>,
) {
    loop {
        let connected = match client.wait_for(Option::is_some).await {
            Ok(connected) => connected.clone(),
            Err(_) => return,
        };
        let Some(mut connected) = connected else { continue };
        if !outbox.crowded() {
            tokio::select! {
                () = outbox.urgent() => {}
                () = tokio::time::sleep(INTERVAL) => {}
            }
        }
        let report = outbox.take();
        let sent = tokio::time::timeout(PATIENCE, connected.report(report.clone())).await;
        let why = match sent {
            Ok(Ok(_)) => {
                if agent.send(FromControl::Heard).await.is_err() {
                    return;
                }
                continue;
            }
            Ok(Err(status)) => reason(&status),
            Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
        };
        tracing::debug!("a report did not arrive: {why}");
        outbox.put_back(report);
        tokio::time::sleep(INTERVAL).await;
    }
}
