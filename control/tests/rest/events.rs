use serde_json::{Value, json};
use sluicegate_audit::{Anchor, Head, Link, Verifier};

use crate::harness::{Server, message, text};

fn ids(events: &Value) -> Vec<i64> {
    events.as_array().unwrap().iter().map(|event| text(event, "id").parse().unwrap()).collect()
}

#[tokio::test]
async fn events_are_filtered_and_paged_by_the_query() {
    let server = Server::start().await;
    for name in ["one", "two", "three"] {
        server.group(name).await;
    }
    server.network("site").await;
    let get = async |query: &str| {
        let (status, events) = server.owner.get(&format!("/api/events/audit?{query}")).await;
        assert_eq!(status, 200, "{query}: {events}");
        events
    };
    let names = |events: &Value| -> Vec<String> {
        let name = |event: &Value| event["meta"]["name"].as_str().unwrap_or_default().to_owned();
        events.as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(names(&get("code=group.add").await), ["three", "two", "one"]);
    assert_eq!(names(&get("code=group.add,network.create&limit=2").await), ["site", "three"]);
    assert_eq!(names(&get("target=two").await), ["two"]);
    assert_eq!(names(&get("search=NETWORK%20created").await), ["site"]);
    assert_eq!(names(&get("initiator=bootstrap&code=group.add&search=tHrEe").await), ["three"]);
    assert_eq!(get("until=2000-01-01T00:00:00Z").await, json!([]));
    assert_eq!(get("from=2999-01-01T00:00:00%2B02:00").await, json!([]));
    let everything = ids(&get("").await);
    assert!(everything.is_sorted_by(|a, b| a > b));
    let (mut paged, mut query) = (Vec::new(), "limit=2".to_owned());
    loop {
        let page = ids(&get(&query).await);
        let Some(last) = page.last() else { break };
        query = format!("limit=2&before={last}");
        paged.extend(page);
    }
    assert_eq!(paged, everything);
}

#[tokio::test]
async fn wrong_filters_are_refused_by_name() {
    let server = Server::start().await;
    for (query, status, says) in [
        ("cod=group.add", 400, "code, initiator"),
        ("limit=1&limit=2", 400, "limit is given twice"),
        ("code=Group.Add", 422, "code:"),
        ("code=", 422, "code:"),
        ("code=a,,b", 422, "code:"),
        ("from=yesterday", 422, "from:"),
        ("until=2026-11-22", 422, "until:"),
        ("from=2026-01-02T00:00:00Z&until=2026-01-01T00:00:00Z", 422, "from:"),
        ("before=x", 422, "before:"),
        ("limit=0", 422, "limit:"),
        ("limit=10001", 422, "limit:"),
        ("search=", 422, "search:"),
    ] {
        let answer = server.owner.get(&format!("/api/events/audit?{query}")).await;
        assert_eq!(answer.0, status, "{query}: {}", answer.1);
        assert!(message(&answer).contains(says), "{query}: {}", answer.1);
    }
    for query in ["limit=1001", "after=x"] {
        assert_eq!(server.owner.get(&format!("/api/events/audit/chain?{query}")).await.0, 422, "{query}");
    }
    assert_eq!(server.owner.get("/api/events/audit/chain?before=1").await.0, 400);
}

#[tokio::test]
async fn the_chain_is_given_in_pages_to_those_who_may_read_events() {
    let server = Server::start().await;
    let auditor = server.user("auditor").await;
    for name in ["one", "two", "three"] {
        server.group(name).await;
    }
    let (mut query, mut verifier) = ("limit=2".to_owned(), None);
    let report = loop {
        let (status, page) = auditor.get(&format!("/api/events/audit/chain?{query}")).await;
        assert_eq!(status, 200, "{page}");
        let head: Head = serde_json::from_value(page["head"].clone()).unwrap();
        let anchor: Anchor = serde_json::from_value(page["anchor"].clone()).unwrap();
        let links: Vec<Link> = serde_json::from_value(page["events"].clone()).unwrap();
        let mut walking = verifier.take().unwrap_or_else(|| Verifier::new(anchor, None));
        links.iter().for_each(|link| walking.push(link, &head));
        let Some(last) = links.last() else { break walking.finish(&head).unwrap() };
        query = format!("limit=2&after={}", last.event.id);
        verifier = Some(walking);
    };
    let (_, events) = auditor.get("/api/events/audit").await;
    assert_eq!((report.events, report.head.id), (ids(&events).len() as u64, ids(&events)[0]));

    let nobody = server.user("user").await;
    for path in ["/api/events/audit", "/api/events/audit/chain"] {
        assert_eq!(nobody.get(path).await.0, 403, "{path}");
        assert_eq!(server.owner.with_authorization(None).get(path).await.0, 401, "{path}");
    }
}
