//! Flags of `sluice route`.

use clap::{Args, Subcommand};

use super::Switch;

/// `sluice route`.
#[derive(Debug, Subcommand)]
pub enum Route {
    /// All routes: prefix, who routes, who gets them
    List,
    /// One route in full
    Show {
        /// Name or id
        #[arg(value_name = "ROUTE")]
        route: String,
    },
    /// Make a route
    #[command(
        after_help = "Examples:\n  sluice route create lab 10.9.0.0/24 --peer gateway-1 --group users\n  \
                            sluice route create exit 0.0.0.0/0 --peer-group gateways --group users --skip-auto-apply on"
    )]
    Create {
        /// Name that routes of the same prefix share, by which peers stand in for each other
        #[arg(value_name = "NAME")]
        name: String,
        /// Prefix; 0.0.0.0/0 or ::/0 makes an exit node, of both families
        #[arg(value_name = "PREFIX")]
        network: String,
        /// The rest.
        #[command(flatten)]
        what: RouteFields,
    },
    /// Change what is named, and leave the rest
    Update {
        /// Name or id
        #[arg(value_name = "ROUTE")]
        route: String,
        /// Another name
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        /// Another prefix
        #[arg(long, value_name = "PREFIX")]
        network: Option<String>,
        /// Take away all access control groups: the route is open to all who get it, for everything
        #[arg(long, conflicts_with = "access_control_groups")]
        open: bool,
        /// The rest.
        #[command(flatten)]
        what: RouteFields,
    },
    /// Delete a route
    Delete {
        /// Name or id
        #[arg(value_name = "ROUTE")]
        route: String,
    },
}

/// What a route says beside name and prefix. Groups and peers are named by name or id.
#[derive(Args, Debug, Default)]
pub struct RouteFields {
    /// Peer that routes
    #[arg(long, value_name = "PEER", conflicts_with = "peer_groups")]
    pub peer: Option<String>,
    /// Group whose peers route; may be given several times
    #[arg(long = "peer-group", value_name = "GROUP")]
    pub peer_groups: Vec<String>,
    /// Group whose peers get the route; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Group by which policies name the route; may be given several times; without any it is open to all who get it
    #[arg(long = "access-control-group", value_name = "GROUP")]
    pub access_control_groups: Vec<String>,
    /// 1 to 9999, lower is better; 100 in a new one
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=9999))]
    pub metric: Option<u16>,
    /// Whether the destination sees the router's address: on, off; on in a new one
    #[arg(long, hide_possible_values = true, value_name = "SWITCH")]
    pub masquerade: Option<Switch>,
    /// Whether agents take it only where their configuration names it: on, off; off in a new one
    #[arg(long, hide_possible_values = true, value_name = "SWITCH")]
    pub skip_auto_apply: Option<Switch>,
    /// Whether it counts: on, off; on in a new one
    #[arg(long, hide_possible_values = true, value_name = "SWITCH")]
    pub enabled: Option<Switch>,
    /// What it is for
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
}
