//! The command line against a control in memory: what is printed, what is written, how it fails.
#![expect(clippy::unwrap_used, reason = "a test that cannot be set up fails where it stands")]

mod explain;
mod fake;
mod golden;
mod lists;
mod login;
mod policy_file;
mod process;
mod run;
mod site;
mod watch;
