//! A look at what changed in an image gives the answer of a look at the whole, for changes as the compiler makes them and
//! for damage of every kind.
#![expect(clippy::unwrap_used, reason = "a test may panic anywhere")]

mod support;

use proptest::collection::vec;
use proptest::prelude::*;
use sluicegate_engine::image::{Cell, Decision, HEADER, LINE, header};
use sluicegate_engine::{Claims, revalidate, validate, validate_with};
use support::*;

/// One way to change an image: what, where, and by how much.
type Damage = (u8, u32, u32);

/// Words of `old` that differ in `new`, or are not there any more.
fn before(old: &[u32], new: &[u32]) -> Vec<(u32, Vec<u32>)> {
    let mut runs: Vec<(u32, Vec<u32>)> = Vec::new();
    for (i, &word) in old.iter().enumerate().filter(|&(i, word)| new.get(i) != Some(word)) {
        match runs.last_mut() {
            Some((start, run)) if *start as usize + run.len() == i => run.push(word),
            _ => runs.push((i as u32, vec![word])),
        }
    }
    runs
}

fn damage(words: &mut Vec<u32>, &(what, at, by): &Damage) {
    let (at, by) = (at as usize, by as usize);
    let pick = |words: &[u32], start: usize, len: usize, i: usize| {
        (words[start] as usize).saturating_add(i % len.max(1)).min(words.len() - 1)
    };
    let block = |words: &[u32], i| {
        pick(words, header::BLOCKS, (words[header::BLOCKS_LEN] as usize).saturating_mul(LINE), i)
    };
    let service = |words: &[u32], i| {
        pick(words, header::SERVICES, (words[header::SERVICES_LEN] as usize).saturating_mul(2), i)
    };
    match what % 16 {
        // A cell becomes as another one, a decision, or names another set.
        0..3 => {
            let (to, from) = (block(words, at), block(words, by));
            words[to] = words[from];
        }
        3 => {
            let to = block(words, at);
            words[to] = Decision::accept(by as u32 % 12).0;
        }
        4 => {
            let to = block(words, at);
            words[to] = Cell::services(8 * (by as u32 % 16), 3 + by as u32 % 3).0;
        }
        // A service entry, a little.
        5..8 => {
            let to = service(words, at);
            words[to] = words[to].wrapping_add(by as u32 % 5).wrapping_sub(2);
        }
        8 => {
            let (to, from) = (service(words, at), service(words, by));
            words[to] = words[from];
        }
        // A whole line of services becomes another one: a set is cut short, or two become one.
        9 => {
            let (to, from) = (service(words, at) / LINE * LINE, service(words, by) / LINE * LINE);
            let line = words[from..from + LINE].to_vec();
            words[to..to + LINE].copy_from_slice(&line);
        }
        // A row names another page, a page another block, or a list another row or column.
        10 => {
            let rows = words[header::ROWS_LEN].saturating_mul(words[header::ROW_PAGES]) as usize;
            let lines = |len: usize| (words[len] as usize).saturating_mul(LINE);
            let (section, len, limit) = [
                (header::ROWS, rows, header::PAGES_LEN),
                (header::PAGES, lines(header::PAGES_LEN), header::BLOCKS_LEN),
                (header::ROW_LISTS, lines(header::ROW_LISTS_LEN), header::ROWS_LEN),
                (header::COLUMN_LISTS, lines(header::COLUMN_LISTS_LEN), header::COLUMNS_LEN),
            ][by / 7 % 4];
            let to = pick(words, section, len, at);
            words[to] = by as u32 % words[limit].saturating_add(1);
        }
        // Lengths and limits.
        11 => {
            const SMALL: [usize; 10] = [
                header::RULE_SLOTS,
                header::ROUTES,
                header::BLOCKS_LEN,
                header::SERVICES_LEN,
                header::PAGES_LEN,
                header::ROWS_LEN,
                header::ROW_LISTS_LEN,
                header::COLUMN_LISTS_LEN,
                header::RANKS_LEN,
                header::OWN,
            ];
            let to = SMALL[at % SMALL.len()];
            words[to] = words[to].wrapping_add(by as u32 % 17).wrapping_sub(8);
        }
        12 => words[at % HEADER] ^= 1 << (by % 32),
        // The image becomes longer or shorter.
        13 => {
            let lines = (words.len() / LINE + by % 3).saturating_sub(1).max(2);
            words.resize(lines * LINE, at as u32);
            words[header::WORDS] = words.len() as u32;
        }
        _ => {
            let to = at % words.len();
            words[to] = words[to].wrapping_add(by as u32 % 3).wrapping_sub(1);
        }
    }
}

/// Judges `new`, which came from the good `old`, in both ways. True when it is good.
fn same(old: &[u32], new: &[u32], claims: &mut Claims<Vec<u32>>) -> Result<bool, TestCaseError> {
    let whole = validate(new.as_chunks().0);
    let changed = revalidate(new.as_chunks().0, &before(old, new), claims);
    prop_assert_eq!(changed, whole);
    Ok(whole.is_ok())
}

fn known(words: &[u32]) -> Claims<Vec<u32>> {
    let mut claims = Claims::new(vec![0; 1 << 14]);
    validate_with(words.as_chunks().0, &mut claims).unwrap();
    claims
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_changed_tells_what_the_whole_tells(
        (old, new) in changed_states(),
        steps in vec(vec((any::<u8>(), any::<u32>(), any::<u32>()), 1..4), 48),
    ) {
        for (i, agent) in PEERS.into_iter().enumerate() {
            let image = |state| every_compiler(state)[i % 3].compile(agent).unwrap().words;
            let (first, second) = (image(&old), image(&new));
            let mut claims = known(&first);
            prop_assert!(same(&first, &second, &mut claims)?);
            prop_assert!(same(&second, &first, &mut claims)?);
            let mut good = first;
            for step in &steps {
                let mut next = good.clone();
                step.iter().for_each(|one| damage(&mut next, one));
                match same(&good, &next, &mut claims)? {
                    true => good = next,
                    // As after a refused image: the one before it is looked at as a whole, or the next one is.
                    false if step.len() == 1 => claims = known(&good),
                    false => {}
                }
            }
            prop_assert!(same(&good, &second, &mut claims)?);
        }
    }
}

/// What was not changed is not read again: damage that nobody mentions is not found.
#[test]
fn only_what_changed_is_looked_at() {
    let image = |service: &str| {
        let mut state = world();
        add_group(&mut state, "ga", &PEERS, &[]);
        add_policy(&mut state, "p", vec![accept(groups(&["ga"]), groups(&["ga"]), service)]);
        compiler(&state).compile(PEERS[0]).unwrap().words
    };
    let (old, mut new) = (image("tcp/7"), image("tcp/9"));
    let before = before(&old, &new);
    assert!(!before.is_empty() && before.iter().map(|(_, run)| run.len()).sum::<usize>() < 64, "{before:?}");
    let mut claims = known(&old);
    let host = new[header::HOSTS4] as usize + 99;
    new[host] = u32::MAX;
    assert!(validate(new.as_chunks().0).is_err());
    assert_eq!(revalidate(new.as_chunks().0, &before, &mut claims), Ok(()));
}
