//! Where claims are kept: the store if it decides conditional writes, else Kubernetes Leases.
//!
//! Every agent must come to the same place: two that look in different ones do not see each other's claims. A store
//! either ignores conditions for all or for none; one that only now and then lets two writers through may look sound
//! to one agent and not to another, and for that there is `--claims lease`.

use checkpoint::preflight::{Conditions, PreflightError};
use checkpoint::store::ObjectStore;
use clap::ValueEnum;

/// `--claims`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[derive(strum::IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ClaimsPolicy {
    /// In the store if it decides conditional writes, else in Leases
    #[default]
    Auto,
    /// In the store; one that ignores conditions is not used at all
    Store,
    /// In Kubernetes Leases, whatever the store does
    Lease,
}

/// Where claims are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum ClaimsPlace {
    /// Beside the checkpoints.
    Store,
    /// In the agent's namespace.
    Lease,
}

/// Why they are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[derive(strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// The store has proven that it decides conditions.
    Proven,
    /// The store ignores conditions.
    Ignored,
    /// `--claims` says so.
    Asked,
}

/// Where, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimsDecision {
    /// Where.
    pub place: ClaimsPlace,
    /// Why.
    pub reason: Reason,
}

impl ClaimsPolicy {
    /// As on the command line.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// What follows from what the preflight found.
    ///
    /// # Errors
    /// If claims are to be in a store that ignores conditions.
    pub fn decide(
        self,
        conditions: &Conditions,
        store: &dyn ObjectStore,
    ) -> Result<ClaimsDecision, PreflightError> {
        let (place, reason) = match (self, conditions) {
            (ClaimsPolicy::Auto, Conditions::Decided) => (ClaimsPlace::Store, Reason::Proven),
            (ClaimsPolicy::Auto, Conditions::Ignored { .. }) => (ClaimsPlace::Lease, Reason::Ignored),
            (ClaimsPolicy::Lease, _) => (ClaimsPlace::Lease, Reason::Asked),
            (ClaimsPolicy::Store, conditions) => {
                conditions.required(store)?;
                (ClaimsPlace::Store, Reason::Asked)
            }
        };
        Ok(ClaimsDecision { place, reason })
    }
}

impl ClaimsPlace {
    /// Every place.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// As a label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = <Self as strum::VariantArray>::VARIANTS;

    /// As a label.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// For people.
    pub fn in_words(self, conditions: &Conditions) -> String {
        match (self, conditions) {
            (Reason::Asked, Conditions::Ignored { how }) => {
                format!("--claims says so, and the store does not decide conditional writes: {how}")
            }
            (Reason::Asked, Conditions::Decided) => "--claims says so".to_owned(),
            (_, Conditions::Ignored { how }) => {
                format!("the store does not decide conditional writes: {how}")
            }
            (_, Conditions::Decided) => "the store decides conditional writes".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use checkpoint::store::directory::DirectoryStore;

    #[test]
    fn claims_leave_a_store_that_ignores_conditions_unless_they_are_to_stay() {
        let folder = tempfile::tempdir().unwrap();
        let store = DirectoryStore::open(folder.path()).unwrap();
        let decide = |policy: ClaimsPolicy, conditions: &Conditions| {
            policy
                .decide(conditions, &store)
                .map(|decision| (decision.place.as_str(), decision.reason.as_str()))
        };
        let ignored = Conditions::Ignored { how: "it wrote twice".into() };
        assert_eq!(decide(ClaimsPolicy::Auto, &Conditions::Decided), Ok(("store", "proven")));
        assert_eq!(decide(ClaimsPolicy::Auto, &ignored), Ok(("lease", "ignored")));
        assert_eq!(decide(ClaimsPolicy::Store, &Conditions::Decided), Ok(("store", "asked")));
        assert_eq!(decide(ClaimsPolicy::Lease, &Conditions::Decided), Ok(("lease", "asked")));
        assert_eq!(decide(ClaimsPolicy::Lease, &ignored), Ok(("lease", "asked")));
        let refused = decide(ClaimsPolicy::Store, &ignored).unwrap_err();
        assert_eq!(refused.category(), "ignores_conditions");
        assert!(refused.to_string().contains("it wrote twice"), "{refused}");
    }
}
