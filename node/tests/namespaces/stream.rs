//! A client on a machine of its own that tells and asks for as long as it is let, and knows what must come of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringhold::Key;
use ringhold::client::{Client, Options};
use ringhold::shipped::account;
use ringhold_cluster::network::RealNetwork;
use ringhold_cluster::tls::{Files, Identity, Role};
use tokio::task::JoinSet;

use crate::PATIENCE;
use crate::net::Namespace;

const ASKERS: u64 = 6;
/// Accounts that each asker has to get through until it is said that all go on.
const ENOUGH: u64 = 2;
/// Deposits of 1, 2, 4, …: one bit of the balance for each.
const DEPOSITS: u32 = 60;

/// The stream, on a thread of its own.
pub struct Stream {
    /// Accounts that each asker is through with.
    done: Arc<Vec<AtomicU64>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Stream {
    /// `certificates`: the folder of a client's.
    pub fn start(machine: &Namespace, addresses: Vec<String>, certificates: PathBuf) -> Stream {
        let done: Arc<Vec<AtomicU64>> = Arc::new((0..ASKERS).map(|_| AtomicU64::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (machine, done_too, stop_too) = (machine.clone(), done.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            machine.enter().unwrap();
            // All its sockets are made by this thread.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(ask_on(addresses, certificates, done_too, stop_too))
        });
        Stream { done, stop, thread: Some(thread) }
    }

    /// Waits until every asker has got through some more accounts, begun from now on.
    #[track_caller]
    pub fn goes_on(&mut self, when: &str, logs: impl Fn() -> String) {
        let (since, before): (_, Vec<u64>) = (Instant::now(), self.done.iter().map(|done| done.load(SeqCst)).collect());
        // The account that each has in hand may have been done but for a message.
        while self.done.iter().zip(&before).any(|(done, before)| done.load(SeqCst) <= before + ENOUGH) {
            if self.thread.as_ref().is_some_and(JoinHandle::is_finished) {
                self.finish();
            }
            assert!(since.elapsed() < PATIENCE, "{when} the clients wait in vain\n{}", logs());
            std::thread::sleep(Duration::from_millis(10));
        }
        println!("{when} all go on: {} ms for {} accounts each", since.elapsed().as_millis(), ENOUGH + 1);
    }

    /// Ends it: compares every account, and says how many those were.
    pub fn finish(&mut self) -> u64 {
        self.stop.store(true, SeqCst);
        let ended = self.thread.take().expect("it is ended once").join();
        ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

async fn ask_on(addresses: Vec<String>, tls: PathBuf, done: Arc<Vec<AtomicU64>>, stop: Arc<AtomicBool>) -> u64 {
    let identity = Identity::load(Files::client(&tls), Role::Client, &RealNetwork).unwrap();
    let mut options = Options::new(String::new(), identity).with::<account::Actor>();
    options.addresses = addresses;
    options.ask_deadline = PATIENCE;
    let client = Client::connect(options).await.unwrap();
    let mut askers = JoinSet::new();
    for asker in 0..ASKERS {
        let (client, done, stop) = (client.clone(), done.clone(), stop.clone());
        askers.spawn(async move {
            let mut number = 0;
            while !stop.load(SeqCst) {
                fill(&client, asker << 32 | number).await;
                number += 1;
                done[asker as usize].store(number, SeqCst);
            }
        });
    }
    while let Some(ended) = askers.join_next().await {
        ended.unwrap();
    }
    // What there is in the end is what was sent, whatever there was meanwhile.
    let filled = (0..).zip(done.iter()).flat_map(|(asker, done)| (0..done.load(SeqCst)).map(move |n| asker << 32 | n));
    let filled: Vec<u64> = filled.collect();
    let mut balances = client.asks(filled.iter().map(|key| (Key(*key), account::Message::Read)), 64);
    for key in &filled {
        let (_, found) = balances.next().await.expect("each is asked");
        assert!(
            matches!(found, Ok(account::Reply::Balance { cents }) if cents == all_up_to(DEPOSITS)),
            "account {key:#x} in the end: {found:?}"
        );
    }
    drop(balances);
    client.close().await.unwrap();
    filled.len() as u64
}

/// All deposits of an account, half of them told and half asked, two at a time.
async fn fill(client: &Client, key: u64) {
    let deposit = |number: u32| account::Message::Deposit { cents: 1 << number };
    for first in (0..DEPOSITS).step_by(4) {
        client.tell(Key(key), deposit(first)).await.unwrap();
        client.tell(Key(key), deposit(first + 1)).await.unwrap();
        // Polled in this order, and so sent in it.
        let [third, fourth] = [2, 3].map(|next| balance(client, key, deposit(first + next)));
        let found = tokio::join!(biased; third, fourth);
        // One sender's messages are handled in its order, so that each answer has all up to its own, once, and no more.
        assert_eq!(
            found,
            (all_up_to(first + 3), all_up_to(first + 4)),
            "account {key:#x} after {} deposits",
            first + 4
        );
    }
}

fn all_up_to(deposits: u32) -> i64 {
    (1 << deposits) - 1
}

async fn balance(client: &Client, key: u64, deposit: account::Message) -> i64 {
    match client.ask(Key(key), deposit).await {
        Ok(account::Reply::Balance { cents }) => cents,
        other => panic!("account {key:#x}: {other:?}"),
    }
}
