//! The command line: nouns, verbs and their flags.

mod access;
mod dns;
mod policy;
mod route;
mod user;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use sluicegate_audit::Head;

use crate::destination::Destination;
use crate::filter::Filter;
use crate::source::Source;
pub use access::{Access, Grant, Posture};
pub use dns::{Dns, DnsSettings, Nameserver, NameserverFields, Record, RecordKind, Zone, ZoneFields};
pub use policy::{Apply, BreakGlass, Change, File, Policy, Prune, Pruning, Rollback, Suggest};
pub use route::{Route, RouteFields};
pub use user::{Codes, Invite, SetUp, User};

/// The operator's command line of Sluicegate.
#[derive(Debug, Parser)]
#[command(
    name = "sluice",
    version,
    max_term_width = 100,
    after_help = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 control not reached or not logged in, \
                  4 denied (policy explain, trace), 5 broken (audit verify, audit export), \
                  6 a policy test fails, 7 it differs (policy diff, policy fmt --check)."
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
    /// Socket of the agent on this host, for trace, capture, drops, flow list and gateway top; with it flow watch
    /// follows that agent instead of control [default: /run/sluicegate/gateway.sock]
    #[arg(long, global = true, env = "SLUICE_GATEWAY_SOCKET", hide_env_values = true, value_name = "PATH")]
    pub gateway_socket: Option<PathBuf>,
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

/// Something that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
}

impl Switch {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self == Switch::On
    }
}

/// What a command is about.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// Check a token against control and remember both
    Login(Login),
    /// End the stored login
    Logout,
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
    /// What is asked of machines before policies count them as sources
    #[command(subcommand)]
    Posture(Posture),
    /// Who may use this, and built-in users: invitations, passwords, one-time codes
    #[command(subcommand)]
    User(User),
    /// Keys that machines join with
    #[command(subcommand)]
    SetupKey(SetupKey),
    /// Resources behind gateways, and the routers that reach them
    #[command(subcommand)]
    Network(Network),
    /// Prefixes that peers reach through other peers: exit nodes, site to site
    #[command(subcommand)]
    Route(Route),
    /// Nameservers, zones and records
    #[command(subcommand)]
    Dns(Dns),
    /// WireGuard clients without an agent that are let to one peer for a while
    #[command(subcommand)]
    Access(Access),
    /// What gateways let through and what they dropped
    #[command(subcommand)]
    Flow(Flow),
    /// Follow one made-up packet through the live tables of the agent here
    #[command(
        after_help = "The agent's own engine judges the packet by the tables in force; nothing is sent and nothing \
                            changes.\n\nExamples:\n  sluice trace alice-laptop 10.20.0.10:443/tcp\n  \
                            sluice trace '[fd00:90::2]:50000' '[fd00:20::10]:443/tcp' --tcp-flags ack\n  \
                            sluice trace 10.20.0.10:443 10.20.0.2:22808/tcp --side site --tcp-flags syn-ack\n\n\
                            Exit code 0 when the packet passes, 4 when it is dropped."
    )]
    Trace(Trace),
    /// What the agent here drops, and why
    #[command(subcommand)]
    Drops(Drops),
    /// Write packets of the agent here into a pcapng file, each with its verdict and rule as a comment
    #[command(
        after_help = "FILTER is any of: host ADDRESS, port N, proto tcp|udp|icmp|N, verdict drop|pass; all that is \
                            given must match. Packets are written as they came, the first 128 bytes of each.\n\n\
                            Examples:\n  sluice capture -w drops.pcapng verdict drop\n  \
                            sluice capture -w - host 10.20.0.10 tcp port 443 | tshark -r - -T fields \
                            -e frame.comment"
    )]
    Capture(Capture),
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
    /// Log in at the identity provider of that control, with a browser on this machine
    #[arg(long, conflicts_with = "token")]
    pub sso: bool,
    /// The same with a code to type into a browser anywhere
    #[arg(long, conflicts_with = "token")]
    pub device: bool,
    /// Log in as a built-in user: asks for the password and a one-time code, or reads them from standard input, a line each
    #[arg(long, value_name = "EMAIL", conflicts_with_all = ["token", "sso", "device"])]
    pub user: Option<String>,
}

/// `sluice gateway`.
#[derive(Debug, Subcommand)]
pub enum Gateway {
    /// All gateways: connection, image wanted and in force, traffic
    List,
    /// Rates of the agent here by rule, resource and drop reason
    Top(GatewayTop),
    /// One gateway in full
    Show {
        /// Id or name
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// `sluice peer`.
#[derive(Debug, Subcommand)]
pub enum Peer {
    /// All peers: addresses, groups, connection
    List,
    /// Print a key by which one machine joins as yours, within ten minutes
    Key,
    /// One peer: addresses, names, agent, groups, posture
    Show {
        /// Id or name
        #[arg(value_name = "PEER")]
        peer: String,
    },
    /// Let in a machine that waits for you to log in (`sluicegate-gateway join --login`), by the code that it shows
    Admit {
        /// What the machine shows
        #[arg(value_name = "CODE")]
        code: String,
        /// Do not show the machine and ask first
        #[arg(long, conflicts_with = "refuse")]
        yes: bool,
        /// Turn the machine away
        #[arg(long)]
        refuse: bool,
    },
    /// Log in anew on a peer of yours, whose login has expired or soon will
    Renew {
        /// Id or name
        #[arg(value_name = "PEER")]
        peer: String,
    },
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
    /// Machines that join with it may ask for further DNS labels (`sluicegate-gateway join --dns-label`)
    #[arg(long)]
    pub allow_dns_labels: bool,
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

/// `sluice gateway top`.
#[derive(Args, Debug)]
pub struct GatewayTop {
    /// Print the rates of one interval and leave
    #[arg(long)]
    pub once: bool,
    /// How often the counters are read
    #[arg(long, default_value = "2s", value_parser = duration, value_name = "TIME")]
    pub interval: Duration,
    /// With --once, at most this many lines of a table, the busiest first; 0 is all
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub limit: usize,
}

/// `sluice trace`.
#[derive(Args, Debug)]
pub struct Trace {
    /// Address, or name or id of a peer, with a source port or ICMP id where it matters: HOST, HOST:PORT
    #[arg(value_name = "SRC")]
    pub source: Source,
    /// Address, peer or resource of one address, with port and protocol: HOST:PORT/tcp, HOST:PORT/udp, HOST/icmp
    #[arg(value_name = "DST:PORT/PROTO")]
    pub destination: Destination,
    /// Where the packet comes from: overlay, local (this host), site; otherwise local for the agent's own address, and
    /// overlay for any other
    #[arg(long, value_enum, hide_possible_values = true, value_name = "SIDE")]
    pub side: Option<Side>,
    /// syn, ack, syn-ack, fin or rst; otherwise syn, or ack when there is a flow with these ports
    #[arg(long, value_enum, hide_possible_values = true, value_name = "FLAGS")]
    pub tcp_flags: Option<TcpFlags>,
    /// TTL or hop limit [default: 64]
    #[arg(long, value_name = "N")]
    pub ttl: Option<u8>,
    /// Bytes from the IP header on [default: the headers]
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u16).range(..=9000))]
    pub length: Option<u16>,
    /// The IPv6 addresses of names that have one of each family
    #[arg(short = '6', long)]
    pub ipv6: bool,
}

/// Where a packet comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Side {
    /// Decrypted from the overlay.
    Overlay,
    /// A site device.
    Site,
    /// This host, into the overlay.
    Local,
}

/// What a TCP segment says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TcpFlags {
    /// Opens.
    Syn,
    /// Carries data.
    Ack,
    /// Answers an opening.
    SynAck,
    /// Closes.
    Fin,
    /// Breaks off.
    Rst,
}

impl Side {
    /// As the agent calls it.
    pub fn name(self) -> &'static str {
        match self {
            Side::Overlay => "overlay",
            Side::Site => "site",
            Side::Local => "local",
        }
    }
}

impl TcpFlags {
    /// As the agent calls them.
    pub fn name(self) -> &'static str {
        match self {
            TcpFlags::Syn => "syn",
            TcpFlags::Ack => "ack",
            TcpFlags::SynAck => "syn-ack",
            TcpFlags::Fin => "fin",
            TcpFlags::Rst => "rst",
        }
    }
}

/// `sluice drops`.
#[derive(Debug, Subcommand)]
pub enum Drops {
    /// How many packets were dropped for which reason
    List,
    /// Follow drops and revocations as they come
    Watch(FlowWatch),
}

/// `sluice capture`.
#[derive(Args, Debug)]
pub struct Capture {
    /// The file; "-" is standard output
    #[arg(short, long, value_name = "FILE")]
    pub write: PathBuf,
    /// Leave after N packets
    #[arg(short, long, value_name = "N")]
    pub count: Option<u64>,
    /// Leave after this time, e.g. 30s
    #[arg(long, value_parser = duration, value_name = "TIME")]
    pub duration: Option<Duration>,
    /// Which packets; all of them when there is none
    #[arg(value_name = "FILTER", trailing_var_arg = true)]
    pub filter: Vec<String>,
}

/// `sluice flow`.
#[derive(Debug, Subcommand)]
pub enum Flow {
    /// The live flows of the agent here
    List(FlowList),
    /// Follow flow events as they come: of every agent, from control; with --gateway-socket or --local of the agent here
    Watch(FlowWatch),
}

/// `sluice flow list`.
#[derive(Args, Debug)]
pub struct FlowList {
    /// At most this many, those that carried most; 0 is all
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// Which flows, e.g. "host 10.20.0.10 port 443 proto tcp"
    #[arg(long, value_name = "FILTER")]
    pub filter: Option<Filter>,
}

/// `sluice flow watch` and `sluice drops watch`.
#[derive(Args, Debug)]
pub struct FlowWatch {
    /// First show the last N events
    #[arg(long, value_name = "N")]
    pub replay: Option<u32>,
    /// Leave after N events
    #[arg(long, value_name = "N")]
    pub count: Option<u64>,
    /// Ask the agent here instead of control (drops watch always does)
    #[arg(long)]
    pub local: bool,
}

/// `sluice audit`.
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// The newest changes first
    List(AuditList),
    /// Walk the chain of hashes through every event, and name the first that is not as it was written
    #[command(
        after_help = "A chain proves that nothing between its ends was changed. It cannot prove that it was not written anew as a \
                      whole: note heads elsewhere, and name one by --head.\n\nExamples:\n  sluice audit verify\n  \
                      sluice audit verify --head 1042:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n  \
                      sluice audit verify --from-file audit-2026-11.jsonl"
    )]
    Verify(AuditVerify),
    /// Write every event with its hash to a file, for keeping elsewhere, and verify the chain on the way
    Export {
        /// The file to make; it must not exist
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

/// `sluice audit list`.
#[derive(Args, Debug)]
pub struct AuditList {
    /// At most this many; 0 is all
    #[arg(long, default_value_t = 50, value_name = "N")]
    pub limit: usize,
    /// Only these codes, e.g. policy.add,policy.update
    #[arg(long, value_delimiter = ',', value_name = "CODE")]
    pub code: Vec<String>,
    /// Only what this id, name or e-mail address did
    #[arg(long, value_name = "WHO")]
    pub who: Option<String>,
    /// Only what was done to this id or name
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// Not before: an age such as 2h or 7d, or a time such as 2026-11-22 or 2026-11-22T14:00:00Z
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub since: Option<Moment>,
    /// Before: an age or a time
    #[arg(long, value_parser = moment, value_name = "TIME")]
    pub until: Option<Moment>,
    /// Only events with this text anywhere, details included, in upper or lower case
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    /// Only events older than this one, for the next page: the ID of the last line
    #[arg(long, value_name = "ID")]
    pub before: Option<i64>,
}

/// `sluice audit verify`.
#[derive(Args, Debug)]
pub struct AuditVerify {
    /// Verify a file of `sluice audit export` instead; control is not asked
    #[arg(long, value_name = "FILE")]
    pub from_file: Option<PathBuf>,
    /// A head noted earlier, which must be in the chain
    #[arg(long, value_name = "ID:HASH")]
    pub head: Option<Head>,
}

/// A point in time, as people name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// So long before now.
    Ago(Duration),
    /// At this time.
    At(time::UtcDateTime),
}

fn moment(text: &str) -> Result<Moment, String> {
    use time::format_description::well_known::Rfc3339;
    if let Ok(at) = time::UtcDateTime::parse(text, &Rfc3339) {
        return Ok(Moment::At(at));
    }
    let date = time::macros::format_description!("[year]-[month]-[day]");
    if let Ok(date) = time::Date::parse(text, date) {
        return Ok(Moment::At(date.midnight().as_utc()));
    }
    duration(text).map(Moment::Ago).map_err(|_| {
        format!("'{text}' is no time; write an age such as 2h or 7d, 2026-11-22, or 2026-11-22T14:00:00Z")
    })
}

/// A number and a unit: ms, s, m, h or d. `0` needs none.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
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
