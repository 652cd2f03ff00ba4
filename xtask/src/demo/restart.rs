//! The gateway is killed and started again under traffic: no flow is lost, and nothing opens meanwhile.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use sluicegate_lab::traffic::Report;

use super::client::{Ask, Seen};
use super::masquerade::seen_as;
use super::stream::Stream;
use super::table::{Row, Table};
use super::topology::{Family, GW1, WEB, site};
use super::world::World;
use super::{Datapath, say};

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn show(world: &World<'_>, table: &mut Table) -> Result<()> {
    for family in Family::BOTH {
        let to = site(WEB, family);
        // In user space the flows are in the process that is killed; that the gate stays shut holds for both.
        let pinned = world.datapath == Datapath::Ebpf;
        let flow = pinned.then(|| Stream::tcp(world, &world.alice.namespace, to, 8443)).transpose()?;
        let gate = Gate::watch(world, family)?;
        let start = Instant::now();
        world.gw1.kill();
        world.gw1.start()?;
        world.gw1.wait_until_ready()?;
        let away = start.elapsed();
        let went_on = flow.as_ref().map(|flow| flow.wait_for_more(20, PATIENCE));
        let (tries, opened) = gate.finish();
        if let Some(Err(error)) = went_on {
            say(&format!("{error:#}"));
        }
        if let Some(flow) = flow {
            table.add(survived(&flow.finish()?, away, family));
        }
        table.add(Row {
            who: "carol, web server".into(),
            what: format!("what is denied to them meanwhile, {}", family.name()),
            expected: "never opens".into(),
            seen: format!("{opened} of {tries} tries were answered"),
            rule: "no rule".into(),
            as_expected: tries > 0 && opened == 0,
        });
        // Meanwhile gw2 stood in for it.
        let seen = seen_as(world, Ask::Http(443), to, site(GW1, family))?;
        table.add(Row {
            who: "alice".into(),
            what: format!("curl web:443 afterwards, {}", family.name()),
            expected: format!("answered, as {}", site(GW1, family)),
            as_expected: seen == Seen::Answered(Some(site(GW1, family))),
            seen: seen.describe(),
            rule: "engineering uses the web / pages and api".into(),
        });
        world.wait_until_in_step()?;
    }
    Ok(())
}

fn survived(report: &Report, away: Duration, family: Family) -> Row {
    let Report { sent, received, ended, .. } = report;
    Row {
        who: "alice".into(),
        what: format!("tcp web:8443 while gw1 is killed and restarted, {}", family.name()),
        expected: "the connection lives".into(),
        seen: format!(
            "{received} of {sent} messages back in order, {ended}; gw1 was away {} ms",
            away.as_millis()
        ),
        rule: "engineering uses the web / pages and api".into(),
        as_expected: report.wrong == 0 && *sent > 0 && ended == "stopped",
    }
}

/// Tries without end what must not pass: carol a port she has no rule for, the site a peer that did not ask.
struct Gate {
    stop: std::sync::Arc<AtomicBool>,
    workers: Vec<thread::JoinHandle<()>>,
    tries: std::sync::Arc<AtomicU32>,
    opened: std::sync::Arc<AtomicU32>,
}

impl Gate {
    fn watch(world: &World<'_>, family: Family) -> Result<Self> {
        let carol = SocketAddr::new(site(WEB, family), 8443);
        // Something that would answer, were it reached.
        let alice: IpAddr = world.alice.overlay(&world.control, family)?;
        let listener =
            world.alice.namespace.enter(|| std::net::TcpListener::bind(SocketAddr::new(alice, 0)))??;
        let alice = listener.local_addr()?;
        let mut gate = Self {
            stop: std::sync::Arc::default(),
            workers: Vec::new(),
            tries: std::sync::Arc::default(),
            opened: std::sync::Arc::default(),
        };
        for (namespace, target) in [(&world.carol.namespace, carol), (&world.site.web, alice)] {
            let namespace = namespace.clone();
            let (stop, tries, opened) = (gate.stop.clone(), gate.tries.clone(), gate.opened.clone());
            // Kept open as long as somebody may connect.
            let listener = listener.try_clone()?;
            gate.workers.push(thread::spawn(move || {
                let outcome = namespace.enter(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let answered =
                            TcpStream::connect_timeout(&target, Duration::from_millis(300)).is_ok();
                        opened.fetch_add(answered.into(), Ordering::Relaxed);
                        tries.fetch_add(1, Ordering::Relaxed);
                    }
                });
                drop((outcome, listener));
            }));
        }
        Ok(gate)
    }

    /// How often it was tried, and how often it passed.
    fn finish(self) -> (u32, u32) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers {
            // One that panicked has counted what it saw.
            let _ = worker.join();
        }
        (self.tries.load(Ordering::Relaxed), self.opened.load(Ordering::Relaxed))
    }
}
