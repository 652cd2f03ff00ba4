//! Flags of `sluice access` and `sluice posture`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `sluice access`.
#[derive(Debug, Subcommand)]
pub enum Access {
    /// Everybody who is let to a peer for a while: to whom, and for what
    List,
    /// Let a WireGuard client without an agent to one peer, and print its configuration
    #[command(
        after_help = "The client is a peer in no group. It is gone some ten minutes after it was last heard of.\n\n\
                            Examples:\n  wg genkey | tee key | wg pubkey > key.pub\n  \
                            sluice access grant web-1 --name contractor --public-key \"$(cat key.pub)\" --rule tcp/443 --rule icmp"
    )]
    Grant(Grant),
    /// End it at once; flows that it opened are cut
    Revoke {
        /// Name or id, of `sluice access list`
        #[arg(value_name = "NAME")]
        name: String,
    },
}

/// `sluice access grant`.
#[derive(Args, Debug)]
pub struct Grant {
    /// Peer (name or id) that is reached
    #[arg(value_name = "PEER")]
    pub peer: String,
    /// What the client is to be called
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// The client's WireGuard public key, as `wg pubkey` prints it; the private one never leaves it
    #[arg(long, value_name = "KEY")]
    pub public_key: String,
    /// What it may open: tcp/443, tcp/8000-8999, udp/53, icmp, all; may be given several times
    #[arg(long = "rule", value_name = "RULE", required = true)]
    pub rules: Vec<String>,
}

/// `sluice posture`.
#[derive(Debug, Subcommand)]
pub enum Posture {
    /// All posture checks: what they ask for, the policies that ask, and who fails why
    List,
    /// One posture check in full
    Show {
        /// Name or id
        #[arg(value_name = "CHECK")]
        check: String,
    },
    /// Make a posture check
    #[command(after_help = "The file holds what is asked for as control's API has it, for example\n  \
                            {\"nb_version_check\": {\"min_version\": \"0.1.0\"}}\n\n\
                            Example:\n  sluice posture create 'disk encrypted' --checks checks.json")]
    Create {
        /// Name, unique
        #[arg(value_name = "NAME")]
        name: String,
        /// JSON file with what is asked for; "-" is standard input
        #[arg(long, value_name = "FILE")]
        checks: PathBuf,
        /// What it is for
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        description: String,
    },
    /// Change what is named, and leave the rest; machines are judged anew at once
    Update {
        /// Name or id
        #[arg(value_name = "CHECK")]
        check: String,
        /// Another name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// JSON file with what is asked for; "-" is standard input
        #[arg(long, value_name = "FILE")]
        checks: Option<PathBuf>,
        /// What it is for
        #[arg(long, value_name = "TEXT")]
        description: Option<String>,
    },
    /// Delete a posture check that no policy asks for
    Delete {
        /// Name or id
        #[arg(value_name = "CHECK")]
        check: String,
    },
    /// Which machines fail a check that a policy asks for, and why
    Status {
        /// Name or id of one check [default: all]
        #[arg(value_name = "CHECK")]
        check: Option<String>,
    },
}
