//! The plan of one run while it runs: which fault strikes now, and how often each has.

use fault_plan::{Fault, Start};
use std::collections::BTreeMap;

/// What a strike carries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Struck {
    /// The argument in milliseconds, where it is a time.
    pub span: u64,
    /// The argument in bytes per second, where it is a rate.
    pub rate: u64,
    /// Milliseconds after the notice at which it ends, if it does.
    pub until: Option<i64>,
}

#[derive(Debug)]
struct Trouble<'a> {
    fault: &'a Fault,
    /// Milliseconds after the notice. Without any time it holds from the start of the run on.
    from: i64,
    until: Option<i64>,
    seen: u32,
}

/// The faults of a run that strike what comes by, by name.
#[derive(Debug, Default)]
pub struct Troubles<'a> {
    by_name: BTreeMap<&'static str, Vec<Trouble<'a>>>,
}

/// Whole milliseconds.
pub fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn signed(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

impl<'a> Troubles<'a> {
    pub fn new(faults: &'a [Fault]) -> Self {
        let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for fault in faults {
            let (from, until) = fault.window();
            let whole_run = fault.start == Start::Notice && until.is_none();
            let from = if whole_run { i64::MIN } else { signed(from) };
            by_name.entry(fault.name()).or_default().push(Trouble {
                fault,
                from,
                until: until.map(signed),
                seen: 0,
            });
        }
        Self { by_name }
    }

    /// The fault of this name that strikes `object` so many milliseconds after the notice, if one does.
    pub fn strikes(&mut self, name: &str, object: &str, since: i64) -> Option<Struck> {
        self.by_name.get_mut(name)?.iter_mut().find_map(|trouble| {
            let fault = trouble.fault;
            let meant = fault.object.as_deref().is_none_or(|own| own == object);
            if !meant || since < trouble.from || trouble.until.is_some_and(|until| since >= until) {
                return None;
            }
            trouble.seen += 1;
            fault.count.strikes(trouble.seen).then(|| Struck {
                span: fault.span().map_or(0, millis),
                rate: fault.rate().unwrap_or(0),
                until: trouble.until,
            })
        })
    }

    /// An agent is to be killed at the first effect of this name.
    pub fn kills_at(&mut self, step: &str) -> bool {
        let Some(kills) = self.by_name.get_mut("agent-kill") else { return false };
        let kill = kills
            .iter_mut()
            .find(|kill| kill.seen == 0 && matches!(&kill.fault.start, Start::Step(name) if name == step));
        kill.map(|kill| kill.seen += 1).is_some()
    }
}
