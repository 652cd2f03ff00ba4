//! Flags of `sluice user`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::duration;

/// `sluice user`.
#[derive(Debug, Subcommand)]
pub enum User {
    /// All users: role, state, last login
    List,
    /// Make the first person, who becomes the owner: asks for the password; needs the owner's token
    Setup(SetUp),
    /// Invite a built-in user and print the secret that `sluice user accept` takes
    Invite(Invite),
    /// A new secret for a user who is there and has no password, or has forgotten it
    Reset {
        /// E-mail address or id
        #[arg(value_name = "USER")]
        user: String,
    },
    /// Use an invitation: asks for its secret and the new password; needs no login
    Accept,
    /// Change the own password: asks for both; every login ends, this one as well
    Password,
    /// Where the own user is logged in, or another with --user
    Sessions {
        /// E-mail address or id of another user
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// End a login of the own user, or of another with --user
    EndSession {
        /// Id, of `sluice user sessions`
        #[arg(value_name = "SESSION")]
        session: String,
        /// E-mail address or id of another user
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
    /// One-time codes of the own user beside the password
    #[command(subcommand)]
    Totp(Codes),
}

/// `sluice user setup`.
#[derive(Args, Debug)]
pub struct SetUp {
    /// By which the user logs in
    #[arg(value_name = "EMAIL")]
    pub email: String,
    /// Display name [default: the address]
    #[arg(long, default_value = "", hide_default_value = true)]
    pub name: String,
}

/// `sluice user invite`.
#[derive(Args, Debug)]
pub struct Invite {
    /// By which the user logs in
    #[arg(value_name = "EMAIL")]
    pub email: String,
    /// Display name [default: the address]
    #[arg(long)]
    pub name: Option<String>,
    /// admin, network_admin, auditor or user
    #[arg(long, default_value = "user", value_name = "ROLE")]
    pub role: String,
    /// Group (name or id) that the user's machines come into; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// How long the invitation is good for, from 1h to 30d
    #[arg(long, default_value = "3d", value_parser = duration, value_name = "TIME")]
    pub expires_in: Duration,
}

/// `sluice user totp`.
#[derive(Debug, Subcommand)]
pub enum Codes {
    /// Ask for the password, make a secret, show it, and ask for a code of it; from then on logins need one
    On,
    /// Switch them off: asks for the password; those of another user, who has lost the device, with --user
    Off {
        /// E-mail address or id of another user
        #[arg(long, value_name = "USER")]
        user: Option<String>,
    },
}
