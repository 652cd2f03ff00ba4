//! The three implementations side by side: every step goes through all of them, and they must agree.

use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_api::image::{Delta, Image};
use sluicegate_engine::image::LINE;
use sluicegate_engine::pipeline::Verdict;
use sluicegate_engine::validate;
use sluicegate_policy::Compiler;
use sluicegate_policy::model::State;

use crate::case::{AGENT, Arrival, Counters, FlowDump, Hex, Outcome, Setup, Step};
use crate::kernel::{Kernel, Said};
use crate::model::{Chosen, Model};
use crate::user::User;

/// Model, user space and kernel.
pub(crate) struct Trio<'k> {
    model: Model,
    user: User,
    kernel: &'k mut Kernel,
    revision: u32,
    image: Image,
    deadline: Option<u64>,
    /// Counted by packets that the kernel takes for no test run.
    skipped: Counters,
}

impl<'k> Trio<'k> {
    /// All three before a first image.
    pub(crate) fn new(setup: Setup, kernel: &'k mut Kernel) -> Result<Self, String> {
        kernel.reset(setup.clone()).map_err(|e| format!("{e:#}"))?;
        Ok(Self {
            model: Model::new(setup.clone()),
            user: User::new(setup),
            kernel,
            revision: 0,
            image: Image::default(),
            deadline: None,
            skipped: Counters::new(),
        })
    }

    /// Takes a step. The answer to a packet is what user space did with it.
    pub(crate) fn step(&mut self, step: &Step) -> Result<Option<Outcome>, String> {
        match step {
            Step::Packet(arrival) => return self.packet(arrival).map(Some),
            Step::Advance(ticks) => self.model.now += u64::from(*ticks),
            Step::Image(state) => self.image(state)?,
            Step::Egress(exits) => {
                self.model.set_egress(exits.clone());
                self.user.set_egress(exits);
                self.kernel.set_egress(exits).map_err(|e| format!("{e:#}"))?;
            }
            Step::Sweep => {
                self.model.sweep();
                self.user.sweep(self.model.now);
                self.kernel.sweep(self.model.now).map_err(|e| format!("{e:#}"))?;
            }
            Step::Deadline(after) => {
                self.deadline = after.map(|ticks| self.model.now + u64::from(ticks));
                self.model.set_deadline(self.deadline);
            }
        }
        Ok(None)
    }

    fn image(&mut self, state: &Arc<State>) -> Result<(), String> {
        let compiler =
            Compiler::new(state.clone()).map_err(|e| format!("the state does not compile: {e}"))?;
        let image = compiler.compile(AGENT).map_err(|e| format!("the state does not compile: {e}"))?;
        let delta = Delta::between(&self.image, &image);
        if self.image.apply(&delta).ok().as_ref() != Some(&image) {
            return Err("the delta from the image before does not lead to the new one".into());
        }
        let (lines, rest) = image.words.as_chunks::<LINE>();
        if !rest.is_empty() {
            return Err("the image is not a whole number of lines".into());
        }
        validate(lines).map_err(|e| format!("the image is not valid: {e}"))?;
        self.revision += 1;
        let neighbours = compiler.network(AGENT).peers;
        let neighbours = neighbours.iter().map(|id| &state.peers[&**id]);
        let neighbours = neighbours.flat_map(|peer| [IpAddr::V4(peer.v4), IpAddr::V6(peer.v6)]).collect();
        self.model.set_image(self.revision, state.clone(), neighbours);
        self.user.set_image(self.revision, lines);
        self.kernel.set_image(self.revision, lines).map_err(|e| format!("{e:#}"))?;
        self.image = image;
        Ok(())
    }

    fn packet(&mut self, arrival: &Arrival) -> Result<Outcome, String> {
        let now = self.model.now;
        let user = self.user.packet(arrival, now, self.deadline).map_err(|e| format!("user space: {e}"))?;
        let before = self.model.counters.clone();
        let model = self.model.packet(arrival, &Chosen(&user)).map_err(|e| format!("user space: {e}"))?;
        same("verdict of user space", &model.verdict, &user.verdict)?;
        same("bytes of user space", &Hex(&model.bytes), &Hex(&user.bytes))?;
        same("events of user space", &model.events, &user.events)?;

        let kernel = self.kernel.packet(arrival, now, self.deadline).map_err(|e| format!("kernel: {e:#}"))?;
        let events = self.kernel.take_events().map_err(|e| format!("kernel: {e:#}"))?;
        let Some(said) = kernel else {
            add(&mut self.skipped, &self.model.counters, &before);
            return Ok(user);
        };
        let (verdict, bytes) = match &said {
            Said::Next(bytes) => ("next", bytes.as_slice()),
            Said::Redirect(bytes) => ("redirect", bytes.as_slice()),
            Said::Shot => ("shot", [].as_slice()),
        };
        let expected = match model.verdict {
            Verdict::Pass | Verdict::Host => "next",
            Verdict::Site(_) | Verdict::Overlay => "redirect",
            Verdict::Drop(_) => "shot",
        };
        same("events of the kernel", &model.events, &events)?;
        same("verdict of the kernel", &expected, &verdict)?;
        same("bytes of the kernel", &Hex(&model.bytes), &Hex(bytes))?;
        Ok(user)
    }

    /// The live flows, as the model has them.
    pub(crate) fn flows(&self) -> Vec<FlowDump> {
        self.model.flows()
    }

    /// Compares all that the implementations remember.
    pub(crate) fn compare(&self) -> Result<(), String> {
        let now = self.model.now;
        let kernel = |e: anyhow::Error| format!("kernel: {e:#}");
        same("counters of user space", &self.model.counters, &self.user.counters())?;
        let mut counters = self.kernel.counters().map_err(kernel)?;
        add(&mut counters, &self.skipped, &Counters::new());
        same("counters of the kernel", &self.model.counters, &counters)?;
        let expected = self.model.flows();
        let user = self.user.flows(now).map_err(|e| format!("user space: {e}"))?;
        same_list("flows of user space", &expected, &user)?;
        let flows = self.kernel.flows(now).map_err(kernel)?.map_err(|e| format!("kernel: {e}"))?;
        same_list("flows of the kernel", &expected, &flows)
    }
}

fn add(to: &mut Counters, after: &Counters, before: &Counters) {
    for i in 0..to.drops.len() {
        to.drops[i] += after.drops[i] - before.drops[i];
    }
    for k in 0..2 {
        for i in 0..to.forwarded.len() {
            to.forwarded[i][k] += after.forwarded[i][k] - before.forwarded[i][k];
        }
        for i in 0..to.rules.len() {
            to.rules[i][k] += after.rules[i][k] - before.rules[i][k];
        }
    }
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, other: &T) -> Result<(), String> {
    if model == other { Ok(()) } else { Err(format!("{what}:\n  model {model:?}\n  not   {other:?}")) }
}

fn same_list<T: PartialEq + std::fmt::Debug>(what: &str, model: &[T], other: &[T]) -> Result<(), String> {
    let mut lines = Vec::new();
    lines.extend(model.iter().filter(|x| !other.contains(x)).map(|x| format!("  model {x:?}")));
    lines.extend(other.iter().filter(|x| !model.contains(x)).map(|x| format!("  not   {x:?}")));
    if lines.is_empty() && model.len() == other.len() {
        return Ok(());
    }
    Err(format!("{what}:\n{}", lines.join("\n")))
}
