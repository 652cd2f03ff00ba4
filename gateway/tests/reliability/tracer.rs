//! A process that is stopped behind each of its calls of bpf(2), by which it loads, attaches, pins and writes maps, and behind each
//! that removes or renames a file, as pins and what is remembered are. What it stores in maps that it has mapped into its memory, the
//! words of an image and the one that publishes them, is no call and so no step, and what it asks for by netlink is none either.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A call that is a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Of bpf(2), with this command: a number of `enum bpf_cmd`.
    Bpf(u64),
    /// One that takes a name away from a file, or a directory.
    Remove,
    /// One that gives a file another name.
    Rename,
}

/// A process traced by the thread that started it: nothing here may be called by another. It is killed with this.
pub(crate) struct Traced {
    pid: libc::pid_t,
    /// Each thread's call that has begun and is a step; threads that were not seen yet have no entry.
    threads: HashMap<libc::pid_t, Option<Call>>,
    /// The thread that stands still.
    stopped: Option<libc::pid_t>,
}

impl Traced {
    /// Starts `program` with `args`, stopped before its first instruction. What it writes goes to `log`.
    pub(crate) fn start(program: &str, args: &[String], log: &Path) -> io::Result<Self> {
        let log = File::create(log)?;
        let mut command = Command::new(program);
        command.args(args).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // SAFETY: between fork and exec the closure makes one system call.
        unsafe {
            command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            });
        }
        let pid = libc::pid_t::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
        let traced = Self { pid, threads: HashMap::from([(pid, None)]), stopped: Some(pid) };
        let (_, status) = wait()?;
        assert!(libc::WIFSTOPPED(status), "it ended before it began: {status:#x}");
        let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
        // SAFETY: the process is stopped and traced by this thread.
        if unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(traced)
    }

    /// Runs on until the end of its next call that is a step, and says which that was. The thread that made it stands still from
    /// then on; others may go on to calls of their own, where they wait to be told of. `None` when the process has ended.
    pub(crate) fn step(&mut self) -> io::Result<Option<Call>> {
        if let Some(thread) = self.stopped.take() {
            resume(thread, 0)?;
        }
        loop {
            let (thread, status) = match wait() {
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(None),
                other => other?,
            };
            if !libc::WIFSTOPPED(status) {
                self.threads.remove(&thread);
                continue;
            }
            let signal = libc::WSTOPSIG(status);
            let known = self.threads.contains_key(&thread);
            let call = self.threads.entry(thread).or_default();
            match signal {
                // A new thread begins with a stop that nobody sent it.
                libc::SIGSTOP if !known => resume(thread, 0)?,
                _ if signal == libc::SIGTRAP | 0x80 => match (begun(thread)?, call.take()) {
                    (Some(entered), _) => {
                        *call = entered;
                        resume(thread, 0)?;
                    }
                    (None, Some(done)) => {
                        self.stopped = Some(thread);
                        return Ok(Some(done));
                    }
                    (None, None) => resume(thread, 0)?,
                },
                // A thread was made.
                libc::SIGTRAP => resume(thread, 0)?,
                signal => resume(thread, signal)?,
            }
        }
    }

    /// Kills it where it stands, and waits until all of it is gone.
    pub(crate) fn kill(self) {}
}

impl Drop for Traced {
    fn drop(&mut self) {
        // SAFETY: a plain system call on a process that only this thread waits for.
        unsafe { libc::kill(self.pid, libc::SIGKILL) };
        while let Ok((thread, status)) = wait() {
            // On the way to its death a thread stops once more where it was traced.
            if libc::WIFSTOPPED(status) {
                let _ = resume(thread, 0);
            }
        }
    }
}

/// The next thing that happens to a thread this one traces.
fn wait() -> io::Result<(libc::pid_t, i32)> {
    let mut status = 0;
    // SAFETY: the status lives through the call. Children of other threads are left to those.
    let thread = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    if thread < 0 { Err(io::Error::last_os_error()) } else { Ok((thread, status)) }
}

/// Lets a thread run on to the next begin or end of a system call.
fn resume(thread: libc::pid_t, signal: i32) -> io::Result<()> {
    // SAFETY: the thread is stopped and traced by this one.
    let done = unsafe { libc::ptrace(libc::PTRACE_SYSCALL, thread, 0, signal) };
    match io::Error::last_os_error() {
        // It was killed meanwhile, which a wait tells.
        error if done != 0 && error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

/// Of a thread stopped at the begin of a system call: `Some`, with the call where it is a step. `None` at its end.
fn begun(thread: libc::pid_t) -> io::Result<Option<Option<Call>>> {
    // SAFETY: plain old data for which zeros are valid, and which the call fills as far as it says.
    unsafe {
        let mut info: libc::ptrace_syscall_info = std::mem::zeroed();
        let size = size_of::<libc::ptrace_syscall_info>();
        if libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info) < 0 {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(libc::ESRCH) { Ok(None) } else { Err(error) };
        }
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return Ok(None);
        }
        let entry = info.u.entry;
        Ok(Some(as_step(entry.nr as libc::c_long, entry.args[0])))
    }
}

fn as_step(number: libc::c_long, first: u64) -> Option<Call> {
    match number {
        libc::SYS_bpf => Some(Call::Bpf(first)),
        libc::SYS_unlinkat => Some(Call::Remove),
        libc::SYS_renameat | libc::SYS_renameat2 => Some(Call::Rename),
        // Other architectures have no more than those.
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink | libc::SYS_rmdir => Some(Call::Remove),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => Some(Call::Rename),
        _ => None,
    }
}

/// Whether a call changes what outlives the process that made it: pins, links, what pinned maps hold, and files.
pub(crate) fn changes(call: Call) -> bool {
    matches!(
        &*name(call),
        "removal"
            | "renaming"
            | "MAP_UPDATE_ELEM"
            | "MAP_DELETE_ELEM"
            | "MAP_LOOKUP_AND_DELETE_ELEM"
            | "MAP_LOOKUP_AND_DELETE_BATCH"
            | "MAP_UPDATE_BATCH"
            | "MAP_DELETE_BATCH"
            | "OBJ_PIN"
            | "PROG_ATTACH"
            | "PROG_DETACH"
            | "LINK_CREATE"
            | "LINK_UPDATE"
            | "LINK_DETACH"
    )
}

/// What a call is called: a command as in `enum bpf_cmd`.
pub(crate) fn name(call: Call) -> String {
    const NAMES: [&str; 36] = [
        "MAP_CREATE",
        "MAP_LOOKUP_ELEM",
        "MAP_UPDATE_ELEM",
        "MAP_DELETE_ELEM",
        "MAP_GET_NEXT_KEY",
        "PROG_LOAD",
        "OBJ_PIN",
        "OBJ_GET",
        "PROG_ATTACH",
        "PROG_DETACH",
        "PROG_TEST_RUN",
        "PROG_GET_NEXT_ID",
        "MAP_GET_NEXT_ID",
        "PROG_GET_FD_BY_ID",
        "MAP_GET_FD_BY_ID",
        "OBJ_GET_INFO_BY_FD",
        "PROG_QUERY",
        "RAW_TRACEPOINT_OPEN",
        "BTF_LOAD",
        "BTF_GET_FD_BY_ID",
        "TASK_FD_QUERY",
        "MAP_LOOKUP_AND_DELETE_ELEM",
        "MAP_FREEZE",
        "BTF_GET_NEXT_ID",
        "MAP_LOOKUP_BATCH",
        "MAP_LOOKUP_AND_DELETE_BATCH",
        "MAP_UPDATE_BATCH",
        "MAP_DELETE_BATCH",
        "LINK_CREATE",
        "LINK_UPDATE",
        "LINK_GET_FD_BY_ID",
        "LINK_GET_NEXT_ID",
        "ENABLE_STATS",
        "ITER_CREATE",
        "LINK_DETACH",
        "PROG_BIND_MAP",
    ];
    let command = match call {
        Call::Bpf(command) => command,
        Call::Remove => return "removal".to_owned(),
        Call::Rename => return "renaming".to_owned(),
    };
    let known = usize::try_from(command).ok().and_then(|command| NAMES.get(command));
    known.map_or_else(|| format!("command {command}"), |name| (*name).to_owned())
}
