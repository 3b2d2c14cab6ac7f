//! Many messages of one type, with back-pressure.

use std::collections::VecDeque;
use std::marker::PhantomData;
use std::time::Duration;

use ringhold_kernels::actor::MessageOf;
use ringhold_kernels::id::Key;

use super::{AskError, Asked, Client, Error, Reply, Tell};

/// A stream of tells of one message type, from [`Client::tells`].
pub struct Tells<M> {
    client: Client,
    messages: PhantomData<fn(M)>,
}

impl<M: MessageOf> Tells<M> {
    pub(super) fn new(client: Client) -> Tells<M> {
        Tells { client, messages: PhantomData }
    }

    /// Sends one; waits while the node or the network is slower than this program. See [`Client::tell`].
    #[inline]
    pub fn send<K: Into<Key>>(&mut self, key: K, message: M) -> Tell<'_, M> {
        self.client.tell(key, message)
    }

    /// Sends one if there is room now. `Ok(false)`: there was none.
    #[inline]
    pub fn try_send(&mut self, key: impl Into<Key>, message: M) -> Result<bool, Error> {
        self.client.try_tell(key, message)
    }

    /// Waits until the node has admitted everything; see [`Client::flush`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        self.client.flush().await
    }
}

/// A stream of asks, from [`Client::asks`].
///
/// Nothing is sent until [`Asks::next`] is called; then up to `window` asks are kept under way. Dropping it gives
/// those up.
pub struct Asks<M, I> {
    client: Client,
    messages: I,
    window: usize,
    deadline: Duration,
    /// Taken from `messages` and not sent yet.
    next: Option<(Key, M)>,
    under_way: VecDeque<(Key, Result<Asked, AskError>)>,
}

impl<M, K, I> Asks<M, I>
where
    M: MessageOf,
    K: Into<Key>,
    I: Iterator<Item = (K, M)>,
{
    pub(super) fn new(client: Client, messages: I, window: usize) -> Asks<M, I> {
        let deadline = client.shared().options.ask_deadline;
        Asks { client, messages, window: window.max(1), deadline, next: None, under_way: VecDeque::new() }
    }

    /// The next reply, in the order of the messages, with the key that was asked; `None` after the last.
    ///
    /// Cancelling it loses nothing.
    pub async fn next(&mut self) -> Option<(Key, Result<Reply<M>, AskError>)> {
        while self.under_way.len() < self.window {
            if self.next.is_none() {
                self.next = self.messages.next().map(|(key, message)| (key.into(), message));
            }
            let Some((key, message)) = self.next else { break };
            let asked = match self.client.try_send_ask(key, message, self.deadline) {
                Ok(Some(asked)) => Ok(asked),
                Err(error) => Err(error),
                Ok(None) => {
                    let room = self.client.send_ask(key, message, self.deadline);
                    match self.under_way.front_mut() {
                        None => room.await,
                        Some((_, Err(_))) => break,
                        // What is in the way may be this stream's own asks, so an answer will do as well.
                        Some((first, Ok(asked))) => tokio::select! {
                            biased;
                            reply = asked.typed_reply::<M>(*first) => {
                                let first = *first;
                                self.under_way.pop_front();
                                return Some((first, reply));
                            }
                            asked = room => asked,
                        },
                    }
                }
            };
            self.next = None;
            self.under_way.push_back((key, asked));
        }
        let (key, asked) = self.under_way.front_mut()?;
        let key = *key;
        let reply = match asked {
            Ok(asked) => asked.typed_reply::<M>(key).await,
            Err(error) => Err(error.clone()),
        };
        self.under_way.pop_front();
        Some((key, reply))
    }
}
