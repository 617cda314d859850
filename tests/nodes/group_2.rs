//! The evacuation on real nodes, second part: short links, and volumes that are full, in memory or hostile.

#[allow(dead_code, reason = "each group uses some of it")]
mod cast;
mod planted;
mod short_link;
mod volumes;
