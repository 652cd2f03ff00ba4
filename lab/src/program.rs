//! What to run, and what came of it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::lab::Inner;
use crate::namespace::set_namespace;
use crate::proc::MARK;
use crate::process::Process;

/// A command line and the variables added to the environment.
#[derive(Clone, Debug)]
pub struct Program {
    path: OsString,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
}

impl Program {
    /// The program at `path`, or found on `PATH`.
    pub fn new(path: impl AsRef<OsStr>) -> Self {
        Self { path: path.as_ref().to_owned(), args: Vec::new(), env: Vec::new() }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the environment.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The command in the namespace open as `namespace`, in a process group of its own, marked with the run.
    pub(crate) fn command(&self, run: &str, namespace: Arc<File>) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.args).envs(self.env.iter().map(|(name, value)| (name, value))).env(MARK, run);
        command.process_group(0);
        // SAFETY: between fork and exec the closure makes one system call, on a descriptor it keeps open.
        unsafe { command.pre_exec(move || set_namespace(namespace.as_raw_fd())) };
        command
    }

    pub(crate) fn finish(&self, lab: &Inner, namespace: Arc<File>, timeout: Duration) -> Result<Finished> {
        let mut command = self.command(&lab.run, namespace);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = lab.adopt(|| Process::start(&self.name(), command))?;
        let (stdout, stderr) = process.take_output();
        let readers = [read_all(stdout), read_all(stderr)];
        let status = process.wait(timeout);
        // Whether in time or not, nobody may hold the pipes any more, else the readers would wait.
        process.kill();
        let [stdout, stderr] = readers.map(|reader| reader.join().unwrap_or_default());
        Ok(Finished { command: self.to_string(), status, stdout, stderr })
    }

    fn name(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.path.to_string_lossy())?;
        self.args.iter().try_for_each(|arg| write!(f, " {}", arg.to_string_lossy()))
    }
}

/// What a program left.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The command line.
    pub command: String,
    /// How it ended; `None` when it was killed for taking too long.
    pub status: Option<ExitStatus>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Whether it ended in time and with exit code 0.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status.is_some_and(|status| status.success())
    }

    /// The standard output of a success.
    ///
    /// # Errors
    /// With the command and what it said, otherwise.
    pub fn output(self) -> Result<String> {
        if self.success() {
            return Ok(self.stdout);
        }
        let how = self.status.map_or("took too long".to_owned(), |status| format!("failed ({status})"));
        let said = format!("{}\n{}", self.stdout.trim(), self.stderr.trim());
        bail!("`{}` {how}: {}", self.command, said.trim())
    }

    /// The standard output of a success, as JSON.
    ///
    /// # Errors
    /// When it failed or wrote something else.
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T> {
        let command = self.command.clone();
        let text = self.output()?;
        serde_json::from_str(&text).with_context(|| format!("`{command}` wrote something unexpected: {text}"))
    }
}

fn read_all(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What was read before an error is still worth showing.
            let _ = pipe.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
