//! A PostgreSQL server of this test binary's own: data in a temporary directory, reached by a socket in it, gone with the
//! process. One that the machine runs is not touched.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A server that accepts connections; without this it ends.
pub(crate) struct Server {
    pub(crate) directory: PathBuf,
    _shell: Child,
}

/// Ends the server and removes its data when the test process is gone, however it went: then its end of the pipe closes.
const KEEPER: &str = r#"
"$1/initdb" --pgdata="$2/data" --auth=trust --username=postgres --encoding=UTF8 --locale=C --no-sync >"$2/log" 2>&1 ||
    { cat "$2/log"; exit 1; }
programs=$1 directory=$2
shift 2
"$programs/postgres" -D "$directory/data" -k "$directory" -c fsync=off -c max_connections=300 -c shared_buffers=32MB "$@" \
    >>"$directory/log" 2>&1 &
server=$!
until "$programs/pg_isready" --quiet --host="$directory" --port="${PGPORT:-5432}"; do
    kill -0 $server 2>/dev/null || { cat "$directory/log"; exit 1; }
    sleep 0.05
done
echo ready
read -r _
kill -QUIT $server
wait $server
rm -rf "$directory"
"#;

/// The URL of a database that nothing else uses.
pub(crate) fn database() -> String {
    static SERVER: OnceLock<Server> = OnceLock::new();
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let server = SERVER.get_or_init(|| start(5432, |_| vec!["-c".into(), "listen_addresses=".into()]));
    let name = format!("test{}", COUNT.fetch_add(1, Ordering::Relaxed));
    psql(&server.directory, &format!("CREATE DATABASE {name}"));
    format!("postgres://postgres@localhost/{name}?host={}", server.directory.display())
}

/// Runs a script as the server's superuser.
pub(crate) fn psql(socket: &Path, text: &str) -> String {
    let mut child = Command::new("psql")
        .args(["--quiet", "--no-psqlrc", "--tuples-only", "--no-align", "-v", "ON_ERROR_STOP=1"])
        .args(["--username=postgres", "--dbname=postgres", "--host"])
        .arg(socket)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{text}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Starts a server. `prepare` makes files in its directory, which become its own, and gives further arguments.
pub(crate) fn start(port: u16, prepare: impl FnOnce(&Path) -> Vec<String>) -> Server {
    let programs = programs();
    let directory = tempfile::Builder::new().prefix("sluicegate-pg-").tempdir().unwrap().keep();
    let mut command = Command::new("sh");
    command.arg("-c").arg(KEEPER).arg("keeper").arg(programs).arg(&directory).args(prepare(&directory));
    command.current_dir("/").env("PGPORT", port.to_string());
    // PostgreSQL refuses to run as root.
    if let Some((user, group)) = unprivileged() {
        let files = std::fs::read_dir(&directory).unwrap().map(|file| file.unwrap().path());
        for path in files.chain([directory.clone()]) {
            chown(path, Some(user), Some(group)).unwrap();
        }
        command.uid(user).gid(group);
    }
    // A group of its own: Ctrl-C ends the tests, and then the keeper ends the server.
    let command = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut shell = command.spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(shell.stdout.take().unwrap()).lines();
    loop {
        match lines.next() {
            Some(Ok(line)) if line == "ready" => break,
            Some(Ok(line)) => said += &format!("{line}\n"),
            _ => panic!("PostgreSQL did not start:\n{said}"),
        }
    }
    Server { directory, _shell: shell }
}

/// The newest server's programs; Debian keeps them out of `PATH`.
fn programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").exists())
        .max_by_key(version);
    match newest {
        Some(path) => path.join("bin"),
        None => panic!(
            "there is no PostgreSQL server in /usr/lib/postgresql: run `cargo xtask setup`, which installs it"
        ),
    }
}

/// Whom to become, when this is root.
fn unprivileged() -> Option<(u32, u32)> {
    let own = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).unwrap();
    if own != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let user = |wanted: &str| {
        let mut fields = users
            .lines()
            .map(|line| line.split(':'))
            .find(|line| line.clone().next() == Some(wanted))?
            .skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    user("postgres").or_else(|| user("nobody"))
}
