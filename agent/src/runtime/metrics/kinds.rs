//! What the roles of the binary tell apart, and metrics count apart.

use serde::{Deserialize, Serialize};

/// A way in which IMDS fails to answer: the label of its counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum FaultKind {
    /// Nobody listens there.
    Refused,
    /// No answer in time. With a hop limit of 1 the token's answer never reaches a pod.
    Timeout,
    /// The connection broke.
    Broken,
    /// A fresh token was refused, too.
    Unauthorized,
    /// IMDS is switched off, or not for us.
    Forbidden,
    /// 429: too many requests.
    Throttled,
    /// 5xx.
    ServerError,
    /// An answer that IMDS does not give.
    Garbage,
}

impl FaultKind {
    /// Every kind, in the order of the counters.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// A metric label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How a Spot node went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Went {
    /// A report tells of it.
    WithReport,
    /// Its agent had seen a notice, and no report is in the store.
    WithoutReport,
    /// Nothing was ever said.
    WithoutNotice,
}

impl Went {
    /// Every way, for coverage.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// A metric's label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// How an evacuation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum End {
    /// Everything that was to happen had, by the deadline.
    Complete,
    /// It had, and the last of it came after the deadline.
    Late,
    /// It had not.
    Incomplete,
    /// The notice was withdrawn.
    Withdrawn,
}

impl End {
    /// Every end, for coverage.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// A metric's label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
