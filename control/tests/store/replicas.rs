//! Several stores over one PostgreSQL database, as several control services have them.

use std::path::Path;
use std::time::Duration;

use sluicegate_control::store::{Actor, Answer, Location, PeerFacts, Role, Store};
use tempfile::TempDir;

use crate::postgres;
use crate::world::{check_trail, group, join, open, postgres_location, setup_key, soon, sql};

struct Pair {
    url: String,
    location: Location,
    directories: [TempDir; 2],
    first: Store,
    second: Store,
}

async fn pair() -> Pair {
    let url = postgres::database();
    let location = Location::parse(&url, None).unwrap();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let first = open(&location, directories[0].path()).await;
    let second = open(&location, directories[1].path()).await;
    Pair { url, location, directories, first, second }
}

/// Waits until one of them leads; which.
async fn leader(stores: [&Store; 2]) -> usize {
    let [mut a, mut b] = stores.map(Store::leads);
    soon("a leader", async {
        tokio::select! {
            _ = a.wait_for(|leads| *leads) => 0,
            _ = b.wait_for(|leads| *leads) => 1,
        }
    })
    .await
}

fn token(directory: &Path) -> Option<String> {
    std::fs::read_to_string(directory.join("bootstrap-token")).ok()
}

#[tokio::test]
async fn two_that_start_at_once_over_an_empty_database_make_one_account_and_one_token() {
    let location = postgres_location();
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (a, b) = tokio::join!(open(&location, directories[0].path()), open(&location, directories[1].path()));
    assert_eq!(a.account().await.unwrap().id, b.account().await.unwrap().id);
    let tokens: Vec<String> = directories.iter().filter_map(|directory| token(directory.path())).collect();
    assert_eq!(tokens.len(), 1, "the one that made the account has the token");
    assert!(b.authenticate(tokens[0].trim()).await.unwrap().is_some());
    assert!(a.authenticate(tokens[0].trim()).await.unwrap().is_some());
}

#[tokio::test]
async fn a_change_of_one_is_told_to_the_other() {
    let Pair { first, second, .. } = pair().await;
    let mut changes = second.changes();
    for number in 1..=20u64 {
        let group = first.create_group(&Actor::system(), group(&format!("g{number}"))).await.unwrap();
        let revision = first.revision().await.unwrap();
        soon("the change", changes.wait_for(|known| *known >= revision)).await.unwrap();
        // Whoever was told reads it.
        assert_eq!(second.group(&group.id).await.unwrap().name, group.name);
    }
}

#[tokio::test]
async fn what_nobody_tells_of_is_found_by_looking() {
    let Pair { url, first, second, .. } = pair().await;
    let revision = first.revision().await.unwrap();
    sql(&url, "UPDATE account SET revision = revision + 1");
    for store in [&first, &second] {
        let mut changes = store.changes();
        soon("the change", changes.wait_for(|known| *known == revision + 1)).await.unwrap();
    }
}

#[tokio::test]
async fn after_its_connections_broke_a_replica_hears_again_and_takes_changes() {
    let Pair { url, first, second, .. } = pair().await;
    let mut changes = second.changes();
    for number in 0..3 {
        sql(
            &url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        );
        // What was under way when the connection broke may fail, once; what comes then does not.
        let name = format!("g{number}");
        soon("a change", async {
            while first.create_group(&Actor::system(), group(&name)).await.is_err() {}
        })
        .await;
        let revision = first.revision().await.unwrap();
        soon("the change", changes.wait_for(|known| *known >= revision)).await.unwrap();
    }
    check_trail(&second).await;
}

#[tokio::test]
async fn changes_by_both_at_once_are_all_kept_in_one_order() {
    const EACH: u64 = 40;
    let Pair { first, second, .. } = pair().await;
    let writes = [(&first, "a"), (&second, "b"), (&first, "c"), (&second, "d")].map(|(store, name)| {
        let store = store.clone();
        tokio::spawn(async move {
            for number in 0..EACH {
                store.create_group(&Actor::system(), group(&format!("{name}{number}"))).await.unwrap();
            }
        })
    });
    for write in writes {
        write.await.unwrap();
    }
    assert_eq!(first.revision().await.unwrap(), 1 + 4 * EACH);
    assert_eq!(second.groups().await.unwrap().len() as u64, 1 + 4 * EACH);
    check_trail(&first).await;
    check_trail(&second).await;
}

/// Everybody wants the same names at the same time: each is given once, and the others are told so.
#[tokio::test]
async fn what_must_be_unique_is_unique_across_replicas() {
    let Pair { first, second, .. } = pair().await;
    let key = setup_key(&first).await;
    let mut wins = 0;
    for number in 0..20 {
        let name = format!("g{number}");
        let (actor, other) = (Actor::system(), Actor::system());
        let (a, b) =
            tokio::join!(first.create_group(&actor, group(&name)), second.create_group(&other, group(&name)));
        wins += usize::from(a.is_ok()) + usize::from(b.is_ok());
        let refused = a.err().or(b.err()).unwrap().to_string();
        assert!(refused.contains("already exists"), "{refused}");
    }
    assert_eq!(wins, 20);
    let joins = (1..=20u8).map(|which| {
        let (store, key) = (if which % 2 == 0 { &first } else { &second }.clone(), key.clone());
        tokio::spawn(async move { join(&store, &key, which, Role::Peer).await })
    });
    let mut addresses = std::collections::BTreeSet::new();
    for join in joins.collect::<Vec<_>>() {
        addresses.insert(join.await.unwrap().ip);
    }
    assert_eq!(addresses.len(), 20);
    assert_eq!(first.setup_keys().await.unwrap()[0].used_times, 20);
}

#[tokio::test]
async fn one_leads_and_when_it_is_gone_the_other_does() {
    let Pair { first, second, .. } = pair().await;
    let leads = leader([&first, &second]).await;
    let (gone, left) = if leads == 0 { (first, second) } else { (second, first) };
    assert!(!*left.leads().borrow());
    // As with kill -9: nothing is said, connections break.
    drop(gone);
    soon("the other leads", left.leads().wait_for(|leads| *leads)).await.unwrap();
}

#[tokio::test]
async fn the_streams_of_a_replica_that_is_gone_are_gone_and_those_it_moved_stay() {
    let Pair { url, first, second, .. } = pair().await;
    let key = setup_key(&first).await;
    let (stays, moves) =
        (join(&first, &key, 1, Role::Gateway).await, join(&first, &key, 2, Role::Gateway).await);
    for peer in [&stays, &moves] {
        first.peer_seen(&peer.id, &PeerFacts::default()).await.unwrap();
    }
    second.peer_seen(&moves.id, &PeerFacts::default()).await.unwrap();
    // The end of the stream that moved is noted after its beginning elsewhere.
    first.peer_disconnected(&moves.id).await.unwrap();
    let connected = async |id: &str| second.peer(id).await.unwrap().connected;
    assert!(connected(&stays.id).await && connected(&moves.id).await);

    drop(first);
    // Rather than ten seconds of waiting: its last sign of life was long ago.
    soon("a replica less", async {
        let old = "UPDATE replicas SET last_seen = last_seen - 60000 WHERE id = (SELECT replica FROM peers WHERE replica <> ''
                   ORDER BY created_at, id LIMIT 1)";
        sql(&url, old);
        while connected(&stays.id).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(connected(&moves.id).await);
}

#[tokio::test]
async fn a_replica_that_was_taken_for_gone_says_so_to_mark_its_streams_again() {
    let Pair { url, first, .. } = pair().await;
    let mut returned = first.returned();
    soon("the first sign of life", returned.wait_for(|times| *times == 1)).await.unwrap();
    sql(&url, "DELETE FROM replicas");
    soon("its return", returned.wait_for(|times| *times == 2)).await.unwrap();
}

#[tokio::test]
async fn a_database_that_went_back_ends_whoever_knows_better() {
    let Pair { url, first, second, .. } = pair().await;
    first.create_group(&Actor::system(), group("g")).await.unwrap();
    let mut changes = second.changes();
    soon("the change", changes.wait_for(|known| *known == 2)).await.unwrap();
    sql(&url, "UPDATE account SET revision = 1");
    for store in [&first, &second] {
        let why = soon("the end", store.lost()).await;
        assert!(why.contains("from revision 2 to 1"), "{why}");
    }
}

#[tokio::test]
async fn who_leaves_in_order_leaves_no_stream_behind() {
    let Pair { location, directories, first, second, .. } = pair().await;
    let key = setup_key(&first).await;
    let peer = join(&first, &key, 1, Role::Peer).await;
    first.peer_seen(&peer.id, &PeerFacts::default()).await.unwrap();
    first.close().await;
    drop(first);
    assert!(!second.peer(&peer.id).await.unwrap().connected);
    let again = open(&location, directories[0].path()).await;
    assert_eq!(again.revision().await.unwrap(), second.revision().await.unwrap());
}

#[tokio::test]
async fn a_question_is_answered_by_the_replica_that_has_the_agents_stream() {
    let Pair { url, first, second, .. } = pair().await;
    let key = setup_key(&first).await;
    let (here, there, away) = (
        join(&first, &key, 1, Role::Gateway).await.id,
        join(&first, &key, 2, Role::Gateway).await.id,
        join(&first, &key, 3, Role::Gateway).await.id,
    );
    first.peer_seen(&here, &PeerFacts::default()).await.unwrap();
    second.peer_seen(&there, &PeerFacts::default()).await.unwrap();
    let patience = Duration::from_secs(60);
    let nobody = first.ask_elsewhere(&[here.clone(), away.clone()], 5, patience).await.unwrap();
    assert!(nobody.is_none(), "nobody else has these");

    // Listening begins in the background.
    let mut questions = second.questions();
    let agents = [here.clone(), there.clone(), away.clone()];
    let (asking, id) = soon("a question", async {
        loop {
            let asking = first.ask_elsewhere(&agents, 5, patience).await.unwrap().unwrap();
            if let Ok(Some(id)) = tokio::time::timeout(Duration::from_secs(1), questions.next()).await {
                return (asking, id);
            }
            first.answers(asking, tokio::time::Instant::now()).await.unwrap();
        }
    })
    .await;
    assert_eq!(first.question(&id).await.unwrap(), None, "it is not for whoever asks");
    let question = second.question(&id).await.unwrap().unwrap();
    assert_eq!((question.agents, question.most), (vec![there.clone()], 5));
    assert!(question.left <= patience && question.left > Duration::ZERO);
    let list: Vec<u8> = (0..2 << 20).map(|byte| byte as u8).collect();
    let answer = Answer { agent: there.clone(), outcome: "listed".into(), list };
    second.answer(&id, std::slice::from_ref(&answer)).await.unwrap();
    second.answered(&id).await.unwrap();
    let until = tokio::time::Instant::now() + patience;
    let answers = soon("answers", first.answers(asking, until)).await.unwrap();
    assert_eq!(answers, std::slice::from_ref(&answer));
    // Nobody waits any more.
    assert_eq!(second.question(&id).await.unwrap(), None);
    second.answer(&id, &[answer]).await.unwrap();
    second.refuse(&id, "busy").await.unwrap();

    // Of one who asked and is gone, the one that leads removes what is left.
    sql(&url, "INSERT INTO flow_questions (id, agent, replica, most, until) VALUES ('old', 'a', 'r', 1, 0)");
    soon("an empty table", async {
        while sql(&url, "SELECT count(*) FROM flow_questions WHERE id = 'old'").trim() != "0" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}
