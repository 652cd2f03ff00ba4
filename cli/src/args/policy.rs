//! `sluice policy` and its flags.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::duration;
use crate::destination::Destination;

/// `sluice policy`.
#[derive(Debug, Subcommand)]
pub enum Policy {
    /// All policies with their rules
    List,
    /// Say whether a policy file makes sense, and whether it fits what control has
    #[command(
        after_help = "Exit code 0 when it does, 2 when not: each mistake with its line and column.\n\n\
                            Editors complete and check the file by its schema: begin it with the line\n  \
                            # yaml-language-server: $schema=https://CONTROL/api/policy-file/schema"
    )]
    Validate {
        /// The file
        #[command(flatten)]
        file: File,
        /// Ask no control: whether names stand for something is not looked at
        #[arg(long)]
        offline: bool,
    },
    /// Write a policy file anew in its one canonical form, comments included; control is not asked
    #[command(after_help = "Exit code 7 with --check when the file is not in its canonical form.")]
    Fmt {
        /// The file; "-" is standard input, formatted to standard output
        #[command(flatten)]
        file: File,
        /// Write nothing, and say whether anything would change
        #[arg(long)]
        check: bool,
    },
    /// Say what applying a file would open and close, for whom, by which gateways, and cut; nothing is written
    #[command(
        after_help = "Reach is counted in pairs: a source peer, a destination, and a longest range of protocols and \
                            ports. A prefix is one destination, however large it is.\n\n\
                            Exit code 6 when a test in the file would fail."
    )]
    Plan(Change),
    /// Make control's groups, networks and policies match a file: all of it as one change, or nothing
    #[command(
        after_help = "Objects are matched by name. What the file does not name is left alone, unless --prune says \
                            otherwise. Everything is checked before anything is written, the tests of the file included; \
                            a second run writes nothing. The outcome is kept as a revision.\n\n\
                            Exit code 6 when a test in the file fails: nothing was written."
    )]
    Apply(Apply),
    /// What differs: between a file and control, between a revision and now, or between two revisions
    #[command(
        after_help = "Exit code 7 when anything does.\n\nExamples:\n  sluice policy diff -f site.yml\n  \
                            sluice policy diff 3\n  sluice policy diff 3 5"
    )]
    Diff {
        /// A revision
        #[arg(value_name = "N", required_unless_present = "file", conflicts_with_all = ["file", "prune"])]
        from: Option<i64>,
        /// Another one [default: what is there now]
        #[arg(value_name = "M", requires = "from")]
        to: Option<i64>,
        /// A policy file
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// What of control's the file would delete
        #[command(flatten)]
        prune: Pruning,
    },
    /// Say whether tests hold: those of a file with the file applied, or those applied last as things are
    #[command(after_help = "Exit code 6 when one does not.")]
    Test {
        /// A policy file
        #[arg(short, long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// Ask no control: judge the file as if it were all there is
        #[arg(long, requires = "file")]
        offline: bool,
    },
    /// Say whether a flow is allowed, by which rule, through which gateway, and what is missing if not
    #[command(after_help = "Examples:\n  sluice policy explain alice-laptop 10.20.0.10:443/tcp\n  \
                            sluice policy explain alice-laptop '[fd00:20::10]:443/tcp'\n  \
                            sluice policy explain alice-laptop 10.20.0.10/icmp\n  \
                            sluice policy explain --offline -f site.yml alice web:443/tcp\n\n\
                            Exit code 0 when the flow is allowed, 4 when it is denied.")]
    Explain {
        /// The peer that opens the flow: name, id or overlay address
        #[arg(value_name = "SRC")]
        source: String,
        /// Address, peer or resource with port and protocol: HOST:PORT/tcp, HOST:PORT/udp, HOST/icmp
        #[arg(value_name = "DST:PORT/PROTO")]
        destination: Destination,
        /// Ask no control: explain a file as if it were all there is
        #[arg(long, requires = "file")]
        offline: bool,
        /// The policy file
        #[arg(short, long, value_name = "FILE", requires = "offline")]
        file: Option<PathBuf>,
    },
    /// Write what control has as a policy file in canonical form
    Export {
        /// Where to [default: standard output]
        #[arg(short = 'w', long, value_name = "FILE")]
        write: Option<PathBuf>,
    },
    /// The revisions: what was applied, when and by whom
    History {
        /// At most this many, the newest
        #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
        limit: u32,
    },
    /// Make everything that policy files describe as it was at a revision, as one change
    #[command(
        after_help = "Peers that joined since stay in their groups, and groups that something else needs stay.\n\n\
                            Exit code 6 when a test of that revision fails: nothing was written."
    )]
    Rollback(Rollback),
    /// Policies for emergencies: off, and on for a time with one command
    #[command(subcommand, name = "break-glass")]
    BreakGlass(BreakGlass),
    /// Write least-privilege rules for what a broad policy was used for
    #[command(
        after_help = "Flows are those that control still holds (the last 16,384 events). The file turns the broad policy \
                            off and puts a new one in its place; nothing is applied.\n\nExample:\n  \
                            sluice policy suggest --from-flows Default -w suggested.yml"
    )]
    Suggest(Suggest),
    /// Print the JSON Schema of policy files; control is not asked
    Schema,
}

/// A policy file.
#[derive(Args, Debug)]
pub struct File {
    /// The policy file; "-" is standard input
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
}

/// What a file does to what it does not name.
#[derive(Args, Clone, Copy, Debug)]
pub struct Pruning {
    /// Delete what the file does not name: policies and tests, or with =everything groups, posture checks (where the file has a section of
    /// them), networks, resources and routers as well
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "policies", value_name = "WHAT")]
    pub prune: Option<Prune>,
}

/// What is deleted when a file does not name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Prune {
    /// Policies and tests.
    Policies,
    /// Everything that files describe.
    Everything,
}

impl Pruning {
    /// As control calls it.
    pub fn name(self) -> &'static str {
        match self.prune {
            None => "nothing",
            Some(Prune::Policies) => "policies",
            Some(Prune::Everything) => "everything",
        }
    }
}

/// `sluice policy plan`.
#[derive(Args, Debug)]
pub struct Change {
    /// The file.
    #[command(flatten)]
    pub file: File,
    /// What happens to the rest.
    #[command(flatten)]
    pub prune: Pruning,
}

/// `sluice policy apply`.
#[derive(Args, Debug)]
pub struct Apply {
    /// The file and what happens to the rest.
    #[command(flatten)]
    pub change: Change,
    /// Refuse when control's policies are not those of this version, which `plan` and `export` name
    #[arg(long, value_name = "VERSION")]
    pub expect: Option<String>,
    /// What the history says about it
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub message: String,
}

/// `sluice policy rollback`.
#[derive(Args, Debug)]
pub struct Rollback {
    /// The revision: see `sluice policy history`
    #[arg(value_name = "N")]
    pub revision: i64,
    /// Say what it would do, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only report tests of that revision that fail
    #[arg(long)]
    pub despite_tests: bool,
    /// Refuse when control's policies are not those of this version, which `plan` and `export` name
    #[arg(long, value_name = "VERSION")]
    pub expect: Option<String>,
    /// What the history says about it
    #[arg(short, long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    pub message: String,
}

/// `sluice policy suggest`.
#[derive(Args, Debug)]
pub struct Suggest {
    /// The broad policy
    #[arg(long, value_name = "POLICY")]
    pub from_flows: String,
    /// What was seen in fewer flows gets no rule, and is listed as blocked
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub min_flows: u64,
    /// Only what was seen in so many days, today being one of them [default: all that control keeps]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=366))]
    pub days: Option<u32>,
    /// Let whole groups in of which any member was seen; otherwise only those of which all were
    #[arg(long)]
    pub widen: bool,
    /// Where to [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
}

/// `sluice policy break-glass`.
#[derive(Debug, Subcommand)]
pub enum BreakGlass {
    /// All of them: which are on, until when and why
    List,
    /// Turn one on for a time; it ends by itself
    On {
        /// Its name
        #[arg(value_name = "POLICY")]
        policy: String,
        /// Why; the audit trail keeps it
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// For how long, e.g. 30m [default: as long as the policy allows]
        #[arg(long = "for", value_parser = duration, value_name = "TIME")]
        time: Option<Duration>,
    },
    /// Turn one off before its time
    Off {
        /// Its name
        #[arg(value_name = "POLICY")]
        policy: String,
    },
}
