//! The values that labels have: closed sets, each an `enum` wherever the code that counts has one.

use crate::runtime::claims::{ClaimsPlace, Reason};
use crate::runtime::metrics::kinds::{End, FaultKind, Went};
use engines::EngineKind;
use evacuation::effect::{Action, RestoreOutcome};
use evacuation::event::{Event, FailureKind, Outcome};
use evacuation::notice::NoticeKind;
use evacuation::report::{DepartureOutcome, StateOutcome};

/// A type whose values are those of a label.
pub(crate) trait LabelValue: Clone {
    /// All of them, but for `other`; none at all: it takes any.
    fn every() -> Vec<Self>;

    /// As Prometheus shows it.
    fn text(&self) -> &str;
}

/// Of types that know their values and their texts.
macro_rules! label_values {
    ($($type:ty),+) => {$(
        impl LabelValue for $type {
            fn every() -> Vec<Self> {
                Self::ALL.to_vec()
            }

            fn text(&self) -> &str {
                <$type>::as_str(*self)
            }
        }
    )+};
}

/// Of what only metrics tell apart.
macro_rules! only_labels {
    ($($(#[$doc:meta])* $type:ident { $($value:ident = $text:expr),+ })+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $type { $($value),+ }

        impl $type {
            const ALL: &[Self] = &[$(Self::$value),+];

            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$value => $text),+ }
            }
        }

        label_values!($type);
    )+};
}

label_values! {
    FaultKind, NoticeKind, FailureKind, DepartureOutcome, StateOutcome, RestoreOutcome, EngineKind, ClaimsPlace,
    Reason, End, Went
}

only_labels! {
    /// Whether everything that was to happen has.
    Completeness { Complete = "complete", Incomplete = "incomplete" }
    /// How a pass over the store ended.
    PassOutcome { Done = "done", Failed = "failed" }
    /// What the checkpoint was when its state was fetched.
    FetchedWhen { Announced = "announced", Committed = "committed" }
    /// How far tokens came.
    TokenStage { Saved = "saved", Restored = "restored", Verified = "verified", Found = "found" }
    /// What becomes of state that there is.
    StateFate { Safe = "safe", AtRisk = "at_risk", Unknown = "unknown" }
    /// Opted in, or not.
    PodKind { Stateful = "stateful", Stateless = "stateless" }
    /// What is asked of the API server, as RBAC names it.
    RequestVerb {
        Get = "get", List = "list", Watch = "watch", Create = "create", Update = "update", Patch = "patch",
        Delete = "delete"
    }
    /// What is watched.
    WatchedResource { Nodes = "nodes", Pods = "pods", Agents = "agents" }
    /// What a report was taken in as.
    AdoptedAs { Evacuation = "adopted", Drill = "drill", Unreadable = "unreadable" }
    /// State that is in the store.
    StoredState { Saved = "saved", Partial = "partial", SavedWithoutEvidence = "saved_without_evidence", Earlier = "earlier" }
    /// This build.
    BuildVersion { This = env!("CARGO_PKG_VERSION") }
}

impl Completeness {
    pub(super) const fn of(complete: bool) -> Self {
        if complete { Self::Complete } else { Self::Incomplete }
    }
}

impl PassOutcome {
    pub(crate) const fn of(done: bool) -> Self {
        if done { Self::Done } else { Self::Failed }
    }
}

impl StoredState {
    pub(crate) const fn of(outcome: StateOutcome) -> Option<Self> {
        match outcome {
            StateOutcome::Saved => Some(Self::Saved),
            StateOutcome::Partial => Some(Self::Partial),
            StateOutcome::SavedWithoutEvidence => Some(Self::SavedWithoutEvidence),
            StateOutcome::Earlier => Some(Self::Earlier),
            StateOutcome::None | StateOutcome::Pending | StateOutcome::Lost => None,
        }
    }
}

/// Of text that is made from a closed set, and only here.
macro_rules! label_texts {
    ($($(#[$doc:meta])* $type:ident of $all:expr;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(&'static str);

        impl LabelValue for $type {
            fn every() -> Vec<Self> {
                $all.map(Self).collect()
            }

            fn text(&self) -> &str {
                self.0
            }
        }
    )+};
}

label_texts! {
    /// The name of an effect's action.
    ActionName of Action::names();
    /// The name of an event.
    EventName of Event::NAMES.iter().copied();
    /// How an effect ended.
    EffectOutcome of ["done"].into_iter().chain(FailureKind::ALL.iter().map(|kind| kind.as_str())).chain(["timed_out", "panicked"]);
    /// What the API server answered: an HTTP status, or that there was none.
    RequestCode of CODES.into_iter();
    /// The kind of a notice that was no rehearsal.
    AnnouncedKind of NoticeKind::ALL.into_iter().filter(|kind| *kind != NoticeKind::Drill).map(NoticeKind::as_str);
}

/// Of what the API server answers.
const CODES: [&str; 18] = [
    "200",
    "201",
    "400",
    "401",
    "403",
    "404",
    "405",
    "409",
    "410",
    "415",
    "422",
    "429",
    "500",
    "502",
    "503",
    "504",
    "timeout",
    "transport",
];

impl From<&Action> for ActionName {
    fn from(action: &Action) -> Self {
        Self(action.name())
    }
}

impl From<&Event> for EventName {
    fn from(event: &Event) -> Self {
        Self(event.name())
    }
}

impl From<&Outcome> for EffectOutcome {
    fn from(outcome: &Outcome) -> Self {
        Self(match outcome {
            Outcome::Done(_) => "done",
            Outcome::Failed { kind, .. } => kind.as_str(),
            Outcome::TimedOut => "timed_out",
            Outcome::Panicked => "panicked",
        })
    }
}

impl RequestCode {
    /// There was no answer in time.
    pub(crate) const TIMEOUT: Self = Self("timeout");
    /// There was no answer.
    pub(crate) const TRANSPORT: Self = Self("transport");

    /// Of an HTTP status.
    pub(crate) fn of(status: &str) -> Self {
        Self(CODES.into_iter().find(|known| *known == status).unwrap_or("other"))
    }
}

impl From<NoticeKind> for AnnouncedKind {
    fn from(kind: NoticeKind) -> Self {
        Self(if kind == NoticeKind::Drill { "other" } else { kind.as_str() })
    }
}

/// A label of any value.
impl LabelValue for String {
    fn every() -> Vec<Self> {
        Vec::new()
    }

    fn text(&self) -> &str {
        self
    }
}
