use sluicegate_api::agent::sync_update::Update;
use sluicegate_api::agent::{Health, NetworkChange, NetworkConfig, Schedule, SyncUpdate};
use sluicegate_api::image::Delta;

use super::*;

const PEER: &str = "peer-1";

fn hub() -> Arc<Hub> {
    let metrics = Metrics::new().unwrap();
    Hub::new(metrics.clone(), Flows::new(metrics))
}

/// An image of a few hundred words, of which one says which it is.
fn image(which: u32) -> Arc<Compiled> {
    let mut words = vec![7; 512];
    words[100] = which;
    Compiled::new(Parts::new(&Image { words, ..Image::default() }, None), None)
}

fn publish(hub: &Hub, revision: u64, image: &Arc<Compiled>) {
    publish_network(hub, revision, image, "100.90.0.2/16");
}

fn publish_network(hub: &Hub, revision: u64, image: &Arc<Compiled>, address: &str) {
    let network = NetworkConfig { address_v4: address.into(), ..NetworkConfig::default() };
    let target = Target { image: Ok((image.clone(), Arc::default())), network: Some(network.into()) };
    hub.publish(revision, BTreeMap::from([(PEER.to_owned(), target)]), true);
}

fn roster(hub: &Hub, gateway: bool) {
    hub.set_roster(BTreeMap::from([(PEER.to_owned(), Member { gateway })]).into(), 1);
}

fn holding(revision: u64, image: &Compiled) -> SyncRequest {
    SyncRequest { applied_revision: revision, applied_hash: image.hash.to_vec(), ..SyncRequest::default() }
}

fn say(hub: &Hub, revision: u64, image: &Compiled, refusal: &str) {
    say_at(hub, revision, image, refusal, 1_000);
}

fn say_at(hub: &Hub, revision: u64, image: &Compiled, refusal: &str, now_ms: u64) {
    let acknowledgement = Acknowledgement {
        revision,
        hash: image.hash.to_vec(),
        applied: refusal.is_empty(),
        apply_microseconds: 1500,
        refusal: refusal.into(),
    };
    let report = ReportRequest { acknowledgements: vec![acknowledgement], ..ReportRequest::default() };
    hub.report(PEER, report, now_ms).unwrap();
}

/// The next message, when there is one without waiting.
async fn poll(stream: &mut UpdateStream) -> Option<Result<Update, Refused>> {
    let next = stream.next();
    tokio::pin!(next);
    // `biased`: the stream is asked first.
    tokio::select! {
        biased;
        update = &mut next => Some(update.map(|update| update.update.unwrap())),
        () = std::future::ready(()) => None,
    }
}

async fn network(stream: &mut UpdateStream) -> NetworkConfig {
    match poll(stream).await {
        Some(Ok(Update::Network(network))) => network,
        other => panic!("expected a network configuration, not {other:?}"),
    }
}

async fn network_change(stream: &mut UpdateStream) -> NetworkChange {
    match poll(stream).await {
        Some(Ok(Update::NetworkChange(change))) => change,
        other => panic!("expected a change of the network configuration, not {other:?}"),
    }
}

async fn snapshot(stream: &mut UpdateStream) -> (u64, Image) {
    match poll(stream).await {
        Some(Ok(Update::Snapshot(snapshot))) => (snapshot.revision, Image::decode(&snapshot.image).unwrap()),
        other => panic!("expected a snapshot, not {other:?}"),
    }
}

async fn delta(stream: &mut UpdateStream) -> sluicegate_api::agent::Delta {
    match poll(stream).await {
        Some(Ok(Update::Delta(delta))) => delta,
        other => panic!("expected a delta, not {other:?}"),
    }
}

/// Registers the peer, publishes image 1 as revision 5 and takes it.
async fn synced(hub: &Arc<Hub>) -> UpdateStream {
    roster(hub, true);
    let mut stream = hub.open(PEER, &SyncRequest::default(), 0).unwrap();
    assert!(poll(&mut stream).await.is_none(), "nothing is sent before the first compilation");
    publish(hub, 5, &image(1));
    network(&mut stream).await;
    assert_eq!(snapshot(&mut stream).await, (5, image(1).image()));
    say(hub, 5, &image(1), "");
    stream
}

/// From what was sent last, however often it changed since; whole on another stream, and to agents that know no changes.
#[tokio::test]
async fn of_another_overlay_only_what_differs_is_sent() {
    let hub = hub();
    roster(&hub, true);
    let follows = SyncRequest { follows_network: true, ..SyncRequest::default() };
    let mut stream = hub.open(PEER, &follows, 0).unwrap();
    publish(&hub, 5, &image(1));
    let first = network(&mut stream).await;
    snapshot(&mut stream).await;
    for (revision, address) in [(6, "100.90.0.3/16"), (7, "100.90.0.4/16")] {
        publish_network(&hub, revision, &image(1), address);
    }
    let change = network_change(&mut stream).await;
    assert_eq!(change.base_serial, first.serial);
    let second = change.apply(first).unwrap();
    assert_eq!((second.serial, second.address_v4.as_str()), (3, "100.90.0.4/16"));
    assert!(poll(&mut stream).await.is_none());
    publish_network(&hub, 8, &image(1), "100.90.0.5/16");
    assert_eq!(network_change(&mut stream).await.apply(second).unwrap().serial, 4);

    let mut stream = hub.open(PEER, &follows, 0).unwrap();
    assert_eq!(network(&mut stream).await.address_v4, "100.90.0.5/16");
    let mut stream = hub.open(PEER, &SyncRequest::default(), 0).unwrap();
    assert_eq!(network(&mut stream).await.serial, 4);
    publish_network(&hub, 9, &image(1), "100.90.0.6/16");
    assert_eq!(network(&mut stream).await.serial, 5);
}

#[tokio::test]
async fn the_overlay_comes_first_then_the_image_and_then_nothing() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    assert!(poll(&mut stream).await.is_none());
    let overview = hub.overview(PEER);
    assert!(overview.connected);
    assert_eq!(overview.applied.unwrap().microseconds, Some(1500));
    assert_eq!(overview.wanted, Some(overview.applied.unwrap().held));
}

#[tokio::test]
async fn a_change_goes_out_as_a_delta_that_leads_to_the_announced_hash() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    publish(&hub, 9, &image(2));
    let sent = delta(&mut stream).await;
    assert_eq!((sent.base_revision, sent.revision), (5, 9));
    assert_eq!((sent.base_hash, &sent.hash), (image(1).hash.to_vec(), &image(2).hash.to_vec()));
    let result = image(1).image().apply(&Delta::decode(&sent.delta).unwrap()).unwrap();
    assert_eq!(result.hash().to_vec(), sent.hash);
    assert_eq!(hub.metrics.images_pushed.with_label_values(&["delta"]).get(), 1);
}

#[tokio::test]
async fn changes_that_come_faster_than_they_are_taken_coalesce() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    for which in 2..100 {
        publish(&hub, 8 + u64::from(which), &image(which));
    }
    let sent = delta(&mut stream).await;
    assert_eq!((sent.revision, sent.hash), (107, image(99).hash.to_vec()));
    assert!(poll(&mut stream).await.is_none());
    // There and back while nobody looked: nothing to send, and the revision in force stands.
    publish(&hub, 200, &image(1));
    publish(&hub, 201, &image(99));
    assert!(poll(&mut stream).await.is_none());
    assert_eq!(hub.overview(PEER).wanted.unwrap().revision, 107);
    publish(&hub, 202, &image(3));
    assert_eq!(delta(&mut stream).await.revision, 202);
}

#[tokio::test]
async fn a_change_that_does_not_concern_an_agent_is_counted_and_not_sent() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    publish(&hub, 6, &image(1));
    assert!(poll(&mut stream).await.is_none());
    assert_eq!(hub.metrics.images_unchanged.get(), 1);
    assert_eq!(hub.overview(PEER).wanted.unwrap().revision, 5);
}

#[tokio::test]
async fn an_overlay_change_alone_sends_no_image() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    publish_network(&hub, 6, &image(1), "100.90.0.9/16");
    assert_eq!(network(&mut stream).await.address_v4, "100.90.0.9/16");
    assert!(poll(&mut stream).await.is_none());
}

#[tokio::test]
async fn a_refused_image_is_sent_once_more_whole_and_then_only_another_one() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    publish(&hub, 6, &image(2));
    delta(&mut stream).await;
    say(&hub, 6, &image(2), "too large for the maps");
    assert_eq!(snapshot(&mut stream).await.0, 6);
    say(&hub, 6, &image(2), "still too large");
    assert!(poll(&mut stream).await.is_none(), "no hot loop");
    publish(&hub, 7, &image(2));
    assert!(poll(&mut stream).await.is_none(), "the same image stays refused");
    let overview = hub.overview(PEER);
    assert_eq!(overview.refusal.unwrap().reason, "still too large");
    assert_eq!(overview.applied.unwrap().held.revision, 5);
    assert_eq!(hub.metrics.refusals.get(), 2);
    publish(&hub, 8, &image(3));
    assert_eq!(snapshot(&mut stream).await.0, 8);
    say(&hub, 8, &image(3), "");
    publish(&hub, 9, &image(4));
    assert_eq!(delta(&mut stream).await.revision, 9);
}

#[tokio::test]
async fn going_back_to_what_is_in_force_after_a_refusal_sends_it_again() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    publish(&hub, 6, &image(2));
    delta(&mut stream).await;
    say(&hub, 6, &image(2), "no");
    publish(&hub, 7, &image(1));
    assert_eq!(snapshot(&mut stream).await, (7, image(1).image()));
}

#[tokio::test]
async fn an_agent_that_already_enforces_the_image_gets_only_the_overlay() {
    let hub = hub();
    roster(&hub, false);
    let mut stream = hub.open(PEER, &holding(3, &image(1)), 0).unwrap();
    publish(&hub, 50, &image(1));
    network(&mut stream).await;
    assert!(poll(&mut stream).await.is_none());
    assert_eq!(hub.overview(PEER).wanted.unwrap().revision, 3);
    publish(&hub, 51, &image(2));
    let sent = poll(&mut stream).await.unwrap().unwrap();
    assert!(
        matches!(sent, Update::Snapshot(ref s) if s.revision == 51),
        "its base was never sent by this process: {sent:?}"
    );
}

#[tokio::test]
async fn an_agent_that_was_away_gets_a_delta_from_the_image_it_kept() {
    let hub = hub();
    drop(synced(&hub).await);
    assert!(!hub.overview(PEER).connected);
    publish(&hub, 6, &image(2));
    let mut stream = hub.open(PEER, &holding(5, &image(1)), 0).unwrap();
    network(&mut stream).await;
    assert_eq!(delta(&mut stream).await.base_revision, 5);
}

#[tokio::test]
async fn revisions_rise_above_what_an_agent_brings_from_a_newer_store() {
    let hub = hub();
    roster(&hub, true);
    publish(&hub, 5, &image(1));
    let mut stream = hub.open(PEER, &holding(70, &image(2)), 0).unwrap();
    network(&mut stream).await;
    assert_eq!(snapshot(&mut stream).await, (71, image(1).image()));
    publish(&hub, 6, &image(3));
    assert_eq!(delta(&mut stream).await.revision, 72);
    let refused = hub.open(PEER, &holding(u64::MAX, &image(2)), 0).err();
    assert_eq!(refused, Some(Refused::Revision));
}

#[tokio::test]
async fn a_second_stream_replaces_the_first() {
    let hub = hub();
    let mut first = synced(&hub).await;
    let mut second = hub.open(PEER, &holding(5, &image(1)), 0).unwrap();
    assert_eq!(poll(&mut first).await.unwrap().unwrap_err(), Refused::Replaced);
    let ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = ended.clone();
    first.on_end(move || seen.store(true, std::sync::atomic::Ordering::SeqCst));
    drop(first);
    assert!(!ended.load(std::sync::atomic::Ordering::SeqCst), "the agent is still there");
    assert!(hub.connected(PEER));
    network(&mut second).await;
    assert_eq!(hub.metrics.connected_agents.with_label_values(&["gateway"]).get(), 1);
}

#[tokio::test]
async fn a_deleted_peer_loses_its_stream_at_once_even_while_it_waits() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    let waiting = tokio::spawn(async move { stream.next().await });
    tokio::task::yield_now().await;
    hub.set_roster(Default::default(), 1);
    assert_eq!(waiting.await.unwrap().unwrap_err(), Refused::Deleted);
    assert_eq!(hub.metrics.connected_agents.with_label_values(&["gateway"]).get(), 0);
    assert_eq!(hub.metrics.streams_ended.with_label_values(&["deleted"]).get(), 1);
}

#[tokio::test]
async fn a_shutdown_ends_streams_and_admits_no_new_ones() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    hub.shut_down();
    assert_eq!(poll(&mut stream).await.unwrap().unwrap_err(), Refused::Closing);
    assert_eq!(hub.open(PEER, &SyncRequest::default(), 0).err(), Some(Refused::Closing));
}

#[tokio::test]
async fn what_cannot_be_compiled_leaves_the_image_and_is_shown() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    let target = Target { image: Err("too many rules".into()), network: None };
    hub.publish(6, BTreeMap::from([(PEER.to_owned(), target)]), true);
    assert!(poll(&mut stream).await.is_none());
    assert_eq!(hub.overview(PEER).compile_error.as_deref(), Some("too many rules"));
    assert!(hub.compilation().error.unwrap().contains("too many rules"));
    assert_eq!(hub.metrics.compile_failures.get(), 1);
    assert!(!hub.to_compile(false)[PEER].current);
    publish(&hub, 7, &image(2));
    assert_eq!(delta(&mut stream).await.revision, 7);
    assert_eq!((hub.overview(PEER).compile_error, hub.compilation().error), (None, None));
}

#[test]
fn only_connected_peers_and_gateways_are_compiled_for() {
    let hub = hub();
    roster(&hub, false);
    assert!(hub.to_compile(false).is_empty());
    let stream = hub.open(PEER, &SyncRequest::default(), 0).unwrap();
    assert_eq!(hub.to_compile(true).len(), 1);
    publish(&hub, 5, &image(1));
    assert!(hub.to_compile(true).is_empty());
    drop(stream);
    assert!(hub.to_compile(false).is_empty());
    assert!(hub.wanted_image(PEER).is_none(), "an absent peer costs no image");
    roster(&hub, true);
    assert_eq!(hub.to_compile(false).len(), 1);
}

#[tokio::test]
async fn a_peer_that_left_and_came_back_during_a_compilation_is_a_newcomer_to_the_next() {
    let hub = hub();
    roster(&hub, false);
    let stream = hub.open(PEER, &SyncRequest::default(), 0).unwrap();
    publish(&hub, 5, &image(1));
    drop(stream);
    let mut stream = hub.open(PEER, &SyncRequest::default(), 0).unwrap();
    let unchanged = Target { image: Ok((image(1), Arc::default())), network: None };
    hub.publish(6, BTreeMap::from([(PEER.to_owned(), unchanged)]), true);
    assert_eq!(hub.to_compile(true).len(), 1);
    publish(&hub, 6, &image(1));
    network(&mut stream).await;
    snapshot(&mut stream).await;
}

#[test]
fn lost_events_are_counted_across_an_agents_restart() {
    let hub = hub();
    roster(&hub, false);
    for total in [5, 7, 2] {
        let health = Some(Health { flows: total, ..Health::default() });
        hub.report(PEER, ReportRequest { flow_events_lost: total, health, ..ReportRequest::default() }, 9)
            .unwrap();
    }
    assert_eq!(hub.metrics.flow_events_lost.get(), 9);
    assert_eq!(hub.overview(PEER).reported.unwrap().health.flows, 2);
}

/// It comes from another replica, which had compiled the change of revision 6; here that is still under way.
#[tokio::test]
async fn an_agent_from_elsewhere_gets_nothing_before_the_images_are_as_new_as_the_store() {
    for applied in [image(2).hash.to_vec(), Vec::new()] {
        let hub = hub();
        roster(&hub, true);
        publish(&hub, 5, &image(1));
        let request = SyncRequest { applied_hash: applied, ..holding(6, &image(2)) };
        let mut stream = hub.open(PEER, &request, 6).unwrap();
        assert!(poll(&mut stream).await.is_none(), "neither overlay nor image of an older state");
        hub.compilation_failed("rule r has slot 9".into());
        assert!(poll(&mut stream).await.is_none());
        let mut newcomer = hub.open("other", &SyncRequest::default(), 6);
        assert!(poll(newcomer.as_mut().unwrap()).await.is_none(), "nothing is compiled for it yet");
        {
            let waits = stream.next();
            tokio::pin!(waits);
            assert!(tokio::select! { biased; _ = &mut waits => false, () = std::future::ready(()) => true });
            publish(&hub, 6, &image(2));
            // Woken by the compilation itself.
            assert!(matches!(waits.await.unwrap().update.unwrap(), Update::Network(_)));
        }
        match request.applied_hash.is_empty() {
            false => {
                assert!(poll(&mut stream).await.is_none(), "the image in force stays, under its revision")
            }
            true => {
                let (revision, sent) = snapshot(&mut stream).await;
                assert!(revision > 6 && sent == image(2).image(), "revision {revision}");
            }
        }
    }
}

#[tokio::test]
async fn an_agent_without_an_image_takes_what_there_is() {
    let hub = hub();
    roster(&hub, true);
    publish(&hub, 5, &image(1));
    let mut stream = hub.open(PEER, &SyncRequest::default(), 6).unwrap();
    network(&mut stream).await;
    assert_eq!(snapshot(&mut stream).await.0, 5);
}

/// The state was read, then the peer joined, perhaps at another replica, and came here before that state was acted on.
#[tokio::test]
async fn a_peer_that_joined_after_the_state_was_read_is_not_taken_for_deleted() {
    let hub = hub();
    let mut stream = hub.open(PEER, &SyncRequest::default(), 6).unwrap();
    hub.set_roster(Default::default(), 5);
    assert!(poll(&mut stream).await.is_none(), "it waits for the state that has it");
    hub.set_roster(Default::default(), 6);
    assert_eq!(poll(&mut stream).await.unwrap().unwrap_err(), Refused::Deleted);
}

/// Milliseconds from now on; far beyond what a test takes.
const LONG: u64 = 3_600_000;

fn publish_until(hub: &Hub, revision: u64, image: &Arc<Compiled>, later: &[(u64, u32)]) {
    let later = later.iter().map(|&(at_ms, which)| Later { at_ms, image: self::image(which) });
    let target = Target { image: Ok((image.clone(), later.collect())), network: None };
    hub.publish(revision, BTreeMap::from([(PEER.to_owned(), target)]), true);
}

fn following() -> SyncRequest {
    SyncRequest { follows_schedules: true, ..SyncRequest::default() }
}

/// The next message, with what it says of ends.
async fn whole(stream: &mut UpdateStream) -> Option<SyncUpdate> {
    let next = stream.next();
    tokio::pin!(next);
    tokio::select! {
        biased;
        update = &mut next => Some(update.unwrap()),
        () = std::future::ready(()) => None,
    }
}

/// An agent that knows schedules holds image 1 of revision 5, of which nothing ends.
async fn followed(hub: &Arc<Hub>) -> UpdateStream {
    roster(hub, true);
    let mut stream = hub.open(PEER, &following(), 0).unwrap();
    publish(hub, 5, &image(1));
    network(&mut stream).await;
    let first = whole(&mut stream).await.unwrap();
    assert!(matches!(first.update, Some(Update::Snapshot(_))) && first.schedule.is_none());
    say(hub, 5, &image(1), "");
    stream
}

fn revisions(schedule: &Schedule) -> Vec<u64> {
    schedule.ends.iter().map(|end| end.revision).collect()
}

#[tokio::test]
async fn what_an_image_becomes_comes_with_it_and_leads_from_one_to_the_next() {
    let hub = hub();
    let mut stream = followed(&hub).await;
    let at = now().unsigned_abs() + LONG;
    publish_until(&hub, 9, &image(2), &[(at, 3), (at + LONG, 1)]);
    let sent = whole(&mut stream).await.unwrap();
    assert!(matches!(sent.update, Some(Update::Delta(ref delta)) if delta.revision == 9));
    let schedule = sent.schedule.unwrap();
    assert_eq!((&schedule.base_hash, revisions(&schedule)), (&image(2).hash.to_vec(), vec![10, 11]));
    let mut held = image(2).image();
    for (end, which) in schedule.ends.iter().zip([3, 1]) {
        held = held.apply(&Delta::decode(&end.delta).unwrap()).unwrap();
        assert_eq!((held.hash().to_vec(), &end.hash), (image(which).hash.to_vec(), &end.hash));
    }
    assert!((LONG - 60_000..=LONG).contains(&schedule.ends[0].left_ms) && schedule.ends[0].at_ms == at);
    say(&hub, 9, &image(2), "");
    // The same again: nothing is sent. Another time, or none: that alone.
    publish_until(&hub, 10, &image(2), &[(at, 3), (at + LONG, 1)]);
    assert!(whole(&mut stream).await.is_none());
    publish_until(&hub, 11, &image(2), &[(at + 5, 1)]);
    let alone = whole(&mut stream).await.unwrap();
    assert_eq!((alone.update, revisions(alone.schedule.as_ref().unwrap())), (None, vec![10]));
    publish_until(&hub, 12, &image(2), &[]);
    let alone = whole(&mut stream).await.unwrap();
    assert_eq!((alone.update, revisions(alone.schedule.as_ref().unwrap())), (None, vec![]));
    assert!(whole(&mut stream).await.is_none());
    // What the agent could have reached by itself is not given to another image.
    publish_until(&hub, 10, &image(4), &[]);
    assert!(
        matches!(whole(&mut stream).await.unwrap().update, Some(Update::Delta(delta)) if delta.revision == 12)
    );
}

#[tokio::test]
async fn an_agent_that_is_too_old_gets_no_schedule_and_is_named() {
    let hub = hub();
    let mut stream = synced(&hub).await;
    let at = now().unsigned_abs() + LONG;
    assert!(!hub.overview(PEER).keeps_grants);
    publish_until(&hub, 9, &image(2), &[(at, 1)]);
    let sent = whole(&mut stream).await.unwrap();
    assert!(sent.update.is_some() && sent.schedule.is_none());
    say(&hub, 9, &image(2), "");
    publish_until(&hub, 10, &image(2), &[(at + 1, 1)]);
    assert!(whole(&mut stream).await.is_none());
    assert!(hub.overview(PEER).keeps_grants);
    publish_until(&hub, 11, &image(1), &[]);
    assert!(!hub.overview(PEER).keeps_grants);
}

#[tokio::test]
async fn an_agent_that_ended_a_grant_by_itself_is_not_given_it_back() {
    let hub = hub();
    let mut stream = followed(&hub).await;
    let at = now().unsigned_abs() + LONG;
    publish_until(&hub, 9, &image(2), &[(at, 3), (at + LONG, 1)]);
    whole(&mut stream).await.unwrap();
    say(&hub, 9, &image(2), "");
    // Its clock is a little ahead.
    publish_until(&hub, 10, &image(2), &[(now().unsigned_abs() + 2_000, 3), (at + LONG, 1)]);
    whole(&mut stream).await.unwrap();
    say_at(&hub, 10, &image(3), "", now().unsigned_abs());
    assert!(whole(&mut stream).await.is_none());
    let overview = hub.overview(PEER);
    assert_eq!(overview.wanted, Some(overview.applied.unwrap().held));
    assert!(!hub.to_compile(false)[PEER].current, "it is compiled anew the next time");
    // Control comes to it as well.
    publish_until(&hub, 11, &image(3), &[(at + LONG, 1)]);
    assert!(whole(&mut stream).await.is_none());
    assert!(hub.to_compile(false)[PEER].current);
    publish_until(&hub, 12, &image(4), &[]);
    let Some(Update::Delta(delta)) = whole(&mut stream).await.unwrap().update else { panic!("no delta") };
    assert_eq!((delta.base_hash, delta.revision), (image(3).hash.to_vec(), 12));
    // And where the grant is extended, it comes back.
    say(&hub, 12, &image(4), "");
    publish_until(&hub, 13, &image(2), &[(at, 3)]);
    whole(&mut stream).await.unwrap();
    say(&hub, 13, &image(2), "");
    say(&hub, 14, &image(3), "");
    publish_until(&hub, 14, &image(2), &[(at + LONG, 3)]);
    let again = whole(&mut stream).await.unwrap();
    let Some(Update::Delta(delta)) = again.update else { panic!("no delta") };
    assert_eq!(
        (delta.base_hash, delta.revision, delta.hash),
        (image(3).hash.to_vec(), 15, image(2).hash.to_vec())
    );
    assert_eq!(revisions(&again.schedule.unwrap()), [16]);
}

#[tokio::test]
async fn a_grant_that_is_extended_while_the_agent_ends_it_comes_back() {
    for lists in [[(LONG, 3), (2 * LONG, 1)].as_slice(), &[(LONG, 4)]] {
        let hub = hub();
        let mut stream = followed(&hub).await;
        let at = now().unsigned_abs();
        publish_until(&hub, 9, &image(2), &[(at + 10, 3)]);
        whole(&mut stream).await.unwrap();
        say(&hub, 9, &image(2), "");
        // It is put off, and the agent has ended it before it hears of that.
        let later: Vec<_> = lists.iter().map(|&(left, which)| (at + left, which)).collect();
        publish_until(&hub, 10, &image(2), &later);
        assert!(whole(&mut stream).await.unwrap().update.is_none());
        say_at(&hub, 10, &image(3), "", now().unsigned_abs());
        let again = whole(&mut stream).await.unwrap();
        let (hash, revision) = match again.update.unwrap() {
            Update::Delta(delta) => (delta.hash, delta.revision),
            Update::Snapshot(snapshot) => (snapshot.hash, snapshot.revision),
            other => panic!("{other:?}"),
        };
        assert!(hash == image(2).hash && revision > 10, "{revision}");
        assert_eq!(again.schedule.unwrap().ends.len(), lists.len());
        say(&hub, revision, &image(2), "");
        let overview = hub.overview(PEER);
        assert_eq!(overview.wanted, Some(overview.applied.unwrap().held));
        // The same word once more, late, changes nothing.
        say_at(&hub, 10, &image(3), "", now().unsigned_abs());
        assert!(whole(&mut stream).await.is_none());
        assert_eq!(hub.overview(PEER), overview);
    }
}

#[tokio::test]
async fn what_has_ended_is_sent_to_nobody_though_nothing_was_compiled_since() {
    let hub = hub();
    roster(&hub, true);
    publish(&hub, 5, &image(1));
    let past = now().unsigned_abs() - 1;
    publish_until(&hub, 9, &image(2), &[(past - 1, 3), (past, 4), (past + LONG, 1)]);
    let mut stream = hub.open(PEER, &following(), 0).unwrap();
    network(&mut stream).await;
    let sent = whole(&mut stream).await.unwrap();
    let Some(Update::Snapshot(snapshot)) = sent.update else { panic!("no snapshot") };
    assert_eq!((snapshot.hash, snapshot.revision), (image(4).hash.to_vec(), 11));
    assert_eq!(revisions(&sent.schedule.unwrap()), [12]);
    // One that comes back with what it ended by itself is left alone.
    drop(stream);
    let held = SyncRequest { follows_schedules: true, scheduled: 1, ..holding(11, &image(4)) };
    let mut stream = hub.open(PEER, &held, 0).unwrap();
    network(&mut stream).await;
    let sent = whole(&mut stream).await.unwrap();
    assert_eq!((sent.update, revisions(&sent.schedule.unwrap())), (None, vec![12]));
    assert!(whole(&mut stream).await.is_none());
}

#[tokio::test]
async fn an_agent_that_knows_of_ends_is_told_when_there_are_none() {
    let hub = hub();
    roster(&hub, true);
    publish(&hub, 5, &image(1));
    for (scheduled, told) in [(0, None), (2, Some(vec![]))] {
        let held = SyncRequest { follows_schedules: true, scheduled, ..holding(5, &image(1)) };
        let mut stream = hub.open(PEER, &held, 0).unwrap();
        network(&mut stream).await;
        let sent = whole(&mut stream).await;
        assert_eq!(sent.map(|sent| revisions(&sent.schedule.unwrap())), told);
    }
}
