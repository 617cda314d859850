//! Does what was planned, each step under the version that was looked at.

use futures::stream::{self, StreamExt};
use tokio::time::Instant;

use super::Policy;
use super::look::{FoundLineage, Inventory};
use super::plan::{self, Action, GarbageStep, Plan};
use crate::{
    claim::{self, Claim, ClaimState},
    document,
    generation::ReadError,
    hash,
    key::Workload,
    retry,
    reuse::{GOOD_FOR, Moment},
    store::{Condition, Removal, StoreError, Version},
    tombstone::{Subject, Tombstone},
};

/// Objects marked or removed at the same time.
const PARALLEL: usize = 8;

/// A step that was not done because something else happened. The next pass looks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SkippedStep {
    /// The step.
    pub step: GarbageStep,
    /// What was in the way.
    pub why: String,
}

/// What a pass did.
#[derive(Debug, Default)]
pub struct Collected {
    /// What was planned, and why not more.
    pub plan: Plan,
    /// What was done of it.
    pub done: Vec<GarbageStep>,
    /// What was not.
    pub skipped: Vec<SkippedStep>,
    /// The failure that ended the pass early. Nothing is lost by it; the next pass goes on.
    pub failed: Option<StoreError>,
}

/// Why a step was not done.
enum Stop {
    /// Somebody else was faster, or something came.
    Skip(String),
    Fail(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::ConditionFailed { .. } | StoreError::NotFound { .. } => Self::Skip(error.to_string()),
            error => Self::Fail(error),
        }
    }
}

impl From<ReadError> for Stop {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            error => Self::Skip(error.to_string()),
        }
    }
}

pub(super) async fn sweep(
    store: &dyn Removal,
    workload: &Workload,
    inventory: &Inventory,
    plan: Plan,
    policy: &Policy,
    collector: &str,
    deadline: Instant,
) -> Collected {
    let sweep = Sweep { store, workload, inventory, policy, collector, deadline };
    let mut collected = Collected::default();
    // In turns, as they are sorted.
    for turn in plan.steps.chunk_by(|a, b| a.action.turn() == b.action.turn()) {
        let marks = turn.iter().any(|step| matches!(step.action, Action::Mark(_)));
        if collected.failed.is_some() || (marks && !collected.skipped.is_empty()) {
            // A generation that stayed may name what was to be marked. The next pass knows.
            let why = "what names it may still be there".to_owned();
            collected
                .skipped
                .extend(turn.iter().map(|step| SkippedStep { step: step.clone(), why: why.clone() }));
            continue;
        }
        // Steps of their own: the compiler cannot see that futures that borrow them may go to another thread.
        let mut outcomes = stream::iter(turn.iter().cloned())
            .map(|step| {
                let sweep = &sweep;
                async move {
                    let outcome = sweep.take(&step.action).await;
                    (step, outcome)
                }
            })
            .buffer_unordered(PARALLEL);
        while let Some((step, outcome)) = outcomes.next().await {
            match outcome {
                Ok(()) => collected.done.push(step),
                Err(Stop::Skip(why)) => collected.skipped.push(SkippedStep { step, why }),
                Err(Stop::Fail(error)) => {
                    collected.skipped.push(SkippedStep { step, why: error.to_string() });
                    collected.failed = Some(error);
                    // Those that are under way are dropped: a pass may end at any point.
                    break;
                }
            }
        }
    }
    collected.plan = plan;
    collected
}

struct Sweep<'a> {
    store: &'a dyn Removal,
    workload: &'a Workload,
    inventory: &'a Inventory,
    policy: &'a Policy,
    collector: &'a str,
    deadline: Instant,
}

impl Sweep<'_> {
    async fn take(&self, action: &Action) -> Result<(), Stop> {
        match action {
            Action::Withdraw(subject) | Action::Bury(subject) => self.lift(*subject).await,
            Action::Generation { lineage, number } => {
                let found = self.inventory.lineages.iter().find(|found| found.id == *lineage);
                let mut generations = found.into_iter().flat_map(|found| &found.generations);
                match generations.find(|generation| generation.number == *number) {
                    Some(found) => {
                        self.delete(&self.workload.generation(lineage, *number), &found.seen.version).await
                    }
                    None => Ok(()),
                }
            }
            Action::Lineage(id) => match self.inventory.lineages.iter().find(|found| found.id == *id) {
                Some(lineage) => self.lineage(lineage).await,
                None => Ok(()),
            },
            Action::Mark(subject) => {
                let mark = Tombstone::new(*subject, self.collector);
                mark.put(self.store, self.workload, Condition::IfAbsent, self.deadline).await?;
                Ok(())
            }
            Action::Remove(subject) => self.remove(*subject).await,
        }
    }

    /// Removes the tombstone that was looked at.
    async fn lift(&self, subject: Subject) -> Result<(), Stop> {
        match self.inventory.tombstones.get(&subject) {
            Some(standing) => self.delete(&subject.tombstone(self.workload), &standing.version).await,
            None => Ok(()),
        }
    }

    /// Removes an object whose tombstone has stood long enough.
    async fn remove(&self, subject: Subject) -> Result<(), Stop> {
        let (Some(standing), Some(object)) =
            (self.inventory.tombstones.get(&subject), self.inventory.objects.get(&subject))
        else {
            return Ok(());
        };
        // One of another format may mean something else; it is not written over.
        match Tombstone::read(self.store, self.workload, subject, self.deadline).await? {
            Some((_, version)) if version == standing.version => {}
            _ => return Err(Stop::Skip("its tombstone was changed by another collector".to_owned())),
        }
        let began = Moment::now();
        // Nobody else can have this version: from here on the removal is ours, and the burial begins anew.
        let again = Tombstone::new(subject, self.collector);
        let unchanged = Condition::IfMatch(standing.version.clone());
        again.put(self.store, self.workload, unchanged, self.deadline).await?;
        let deadline = self.deadline.min(Instant::now() + GOOD_FOR);
        if began.elapsed() >= GOOD_FOR {
            return Err(Stop::Skip("this process stood still for minutes".to_owned()));
        }
        retry::delete(self.store, &subject.key(self.workload), &object.version, deadline).await?;
        Ok(())
    }

    /// Removes a lineage: what was announced, then nobody can claim it, then the oldest generations first.
    async fn lineage(&self, lineage: &FoundLineage) -> Result<(), Stop> {
        let id = &lineage.id;
        if let Some((seen, _)) = &lineage.intent {
            // One that was written since says that a checkpoint is coming.
            self.delete(&self.workload.intent(id), &seen.version).await?;
        }
        let claim = self.claim(lineage).await?;
        for generation in lineage.generations.iter().rev() {
            let key = self.workload.generation(id, generation.number);
            self.delete(&key, &generation.seen.version).await?;
        }
        // What was committed meanwhile stays, and can be claimed again.
        self.delete(&self.workload.claim(id), &claim).await
    }

    /// Claims a lineage as a restore would, so that no restore begins. Returns the version of the claim.
    async fn claim(&self, lineage: &FoundLineage) -> Result<Version, Stop> {
        let (condition, found) = match &lineage.claim {
            None => (Condition::IfAbsent, None),
            Some((seen, Ok(found))) => {
                // The version that was read, not the one that was listed.
                let version = found.version.clone().unwrap_or_else(|| seen.version.clone());
                (Condition::IfMatch(version), Some(&found.claim))
            }
            Some((seen, Err(_))) => (Condition::IfMatch(seen.version.clone()), None),
        };
        let epoch = found.map_or(0, |claim| claim.epoch);
        let newest = lineage.generations.first().map_or(0, |generation| generation.number.epoch);
        let claim = Claim {
            format: claim::FORMAT,
            lineage: lineage.id.clone(),
            holder: plan::holder(self.collector),
            epoch: epoch.max(newest).saturating_add(1),
            lease_ms: u64::try_from(self.policy.grace.as_millis()).unwrap_or(u64::MAX),
            nonce: hash::nonce(),
            // What was handed over once stays so if this collector dies: nobody may restore what it leaves.
            state: found.map_or(ClaimState::Restoring, |claim| claim.state),
        };
        let body = document::encode(claim::KIND, claim::BYTES_MAX, &claim).map_err(ReadError::from)?;
        let key = self.workload.claim(&lineage.id);
        Ok(retry::put(self.store, &key, body, condition, self.deadline).await?)
    }

    async fn delete(&self, key: &str, version: &Version) -> Result<(), Stop> {
        Ok(retry::delete(self.store, key, version, self.deadline).await?)
    }
}
