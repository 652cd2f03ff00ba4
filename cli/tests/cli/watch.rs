//! `flow watch`.

use crate::fake::Fake;
use crate::run::Shell;
use crate::site;

const STREAM: &str = concat!(
    ": keep-alive\n\n",
    r#"data: {"sequence":1,"time_ms":1795332909120,"received_ms":0,"kind":"start","reporter":{"id":"p3","name":"gw-a"},"protocol":6,"source":{"address":"100.90.0.2","port":51234,"id":"p1","name":"alice-laptop","type":"PEER"},"destination":{"address":"10.20.0.10","port":443,"id":"r1","name":"web-1","type":"HOST_RESOURCE"},"rule":{"policy_id":"y1","policy_name":"users-to-web","rule_id":"l1","rule_name":"https"},"drop_reason":"","packets":0,"bytes":0,"translated_source":"","direction":"overlay"}"#,
    "\n\nevent: lost\ndata: {\"missed\":1200}\n\n",
    r#"data: {"sequence":2,"time_ms":1795332909220,"received_ms":0,"kind":"drop","reporter":{"id":"p3","name":"gw-a"},"protocol":17,"source":{"address":"fd5c:1::2","port":5353,"id":"p1","name":"alice-laptop","type":"PEER"},"destination":{"address":"fd00:20::10","port":53,"id":"","name":"","type":"UNKNOWN"},"rule":{"policy_id":"","policy_name":"","rule_id":"","rule_name":""},"drop_reason":"no_rule","packets":0,"bytes":0,"translated_source":"","direction":"overlay"}"#,
    "\n\n",
);

#[tokio::test]
async fn events_are_lines_and_lost_ones_are_told_apart() {
    let mut data = site::data();
    data.stream = STREAM.into();
    let fake = Fake::start(data).await;
    let shell = Shell::new(&fake.url);
    let ran = shell.run(&["flow", "watch", "--replay", "2", "--count", "2"]).await;
    assert_eq!(ran.err, "missed 1,200 events: they came faster than they were read\n");
    assert_eq!(
        ran.ok(),
        "\
TIME (UTC)    EVENT   PROTO  FROM                                TO                              AT          BY RULE OR WHY, AND TRAFFIC
07:35:09.120  start   tcp    alice-laptop 100.90.0.2:51234       web-1 10.20.0.10:443            gw-a        users-to-web / https
07:35:09.220  drop    udp    alice-laptop [fd5c:1::2]:5353       [fd00:20::10]:53                gw-a        no_rule
"
    );
    assert_eq!(fake.data().asked.last().map(String::as_str), Some("GET /api/flows/stream?replay=2"));
}

#[tokio::test]
async fn json_is_one_document_per_line_and_an_ended_stream_is_exit_code_3() {
    let mut data = site::data();
    data.stream = STREAM.into();
    let fake = Fake::start(data).await;
    let ran = Shell::new(&fake.url).run(&["flow", "watch", "--output", "json"]).await;
    let kinds: Vec<String> = ran
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|line| {
            format!("{} {}", line["schema"].as_str().unwrap(), line["flow"]["kind"].as_str().unwrap())
        })
        .collect();
    assert_eq!(kinds, ["sluicegate.flow/1 start", "sluicegate.flow/1 drop"]);
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains("ended the stream"), "{}", ran.err);
}
