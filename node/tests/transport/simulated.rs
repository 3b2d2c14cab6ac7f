//! In memory and in paused time.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use ringhold::client::{AskError, Client, Error, Options};
use ringhold_cluster::wire::{self, Close, Preamble, Resumed, StreamKind};
use ringhold_kernels::message::Reason;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::{Node, Number, closed, frame, hello, serve, tell, until};
use crate::memory::MemoryNetwork;

fn node() -> (MemoryNetwork, Node) {
    let network = MemoryNetwork::default();
    (network.clone(), Node::start(Arc::new(network)))
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_closed_at_the_deadline() {
    let (_, node) = node();
    let started = Instant::now();
    let connection = node.raw().await;
    let (code, reason) = closed(&connection).await;
    assert_eq!(code, Close::TooSlow as u64, "{reason}");
    let waited = started.elapsed();
    assert!(waited >= wire::GREETING_DEADLINE && waited < wire::GREETING_DEADLINE * 2, "{waited:?}");
    assert_eq!(node.counters().too_slow.load(Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_byte_now_and_then_does_not_hold_a_connection_open() {
    let (_, node) = node();
    // A hello, drop by drop.
    let connection = node.raw().await;
    let (mut send, _recv) = connection.open_bi().await.unwrap();
    let bytes = [&Preamble::new(StreamKind::Control).to_bytes()[..], &wire::encode(&hello()).unwrap()].concat();
    let drip = async {
        for byte in bytes {
            if send.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(500)).await;
        }
    };
    let (_, (code, reason)) = tokio::join!(drip, closed(&connection));
    assert_eq!(code, Close::TooSlow as u64, "{reason}");

    // A frame, drop by drop.
    let mut raw = node.raw_lane().await;
    let bytes = frame(0, &[tell(1)]);
    let started = Instant::now();
    for byte in bytes {
        if raw.lane.write_all(&[byte]).await.is_err() {
            break;
        }
        sleep(Duration::from_millis(500)).await;
    }
    let (code, reason) = raw.closed().await;
    assert_eq!(code, Close::TooSlow as u64, "{reason}");
    assert!(started.elapsed() < wire::FRAME_DEADLINE * 2);

    // A stream without a preamble, a request without its end.
    for part in [&b"RH"[..], &[&Preamble::new(StreamKind::Request).to_bytes()[..], &[9]].concat()] {
        let raw = node.raw_lane().await;
        let (mut send, _recv) = raw.connection.open_bi().await.unwrap();
        send.write_all(part).await.unwrap();
        let (code, reason) = raw.closed().await;
        assert_eq!(code, Close::TooSlow as u64, "{reason}");
    }
    assert_eq!(node.counters().too_slow.load(Relaxed), 4);
    assert_eq!(node.doors.count.load(SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_lane_may_be_silent_for_ever() {
    let (_, node) = node();
    let client = node.client().await;
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(client.ask(1, Number(3)).await.unwrap(), Number(3));
    assert_eq!(client.stats().reconnects, 0);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_given_up_after_the_idle_timeout() {
    let (network, node) = node();
    let raw = node.raw_lane().await;
    until("its session", || node.server.sessions().len() == 1).await;
    // Nothing is said any more, not even good bye.
    network.unplug(node.server.address());
    let started = Instant::now();
    until("it is gone", || node.server.sessions().is_empty()).await;
    assert!(started.elapsed() <= wire::IDLE_TIMEOUT + wire::KEEP_ALIVE * 2, "{:?}", started.elapsed());
    assert_eq!(node.counters().sessions_lost.load(Relaxed), 1);
    drop(raw);
}

#[tokio::test(start_paused = true)]
async fn after_a_loss_the_client_comes_back_and_goes_on_once_and_in_order() {
    let (network, node) = node();
    let client = node.client().await;
    client.tell(1, Number(0)).await.unwrap();
    client.flush().await.unwrap();

    // An ask that is under way when the network goes, of which this node keeps nothing.
    node.doors.hold.store(true, SeqCst);
    let under_way = tokio::spawn(client.ask_with(1, Number(100), Duration::from_secs(60)));
    until("it is there", || node.doors.held.lock().len() == 1).await;
    network.unplug(node.server.address());
    until("the session is gone", || node.server.sessions().is_empty()).await;
    node.doors.hold.store(false, SeqCst);
    node.doors.answer_held();
    assert_eq!(node.counters().answers_dropped.load(Relaxed), 1);

    // Told and asked without a connection: sent when there is one again, once and in order.
    for i in 1..50 {
        client.tell(1, Number(i)).await.unwrap();
    }
    let late = tokio::spawn(client.ask_with(1, Number(50), Duration::from_secs(60)));
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
    for i in 51..60 {
        client.tell(1, Number(i)).await.unwrap();
    }
    sleep(Duration::from_secs(5)).await;
    assert!(!under_way.is_finished(), "it waits as long as its answer may come");
    network.plug_in();
    assert_eq!(late.await.unwrap().unwrap(), Number(50));
    let error = under_way.await.unwrap().unwrap_err();
    assert!(matches!(error, AskError::ConnectionLost { .. }), "{error}");
    assert!(error.to_string().contains("may or may not"), "{error}");
    client.flush().await.unwrap();
    let expected: Vec<u64> = [0, 100].into_iter().chain(1..60).collect();
    assert_eq!(node.doors.numbers(), expected);
    assert_eq!((client.stats().reconnects, client.stats().unconfirmed), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn tells_that_were_on_their_way_are_sent_again() {
    let (network, node) = node();
    let client = node.client().await;
    for round in 0..4 {
        // Some get through, and some do not; or all do, and the client does not hear of it.
        for i in 0..10 {
            client.tell(1, Number(round * 20 + i)).await.unwrap();
        }
        sleep(Duration::from_micros(round * 700)).await;
        network.unplug(node.server.address());
        for i in 10..20 {
            client.tell(1, Number(round * 20 + i)).await.unwrap();
        }
        sleep(Duration::from_secs(40)).await;
        network.plug_in();
        client.flush().await.unwrap();
    }
    assert!(node.doors.numbers().into_iter().eq(0..80), "{:?}", node.doors.numbers());
    assert_eq!((client.stats().reconnects, client.stats().unconfirmed), (4, 0));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_can_know_is_reported_once() {
    let (network, node) = node();
    let client = node.client().await;
    client.tell(1, Number(100)).await.unwrap();
    client.flush().await.unwrap();
    network.unplug(node.server.address());
    for i in 0..10 {
        client.tell(1, Number(i)).await.unwrap();
    }
    let asked = tokio::spawn(client.ask_with(1, Number(10), Duration::from_secs(600)));
    until("the session is gone", || node.server.sessions().is_empty()).await;
    // Another node is there now.
    *node.doors.id.lock() = "2".into();
    network.plug_in();
    let error = client.flush().await.unwrap_err();
    assert!(matches!(error, Error::ConnectionLost { unconfirmed: 10, .. }), "{error}");
    assert!(error.to_string().contains("up to 10 tells"), "{error}");
    assert!(matches!(asked.await.unwrap().unwrap_err(), AskError::ConnectionLost { .. }));
    client.flush().await.unwrap();
    client.tell(1, Number(11)).await.unwrap();
    assert_eq!(client.ask(1, Number(12)).await.unwrap(), Number(12));
    client.flush().await.unwrap();
    assert_eq!(node.doors.numbers(), [100, 11, 12]);
    assert_eq!(client.stats().unconfirmed, 10);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_comes_back_ends_its_last_session_and_is_who_it_was() {
    let (_, node) = node();
    let mut hello = hello();
    let (mut first, welcome) = node.raw_lane_as(&hello).await;
    assert_eq!(welcome.resumed, Resumed::New);
    first.lane.write_all(&frame(0, &[tell(1), tell(2)])).await.unwrap();
    until("they arrive", || node.doors.numbers().len() == 2).await;
    // Until quinn has found out how large datagrams may be: a close waits behind its probes, and this one would come too late.
    sleep(Duration::from_secs(1)).await;
    hello.lane.before = Some(wire::Before { home: welcome.home, session: welcome.session, born: welcome.born });
    hello.lane.first = 2;
    let (mut second, again) = node.raw_lane_as(&hello).await;
    assert_eq!((again.resumed, again.session), (Resumed::Known, welcome.session));
    assert_eq!(first.closed().await.0, Close::TooMany as u64);
    second.lane.write_all(&frame(1, &[tell(2), tell(3)])).await.unwrap();
    until("what is new arrives", || node.doors.numbers().len() == 3).await;
    assert_eq!((node.doors.numbers(), node.server.sessions().len()), (vec![1, 2, 3], 1));
    // One that the node has not heard of since, or that was not born here.
    hello.lane.before.as_mut().unwrap().home = "another".into();
    let (_third, welcome) = node.raw_lane_as(&hello).await;
    assert_eq!(welcome.resumed, Resumed::Forgotten);
    assert_ne!(welcome.session, again.session);
}

/// QUIC says that a connection is closed where it is let go of, as by an attempt that took too long: then its client comes again.
#[tokio::test(start_paused = true)]
async fn a_client_that_has_let_go_of_its_connection_is_known_until_it_is_done() {
    let (_, node) = node();
    let mut hello = hello();
    let (mut first, welcome) = node.raw_lane_as(&hello).await;
    first.lane.write_all(&frame(0, &[tell(1), tell(2)])).await.unwrap();
    until("they arrive", || node.doors.numbers().len() == 2).await;
    drop(first);
    until("the session is gone", || node.server.sessions().is_empty()).await;
    hello.lane.before = Some(wire::Before { home: welcome.home, session: welcome.session, born: welcome.born });
    let (mut second, again) = node.raw_lane_as(&hello).await;
    assert_eq!((again.resumed, again.session), (Resumed::Known, welcome.session));
    second.lane.write_all(&frame(0, &[tell(1), tell(2), tell(3)])).await.unwrap();
    until("what is new arrives", || node.doors.numbers().len() == 3).await;
    assert_eq!(node.doors.numbers(), [1, 2, 3]);
    second.connection.close(Close::Done.code(), b"");
    until("it is forgotten", || node.doors.marks.lock().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_keeps_so_much_until_it_is_durable_and_then_waits() {
    const TELLS: u64 = 40_000;
    let (network, node) = node();
    node.doors.durable.store(10, SeqCst);
    let client = Client::connect(Options { retained_bytes: 512 << 10, ..node.options() }).await.unwrap();
    let teller = tokio::spawn({
        let client = client.clone();
        async move {
            for i in 0..TELLS {
                client.tell(1, Number(i)).await.unwrap();
            }
            client.flush().await.unwrap();
        }
    });
    sleep(Duration::from_secs(60)).await;
    assert!(!teller.is_finished(), "it is held back");
    let taken = node.doors.numbers().len() as u64;
    assert!(taken > 1_000 && taken < TELLS / 2, "{taken}");
    assert!(node.doors.hurried.load(SeqCst) > 0, "and has said so");
    // All of that comes again on another connection, and is dropped.
    network.unplug(node.server.address());
    until("the session is gone", || node.server.sessions().is_empty()).await;
    network.plug_in();
    until("the client is back", || client.stats().reconnects == 1).await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(node.doors.numbers().len() as u64, taken);
    node.doors.durable.store(u64::MAX, SeqCst);
    node.server.sessions().all()[0].cover(taken);
    teller.await.unwrap();
    assert!(node.doors.numbers().into_iter().eq(0..TELLS));
}

#[tokio::test(start_paused = true)]
async fn an_ask_without_a_connection_ends_at_its_deadline() {
    let (network, node) = node();
    let client = node.client().await;
    network.unplug(node.server.address());
    sleep(Duration::from_secs(60)).await;
    let started = Instant::now();
    let error = client.ask_with(1, Number(1), Duration::from_secs(2)).await.unwrap_err();
    assert_eq!(error.reason(), Some(Reason::DeadlineExceeded), "{error}");
    assert_eq!(started.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_full_outbox_waits_for_the_connection_and_goes_on() {
    let (network, node) = node();
    let client = node.client().await;
    network.unplug(node.server.address());
    sleep(Duration::from_secs(60)).await;
    let teller = tokio::spawn({
        let client = client.clone();
        async move {
            for i in 0..50_000 {
                client.tell(1, Number(i)).await.unwrap();
            }
            client.flush().await.unwrap();
        }
    });
    sleep(Duration::from_secs(60)).await;
    assert!(!client.try_tell(1, Number(0)).unwrap(), "the outbox is bounded");
    network.plug_in();
    teller.await.unwrap();
    assert!(node.doors.numbers().into_iter().eq(0..50_000));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_be_helped_fails_for_good() {
    let (network, node) = node();
    let client = node.client().await;
    network.unplug(node.server.address());
    until("the session is gone", || node.server.sessions().is_empty()).await;
    // The node comes back with another layout.
    node.doors.types.lock()[0].layout_hash = 1;
    network.plug_in();
    let waiting = client.ask_with(1, Number(1), Duration::from_secs(60)).await.unwrap_err();
    assert!(matches!(&waiting, AskError::ConnectionLost { .. } | AskError::NotSent(_)), "{waiting}");
    let error = client.tell(1, Number(1)).await.unwrap_err();
    assert!(matches!(&error, Error::Refused { .. }), "{error}");

    // Or not at all, and there is a limit.
    let mut options = node.options();
    node.doors.types.lock().clear();
    options.reconnect_limit = Some(Duration::from_secs(20));
    let client = Client::connect(options).await.unwrap();
    network.unplug(node.server.address());
    let started = Instant::now();
    loop {
        match client.ask_with(1, Number(1), Duration::from_secs(1)).await.unwrap_err() {
            AskError::NotSent(Error::Unreachable { .. }) => break,
            // Its type is gone from this node; what matters is the connection.
            _ => sleep(Duration::from_secs(1)).await,
        }
        assert!(started.elapsed() < Duration::from_secs(90));
    }
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_what_it_admitted_and_refuses_what_it_cannot_admit() {
    let (_, node) = node();
    let client = node.client().await;
    node.doors.hold.store(true, SeqCst);
    let admitted = tokio::spawn(client.ask_with(1, Number(1), Duration::from_secs(60)));
    until("it is admitted", || node.doors.held.lock().len() == 1).await;
    node.doors.make_room(0);
    client.tell(1, Number(2)).await.unwrap();
    let refused = tokio::spawn(client.ask_with(1, Number(3), Duration::from_secs(60)));
    sleep(Duration::from_millis(100)).await;

    let drain = tokio::spawn({
        let server = node.server.clone();
        async move { server.drain(Duration::from_secs(10)).await }
    });
    let error = refused.await.unwrap().unwrap_err();
    assert_eq!(error.reason(), Some(Reason::Stopping), "{error}");
    assert_eq!(*node.doors.dead.lock(), [(2, Reason::Stopping)]);
    let newcomer = Client::connect(node.options()).await.err().unwrap();
    assert!(!newcomer.is_final(), "{newcomer}");
    node.doors.answer_held();
    assert_eq!(admitted.await.unwrap().unwrap(), Number(1));
    assert!(drain.await.unwrap().complete);
    assert_eq!(node.counters().refused_stopping.load(Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_limit_whoever_does_not_answer() {
    let (_, node) = node();
    let client = node.client().await;
    node.doors.hold.store(true, SeqCst);
    let ask = tokio::spawn(client.ask_with(1, Number(1), Duration::from_secs(60)));
    until("it is admitted", || node.doors.held.lock().len() == 1).await;
    let started = Instant::now();
    let drained = node.server.drain(Duration::from_secs(3)).await;
    assert_eq!((drained.complete, drained.unanswered), (false, 1));
    assert!(started.elapsed() < Duration::from_secs(5));
    // Another node may have the answer, as far as the client knows.
    let error = ask.await.unwrap().unwrap_err();
    assert!(matches!(error, AskError::Deadline { .. }), "{error}");
    // A close does not wait for a node that is gone.
    assert!(timeout(Duration::from_secs(20), client.close()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn many_clients_at_once_are_all_served() {
    let (_, node) = node();
    let second = serve(&node.network, &node.authority, node.doors.clone(), "127.0.0.1:0".parse().unwrap());
    let mut tasks = Vec::new();
    for i in 0..8u64 {
        let mut options = node.options();
        if i % 2 == 1 {
            options.addresses = vec![second.address().to_string()];
        }
        tasks.push(tokio::spawn(async move {
            let client = Client::connect(options).await.unwrap();
            for j in 0..100 {
                assert_eq!(client.ask(i, Number(i * 1_000 + j)).await.unwrap(), Number(i * 1_000 + j));
            }
            client.close().await.unwrap();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(node.counters().sessions.load(Relaxed) + second.counters().sessions.load(Relaxed), 8);
}
