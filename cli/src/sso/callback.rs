//! The little server that the browser comes back to.

use std::time::Duration;

use reqwest::Url;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Where the provider sends the browser.
pub(super) const PATH: &str = "/callback";
/// How long one connection may take; others wait for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest head of a request that is read, in bytes.
const HEAD_MAX: usize = 16 * 1024;

/// The code of the first answer that bears `state`, or the provider's error. Whatever else comes is turned away.
pub(super) async fn code(listener: &TcpListener, state: &str) -> Result<String, String> {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        let Ok(Some(head)) = tokio::time::timeout(PATIENCE, head(&mut stream)).await else { continue };
        let answer = read(&head, state);
        let (status, text) = match &answer {
            Some(Ok(_)) => ("200 OK", "You are logged in. This window can be closed."),
            Some(Err(_)) => ("200 OK", "The login was refused. The command line says why."),
            None => ("400 Bad Request", "This is no answer to a login that was begun here."),
        };
        let response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        // The browser may be gone by now; what it brought counts.
        let _ = tokio::time::timeout(PATIENCE, stream.write_all(response.as_bytes())).await;
        if let Some(answer) = answer {
            return answer;
        }
    }
}

/// A request up to the empty line; none when it is too long or cut.
async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut chunk = [0; 1024];
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let read = stream.read(&mut chunk).await.ok()?;
        if read == 0 || head.len() + read > HEAD_MAX {
            return None;
        }
        head.extend_from_slice(&chunk[..read]);
    }
    String::from_utf8(head).ok()
}

/// What a request brings, if it is an answer to the login with this state.
fn read(head: &str, state: &str) -> Option<Result<String, String>> {
    let target = head.lines().next()?.strip_prefix("GET ")?.split(' ').next()?;
    let url = Url::parse("http://127.0.0.1").ok()?.join(target).ok()?;
    if url.path() != PATH {
        return None;
    }
    let value = |wanted: &str| {
        let mut values = url.query_pairs().filter(|(name, _)| name == wanted).map(|(_, value)| value);
        values.next().map(|value| value.into_owned()).filter(|_| values.next().is_none())
    };
    if value("state")? != state {
        return None;
    }
    match (value("code"), value("error")) {
        (Some(code), None) => Some(Ok(code)),
        (_, Some(error)) => Some(Err(error)),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_the_own_login_counts() {
        let read = |target: &str| read(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), "mine");
        assert_eq!(read("/callback?code=c%2F1&state=mine"), Some(Ok("c/1".into())));
        assert_eq!(read("/callback?error=access_denied&state=mine"), Some(Err("access_denied".into())));
        for other in [
            "/callback?code=c&state=yours",
            "/callback?code=c",
            "/callback?code=c&state=yours&state=mine",
            "/callback?code=a&code=b&state=mine",
            "/callback?state=mine",
            "/favicon.ico",
            "/other?code=c&state=mine",
            "http:///",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(super::read("POST /callback?code=c&state=mine HTTP/1.1\r\n\r\n", "mine"), None);
    }
}
