//! `sluicegate-gateway`: the site gateway and the peer agent.

use std::process::ExitCode;

fn main() -> ExitCode {
    sluicegate_gateway::cli::main()
}
