//! Every kind of fault there is: `--list-faults` prints this table, parsing is checked against it, and a
//! test drills each line.

use evacuation::effect::Action;

/// One kind of fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name: for messages and tests.
    pub name: &'static str,
    /// Left of `=`.
    pub target: &'static str,
    /// Right of `=`.
    pub outcome: &'static str,
    /// A text of this kind.
    pub example: &'static str,
    /// What happens.
    pub what: &'static str,
    /// Which guarantee (docs/guarantees.md) it tries, and how.
    pub tries: &'static str,
    /// What may stand after the target's colon.
    pub object: Object,
    /// What must stand after the outcome's colon.
    pub argument: Argument,
    /// `*n` and `#n` are understood.
    pub counted: bool,
    /// What `@` means.
    pub when: When,
    /// `+duration` is understood.
    pub lasting: bool,
    /// Seconds it lasts where neither a duration nor a count says so; `None` for ever.
    pub default_lasts: Option<u64>,
}

/// What may stand after the target's colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// Nothing.
    None,
    /// A pod of the cast.
    Pod,
}

/// What must stand after the outcome's colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Argument {
    /// Nothing.
    None,
    /// A duration.
    Span,
    /// Bytes per second.
    Rate,
}

impl Argument {
    /// For a message.
    pub const fn in_words(self) -> &'static str {
        match self {
            Argument::None => "nothing",
            Argument::Span => "a duration, as in :10s",
            Argument::Rate => "a rate, as in :2MiB/s",
        }
    }
}

/// What `@` means for a kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// It is not understood.
    Never,
    /// Time after the notice; with the notice if it is missing.
    Time,
    /// Time after the notice; it must be given.
    NeedsTime,
    /// A time or a step of the journal.
    TimeOrStep,
    /// A time or a step; one must be given.
    NeedsTimeOrStep,
}

/// The steps at which an agent can be killed: the core's actions.
pub const STEPS: &[&str] = &Action::NAMES;

const PLAIN: Entry = Entry {
    name: "",
    target: "",
    outcome: "",
    example: "",
    what: "",
    tries: "",
    object: Object::None,
    argument: Argument::None,
    counted: false,
    when: When::Never,
    lasting: false,
    default_lasts: None,
};

/// A fault that lasts for some time, five seconds unless it says otherwise.
const SPELL: Entry =
    Entry { counted: true, when: When::Time, lasting: true, default_lasts: Some(5), ..PLAIN };

/// A fault of the store: its time and count go to the agents' stores.
const STORE: Entry =
    Entry { target: "store", counted: true, when: When::Time, lasting: true, default_lasts: None, ..PLAIN };

/// A fault of one pod's engine.
const ENGINE: Entry =
    Entry { target: "engine", object: Object::Pod, when: When::Time, lasting: true, ..PLAIN };

/// The table.
pub const CATALOGUE: &[Entry] = &[
    Entry {
        name: "notice-late",
        target: "notice",
        outcome: "late",
        example: "notice=late:10s",
        what: "only so much time is left when the notice appears",
        tries: "4: by the deadline everything is gone, let go or abandoned with a reason",
        argument: Argument::Span,
        ..PLAIN
    },
    Entry {
        name: "notice-repeated",
        target: "notice",
        outcome: "repeated",
        example: "notice=repeated",
        what: "every poll shows a new body with a later time, as amazon-ec2-metadata-mock does by default",
        tries: "7: one evacuation with one deadline, the first",
        ..PLAIN
    },
    Entry {
        name: "notice-withdrawn",
        target: "notice",
        outcome: "withdrawn",
        example: "notice=withdrawn@5s",
        what: "the notice is gone again (404)",
        tries: "1: what has begun ends well, nothing more begins, and the node is uncordoned only after a while",
        when: When::NeedsTime,
        ..PLAIN
    },
    Entry {
        name: "kind-stop",
        target: "kind",
        outcome: "stop",
        example: "kind=stop",
        what: "the instance stops, and boots again after the evacuation under another boot id",
        tries: "1: the cordon, the taint and the annotation are taken back after the boot, not before",
        ..PLAIN
    },
    Entry {
        name: "kind-hibernate",
        target: "kind",
        outcome: "hibernate",
        example: "kind=hibernate",
        what: "the instance hibernates: there are no two minutes",
        tries: "2: nothing is evicted, what is flushed is committed",
        ..PLAIN
    },
    Entry {
        name: "kind-terminate",
        target: "kind",
        outcome: "terminate",
        example: "kind=terminate",
        what: "the instance is terminated: the default, spelt out",
        tries: "4: the whole evacuation",
        ..PLAIN
    },
    Entry {
        name: "rebalance-first",
        target: "rebalance",
        outcome: "first",
        example: "rebalance=first:3s",
        what: "a rebalance recommendation comes so long before the notice",
        tries: "10: what was copied early is not sent again, and the notice finds the node already softly tainted",
        argument: Argument::Span,
        ..PLAIN
    },
    Entry {
        name: "rebalance-only",
        target: "rebalance",
        outcome: "only",
        example: "rebalance=only",
        what: "a rebalance recommendation comes and no notice ever follows",
        tries: "9: nothing is evicted, and no trace is left after its time",
        ..PLAIN
    },
    Entry {
        name: "imds-down",
        target: "imds",
        outcome: "down",
        example: "imds=down@0s+5s",
        what: "IMDS refuses connections",
        tries: "8: the poll goes on, and the evacuation does not need IMDS once the notice was seen",
        ..SPELL
    },
    Entry {
        name: "imds-503",
        target: "imds",
        outcome: "503",
        example: "imds=503@0s+5s",
        what: "IMDS answers 503 to everything",
        tries: "8: an error is not a withdrawn notice",
        ..SPELL
    },
    Entry {
        name: "imds-garbage",
        target: "imds",
        outcome: "garbage",
        example: "imds=garbage@0s+5s",
        what: "IMDS answers 200 with bytes that are no JSON",
        tries: "8: nonsense neither crashes the agent nor starts or ends an evacuation",
        ..SPELL
    },
    Entry {
        name: "imds-hang",
        target: "imds",
        outcome: "hang",
        example: "imds=hang@0s+5s",
        what: "IMDS accepts the request and never answers",
        tries: "8: a poll is bounded",
        ..SPELL
    },
    Entry {
        name: "imds-401",
        target: "imds",
        outcome: "401",
        example: "imds=401*2",
        what: "the token is no longer valid",
        tries: "8: a new token is fetched and the notice is seen",
        ..SPELL
    },
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
        name: "pdb-stuck",
        target: "pdb",
        outcome: "stuck",
        example: "pdb=stuck",
        what: "web's PodDisruptionBudget refuses every eviction (for +duration: so long)",
        tries: "3 and 4: nobody waits for web, and web is let go at the last safe second",
        lasting: true,
        ..PLAIN
    },
    Entry {
        name: "store-slow",
        outcome: "slow",
        example: "store=slow:2MiB/s",
        what: "the store carries no more than this",
        tries: "10 and 4: the most important state goes first, and the deadline holds",
        argument: Argument::Rate,
        ..STORE
    },
    Entry {
        name: "store-503",
        outcome: "503",
        example: "store=503*5",
        what: "the store answers 503 to writes (S3's SlowDown)",
        tries: "4: writes are tried again",
        ..STORE
    },
    Entry {
        name: "store-torn",
        outcome: "torn",
        example: "store=torn#1",
        what: "a pack is written only in part, and the store reports success",
        tries: "5 and 6: what does not verify is not restored",
        ..STORE
    },
    Entry {
        name: "store-lost",
        outcome: "lost",
        example: "store=lost#2",
        what: "a write is done and its answer is lost",
        tries: "5: a repeated write is no second version",
        ..STORE
    },
    Entry {
        name: "store-gone",
        outcome: "gone",
        example: "store=gone@1s+6s",
        what: "the store cannot be reached (for +duration, or for ever)",
        tries: "4: pods still leave in time, and the report is in the journal",
        ..STORE
    },
    Entry {
        name: "store-unconditional",
        outcome: "unconditional",
        example: "store=unconditional",
        what: "the store accepts conditional writes and ignores the conditions, as several S3-compatible stores do",
        tries: "6: claims are Kubernetes Leases then, and each state is restored once",
        counted: false,
        when: When::Never,
        lasting: false,
        ..STORE
    },
    Entry {
        name: "agent-kill",
        target: "agent",
        outcome: "kill",
        example: "agent=kill@step:commit",
        what: "the leaving node's agent gets SIGKILL; the kubelet starts it again after 0.5 s",
        tries: "7: it goes on with the original deadline and loses no committed work",
        when: When::NeedsTimeOrStep,
        ..PLAIN
    },
    Entry {
        name: "agent-b-kill",
        target: "agent-b",
        outcome: "kill",
        example: "agent-b=kill@step:fetch",
        what: "the replacement node's agent gets SIGKILL; the kubelet starts it again after 0.5 s",
        tries: "6: restored once, by the agent that was started again",
        when: When::NeedsTimeOrStep,
        ..PLAIN
    },
    Entry {
        name: "engine-hang",
        outcome: "hang",
        example: "engine:gold=hang",
        what: "the pod's engine takes requests and never answers",
        tries: "3: only this pod's state is lost, and it leaves in time",
        ..ENGINE
    },
    Entry {
        name: "engine-lies",
        outcome: "lies",
        example: "engine:gold=lies",
        what: "the pod's engine reports files that it did not write",
        tries: "5: nothing is committed that is not there",
        ..ENGINE
    },
    Entry {
        name: "engine-html",
        outcome: "html",
        example: "engine:gold=html",
        what: "the pod's engine answers with a web page",
        tries: "8: it is an engine that cannot be spoken to, nothing worse",
        ..ENGINE
    },
    Entry {
        name: "engine-restarts",
        outcome: "restarts",
        example: "engine:gold=restarts@1s",
        what: "the pod's engine crashes and its container is started again, without its state",
        tries: "3: an empty engine does not overwrite what was saved, and nobody waits",
        object: Object::Pod,
        target: "engine",
        when: When::Time,
        ..PLAIN
    },
    Entry {
        name: "engine-other-weights",
        outcome: "other-weights",
        example: "engine:gold=other-weights",
        what: "the replacement runs other weights under the same name and arguments",
        tries: "6: the restore is refused by name",
        object: Object::Pod,
        target: "engine",
        ..PLAIN
    },
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
];

/// The table for programs: `--list-faults --output json`.
pub fn document() -> serde_json::Value {
    let line = |entry: &Entry| serde_json::json!({"name": entry.name, "example": entry.example, "what": entry.what, "tries": entry.tries});
    CATALOGUE.iter().map(line).collect()
}

/// The table as `--list-faults` prints it.
pub fn listing() -> String {
    let mut text = String::from(
        "Faults: --fault 'target[:object]=outcome[:argument][*times|#which][@when][+duration]', repeatable.\n\
         @when counts from the notice; @step:NAME is the first effect of that name in the agent's journal.\n",
    );
    for entry in CATALOGUE {
        text.push_str(&format!("\n  {}\n      {}\n      tries {}\n", entry.example, entry.what, entry.tries));
    }
    text
}
