//! Who is on the stage: a name for each pod, as short as it can be without being another's.
//!
//! Decides nothing but names. It must not know what happens to anybody.

use crate::Step;
use evacuation::event::Event;
use evacuation::pod::{DaemonDrain, Owner, PodFacts, PodUid, Role};
use std::collections::BTreeMap;

/// The names of the pods.
#[derive(Debug, Default)]
pub(super) struct Cast {
    names: BTreeMap<PodUid, String>,
    /// Everybody of one name, by namespace.
    namesakes: BTreeMap<String, BTreeMap<String, Vec<PodUid>>>,
}

impl Cast {
    /// With every pod of the trace.
    pub(super) fn of<'s>(steps: impl IntoIterator<Item = &'s Step>) -> Self {
        let mut cast = Self::default();
        for step in steps {
            if let Event::PodUpdated(facts) = &step.event {
                cast.meet(facts);
            }
        }
        cast
    }

    /// Names a pod: by its name where no other has it, with its namespace where that is enough, and with a number where
    /// a pod came back under the same name.
    pub(super) fn meet(&mut self, pod: &PodFacts) {
        if self.names.contains_key(&pod.uid) {
            return;
        }
        let namespaces = self.namesakes.entry(pod.name.clone()).or_default();
        namespaces.entry(pod.namespace.clone()).or_default().push(pod.uid.clone());
        let alone = namespaces.len() == 1;
        for (namespace, uids) in namespaces {
            let full = if alone { pod.name.clone() } else { format!("{namespace}/{}", pod.name) };
            for (number, uid) in (1u32..).zip(uids) {
                let suffix = if number == 1 { String::new() } else { format!(" ({number})") };
                self.names.insert(uid.clone(), format!("{full}{suffix}"));
            }
        }
    }

    /// The pod's name; its uid where it was never seen.
    pub(super) fn name(&self, uid: &PodUid) -> String {
        self.names.get(uid).unwrap_or(&uid.0).clone()
    }
}

/// What decides how a pod leaves, in words.
pub(super) fn description(pod: &PodFacts) -> String {
    let mut words = vec![format!("priority {}", pod.priority)];
    match pod.role {
        Role::Active => {}
        Role::Preview => words.push("preview".into()),
        Role::Canary => words.push("canary".into()),
        Role::Idle => words.push("idle".into()),
        Role::Shadow => words.push("shadow".into()),
        Role::Batch => words.push("batch".into()),
        Role::Placeholder => words.push("placeholder".into()),
    }
    match pod.owner {
        Owner::Replicated => {}
        Owner::Named => words.push("of a StatefulSet".into()),
        Owner::Static => words.push("static".into()),
        Owner::Finished => words.push("finished".into()),
        Owner::Bare { may_go } => {
            words.push(if may_go { "no controller, may go".into() } else { "no controller".into() });
        }
        Owner::Daemon { tolerates_all: true, .. } => words.push("of a DaemonSet that comes back".into()),
        Owner::Daemon { drain, .. } => words.push(match drain {
            DaemonDrain::Stay => "of a DaemonSet".into(),
            DaemonDrain::Early => "of a DaemonSet, leaves early".into(),
            DaemonDrain::Late => "of a DaemonSet, leaves late".into(),
        }),
    }
    words.push(format!("{} s of grace", pod.grace.as_secs()));
    if let Some(engine) = &pod.engine {
        words.push(if engine.holds { "an engine that can be held".into() } else { "an engine".into() });
        if !pod.restore_decided {
            words.push("its restore is not decided".into());
        }
    }
    if !pod.running {
        words.push("not running".into());
    }
    words.join(", ")
}
