//! Bytes as a whole case: a world, its policy, and what happens to it.
//!
//! The bytes drive the generator's choices, so that a small change of them is a small change of the story; now and then they
//! are a packet themselves.

use sluicegate_engine::flow::Side;

use crate::case::{Arrival, Outcome, Setup, Step};
use crate::duo::Duo;
use crate::generator::Generator;
use crate::plain::Plain;
use crate::random::Random;

/// Steps of one case at the most: what a fuzzer finds later than that it finds earlier too.
const STEPS: usize = 300;
/// Steps between comparisons of all that is remembered.
const COMPARE: usize = 8;

/// A case told by bytes.
pub struct Tale {
    generator: Generator,
    steps: usize,
}

impl Tale {
    /// Reads how the case begins.
    pub fn new(bytes: &[u8]) -> Self {
        Self { generator: Generator::by(Random::tape(bytes)), steps: 0 }
    }

    /// The bytes that tell a case of the generator, so many steps long: something to start from, since blind chance rarely
    /// makes a policy that lets anything pass.
    pub fn record(seed: u64, steps: usize) -> Vec<u8> {
        let mut tale = Self { generator: Generator::by(Random::recorder(seed)), steps: 0 };
        let mut duo = Duo::new(tale.setup(), Plain::new());
        for _ in 0..steps {
            let Some(step) = tale.next() else { break };
            if let Ok(Some(outcome)) = duo.step(&step) {
                tale.learn(&outcome);
            }
        }
        tale.generator.random().recorded().to_vec()
    }

    /// What holds for the whole case.
    pub fn setup(&self) -> Setup {
        self.generator.setup()
    }

    /// The next step; `None` at the end of the bytes.
    pub fn next(&mut self) -> Option<Step> {
        self.steps += 1;
        if self.steps > STEPS || self.generator.random().is_spent() {
            return None;
        }
        if self.generator.random().chance(94) {
            return Some(self.generator.next());
        }
        let r = self.generator.random();
        let side = r.pick(&[Side::Overlay, Side::Site, Side::Local]);
        let (six, screened) = (r.chance(50), side == Side::Site && r.chance(70));
        let length = r.below(200);
        Some(Step::Packet(Arrival { side, six, bytes: r.bytes(length), segment: 0, screened }))
    }

    /// Learns what became of the last packet.
    pub fn learn(&mut self, outcome: &Outcome) {
        self.generator.learn(outcome);
    }
}

/// Plays the case on the engine over plain tables and on the model.
pub fn engine(bytes: &[u8]) {
    let mut tale = Tale::new(bytes);
    let mut duo = Duo::new(tale.setup(), Plain::new());
    let mut told = Vec::new();
    for i in 0.. {
        let Some(step) = tale.next() else { break };
        let result = duo
            .step(&step)
            .and_then(|outcome| if i % COMPARE == 0 { duo.compare().map(|()| outcome) } else { Ok(outcome) });
        told.push(step);
        match result {
            Ok(Some(outcome)) => tale.learn(&outcome),
            Ok(None) => {}
            Err(difference) => fail(&tale.setup(), &told, &difference),
        }
    }
    if let Err(difference) = duo.compare() {
        fail(&tale.setup(), &told, &difference);
    }
}

fn fail(setup: &Setup, told: &[Step], difference: &str) -> ! {
    let steps: Vec<String> = told.iter().map(|step| format!("  {step:?}")).collect();
    panic!("{setup:?}\n{}\n{difference}", steps.join("\n"))
}
