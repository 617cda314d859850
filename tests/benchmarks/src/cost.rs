//! What something has cost, as the kernel counted it.

use std::time::Duration;

use anyhow::Result;
use nix::sys::{
    resource::{Usage, UsageWho, getrusage},
    time::TimeVal,
};

/// Processor time and peak memory.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// Seconds in user mode.
    pub user: f64,
    /// Seconds in the kernel.
    pub system: f64,
    /// The largest resident set so far, in bytes.
    pub peak_rss: u64,
}

impl Cost {
    /// What `who` has cost until now.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn of(who: UsageWho) -> Result<Self> {
        let usage: Usage = getrusage(who)?;
        // Linux counts it in KiB.
        let peak_rss = u64::try_from(usage.max_rss()).unwrap_or(0) * 1024;
        Ok(Self { user: seconds(usage.user_time()), system: seconds(usage.system_time()), peak_rss })
    }

    /// Processor seconds.
    #[must_use]
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

fn seconds(time: TimeVal) -> f64 {
    let micros = u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000;
    Duration::from_micros(micros + u64::try_from(time.tv_usec()).unwrap_or(0)).as_secs_f64()
}
