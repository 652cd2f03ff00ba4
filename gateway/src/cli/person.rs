//! What a person is told who joins a machine or logs in on it: text, or a line of JSON for each thing that happens.

use serde_json::{Value, json};

use super::Output;
use crate::identity::Card;
use crate::join::Offer;
use crate::system;

/// What to do to log in.
pub(super) fn offer(output: Output, offer: &Offer) {
    match output {
        Output::Table => print!("{}", text(offer)),
        Output::Json => {
            let mut line = serde_json::to_value(offer).unwrap_or_default();
            line["event"] = json!("login");
            say(&line);
        }
    }
}

/// The machine has joined.
pub(super) fn joined(output: Output, card: &Card) {
    match output {
        Output::Table => {
            println!("joined {} as {} {} (peer {})", card.control, card.role.name(), card.name, card.peer_id);
        }
        Output::Json => say(&about("joined", card)),
    }
}

/// Its user has logged in on it again.
pub(super) fn renewed(output: Output, card: &Card) {
    match output {
        Output::Table => println!("the login on {} (peer {}) is as of now", card.name, card.peer_id),
        Output::Json => say(&about("renewed", card)),
    }
}

fn about(event: &str, card: &Card) -> Value {
    json!({"event": event, "peer_id": card.peer_id, "name": card.name, "role": card.role, "control": card.control})
}

fn say(line: &Value) {
    println!("{line}");
}

fn text(offer: &Offer) -> String {
    let mut text = String::new();
    if let Some(browser) = &offer.browser {
        text += &format!(
            "Open {} in any browser and type\n\n  {}\n\n",
            browser.verification_uri, browser.user_code
        );
        if !browser.verification_uri_complete.is_empty() {
            text += &format!("or open {}, which has the code in it.\n\n", browser.verification_uri_complete);
        }
        text += "Or, logged in at control, let this machine in by\n\n";
    } else {
        if !offer.no_browser.is_empty() {
            text += &format!("No login with a browser: {}.\n\n", offer.no_browser);
        }
        text += "Logged in at control, let this machine in by\n\n";
    }
    text + &format!(
        "  sluice peer admit {}\n\nwhere it shows the role {} and the fingerprint {}. This waits until {}.\n",
        offer.code,
        offer.role.name(),
        offer.fingerprint,
        system::time(offer.until_ms)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Role;
    use crate::join::Browser;

    #[test]
    fn a_person_is_told_both_ways_or_why_there_is_one() {
        let mut offer = Offer {
            code: "BCDF-GHJK".into(),
            fingerprint: "aaaa-bbbb".into(),
            role: Role::Gateway,
            until_ms: 1_795_332_909_120,
            browser: None,
            no_browser: "it is away".into(),
        };
        let said = text(&offer);
        assert!(said.starts_with("No login with a browser: it is away.\n"), "{said}");
        assert!(said.contains("sluice peer admit BCDF-GHJK") && said.contains("aaaa-bbbb"), "{said}");
        assert!(said.contains("the role gateway and"), "{said}");
        offer.browser = Some(Browser {
            verification_uri: "https://idp/d".into(),
            user_code: "WDJB".into(),
            verification_uri_complete: "https://idp/d?c=WDJB".into(),
        });
        let said = text(&offer);
        assert!(said.contains("Open https://idp/d in") && said.contains("\n  WDJB\n"), "{said}");
        assert!(said.contains("https://idp/d?c=WDJB") && said.contains("sluice peer admit"), "{said}");
    }
}
