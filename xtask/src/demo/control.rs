//! The control service and its REST interface, asked by curl as a person would.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io::Write};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use sluicegate_lab::{Namespace, Process, Program, wait};

use super::topology::underlay;

const HTTP: u16 = 8080;
const GRPC: u16 = 8443;
const READY: Duration = Duration::from_secs(30);
const ANSWER: Duration = Duration::from_secs(20);

/// A running control service.
pub(crate) struct Control {
    namespace: Namespace,
    sluice: PathBuf,
    dir: PathBuf,
    _process: Process,
}

impl Control {
    pub(crate) fn start(namespace: &Namespace, binaries: &Path, dir: &Path) -> Result<Self> {
        let data = dir.join("control");
        fs::create_dir(&data)?;
        let program = Program::new(binaries.join("sluicegate-control"))
            .args(["serve", "--http", &http().to_string(), "--grpc", &grpc().to_string(), "--data-dir"])
            .arg(&data);
        let process = namespace.spawn("control", &program)?;
        wait::http(namespace, http(), "/readyz", &process, READY)?;
        let sluice = binaries.join("sluice");
        let control = Self { namespace: namespace.clone(), sluice, dir: data, _process: process };
        // Curl reads the header from a file: arguments can be read by every user.
        let token = fs::read_to_string(control.token_file()).context("control wrote no bootstrap token")?;
        let mut header =
            fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(control.header_file())?;
        write!(header, "Authorization: Token {}", token.trim())?;
        Ok(control)
    }

    /// Where the owner's token is.
    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.join("bootstrap-token")
    }

    fn header_file(&self) -> PathBuf {
        self.dir.with_file_name("authorization-header")
    }

    /// The `sluice` program.
    pub(crate) fn sluice_path(&self) -> &Path {
        &self.sluice
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        self.request("GET", path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.request("POST", path, Some(body))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Result<Value> {
        self.request("PUT", path, Some(body))
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let url = format!("http://{}{path}", http());
        let mut curl =
            Program::new("curl").args(["--silent", "--show-error", "--max-time", "15", "--request", method]);
        curl = curl
            .args(["--write-out", "\n%{http_code}", "--header"])
            .arg(format!("@{}", self.header_file().display()));
        if let Some(body) = body {
            curl = curl.args(["--header", "Content-Type: application/json", "--data", &body.to_string()]);
        }
        let answer = self.namespace.run(&curl.arg(&url), ANSWER)?.output()?;
        let (text, status) = answer.rsplit_once('\n').context("curl wrote no status")?;
        if !status.starts_with('2') {
            bail!("{method} {path} was answered {status}: {}", text.trim());
        }
        serde_json::from_str(text)
            .with_context(|| format!("{method} {path} was not answered in JSON: {text}"))
    }

    /// The object called `name` in the list at `path`.
    pub(crate) fn named(&self, path: &str, name: &str) -> Result<Value> {
        let list = self.get(path)?;
        let found = list.as_array().into_iter().flatten().find(|item| item["name"] == name);
        found.cloned().ok_or_else(|| anyhow!("there is no {name:?} in {path}"))
    }

    /// Makes a group and a one-off key whose machine joins it; returns the content of the key file.
    pub(crate) fn group_with_key(&self, group: &str, machine: &str) -> Result<String> {
        let existing = self.named("/api/groups", group);
        let group = existing.or_else(|_| self.post("/api/groups", &json!({ "name": group })))?;
        let key = self.post(
            "/api/setup-keys",
            &json!({
                "name": machine, "type": "one-off", "usage_limit": 1, "expires_in": 86_400, "auto_groups": [group["id"]],
            }),
        )?;
        let secret = key["key"].as_str().context("the answer has no key")?;
        let fingerprint =
            key["control_fingerprint"].as_str().context("the answer has no control_fingerprint")?;
        Ok(format!("{secret}#sha256:{fingerprint}\n"))
    }

    /// Changes a policy by its name: reads it, lets `change` edit it, writes it back.
    pub(crate) fn change_policy(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut policy = self.named("/api/policies", name)?;
        let path = format!("/api/policies/{}", policy["id"].as_str().unwrap_or_default());
        // Read as objects, written as ids.
        for rule in policy["rules"].as_array_mut().into_iter().flatten() {
            for end in ["sources", "destinations"] {
                let ids: Vec<_> =
                    rule[end].as_array().into_iter().flatten().map(|group| group["id"].clone()).collect();
                rule[end] = json!(ids);
            }
        }
        change(&mut policy);
        self.put(&path, &policy).map(drop)
    }

    /// Switches a policy on or off.
    pub(crate) fn switch_policy(&self, name: &str, on: bool) -> Result<()> {
        self.change_policy(name, |policy| {
            policy["enabled"] = json!(on);
            for rule in policy["rules"].as_array_mut().into_iter().flatten() {
                rule["enabled"] = json!(on);
            }
        })
    }

    /// Runs `sluice ARGS`.
    pub(crate) fn sluice(&self, args: &[&str]) -> Result<sluicegate_lab::Finished> {
        let program = Program::new(&self.sluice)
            .args(args)
            .env("SLUICE_URL", format!("http://{}", http()))
            .env("SLUICE_TOKEN_FILE", self.token_file())
            .env("SLUICE_CONFIG", self.dir.with_file_name("sluice.toml"));
        self.namespace.run(&program, ANSWER)
    }
}

/// Where REST is served.
pub(crate) fn http() -> SocketAddr {
    SocketAddr::new(address().into(), HTTP)
}

/// Where agents connect.
pub(crate) fn grpc() -> SocketAddr {
    SocketAddr::new(address().into(), GRPC)
}

fn address() -> Ipv4Addr {
    underlay(1)
}
