use super::*;

fn image(words: &[u32], rules: &[u32]) -> Image {
    let info = |slot: &u32| {
        (
            *slot,
            RuleInfo {
                policy_id: "p".into(),
                policy_name: "p".into(),
                rule_id: slot.to_string(),
                rule_name: "r".into(),
                accept: true,
            },
        )
    };
    Image { words: words.to_vec(), rules: rules.iter().map(info).collect(), routes: BTreeMap::new() }
}

#[test]
fn a_delta_turns_the_old_image_into_the_new_one() {
    let cases: &[(&[u32], &[u32])] = &[
        (&[], &[1, 2]),
        (&[1, 2, 3], &[1]),
        (&[1, 2, 3, 4, 5, 6, 7], &[9, 2, 3, 4, 5, 6, 8]),
        (&[5], &[5, 0, 0]),
    ];
    for (old, new) in cases {
        let (old, new) = (image(old, &[1, 2]), image(new, &[2, 3]));
        let delta = Delta::decode(&Delta::between(&old, &new).encode()).unwrap();
        assert_eq!(old.apply(&delta).unwrap(), new);
        assert_eq!(old.apply(&delta).unwrap().hash(), new.hash());
    }
}

#[test]
fn words_are_written_as_postcard_does() {
    let mut long: Vec<u32> = (0..10_000).map(|i: u32| i.wrapping_mul(i).wrapping_mul(i)).collect();
    long.extend([0, 127, 128, 16_383, 16_384, u32::MAX]);
    for words in [&[][..], &[0], &long] {
        let image = image(words, &[1, 7]);
        assert_eq!(image.encode(), encode(&image));
    }
}

#[test]
fn truncated_and_trailing_bytes_are_refused() {
    let bytes = image(&[1, 2, 3], &[4]).encode();
    for cut in 0..bytes.len() {
        assert!(Image::decode(&bytes[..cut]).is_err(), "cut at {cut}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(Image::decode(&longer), Err(CodecError::Trailing { count: 1, .. })));
}

/// Nine bytes made the agent ask for 16 GiB (found by the fuzz target `image`).
#[test]
fn a_delta_to_an_image_of_16_gib_is_refused() {
    let delta = Delta { words: u32::MAX, ..Delta::default() };
    let refused = image(&[1], &[]).apply(&delta);
    assert!(matches!(refused, Err(CodecError::TooLarge { words: u32::MAX, max: WORDS_MAX })));
    let most = Delta { words: WORDS_MAX as u32 + 1, ..Delta::default() };
    assert!(matches!(image(&[], &[]).apply(&most), Err(CodecError::TooLarge { .. })));
}

#[test]
fn a_run_beyond_the_image_is_refused() {
    let delta = Delta { words: 2, runs: vec![(1, vec![1, 2])], ..Delta::default() };
    assert!(matches!(image(&[], &[]).apply(&delta), Err(CodecError::Run { .. })));
}

fn damage(seed: &mut u64, sides: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*seed >> 33) as usize % sides
}

/// Words and rules of many sizes, around the ends of what has a hash of its own.
#[test]
fn hashes_follow_changes_and_changes_can_be_taken_back() {
    let mut seed = 1;
    let sizes = [0, 1, 255, 256, 257, 512, 16_383, 16_384, 16_385, 16_640, 40_000];
    let mut now = image(&[], &[]);
    let mut hashes = Hashes::of(&now);
    for _ in 0..200 {
        let size = sizes[damage(&mut seed, sizes.len())];
        let mut next = now.clone();
        next.words.resize(size, 0);
        for _ in 0..damage(&mut seed, 6) {
            let at = damage(&mut seed, size.max(1));
            next.words.iter_mut().skip(at).take(3).for_each(|word| *word = seed as u32);
        }
        let slots: Vec<u32> = (0..damage(&mut seed, 200)).map(|_| damage(&mut seed, 300) as u32).collect();
        next.rules = image(&[], &slots).rules;
        let delta = Delta::between(&now, &next);
        let parts = Parts::new(&now, None);
        let after = Parts::new(&next, Some(&parts));
        assert_eq!((parts.difference(&after), after.hash()), (delta.clone(), next.hash()));
        for (parts, delta) in [(&parts, &delta), (&after, &Delta::default())] {
            let applied = parts.apply(delta).unwrap();
            let image = parts.image().unwrap().apply(delta).unwrap();
            assert_eq!(applied.hash(), image.hash());
            assert_eq!((applied.encode(), applied.encoded_len()), (image.encode(), image.encode().len()));
            assert_eq!(applied.hashes, Hashes::of(&image));
        }
        for range in [0..0, 0..48, 250..600, 256..512, 16_000..50_000] {
            let words = next.words.get(range.start.min(size)..range.end.min(size)).unwrap();
            assert_eq!(after.words(range), words);
        }
        assert_eq!((after.encode(), after.encoded_len()), (next.encode(), next.encode().len()));
        assert_eq!((after.image().unwrap(), after.rules()), (next.clone(), next.rules.clone()));
        let before = (now.clone(), hashes.clone());
        let undone = now.change(&delta).unwrap();
        hashes.update(&now, &undone);
        assert_eq!((&now, &hashes), (&next, &Hashes::of(&next)));
        assert_eq!(hashes.root(), next.hash());
        // There and back.
        let redone = now.change(&undone).unwrap();
        hashes.update(&now, &redone);
        assert_eq!((&now, &hashes), (&before.0, &before.1));
        let undone = now.change(&redone).unwrap();
        hashes.update(&now, &undone);
        assert_eq!((&now, &hashes), (&next, &Hashes::of(&next)));
    }
}

#[test]
fn whatever_differs_has_another_hash() {
    let words: Vec<u32> = (0..1000).collect();
    let one = image(&words, &[1, 70]);
    let mut others = vec![image(&words[..999], &[1, 70]), image(&words, &[1]), image(&words, &[1, 71])];
    others.push(Image { words: [&words[..], &[0]].concat(), ..one.clone() });
    others.extend((0..1000).map(|i| {
        let mut other = one.clone();
        other.words[i] ^= 1 << (i % 32);
        other
    }));
    let mut named = one.clone();
    named.rules.get_mut(&70).unwrap().accept = false;
    others.push(named);
    let hashes: std::collections::BTreeSet<Hash> = others.iter().map(Image::hash).collect();
    assert_eq!(hashes.len(), others.len());
    assert!(!hashes.contains(&one.hash()));
}

/// Control and the agents of one version of the protocol agree on this.
#[test]
fn the_hash_of_an_image_is_what_it_was() {
    let words: Vec<u32> = (0..20_000).collect();
    let hash: String = image(&words, &[1, 70]).hash().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hash, "126acf5d5c71044d727f816aa061248a6edc0facd1c2cf5d44d86bca646f0870");
}

#[test]
fn a_refused_delta_changes_nothing() {
    let run = |offset, len: usize| (offset, vec![9; len]);
    let deltas = [
        Delta { words: 8, runs: vec![run(0, 2), run(1, 1)], ..Delta::default() },
        Delta { words: 8, runs: vec![run(4, 2), run(0, 1)], ..Delta::default() },
        Delta { words: 8, runs: vec![run(0, 2), run(7, 2)], ..Delta::default() },
        Delta { words: 8, runs: vec![run(u32::MAX, 2)], ..Delta::default() },
        Delta { words: u32::MAX, runs: vec![run(0, 2)], ..Delta::default() },
    ];
    for delta in deltas {
        let before = image(&[1, 2, 3, 4, 5, 6, 7, 8], &[1]);
        let mut after = before.clone();
        assert!(after.change(&delta).is_err(), "{delta:?}");
        assert!(Parts::new(&before, None).apply(&delta).is_err(), "{delta:?}");
        assert_eq!(after, before);
    }
}
