//! Over the machine's loopback.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::{Duration, Instant};

use ringhold::client::{AskError, Client, Error, Options};
use ringhold_cluster::frame::FRAME_BYTES_MAX;
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::transport;
use ringhold_cluster::wire::{Close, Preamble, Refused, Request, Response, StreamKind, TypeLayout};
use ringhold_kernels::actor::Actor;
use ringhold_kernels::hlc::Hlc;
use ringhold_kernels::id::{ActorId, Key, TypeId};
use ringhold_kernels::message::{Header, Kind, Reason};

use crate::harness::{Echo, Node, Number, PAYLOAD_BYTES_MAX, closed, frame, serve, tell, until};

fn node() -> Node {
    Node::start(Arc::new(RealNetwork))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_are_answered_and_tells_arrive_in_order() {
    let node = node();
    let client = node.client().await;
    assert_eq!(client.ask(7, Number(42)).await.unwrap(), Number(42));
    for i in 0..100_000u64 {
        client.tell(i % 10, Number(i)).await.unwrap();
    }
    client.flush().await.unwrap();
    let numbers = node.doors.numbers();
    assert_eq!(numbers[0], 42);
    assert!(numbers[1..].iter().copied().eq(0..100_000), "a flush means that all of them are there, in order");
    client.close().await.unwrap();
    until("the session ends", || node.counters().sessions_closed.load(Relaxed) == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_of_asks_is_answered_in_order() {
    let node = node();
    let client = node.client().await;
    let mut asks = client.asks((0..50_000u64).map(|i| (Key(i), Number(i))), 1_000);
    let mut expected = 0;
    while let Some((key, reply)) = asks.next().await {
        assert_eq!((key, reply.unwrap()), (Key(expected), Number(expected)));
        expected += 1;
    }
    assert_eq!(expected, 50_000);
}

#[tokio::test]
async fn a_client_without_a_certificate_is_told_what_it_needs() {
    let node = node();
    let error = Client::connect(node.options_as(node.authority.anonymous().unwrap())).await.err().unwrap();
    assert!(matches!(error, Error::CertificateRequired { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("requires a certificate signed by its authority"), "{text}");
    assert!(text.contains("client.pem") && text.contains("--tls"), "{text}");
    until("the refusal is counted", || node.counters().refused_no_certificate.load(Relaxed) == 1).await;
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_on_both_sides() {
    let node = node();
    let other = Authority::in_memory(&RealNetwork).unwrap();
    let stranger = other.identity(Role::Client, &RealNetwork).unwrap();

    // It believes only its own authority: it does not talk to this node.
    let error = Client::connect(node.options_as(stranger.clone())).await.err().unwrap();
    assert!(matches!(error, Error::ForeignNode { .. }), "{error}");
    assert!(error.to_string().contains("ca.pem"), "{error}");

    // It believes the node, and shows a certificate that the node does not know.
    let identity = stranger.believing(&node.authority.anonymous().unwrap());
    let error = Client::connect(node.options_as(identity)).await.err().unwrap();
    assert!(matches!(error, Error::CertificateRefused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("another authority signed it") && text.contains("client.pem"), "{text}");
    until("both are counted", || {
        let counters = node.counters();
        counters.refused_certificate.load(Relaxed) == 2
    })
    .await;
}

#[tokio::test]
async fn a_layout_mismatch_names_both_hashes() {
    let node = node();
    node.doors.types.lock()[0].layout_hash = 0xdead_beef;
    let error = Client::connect(node.options()).await.err().unwrap();
    assert!(matches!(&error, Error::Refused { refused: Refused::Layout(_), .. }), "{error}");
    let text = error.to_string();
    let own = format!("{:016x}", Echo::schema().layout_hash());
    assert!(text.contains("00000000deadbeef") && text.contains(&own) && text.contains("Build both"), "{text}");
    assert_eq!(node.counters().refused_layout.load(Relaxed), 1);
}

#[tokio::test]
async fn what_the_node_cannot_take_is_said_before_it_is_sent() {
    let node = node();
    let to = ActorId::new(Echo::TYPE, Key(1));
    let client = node.client().await;
    let error = client.tell_raw(to, &[0; PAYLOAD_BYTES_MAX as usize + 1]).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { len: 157, max: 156 }), "{error}");
    client.tell_raw(to, &[0; PAYLOAD_BYTES_MAX as usize]).await.unwrap();

    let untyped = Options { types: vec![], ..node.options() };
    let error = Client::connect(untyped).await.unwrap().tell(1, Number(1)).await.unwrap_err();
    assert!(matches!(error, Error::NotRegistered { name: "test.echo" }), "{error}");

    node.doors.types.lock()[0] = TypeLayout { name: "other".into(), layout_hash: 1 };
    let error = node.client().await.ask(1, Number(1)).await.unwrap_err();
    assert!(matches!(&error, AskError::NotSent(Error::UnknownType { .. })), "{error}");
    assert!(error.to_string().contains("`test.echo`") && error.to_string().contains("`other`"), "{error}");
}

#[tokio::test]
async fn addresses_that_do_not_work_are_explained() {
    let node = node();
    let mut options = node.options();
    options.connect_deadline = Duration::from_millis(300);
    options.addresses = vec!["127.0.0.1:1".into()];
    let error = Client::connect(options.clone()).await.err().unwrap();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
    options.addresses = vec!["no such place".into()];
    assert!(matches!(Client::connect(options.clone()).await.err().unwrap(), Error::Resolve { .. }));
    // Of a node that says something and one that says nothing, the former is told of.
    let stranger = Options { identity: node.authority.anonymous().unwrap(), ..options.clone() };
    let addresses = vec![node.server.address().to_string(), "127.0.0.1:1".into()];
    let error = Client::connect(Options { addresses, ..stranger }).await.err().unwrap();
    assert!(matches!(error, Error::CertificateRequired { .. }), "{error}");
    // A name with two addresses, of which one has a node; and the next address is tried.
    options.addresses = vec![format!("localhost:{}", node.server.address().port())];
    Client::connect(options.clone()).await.unwrap();
    options.addresses = vec!["127.0.0.1:1".into(), node.server.address().to_string()];
    Client::connect(options).await.unwrap();

    let taken = node.server.address();
    let identity = node.authority.identity(Role::Node, &RealNetwork).unwrap();
    let error = transport::server_endpoint(&node.network, taken, &identity, &Arc::default()).err().unwrap();
    let text = error.to_string();
    assert!(text.contains(&taken.to_string()) && text.contains("another program listens"), "{text}");
}

#[tokio::test]
async fn garbage_at_the_port_is_counted_and_changes_nothing() {
    let node = node();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for i in 0..200usize {
        let junk: Vec<u8> = (0..i * 7).map(|j| (i * 31 + j * 17) as u8).collect();
        socket.send_to(&junk, node.server.address()).unwrap();
    }
    socket.send_to(b"GET / HTTP/1.1\r\n\r\n", node.server.address()).unwrap();
    let client = node.client().await;
    assert_eq!(client.ask(1, Number(5)).await.unwrap(), Number(5));
    assert!(node.counters().datagrams_not_quic.load(Relaxed) > 0);
}

#[tokio::test]
async fn a_garbage_preamble_or_hello_closes_the_connection_with_a_reason() {
    let node = node();
    let client = node.client().await;
    for (bytes, close, says) in [
        (b"GET / HTTP/1.1\r\n".to_vec(), Close::Preamble, "RHLD"),
        (Preamble::new(StreamKind::Lane).to_bytes().to_vec(), Close::Preamble, "control stream"),
        (
            [&Preamble::new(StreamKind::Control).to_bytes()[..], &[3, 0, 0, 0, 0xff, 0xff, 0xff]].concat(),
            Close::Control,
            "decoded",
        ),
        ([&Preamble::new(StreamKind::Control).to_bytes()[..], &[0xff; 4]].concat(), Close::Control, "limit"),
    ] {
        let connection = node.raw().await;
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(&bytes).await.unwrap();
        let (code, reason) = closed(&connection).await;
        assert_eq!(code, close as u64, "{reason}");
        assert!(reason.contains(says), "{reason}");
    }
    // A stream that ends too soon.
    let connection = node.raw().await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    send.write_all(b"RHL").await.unwrap();
    send.finish().unwrap();
    assert_eq!(closed(&connection).await.0, Close::Preamble as u64);
    assert_eq!(node.counters().bad_preambles.load(Relaxed), 3);
    assert_eq!(node.counters().bad_controls.load(Relaxed), 2);
    assert_eq!(client.ask(1, Number(5)).await.unwrap(), Number(5));
}

#[tokio::test]
async fn each_bad_frame_closes_its_connection_with_a_reason_and_is_counted_by_cause() {
    let node = node();
    let bystander = node.client().await;
    let (header, payload) = tell(1);
    let long = Header::new(Kind::Tell, header.to(), header.from(), 200, Hlc(0));
    let forged = header.with_from(ActorId::new(TypeId::CLIENT, Key(9 << 32)));
    let again = (header.with_from(ActorId::new(TypeId::CLIENT, Key(3))), payload.clone());
    let mut oversize = frame(0, &[]);
    oversize[..4].copy_from_slice(&(FRAME_BYTES_MAX as u32 + 8).to_le_bytes());
    let mut old = frame(0, &[tell(1)]);
    old[4] = 77;
    let mut lying = frame(0, &[tell(1), tell(2)]);
    lying[8] = 1;
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("kind", frame(0, &[tell(1), (header.with_kind(Kind::Reply), payload.clone())]), "kind 3"),
        ("kind", frame(0, &[(header.with_kind(Kind::Inspected), payload.clone())]), "kind 7"),
        ("payload", frame(0, &[(long, vec![0; 200])]), "200 bytes"),
        ("sender", frame(0, &[(forged, payload.clone())]), "sender"),
        ("sequence", [frame(5, &[]), frame(4, &[tell(1)])].concat(), "follows message 4"),
        ("sequence", frame(0, &[again.clone(), again]), "follows message 3"),
        ("too_large", oversize, "over the limit"),
        ("version", old, "version 77"),
        ("count", lying, "do not agree"),
    ];
    for (cause, bytes, says) in cases {
        let mut raw = node.raw_lane().await;
        let _ = raw.lane.write_all(&bytes).await;
        let (code, reason) = raw.closed().await;
        assert_eq!(code, Close::Frame as u64, "{cause}: {reason}");
        assert!(reason.contains(says), "{cause}: {reason}");
        let name = format!("bad_frames_{cause}");
        let counted = node.counters().snapshot().into_iter().find(|c| c.name == name).unwrap().value;
        assert!(counted >= 1, "{cause}");
    }
    // A lane that ends inside a frame.
    let mut raw = node.raw_lane().await;
    raw.lane.write_all(&frame(0, &[tell(1)])[..40]).await.unwrap();
    raw.lane.finish().unwrap();
    assert!(raw.closed().await.1.contains("ended inside a frame"));
    // Nothing of a bad frame was handed on, and nobody else noticed.
    assert_eq!(node.doors.count.load(SeqCst), 0);
    assert_eq!(bystander.ask(1, Number(5)).await.unwrap(), Number(5));
}

#[tokio::test]
async fn random_bytes_on_a_lane_are_survived() {
    let node = node();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for round in 0..60 {
        let mut bytes = frame(0, &(0..20).map(tell).collect::<Vec<_>>());
        for _ in 0..=round % 5 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = (seed >> 33) as usize % bytes.len();
            bytes[at] ^= (seed >> 20) as u8 | 1;
        }
        let mut raw = node.raw_lane().await;
        let _ = raw.lane.write_all(&bytes).await;
        let _ = raw.lane.finish();
        // It was either refused or understood as something else; either way the lane comes to its end.
        while let Ok(Some(_)) = raw.answers.read_chunk(1 << 16, true).await {}
        raw.connection.close(Close::Done.code(), b"");
        until("its session is gone", || node.server.sessions().is_empty()).await;
    }
    assert_eq!(node.client().await.ask(1, Number(5)).await.unwrap(), Number(5));
}

#[tokio::test]
async fn a_second_lane_and_too_many_sessions_are_refused() {
    let node = node();
    let raw = node.raw_lane().await;
    let (mut second, _recv) = raw.connection.open_bi().await.unwrap();
    second.write_all(&Preamble::new(StreamKind::Lane).to_bytes()).await.unwrap();
    assert_eq!(raw.closed().await, (Close::TooMany as u64, "a second lane".into()));
    until("its session is gone", || node.server.sessions().is_empty()).await;

    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(node.client().await);
    }
    let error = Client::connect(node.options()).await.err().unwrap();
    assert!(matches!(&error, Error::Refused { refused: Refused::TooManySessions { .. }, .. }), "{error}");
    clients.pop().unwrap().close().await.unwrap();
    until("there is room", || node.server.sessions().len() == 7).await;
    node.client().await;
}

#[tokio::test]
async fn a_deadline_ends_an_ask_and_its_late_answer_is_counted() {
    let node = node();
    node.doors.hold.store(true, SeqCst);
    let client = node.client().await;
    let error = client.ask_with(1, Number(1), Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded), "{error}");
    assert!(error.to_string().contains("`test.echo` 1"), "{error}");
    node.doors.answer_held();
    until("the late answer comes", || client.stats().late_answers == 1).await;
    node.doors.hold.store(false, SeqCst);
    assert_eq!(client.ask(1, Number(2)).await.unwrap(), Number(2));
}

#[tokio::test]
async fn a_dropped_ask_is_cancelled_and_its_slot_is_used_again() {
    let node = node();
    node.doors.hold.store(true, SeqCst);
    let client = node.client().await;
    for i in 0..100 {
        let ask = client.ask(1, Number(i));
        assert!(tokio::time::timeout(Duration::from_millis(1), ask).await.is_err());
    }
    until("the node has them", || node.doors.held.lock().len() == 100).await;
    node.doors.hold.store(false, SeqCst);
    node.doors.answer_held();
    until("all are late", || client.stats().late_answers == 100).await;
    let (a, b) = tokio::join!(client.ask(1, Number(7)), client.ask(1, Number(8)));
    assert_eq!((a.unwrap(), b.unwrap()), (Number(7), Number(8)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_room_holds_its_client_back_and_loses_nothing() {
    let node = node();
    node.doors.make_room(0);
    let client = node.client().await;
    let told = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let teller = tokio::spawn({
        let (client, told) = (client.clone(), told.clone());
        async move {
            for i in 0..400_000u64 {
                client.tell(1, Number(i)).await.unwrap();
                told.store(i, SeqCst);
            }
            client.flush().await.unwrap();
        }
    });
    // Held back somewhere between the outbox, the windows and the node's buffer.
    let mut last = u64::MAX;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let now = told.load(SeqCst);
        if now == last {
            break;
        }
        last = now;
    }
    assert!(last < 399_999, "the teller was never held back");
    assert_eq!(node.doors.count.load(SeqCst), 0);
    assert!(node.counters().held_back_room.load(Relaxed) > 0);
    // Another client is not concerned as soon as there is room for its message.
    for slots in [1, 10, 1_000] {
        node.doors.make_room(slots);
        until("what there is room for is taken", || node.doors.slots.load(SeqCst) == 0).await;
    }
    node.doors.make_room(usize::MAX);
    teller.await.unwrap();
    assert!(node.doors.numbers().into_iter().eq(0..400_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_its_answers_is_bounded() {
    let node = node();
    node.doors.record.store(false, SeqCst);
    let mut raw = node.raw_lane().await;
    let (header, payload) = tell(1);
    let ask = header.with_kind(Kind::Ask);
    let asks: Vec<_> = (0..1_000).map(|_| (ask, payload.clone())).collect();
    let write = async {
        for round in 0..1_000 {
            raw.lane.write_all(&frame(round * 1_000, &asks)).await.unwrap();
        }
    };
    // A million asks and nobody who reads: the node stops to read, and the writer can go no further.
    assert!(tokio::time::timeout(Duration::from_secs(3), write).await.is_err());
    assert!(node.doors.count.load(SeqCst) < 900_000);
    let sessions = node.server.sessions().status();
    assert!(sessions[0].held_back, "{sessions:?}");
    assert_eq!(node.client().await.ask(1, Number(5)).await.unwrap(), Number(5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn asks_that_nobody_answers_are_bounded_for_each_session() {
    let node = node();
    node.doors.hold.store(true, SeqCst);
    let client = node.client().await;
    let asker = tokio::spawn({
        let client = client.clone();
        async move {
            let mut asks = client.asks((0..40_000u64).map(|i| (1u64, Number(i))), 40_000);
            let mut answered = 0;
            while let Some((_, reply)) = asks.next().await {
                assert_eq!(reply.unwrap(), Number(answered));
                answered += 1;
            }
            answered
        }
    });
    until("the limit is reached", || node.doors.held.lock().len() == 16_384).await;
    node.doors.hold.store(false, SeqCst);
    node.doors.answer_held();
    assert_eq!(asker.await.unwrap(), 40_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_ask_among_millions_of_tells_is_not_delayed() {
    let node = node();
    node.doors.record.store(false, SeqCst);
    let client = node.client().await;
    // Alone: no timer may be in the way, so it takes far less than any timer would.
    let mut alone: Vec<Duration> = Vec::new();
    for i in 0..200 {
        let started = Instant::now();
        client.ask(1, Number(i)).await.unwrap();
        alone.push(started.elapsed());
    }
    alone.sort();
    assert!(alone[100] < Duration::from_millis(5), "median of a lone ask: {:?}", alone[100]);
    let teller = tokio::spawn({
        let client = client.clone();
        async move {
            for i in 0..2_000_000u64 {
                client.tell(1, Number(i)).await.unwrap();
            }
        }
    });
    let mut among = Vec::new();
    while !teller.is_finished() {
        let started = Instant::now();
        client.ask(2, Number(1)).await.unwrap();
        among.push(started.elapsed());
    }
    teller.await.unwrap();
    client.flush().await.unwrap();
    among.sort();
    // Behind at most an outbox and the windows of data, which are milliseconds.
    assert!(among[among.len() / 2] < Duration::from_millis(500), "{:?}", among[among.len() / 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_in_the_middle_of_a_stream_loses_nothing_and_the_client_goes_on_elsewhere() {
    let node = node();
    let second = serve(&node.network, &node.authority, node.doors.clone(), "127.0.0.1:0".parse().unwrap());
    let mut options = node.options();
    options.addresses.push(second.address().to_string());
    let client = Client::connect(options).await.unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    let teller = tokio::spawn({
        let (client, enough) = (client.clone(), enough.clone());
        async move {
            let mut told = 0;
            while !enough.load(SeqCst) {
                client.tell(1, Number(told)).await.unwrap();
                told += 1;
            }
            client.flush().await.unwrap();
            told
        }
    });
    until("some have arrived", || node.doors.count.load(SeqCst) > 50_000).await;
    let drained = node.server.drain(Duration::from_secs(10)).await;
    assert!(drained.complete, "{drained:?}");
    // Both nodes hand on to the same doors: what still comes has come through the second.
    let before = node.doors.count.load(SeqCst);
    until("more arrive elsewhere", || node.doors.count.load(SeqCst) > before + 50_000).await;
    enough.store(true, SeqCst);
    let told = teller.await.unwrap();
    assert!(node.doors.dead.lock().is_empty());
    assert!(node.doors.numbers().into_iter().eq(0..told));
    assert_eq!((client.stats().reconnects, client.stats().unconfirmed), (1, 0));
    assert_eq!(client.address(), second.address().to_string());
}

#[tokio::test]
async fn a_request_is_answered_or_its_failure_explained() {
    let node = node();
    let client = node.client().await;
    let Response::Status(status) = client.request(Request::Status, Duration::from_secs(5)).await.unwrap() else {
        panic!("a status");
    };
    assert_eq!((status.sessions.len(), status.address), (1, node.server.address().to_string()));
    assert!(status.transport.iter().any(|c| c.name == "requests" && c.value == 1));
    assert!(client.settle(Duration::from_secs(1)).await.unwrap().settled);
    let error = client.request(Request::ActorTypes, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(&error, Error::Failed(failed) if failed.text.contains("nothing of the kind")), "{error}");
    // One that is never answered.
    let error = client.request(Request::Devices, Duration::from_millis(50)).await.unwrap_err();
    assert!(error.to_string().contains("its devices"), "{error}");
}

#[tokio::test]
async fn a_closed_client_says_so() {
    let node = node();
    let client = node.client().await;
    let other = client.clone();
    client.tell(1, Number(1)).await.unwrap();
    client.close().await.unwrap();
    assert_eq!(node.doors.count.load(SeqCst), 1, "closing writes what was told");
    assert!(matches!(other.tell(1, Number(2)).await, Err(Error::Closed)));
    assert!(matches!(other.ask(1, Number(2)).await, Err(AskError::NotSent(Error::Closed))));
    assert!(matches!(other.request(Request::Status, Duration::from_secs(1)).await, Err(Error::Closed)));
    // The last handle of another one goes without a close: what was told is written all the same.
    let dropped = node.client().await;
    dropped.tell(1, Number(3)).await.unwrap();
    drop(dropped);
    until("it arrives", || node.doors.count.load(SeqCst) == 2).await;
    until("its session ends", || node.server.sessions().is_empty()).await;
}
