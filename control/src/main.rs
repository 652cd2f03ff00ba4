//! The `sluicegate-control` command.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sluicegate_control::maintain;
use sluicegate_control::serve::{self, Data, DataArgs, Options, ServeArgs};
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

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
    /// Copies an SQLite store to a new file, while control goes on
    Backup {
        /// The file to make; it must not exist
        file: PathBuf,
        /// Where the data is.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Puts a backup in the place of an SQLite store, whose control is stopped; the store that was there is kept beside it
    Restore {
        /// A file that `backup` made
        file: PathBuf,
        /// Where the data is.
        #[command(flatten)]
        data: DataArgs,
    },
    /// Users, where nobody is left who could help by the REST API
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
}

#[derive(Subcommand)]
enum UserCommand {
    /// Asks for a new password of a built-in user and ends its logins, while control goes on; from a pipe, the first line is it
    ResetPassword {
        /// The user's e-mail address
        #[arg(long)]
        email: String,
        /// Switches one-time codes off as well
        #[arg(long)]
        totp: bool,
        /// Where the data is.
        #[command(flatten)]
        data: DataArgs,
    },
}

fn main() -> ExitCode {
    let Cli { command } = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    // Two TLS libraries could be linked in; which one counts is decided here, before anything asks. It fails only when
    // it has been decided already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();

    match start(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluicegate-control: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn start(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Serve(args) => serve::run(Options::resolve(args)?).await,
        Command::Backup { file, data } => maintain::backup(&Data::resolve(data)?, &file).await,
        Command::Restore { file, data } => maintain::restore(&Data::resolve(data)?, &file).await,
        Command::User { command: UserCommand::ResetPassword { email, totp, data } } => {
            maintain::reset_password(&Data::resolve(data)?, &email, totp).await
        }
    }
}
