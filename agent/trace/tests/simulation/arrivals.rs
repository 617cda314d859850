//! In which order, and how late, one life of the agent hears of its node, its pods and IMDS.

use crate::dice::generator;
use evacuation::event::Event;

/// Later than this is late: what waits for the list waits no longer.
const LATE: u64 = 3_000;

/// Milliseconds after the start of a life.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals {
    pub node: u64,
    pub pods: u64,
    pub imds: u64,
}

impl Arrivals {
    /// Each by itself: at once, after a while, or late; in some lives the API server is away for both of its own.
    pub fn draw(seed: u64, life: u32) -> Self {
        let mut rng = generator(seed, &format!("arrivals/{life}"));
        let mut one = || match rng.u8(..100) {
            0..60 => rng.u64(0..300),
            60..85 => rng.u64(300..LATE + 500),
            _ => rng.u64(LATE + 500..30_000),
        };
        let (node, pods, imds) = (one(), one(), one());
        let away = if rng.u8(..100) < 10 { rng.u64(3_000..45_000) } else { 0 };
        Self { node: node + away, pods: pods + away, imds }
    }
}

/// What one life has heard so far, and when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrived {
    began: u64,
    pub node: Option<u64>,
    pods: Option<u64>,
    imds: Option<u64>,
}

/// The orders, and what can be late.
pub const NAMES: [&str; 11] = [
    "node, pods, IMDS",
    "node, IMDS, pods",
    "pods, node, IMDS",
    "pods, IMDS, node",
    "IMDS, node, pods",
    "IMDS, pods, node",
    "node late",
    "pods late",
    "IMDS late",
    "API server away",
    "all at once",
];

impl Arrived {
    /// Takes an event; once it has heard of all three, what that says of their order.
    pub fn hears(&mut self, event: &Event, now: u64) -> Vec<&'static str> {
        let known = |it: &Self| it.node.is_some() && it.pods.is_some() && it.imds.is_some();
        let before = known(self);
        match event {
            Event::AgentStarted { .. } => *self = Self { began: now, ..Self::default() },
            Event::NodeRead(_) => _ = self.node.get_or_insert(now),
            Event::PodsListed => _ = self.pods.get_or_insert(now),
            Event::ImdsReachable { reachable: true } => _ = self.imds.get_or_insert(now),
            _ => {}
        }
        let (false, Some(node), Some(pods), Some(imds)) = (before, self.node, self.pods, self.imds) else {
            return Vec::new();
        };
        let mut order = [(node, "node"), (pods, "pods"), (imds, "IMDS")];
        order.sort_unstable();
        let name = order.map(|(_, name)| name).join(", ");
        let late = |at: u64| at > self.began + LATE;
        let facts = [
            ("node late", late(node)),
            ("pods late", late(pods)),
            ("IMDS late", late(imds)),
            ("API server away", late(node) && late(pods)),
            ("all at once", !late(node) && !late(pods) && !late(imds)),
        ];
        let facts = facts.into_iter().filter_map(|(name, holds)| holds.then_some(name));
        NAMES.into_iter().filter(|known| *known == name).chain(facts).collect()
    }
}
