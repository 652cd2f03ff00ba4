use std::os::unix::fs::symlink;

use super::super::Store;
use super::*;

/// Images that came from one another, the first one of revision 1.
fn images(count: u32) -> Vec<Image> {
    let image = |i: u32| {
        let mut words: Vec<u32> = (0..600 + i * 16).collect();
        (0..i).for_each(|j| words[(j * 97 % 600) as usize] = 1000 + j);
        Image { words, ..Image::default() }
    };
    (0..count).map(image).collect()
}

fn put(store: &Store, revision: u64, image: &Image) {
    store.put_image(revision, &image.hash(), &image.encode()).unwrap();
}

/// Remembers `images[i]` as a change to the one before.
fn change(store: &Store, images: &[Image], i: usize) -> anyhow::Result<()> {
    let (from, to) = (&images[i - 1], &images[i]);
    let delta = Delta::between(from, to).encode();
    store.put_change(&from.hash(), i as u64 + 1, &to.hash(), &delta, to)
}

/// A store with these images, the first as a snapshot, and where the journal ends after each.
fn filled(dir: &Path, images: &[Image]) -> Vec<usize> {
    let store = Store::new(dir);
    put(&store, 1, &images[0]);
    let length = || std::fs::metadata(dir.join("image.journal")).map_or(0, |file| file.len() as usize);
    let mut ends = vec![length()];
    for i in 1..images.len() {
        change(&store, images, i).unwrap();
        ends.push(length());
    }
    ends
}

fn stored(dir: &Path) -> anyhow::Result<(u64, Image, bool)> {
    let stored = Store::new(dir).image()?.expect("a snapshot is there");
    assert_eq!(stored.hashes, Hashes::of(&stored.image));
    Ok((stored.revision, stored.image, stored.cut.is_some()))
}

#[test]
fn changes_come_back_and_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let images = images(9);
    filled(dir.path(), &images[..5]);
    assert_eq!(stored(dir.path()).unwrap(), (5, images[4].clone(), false));
    let store = Store::new(dir.path());
    store.image().unwrap();
    (5..9).for_each(|i| change(&store, &images, i).unwrap());
    assert!(dir.path().join("image.journal").exists(), "the image was not written anew");
    assert_eq!(stored(dir.path()).unwrap(), (9, images[8].clone(), false));
}

/// Killed, or cut off from power, at every byte.
#[test]
fn a_journal_cut_at_any_byte_leads_to_the_last_whole_change_and_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let images = images(5);
    let ends = filled(dir.path(), &images[..4]);
    let path = dir.path().join("image.journal");
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let last = ends.iter().rposition(|end| *end <= cut).unwrap();
        // A header alone has no change in it.
        let clean = ends[last] == cut || cut == 56;
        assert_eq!(
            stored(dir.path()).unwrap(),
            (last as u64 + 1, images[last].clone(), !clean),
            "cut at {cut}"
        );
        // What was cut is gone, and the next change is found behind the last whole one.
        let store = Store::new(dir.path());
        assert!(cut < 56 || store.image().unwrap().unwrap().cut.is_none());
        drop(store.image().unwrap());
        change(&store, &images, last + 1).unwrap();
        let next = (last as u64 + 2, images[last + 1].clone(), false);
        assert_eq!(stored(dir.path()).unwrap(), next, "cut at {cut}");
    }
}

#[test]
fn a_changed_byte_never_leads_to_another_image() {
    let dir = tempfile::tempdir().unwrap();
    let images = images(4);
    let ends = filled(dir.path(), &images);
    let path = dir.path().join("image.journal");
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1 << (at % 8);
        std::fs::write(&path, &changed).unwrap();
        match stored(dir.path()) {
            // The last record, as when it was not written to its end.
            Ok(found) => assert!(at >= ends[2] && found == (3, images[2].clone(), true), "{at}"),
            Err(e) => assert!(format!("{e:#}").contains("image.journal is damaged"), "{at}: {e:#}"),
        }
    }
    // A whole image mends it.
    std::fs::write(&path, [&[0xff], &whole[1..]].concat()).unwrap();
    let store = Store::new(dir.path());
    assert!(store.image().is_err());
    put(&store, 9, &images[0]);
    assert_eq!(stored(dir.path()).unwrap(), (9, images[0].clone(), false));
}

/// Killed between writing a snapshot and removing the journal that led to it.
#[test]
fn a_journal_of_another_snapshot_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let images = images(4);
    filled(dir.path(), &images);
    let journal = std::fs::read(dir.path().join("image.journal")).unwrap();
    let store = Store::new(dir.path());
    // The same image as the journal starts from, but later: what was revoked in between stays so.
    put(&store, 7, &images[0]);
    std::fs::write(dir.path().join("image.journal"), &journal).unwrap();
    assert_eq!(stored(dir.path()).unwrap(), (7, images[0].clone(), false));
    assert!(!dir.path().join("image.journal").exists());
}

#[test]
fn a_change_that_does_not_fit_on_the_disk_is_written_as_a_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let images = images(5);
    let store = Store::new(dir.path());
    put(&store, 1, &images[0]);
    // Every write to this fails with "no space left on device".
    symlink("/dev/full", dir.path().join("image.journal")).unwrap();
    change(&store, &images, 1).unwrap();
    assert_eq!(stored(dir.path()).unwrap(), (2, images[1].clone(), false));
    // No room for a snapshot either.
    symlink("/dev/full", dir.path().join("image.journal")).unwrap();
    std::fs::create_dir(dir.path().join("image.new")).unwrap();
    change(&store, &images, 2).unwrap_err();
    std::fs::remove_file(dir.path().join("image.journal")).unwrap();
    assert_eq!(stored(dir.path()).unwrap(), (2, images[1].clone(), false), "what was there is whole");
    std::fs::remove_dir(dir.path().join("image.new")).unwrap();
    change(&store, &images, 3).unwrap();
    assert_eq!(stored(dir.path()).unwrap(), (4, images[3].clone(), false));
}

#[test]
fn a_long_journal_becomes_a_snapshot_and_grows_on_while_there_is_no_room_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let image = |i: u32| Image { words: (0..2048).map(|j| i << 20 | j).collect(), ..Image::default() };
    let images: Vec<Image> = (0..40).map(image).collect();
    let store = Store::new(dir.path());
    put(&store, 1, &images[0]);
    let journal = dir.path().join("image.journal");
    let length = || std::fs::metadata(&journal).map_or(0, |file| file.len());
    let mut before = 0;
    let compacted = (1..30).find(|&i| {
        before = length();
        change(&store, &images, i).unwrap();
        length() == 0
    });
    let compacted = compacted.expect("the journal becomes long");
    assert!(before <= SHORT && before > SHORT / 2, "{before}");
    assert_eq!(stored(dir.path()).unwrap(), (compacted as u64 + 1, images[compacted].clone(), false));
    std::fs::create_dir(dir.path().join("image.new")).unwrap();
    (compacted + 1..40).for_each(|i| change(&store, &images, i).unwrap());
    assert!(length() > SHORT);
    assert_eq!(stored(dir.path()).unwrap(), (40, images[39].clone(), false));
}

#[test]
fn a_forgotten_image_is_gone_with_its_changes() {
    let dir = tempfile::tempdir().unwrap();
    let images = images(4);
    filled(dir.path(), &images);
    let store = Store::new(dir.path());
    store.forget_image().unwrap();
    assert!(store.image().unwrap().is_none());
    // A change cannot be remembered alone.
    change(&store, &images, 3).unwrap();
    assert_eq!(stored(dir.path()).unwrap(), (4, images[3].clone(), false));
}
