//! The leader's half of leases.

use std::collections::{BTreeMap, BTreeSet};

use super::at_least;

/// Who leads looks so often in a lease who is silent, at least.
pub const LOOKS_PER_LEASE: u64 = 4;

/// A node that has just become a member may take so many leases until it asks for its first.
const LEASES_TO_COME: u64 = 10;

/// What a leader has granted. See the module.
#[derive(Clone, Debug)]
pub struct Grantor {
    /// The longest lease, and how much longer a silent node is waited for.
    lease_us: u64,
    spare_us: u64,
    leads: Option<Leads>,
}

#[derive(Clone, Debug)]
struct Leads {
    term: u64,
    /// Until when leases may be held that leaders before have granted.
    before_until_us: u64,
    /// When it last looked who is silent; and since when it has done so all the time.
    looked_us: u64,
    attentive_us: u64,
    nodes: BTreeMap<u64, Note>,
    /// It has looked once: a node that it meets later has just come.
    met: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// Which start of the node it is of which the rest tells.
    run: u64,
    parting: Parting,
    /// Until when it may hold its lease.
    until_us: u64,
    /// When it last asked.
    asked_us: u64,
    /// It was given up, and it is not known yet what became of that.
    failing: bool,
}

/// What a start of a node has said of its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Parting {
    #[default]
    Stays,
    /// It is about to end: it takes nothing on.
    Ends,
    /// It runs nothing, and holds no lease. What it has asked for before counts no more, when it comes late.
    Ended,
}

impl Note {
    /// Another start of the node has said nothing yet. What the one before holds it may hold still.
    fn of(&mut self, run: u64) -> &mut Note {
        if self.run != run {
            (self.run, self.parting) = (run, Parting::Stays);
        }
        self
    }
}

/// What a node is answered that asks for its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is granted, for so long from when the node asked.
    Granted { span_us: u64 },
    /// Not now: it may ask again.
    NotNow,
}

impl Grantor {
    /// One that does not lead. `lease_us`: no lease is longer. `spare_us`: what a node that is silent is given beyond it, though it
    /// cannot hold it any more: who is only slow comes back to everything as it was.
    pub fn new(lease_us: u64, spare_us: u64) -> Grantor {
        Grantor { lease_us, spare_us, leads: None }
    }

    /// The node leads in this term, and has applied all that was left by leaders before. `waited_us`: so much true time had passed
    /// since the last thing by which they granted leases, when it was elected.
    pub fn leads(&mut self, now_us: u64, term: u64, waited_us: u64) {
        if self.leads.as_ref().is_none_or(|leads| leads.term != term) {
            let before_until_us = now_us + at_least(self.lease_us.saturating_sub(waited_us));
            let (looked_us, attentive_us) = (now_us, now_us);
            self.leads =
                Some(Leads { term, before_until_us, looked_us, attentive_us, nodes: BTreeMap::new(), met: false });
        }
    }

    /// It does not lead, or not any more.
    pub fn follows(&mut self) {
        self.leads = None;
    }

    /// A node asks for its lease, in the start of it that has this number, and that is the last one of which the cluster knows.
    /// `age_us`: so long ago, by this node's clock, it sent the last thing by which a majority has acknowledged that it leads.
    pub fn asked(&mut self, now_us: u64, (node, run): (u64, u64), age_us: u64) -> Verdict {
        let Some(leads) = &mut self.leads else { return Verdict::NotNow };
        let note = leads.nodes.entry(node).or_default().of(run);
        if note.parting == Parting::Ended {
            return Verdict::NotNow;
        }
        note.asked_us = now_us;
        let span_us = self.lease_us.saturating_sub(at_least(age_us));
        if note.failing || span_us == 0 {
            return Verdict::NotNow;
        }
        note.until_us = note.until_us.max(now_us + at_least(span_us));
        Verdict::Granted { span_us }
    }

    /// A node is about to end, as it says itself in this start of it: nothing is given to it any more.
    pub fn ends(&mut self, node: u64, run: u64) {
        self.parts(node, run, Parting::Ends);
    }

    /// A node says that this start of it runs nothing any more, holds no lease, and will ask for none: it is granted nothing.
    pub fn ended(&mut self, node: u64, run: u64) {
        self.parts(node, run, Parting::Ended);
    }

    fn parts(&mut self, node: u64, run: u64, parting: Parting) {
        if let Some(leads) = &mut self.leads {
            let note = leads.nodes.entry(node).or_default().of(run);
            note.parting = note.parting.max(parting);
        }
    }

    /// Whether a node has said that it ends.
    pub fn is_ending(&self, node: u64) -> bool {
        self.parting_of(node) != Parting::Stays
    }

    /// Whether a node has said that it has ended.
    pub fn has_ended(&self, node: u64) -> bool {
        self.parting_of(node) == Parting::Ended
    }

    fn parting_of(&self, node: u64) -> Parting {
        let note = self.leads.as_ref().and_then(|leads| leads.nodes.get(&node));
        note.map_or(Parting::Stays, |note| note.parting)
    }

    /// Which of these nodes, of each of which this is the last start, surely hold no lease any more, and have been silent for too long
    /// or have ended. They are granted nothing until [`Grantor::settled`] says what became of each. To be asked at least
    /// [`LOOKS_PER_LEASE`] times in a lease.
    ///
    /// Who asked lately is not silent, though it may not have been granted anything for want of a majority. And where this node was
    /// silent itself, others may only have waited for it. `shows_life`: a node has just done something else, so it may ask yet.
    pub fn give_up(
        &mut self,
        now_us: u64,
        nodes: impl IntoIterator<Item = (u64, u64)>,
        shows_life: impl Fn(u64) -> bool,
    ) -> Vec<u64> {
        let Some(leads) = &mut self.leads else { return Vec::new() };
        if now_us > leads.looked_us + self.lease_us / LOOKS_PER_LEASE {
            leads.attentive_us = now_us;
        }
        leads.looked_us = now_us;
        let nodes: Vec<(u64, u64)> = nodes.into_iter().collect();
        // One that has just come has yet to start its devices.
        let asked_us = if leads.met { now_us + LEASES_TO_COME * self.lease_us } else { 0 };
        for (node, _) in &nodes {
            leads.nodes.entry(*node).or_insert(Note { asked_us, ..Note::default() });
        }
        leads.met = true;
        let lately = self.lease_us / 2;
        let is_attentive = now_us >= leads.attentive_us + lately;
        let mut given_up = Vec::new();
        for (node, run) in nodes {
            let note = leads.nodes.entry(node).or_default().of(run);
            // Who has never asked this leader may not know of it yet. If it is not heard at all, somebody else has waited for long
            // enough: there was an election.
            let patience_us =
                if note.asked_us == 0 && shows_life(node) { self.lease_us / 2 + self.spare_us } else { 0 };
            let until_us = (note.until_us + self.spare_us).max(leads.before_until_us + patience_us);
            let is_silent = is_attentive && now_us > until_us.max(note.asked_us + lately);
            if !note.failing && (is_silent || note.parting == Parting::Ended) {
                note.failing = true;
                given_up.push(node);
            }
        }
        given_up
    }

    /// What was decided about a node in this term has been done, or is known not to be done ever.
    pub fn settled(&mut self, term: u64, node: u64) {
        if let Some(leads) = self.leads.as_mut().filter(|leads| leads.term == term)
            && let Some(note) = leads.nodes.get_mut(&node)
        {
            note.failing = false;
        }
    }

    /// Nodes to which something can be given: they hold leases, as far as is known here, and go on.
    pub fn holders(&self, now_us: u64) -> BTreeSet<u64> {
        let nodes = self.leads.iter().flat_map(|leads| &leads.nodes);
        let goes_on = |note: &Note| !note.failing && note.parting == Parting::Stays && note.until_us > now_us;
        nodes.filter(|(_, note)| goes_on(note)).map(|(node, _)| *node).collect()
    }
}
