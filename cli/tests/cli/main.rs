//! The command line against a control in memory: what is printed, what is written, how it fails.

mod apply;
mod fake;
mod golden;
mod lists;
mod login;
mod process;
mod run;
mod site;
mod watch;
