//! What there is to try once the table is printed.

use anyhow::Result;
use sluicegate_lab::{Forward, interrupt};

use super::control::http;
use super::world::World;

/// Prints how to look around and waits for Ctrl-C, which ends this process with `code`.
pub(crate) fn stay(world: &World<'_>, code: u8) -> Result<()> {
    let rest = Forward::start(world.control.namespace(), http())?;
    let url = format!("http://{}", rest.address());
    let token = world.control.token_file();
    println!("\nEnter a host:");
    let agents = world.agents().map(|agent| &agent.namespace);
    let servers = [&world.site.web, &world.site.db, &world.site.metrics, &world.site.app, &world.site.dns];
    for namespace in agents.into_iter().chain(servers).chain([world.control.namespace()]) {
        println!("  {:<8} nsenter --net={}", namespace.name(), namespace.path().display());
    }
    println!("\nREST of control, reachable from this host:");
    println!("  curl -H \"Authorization: Token $(cat {})\" {url}/api/gateways", token.display());
    println!("\nMetrics, reachable from this host:");
    println!("  curl {url}/metrics");
    for agent in [&world.gw1, &world.gw2] {
        let metrics = Forward::start(&agent.namespace, agent.metrics())?;
        println!("  curl http://{}/metrics   ({})", metrics.address(), agent.name());
    }
    println!("\nThe operator's command line:");
    println!("  export SLUICE_URL={url} SLUICE_TOKEN_FILE={}", token.display());
    let sluice = world.control.sluice_path().display();
    for command in [
        "status".to_owned(),
        "gateway list".to_owned(),
        "policy explain alice 10.20.0.20:5432/tcp".to_owned(),
        "flow watch".to_owned(),
        format!("policy apply -f {}", world.policy_file().display()),
    ] {
        println!("  {sluice} {command}");
    }
    println!("\nAs alice:");
    println!("  nsenter --net={} curl http://10.20.0.10:443/", world.alice.namespace.path().display());
    println!("\nLogs: {}", world.logs().display());
    println!("Ctrl-C ends everything and removes it.");
    interrupt::set_exit_code(code);
    interrupt::wait()
}
