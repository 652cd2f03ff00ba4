//! Built-in users from the first person to one-time codes, by the command line alone.

use sluicegate_control::identity::{Identity, IdentityOptions, LocalUsers};
use sluicegate_control::store::{Actor, Enrollment, Role};
use totp_rs::TOTP;

use crate::Control;
use crate::run::Shell;

const PASSWORD: &str = "correct horse battery";

fn code(url: &str, steps: i64) -> String {
    let totp = TOTP::from_url(url).unwrap();
    totp.generate((sluicegate_control::ids::now() / 1000 + steps * 30).unsigned_abs())
}

#[tokio::test]
async fn built_in_users_are_set_up_invited_and_log_in() {
    let local_users = LocalUsers { enabled: true, open_setup: false };
    let options = IdentityOptions { local_users, ..IdentityOptions::default() };
    let control = Control::start_known(Identity::new(&options).unwrap()).await;
    let (owner, url) = (&control.shell, control.url.as_str());
    owner.run(&["login"]).await.ok();
    let ran =
        owner.bare(&["user", "setup", "own@example.org", "--name", "Olga"], &format!("{PASSWORD}\n")).await;
    assert!(ran.ok().contains("own@example.org is the owner now"));
    let again = owner.bare(&["user", "setup", "b@example.org"], &format!("{PASSWORD}\n")).await;
    assert!(again.err.contains("setup already completed"), "{}", again.err);

    let login = ["login", "--url", url, "--user", "own@example.org"];
    let wrong = owner.bare(&login, "wrong password\n\n").await;
    assert_eq!(wrong.code, 3);
    assert!(wrong.err.contains("did not log you in") && wrong.err.contains("login failed"), "{}", wrong.err);
    let out = owner.bare(&login, &format!("{PASSWORD}\n\n")).await.ok();
    assert!(out.contains("as Olga (owner)"), "{out}");
    assert!(owner.bare(&["user", "list"], "").await.ok().contains("own@example.org"));

    let invited =
        owner.bare(&["user", "invite", "ann@example.org", "--name", "Ann", "--role", "auditor"], "").await;
    let secret = invited.out.trim().to_owned();
    assert!(secret.starts_with("nbi_"), "{}{}", invited.out, invited.err);
    let ann = Shell::with_token(url, "none");
    let accept = ["user", "accept", "--url", url];
    let short = ann.bare(&accept, &format!("{secret}\nshort\n")).await;
    assert!(short.err.contains("12 to 256") && !short.err.contains(&secret), "{}", short.err);
    let out = ann.bare(&accept, &format!("{secret}\n{PASSWORD}\n")).await.ok();
    assert_eq!(out, "The password of ann@example.org is set.\n");
    let twice = ann.bare(&accept, &format!("{secret}\n{PASSWORD}\n")).await;
    assert!(twice.code == 1 && !twice.err.contains(&secret), "{}", twice.err);

    let login = ["login", "--url", url, "--user", "ann@example.org"];
    ann.bare(&login, &format!("{PASSWORD}\n\n")).await.ok();
    // The code comes from the secret that is shown, so that no script can know it before: a wrong one is refused.
    let refused = ann.bare(&["user", "totp", "on"], "wrong password\n").await;
    assert!(refused.err.contains("the password is wrong"), "{}", refused.err);
    let ran = ann.bare(&["user", "totp", "on"], &format!("{PASSWORD}\n000000x\n")).await;
    assert!(ran.err.contains("the code is wrong"), "{}", ran.err);
    let found = control.store.users().await.unwrap().into_iter().find(|user| user.name == "Ann").unwrap();
    let otp = control.store.begin_codes(&found, PASSWORD).await.unwrap();
    control.store.confirm_codes(&found, &code(&otp, 0)).await.unwrap();
    let without = ann.bare(&login, &format!("{PASSWORD}\n\n")).await;
    assert_eq!(without.code, 3, "{}", without.err);
    ann.bare(&login, &format!("{PASSWORD}\n{}\n", code(&otp, 1))).await.ok();
    let refused = ann.bare(&["user", "totp", "off"], "wrong password\n").await;
    assert!(refused.err.contains("the password is wrong"), "{}", refused.err);
    assert!(
        ann.bare(&["user", "totp", "off"], &format!("{PASSWORD}\n")).await.ok().contains("no one-time code")
    );

    let listed = ann.bare(&["user", "sessions", "--output", "json"], "").await.json();
    let other = listed["sessions"].as_array().unwrap().iter().find(|one| one["is_current"] == false).unwrap();
    let table = owner.bare(&["user", "sessions", "--user", "ann@example.org"], "").await.ok();
    assert!(table.contains(other["id"].as_str().unwrap()) && table.contains("sluice/"), "{table}");
    let end = ["user", "end-session", other["id"].as_str().unwrap()];
    assert_eq!(ann.bare(&end, "").await.ok(), "The login has ended.\n");
    assert_eq!(ann.bare(&end, "").await.code, 1);

    let key = ann.bare(&["peer", "key"], "").await.ok();
    let (key, fingerprint) = key.trim().split_once("#sha256:").unwrap();
    assert_eq!(fingerprint, control.agents.authority().fingerprint());
    let machine = |number: u8| Enrollment {
        setup_key: key.into(),
        wireguard_public_key: [number; 32],
        identity_key: [number; 32],
        role: Role::Peer,
        hostname: "laptop".into(),
        os: "linux".into(),
        kernel_version: "6.12.0".into(),
        version: "0.1.0".into(),
        connection_ip: None,
        dns_labels: Vec::new(),
    };
    let laptop = control.store.enroll(&machine(1)).await.unwrap();
    assert_eq!(control.store.peer(&laptop.id).await.unwrap().user_id, found.id);
    assert!(control.store.enroll(&machine(2)).await.is_err(), "one machine");
    control.store.age_peer(&laptop.id, 25 * 3_600_000).await.unwrap();
    control.store.expire_peers().await.unwrap();
    assert!(control.store.peer(&laptop.id).await.unwrap().expired.is_some());
    assert_eq!(ann.bare(&["peer", "renew", "laptop"], "").await.ok(), "The login on laptop is as of now.\n");
    assert!(control.store.peer(&laptop.id).await.unwrap().expired.is_none());
    assert!(ann.bare(&["peer", "renew", "nobody"], "").await.err.contains("there is no peer 'nobody'"));
    // A token made once is no login.
    let bootstrap = control.shell.run(&["peer", "key"]).await;
    assert!(bootstrap.err.contains("setup key"), "{}", bootstrap.err);

    // Codes that are asked of everybody: set up at the login, begun by one and ended by the next one's code.
    let mut settings = control.store.account().await.unwrap().settings;
    settings.local_mfa_enabled = true;
    control.store.update_settings(&Actor::system(), settings).await.unwrap();
    let begun = ann.bare(&login, &format!("{PASSWORD}\n\n000000x\n")).await;
    assert!(begun.code == 3 && begun.err.contains("did not log you in"), "{}", begun.err);
    assert!(begun.err.contains("asked of everybody here, and you have none yet"), "{}", begun.err);
    let otp = begun.err.lines().find_map(|line| line.trim().strip_prefix("otpauth://")).unwrap();
    let otp = format!("otpauth://{otp}");
    let wrong = ann.bare(&login, "wrong password\n\n").await;
    assert!(wrong.code == 3 && !wrong.err.contains("otpauth"), "{}", wrong.err);
    ann.bare(&login, &format!("{PASSWORD}\n{}\n", code(&otp, 0))).await.ok();
    let off = ann.bare(&["user", "totp", "off"], &format!("{PASSWORD}\n")).await.ok();
    assert!(off.contains("Every login has ended"), "{off}");
    assert_eq!(ann.bare(&["user", "list"], "").await.code, 3);
    let mut settings = control.store.account().await.unwrap().settings;
    settings.local_mfa_enabled = false;
    control.store.update_settings(&Actor::system(), settings).await.unwrap();
    ann.bare(&login, &format!("{PASSWORD}\n\n")).await.ok();

    let change = format!("{PASSWORD}\nanother password\n");
    assert!(ann.bare(&["user", "password"], &change).await.ok().contains("every login has ended"));
    assert_eq!(ann.bare(&["user", "list"], "").await.code, 3);
    let out = owner.bare(&["user", "reset", "ann@example.org"], "").await.ok();
    ann.bare(&accept, &format!("{}\na third password\n", out.trim())).await.ok();
    ann.bare(&login, "a third password\n\n").await.ok();
}
