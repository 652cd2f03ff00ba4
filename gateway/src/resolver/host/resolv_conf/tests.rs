//! The file, whatever it was before and whoever else writes it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::super::super::wanted::name;
use super::kept::{copy, kept};
use super::*;

const BEFORE: &str =
    "# of a person\nsearch old.test corp.test.\nnameserver 192.0.2.53\noptions edns0 timeout:2\n";

struct World {
    dir: TempDir,
    path: PathBuf,
    state: TempDir,
}

impl World {
    /// A directory whose resolv.conf says `before`.
    fn new(before: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("resolv.conf");
        fs::write(&path, before).unwrap();
        Self { dir, path, state: tempfile::tempdir().unwrap() }
    }

    /// A run of the agent.
    fn run(&self) -> ResolvConf {
        self.restore().unwrap();
        ResolvConf::new(&self.path, self.state.path())
    }

    fn restore(&self) -> io::Result<Restored> {
        restore(&self.path, self.state.path())
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.path).unwrap()
    }

    /// Nothing is left beside the file itself, nor in the state directory.
    fn is_clean(&self) -> bool {
        let count = |dir: &TempDir| fs::read_dir(dir.path()).unwrap().count();
        (count(&self.dir), count(&self.state)) == (1, 0)
    }
}

fn wish() -> Wish {
    Wish {
        servers: ["100.90.0.7:53", "[fd5c::7]:53", "127.0.0.1:5353"].map(|s| s.parse().unwrap()).into(),
        search: ["peers.test", "corp.test"].map(|domain| name(domain).unwrap()).into(),
        domains: Vec::new(),
        all: false,
    }
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn the_host_asks_the_agent_while_it_answers_and_then_whom_it_asked_before() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    assert_eq!(file.set(Some(&wish())), None);
    assert!(file.is_set());
    let expected = [
        "search peers.test corp.test old.test",
        "nameserver 100.90.0.7",
        "nameserver fd5c::7",
        "options edns0 timeout:2",
    ];
    assert_eq!(lines(&world.text()), expected);
    assert_eq!(original(&world.path).unwrap(), BEFORE.as_bytes(), "who was asked before is still known");
    let other = Wish { search: Vec::new(), ..wish() };
    assert_eq!(file.set(Some(&other)), None);
    assert_eq!(lines(&world.text())[0], "search old.test corp.test");
    assert_eq!(file.set(None), None);
    assert_eq!(world.text(), BEFORE);
    assert!(world.is_clean() && !file.is_set());
}

#[test]
fn a_run_that_was_killed_is_cleared_up_after_by_the_next_one() {
    let world = World::new(BEFORE);
    for _ in 0..3 {
        let mut killed = world.run();
        killed.set(Some(&wish()));
        assert_ne!(world.text(), BEFORE);
    }
    drop(world.run());
    assert_eq!(world.text(), BEFORE);
    assert!(world.is_clean());
    assert_eq!(world.restore().unwrap(), Restored::Nothing, "a person's file is nothing to restore");
}

#[test]
fn a_kill_between_the_two_writes_leaves_what_was_there() {
    let world = World::new(BEFORE);
    kept::keep(&world.path, world.state.path()).unwrap();
    fs::write(&world.path, "nameserver 192.0.2.54\n").unwrap();
    let mut file = world.run();
    assert_eq!(world.text(), "nameserver 192.0.2.54\n");
    file.set(Some(&wish()));
    file.set(None);
    assert_eq!(world.text(), "nameserver 192.0.2.54\n", "what was kept is older than the file");
}

#[test]
fn what_another_program_wrote_is_left_alone_and_is_what_was_there_before_from_then_on() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    file.set(Some(&wish()));
    let others = "nameserver 192.0.2.99\n";
    fs::write(&world.path, others).unwrap();
    for _ in 0..2 {
        let sentence = file.set(Some(&wish())).unwrap();
        assert!(sentence.contains("another program has written"), "{sentence}");
        assert_eq!(world.text(), others);
        assert!(!file.is_set());
    }
    assert_eq!(file.set(None), None);
    assert_eq!(world.text(), others);
    assert!(world.is_clean(), "nobody puts the older one back");
    let mut next = world.run();
    assert_eq!(next.set(Some(&wish())), None);
    assert_eq!(original(&world.path).unwrap(), others.as_bytes());
    next.set(None);
    assert_eq!(world.text(), others);
}

#[test]
fn a_change_right_before_the_end_stays() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    file.set(Some(&wish()));
    fs::write(&world.path, "nameserver 192.0.2.99\n").unwrap();
    assert_eq!(file.set(None), None);
    assert_eq!(world.text(), "nameserver 192.0.2.99\n");
    assert!(world.is_clean());
}

#[test]
fn what_somebody_changed_of_the_agents_file_is_his_until_the_agent_stops_and_is_saved_then() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    file.set(Some(&wish()));
    let changed = world.text() + "options debug\n";
    fs::write(&world.path, &changed).unwrap();
    for _ in 0..2 {
        let sentence = file.set(Some(&wish())).unwrap();
        assert!(sentence.contains("has changed what this agent wrote"), "{sentence}");
        assert_eq!(world.text(), changed);
    }
    assert_eq!(original(&world.path).unwrap(), BEFORE.as_bytes(), "never is that what was there before");
    assert_eq!(file.set(None), None);
    assert_eq!(world.text(), BEFORE, "its servers answer no more");
    let saved = world.path.with_file_name("resolv.conf.changed-sluicegate");
    assert_eq!(fs::read_to_string(&saved).unwrap(), changed);
    fs::remove_file(saved).unwrap();
    assert!(world.is_clean());
}

#[test]
fn what_somebody_changed_of_a_killed_agents_file_is_saved_and_put_back_by_the_next_run() {
    let edits: [fn(&str) -> String; 3] = [
        |text| text.to_owned() + "options debug\n",
        |text| text.replace("100.90.0.7", "192.0.2.1"),
        // Without the line that says whose it is.
        |text| {
            text.lines()
                .filter(|line| !line.starts_with("# ") || line.starts_with("# W"))
                .fold(String::new(), |all, line| all + line + "\n")
        },
    ];
    for edit in edits {
        let world = World::new(BEFORE);
        world.run().set(Some(&wish()));
        let changed = edit(&world.text());
        assert_ne!(changed, world.text());
        fs::write(&world.path, &changed).unwrap();
        let Restored::Saved(saved) = world.restore().unwrap() else { panic!("{changed}") };
        assert_eq!(fs::read_to_string(saved).unwrap(), changed);
        assert_eq!(world.text(), BEFORE);
    }
}

#[test]
fn what_was_there_before_is_not_forgotten_because_the_file_is_taken_away() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    file.set(Some(&wish()));
    fs::remove_file(&world.path).unwrap();
    assert!(file.set(Some(&wish())).is_some());
    assert_eq!(file.set(None), None);
    assert!(kept(&world.path).exists() && !world.path.exists());
    let mut next = world.run();
    assert_eq!(next.set(Some(&wish())), None);
    assert_eq!(next.set(None), None);
    assert_eq!(world.text(), BEFORE);
    assert!(world.is_clean());
}

#[test]
fn what_was_there_before_is_put_back_though_all_beside_the_file_was_lost() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    file.set(Some(&wish()));
    fs::remove_file(kept(&world.path)).unwrap();
    assert_eq!(original(&world.path).unwrap(), BEFORE.as_bytes());
    assert_eq!(file.set(Some(&wish())), None);
    assert_eq!(world.restore().unwrap(), Restored::PutBack);
    assert_eq!(world.text(), BEFORE);
    assert!(world.is_clean());
}

#[test]
fn what_could_not_be_put_back_is_said_and_tried_until_it_is() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    file.set(Some(&wish()));
    let written = world.text();
    // A directory where the file is made anew.
    let obstacle = world.path.with_file_name("resolv.conf.sluicegate-new");
    fs::create_dir(&obstacle).unwrap();
    for _ in 0..2 {
        let sentence = file.set(None).unwrap();
        assert!(sentence.contains("cannot be put back as it was"), "{sentence}");
        assert_eq!(world.text(), written);
    }
    fs::remove_dir(obstacle).unwrap();
    assert_eq!(file.set(None), None);
    assert_eq!(world.text(), BEFORE);
    assert!(world.is_clean());
}

#[test]
fn the_file_of_another_agent_is_left_alone() {
    let world = World::new(BEFORE);
    let mut first = world.run();
    first.set(Some(&wish()));
    let theirs = world.text();
    let whose = Restored::Another(world.state.path().to_str().unwrap().into());
    assert_eq!(restore(&world.path, Path::new("/other state")).unwrap(), whose);
    let mut second = ResolvConf::new(&world.path, Path::new("/other state"));
    let sentence = second.set(Some(&wish())).unwrap();
    assert!(sentence.contains(&format!("the agent of {}", world.state.path().display())), "{sentence}");
    second.set(None);
    assert_eq!(world.text(), theirs);
    first.set(None);
    assert_eq!(world.text(), BEFORE);
}

#[test]
fn a_link_is_replaced_itself_and_put_back_and_where_it_leads_is_never_written() {
    let world = World::new(BEFORE);
    let target = world.dir.path().join("stub.conf");
    fs::rename(&world.path, &target).unwrap();
    symlink("stub.conf", &world.path).unwrap();
    let mut killed = world.run();
    assert_eq!(killed.set(Some(&wish())), None);
    assert!(!fs::symlink_metadata(&world.path).unwrap().is_symlink());
    assert_eq!(original(&world.path).unwrap(), BEFORE.as_bytes());
    assert_eq!(original_path(&world.path), target);
    let later = "nameserver 192.0.2.77\noptions rotate\n";
    fs::write(&target, later).unwrap();
    assert_eq!(original(&world.path).unwrap(), later.as_bytes(), "whoever has that file writes it on");
    assert_eq!(killed.set(Some(&wish())), None);
    assert_eq!(lines(&world.text()).last(), Some(&"options rotate"));
    let away = target.with_extension("away");
    fs::rename(&target, &away).unwrap();
    assert_eq!(original(&world.path).unwrap(), BEFORE.as_bytes(), "as it was when it was there");
    fs::rename(&away, &target).unwrap();
    drop(world.run());
    assert_eq!(fs::read_link(&world.path).unwrap(), Path::new("stub.conf"));
    assert_eq!(fs::read_to_string(&target).unwrap(), later);
    assert_eq!(original_path(&world.path), world.path);
}

#[test]
fn where_there_was_nothing_there_is_nothing_again() {
    let world = World::new("");
    fs::remove_file(&world.path).unwrap();
    let mut file = world.run();
    assert_eq!(file.set(Some(&wish())), None);
    assert_eq!(lines(&world.text()).len(), 3);
    file.set(None);
    assert_eq!(fs::read_dir(world.dir.path()).unwrap().count(), 0);
}

#[test]
fn bytes_and_permissions_come_back_as_they_were() {
    let world = World::new("");
    let bytes = b"# caf\xe9\nnameserver 192.0.2.53";
    fs::write(&world.path, bytes).unwrap();
    fs::set_permissions(&world.path, fs::Permissions::from_mode(0o640)).unwrap();
    let mut file = world.run();
    file.set(Some(&wish()));
    assert_eq!(fs::metadata(&world.path).unwrap().permissions().mode() & 0o777, 0o644, "everybody reads it");
    file.set(None);
    assert_eq!(fs::read(&world.path).unwrap(), bytes);
    assert_eq!(fs::metadata(&world.path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn the_host_asks_nobody_whom_the_c_library_cannot_ask() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    let elsewhere = Wish { servers: vec!["127.0.0.1:5353".parse().unwrap()], ..wish() };
    file.set(Some(&elsewhere));
    assert_eq!(world.text(), BEFORE);
    file.set(Some(&wish()));
    file.set(Some(&elsewhere));
    assert_eq!(world.text(), BEFORE);
    assert!(world.is_clean() && !file.is_set());
}

#[test]
fn where_what_was_there_before_is_lost_that_is_said() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    file.set(Some(&wish()));
    let written = world.text();
    fs::remove_file(kept(&world.path)).unwrap();
    fs::remove_file(copy(&world.path, world.state.path())).unwrap();
    let sentence = file.set(Some(&wish())).unwrap();
    assert!(sentence.contains("what was there before is not in"), "{sentence}");
    assert_eq!(world.text(), written);
    assert!(world.restore().is_err(), "and the next run says so, too");
}

#[test]
fn more_domains_than_are_read_are_left_out_the_hosts_own_first() {
    let world = World::new(BEFORE);
    let mut file = world.run();
    let search = (0..5).map(|n| name(&format!("d{n}.test")).unwrap()).collect();
    file.set(Some(&Wish { search, ..wish() }));
    assert_eq!(lines(&world.text())[0], "search d0.test d1.test d2.test d3.test d4.test old.test");
}

#[test]
fn a_file_that_cannot_be_written_is_said_and_the_host_goes_on_as_before() {
    let world = World::new(BEFORE);
    // A directory where what was there is to be kept.
    fs::create_dir(kept(&world.path)).unwrap();
    fs::write(kept(&world.path).join("x"), "").unwrap();
    let mut file = world.run();
    let sentence = file.set(Some(&wish())).unwrap();
    assert!(sentence.contains("cannot be written") && sentence.contains("[dns] host"), "{sentence}");
    assert_eq!(world.text(), BEFORE);
    assert!(!file.is_set());
}

/// Runs `test` where mounts are its own.
fn in_mount_namespace(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // SAFETY: plain system calls, which change this thread alone; the strings live as long as they are read.
            unsafe {
                assert_eq!(libc::unshare(libc::CLONE_NEWNS), 0, "this test needs root, for mounts");
                let (root, none) = (c"/".as_ptr(), std::ptr::null());
                let private = libc::MS_REC | libc::MS_PRIVATE;
                assert_eq!(libc::mount(none, root, none, private, std::ptr::null()), 0);
            }
            test();
        });
    });
}

#[test]
fn a_file_that_is_mounted_by_itself_is_written_in_its_place() {
    in_mount_namespace(|| {
        let world = World::new(BEFORE);
        let long = BEFORE.to_owned() + &"# and more\n".repeat(100);
        fs::write(&world.path, &long).unwrap();
        let text = std::ffi::CString::new(world.path.to_str().unwrap()).unwrap();
        let none = std::ptr::null();
        // SAFETY: both names are the same string, which lives until the end.
        let mounted =
            unsafe { libc::mount(text.as_ptr(), text.as_ptr(), none, libc::MS_BIND, std::ptr::null()) };
        assert_eq!(mounted, 0);
        let mut killed = world.run();
        assert_eq!(killed.set(Some(&wish())), None);
        assert_eq!(lines(&world.text())[1], "nameserver 100.90.0.7");
        let mut file = world.run();
        assert_eq!(world.text(), long);
        file.set(Some(&wish()));
        assert_eq!(file.set(None), None);
        assert_eq!(world.text(), long);
        // SAFETY: as above.
        unsafe { libc::umount(text.as_ptr()) };
    });
}
