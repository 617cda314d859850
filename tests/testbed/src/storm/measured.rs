//! What a storm cost, by the API server's audit log and the kernel's counters.

use crate::bed::Testbed;
use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeMap;

/// CPU seconds of each process of the control plane so far.
#[derive(Clone, Debug)]
pub struct Usage(BTreeMap<String, f64>);

impl Usage {
    /// Now.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn now() -> Result<Self> {
        let wanted = ["kube-apiserver", "etcd", "kube-controller", "kube-scheduler", "kwok", "storm"];
        let mut used: BTreeMap<String, f64> = BTreeMap::new();
        // Other testbeds run programs of the same names in networks of their own.
        let own = std::fs::read_link("/proc/self/ns/net")?;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            if std::fs::read_link(entry.path().join("ns/net")).ok().as_ref() != Some(&own) {
                continue;
            }
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
            let (Some(from), Some(to)) = (stat.find('('), stat.rfind(')')) else { continue };
            let name = &stat[from + 1..to];
            let Some(name) = wanted.iter().find(|wanted| name.starts_with(&wanted[..wanted.len().min(15)]))
            else {
                continue;
            };
            // Fields 14 and 15 of proc(5): user and system ticks, a hundredth of a second each.
            let ticks =
                stat[to + 2..].split(' ').skip(11).take(2).filter_map(|word| word.parse::<f64>().ok());
            *used.entry((*name).to_owned()).or_default() += ticks.sum::<f64>() / 100.0;
        }
        Ok(Self(used))
    }
}

/// One storm.
#[derive(Clone, Debug, Serialize)]
pub struct Measured {
    agents: usize,
    pods: usize,
    /// Seconds from the notice to the last cordon.
    last_cordon: Option<f64>,
    /// To the first and the last eviction that was granted.
    first_eviction: Option<f64>,
    last_eviction: Option<f64>,
    /// To the last eviction of a pod that no disruption budget covers.
    last_unbudgeted_eviction: Option<f64>,
    /// Until no pod of before was left.
    emptied: Option<f64>,
    /// What the agents asked, by verb.
    requests: BTreeMap<String, u64>,
    /// Answers by code.
    answers: BTreeMap<u64, u64>,
    /// Evictions that a disruption budget refused.
    refused: u64,
    /// CPU seconds from the notice until now.
    cpu: BTreeMap<String, f64>,
}

/// Reads it all.
///
/// # Errors
/// The audit log cannot be read.
pub fn measure(
    bed: &Testbed,
    agents: usize,
    notice: Timestamp,
    emptied: &Result<Timestamp>,
    before: &Usage,
) -> Result<Measured> {
    let since = |at: Timestamp| at.duration_since(notice).as_secs_f64();
    let audit = bed.audit()?;
    let ours: Vec<_> = audit.iter().filter(|entry| entry.at >= notice && entry.by_agent()).collect();
    let mut requests: BTreeMap<String, u64> = BTreeMap::new();
    let mut answers: BTreeMap<u64, u64> = BTreeMap::new();
    for entry in &ours {
        let verb = if entry.is_eviction() { "evict" } else { &entry.verb };
        *requests.entry(format!("{verb} {}", entry.resource)).or_default() += 1;
        *answers.entry(entry.code).or_default() += 1;
    }
    let granted =
        |entry: &&&crate::audit::Entry| (entry.is_eviction() || entry.is_pod_deletion()) && entry.succeeded();
    let evictions: Vec<f64> = ours.iter().filter(granted).map(|entry| since(entry.at)).collect();
    let budgeted = |name: &str| super::BUDGETED.iter().any(|app| name.starts_with(&format!("{app}-")));
    let free =
        ours.iter().filter(granted).filter(|entry| !budgeted(&entry.name)).map(|entry| since(entry.at));
    let cordons =
        ours.iter().filter(|entry| entry.resource == "nodes" && entry.verb == "patch" && entry.succeeded());
    let after = Usage::now()?;
    let cpu = after.0.iter().map(|(name, used)| (name.clone(), used - before.0.get(name).unwrap_or(&0.0)));
    Ok(Measured {
        agents,
        pods: agents * super::PODS,
        last_cordon: cordons.map(|entry| since(entry.at)).reduce(f64::max),
        first_eviction: evictions.first().copied(),
        last_eviction: evictions.last().copied(),
        last_unbudgeted_eviction: free.reduce(f64::max),
        emptied: emptied.as_ref().ok().map(|at| since(*at)),
        refused: ours.iter().filter(|entry| entry.is_eviction() && entry.code == 429).count() as u64,
        requests,
        answers,
        cpu: cpu.collect(),
    })
}

impl Measured {
    /// For people.
    pub fn text(&self) -> String {
        let seconds = |value: Option<f64>| value.map_or("never".to_owned(), |value| format!("{value:.1} s"));
        let requests: u64 = self.requests.values().sum();
        let mut cpu: Vec<_> = self.cpu.iter().collect();
        cpu.sort_by(|one, other| other.1.total_cmp(one.1));
        let cpu: Vec<String> = cpu.iter().map(|(name, used)| format!("{name} {used:.0}")).collect();
        format!(
            "{} agents, {} pods: last cordon {}, evictions {} to {} ({} where no budget refuses), empty after {}; {} API requests ({:.1} a pod), {} evictions \
             refused by a budget, {} answers 429 in all; CPU seconds: {}",
            self.agents,
            self.pods,
            seconds(self.last_cordon),
            seconds(self.first_eviction),
            seconds(self.last_eviction),
            seconds(self.last_unbudgeted_eviction),
            seconds(self.emptied),
            requests,
            requests as f64 / self.pods.max(1) as f64,
            self.refused,
            self.answers.get(&429).copied().unwrap_or(0),
            cpu.join(", "),
        )
    }
}
