//! What goes wrong in a run, in one text form, with the drill's names where both have a fault:
//! `target[:object]=outcome[:argument][*count][@when][+duration]`. `@` counts from the notice.

use crate::dice::generator;
use fastrand::Rng;
use std::fmt;
use std::str::FromStr;

/// Every kind of fault. The first block is a script of moments, the second strikes what comes by.
pub const CATALOGUE: &[&str] = &[
    "notice=late",
    "notice=repeated",
    "notice=moving",
    "notice=nearer",
    "notice=withdrawn",
    "notice=again",
    "notice=past",
    "kind=stop",
    "kind=hibernate",
    "rebalance=first",
    "rebalance=only",
    "maintenance=far",
    "maintenance=near",
    "maintenance=cancelled",
    "imds=early",
    "agent=kill",
    "drainer=delete",
    "pod=appears",
    "pod=finishes",
    "node=uncordoned",
    "node=boots",
    "engine=restarts",
    "link=changes",
    // Strikes.
    "api=429",
    "api=503",
    "api=stall",
    "api=conflict",
    "api=lost",
    "api=forbidden",
    "pdb=stuck",
    "store=slow",
    "store=503",
    "store=torn",
    "store=lost",
    "store=gone",
    "engine=hang",
    "engine=lies",
    "engine=html",
    "hold=fails",
    "task=panics",
    "answer=late",
    "watch=lags",
    "watch=doubles",
];

/// One fault of a plan. Spans are milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: &'static str,
    pub object: Option<String>,
    pub argument: Option<u64>,
    pub count: Option<u32>,
    pub at: u64,
    pub lasts: Option<u64>,
}

/// Finds a kind of the catalogue.
pub fn kind(name: &str) -> Option<&'static str> {
    CATALOGUE.iter().copied().find(|known| *known == name)
}

impl Fault {
    pub const fn new(kind: &'static str) -> Self {
        Self { kind, object: None, argument: None, count: None, at: 0, lasts: None }
    }

    /// It holds at `since` the notice, for this object.
    pub fn holds(&self, name: &str, object: &str, since: i64) -> bool {
        let from = i64::try_from(self.at).unwrap_or(i64::MAX);
        let begun = since >= from || (self.at == 0 && self.lasts.is_none());
        let lasts = self.lasts.and_then(|lasts| i64::try_from(lasts).ok());
        self.kind == name
            && self.object.as_deref().is_none_or(|own| own == object)
            && begun
            && lasts.is_none_or(|lasts| since < from + lasts)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (target, outcome) = self.kind.split_once('=').unwrap_or((self.kind, ""));
        f.write_str(target)?;
        if let Some(object) = &self.object {
            write!(f, ":{object}")?;
        }
        write!(f, "={outcome}")?;
        match self.argument {
            Some(rate) if matches!(self.kind, "store=slow" | "link=changes") => {
                write!(f, ":{}MiB/s", rate >> 20)?
            }
            Some(argument) => write!(f, ":{argument}ms")?,
            None => {}
        }
        if let Some(count) = self.count {
            write!(f, "*{count}")?;
        }
        if self.at > 0 {
            write!(f, "@{}ms", self.at)?;
        }
        match self.lasts {
            Some(lasts) => write!(f, "+{lasts}ms"),
            None => Ok(()),
        }
    }
}

/// Cuts off what follows `mark`.
fn cut<'a>(text: &mut &'a str, mark: char) -> Option<&'a str> {
    let (left, right) = text.split_once(mark)?;
    *text = left;
    Some(right)
}

/// `10s`, `1500ms`, or for `store=slow` `2MiB/s` as bytes per second.
fn amount(text: &str) -> Option<u64> {
    if let Some(mebibytes) = text.strip_suffix("MiB/s") {
        return mebibytes.parse::<u64>().ok().map(|mebibytes| mebibytes << 20);
    }
    match text.strip_suffix("ms") {
        Some(ms) => ms.parse().ok(),
        None => text.strip_suffix('s').and_then(|s| s.parse::<u64>().ok()).map(|s| s * 1000),
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not a fault of this simulation");
        let (mut target, mut outcome) = text.split_once('=').ok_or_else(wrong)?;
        let object = cut(&mut target, ':').map(str::to_owned);
        let [lasts, at, count, argument] = ['+', '@', '*', ':'].map(|mark| cut(&mut outcome, mark));
        let read = |part: Option<&str>| part.map(|part| amount(part).ok_or_else(wrong)).transpose();
        Ok(Self {
            kind: kind(&format!("{target}={outcome}")).ok_or_else(wrong)?,
            object,
            argument: read(argument)?,
            count: count.map(|count| count.parse().map_err(|_| wrong())).transpose()?,
            at: read(at)?.unwrap_or(0),
            lasts: read(lasts)?,
        })
    }
}

/// Draws a plan. Each kind has a generator of its own, and each pod within it: one more pod does not
/// move the faults of the others.
pub fn draw(seed: u64, pods: &[String]) -> Vec<Fault> {
    let mut plan = Vec::new();
    if generator(seed, "calm").u8(..100) < 20 {
        return plan;
    }
    for &kind in CATALOGUE {
        let (target, _) = kind.split_once('=').unwrap_or((kind, ""));
        let mut rng = generator(seed, kind);
        let chance = match kind {
            "agent=kill" => 20,
            "notice=again" => 40,
            "notice=moving"
            | "notice=nearer"
            | "notice=past"
            | "notice=late"
            | "kind=hibernate"
            | "node=boots"
            | "rebalance=only"
            | "maintenance=cancelled"
            | "imds=early"
            | "api=forbidden"
            | "maintenance=near"
            | "maintenance=far"
            | "store=gone" => 3,
            _ => 7,
        };
        match target {
            "engine" | "pdb" | "hold" | "drainer" | "pod" if kind != "pod=appears" => {
                for pod in pods {
                    let mut rng = generator(seed, &format!("{kind}/{pod}"));
                    if rng.u8(..100) < chance {
                        plan.push(Fault { object: Some(pod.clone()), ..one(kind, &mut rng) });
                    }
                }
            }
            _ => {
                while rng.u8(..100) < chance {
                    plan.push(one(kind, &mut rng));
                }
            }
        }
    }
    plan
}

fn one(kind: &'static str, rng: &mut Rng) -> Fault {
    let mut fault = Fault { at: rng.u64(0..40_000), ..Fault::new(kind) };
    let spell = rng.u64(500..20_000);
    match kind {
        "notice=late" => fault.argument = Some(rng.u64(1_000..60_000)),
        "notice=nearer" => fault.argument = Some(rng.u64(2_000..60_000)),
        "notice=past" => fault.argument = Some(rng.u64(0..600_000)),
        "rebalance=first" => fault.argument = Some(rng.u64(500..25_000)),
        "maintenance=far" => fault.argument = Some(rng.u64(125_000..200_000)),
        "maintenance=near" => fault.argument = Some(rng.u64(20_000..120_000)),
        "link=changes" => fault.argument = Some(rng.u64(3..2_000) << 20),
        "store=slow" => {
            fault.argument = Some(rng.u64(1..100) << 20);
            fault.lasts = Some(spell);
        }
        "api=conflict" => fault.count = Some(rng.u32(1..4)),
        "api=lost" | "store=lost" | "store=torn" | "task=panics" => fault.count = Some(rng.u32(1..3)),
        "imds=early" => fault.at = 0,
        "answer=late" => fault.count = Some(rng.u32(1..12)),
        "api=429" | "api=503" | "api=stall" | "store=503" => {
            fault.at = rng.u64(0..100_000);
            fault.lasts = Some(spell);
        }
        "store=gone" | "pdb=stuck" | "engine=hang" | "hold=fails" if rng.bool() => {
            fault.lasts = Some(spell * 3)
        }
        "pdb=stuck" | "engine=hang" | "engine=lies" | "engine=html" | "hold=fails" | "api=forbidden" => {
            fault.at = 0;
        }
        _ => {}
    }
    fault
}
