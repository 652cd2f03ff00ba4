//! The `sluicegate-control` command.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluicegate_control::serve::{self, Options, ServeArgs};
use tracing_subscriber::EnvFilter;

/// The control service of Sluicegate.
#[derive(Parser)]
#[command(name = "sluicegate-control", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the REST API and the agents until SIGTERM or SIGINT
    Serve(ServeArgs),
}

fn main() -> ExitCode {
    let Cli { command: Command::Serve(args) } = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // Two TLS libraries could be linked in; which one counts is decided here, before anything asks. It fails only when
    // it has been decided already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    match Options::resolve(args).and_then(start) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluicegate-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(options: Options) -> anyhow::Result<()> {
    serve::run(options).await
}
