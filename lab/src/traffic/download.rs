//! A download that tells when the last byte came.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::Stop;
use super::report::{Counter, Report};

/// Reads `GET path` of the HTTP server at `to` until it ends or `stop`. Bytes are counted from the first of the headers on.
///
/// # Errors
/// When it cannot connect within 5 seconds, or standard output is gone.
pub fn download(to: SocketAddr, path: &str, stop: &Stop) -> io::Result<Report> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n")?;
    let mut counter = Counter::new(stream.local_addr()?.to_string());
    let mut buffer = vec![0; 65536];
    let ended = loop {
        counter.progress()?;
        match stream.read(&mut buffer) {
            Ok(0) => break "closed by the other side".to_owned(),
            Ok(length) => counter.received(u64::try_from(length).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(error) => break error.to_string(),
        }
        if stop.is_set() {
            break "stopped".to_owned();
        }
    };
    counter.finish(ended)
}
