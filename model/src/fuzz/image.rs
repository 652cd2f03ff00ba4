//! Bytes as an image or a delta, and as damage to a good image: what is refused is refused with a reason, and what is
//! accepted never leads a look-up out of the image.

use std::sync::{Arc, LazyLock};

use sluicegate_api::image::{Delta, Hashes, Image};
use sluicegate_engine::classify::{Judgement, Line, Lines};
use sluicegate_engine::family::{Address4, Address6, Family, V4, V6};
use sluicegate_engine::image::{HEADER, LINE, axis, header};
use sluicegate_engine::{Claims, revalidate, validate, validate_with};
use sluicegate_policy::Compiler;

use crate::case::AGENT;
use crate::duo::apart;
use crate::random::Random;
use crate::world;

/// Packets judged by an image that was accepted.
const PACKETS: usize = 64;

/// The first byte says what the others are.
pub fn image(bytes: &[u8]) {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    match kind {
        0 => decoded(bytes),
        1 => patched(bytes),
        _ => damaged(&BASES[usize::from(kind) % BASES.len()], bytes),
    }
}

/// Images of a few worlds, to start from.
static BASES: LazyLock<Vec<Image>> = LazyLock::new(|| {
    let base = |seed| {
        let state = Arc::new(world::state(&mut Random::new(seed)));
        let compiler = Compiler::new(state).expect("the worlds are valid");
        let compiler = if seed % 2 == 1 { compiler.with_limits(apart()) } else { compiler };
        compiler.compile(AGENT).expect("the worlds are small")
    };
    (0..8).map(base).collect()
});

fn decoded(bytes: &[u8]) {
    let Ok(image) = Image::decode(bytes) else { return };
    let again = Image::decode(&image.encode()).expect("an encoding is an image");
    assert!(image == again, "an image changes by being written and read");
    examine(&image, bytes);
}

fn patched(bytes: &[u8]) {
    let Ok(delta) = Delta::decode(bytes) else { return };
    let again = Delta::decode(&delta.encode()).expect("an encoding is a delta");
    assert!(delta == again, "a delta changes by being written and read");
    for base in &BASES[..2] {
        let Ok(image) = base.apply(&delta) else { continue };
        assert_eq!(image.words.len(), delta.words as usize, "words");
        let difference = Delta::between(base, &image);
        assert!(
            base.apply(&difference).ok().as_ref() == Some(&image),
            "the difference is not the difference"
        );
        compare(base, &image);
        examine(&image, bytes);
    }
}

/// Up to as many words replaced as there are bytes for: which, and what by.
fn damaged(base: &Image, bytes: &[u8]) {
    let mut image = base.clone();
    let mut r = Random::tape(bytes);
    while !r.is_spent() {
        let at = match r.below(4) {
            // The header and what it points at, more often than the rest.
            0 => r.below(HEADER),
            1 => image.words[r.below(32)] as usize + r.below(16),
            2 => r.below(1 << 16),
            _ => {
                image.words[r.pick(&[header::BLOCKS, header::PAGES, header::ROW_LISTS])] as usize
                    + r.below(256)
            }
        };
        let length = image.words.len();
        let Some(word) = image.words.get_mut(at) else { continue };
        *word = match r.below(8) {
            0 => u32::MAX,
            1 => word.wrapping_add(1),
            2 => word.wrapping_sub(1),
            3 => r.below(256) as u32,
            4 => *word ^ 1 << r.below(32),
            5 => length as u32,
            6 => *word & 0xffff,
            _ => r.next() as u32,
        };
    }
    compare(base, &image);
    examine(&image, bytes);
}

/// A change is taken back without a trace, its hash follows, and a look at what it changed says what a look at the whole says.
fn compare(base: &Image, image: &Image) {
    let mut changed = base.clone();
    let mut hashes = Hashes::of(base);
    let undo = changed.change(&Delta::between(base, image)).expect("a difference can be applied");
    hashes.update(&changed, &undo);
    assert!(changed == *image && hashes == Hashes::of(image), "the hash does not follow");
    let (before, rest) = base.words.as_chunks::<LINE>();
    let (after, more) = image.words.as_chunks::<LINE>();
    if rest.is_empty() && more.is_empty() {
        let mut claims = Claims::new(vec![0; before.len().max(after.len())]);
        validate_with(before, &mut claims).expect("the base is valid");
        assert_eq!(
            revalidate(after, &undo.runs, &mut claims),
            validate(after),
            "what changed tells otherwise"
        );
    }
    let redo = changed.change(&undo).expect("what takes a change back can be applied");
    hashes.update(&changed, &redo);
    assert!(changed == *base && hashes == Hashes::of(base), "a trace is left");
}

/// Judges packets by an image that is accepted.
fn examine(image: &Image, chance: &[u8]) {
    let (lines, rest) = image.words.as_chunks::<LINE>();
    if !rest.is_empty() || validate(lines).is_err() {
        return;
    }
    let checked = Checked(lines);
    let mut r =
        Random::new(chance.iter().fold(0, |h: u64, &b| h.wrapping_mul(31).wrapping_add(u64::from(b))));
    for _ in 0..PACKETS {
        let l4 = match r.below(4) {
            0 => r.next() as u32,
            _ => r.below(axis::END as usize) as u32,
        };
        let word = |r: &mut Random, at: usize, len: usize| {
            // An address from the image's own boundaries, or next to one.
            let boundary = checked.word(image.words[at].wrapping_add(r.below(len.max(1)) as u32));
            boundary.wrapping_add(r.below(3) as u32).wrapping_sub(1)
        };
        let four = |r: &mut Random| {
            let len = image.words[header::DST4_LEN] as usize;
            let address = match r.below(3) {
                0 => r.next() as u32,
                1 => image.words[header::HOSTS4_BASE].wrapping_add(r.below(256) as u32),
                _ => word(r, header::DST4, len),
            };
            Address4(address.to_be_bytes())
        };
        let six = |r: &mut Random| {
            let mut bytes = [0; 16];
            let len = image.words[header::DST6_LEN] as usize * 4;
            bytes.chunks_mut(4).for_each(|chunk| {
                let part = if r.chance(30) { r.next() as u32 } else { word(r, header::DST6, len) };
                chunk.copy_from_slice(&part.to_be_bytes());
            });
            Address6(bytes)
        };
        let (source, destination) = (four(&mut r), four(&mut r));
        check(image, V4::classify(&checked, source, destination, l4));
        let (source, destination) = (six(&mut r), six(&mut r));
        check(image, V6::classify(&checked, source, destination, l4));
    }
}

fn check(image: &Image, judgement: Judgement) {
    if judgement.decision.is_set() {
        assert!(
            judgement.decision.slot() < image.words[header::RULE_SLOTS],
            "a slot beyond the last: {judgement:?}"
        );
    }
    if let Some(route) = judgement.attributes.route() {
        assert!(u32::from(route) < image.words[header::ROUTES], "a route beyond the last: {judgement:?}");
    }
}

/// Lines of an image; panics where there is none.
struct Checked<'a>(&'a [Line]);

impl Lines for Checked<'_> {
    fn line(&self, index: u32) -> Option<&Line> {
        assert!((index as usize) < self.0.len(), "line {index} of {}", self.0.len());
        self.0.get(index as usize)
    }
}
