//! The API server that refuses, stalls, forgets; budgets; a watch that is late and out of order; other people.

use super::{PLAIN, SPELL, not_drilled};
use crate::entry::{Argument, Entry, Object, When};

/// Requests.
pub const API: &[Entry] = &[
    Entry {
        name: "api-429",
        target: "api",
        outcome: "429",
        example: "api=429@1s+3s",
        what: "the API server throttles: 429 with Retry-After and no DisruptionBudget cause",
        tries: "3: saving goes on while the API server does not answer",
        ..SPELL
    },
    Entry {
        name: "api-503",
        target: "api",
        outcome: "503",
        example: "api=503@1s+3s",
        what: "the API server answers 503",
        tries: "3: saving goes on while the API server does not answer",
        ..SPELL
    },
    Entry {
        name: "api-stall",
        target: "api",
        outcome: "stall",
        example: "api=stall@1s+3s",
        what: "the API server takes requests and does not answer them",
        tries: "3: every call is bounded",
        ..SPELL
    },
    Entry {
        name: "api-conflict",
        target: "api",
        outcome: "conflict",
        example: "api=conflict*3",
        what: "somebody else changes the node just before our patch of it, and leaves a taint there",
        tries: "1: the cordon still comes first, and the other's taint survives",
        counted: true,
        ..PLAIN
    },
    Entry {
        name: "api-lost",
        target: "api",
        outcome: "lost",
        example: "api=lost*2@5s",
        what: "the API server does what it is asked, and its answer is lost",
        tries: "7: what is asked again is already done",
        counted: true,
        when: When::Time,
        unknown_to: not_drilled(
            "its API server has no half-answered requests; the store's are drilled: store=lost",
        ),
        ..PLAIN
    },
    Entry {
        name: "api-forbidden",
        target: "api",
        outcome: "forbidden",
        example: "api=forbidden+20s",
        what: "the agent may not change its node (403)",
        tries: "3: it evacuates without the cordon, and says so",
        when: When::Time,
        lasting: true,
        unknown_to: not_drilled("its API server authorises everything; the testbed's does not"),
        ..PLAIN
    },
    Entry {
        name: "pdb-stuck",
        target: "pdb",
        outcome: "stuck",
        example: "pdb=stuck",
        what: "web's PodDisruptionBudget refuses every eviction (for +duration: so long)",
        tries: "3 and 4: nobody waits for web, and web is deleted at the last safe second",
        object: Object::SimulatedPod,
        lasting: true,
        ..PLAIN
    },
    Entry {
        name: "pdb-two",
        target: "pdb",
        outcome: "two",
        example: "pdb:gold=two",
        what: "two PodDisruptionBudgets match the pod: every eviction of it is answered with 500",
        tries: "3 and 4: it is a refusal that never ends, and the pod is deleted at the last safe second",
        object: Object::Pod,
        unknown_to: not_drilled("its cast has one budget; the testbed's API server knows two"),
        ..PLAIN
    },
];

const ORDER: Option<(crate::Level, &str)> = not_drilled(
    "the drill's watch is one ordered stream, as etcd gives it; this is what relists and lag make of it",
);

/// What is shown of pods and node.
pub const WATCH: &[Entry] = &[
    Entry {
        name: "watch-lags",
        target: "watch",
        outcome: "lags",
        example: "watch=lags@5s+20s",
        what: "what the watch shows comes up to three seconds late",
        tries: "3: nothing waits for the watch",
        unknown_to: ORDER,
        ..SPELL
    },
    Entry {
        name: "watch-doubles",
        target: "watch",
        outcome: "doubles",
        example: "watch=doubles@5s+20s",
        what: "what the watch shows comes twice",
        tries: "8: it is the same as once",
        unknown_to: ORDER,
        ..SPELL
    },
    Entry {
        name: "watch-reorders",
        target: "watch",
        outcome: "reorders",
        example: "watch=reorders@5s+20s",
        what: "changes of different objects come in another order than they happened",
        tries: "8: each object's own order is all that counts",
        unknown_to: ORDER,
        ..SPELL
    },
    Entry {
        name: "watch-relists",
        target: "watch",
        outcome: "relists",
        example: "watch=relists@10s",
        what: "a relist shows an older state of every pod, and the newer one again a while later",
        tries: "2 and 4: nothing that is over begins anew, and nobody is forgotten",
        when: When::NeedsTime,
        unknown_to: ORDER,
        ..PLAIN
    },
];

/// Others on the same node.
pub const OTHERS: &[Entry] = &[
    Entry {
        name: "drainer-delete",
        target: "drainer",
        outcome: "delete",
        example: "drainer:gold=delete@1s",
        what: "another drainer (Karpenter, a rolling update) deletes the pod with its own grace",
        tries: "2: its state is saved within its own grace; nothing else is touched for it",
        object: Object::Pod,
        when: When::NeedsTime,
        ..PLAIN
    },
    Entry {
        name: "drainer-first",
        target: "drainer",
        outcome: "first",
        example: "drainer:gold=first:5s",
        what: "another drainer deleted the pod so long before the notice",
        tries: "2: its own grace is its deadline, and the notice does not begin it again",
        object: Object::Pod,
        argument: Argument::Span,
        unknown_to: not_drilled("its times begin with the notice; drainer=delete is the same without one"),
        ..PLAIN
    },
    Entry {
        name: "pod-finishes",
        target: "pod",
        outcome: "finishes",
        example: "pod:gold=finishes@5s",
        what: "the pod's containers end by themselves, for good",
        tries: "4: there is nothing to wait for",
        object: Object::Pod,
        when: When::NeedsTime,
        unknown_to: not_drilled("no pod of its cast finishes"),
        ..PLAIN
    },
    Entry {
        name: "node-uncordoned",
        target: "node",
        outcome: "uncordoned",
        example: "node=uncordoned@5s",
        what: "somebody makes the node schedulable again",
        tries: "1: it is cordoned again before anything else is evicted",
        when: When::NeedsTime,
        unknown_to: not_drilled("nobody of its cast does"),
        ..PLAIN
    },
    Entry {
        name: "node-boots",
        target: "node",
        outcome: "boots",
        example: "node=boots",
        what: "a stopped instance comes back with its pods, under another boot id",
        tries: "1 and 7: another boot is another life: the mark is taken back, and nothing of the old goes on",
        unknown_to: not_drilled("there it is a part of kind=stop"),
        ..PLAIN
    },
    Entry {
        name: "node-resumes",
        target: "node",
        outcome: "resumes",
        example: "node=resumes:300s@30s",
        what: "the instance is frozen for so long, and wakes in the same boot: its boot clock has gone on, its timers have not",
        tries: "7 and 9: what led to it is over, and nothing is done by deadlines that passed meanwhile",
        argument: Argument::Span,
        when: When::NeedsTime,
        unknown_to: not_drilled("no clock of its machine can be set"),
        ..PLAIN
    },
];
