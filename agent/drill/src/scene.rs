//! What is played: the arguments and the fault plan, as far as they decide what must come of it.

use super::arguments::{DrillArgs, OrderKind, RestoreKind};
use super::cast::{CAST, Part};
use evacuation::moment::Span;
use evacuation::notice::InstanceAction;
use evacuation::policy::{EvictOrder, Policy, RebalancePolicy};
use fault_plan::drill::{parse_fault, parse_plan, span, window};
use fault_plan::{Fault, FaultError};

/// How long a rebalance or a withdrawn notice stands before the agents undo it: `--undo-after`.
pub const UNDO_AFTER: Span = Span::from_secs(5);

/// The agents' `--margin`.
pub const MARGIN: Span = Span::from_secs(5);

/// The agents' `--precopy-interval`.
const PRECOPY_INTERVAL: Span = Span::from_secs(2);

/// The scene.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The fault plan.
    pub faults: Vec<Fault>,
    /// The time left in the notice when it appears.
    pub window: Span,
    /// What must be expected.
    pub order: OrderKind,
    /// The replacements restore.
    pub restores: bool,
    /// Every replacement has other weights (`--other-weights`).
    pub other_weights: bool,
}

/// How it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything that is to leave leaves.
    Evacuated,
    /// The notice is withdrawn after this: what has begun ends, then the node is as before.
    Withdrawn(Span),
    /// Nothing leaves: the instance freezes.
    Hibernated,
    /// Nothing leaves: a recommendation, and nothing came of it.
    Recommended,
}

/// Why a drill cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// A fault.
    #[error("--fault {0}")]
    Fault(#[from] FaultError),
    /// A file.
    #[error("--fault-file {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A flag that is missing or does not fit.
    #[error("{0}")]
    Flag(String),
}

impl Scene {
    /// What the agents are to keep to: by this policy they are started and judged.
    pub fn policy(&self) -> Policy {
        Policy {
            margin: MARGIN,
            evict_order: match self.order {
                OrderKind::HighestFirst => EvictOrder::HighestFirst,
                OrderKind::LowestFirst => EvictOrder::LowestFirst,
            },
            rebalance: RebalancePolicy::Precopy,
            undo_after: UNDO_AFTER,
            precopy_interval: PRECOPY_INTERVAL,
            // Long enough for a slow store, and short enough that a replacement which was created late gives up within
            // the drill, and that what was announced and never came is given up.
            restore_timeout: Span::from_millis(self.window.as_millis() * 3 / 4).max(Span::from_secs(10)),
            ..Policy::default()
        }
    }

    /// Reads the arguments.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the flag.
    pub fn new(args: &DrillArgs) -> Result<Self, SceneError> {
        let mut faults = Vec::new();
        if let Some(path) = &args.fault_file {
            let text = std::fs::read_to_string(path)
                .map_err(|source| SceneError::File { path: path.display().to_string(), source })?;
            faults = parse_plan(&text)?;
        }
        for text in &args.faults {
            faults.push(parse_fault(text)?);
        }
        for fault in &faults {
            let member = fault.object.as_deref();
            let known = CAST.iter().find(|known| Some(known.name) == member);
            if let (Some(member), None) = (member, known) {
                let names: Vec<_> = CAST.iter().map(|member| member.name).collect();
                return Err(SceneError::Flag(format!(
                    "--fault {fault}: no pod {member:?}; use one of {}",
                    names.join(", ")
                )));
            }
            if fault.kind.target == "engine" && !known.is_some_and(|member| member.has_state()) {
                return Err(SceneError::Flag(format!(
                    "--fault {fault}: only gold and silver have an engine"
                )));
            }
        }
        let exclusive = |target: &str| faults.iter().filter(|fault| fault.kind.target == target).count() > 1;
        for target in ["kind", "rebalance"] {
            if exclusive(target) {
                return Err(SceneError::Flag(format!("--fault {target}=…: give it once")));
            }
        }
        let llama = args.engine == super::arguments::EngineKind::LlamaServer;
        if llama && (args.llama_server.is_none() || args.model.is_none()) {
            let what =
                "--engine llama-server needs --llama-server FILE (the binary) and --model FILE (a GGUF)";
            return Err(SceneError::Flag(what.to_owned()));
        }
        if !llama && (args.other_weights.is_some() || args.model.is_some() || args.llama_server.is_some()) {
            let what = "--model, --other-weights and --llama-server need --engine llama-server";
            return Err(SceneError::Flag(what.to_owned()));
        }
        let engine_fault = faults.iter().find(|fault| fault.kind.target == "engine");
        if let (true, Some(fault)) = (llama, engine_fault) {
            let swaps = fault.kind.outcome == "other-weights";
            if !swaps {
                return Err(SceneError::Flag(format!(
                    "--fault {fault}: a real llama-server cannot be told to; use --engine http"
                )));
            }
            if args.other_weights.is_none() {
                return Err(SceneError::Flag(format!("--fault {fault}: needs --other-weights FILE")));
            }
        }
        if llama && args.sabotage == Some(super::arguments::Sabotage::FlipByte) {
            return Err(SceneError::Flag("--sabotage flip-byte: use --engine http".to_owned()));
        }
        let mut window = args.window;
        for fault in &faults {
            if fault.name() == "notice-late" {
                window = fault.span().map_or(window, span);
            }
        }
        if window < Span::from_secs(1) || args.window > Span::from_secs(120) {
            return Err(SceneError::Flag(format!("--window {}: give 1s to 2m", args.window)));
        }
        if args.state_size == 0 || args.state_size > 1 << 30 {
            return Err(SceneError::Flag("--state-size: give 1 byte to 1GiB".to_owned()));
        }
        let other_weights = args.other_weights.is_some() && engine_fault.is_none();
        Ok(Self {
            faults,
            window,
            order: args.evict_order,
            restores: args.restore == RestoreKind::Gate,
            other_weights,
        })
    }

    /// A fault of this name is in the plan.
    pub fn has(&self, name: &str) -> bool {
        self.faults.iter().any(|fault| fault.name() == name)
    }

    /// A fault with this target is in the plan.
    pub fn touches(&self, target: &str) -> bool {
        self.faults.iter().any(|fault| fault.kind.target == target)
    }

    /// The fault of this name.
    pub fn fault(&self, name: &str) -> Option<&Fault> {
        self.faults.iter().find(|fault| fault.name() == name)
    }

    /// What the notice says will happen.
    pub fn action(&self) -> InstanceAction {
        match self.faults.iter().find(|fault| fault.kind.target == "kind").map(|fault| fault.kind.outcome) {
            Some("stop") => InstanceAction::Stop,
            Some("hibernate") => InstanceAction::Hibernate,
            _ => InstanceAction::Terminate,
        }
    }

    /// How it must end.
    pub fn ending(&self) -> Ending {
        if self.has("rebalance-only") {
            return Ending::Recommended;
        }
        if self.action() == InstanceAction::Hibernate {
            return Ending::Hibernated;
        }
        match self.fault("notice-withdrawn") {
            Some(fault) => Ending::Withdrawn(window(fault).0),
            None => Ending::Evacuated,
        }
    }

    /// Why this workload's state may fail to move, if the plan gives a reason.
    pub fn excuse(&self, member: &str) -> Option<String> {
        if !self.restores {
            return Some("--restore off".to_owned());
        }
        if self.other_weights {
            return Some("--other-weights".to_owned());
        }
        // Errors that pass, deletions by others and dead agents are no excuse; but a pod without a hold that
        // another deletes is stopped by the kubelet at once.
        let held = CAST.iter().any(|known| known.name == member && known.part == Part::HeldState);
        let its_own = self.faults.iter().find(|fault| {
            let own = fault.object.as_deref() == Some(member)
                && (fault.kind.target == "engine" || (fault.kind.target == "drainer" && !held));
            own || ["store-slow", "store-torn", "store-gone"].contains(&fault.name())
        });
        let short =
            || self.faults.iter().find(|fault| ["notice-late", "notice-withdrawn"].contains(&fault.name()));
        if let Some(fault) = its_own.or_else(short) {
            return Some(fault.to_string());
        }
        (self.window < Span::from_secs(25)).then(|| format!("--window {}", self.window))
    }

    /// The replacement of this workload has other weights.
    pub fn swapped(&self, member: &str) -> bool {
        let named =
            |fault: &Fault| fault.name() == "engine-other-weights" && fault.object.as_deref() == Some(member);
        self.other_weights || self.faults.iter().any(named)
    }

    /// The plan makes requests to the API server slow or fail: what is measured there is not the agent's.
    pub fn api_troubled(&self) -> bool {
        self.touches("api")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        drill: DrillArgs,
    }

    fn parsed(args: &[&str]) -> DrillArgs {
        Cli::try_parse_from(std::iter::once("drill").chain(args.iter().copied())).unwrap().drill
    }

    fn scene(args: &[&str]) -> Result<Scene, SceneError> {
        Scene::new(&parsed(args))
    }

    #[test]
    fn what_is_wrong_is_one_error_that_names_the_flag() {
        for (args, says) in [
            (&["--fault", "engine:bronze=hang"][..], "gold, silver"),
            (&["--fault", "engine:web=hang"], "gold and silver"),
            (&["--fault", "kind=stop", "--fault", "kind=hibernate"], "once"),
            (&["--engine", "llama-server"], "--llama-server"),
            (&["--other-weights", "x"], "--engine llama-server"),
            (&["--window", "5m"], "--window"),
            (&["--fault-file", "/nowhere"], "--fault-file"),
            (&["--state-size", "0"], "--state-size"),
        ] {
            let error = scene(args).unwrap_err().to_string();
            assert!(error.contains(says), "{args:?}: {error}");
        }
    }

    #[test]
    fn the_plan_decides_how_it_must_end() {
        assert_eq!(scene(&[]).unwrap().ending(), Ending::Evacuated);
        assert_eq!(scene(&["--fault", "kind=hibernate"]).unwrap().ending(), Ending::Hibernated);
        assert_eq!(scene(&["--fault", "rebalance=only"]).unwrap().ending(), Ending::Recommended);
        let withdrawn = scene(&["--fault", "notice=withdrawn@5s"]).unwrap();
        assert_eq!(withdrawn.ending(), Ending::Withdrawn(Span::from_secs(5)));
        let scene = scene(&["--fault", "engine:gold=hang"]).unwrap();
        assert!(scene.excuse("gold").is_some() && scene.excuse("silver").is_none());
    }
}
