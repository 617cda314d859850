//! The evacuation on real nodes, fifth part: the agent dies, is updated, loses the API server or the store, and is robbed.

mod agent_killed;
mod agent_updated;
#[allow(dead_code, reason = "each group uses some of it")]
mod cast;
mod outages;
mod stolen_token;
