//! What the uplink carries, and what the saves that are open have probably sent by now.
//!
//! Decides nothing. It must not know pods: it counts bytes by the clock.

use crate::moment::Moment;

/// The uplink of the node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Uplink {
    /// Bytes per second, as last measured.
    pub(crate) rate: Option<u64>,
    settled: Moment,
}

impl Uplink {
    /// Bytes that it has carried since the last call, if something was there to send.
    pub(crate) fn carried(&mut self, now: Moment) -> u64 {
        let span = now.since(self.settled).as_millis();
        self.settled = now;
        let bytes = u128::from(span) * u128::from(self.rate.unwrap_or(0)) / 1000;
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }
}
