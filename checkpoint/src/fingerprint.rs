//! Whether a saved state belongs to the engine that is here now.
//!
//! No engine notices other weights at the same path, so names are not evidence: a [`Probe`] is a fixed prompt at
//! temperature 0 whose tokens and log-probabilities are kept beside the state and asked for again before it is handed
//! over.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{bounded, hash::ContentHash};

/// The largest difference of a log-probability that still counts as the same weights: the same model on another
/// GPU or batch differs by rounding, other weights differ by whole units.
pub const LOGPROB_TOLERANCE: f64 = 0.05;

/// The fact that is evidence of the weights by itself (a digest of them).
const WEIGHTS: &str = "weights";

/// What must be equal before a state is handed to an engine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// Image digests and what the engine reports (build, model, KV type and shape), by name.
    #[serde(deserialize_with = "bounded::map::<_, 256>")]
    pub facts: BTreeMap<String, String>,
    /// Evidence of the weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<Probe>,
    /// The user's word that states with the same key fit each other, where no evidence can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compat_key: Option<String>,
}

/// The answer to a fixed short prompt at temperature 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The prompt, word for word.
    pub prompt: String,
    /// The generated token ids.
    #[serde(deserialize_with = "bounded::list::<_, _, 4096>")]
    pub tokens: Vec<i64>,
    /// Per generated token, the most likely candidates: token id and natural log-probability.
    #[serde(deserialize_with = "bounded::list::<_, _, 4096>")]
    pub top_logprobs: Vec<Candidates>,
}

/// The candidates at one position: token id and natural log-probability.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Candidates(#[serde(deserialize_with = "bounded::list::<_, _, 256>")] pub Vec<(i64, f64)>);

/// Why a state does not belong here.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Mismatch {
    /// A fact differs or is missing on one side.
    #[error("{fact} differs: it is {}, was {}", shown(.is.as_ref()), shown(.was.as_ref()))]
    Fact {
        /// Its name.
        fact: String,
        /// Here and now.
        is: Option<String>,
        /// When the state was saved.
        was: Option<String>,
    },
    /// The compatibility keys differ.
    #[error("the compat key differs: it is {is:?}, was {was:?}")]
    CompatKey {
        /// Here and now.
        is: String,
        /// When the state was saved.
        was: String,
    },
    /// Other weights answer here.
    #[error("the weights probe differs: {0}")]
    Weights(String),
    /// Nothing proves that the weights are the same.
    #[error(
        "there is no evidence that the weights are the same: no probe and no digest of them on both sides; \
         let the engine be probed, or vouch for it with the compat key"
    )]
    NoEvidence,
}

impl Fingerprint {
    /// Compares the fingerprint of a saved state (`self`) with the engine that is here (`live`).
    ///
    /// # Errors
    /// The first difference, by name.
    pub fn compare(&self, live: &Self) -> Result<(), Mismatch> {
        self.compare_within(live, LOGPROB_TOLERANCE)
    }

    /// [`Fingerprint::compare`] with another tolerance for log-probabilities (natural logarithm).
    ///
    /// # Errors
    /// The first difference, by name.
    pub fn compare_within(&self, live: &Self, tolerance: f64) -> Result<(), Mismatch> {
        for fact in self.facts.keys().chain(live.facts.keys()) {
            let (was, is) = (self.facts.get(fact), live.facts.get(fact));
            if was != is {
                return Err(Mismatch::Fact { fact: fact.clone(), is: is.cloned(), was: was.cloned() });
            }
        }
        let vouched = match (&self.compat_key, &live.compat_key) {
            (Some(was), Some(is)) if was != is => {
                return Err(Mismatch::CompatKey { is: is.clone(), was: was.clone() });
            }
            (Some(_), Some(_)) => true,
            _ => false,
        };
        match (&self.probe, &live.probe) {
            // A probe that contradicts is believed over any word.
            (Some(was), Some(is)) => was.compare(is, tolerance).map_err(Mismatch::Weights),
            _ if vouched || self.facts.contains_key(WEIGHTS) => Ok(()),
            _ => Err(Mismatch::NoEvidence),
        }
    }

    /// Something in it can show that another engine has the same weights, or its owner vouches for that.
    #[must_use]
    pub fn has_evidence(&self) -> bool {
        self.probe.is_some() || self.compat_key.is_some() || self.facts.contains_key(WEIGHTS)
    }

    /// A short name for this fingerprint, in hex. Log-probabilities are left out: they differ by rounding.
    #[must_use]
    pub fn digest(&self) -> String {
        // Lengths keep the parts apart, so that no two fingerprints run together into the same bytes.
        let mut hasher = blake3::Hasher::new();
        let mut part = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(&self.facts.len().to_string());
        for (name, value) in &self.facts {
            part(name);
            part(value);
        }
        part(self.compat_key.as_deref().map_or("", |_| "vouched"));
        part(self.compat_key.as_deref().unwrap_or_default());
        if let Some(probe) = &self.probe {
            part(&probe.prompt);
            part(&format!("{:?}", probe.tokens));
        }
        let digest = hasher.finalize().to_hex();
        digest.as_str().to_owned()
    }
}

impl Probe {
    /// Compares what was answered then (`self`) with what is answered now.
    fn compare(&self, live: &Self, tolerance: f64) -> Result<(), String> {
        if self.prompt != live.prompt {
            return Err("it was asked with another prompt".to_owned());
        }
        for (at, (was, is)) in self.tokens.iter().zip(&live.tokens).enumerate() {
            if was != is {
                return Err(format!("token {at} is {is}, was {was}"));
            }
        }
        if self.tokens.len() != live.tokens.len() {
            return Err(format!("{} tokens were answered, {} then", live.tokens.len(), self.tokens.len()));
        }
        if self.tokens.is_empty() {
            return Err("no token was answered".to_owned());
        }
        if self.top_logprobs.len() != live.top_logprobs.len() {
            return Err("log-probabilities are known on one side only".to_owned());
        }
        for (at, (was, is)) in self.top_logprobs.iter().zip(&live.top_logprobs).enumerate() {
            was.within(is, tolerance)
                .and_then(|()| is.within(was, tolerance))
                .map_err(|why| format!("at token {at}, {why} (tolerance {tolerance})"))?;
        }
        Ok(())
    }
}

impl Candidates {
    /// Whether each candidate here is about as likely there. One that is missing there may only have fallen off
    /// the end of the list, so it must be no likelier than the last one listed, within the tolerance.
    fn within(&self, other: &Self, tolerance: f64) -> Result<(), String> {
        let last = other.0.iter().map(|(_, logprob)| *logprob).fold(f64::INFINITY, f64::min);
        for (token, logprob) in &self.0 {
            let difference = match other.0.iter().find(|(candidate, _)| candidate == token) {
                Some((_, there)) => (logprob - there).abs(),
                None => logprob - last,
            };
            if difference.is_nan() || difference > tolerance {
                return Err(format!("the log-probability of {token} differs by {difference:.3}"));
            }
        }
        Ok(())
    }
}

impl From<Vec<(i64, f64)>> for Candidates {
    fn from(candidates: Vec<(i64, f64)>) -> Self {
        Self(candidates)
    }
}

/// The name of a content, for facts that are digests of something larger.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> String {
    ContentHash::of(bytes).to_string()
}

fn shown(value: Option<&String>) -> impl fmt::Display {
    value.map_or_else(
        || "absent".to_owned(),
        |value| format!("{:?}", value.chars().take(200).collect::<String>()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probed(tokens: &[i64], logprob: f64) -> Fingerprint {
        Fingerprint {
            facts: BTreeMap::from([("build".into(), "b1".into()), ("model".into(), "m".into())]),
            probe: Some(Probe {
                prompt: "the sea".into(),
                tokens: tokens.to_vec(),
                top_logprobs: vec![Candidates(vec![(tokens[0], logprob), (7, -3.0)])],
            }),
            compat_key: None,
        }
    }

    #[test]
    fn the_same_engine_fits_within_the_rounding_of_another_gpu() {
        probed(&[301, 2], -0.5).compare(&probed(&[301, 2], -0.54)).unwrap();
    }

    #[test]
    fn other_weights_are_refused_by_name() {
        let error = probed(&[301, 2], -0.5).compare(&probed(&[17, 2], -0.5)).unwrap_err();
        assert_eq!(error.to_string(), "the weights probe differs: token 0 is 17, was 301");
        let error = probed(&[301, 2], -0.5).compare(&probed(&[301, 2], -0.9)).unwrap_err();
        assert!(error.to_string().contains("log-probability of 301"), "{error}");
        probed(&[301], -0.5).compare(&probed(&[301], f64::NAN)).unwrap_err();
        probed(&[301], f64::NAN).compare(&probed(&[301], -0.5)).unwrap_err();
    }

    #[test]
    fn a_candidate_may_fall_off_the_end_of_the_list_but_not_off_its_top() {
        let with = |candidates: &[(i64, f64)]| {
            let mut fingerprint = probed(&[1], 0.0);
            fingerprint.probe.as_mut().unwrap().top_logprobs = vec![candidates.to_vec().into()];
            fingerprint
        };
        with(&[(1, -0.1), (2, -3.00)]).compare(&with(&[(1, -0.1), (3, -2.99)])).unwrap();
        with(&[(1, -0.1), (2, -0.5)]).compare(&with(&[(1, -0.1), (3, -4.0)])).unwrap_err();
    }

    #[test]
    fn a_fact_that_differs_or_is_missing_is_named() {
        let mut live = probed(&[1], -0.5);
        live.facts.insert("build".into(), "b2".into());
        let error = probed(&[1], -0.5).compare(&live).unwrap_err().to_string();
        assert_eq!(error, r#"build differs: it is "b2", was "b1""#);
        live.facts.remove("build");
        assert!(probed(&[1], -0.5).compare(&live).unwrap_err().to_string().contains("absent"));
        assert!(live.compare(&probed(&[1], -0.5)).is_err());
    }

    #[test]
    fn without_evidence_nothing_is_restored_unless_a_user_vouches() {
        let mut bare = probed(&[1], 0.0);
        bare.probe = None;
        assert_eq!(bare.compare(&bare), Err(Mismatch::NoEvidence));
        assert_eq!(bare.compare(&probed(&[1], 0.0)), Err(Mismatch::NoEvidence));
        let mut vouched = bare.clone();
        vouched.compat_key = Some("v1".into());
        vouched.compare(&vouched).unwrap();
        assert_eq!(vouched.compare(&bare), Err(Mismatch::NoEvidence));
        let mut other = vouched.clone();
        other.compat_key = Some("v2".into());
        assert!(matches!(vouched.compare(&other), Err(Mismatch::CompatKey { .. })));
        bare.facts.insert("weights".into(), "blake3:1".into());
        bare.compare(&bare).unwrap();
    }

    #[test]
    fn a_vouching_user_is_contradicted_by_a_probe() {
        let mut was = probed(&[1], 0.0);
        was.compat_key = Some("v1".into());
        let mut is = probed(&[2], 0.0);
        is.compat_key = Some("v1".into());
        assert!(matches!(was.compare(&is), Err(Mismatch::Weights(_))));
    }

    #[test]
    fn the_digest_tells_fingerprints_apart_but_not_their_rounding() {
        assert_eq!(probed(&[1], -0.5).digest(), probed(&[1], -0.51).digest());
        assert_ne!(probed(&[1], -0.5).digest(), probed(&[2], -0.5).digest());
        let mut other = probed(&[1], -0.5);
        other.facts.insert("model".into(), "n".into());
        assert_ne!(probed(&[1], -0.5).digest(), other.digest());
    }
}
