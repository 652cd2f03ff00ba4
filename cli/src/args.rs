//! The command line: nouns, verbs and their flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::destination::Destination;

/// The operator's command line of Sluicegate.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 control not reached or not logged in, \
                  4 denied (policy explain)."
)]
pub struct Cli {
    /// Flags every verb takes.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub noun: Noun,
}

/// Flags every verb takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Tables for people, or JSON with a "schema" for programs: table, json
    #[arg(
        long,
        global = true,
        value_enum,
        default_value_t = Format::Table,
        env = "SLUICE_OUTPUT",
        hide_env_values = true,
        hide_possible_values = true,
        value_name = "FORMAT"
    )]
    pub output: Format,
    /// Control's address, e.g. http://127.0.0.1:8080; otherwise the one of `sluice login`
    #[arg(long, global = true, env = "SLUICE_URL", hide_env_values = true, value_name = "URL")]
    pub url: Option<String>,
    /// File with a personal access token; otherwise the token of `sluice login`
    #[arg(long, global = true, env = "SLUICE_TOKEN_FILE", hide_env_values = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Where `sluice login` keeps address and token [default: $XDG_CONFIG_HOME/sluicegate/cli.toml]
    #[arg(long, global = true, env = "SLUICE_CONFIG", hide_env_values = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How long to wait for an answer, e.g. 500ms, 10s, 1m
    #[arg(long, global = true, default_value = "10s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns for people.
    Table,
    /// One JSON document (one per line for streams).
    Json,
}

/// What a command is about.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Check a token against control and remember both
    Login(Login),
    /// Control, gateways, peers and policies at a glance
    Status,
    /// Routing peers between the overlay and private networks
    #[command(subcommand)]
    Gateway(Gateway),
    /// Who may reach what
    #[command(subcommand)]
    Policy(Policy),
    /// Machines in the overlay
    #[command(subcommand)]
    Peer(Peer),
    /// Named sets of peers and resources
    #[command(subcommand)]
    Group(Group),
    /// Keys that machines join with
    #[command(subcommand)]
    SetupKey(SetupKey),
    /// Resources behind gateways, and the routers that reach them
    #[command(subcommand)]
    Network(Network),
    /// What gateways let through and what they dropped
    #[command(subcommand)]
    Flow(Flow),
    /// Who changed what
    #[command(subcommand)]
    Audit(Audit),
}

/// `sluice login`.
#[derive(Args, Debug)]
pub struct Login {
    /// Read the token from standard input; only "-" is taken, because arguments are visible to every local user
    #[arg(long, value_name = "-", conflicts_with = "token_file")]
    pub token: Option<String>,
}

/// `sluice gateway`.
#[derive(Debug, Subcommand)]
pub enum Gateway {
    /// All gateways: connection, image wanted and in force, traffic
    List,
    /// One gateway in full
    Show {
        /// Id or name
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// `sluice policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// All policies with their rules
    List,
    /// Make control's groups, networks and policies match a file
    #[command(
        after_help = "Objects are matched by name. What the file does not name is left alone; --prune also \
                            deletes the policies that the file does not name. The whole file is checked before the \
                            first write, and a second run writes nothing."
    )]
    Apply(Apply),
    /// Say whether a flow is allowed, by which rule, through which gateway, and what is missing if not
    #[command(after_help = "Examples:\n  sluice policy explain alice-laptop 10.20.0.10:443/tcp\n  \
                            sluice policy explain alice-laptop '[fd00:20::10]:443/tcp'\n  \
                            sluice policy explain alice-laptop 10.20.0.10/icmp\n\n\
                            Exit code 0 when the flow is allowed, 4 when it is denied.")]
    Explain {
        /// The peer that opens the flow: name, id or overlay address
        #[arg(value_name = "SRC")]
        source: String,
        /// Address, peer or resource with port and protocol: HOST:PORT/tcp, HOST:PORT/udp, HOST/icmp
        #[arg(value_name = "DST:PORT/PROTO")]
        destination: Destination,
    },
}

/// `sluice policy apply`.
#[derive(Args, Debug)]
pub struct Apply {
    /// The policy file; "-" is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Say what would change and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Delete the policies that the file does not name (groups and networks are never deleted)
    #[arg(long)]
    pub prune: bool,
}

/// `sluice peer`.
#[derive(Debug, Subcommand)]
pub enum Peer {
    /// All peers: addresses, groups, connection
    List,
}

/// `sluice group`.
#[derive(Debug, Subcommand)]
pub enum Group {
    /// All groups with their members
    List,
}

/// `sluice setup-key`.
#[derive(Debug, Subcommand)]
pub enum SetupKey {
    /// Make a key and print the content of the key file for `sluicegate-gateway join --setup-key-file`
    Create(SetupKeyCreate),
    /// All keys: state, uses, groups
    List,
}

/// `sluice setup-key create`.
#[derive(Args, Debug)]
pub struct SetupKeyCreate {
    /// What the key is for
    #[arg(long)]
    pub name: String,
    /// Let several machines join with it (a key is for one machine otherwise)
    #[arg(long)]
    pub reusable: bool,
    /// How many machines may join with a reusable key; 0 is any number
    #[arg(long, default_value_t = 0, requires = "reusable", value_name = "N")]
    pub usage_limit: u32,
    /// How long the key is good for, e.g. 24h, 7d; 0 is for ever
    #[arg(long, default_value = "24h", value_parser = duration, value_name = "TIME")]
    pub expires_in: Duration,
    /// Group (name or id) that machines join on arrival; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Machines that join with it are removed when they have been away for ten minutes
    #[arg(long)]
    pub ephemeral: bool,
    /// Write the key file here (mode 0600) and do not print the key
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
}

/// `sluice network`.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// All networks with resources and routers
    List,
}

/// `sluice flow`.
#[derive(Debug, Subcommand)]
pub enum Flow {
    /// Follow flow events as they come
    Watch(FlowWatch),
}

/// `sluice flow watch`.
#[derive(Args, Debug)]
pub struct FlowWatch {
    /// First show the last N events
    #[arg(long, value_name = "N")]
    pub replay: Option<u32>,
    /// Leave after N events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
}

/// `sluice audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The newest changes first
    List {
        /// At most this many; 0 is all
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: usize,
    },
}

/// A number and a unit: ms, s, m, h or d. `0` needs none.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let wrong = || format!("'{text}' is not a time; write a whole number and ms, s, m, h or d, such as 30s");
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs).ok_or_else(wrong);
    match unit {
        "" if number == 0 => Ok(Duration::ZERO),
        "ms" => Ok(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3_600),
        "d" => seconds(86_400),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_anywhere() {
        let cli = Cli::parse_from(["sluice", "peer", "list", "--output", "json", "--timeout", "2m"]);
        assert_eq!((cli.global.output, cli.global.timeout), (Format::Json, Duration::from_secs(120)));
        let cli = Cli::parse_from(["sluice", "--output", "json", "peer", "list"]);
        assert_eq!(cli.global.output, Format::Json);
    }

    #[test]
    fn times_need_a_unit_and_do_not_overflow() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for wrong in ["", "10", "s", "-1s", "1.5s", "1 s", "99999999999999999999s", "999999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_usage_limit_needs_a_reusable_key() {
        let parse = |extra: &[&str]| {
            Cli::try_parse_from(["sluice", "setup-key", "create", "--name", "n"].iter().chain(extra))
        };
        assert!(parse(&["--usage-limit", "3"]).is_err());
        assert!(parse(&["--usage-limit", "3", "--reusable"]).is_ok());
    }
}
