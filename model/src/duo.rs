//! Model and engine side by side: every step goes through both, and they must agree.

use std::net::IpAddr;
use std::sync::Arc;

use sluicegate_api::image::{Delta, Image};
use sluicegate_engine::classify::Line;
use sluicegate_engine::image::LINE;
use sluicegate_engine::validate;
use sluicegate_policy::model::State;
use sluicegate_policy::{Compiler, Limits};

use crate::case::{AGENT, Arrival, Exit, FlowDump, Hex, Outcome, Setup, Step, exit_of};
use crate::model::{Chosen, Model};
use crate::tables;
use crate::user::{Twin, User};

/// The model, and the engine over tables in this process.
pub struct Duo<T> {
    pub model: Model,
    pub user: User<T>,
    pub revision: u32,
    pub deadline: Option<u64>,
    image: Image,
    exits: Vec<Exit>,
}

impl<T: Twin> Duo<T> {
    /// Both before a first image.
    pub fn new(setup: Setup, twin: T) -> Self {
        Self {
            model: Model::new(setup.clone()),
            user: User::new(setup, twin),
            revision: 0,
            deadline: None,
            image: Image::default(),
            exits: Vec::new(),
        }
    }

    /// Takes a step. The answer to a packet is what the engine did with it.
    pub fn step(&mut self, step: &Step) -> Result<Option<Outcome>, String> {
        match step {
            Step::Packet(arrival) => return self.packet(arrival).map(|(_, user)| Some(user)),
            Step::Advance(ticks) => self.model.now += u64::from(*ticks),
            Step::Image(state, exits) => drop(self.image(state, exits.as_deref())?),
            Step::Egress(exits) => {
                self.exits.clone_from(exits);
                self.leave();
            }
            Step::Addresses(addresses) => {
                self.model.set_addresses(addresses.clone());
                self.user.set_host_addresses(tables::host_addresses(addresses));
            }
            Step::Sweep => {
                self.model.sweep();
                self.user.sweep(self.model.now);
            }
            Step::Timeouts(timeouts) => {
                self.model.set_timeouts(*timeouts);
                self.user.set_timeouts(*timeouts);
            }
            Step::Deadline(after) => {
                self.deadline = after.map(|ticks| self.model.now + u64::from(ticks));
                self.model.set_deadline(self.deadline);
            }
        }
        Ok(None)
    }

    /// Where each route of the image in force leaves.
    pub fn ways(&self) -> Vec<(u16, Exit)> {
        let routes = self.image.routes.keys().map(|route| *route as u16);
        routes.filter_map(|route| Some((route, exit_of(&self.exits, route)?))).collect()
    }

    fn leave(&mut self) {
        self.model.set_egress(self.exits.clone());
        let ways = self.ways();
        self.user.set_egress(&ways);
    }

    /// Compiles a state and puts it in force as the next revision, and with it the exits of its routes; the image's lines.
    pub fn image(&mut self, state: &Arc<State>, exits: Option<&[Exit]>) -> Result<Vec<Line>, String> {
        let compiler =
            Compiler::new(state.clone()).map_err(|e| format!("the state does not compile: {e}"))?;
        // Every other image has lists of rows and columns, as large ones have.
        let compiler = if self.revision % 2 == 1 { compiler.with_limits(apart()) } else { compiler };
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
        let lines = lines.to_vec();
        self.image = image;
        self.exits = exits.map_or_else(|| self.exits.clone(), <[Exit]>::to_vec);
        self.leave();
        Ok(lines)
    }

    /// What the model and what the engine made of a packet: the same.
    pub fn packet(&mut self, arrival: &Arrival) -> Result<(Outcome, Outcome), String> {
        let now = self.model.now;
        let user = self.user.packet(arrival, now, self.deadline).map_err(|e| format!("user space: {e}"))?;
        let model = self.model.packet(arrival, &Chosen(&user)).map_err(|e| format!("user space: {e}"))?;
        same("verdict of user space", &model.verdict, &user.verdict)?;
        same("bytes of user space", &Hex(&model.bytes), &Hex(&user.bytes))?;
        same("events of user space", &model.events, &user.events)?;
        Ok((model, user))
    }

    /// The live flows, as the model has them.
    pub fn flows(&self) -> Vec<FlowDump> {
        self.model.flows()
    }

    /// Compares all that both remember.
    pub fn compare(&self) -> Result<(), String> {
        same("counters of user space", &self.model.counters, &self.user.counters())?;
        let user = self.user.flows(self.model.now).map_err(|e| format!("user space: {e}"))?;
        same_list("flows of user space", &self.model.flows(), &user)
    }
}

/// An error that shows both, unless they are equal.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, model: &T, other: &T) -> Result<(), String> {
    if model == other { Ok(()) } else { Err(format!("{what}:\n  model {model:?}\n  not   {other:?}")) }
}

/// An error that shows what only one of them has, unless they are equal.
pub fn same_list<T: PartialEq + std::fmt::Debug>(what: &str, model: &[T], other: &[T]) -> Result<(), String> {
    let mut lines = Vec::new();
    lines.extend(model.iter().filter(|x| !other.contains(x)).map(|x| format!("  model {x:?}")));
    lines.extend(other.iter().filter(|x| !model.contains(x)).map(|x| format!("  not   {x:?}")));
    if lines.is_empty() && model.len() == other.len() {
        return Ok(());
    }
    Err(format!("{what}:\n{}", lines.join("\n")))
}

/// Limits with which even a small image has lists of rows and columns.
pub(crate) fn apart() -> Limits {
    Limits { together: 0, look_up: 0, ..Limits::default() }
}
