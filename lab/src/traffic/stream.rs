//! Clients that send numbered messages to an echo server and check what comes back.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use super::Stop;
use super::echo::WHO;
use super::report::{Counter, Report};

const TCP_MESSAGE: usize = 1024;

/// How long the rest may take to come back after the last message was sent.
const LAST_ECHOES: Duration = Duration::from_secs(5);

/// Sends one message of 1,024 bytes every `interval` over one TCP connection until `stop`, then waits for the rest to come
/// back. TCP hides lost packets; what counts is that the connection lives and every byte comes back in order.
///
/// # Errors
/// When it cannot connect within 5 seconds, or standard output is gone.
pub fn tcp_stream(to: SocketAddr, interval: Duration, stop: &Stop) -> io::Result<Report> {
    let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?.to_string();
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut greeting = String::new();
    reader.read_line(&mut greeting)?;
    println!("seen as {}", greeting.trim_end());

    let sender = {
        let (stream, stop) = (stream.try_clone()?, stop.clone());
        thread::spawn(move || send_numbered(stream, interval, &stop))
    };
    let mut counter = Counter::new(local);
    let mut message = vec![0; TCP_MESSAGE];
    let mut filled = 0;
    stream.set_read_timeout(Some(Duration::from_millis(50)))?;
    let mut stopped = None;
    let ended = loop {
        if stop.is_set() && stopped.get_or_insert_with(Instant::now).elapsed() > LAST_ECHOES {
            break "stopped, but the rest did not come back".to_owned();
        }
        counter.report.sent = counter.report.sent.max(counter.report.received);
        counter.progress()?;
        match reader.read(&mut message[filled..]) {
            Ok(0) if stop.is_set() => break "stopped".to_owned(),
            Ok(0) => break "closed by the other side".to_owned(),
            Ok(length) => filled += length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                if sender.is_finished() && !stop.is_set() {
                    break "the connection broke".to_owned();
                }
                continue;
            }
            Err(error) => break error.to_string(),
        }
        if filled == TCP_MESSAGE {
            filled = 0;
            let expected = counter.report.received + counter.report.wrong;
            if message == numbered(expected) { counter.received(1) } else { counter.report.wrong += 1 }
        }
    };
    // Ends a sender that waits for room.
    let _ = stream.shutdown(std::net::Shutdown::Both);
    counter.report.sent = sender.join().unwrap_or_default();
    counter.report.wrong +=
        counter.report.sent.saturating_sub(counter.report.received + counter.report.wrong);
    counter.finish(ended)
}

/// Sends until `stop` or an error; returns how many messages were sent whole.
fn send_numbered(mut stream: TcpStream, interval: Duration, stop: &Stop) -> u64 {
    let start = Instant::now();
    let mut sent = 0;
    while !stop.is_set() {
        if stream.write_all(&numbered(sent)).is_err() {
            return sent;
        }
        sent += 1;
        wait_for_turn(start, interval, sent);
    }
    // The server sees the end, sends back the rest, and ends too.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    sent
}

/// Message `number`: the number, then bytes that depend on it.
fn numbered(number: u64) -> Vec<u8> {
    let fill = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    number.to_be_bytes().iter().chain(fill.iter().cycle()).take(TCP_MESSAGE).copied().collect()
}

/// Sends one numbered datagram every `interval`, `count` of them or until `stop`, and counts the echoes; waits up to
/// `patience` for the last ones.
///
/// # Errors
/// When there is no route, or standard output is gone.
pub fn udp_stream(
    to: SocketAddr,
    interval: Duration,
    count: u64,
    patience: Duration,
    stop: &Stop,
) -> io::Result<Report> {
    let any: SocketAddr =
        if to.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    ask_who(&socket, patience)?;
    let mut counter = Counter::new(socket.local_addr()?.to_string());
    let mut echoes = Echoes { socket, next: 0 };
    let start = Instant::now();
    while counter.report.sent < count && !stop.is_set() {
        // A refused port is an answer too; the count tells.
        let _ = echoes.socket.send(&counter.report.sent.to_be_bytes());
        counter.report.sent += 1;
        let turn = start + interval.saturating_mul(u32::try_from(counter.report.sent).unwrap_or(u32::MAX));
        echoes.collect_until(turn, &mut counter)?;
    }
    let deadline = Instant::now() + patience;
    while counter.report.received < counter.report.sent && Instant::now() < deadline {
        let soon = Instant::now() + Duration::from_millis(10);
        echoes.collect_until(soon.min(deadline), &mut counter)?;
    }
    counter.report.wrong += counter.report.sent.saturating_sub(counter.report.received);
    counter.finish(if stop.is_set() { "stopped" } else { "done" })
}

struct Echoes {
    socket: UdpSocket,
    /// The next number that is not out of order.
    next: u64,
}

impl Echoes {
    fn collect_until(&mut self, turn: Instant, counter: &mut Counter) -> io::Result<()> {
        let mut buffer = [0; 64];
        loop {
            counter.progress()?;
            let left = turn.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.socket.set_read_timeout(Some(left))?;
            let Ok(length) = self.socket.recv(&mut buffer) else {
                if turn <= Instant::now() {
                    return Ok(());
                }
                // An ICMP error comes at once; another may come with every datagram.
                thread::sleep(Duration::from_millis(1).min(left));
                continue;
            };
            let Some(Ok(number)) =
                buffer.get(..length).map(|bytes| <[u8; 8]>::try_from(bytes).map(u64::from_be_bytes))
            else {
                continue; // a late answer to `who`
            };
            if number < self.next {
                counter.report.wrong += 1;
            } else {
                self.next = number + 1;
                counter.received(1);
            }
        }
    }
}

/// Asks the server which address it sees, and prints it. Sent again until it is answered: a first packet may be lost while
/// a neighbour is being resolved.
fn ask_who(socket: &UdpSocket, patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    let mut buffer = [0; 128];
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    while Instant::now() < deadline {
        // A refused port is reported by one of the calls; ask again.
        let _ = socket.send(WHO);
        if let Ok(length) = socket.recv(&mut buffer) {
            println!("seen as {}", String::from_utf8_lossy(&buffer[..length]).trim_end());
            break;
        }
    }
    Ok(())
}

fn wait_for_turn(start: Instant, interval: Duration, turn: u64) {
    let due = start + interval.saturating_mul(u32::try_from(turn).unwrap_or(u32::MAX));
    thread::sleep(due.saturating_duration_since(Instant::now()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn short() -> Stop {
        let stop = Stop::by_hand();
        let setter = stop.clone();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(100));
            setter.set();
        });
        stop
    }

    fn free(listen: &str) -> SocketAddr {
        TcpListener::bind(listen).unwrap().local_addr().unwrap()
    }

    #[test]
    fn every_message_over_tcp_comes_back_in_order() {
        for listen in ["127.0.0.1:0", "[::1]:0"] {
            let address = free(listen);
            thread::spawn(move || super::super::tcp_echo(address));
            while TcpStream::connect(address).is_err() {
                thread::yield_now();
            }
            let report = tcp_stream(address, Duration::from_millis(1), &short()).unwrap();
            assert!(report.sent > 10, "{report:?}");
            assert_eq!((report.received, report.wrong, report.ended.as_str()), (report.sent, 0, "stopped"));
        }
    }

    #[test]
    fn a_server_that_changes_bytes_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"x\n").unwrap();
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = stream.read(&mut buffer) {
                buffer[length - 1] ^= 1;
                stream.write_all(&buffer[..length]).unwrap();
            }
        });
        let report = tcp_stream(address, Duration::from_millis(1), &short()).unwrap();
        assert!(report.wrong > 0, "{report:?}");
    }

    #[test]
    fn a_connection_that_went_dead_is_reported_as_such() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"x\n").unwrap();
            stream
        });
        let report = tcp_stream(address, Duration::from_millis(10), &short()).unwrap();
        assert_eq!((report.received, report.wrong), (0, report.sent), "{report:?}");
        assert!(report.ended.contains("did not come back"), "{report:?}");
        drop(server.join());
    }

    #[test]
    fn a_datagram_that_is_not_answered_counts_as_lost() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 64];
            for turn in 0_u32.. {
                let (length, peer) = server.recv_from(&mut buffer).unwrap();
                if turn % 5 != 4 {
                    server.send_to(&buffer[..length], peer).unwrap();
                }
            }
        });
        let (interval, patience) = (Duration::from_millis(1), Duration::from_millis(200));
        let report = udp_stream(address, interval, 20, patience, &Stop::by_hand()).unwrap();
        assert_eq!((report.sent, report.received, report.wrong), (20, 16, 4), "{report:?}");
    }
}
