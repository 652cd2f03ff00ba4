//! Flags of `sluice dns`.

use std::net::SocketAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::Switch;

/// `sluice dns`.
#[derive(Debug, Subcommand)]
pub enum Dns {
    /// Nameserver groups: who answers which names for which peers
    #[command(subcommand)]
    Nameserver(Nameserver),
    /// Zones: names that are answered for the peers of some groups
    #[command(subcommand)]
    Zone(Zone),
    /// Records of zones
    #[command(subcommand)]
    Record(Record),
    /// Whose resolvers stay as they are
    #[command(subcommand)]
    Settings(DnsSettings),
}

/// `sluice dns nameserver`.
#[derive(Debug, Subcommand)]
pub enum Nameserver {
    /// All nameserver groups
    List,
    /// One nameserver group in full
    Show {
        /// Name or id
        #[arg(value_name = "NAMESERVERS")]
        nameservers: String,
    },
    /// Make a nameserver group
    #[command(
        after_help = "Examples:\n  sluice dns nameserver create quad9 --server 9.9.9.9 --server '[2620:fe::fe]:53' \
                            --group users --primary on\n  \
                            sluice dns nameserver create site --server 10.20.0.53 --domain corp.example --group users"
    )]
    Create {
        /// Name, unique
        #[arg(value_name = "NAME")]
        name: String,
        /// The rest.
        #[command(flatten)]
        what: NameserverFields,
    },
    /// Change what is named, and leave the rest
    Update {
        /// Name or id
        #[arg(value_name = "NAMESERVERS")]
        nameservers: String,
        /// Another name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// The rest.
        #[command(flatten)]
        what: NameserverFields,
    },
    /// Delete a nameserver group
    Delete {
        /// Name or id
        #[arg(value_name = "NAMESERVERS")]
        nameservers: String,
    },
}

/// What a nameserver group says beside its name.
#[derive(Args, Debug, Default)]
pub struct NameserverFields {
    /// Address of a nameserver, with a port if that is not 53; one to three times
    #[arg(long = "server", value_name = "ADDRESS", value_parser = server)]
    pub servers: Vec<SocketAddr>,
    /// Group (name or id) whose peers ask them; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Domain that they answer, with all below it; may be given several times; '' for none
    #[arg(long = "domain", value_name = "DOMAIN")]
    pub domains: Vec<String>,
    /// Whether they answer every name; then there are no domains: on, off; off in a new one
    #[arg(long, hide_possible_values = true, value_name = "SWITCH")]
    pub primary: Option<Switch>,
    /// Whether the domains are searched for names without a dot: on, off; off in a new one
    #[arg(long, hide_possible_values = true, value_name = "SWITCH")]
    pub search_domains: Option<Switch>,
    /// Whether it counts: on, off; on in a new one
    #[arg(long, hide_possible_values = true, value_name = "SWITCH")]
    pub enabled: Option<Switch>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}

/// `sluice dns zone`.
#[derive(Debug, Subcommand)]
pub enum Zone {
    /// All zones
    List,
    /// One zone with its records
    Show {
        /// Domain, name or id
        #[arg(value_name = "ZONE")]
        zone: String,
    },
    /// Make a zone
    #[command(after_help = "Example:\n  sluice dns zone create lab.example --group users")]
    Create {
        /// The domain, which stays
        #[arg(value_name = "DOMAIN")]
        domain: String,
        /// The rest.
        #[command(flatten)]
        what: ZoneFields,
    },
    /// Change what is named, and leave the rest
    Update {
        /// Domain, name or id
        #[arg(value_name = "ZONE")]
        zone: String,
        /// The rest.
        #[command(flatten)]
        what: ZoneFields,
    },
    /// Delete a zone with its records
    Delete {
        /// Domain, name or id
        #[arg(value_name = "ZONE")]
        zone: String,
    },
}

/// What a zone says beside its domain.
#[derive(Args, Debug, Default)]
pub struct ZoneFields {
    /// Display name; the domain in a new one
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Group (name or id) whose peers get it; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Whether it is searched for names without a dot: on, off; off in a new one
    #[arg(long, hide_possible_values = true, value_name = "SWITCH")]
    pub search: Option<Switch>,
    /// Whether it counts: on, off; on in a new one
    #[arg(long, hide_possible_values = true, value_name = "SWITCH")]
    pub enabled: Option<Switch>,
}

/// `sluice dns record`.
#[derive(Debug, Subcommand)]
pub enum Record {
    /// All records of a zone
    List {
        /// Domain, name or id of the zone
        #[arg(value_name = "ZONE")]
        zone: String,
    },
    /// Make a record
    #[command(
        after_help = "Examples:\n  sluice dns record create lab.example www.lab.example A 10.20.0.10\n  \
                            sluice dns record create lab.example lab.example AAAA fd00:20::10 --ttl 60"
    )]
    Create {
        /// Domain, name or id of the zone
        #[arg(value_name = "ZONE")]
        zone: String,
        /// The whole name: the zone's domain or one below it
        #[arg(value_name = "NAME")]
        name: String,
        /// A, AAAA or CNAME
        #[arg(value_name = "TYPE", ignore_case = true, hide_possible_values = true)]
        kind: RecordKind,
        /// An address, or for a CNAME a name
        #[arg(value_name = "CONTENT")]
        content: String,
        /// How many seconds it may be remembered
        #[arg(long, default_value_t = 300, value_name = "SECONDS")]
        ttl: u32,
    },
    /// Change what is named, and leave the rest
    Update {
        /// Domain, name or id of the zone
        #[arg(value_name = "ZONE")]
        zone: String,
        /// Name or id; the id where a name has several records
        #[arg(value_name = "RECORD")]
        record: String,
        /// Another name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Another address or name
        #[arg(long, value_name = "CONTENT")]
        content: Option<String>,
        /// How many seconds it may be remembered
        #[arg(long, value_name = "SECONDS")]
        ttl: Option<u32>,
    },
    /// Delete a record
    Delete {
        /// Domain, name or id of the zone
        #[arg(value_name = "ZONE")]
        zone: String,
        /// Name or id; the id where a name has several records
        #[arg(value_name = "RECORD")]
        record: String,
    },
}

/// What a record is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum RecordKind {
    /// An IPv4 address.
    A,
    /// An IPv6 address.
    Aaaa,
    /// Another name.
    Cname,
}

impl RecordKind {
    /// As control writes it.
    pub fn name(self) -> &'static str {
        match self {
            RecordKind::A => "A",
            RecordKind::Aaaa => "AAAA",
            RecordKind::Cname => "CNAME",
        }
    }
}

/// `sluice dns settings`.
#[derive(Debug, Subcommand)]
pub enum DnsSettings {
    /// The groups whose peers get neither nameservers nor zones
    Show,
    /// Name these groups, and no others
    Set {
        /// Group (name or id) whose peers' resolvers stay as they are; may be given several times; '' for none
        #[arg(long = "unmanaged-group", value_name = "GROUP", required = true)]
        unmanaged_groups: Vec<String>,
    },
}

/// `9.9.9.9`, `9.9.9.9:5353`, `2620:fe::fe`, `[2620:fe::fe]:53`.
fn server(text: &str) -> Result<SocketAddr, String> {
    let alone = text.parse().map(|ip| SocketAddr::new(ip, 53));
    alone.or_else(|_| text.parse()).map_err(|_| {
        format!("'{text}' is no address of a nameserver; write 9.9.9.9, 9.9.9.9:5353 or [2620:fe::fe]:53")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameservers_have_port_53_unless_another_is_named() {
        for (text, read) in [
            ("9.9.9.9", "9.9.9.9:53"),
            ("9.9.9.9:5353", "9.9.9.9:5353"),
            ("2620:fe::fe", "[2620:fe::fe]:53"),
            ("[2620:fe::fe]:54", "[2620:fe::fe]:54"),
        ] {
            assert_eq!(server(text).map(|at| at.to_string()), Ok(read.to_owned()), "{text}");
        }
        for text in ["", "dns.example", "9.9.9.9:", "9.9.9.9:70000", "[::1]"] {
            assert!(server(text).is_err(), "{text}");
        }
    }
}
