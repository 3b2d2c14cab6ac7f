//! What a client has to send: the numbering of its messages, and which link each goes out on.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringhold_cluster::wire::{self, Owners, Welcome};
use ringhold_kernels::id::{ActorId, TypeId};

use super::Error;
use super::asks::Asks;
use super::link::Link;
use super::routes::{Kept, Learnt, Routes, Unsent, deal_out};

/// See the module's documentation.
pub(super) struct Outbox {
    /// Messages ever pushed, to whichever node.
    pub pushed: u64,
    pub routes: Routes,
    /// By the numbers that the routes have for them.
    pub links: Vec<Out>,
    /// How many links are driven.
    pub live: usize,
    /// Why nothing can be sent any more.
    pub failed: Option<Error>,
}

/// A link as those see it who send.
pub(super) struct Out {
    pub unsent: Unsent,
    pub asks_max: u32,
    /// Nothing goes this way any more.
    pub over: bool,
    payload_bytes_max: usize,
    /// The size up to which a message needs no further check; -1 while each does.
    unchecked_bytes_max: i64,
    /// Types this client was built with and the node does not have.
    unknown: Vec<(TypeId, String)>,
    known: Vec<String>,
    pub link: Arc<Link>,
}

impl Out {
    fn new(link: Arc<Link>) -> Out {
        Out {
            unsent: Unsent::default(),
            asks_max: wire::ASKS_MAX,
            over: false,
            payload_bytes_max: 0,
            unchecked_bytes_max: -1,
            unknown: Vec::new(),
            known: Vec::new(),
            link,
        }
    }

    /// A link to a node of which nothing is known yet, as if that were as another is.
    fn like(other: &Out, link: Arc<Link>) -> Out {
        Out {
            asks_max: other.asks_max,
            payload_bytes_max: other.payload_bytes_max,
            unchecked_bytes_max: other.unchecked_bytes_max,
            unknown: other.unknown.clone(),
            known: other.known.clone(),
            ..Out::new(link)
        }
    }

    /// Takes in what a node said of itself.
    pub fn learn(&mut self, welcome: &Welcome) {
        self.asks_max = welcome.asks_max.min(wire::ASKS_MAX);
        self.payload_bytes_max = welcome.payload_bytes_max as usize;
        self.unknown = welcome.unknown_types.iter().map(|name| (TypeId::of(name), name.clone())).collect();
        self.known = welcome.types.clone();
        self.unchecked_bytes_max = if self.unknown.is_empty() { i64::from(welcome.payload_bytes_max) } else { -1 };
    }

    /// Nothing goes this way any more.
    pub fn end(&mut self) {
        self.over = true;
        self.unchecked_bytes_max = -1;
    }
}

impl Outbox {
    /// Of a client that has one link, whose node has said this.
    pub fn new(welcome: &Welcome, link: Arc<Link>) -> Outbox {
        let mut first = Out::new(link);
        first.learn(welcome);
        Outbox { pushed: 0, routes: Routes::new(welcome.number), links: vec![first], live: 1, failed: None }
    }

    /// Nothing can be sent any more.
    pub fn fail(&mut self, error: Error) {
        self.failed.get_or_insert(error);
        self.links.iter_mut().for_each(Out::end);
    }

    /// Whether a message may be pushed on this link, as far as its type and size go.
    #[inline(always)]
    pub fn takes(&self, link: usize, to: ActorId, size: usize) -> bool {
        size as i64 <= self.links[link].unchecked_bytes_max || self.check(to, size).is_ok()
    }

    /// What forbids to push a message, if anything does.
    #[cold]
    pub fn check(&self, to: ActorId, size: usize) -> Result<(), Error> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let out = &self.links[self.routes.of(to.key)];
        if out.over {
            return Err(Error::Closed);
        }
        if let Some((_, name)) = out.unknown.iter().find(|(id, _)| *id == to.type_id) {
            return Err(Error::UnknownType { name: name.clone(), known: out.known.clone() });
        }
        if size > out.payload_bytes_max {
            return Err(Error::TooLarge { len: size, max: out.payload_bytes_max });
        }
        Ok(())
    }

    /// Takes a table in, if it is newer, and sorts what the links keep by it. Returns the links that have to be driven from now on.
    #[must_use]
    pub fn learn(&mut self, owners: &Owners, asks: &Asks) -> Vec<Arc<Link>> {
        match self.routes.learn(owners) {
            Some(learnt) if self.failed.is_none() => self.deal(&learnt, asks),
            _ => Vec::new(),
        }
    }

    /// Sorts what the links keep by the routes there are now. Returns the links that have to be driven from now on.
    #[must_use]
    pub fn deal(&mut self, learnt: &Learnt, asks: &Asks) -> Vec<Arc<Link>> {
        let mut driven = Vec::new();
        for index in self.links.len()..self.routes.nodes().len() {
            let link = Arc::new(Link::new(index));
            driven.push(link.clone());
            self.links.push(Out::like(&self.links[0], link));
        }
        let moved = asks.shards().into_iter().filter(|shard| learnt.has_moved(&self.routes, *shard));
        let asking: BTreeSet<usize> = moved.map(|shard| self.routes.of_shard(shard)).collect();
        let links: Vec<Arc<Link>> = self.links.iter().map(|out| out.link.clone()).collect();
        let mut retained: Vec<_> = links.iter().map(|link| link.retained.lock()).collect();
        let outs = self.links.iter_mut().zip(&mut retained);
        let mut kept: Vec<_> = outs.map(|(out, retained)| Kept { retained, unsent: &mut out.unsent }).collect();
        let begins = deal_out(&mut kept, &self.routes, asking);
        drop(retained);
        for index in begins {
            let out = &mut self.links[index];
            out.link.want();
            if std::mem::take(&mut out.over) {
                out.unchecked_bytes_max = -1;
                driven.push(out.link.clone());
            }
        }
        self.live += driven.len();
        driven
    }

    /// Whether of what was told up to this message all has been taken, or nobody can know.
    pub fn is_confirmed(&self, number: u64) -> bool {
        self.links.iter().all(|out| out.link.retained.lock().confirmed() >= out.unsent.last_tell.min(number))
    }

    /// The links that are connected.
    pub fn connected(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.links.iter().map(|out| &out.link).filter(|link| link.connection().is_some())
    }
}
