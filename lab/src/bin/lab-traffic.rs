//! Traffic that can be counted: servers and clients for the lab.

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use sluicegate_lab::traffic::{self, Stop};

/// Servers and clients whose traffic can be counted. Clients write JSON lines and end when their standard input does.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// TCP server: tells the client its address, then sends back what comes
    TcpEcho {
        /// Address to listen on
        listen: SocketAddr,
    },
    /// UDP server: sends back what comes, or its address to a client that asks `who`
    UdpEcho {
        /// Address to listen on
        listen: SocketAddr,
    },
    /// HTTP server: /, /stream and /metrics
    Web {
        /// Address to listen on
        listen: SocketAddr,
        /// Name in its answers
        #[arg(long, default_value = "web")]
        name: String,
    },
    /// Numbered messages over one TCP connection to an echo server
    TcpStream {
        /// The server
        to: SocketAddr,
        /// Milliseconds between two messages
        #[arg(long, default_value_t = 5)]
        interval_ms: u64,
    },
    /// Numbered datagrams to an echo server
    UdpStream {
        /// The server
        to: SocketAddr,
        /// Microseconds between two datagrams
        #[arg(long, default_value_t = 5000)]
        interval_us: u64,
        /// Datagrams to send
        #[arg(long, default_value_t = u64::MAX)]
        count: u64,
        /// Milliseconds to wait for the last echoes
        #[arg(long, default_value_t = 1000)]
        patience_ms: u64,
    },
    /// HTTP download that tells when the last byte came
    Download {
        /// The server
        to: SocketAddr,
        /// What to ask for
        #[arg(long, default_value = "/stream")]
        path: String,
    },
}

fn main() -> anyhow::Result<()> {
    let command = Args::parse().command;
    match command {
        Command::TcpEcho { listen } => traffic::tcp_echo(listen)?,
        Command::UdpEcho { listen } => traffic::udp_echo(listen)?,
        Command::Web { listen, name } => traffic::web(listen, &name)?,
        Command::TcpStream { to, interval_ms } => {
            traffic::tcp_stream(to, Duration::from_millis(interval_ms), &Stop::at_end_of_stdin())
                .map(drop)?;
        }
        Command::UdpStream { to, interval_us, count, patience_ms } => {
            let (interval, patience) =
                (Duration::from_micros(interval_us), Duration::from_millis(patience_ms));
            // One that ends by itself may be run without anybody at its standard input.
            let stop = if count == u64::MAX { Stop::at_end_of_stdin() } else { Stop::by_hand() };
            traffic::udp_stream(to, interval, count, patience, &stop).map(drop)?;
        }
        Command::Download { to, path } => traffic::download(to, &path, &Stop::at_end_of_stdin()).map(drop)?,
    }
    Ok(())
}
