//! `sluice peer admit`: machines that wait for somebody to log in.

use clap::Parser;
use sluicegate_cli::args::{Cli, Format};
use sluicegate_cli::terminal::Terminal;
use sluicegate_control::secret::{machine_login_hash, new_machine_login};
use sluicegate_control::store::{Enrollment, NewMachineLogin, Person, Role, UserRole, Via};

use crate::Control;
use crate::run::{Ran, Shell};

/// A machine that waits: its code, and what it will join with.
async fn waits(control: &Control, role: Role) -> (String, Enrollment) {
    let secret = new_machine_login();
    let new = NewMachineLogin {
        hash: machine_login_hash(&secret).unwrap(),
        identity_key: rand_key(),
        wireguard_public_key: rand_key(),
        role,
        hostname: "laptop".into(),
        os: "linux".into(),
        from: Some("2001:db8::7".parse().unwrap()),
        peer: None,
        device: None,
    };
    let (code, _) = control.store.begin_login(&new).await.unwrap();
    let enrollment = Enrollment {
        setup_key: secret,
        wireguard_public_key: new.wireguard_public_key,
        identity_key: new.identity_key,
        role,
        hostname: new.hostname,
        os: new.os,
        kernel_version: "6.12.0".into(),
        version: "0.1.0".into(),
        connection_ip: None,
        dns_labels: Vec::new(),
    };
    (code, enrollment)
}

/// Different for each machine.
fn rand_key() -> [u8; 32] {
    let text = new_machine_login();
    machine_login_hash(&text).unwrap()
}

/// A shell of somebody who is logged in.
async fn ann(control: &Control) -> Shell {
    let mut settings = control.store.account().await.unwrap().settings;
    settings.extra.user_approval_required = false;
    let users = control.store.users().await.unwrap();
    let owner = users.into_iter().find(|user| user.role == UserRole::Owner).unwrap();
    control.store.update_settings(&owner.actor(), settings).await.unwrap();
    let person = Person {
        issuer: "https://idp.example".into(),
        subject: "ann".into(),
        name: "ann".into(),
        email: String::new(),
        email_verified: false,
        at: 0,
    };
    let user = control.store.sign_in(&person, |_| None).await.unwrap();
    let (_, token) = control.store.create_session(&user, &Via::default()).await.unwrap();
    Shell::with_token(&control.url, &token)
}

/// Runs where somebody can be asked, who answers `answer`.
async fn asked(control: &Control, shell: &Shell, words: &[&str], answer: &str) -> Ran {
    let token = shell.path("token");
    let extra = ["--url", &control.url, "--token-file", token.to_str().unwrap()];
    let cli = Cli::parse_from([&["sluice"], words, &extra].concat());
    let (mut out, mut notes) = (Vec::new(), Vec::new());
    let mut terminal = Terminal {
        out: &mut out,
        notes: &mut notes,
        input: &mut answer.as_bytes(),
        asks: true,
        colour: false,
        width: None,
        now: time::UtcDateTime::now(),
        format: Format::Table,
    };
    let done = sluicegate_cli::run(cli, &mut terminal).await;
    let mut err = String::from_utf8(notes).unwrap();
    if let Err(failure) = &done {
        err += &failure.to_string();
    }
    let code = done.err().map_or(0, |failure| failure.kind.exit_code());
    Ran { code, out: String::from_utf8(out).unwrap(), err }
}

#[tokio::test]
async fn a_machine_is_shown_before_somebody_lets_it_in() {
    let control = Control::start().await;
    let shell = ann(&control).await;
    let (code, machine) = waits(&control, Role::Peer).await;
    let words = ["peer", "admit", &code];
    for no in ["n\n", "", "yeah, why not\n"] {
        let ran = asked(&control, &shell, &words, no).await;
        assert!(ran.out.contains("Nothing was done"), "{ran:?}");
    }
    let nobody = shell.run(&words).await;
    assert_eq!(nobody.code, 2);
    assert!(nobody.err.contains(&format!("sluice peer admit {code} --yes")), "{}", nobody.err);
    assert!(control.store.enroll(&machine).await.is_err());

    let ran = asked(&control, &shell, &words, "y\n").await;
    for shown in ["laptop", "linux", "peer", "2001:db8::7"] {
        assert!(ran.err.contains(shown), "{shown}: {}", ran.err);
    }
    assert!(ran.ok().contains("may join as yours"));
    control.store.enroll(&machine).await.unwrap();

    let (code, machine) = waits(&control, Role::Peer).await;
    let out = shell.run(&["peer", "admit", &code.to_lowercase(), "--yes", "--output", "json"]).await.json();
    assert_eq!(out["machine"]["hostname"], "laptop");
    control.store.enroll(&machine).await.unwrap();
}

#[tokio::test]
async fn a_machine_is_turned_away_and_a_wrong_code_or_token_is_told() {
    let control = Control::start().await;
    let shell = ann(&control).await;
    let (code, machine) = waits(&control, Role::Peer).await;
    let out = shell.run(&["peer", "admit", &code, "--refuse"]).await.ok();
    assert!(out.contains("laptop is turned away"), "{out}");
    assert!(control.store.enroll(&machine).await.is_err());
    let ran = shell.run(&["peer", "admit", &code, "--yes"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("no machine waits under this code"), "{}", ran.err);
    let program = control.shell.run(&["peer", "admit", &code, "--yes"]).await;
    assert!(program.err.contains("setup key"), "{}", program.err);
}

#[tokio::test]
async fn what_control_refuses_for_another_reason_than_the_token_is_said_in_its_words() {
    let control = Control::start().await;
    let shell = ann(&control).await;
    let (code, _) = waits(&control, Role::Gateway).await;
    let ran = shell.run(&["peer", "admit", &code, "--yes"]).await;
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("role user may not let a gateway join"), "{}", ran.err);
    assert!(!ran.err.contains("needs a login") && !ran.err.contains("sluice login"), "{}", ran.err);
    let gone = shell.run(&["peer", "renew", "nothing"]).await;
    assert!(gone.code == 2 && gone.err.contains("no peer 'nothing' of yours"), "{}", gone.err);
}
