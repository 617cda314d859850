//! What the script does to the world when its moment comes.

use crate::script::Script;
use crate::world::{Happening, START, World};
use evacuation::event::Event;
use evacuation::pod::Owner;

impl World<'_> {
    pub fn play(&mut self, script: Script, fault: &'static str) {
        if fault_plan::catalogue::named(fault).is_some() {
            self.coverage.fault(fault);
        }
        match script {
            Script::Appear(index) => {
                if let Some(actor) = self.scenario.actors.get(index) {
                    self.cluster.add(actor, self.now, START);
                    self.show_pod(&actor.facts.uid.0.clone(), 0);
                }
            }
            Script::Show { .. } | Script::Hide(..) | Script::Repeat => self.shows(script),
            Script::Delete(uid) => {
                if let Some(grace) = self.cluster.pods.get(&uid).map(|pod| pod.facts.grace) {
                    self.terminate(&uid, grace);
                }
            }
            Script::Finish(uid) => {
                if let Some(pod) = self.cluster.pods.get_mut(&uid) {
                    pod.facts.owner = Owner::Finished;
                    pod.facts.running = false;
                    pod.engine_start += 1;
                    pod.state = 0;
                    pod.sigterm = 0;
                    pod.plan += 1;
                    self.show_pod(&uid, 0);
                    self.schedule_end(&uid);
                }
            }
            Script::RestartEngine(uid) => {
                if let Some(pod) = self.cluster.pods.get_mut(&uid) {
                    pod.engine_start += 1;
                    pod.facts.restarts = pod.engine_start;
                    pod.kept = pod.kept.max(pod.flushed);
                    (pod.state, pod.flushed, pod.recalled) = (0, 0, false);
                    self.show_pod(&uid, 20);
                }
            }
            Script::Uncordon => {
                self.cluster.node.unschedulable = false;
                self.show_node(20);
            }
            Script::Kill => self.crash(),
            Script::Boot => self.boot(),
            Script::Sleep(ms) => self.sleep(ms),
            Script::Copy => self.deliver(Event::PreCopyRequested),
            Script::Rate(rate) => {
                self.link.settle(self.now);
                self.link.set_rate(rate.max(1));
                self.schedule_link();
                self.measure();
            }
            Script::Relist => self.relist(),
            Script::Nothing => {}
        }
    }

    /// An evicted pod's budget has one more when its replacement is ready.
    pub fn replace(&mut self, uid: &str) {
        let group = self.cluster.pods.get(uid).and_then(|pod| pod.budget);
        if let Some(group) = group {
            let after = self.dice.of(&format!("{uid}/replacement")).u64(2_000..60_000);
            self.later(after, Happening::Replaced(group));
        }
    }
}
