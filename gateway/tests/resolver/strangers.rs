//! Who is not of the host, and what is no question.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::RecordType;
use sluicegate_gateway::config::HostMode;

use crate::world::{By, OWN, PATIENCE, World, ask, config, exchange, question, said, until, want};

#[test]
fn another_machine_is_refused_whatever_it_asks() {
    let world = World::new();
    let stranger = world.lab.namespace("stranger").unwrap();
    world.lab.veth((&world.host, "eth0"), (&stranger, "eth0")).unwrap();
    for (namespace, n) in [(&world.host, 1), (&stranger, 2)] {
        namespace.address("eth0", &format!("192.0.2.{n}/24")).unwrap();
        namespace.address("eth0", &format!("2001:db8::{n}/64")).unwrap();
    }
    stranger.ip(&["route", "add", "100.90.0.0/16", "via", "192.0.2.1"]).unwrap();
    stranger.ip(&["-6", "route", "add", "fd5c::/64", "via", "2001:db8::1"]).unwrap();
    world.run(async |world| {
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[]), 2).await;
        let asked = question("alpha.peers.test", RecordType::A);
        for server in OWN {
            let server = SocketAddr::new(server.parse().unwrap(), 53);
            for by in [By::Udp, By::Tcp] {
                let ask = || exchange(server, by, &asked.to_vec().unwrap(), PATIENCE);
                let answer = tokio::task::block_in_place(|| stranger.enter(ask).unwrap());
                let answer = Message::from_vec(&answer.expect("a refusal is an answer")).unwrap();
                assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{server} {by:?}");
                assert!(answer.answers.is_empty() && answer.authorities.is_empty());
                assert_eq!(answer.metadata.id, asked.metadata.id);
            }
        }
        // However many connections it holds, the host has room.
        let held = tokio::task::block_in_place(|| {
            let connect = |_| TcpStream::connect((OWN[0], 53)).unwrap();
            stranger.enter(|| (0..200).map(connect).collect::<Vec<_>>()).unwrap()
        });
        let answer = ask(OWN[0], By::Tcp, "alpha.peers.test", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        drop(held);
        // The host itself is not, from whichever of its addresses it asks.
        let socket = UdpSocket::bind(("192.0.2.1", 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.send_to(&asked.to_vec().unwrap(), (OWN[0], 53)).unwrap();
        let mut buffer = [0; 1500];
        let length = tokio::task::block_in_place(|| socket.recv(&mut buffer)).unwrap();
        let answer = Message::from_vec(&buffer[..length]).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        let refused = |status: &sluicegate_gateway::status::Dns| {
            status.refused.iter().find(|refused| refused.reason == "stranger").unwrap().count
        };
        until(&handle, "strangers are counted", |status| refused(status) == 4).await;
    });
}

#[test]
fn what_is_no_question_gets_an_error_or_nothing_and_others_are_answered_all_the_while() {
    World::new().run(async |world| {
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[]), 2).await;
        let good = question("alpha.peers.test", RecordType::A).to_vec().unwrap();
        for server in OWN {
            let server = SocketAddr::new(server.parse().unwrap(), 53);
            let answer = |bytes: &[u8], by, patience| {
                let answer = tokio::task::block_in_place(|| exchange(server, by, bytes, patience));
                answer.map(|answer| Message::from_vec(&answer).unwrap().metadata.response_code)
            };
            let code = |bytes: &[u8], by| answer(bytes, by, PATIENCE);
            let nothing = |bytes: &[u8], by| answer(bytes, by, Duration::from_millis(300));
            for by in [By::Udp, By::Tcp] {
                assert_eq!(code(&good[..good.len() - 3], by), Some(ResponseCode::FormErr), "{by:?}");
                assert_eq!(nothing(&good[..5], by), None, "{by:?}: that is not even a header");
                assert_eq!(nothing(&[], by), None, "{by:?}");
                let mut answered = good.clone();
                answered[2] |= 0x80;
                assert_eq!(nothing(&answered, by), None, "{by:?}: nobody answers an answer");
                assert_eq!(code(&good, by), Some(ResponseCode::NoError), "{by:?}");
            }
        }
        // Two questions on one connection, and a third that is cut off.
        let mut stream = TcpStream::connect((OWN[0], 53)).unwrap();
        let framed = [&(good.len() as u16).to_be_bytes()[..], &good].concat();
        stream.write_all(&[&framed[..], &framed, &framed[..9]].concat()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = Vec::new();
        tokio::task::block_in_place(|| stream.read_to_end(&mut answers)).unwrap();
        let first = 2 + usize::from(u16::from_be_bytes([answers[0], answers[1]]));
        assert_eq!(answers.len(), 2 * first, "two whole answers");
        assert_eq!(said("alpha.peers.test", RecordType::A), "NoError 60 100.90.0.1");
    });
}

#[test]
fn one_client_that_asks_without_end_leaves_room_for_others() {
    World::new().run(async |world| {
        // A name server that says nothing holds every question for seconds.
        let _silent = UdpSocket::bind("127.0.0.2:5300").unwrap();
        let handle = world.start(&[], HostMode::Off);
        want(&handle, &config(&[(&["127.0.0.2#5300"], &["corp.test"])]), 2).await;
        let busy = UdpSocket::bind((OWN[0], 0)).unwrap();
        for n in 0..400 {
            let bytes = question(&format!("n{n}.corp.test"), RecordType::A).to_vec().unwrap();
            busy.send_to(&bytes, (OWN[0], 53)).unwrap();
            // As many as the socket's buffer holds.
            if n % 50 == 49 {
                tokio::time::sleep(Duration::from_millis(30)).await;
            }
        }
        // From the same address, as everything on the host is.
        assert_eq!(said("alpha.peers.test", RecordType::A), "NoError 60 100.90.0.1");
        let status = until(&handle, "too many are counted", |status| {
            status.refused.iter().any(|refused| refused.reason == "busy" && refused.count >= 100)
        })
        .await;
        let asked: u64 = status.forwards[0].servers.iter().map(|server| server.questions).sum();
        assert!((1..=64).contains(&asked), "{asked} questions of one client are in flight");
    });
}
