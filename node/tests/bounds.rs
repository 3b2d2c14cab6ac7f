//! What crosses a process has a bound: how many at a time, and how long.

use std::sync::Arc;
use std::time::Duration;

use ringhold::client::{Client, Error, Options as ClientOptions};
use ringhold::server::{About, Doors, Options, Server, Session, Sessions};
use ringhold_cluster::network::{BoxFuture, RealNetwork};
use ringhold_cluster::tls::{Authority, Role};
use ringhold_cluster::wire::{NodeName, Request, Response};
use ringhold_kernels::message::Reason;

/// Never settles.
struct Restless;

impl Doors for Restless {
    fn admit(&self, _: &Arc<Session>, batch: &[u8]) -> usize {
        batch.len()
    }

    fn room(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    fn dead_letters(&self, _: &[u8], _: Reason) {}

    fn request(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            match request {
                Request::Status => Response::Status(Box::default()),
                _ => std::future::pending().await,
            }
        })
    }

    fn about(&self) -> About {
        About { node: NodeName::default(), payload_bytes_max: 60, types: vec![] }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_are_bounded_and_hold_up_none_that_does_not() {
    const PATIENCE: Duration = Duration::from_secs(60);
    let authority = Authority::in_memory(&RealNetwork).unwrap();
    let options = Options {
        listen: "127.0.0.1:0".parse().unwrap(),
        identity: authority.identity(Role::Node, &RealNetwork).unwrap(),
        network: Arc::new(RealNetwork),
        sessions_max: 100,
        peers: None,
    };
    let server = Server::start(options, Arc::new(Sessions::default()), Arc::new(Restless)).unwrap();
    let client = || async {
        let identity = authority.identity(Role::Client, &RealNetwork).unwrap();
        Client::connect(ClientOptions::new(server.address().to_string(), identity)).await.unwrap()
    };
    // Each session has room for fifteen beside the one that is to be answered.
    let mut waiting = tokio::task::JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..5 {
        let client = client().await;
        for _ in 0..14 {
            let client = client.clone();
            waiting.spawn(async move { client.request(Request::Settle { timeout_ms: 1 }, PATIENCE).await });
        }
        clients.push(client);
    }
    for _ in 0..5 * 14 - 64 {
        match waiting.join_next().await.unwrap().unwrap() {
            Err(Error::Failed(failed)) => {
                assert_eq!(failed.reason(), Some(Reason::Overloaded));
                assert!(failed.text.contains("64 admin requests under way"), "{failed}");
            }
            other => panic!("{other:?}"),
        }
    }
    for client in &clients {
        let answer = client.request(Request::Status, PATIENCE).await.unwrap();
        assert!(matches!(answer, Response::Status(_)));
    }
    assert_eq!(waiting.len(), 64);
}
