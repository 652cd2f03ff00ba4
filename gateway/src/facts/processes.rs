//! Which executables run.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sluicegate_api::agent::{Process, process::State};

/// What names a file, whatever it is called: a symbolic link, or a path in a container's own tree of files, is not taken for another.
type FileId = (u64, u64);

/// How each of these executables stands, by what the process table at `proc` says.
pub(super) fn look(paths: &BTreeSet<String>, proc: &Path) -> Vec<Process> {
    if paths.is_empty() {
        return Vec::new();
    }
    let mut states = BTreeMap::new();
    let mut files = BTreeMap::<FileId, Vec<&str>>::new();
    for path in paths {
        let state = match std::fs::metadata(path) {
            Ok(file) => {
                files.entry((file.dev(), file.ino())).or_default().push(path);
                State::Stopped
            }
            Err(error) if error.kind() == ErrorKind::PermissionDenied => State::Hidden,
            Err(_) => State::Absent,
        };
        states.insert(path.as_str(), state);
    }
    let table = Table::read(proc, &files, paths);
    for path in &table.running {
        states.insert(*path, State::Running);
    }
    let state = |(path, state): (&str, State)| {
        let unsure = state == State::Stopped && table.may_hide(path);
        Process { path: path.to_owned(), state: if unsure { State::Hidden } else { state }.into() }
    };
    states.into_iter().map(state).collect()
}

/// What the process table says.
#[derive(Default)]
struct Table<'a> {
    running: BTreeSet<&'a str>,
    /// Names of processes whose executable may not be seen.
    unseen: BTreeSet<Vec<u8>>,
    /// Whether there is no table to be seen at all.
    blind: bool,
}

/// As much of a process's name as the kernel keeps (TASK_COMM_LEN in include/linux/sched.h, without the zero at its end).
const NAME: usize = 15;

impl<'a> Table<'a> {
    fn read(proc: &Path, files: &BTreeMap<FileId, Vec<&'a str>>, paths: &'a BTreeSet<String>) -> Self {
        let mut table = Self::default();
        let Ok(entries) = std::fs::read_dir(proc) else { return Self { blind: true, ..table } };
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
                continue;
            }
            let exe = entry.path().join("exe");
            match std::fs::metadata(&exe) {
                Ok(file) => table.running.extend(files.get(&(file.dev(), file.ino())).into_iter().flatten()),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    let name = std::fs::read(entry.path().join("comm")).unwrap_or_default();
                    table.unseen.insert(name.trim_ascii_end().to_vec());
                }
                Err(_) => {}
            }
            // Replaced by an update, the file at the path is another one than that which runs (proc(5), /proc/pid/exe).
            if let Ok(target) = std::fs::read_link(&exe)
                && let Some(path) = target.to_str().and_then(|target| target.strip_suffix(" (deleted)"))
                && let Some(path) = paths.get(path)
            {
                table.running.insert(path);
            }
        }
        table
    }

    /// Whether an executable may run without being seen: by the name its process would begin with.
    fn may_hide(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or_default().as_bytes();
        self.blind || self.unseen.contains(&name[..name.len().min(NAME)])
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn states(paths: &[&Path], proc: &Path) -> Vec<State> {
        let paths = paths.iter().map(|path| path.to_str().unwrap().to_owned()).collect::<BTreeSet<_>>();
        look(&paths, proc).iter().map(Process::state).collect()
    }

    #[test]
    fn an_executable_runs_is_stopped_or_is_not_there() {
        let own = std::env::current_exe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (link, stopped, absent) = (dir.path().join("1"), dir.path().join("2"), dir.path().join("3"));
        symlink(&own, &link).unwrap();
        std::fs::write(&stopped, "#!/bin/sh").unwrap();
        assert_eq!(states(&[&own], Path::new("/proc")), [State::Running]);
        assert_eq!(
            states(&[&link, &stopped, &absent], Path::new("/proc")),
            [State::Running, State::Stopped, State::Absent]
        );
        assert!(look(&BTreeSet::new(), Path::new("/proc")).is_empty());
    }

    #[test]
    fn one_that_was_replaced_while_it_runs_still_runs_and_a_namesake_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let (proc, replaced, other) = (dir.path().join("proc"), dir.path().join("a"), dir.path().join("b"));
        std::fs::create_dir_all(proc.join("7")).unwrap();
        std::fs::write(&replaced, "new").unwrap();
        std::fs::write(&other, "other").unwrap();
        // As the kernel shows a process whose file is gone: a link whose target is not there.
        symlink(format!("{} (deleted)", replaced.display()), proc.join("7/exe")).unwrap();
        assert_eq!(states(&[&replaced, &other], &proc), [State::Running, State::Stopped]);
    }

    #[test]
    fn only_a_process_of_its_name_can_be_one_that_may_not_be_seen() {
        let unseen = [b"systemd-journal".to_vec(), b"other".to_vec()].into();
        let table = Table { unseen, ..Table::default() };
        assert!(table.may_hide("/usr/lib/systemd/systemd-journald") && table.may_hide("/opt/other"));
        assert!(!table.may_hide("/usr/bin/others") && !table.may_hide("/usr/lib/systemd/systemd-journal/x"));
    }

    #[test]
    fn without_a_process_table_nothing_is_known_to_be_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a");
        std::fs::write(&file, "").unwrap();
        assert_eq!(states(&[&file], &dir.path().join("proc")), [State::Hidden]);
    }
}
