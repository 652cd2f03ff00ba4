//! A web server: who is asking, a download without end, and metrics.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use super::echo::canonical;

/// Serves `GET /` (names the server and the client's address), `/stream` (bytes without end, about 5 MB/s) and `/metrics`.
///
/// # Errors
/// When the address cannot be listened on.
pub fn web(listen: SocketAddr, name: &str) -> io::Result<()> {
    let listener = TcpListener::bind(listen)?;
    println!("listening on {}", listener.local_addr()?);
    loop {
        let (stream, peer) = listener.accept()?;
        let (name, peer) = (name.to_owned(), canonical(peer));
        thread::spawn(move || {
            // A client that leaves ends its connection only.
            let _ = answer(stream, &name, peer);
        });
    }
}

fn answer(stream: TcpStream, name: &str, peer: SocketAddr) -> io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut header = String::new();
    while reader.read_line(&mut header)? > 2 {
        header.clear();
    }
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    println!("{path} asked for by {peer}");
    match path.as_str() {
        "/" => whole(stream, "200 OK", &format!("{name} seen {}\n", peer.ip())),
        "/metrics" => {
            let text = "# HELP site_requests_total Requests.\n# TYPE site_requests_total counter\nsite_requests_total 1\n";
            whole(stream, "200 OK", &format!("{text}# seen {}\n", peer.ip()))
        }
        "/stream" => endless(stream),
        _ => whole(stream, "404 Not Found", "not found\n"),
    }
}

fn whole(mut stream: TcpStream, status: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn endless(mut stream: TcpStream) -> io::Result<()> {
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")?;
    let block = vec![b'.'; 50_000];
    loop {
        stream.write_all(&block)?;
        thread::sleep(Duration::from_millis(10));
    }
}
