//! Asks a running agent over its unix socket: one HTTP/1.0 request, answered and closed.

use std::path::Path;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use crate::status::Status;

/// The status of the agent that listens on `socket`, or a sentence why there is none.
pub(super) async fn status(socket: &Path) -> Result<Status, String> {
    let path = socket.display();
    let mut stream = UnixStream::connect(socket).await.map_err(|e| match e.kind() {
        std::io::ErrorKind::PermissionDenied => format!("{path} may not be opened by this user; ask as root"),
        _ => format!(
            "no agent runs here: {path}: {e}; start it with `sluicegate-gateway run`, or name its --socket"
        ),
    })?;
    let answer =
        exchange(&mut stream).await.map_err(|e| format!("the agent behind {path} did not answer: {e}"))?;
    let (head, body) =
        answer.split_once("\r\n\r\n").ok_or_else(|| format!("what listens on {path} is no agent"))?;
    if !head.lines().next().is_some_and(|line| line.contains(" 200 ")) {
        return Err(format!("the agent behind {path} says: {}", body.trim()));
    }
    serde_json::from_str(body).map_err(|e| format!("the agent behind {path} is of another version: {e}"))
}

async fn exchange(stream: &mut UnixStream) -> std::io::Result<String> {
    stream.write_all(b"GET /v1/status HTTP/1.0\r\nHost: agent\r\n\r\n").await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
