//! The model beside the engine over the plain tables: the differential test without a gateway and without root.
use sluicegate_model::duo::Duo;
use sluicegate_model::generator::Generator;
use sluicegate_model::plain::Plain;

/// Steps of one case; four in five are packets.
const STEPS: usize = 400;
const CASES: u64 = 60;

#[test]
fn model_and_engine_agree() {
    let seeds = match std::env::var("SLUICEGATE_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("SLUICEGATE_SEED is a number");
            seed..=seed
        }
        Err(_) => 1..=CASES,
    };
    for seed in seeds {
        let mut generator = Generator::new(seed);
        let setup = generator.setup();
        let mut duo = Duo::new(setup.clone(), Plain::new());
        for i in 0..STEPS {
            let step = generator.next();
            let learned = duo.step(&step).and_then(|outcome| {
                outcome.iter().for_each(|outcome| generator.learn(outcome));
                if i % 8 == 0 { duo.compare() } else { Ok(()) }
            });
            assert!(learned.is_ok(), "seed {seed}, {setup:?}, step {i}, {step:?}: {}", learned.unwrap_err());
        }
    }
}
