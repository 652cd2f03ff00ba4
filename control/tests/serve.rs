//! The binary as it is started and stopped: readiness, the sentences it ends with, and signals.
#![expect(clippy::unwrap_used, reason = "every line of this crate is test code; a panic is how it fails")]

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use sluicegate_control::store::{Actor, Enrollment, NewSetupKey, Role, Store};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};

fn serve(data_dir: &Path, http: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate-control"));
    command.args(["serve", "--http", http, "--grpc", "127.0.0.1:0", "--data-dir"]).arg(data_dir);
    command.env_clear().stderr(Stdio::piped());
    command
}

/// Starts it and reads its log until it is ready; the address of REST.
fn ready(data_dir: &Path) -> (Child, String) {
    until_ready(serve(data_dir, "127.0.0.1:0"))
}

fn until_ready(mut command: Command) -> (Child, String) {
    let mut child = command.spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("control is ready") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it ended before it was ready");
    }
    // Whatever follows is read away, so that it never waits for us.
    std::thread::spawn(move || log.lines().map_while(Result::ok).for_each(drop));
    let http = line.split_whitespace().find_map(|word| word.strip_prefix("http=")).unwrap().to_owned();
    (child, http)
}

fn signal(child: &mut Child, name: &str) -> Option<i32> {
    let sent = Command::new("kill").args([name, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    child.wait().unwrap().code()
}

/// The one sentence a start ends with.
fn refusal(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let sentences: Vec<&str> = text.lines().filter(|line| line.starts_with("sluicegate-control: ")).collect();
    assert_eq!(sentences.len(), 1, "{text}");
    sentences[0].to_owned()
}

#[test]
fn it_ends_cleanly_on_sigterm_and_sigint_and_starts_again_after_sigkill() {
    let directory = tempfile::tempdir().unwrap();
    for (name, code) in [("-TERM", Some(0)), ("-INT", Some(0)), ("-KILL", None), ("-TERM", Some(0))] {
        let (mut child, _) = ready(directory.path());
        assert_eq!(signal(&mut child, name), code, "{name}");
    }
}

#[test]
fn a_second_process_on_the_same_data_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (mut child, _) = ready(directory.path());
    let refusal = refusal(&serve(directory.path(), "127.0.0.1:0").output().unwrap());
    assert!(
        refusal.contains("in use by another control process") && refusal.contains("--data-dir"),
        "{refusal}"
    );
    assert_eq!(signal(&mut child, "-TERM"), Some(0));
}

#[test]
fn a_taken_port_is_named_and_nothing_is_left_behind() {
    let directory = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data_dir = directory.path().join("new");
    let refusal = refusal(&serve(&data_dir, &address).output().unwrap());
    assert!(refusal.contains(&address) && refusal.contains("--http"), "{refusal}");
    assert!(!data_dir.exists());
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let refusal = refusal(&serve(&file.join("data"), "127.0.0.1:0").output().unwrap());
    assert!(refusal.contains("cannot be written") && refusal.contains("file/data"), "{refusal}");
}

/// Asks for what anyone may see, as a proxy on this host that speaks for `client`; the status.
fn proxied(http: &str, client: &str) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    let request = format!(
        "GET /api/instance HTTP/1.1\r\nHost: control\r\nX-Forwarded-For: 203.0.113.7, {client}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).unwrap().to_owned()
}

#[test]
fn clients_behind_a_trusted_proxy_are_limited_each_and_those_behind_another_together() {
    for (trusted, other) in [("[\"127.0.0.0/8\"]", "200"), ("[]", "429")] {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("control.toml");
        std::fs::write(&config, format!("[rest]\nburst = 20\ntrusted_proxies = {trusted}\n")).unwrap();
        let mut command = serve(directory.path(), "127.0.0.1:0");
        command.arg("--config").arg(&config);
        let (mut child, http) = until_ready(command);
        let statuses: Vec<String> = (0..4).map(|_| proxied(&http, "192.0.2.1")).collect();
        assert_eq!((statuses[0].as_str(), statuses[3].as_str()), ("200", "429"), "{statuses:?}");
        assert_eq!(proxied(&http, "192.0.2.2"), other, "{trusted}");
        assert_eq!(signal(&mut child, "-TERM"), Some(0));
    }
}

/// Tries to log in, as a proxy on this host that speaks for `client`; the answer's head and body.
fn log_in(http: &str, client: &str, email: &str, password: &str) -> String {
    post(http, client, "/api/login/password", &format!(r#"{{"email":"{email}","password":"{password}"}}"#))
}

fn post(http: &str, client: &str, path: &str, body: &str) -> String {
    let mut stream = TcpStream::connect(http).unwrap();
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: control\r\nX-Forwarded-For: {client}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn guesses_through_a_trusted_proxy_keep_a_user_out_nowhere_he_has_been() {
    const PASSWORD: &str = "correct horse battery";
    let accepted = |answer: String| answer.starts_with("HTTP/1.1 200 ");
    for (trusted, home) in [("[\"127.0.0.0/8\"]", true), ("[]", false)] {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("control.toml");
        let text = format!(
            "[rest]\nburst = 0\ntrusted_proxies = {trusted}\n[local_users]\nenabled = true\nopen_setup = true\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut command = serve(directory.path(), "127.0.0.1:0");
        command.arg("--config").arg(&config);
        let (mut child, http) = until_ready(command);
        let first = format!(r#"{{"email":"own@example.org","password":"{PASSWORD}","name":"Olga"}}"#);
        assert!(accepted(post(&http, "192.0.2.7", "/api/setup", &first)));
        assert!(accepted(log_in(&http, "192.0.2.7", "own@example.org", PASSWORD)));
        assert!(accepted(log_in(&http, "2001:db8::7", "own@example.org", PASSWORD)));
        let mut answers = BTreeSet::new();
        for bot in 0..22 {
            let client =
                if bot % 2 == 0 { format!("198.51.100.{bot}") } else { format!("2001:db8:b07:{bot}::1") };
            for email in ["own@example.org", "nobody@example.org"] {
                let answer = log_in(&http, &client, email, "wrong password");
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                answers.insert((head.lines().next().unwrap().to_owned(), body.to_owned()));
            }
        }
        assert_eq!(answers.len(), 1, "nobody learns who is there, or in a pause: {answers:?}");
        assert_eq!(accepted(log_in(&http, "192.0.2.7", "own@example.org", PASSWORD)), home, "{trusted}");
        assert_eq!(accepted(log_in(&http, "2001:db8::9", "own@example.org", PASSWORD)), home, "{trusted}");
        assert!(!accepted(log_in(&http, "198.51.100.99", "own@example.org", PASSWORD)));
        assert_eq!(signal(&mut child, "-TERM"), Some(0));
    }
}

fn maintain(verb: &str, file: &Path, data_dir: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluicegate-control"));
    command.arg(verb).arg(file).arg("--data-dir").arg(data_dir).env_clear().output().unwrap()
}

#[test]
fn a_backup_is_taken_while_it_runs_and_put_back_while_it_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("backup.db");
    let (mut child, _) = ready(directory.path());
    let taken = maintain("backup", &file, directory.path());
    let said = String::from_utf8_lossy(&taken.stdout);
    assert!(
        taken.status.success() && said.contains("as of revision 1") && said.contains("ca.key"),
        "{taken:?}"
    );
    let running = refusal(&maintain("restore", &file, directory.path()));
    assert!(running.contains("in use by another control process"), "{running}");
    assert_eq!(signal(&mut child, "-KILL"), None);

    let restored = maintain("restore", &file, directory.path());
    let said = String::from_utf8_lossy(&restored.stdout);
    assert!(restored.status.success() && said.contains("before-restore"), "{restored:?}");
    let (mut child, _) = ready(directory.path());
    assert_eq!(signal(&mut child, "-TERM"), Some(0));
    let other = tempfile::tempdir().unwrap();
    let (mut child, _) = ready(other.path());
    assert_eq!(signal(&mut child, "-TERM"), Some(0));
    let foreign = refusal(&maintain("restore", &file, other.path()));
    assert!(foreign.contains("ca.pem") && foreign.contains("sha256:"), "{foreign}");
}

#[test]
fn a_store_that_cannot_be_reached_is_named_in_one_sentence() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = serve(directory.path(), "127.0.0.1:0");
    command
        .args(["--store", "postgres://control@127.0.0.1:1/x"])
        .env("SLUICEGATE_CONTROL_STORE_PASSWORD", "secret");
    let refusal = refusal(&command.output().unwrap());
    assert!(
        refusal.contains("postgres://control@127.0.0.1:1/x") && refusal.contains("cannot be reached"),
        "{refusal}"
    );
    assert!(!refusal.contains("secret"), "{refusal}");
}

/// What is stored of connections is from before the stop: agents get as long to come back as they may stay away.
#[tokio::test]
async fn a_start_removes_no_ephemeral_peer_before_it_could_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).await.unwrap();
    let key = NewSetupKey { name: "k".into(), reusable: true, ephemeral: true, ..NewSetupKey::default() };
    let (_, setup_key) = store.create_setup_key(&Actor::system(), key).await.unwrap();
    let enrollment = Enrollment {
        setup_key,
        wireguard_public_key: [1; 32],
        identity_key: [1; 32],
        role: Role::Peer,
        hostname: "runner".into(),
        os: String::new(),
        kernel_version: String::new(),
        version: String::new(),
        connection_ip: None,
        dns_labels: Vec::new(),
    };
    store.enroll(&enrollment).await.unwrap();
    store.close().await;
    drop(store);
    // Connected for hours when control was killed: seen last when the stream began.
    let options = SqliteConnectOptions::new().filename(directory.path().join("control.db"));
    let mut db = options.connect().await.unwrap();
    sqlx::query("UPDATE peers SET connected = 1, last_seen = 1").execute(&mut db).await.unwrap();
    db.close().await.unwrap();

    let (mut child, http) = ready(directory.path());
    let token = std::fs::read_to_string(directory.path().join("bootstrap-token")).unwrap();
    // Several changes, each in the queue of the one writer behind a removal, if there were one.
    for number in 0..5 {
        let request = reqwest::Client::new().post(format!("http://{http}/api/groups"));
        let request = request.header("Authorization", format!("Token {}", token.trim()));
        let answer = request.body(format!("{{\"name\":\"g{number}\"}}")).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 200);
    }
    assert_eq!(signal(&mut child, "-TERM"), Some(0));
    let store = Store::open(directory.path()).await.unwrap();
    assert_eq!(store.peers(None, None).await.unwrap().len(), 1);
}
