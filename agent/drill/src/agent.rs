//! One node's agent: a real child process of this binary, killed and started again as a kubelet would.

use super::chronicle::Chronicle;
use evacuation::moment::{Moment, Span};
use fault_plan::drill::{show_span, window};
use fault_plan::{Count, Fault};
use host::clock;
use parking_lot::Mutex;
use serde::Serialize;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// How long the kubelet waits before it starts a container again.
const RESTART: Duration = Duration::from_millis(500);

/// More lives than this are a crash loop.
const MOST_LIVES: usize = 6;

/// How a node's agent is started.
#[derive(Clone, Debug)]
pub struct AgentPlan {
    /// The node.
    pub node: &'static str,
    /// The binary.
    pub program: PathBuf,
    /// Everything after the program but the store's faults.
    pub args: Vec<String>,
    /// Where its output goes.
    pub log: PathBuf,
    /// The plan's `store` faults.
    pub store_faults: Vec<Fault>,
    /// How long after the start the notice is planned, while it is not there yet.
    pub lead: Span,
    /// When the notice appeared.
    pub zero: Arc<OnceLock<Moment>>,
}

/// One life of an agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AgentLife {
    /// When it was started.
    pub began: Moment,
    /// When it ended.
    pub ended: Option<Moment>,
    /// How: `killed` is ours, everything else is its own.
    pub how: Option<String>,
}

/// What the supervisor is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Run,
    /// SIGKILL for this life (counted from 1).
    Kill(usize),
    /// SIGKILL, and no further life: the node is gone.
    Perish,
    Stop,
}

/// A supervised agent. Dropping it kills the process.
#[derive(Debug)]
pub struct Agent {
    orders: watch::Sender<Order>,
    lives: Arc<Mutex<Vec<AgentLife>>>,
    supervisor: tokio::task::JoinHandle<()>,
}

impl Agent {
    /// Starts the agent and its supervisor.
    pub fn start(plan: AgentPlan, chronicle: Arc<Chronicle>) -> Self {
        let (orders, inbox) = watch::channel(Order::Run);
        let lives = Arc::new(Mutex::new(Vec::new()));
        let supervisor = tokio::spawn(supervise(plan, chronicle, inbox, Arc::clone(&lives)));
        Self { orders, lives, supervisor }
    }

    /// SIGKILL; the kubelet starts it again.
    pub fn kill(&self) {
        let life = self.lives().len();
        self.orders.send_replace(Order::Kill(life));
    }

    /// The node dies, and its agent with it.
    pub fn perish(&self) {
        self.orders.send_replace(Order::Perish);
    }

    /// Its lives so far.
    pub fn lives(&self) -> Vec<AgentLife> {
        self.lives.lock().clone()
    }

    /// SIGTERM, two seconds, SIGKILL.
    pub async fn stop(mut self) {
        self.orders.send_replace(Order::Stop);
        if tokio::time::timeout(Duration::from_secs(4), &mut self.supervisor).await.is_err() {
            self.supervisor.abort();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The child is killed when the aborted task drops it.
        self.supervisor.abort();
    }
}

async fn supervise(
    plan: AgentPlan,
    chronicle: Arc<Chronicle>,
    mut orders: watch::Receiver<Order>,
    lives: Arc<Mutex<Vec<AgentLife>>>,
) {
    let subject = format!("agent {}", plan.node);
    let change = |change: &mut dyn FnMut(&mut Vec<AgentLife>)| {
        change(&mut lives.lock());
    };
    for life in 1..=MOST_LIVES {
        let mut child = match plan.spawn() {
            Ok(child) => child,
            Err(error) => {
                chronicle.warn(&subject, format!("cannot be started: {}: {error}", plan.program.display()));
                return;
            }
        };
        change(&mut |lives| lives.push(AgentLife { began: clock::now(), ended: None, how: None }));
        if life > 1 {
            chronicle.say(&subject, "is started again");
        }
        let ended = loop {
            tokio::select! {
                status = child.wait() => break Some(status),
                told = orders.changed() => {
                    let order = *orders.borrow_and_update();
                    match order {
                        Order::Kill(which) if which == life => {
                            let _ = child.start_kill();
                            let _ = child.wait().await;
                            chronicle.warn(&subject, "is killed (SIGKILL)");
                            break None;
                        }
                        Order::Perish => {
                            let _ = child.start_kill();
                            let _ = child.wait().await;
                            change(&mut |lives| end(lives, "killed"));
                            return;
                        }
                        Order::Stop => {
                            terminate(&mut child).await;
                            change(&mut |lives| end(lives, "stopped"));
                            return;
                        }
                        _ if told.is_err() => return,
                        _ => {}
                    }
                }
            }
        };
        let how = match ended {
            None => "killed".to_owned(),
            Some(Ok(status)) => exit_in_words(status),
            Some(Err(error)) => format!("lost: {error}"),
        };
        if how != "killed" {
            chronicle.warn(&subject, format!("ended by itself: {how}; its log: {}", plan.log.display()));
        }
        change(&mut |lives| end(lives, &how));
        tokio::time::sleep(RESTART).await;
    }
    chronicle.warn(&subject, "is not started any more");
}

fn end(lives: &mut [AgentLife], how: &str) {
    if let Some(life) = lives.last_mut() {
        life.ended = Some(clock::now());
        life.how = Some(how.to_owned());
    }
}

fn exit_in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".to_owned(),
    }
}

async fn terminate(child: &mut Child) {
    if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
        let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
    }
    if tokio::time::timeout(Duration::from_secs(2), child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
}

impl AgentPlan {
    fn spawn(&self) -> std::io::Result<Child> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        command
            .args(&self.args)
            .args(self.store_fault_args(clock::now()))
            // Never the machine's own metadata service, and never a proxy.
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .env("NO_PROXY", "*")
            .env("no_proxy", "*")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // A group of its own: the terminal's Ctrl-C goes to the drill, which then ends its children.
            .process_group(0)
            .kill_on_drop(true);
        command.spawn()
    }

    /// The store's faults in the words of `--store-fault`, whose times count from the process's start.
    fn store_fault_args(&self, now: Moment) -> Vec<String> {
        let mut args = Vec::new();
        for fault in &self.store_faults {
            let (from, until) = window(fault);
            let after_start = |after_notice: Span| match self.zero.get() {
                Some(zero) => (*zero + after_notice).left(now),
                None => self.lead + after_notice,
            };
            if until.is_some_and(|until| after_start(until) == Span::ZERO) {
                continue;
            }
            let timed = match (from, until) {
                // A slow line is slow from the start; a store that is gone would not let the agents begin.
                (Span::ZERO, None) if fault.kind.outcome != "gone" => String::new(),
                (from, None) => format!("@{}", show_span(after_start(from))),
                (from, Some(until)) => {
                    let (from, until) = (after_start(from), after_start(until));
                    format!("@{}+{}", show_span(from), show_span(until.less(from)))
                }
            };
            let counted = match fault.count {
                Count::Always => String::new(),
                Count::First(n) => format!("*{n}"),
                Count::Only(n) => format!("#{n}"),
            };
            let (operation, outcome) = match fault.kind.outcome {
                // Packs, manifests and commits: the preflight at the start would use up a count of all puts.
                "503" => ("put:pack", "503".to_owned()),
                "torn" => ("put:pack", "torn".to_owned()),
                "lost" => ("put:pack", "lost".to_owned()),
                "slow" => ("*", format!("slow:{}", fault_plan::show_rate(fault.rate().unwrap_or(1 << 20)))),
                "unconditional" => ("put", "unconditional".to_owned()),
                other => ("*", other.to_owned()),
            };
            // A count and a time cannot stand together there: the count decides.
            let when = if counted.is_empty() { timed } else { counted };
            args.extend(["--store-fault".to_owned(), format!("{operation}={outcome}{when}")]);
        }
        args
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(faults: &[&str]) -> AgentPlan {
        AgentPlan {
            node: "node-a",
            program: PathBuf::from("/bin/false"),
            args: Vec::new(),
            log: PathBuf::from("/dev/null"),
            store_faults: faults.iter().map(|text| text.parse().unwrap()).collect(),
            lead: Span::from_secs(4),
            zero: Arc::new(OnceLock::new()),
        }
    }

    fn told(plan: &AgentPlan, now: u64) -> Vec<String> {
        let args = plan.store_fault_args(Moment::from_millis(now));
        args.into_iter().filter(|arg| arg != "--store-fault").collect()
    }

    #[test]
    fn times_after_the_notice_become_times_after_the_start_and_the_store_understands_them() {
        let plan = plan(&[
            "store=slow:2MiB/s",
            "store=503*5",
            "store=torn#1",
            "store=gone",
            "store=gone@3s",
            "store=gone@3s+6s",
            "store=unconditional",
        ]);
        let before = told(&plan, 0);
        assert_eq!(
            before,
            [
                "*=slow:2MiB/s",
                "put:pack=503*5",
                "put:pack=torn#1",
                "*=gone@4s",
                "*=gone@7s",
                "*=gone@7s+6s",
                "put=unconditional"
            ]
        );
        for text in before {
            text.parse::<checkpoint::store::faulty::FaultPlan>().unwrap();
        }
        plan.zero.set(Moment::from_millis(10_000)).unwrap();
        let restarted = told(&plan, 14_000);
        assert_eq!(
            restarted[3..],
            ["*=gone@0s", "*=gone@0s", "*=gone@0s+5s", "put=unconditional"],
            "a restarted agent's time starts anew"
        );
        assert_eq!(
            told(&plan, 30_000)[3..],
            ["*=gone@0s", "*=gone@0s", "put=unconditional"],
            "what is over is not armed again"
        );
    }
}
