//! Which Spot nodes went, and whether anybody had said that they would.
//!
//! Decides, and does nothing. What tells the ways apart is the order of things at the API server:
//!
//! ```text
//!   interruption with a notice   lifeboat's taint ─► … ─► Node deleted
//!   scale-down, consolidation    cordon, or a drainer's taint, or a deletion ─► drain ─► … ─► Node deleted
//!   deleted by a person          Node deleted while it is Ready
//!   gone without notice          not Ready, while nobody had said anything ─► Node deleted
//! ```
//!
//! The node controller makes a silent node's `Ready` Unknown after 50 s (40 s before 1.32), and the cloud's controller deletes
//! the Node of an instance that is no more only once it is not Ready. A node that stays, or comes back, is not gone. In
//! doubt nothing is said: a node that was never seen Ready with a ready agent is not counted.

use crate::fleet::report_index::{Missing, NodeUid};
use evacuation::moment::{Moment, Span};
use std::collections::{BTreeMap, BTreeSet};

/// An agent that was last ready longer ago than this was not there when its node fell silent. Its pod may cease to be
/// ready a little before the node does.
const AGENT_REMEMBERED: Span = Span::from_secs(120);

/// What the API server shows of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSight {
    /// Its name.
    pub name: String,
    /// When the object was created, Unix time, seconds.
    pub created: i64,
    /// Its capacity is Spot.
    pub spot: bool,
    /// Its kubelet says that it is ready, and is heard.
    pub ready: bool,
    /// Somebody means it to go: it is cordoned, tainted by a drainer, or being deleted.
    pub meant: bool,
    /// Its agent has marked it for an interruption that is no drill.
    pub noticed: bool,
}

/// How it stands with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NodeHealth {
    /// Ready, and nobody means it to go. Since when an agent is known to have been ready there.
    Well { agent: Option<Moment> },
    /// Its agent has seen a notice.
    Noticed,
    /// It ceased to be ready, and nobody had said anything.
    Suspect,
    /// Whatever becomes of it is no news: another capacity, no agent, meant to go, or never seen well.
    NoNews,
}

/// The nodes of one term.
#[derive(Debug, Default)]
pub struct LostNodes {
    known: BTreeMap<NodeUid, (NodeSight, NodeHealth)>,
    /// Deleted, and not decided yet.
    gone: BTreeMap<NodeUid, Missing>,
    whole: bool,
}

/// What there is to count or to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// Nodes that are there, and are not under suspicion.
    pub well: BTreeSet<NodeUid>,
    /// Nodes that may be gone, or are.
    pub suspects: BTreeMap<NodeUid, Missing>,
    /// Nodes that are there at all.
    pub present: BTreeSet<NodeUid>,
}

impl LostNodes {
    /// Takes in what is so now: the nodes that are there, those that were deleted since (as they were last), and the
    /// names of the nodes on which an agent is ready.
    pub fn handle(
        &mut self,
        now: Moment,
        present: &BTreeMap<NodeUid, NodeSight>,
        deleted: Vec<(NodeUid, NodeSight)>,
        agents: &BTreeSet<String>,
    ) {
        self.whole = true;
        for (uid, sight) in present {
            let standing = self.step(now, uid, sight, agents);
            self.known.insert(uid.clone(), (sight.clone(), standing));
        }
        for (uid, sight) in deleted {
            let standing = self.step(now, &uid, &sight, agents);
            self.known.insert(uid.clone(), (sight.clone(), standing));
            if let Some(missing) = missing(&sight, standing) {
                self.gone.insert(uid, missing);
            }
        }
        self.known.retain(|uid, _| present.contains_key(uid));
    }

    fn step(&self, now: Moment, uid: &NodeUid, sight: &NodeSight, agents: &BTreeSet<String>) -> NodeHealth {
        let before = self.known.get(uid).map(|(_, standing)| *standing);
        if !sight.spot {
            return NodeHealth::NoNews;
        }
        if sight.noticed {
            return NodeHealth::Noticed;
        }
        if sight.ready {
            if sight.meant {
                return NodeHealth::NoNews;
            }
            let seen = match before {
                Some(NodeHealth::Well { agent }) => agent,
                _ => None,
            };
            let agent = if agents.contains(&sight.name) { Some(now) } else { seen };
            return NodeHealth::Well { agent };
        }
        match before {
            Some(NodeHealth::Well { agent: Some(agent) }) if now.since(agent) <= AGENT_REMEMBERED => {
                // It may have been cordoned and fallen silent between two looks.
                if sight.meant { NodeHealth::NoNews } else { NodeHealth::Suspect }
            }
            Some(NodeHealth::Suspect) => NodeHealth::Suspect,
            Some(NodeHealth::Well { .. } | NodeHealth::Noticed | NodeHealth::NoNews) | None => {
                NodeHealth::NoNews
            }
        }
    }

    /// What there is; `None` before the nodes were listed.
    pub fn sightings(&self) -> Option<Sightings> {
        if !self.whole {
            return None;
        }
        let mut sightings = Sightings {
            suspects: self.gone.clone(),
            present: self.known.keys().cloned().collect(),
            ..Default::default()
        };
        for (uid, (sight, standing)) in &self.known {
            match missing(sight, *standing) {
                Some(missing) => drop(sightings.suspects.insert(uid.clone(), missing)),
                // A node that was never seen well may be the one that another leader saw fall silent.
                None if sight.ready => drop(sightings.well.insert(uid.clone())),
                None => {}
            }
        }
        Some(sightings)
    }

    /// It was decided what became of this node.
    pub fn decided(&mut self, uid: &NodeUid) {
        self.gone.remove(uid);
    }
}

fn missing(sight: &NodeSight, standing: NodeHealth) -> Option<Missing> {
    let noticed = match standing {
        NodeHealth::Noticed => true,
        NodeHealth::Suspect => false,
        NodeHealth::Well { .. } | NodeHealth::NoNews => return None,
    };
    Some(Missing { node: sight.name.clone(), created: sight.created, noticed })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const UID: &str = "uid-a";

    /// A Spot node that is well, but for this.
    pub(in crate::fleet) fn node(change: impl FnOnce(&mut NodeSight)) -> NodeSight {
        let mut sight = NodeSight {
            name: "node-a".into(),
            created: 5,
            spot: true,
            ready: true,
            meant: false,
            noticed: false,
        };
        change(&mut sight);
        sight
    }

    /// One node over time, ten seconds from each sight to the next; with the last it is deleted. How it went.
    fn history(agent: bool, sights: Vec<NodeSight>) -> Vec<Missing> {
        let mut vanished = LostNodes::default();
        let agents: BTreeSet<String> = agent.then(|| "node-a".to_owned()).into_iter().collect();
        let last = sights.last().unwrap().clone();
        let mut now = Moment::from_millis(1_000_000);
        for sight in sights {
            let agents = if sight.ready { agents.clone() } else { BTreeSet::new() };
            vanished.handle(now, &BTreeMap::from([(UID.into(), sight)]), Vec::new(), &agents);
            now = now + Span::from_secs(10);
        }
        vanished.handle(now, &BTreeMap::new(), vec![(UID.into(), last)], &BTreeSet::new());
        let sightings = vanished.sightings().unwrap();
        assert!(sightings.present.is_empty());
        sightings.suspects.into_values().collect()
    }

    fn silent(change: impl FnOnce(&mut NodeSight)) -> NodeSight {
        let mut sight = node(change);
        sight.ready = false;
        sight
    }

    #[test]
    fn a_spot_node_that_fell_silent_and_was_deleted_vanished_without_notice() {
        let missing = Missing { node: "node-a".into(), created: 5, noticed: false };
        assert_eq!(history(true, vec![node(|_| ()), silent(|_| ())]), vec![missing.clone()]);
        // What the cloud's controller or Karpenter puts on it once it is silent changes nothing.
        let late = vec![node(|_| ()), silent(|_| ()), silent(|sight| sight.meant = true)];
        assert_eq!(history(true, late), [missing]);
    }

    #[test]
    fn a_node_that_somebody_meant_to_go_is_no_news() {
        let meant = |sight: &mut NodeSight| sight.meant = true;
        assert_eq!(history(true, vec![node(|_| ()), node(meant), silent(meant)]), []);
        // Between two looks.
        assert_eq!(history(true, vec![node(|_| ()), silent(meant)]), []);
        // Deleted by a person while it was ready.
        assert_eq!(history(true, vec![node(|_| ())]), []);
    }

    #[test]
    fn a_node_that_its_agent_had_marked_went_with_a_notice() {
        let noticed = |sight: &mut NodeSight| (sight.noticed, sight.meant) = (true, true);
        assert!(history(true, vec![node(|_| ()), node(noticed)])[0].noticed);
        assert!(history(true, vec![node(noticed), silent(noticed)])[0].noticed);
        // And is given back: the notice was withdrawn.
        assert_eq!(history(true, vec![node(noticed), node(|_| ())]), []);
    }

    #[test]
    fn only_spot_nodes_on_which_an_agent_was_ready_are_looked_for() {
        let on_demand = |sight: &mut NodeSight| sight.spot = false;
        assert_eq!(history(true, vec![node(on_demand), silent(on_demand)]), []);
        assert_eq!(history(false, vec![node(|_| ()), silent(|_| ())]), []);
        // Never seen well.
        assert_eq!(history(true, vec![silent(|_| ())]), []);
    }

    #[test]
    fn an_agent_that_was_away_for_long_could_not_have_told() {
        let mut vanished = LostNodes::default();
        let begin = Moment::from_millis(1_000_000);
        let there = BTreeMap::from([(UID.to_owned(), node(|_| ()))]);
        let gone = BTreeMap::from([(UID.to_owned(), silent(|_| ()))]);
        vanished.handle(begin, &there, Vec::new(), &BTreeSet::from(["node-a".to_owned()]));
        vanished.handle(begin + Span::from_secs(60), &there, Vec::new(), &BTreeSet::new());
        vanished.handle(begin + Span::from_secs(121), &gone, Vec::new(), &BTreeSet::new());
        assert!(vanished.sightings().unwrap().suspects.is_empty());
    }

    #[test]
    fn a_node_that_comes_back_is_well_and_one_that_was_decided_is_forgotten() {
        let mut vanished = LostNodes::default();
        assert_eq!(vanished.sightings(), None);
        let now = Moment::from_millis(1_000_000);
        let agents = BTreeSet::from(["node-a".to_owned()]);
        let one = |sight: NodeSight| BTreeMap::from([(UID.to_owned(), sight)]);
        vanished.handle(now, &one(node(|_| ())), Vec::new(), &agents);
        vanished.handle(now, &one(silent(|_| ())), Vec::new(), &agents);
        let sightings = vanished.sightings().unwrap();
        assert!(sightings.suspects.contains_key(UID) && sightings.present.contains(UID));
        assert!(sightings.well.is_empty());
        vanished.handle(now, &one(node(|_| ())), Vec::new(), &agents);
        assert!(vanished.sightings().unwrap().well.contains(UID));

        vanished.handle(now, &one(silent(|_| ())), Vec::new(), &agents);
        vanished.handle(now, &BTreeMap::new(), vec![(UID.to_owned(), silent(|_| ()))], &agents);
        assert!(vanished.sightings().unwrap().suspects.contains_key(UID));
        vanished.decided(&UID.to_owned());
        assert!(vanished.sightings().unwrap().suspects.is_empty());
    }
}
