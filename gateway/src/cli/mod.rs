//! The command line: verbs, exit codes, and nothing else.

mod ask;
mod person;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::config::{Common, ConfigError, Places, Role, RunFlags, Settings};
use crate::resolver::Restored;
use crate::tun::Tun;
use crate::{agent, join, resolver, system};

/// Something failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong.
const USAGE: u8 = 2;
/// No agent runs there.
const NOT_CONNECTED: u8 = 3;

/// The Sluicegate agent: a site gateway, or a peer
#[derive(Parser)]
#[command(name = "sluicegate-gateway", version)]
struct Cli {
    #[command(flatten)]
    common: Common,
    /// Log as JSON
    #[arg(long, global = true, env = "SLUICEGATE_LOG_JSON")]
    log_json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Exchange a setup key, or the login of a person, for an identity
    Join {
        /// File whose first line is KEY or KEY#sha256:FINGERPRINT
        #[arg(
            long,
            env = "SLUICEGATE_SETUP_KEY_FILE",
            value_name = "FILE",
            required_unless_present = "login"
        )]
        setup_key_file: Option<PathBuf>,
        /// Join as a machine of whoever logs in for it, with any browser or at control itself: prints what to do, and waits
        #[arg(long, conflicts_with_all = ["setup_key_file", "dns_labels"])]
        login: bool,
        /// Control's authority (its ca.pem); without it the key file must carry its fingerprint, or --fingerprint say it
        #[arg(long, env = "SLUICEGATE_CA_FILE", value_name = "FILE")]
        ca_file: Option<PathBuf>,
        /// SHA-256 of control's authority, in hexadecimal digits
        #[arg(long, value_name = "SHA256", value_parser = fingerprint, conflicts_with_all = ["ca_file", "setup_key_file"])]
        fingerprint: Option<join::Fingerprint>,
        /// What to be called [default: the host's name]
        #[arg(long, env = "SLUICEGATE_NAME")]
        name: Option<String>,
        /// DNS label to be given beside the name's, where the setup key allows it; may be given several times
        #[arg(long = "dns-label", value_name = "NAME")]
        dns_labels: Vec<String>,
        /// How to say what becomes of it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Have the user of this machine log in on it again, where the login has expired or soon will; the agent may run
    Login {
        /// How to say what becomes of it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Build the overlay and enforce policy, until stopped; the kernel goes on enforcing afterwards
    Run {
        #[command(flatten)]
        flags: Box<RunFlags>,
        /// When stopped, take the programs off the devices and delete the overlay device: nothing is enforced any more
        #[arg(long)]
        detach_on_exit: bool,
    },
    /// Say what a running agent does
    Status {
        /// How to say it
        #[arg(long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Take the programs off the devices and delete the overlay device; the agent must be stopped
    Detach,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// Why the program ends, with its exit code.
enum End {
    Failed(anyhow::Error),
    Usage(String),
    NotConnected(String),
}

impl From<anyhow::Error> for End {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ConfigError> for End {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// The program.
pub fn main() -> ExitCode {
    // Only fails when a provider is installed already, which nothing before this line does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cli = Cli::parse();
    log(cli.log_json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => return say(FAILED, &format!("the program cannot start its threads: {e}")),
    };
    let ended = runtime.block_on(dispatch(cli));
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(End::Failed(e)) => say(FAILED, &format!("{e:#}")),
        Err(End::Usage(e)) => say(USAGE, &e),
        Err(End::NotConnected(e)) => say(NOT_CONNECTED, &e),
    }
}

async fn dispatch(cli: Cli) -> Result<(), End> {
    match cli.verb {
        Verb::Join { setup_key_file, login, ca_file, fingerprint, name, dns_labels, output } => {
            let (places, _) = Places::resolve(&cli.common)?;
            let Some(control) = places.control else {
                return Err(End::Usage(
                    "which control is to be joined? say it with --control https://HOST:PORT".into(),
                ));
            };
            if login && places.role.is_none() {
                return Err(End::Usage(
                    "what is this machine to be? say it with --role peer or --role gateway".into(),
                ));
            }
            let role = places.role.unwrap_or(Role::Gateway);
            let state_dir = places.state_dir;
            let card = match setup_key_file {
                Some(setup_key_file) => {
                    let request =
                        join::Request { control, setup_key_file, ca_file, role, name, dns_labels, state_dir };
                    join::join(request).await?
                }
                None => {
                    let request = join::LoginRequest { control, ca_file, fingerprint, role, name, state_dir };
                    join::join_by_login(request, |offer| person::offer(output, offer)).await?
                }
            };
            person::joined(output, &card);
            Ok(())
        }
        Verb::Login { output } => {
            let (places, _) = Places::resolve(&cli.common)?;
            let tell = |offer: &join::Offer| person::offer(output, offer);
            let card = join::renew(&places.state_dir, places.control, tell).await?;
            person::renewed(output, &card);
            Ok(())
        }
        Verb::Run { flags, detach_on_exit } => {
            let settings = Settings::resolve(&cli.common, &flags)?;
            let (places, resolv_conf) = (settings.places.clone(), settings.dns.resolv_conf.clone());
            agent::run(settings, stopped()).await?;
            if detach_on_exit {
                detach(&places, &resolv_conf)?;
            }
            Ok(())
        }
        Verb::Status { output } => {
            let (places, _) = Places::resolve(&cli.common)?;
            let status = ask::status(&places.socket).await.map_err(End::NotConnected)?;
            match output {
                Output::Table => print!("{}", table::render(&status)),
                Output::Json => {
                    println!("{}", serde_json::to_string_pretty(&status).map_err(anyhow::Error::from)?)
                }
            }
            Ok(())
        }
        Verb::Detach => {
            let (places, file) = Places::resolve(&cli.common)?;
            if !system::is_root() {
                return Err(
                    anyhow::anyhow!("detach must run as root: it removes programs from the kernel").into()
                );
            }
            crate::files::make_dir(&places.state_dir).map_err(anyhow::Error::from)?;
            let _lock = crate::lock::Lock::acquire(&places.state_dir, &places.bpf_dir, &[])
                .map_err(anyhow::Error::from)?;
            Ok(detach(&places, &file.resolv_conf())?)
        }
    }
}

/// Takes everything off the host that an agent left there.
fn detach(places: &Places, resolv_conf: &Path) -> anyhow::Result<()> {
    // Whatever comes of these two, the rest is taken off all the same.
    let file = put_back(places, resolv_conf);
    let resolved = resolver::revert(Path::new(resolver::RESOLVECTL), &places.state_dir)
        .context("systemd-resolved may still ask this agent for names; all else is taken off");
    crate::datapath::detach(&places.bpf_dir)?;
    // An Ethernet is somebody else's device.
    if !crate::datapath::device::is_ethernet(&places.device).unwrap_or(false) {
        Tun::delete(&places.device)?;
    }
    match (file, resolved) {
        (Err(one), Err(other)) => Err(anyhow::anyhow!("{one:#}; {other:#}")),
        (Err(e), Ok(_)) | (Ok(()), Err(e)) => Err(e),
        (Ok(()), Ok(_)) => Ok(()),
    }
}

/// Has the host ask for names as it did before.
fn put_back(places: &Places, resolv_conf: &Path) -> anyhow::Result<()> {
    let path = resolv_conf.display();
    let restored = resolver::restore(resolv_conf, &places.state_dir)
        .with_context(|| format!("{path} cannot be put back as it was; all else is taken off"))?;
    match restored {
        Restored::Nothing | Restored::PutBack => {}
        Restored::Saved(saved) => println!(
            "{path} had been changed since the agent wrote it: it is as it was before, what it was made is in {}",
            saved.display()
        ),
        Restored::Another(state_dir) => {
            println!("{path} is written by the agent of {state_dir} and stays as it is")
        }
    }
    Ok(())
}

fn fingerprint(text: &str) -> Result<join::Fingerprint, String> {
    join::Fingerprint::parse(text).map_err(|error| error.to_string())
}

/// Returns when the process is asked to end.
async fn stopped() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn log(json: bool) {
    // The embedded WireGuard logs a line for every packet to a peer whose place is not known.
    let filter = EnvFilter::try_from_env("SLUICEGATE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,gotatun::device=off,gotatun=warn"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json { log.json().init() } else { log.with_ansi(false).init() }
}

fn say(code: u8, sentence: &str) -> ExitCode {
    eprintln!("error: {sentence}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn one_joins_by_a_key_or_by_a_login() {
        let hex = "ab".repeat(32);
        let reads = |line: &str| Cli::try_parse_from(format!("x join {line}").split_whitespace()).is_ok();
        assert!(reads("--setup-key-file k --dns-label a") && reads("--setup-key-file k --ca-file c"));
        assert!(reads("--login --ca-file c") && reads(&format!("--login --fingerprint sha256:{hex}")));
        assert!(reads(&format!("--login --fingerprint {hex} --output json")));
        for wrong in ["", "--login --setup-key-file k", "--login --dns-label a", "--login --fingerprint ab"] {
            assert!(!reads(wrong), "{wrong}");
        }
    }

    #[test]
    fn common_flags_go_before_or_after_the_verb() {
        for line in ["x --state-dir /a status", "x status --state-dir /a"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.common.state_dir.as_deref(), Some(std::path::Path::new("/a")), "{line}");
        }
    }
}
