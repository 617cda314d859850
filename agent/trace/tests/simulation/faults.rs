//! What goes wrong in a run: drawn from the catalogue that the drill uses too, or given by hand.

use crate::dice::generator;
use crate::scenario::pick;
use fastrand::Rng;
use fault_plan::catalogue::{entries, named};
use fault_plan::{Argument, Count, Entry, Fault, Level, Object, Start, Value};
use std::time::Duration;

/// Every kind of the catalogue that is understood here.
pub fn kinds() -> impl Iterator<Item = &'static Entry> {
    entries().filter(|entry| entry.not_at(Level::Simulation).is_none())
}

/// One without any part.
pub fn plain(name: &str) -> Fault {
    Fault::of(named(name).expect("a name of the catalogue"))
}

/// A store that keeps new pods waiting.
const AWAY: [&str; 3] = ["store-gone", "store-refuses", "store-503"];

/// In how many runs of a hundred, or for how many pods of a hundred.
fn chance(name: &str) -> u8 {
    match name {
        "agent-kill" => 20,
        "notice-back" | "notice-anew" => 25,
        "notice-repeated"
        | "notice-nearer"
        | "notice-past"
        | "notice-late"
        | "kind-hibernate"
        | "kind-drill"
        | "kind-terminate"
        | "rebalance-only"
        | "maintenance-cancelled"
        | "api-forbidden"
        | "maintenance-near"
        | "maintenance-far"
        | "pdb-two" => 3,
        "engine-boasts" | "engine-denies" | "engine-busy" => 4,
        away if AWAY.contains(&away) => 12,
        "node-boots" | "node-resumes" => 6,
        "maintenance-also" => 15,
        _ => 7,
    }
}

/// Draws a plan. Each kind has a generator of its own, and each pod within it: one more pod does not
/// move the faults of the others.
pub fn draw(seed: u64, pods: &[String]) -> Vec<Fault> {
    let mut plan = Vec::new();
    if generator(seed, "calm").u8(..100) < 20 {
        return plan;
    }
    for kind in kinds() {
        let chance = chance(kind.name);
        if kind.object == Object::None {
            let mut rng = generator(seed, kind.name);
            while rng.u8(..100) < chance {
                plan.push(one(kind, &mut rng));
            }
            continue;
        }
        for pod in pods {
            let mut rng = generator(seed, &format!("{}/{pod}", kind.name));
            if rng.u8(..100) < chance {
                plan.push(Fault { object: Some(pod.clone()), ..one(kind, &mut rng) });
            }
        }
    }
    plan
}

fn ms(rng: &mut Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

/// Megabytes per second, log-uniform.
fn rate(rng: &mut Rng, most_doublings: u32) -> Value {
    let bytes = rng.u64(1_000_000..2_000_000) << rng.u32(0..=most_doublings);
    Value::Rate(bytes.min(10_000_000_000))
}

/// One of this kind, with the parts that its kind takes.
fn one(kind: &'static Entry, rng: &mut Rng) -> Fault {
    use fault_plan::When;
    let at = Start::After(ms(rng, 0, 40_000));
    let spell = ms(rng, 500, 20_000);
    let mut fault = Fault::of(kind);
    fault.argument = match (kind.argument, kind.name) {
        (Argument::None, _) => None,
        (Argument::Rate, "store-slow") => Some(rate(rng, 7)),
        (Argument::Rate, _) => Some(match rate(rng, 13) {
            Value::Rate(rate) if kind.name == "link-changes" => Value::Rate(rate.max(10_000_000)),
            rate => rate,
        }),
        (Argument::Span, name) => Some(Value::Span(match name {
            "notice-late" => ms(rng, 1_000, 60_000),
            "notice-nearer" => ms(rng, 2_000, 60_000),
            "notice-past" => ms(rng, 0, 600_000),
            "maintenance-far" => ms(rng, 125_000, 200_000),
            "maintenance-near" => ms(rng, 20_000, 120_000),
            "maintenance-also" => ms(rng, 5_000, 300_000),
            // Beyond the time in most notices, and not.
            "node-resumes" => ms(rng, 5_000, 600_000),
            _ => ms(rng, 500, 25_000),
        })),
    };
    fault.start = match kind.when {
        When::Never => Start::Notice,
        When::NeedsTimeOrStep if rng.u8(..3) == 0 => Start::Step(pick(rng, &fault_plan::steps()).to_owned()),
        When::NeedsTime | When::NeedsTimeOrStep => at,
        // What holds from the start on is the harder case for what the agent prepares.
        When::Time if kind.object == Object::Pod && rng.bool() => Start::Notice,
        // A store that is away before a new pod comes, also for those that come later.
        When::Time if AWAY.contains(&kind.name) && rng.bool() => Start::Notice,
        When::Time if kind.default_lasts.is_some() => Start::After(ms(rng, 0, 100_000)),
        When::Time => at,
    };
    match kind.name {
        "api-conflict" => fault.count = Count::First(rng.u32(1..4)),
        "store-endangered" => fault.count = Count::First(rng.u32(1..7)),
        "answer-late" | "answer-twice" => fault.count = Count::First(rng.u32(1..12)),
        "api-lost" | "store-lost" | "store-torn" | "task-panics" => {
            fault.count = if rng.bool() { Count::First(rng.u32(1..3)) } else { Count::Only(rng.u32(1..4)) };
        }
        // From the start of the run to its end.
        name if AWAY.contains(&name) && fault.start == Start::Notice => {}
        _ if kind.default_lasts.is_some() || kind.name == "store-slow" => fault.lasts = Some(spell),
        _ if kind.lasting && rng.bool() => fault.lasts = Some(spell * 3),
        _ => {}
    }
    fault
}
