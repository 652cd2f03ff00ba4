//! Extra DNS labels: names that a machine asks for when it joins, beside the one that is made of its own. Within the account no two
//! peers have a label in common, whichever way they got it.

use std::collections::{BTreeSet, HashMap};

use super::Result;
use super::enroll::EnrollError;
use super::sql::{self, Connection};
use crate::text;

/// As many as one machine may ask for.
const MOST: usize = 32;
/// Longest label (RFC 1035, 2.3.4).
const LONGEST: usize = 63;

/// The labels of a request in the one way they are kept: lower case, each once.
pub(super) fn checked(labels: &[String]) -> Result<BTreeSet<String>, EnrollError> {
    let refused = |why: String| Err(EnrollError::DnsLabels(why));
    if labels.len() > MOST {
        return refused(format!("{} of them are asked for; a machine may have {MOST}", labels.len()));
    }
    match labels.iter().find(|label| !is_label(label)) {
        Some(wrong) => refused(format!(
            "'{}' is no DNS label: write 1 to {LONGEST} letters, digits and hyphens, with no hyphen at either end",
            text::printable(wrong, LONGEST)
        )),
        None => Ok(labels.iter().map(|label| label.to_ascii_lowercase()).collect()),
    }
}

/// Gives them to a new peer, unless another name in the account is one of them.
pub(super) async fn add(
    db: &mut Connection,
    peer: &str,
    labels: &BTreeSet<String>,
) -> Result<(), EnrollError> {
    for label in labels {
        let holder: Option<(String, String)> = sql::query_as(
            "SELECT id, name FROM peers WHERE dns_label = $1
             UNION ALL SELECT p.id, p.name FROM peer_labels l JOIN peers p ON p.id = l.peer_id WHERE l.label = $1",
        )
        .bind(label)
        .fetch_optional(&mut *db)
        .await?;
        match holder {
            Some((id, _)) if id == peer => {
                let why = format!("{label} is what this machine is called already: leave it out");
                return Err(EnrollError::DnsLabels(why));
            }
            Some((_, name)) => {
                return Err(EnrollError::DnsLabels(format!("{label} belongs to peer {name} already")));
            }
            None => {}
        }
        sql::query("INSERT INTO peer_labels (label, peer_id) VALUES ($1, $2)")
            .bind(label)
            .bind(peer)
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Those of one peer, in order.
pub(super) async fn of(db: &mut Connection, peer: &str) -> Result<Vec<String>> {
    sql::query_scalar("SELECT label FROM peer_labels WHERE peer_id = $1 ORDER BY label")
        .bind(peer)
        .fetch_all(db)
        .await
}

/// Those of every peer that has some, in order.
pub(super) async fn all(db: &mut Connection) -> Result<HashMap<String, Vec<String>>> {
    let rows: Vec<(String, String)> =
        sql::query_as("SELECT peer_id, label FROM peer_labels ORDER BY peer_id, label").fetch_all(db).await?;
    let mut labels = HashMap::<String, Vec<String>>::new();
    for (peer, label) in rows {
        labels.entry(peer).or_default().push(label);
    }
    Ok(labels)
}

/// Letters, digits and inner hyphens (RFC 1123, 2.1).
fn is_label(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_of_dns_and_case_is_no_matter() {
        let of =
            |labels: &[&str]| checked(&labels.iter().map(|label| (*label).to_owned()).collect::<Vec<_>>());
        let kept = of(&["Mail", "mail", "a", "0", "a--b", &"x".repeat(63)]).unwrap();
        assert_eq!(kept.len(), 5);
        assert!(kept.contains("mail"));
        for wrong in ["", "-a", "a-", "a.b", "a_b", "*", "ä", " a", &"x".repeat(1_000)] {
            let why = of(&["good", wrong]).unwrap_err().to_string();
            assert!(why.contains("is no DNS label") && why.len() < 200, "{wrong}: {why}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("l{n}")).collect();
        assert!(checked(&many[..32]).is_ok());
        assert!(checked(&many).unwrap_err().to_string().contains("33 of them"));
    }
}
