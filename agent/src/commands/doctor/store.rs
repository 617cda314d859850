//! The store: configured, reachable, writable, decides conditional writes, encrypted, and on time.

use super::control_plane::judge_clock;
use super::finding::Finding;
use crate::commands::doctor::cluster_reads::ahead;
use crate::runtime::config::Config;
use checkpoint::preflight::{self, Conditions, PreflightError};
use checkpoint::store::s3::Encryption;
use checkpoint::store::{self, Store};
use jiff::Timestamp;
use std::time::Duration;
use tokio::time::{Instant, timeout};

const CHECK: &str = "store";
/// For the proof, as the agent has.
const PREFLIGHT: Duration = Duration::from_secs(20);
/// For its clock.
const CLOCK: Duration = Duration::from_secs(8);

/// Proves the store from here, with the credentials that are here. It writes a dozen small objects below `preflight/`,
/// as each start of an agent does; a lifecycle rule removes them. Nothing is deleted: nodes have no right to.
pub async fn check(config: &Config, on_node: bool) -> Vec<Finding> {
    let Some(url) = &config.store else { return vec![none(on_node)] };
    let store = match store::open(url, config.store_options.clone()).await {
        Ok(store) => store,
        Err(error) => {
            return vec![
                Finding::failure(CHECK, error.to_string())
                    .because(NOTHING_SAVED)
                    .mend("correct --store (LIFEBOAT_STORE)"),
            ];
        }
    };
    let (proof, clock) = tokio::join!(preflight::prove(&store, Instant::now() + PREFLIGHT), clock(&store));
    let mut found = vec![judge(&store, &proof, config)];
    found.push(clock);
    found.extend(encryption(url, &config.store_options.encryption));
    if url.starts_with("s3://") && config.lifecycle.is_none() {
        found.push(
            Finding::note("store-lifecycle", "LIFEBOAT_STORE_LIFECYCLE is not set")
                .because("if the bucket has a lifecycle rule that expires objects, a save may build on packs that are about to go")
                .mend("set it to the age of the rule (docs/garbage.md), or leave it where there is no such rule"),
        );
    }
    found
}

const NOTHING_SAVED: &str = "no state is saved or restored: pods leave in order, and their state is lost";

fn none(on_node: bool) -> Finding {
    match on_node {
        true => Finding::warning(CHECK, "no store is configured")
            .because(NOTHING_SAVED)
            .mend("set LIFEBOAT_STORE=s3://bucket/prefix in the ConfigMap lifeboat of your overlay"),
        false => Finding::skipped(
            CHECK,
            "the store",
            "no --store here; the agents prove theirs: kubectl -n lifeboat-system exec ds/lifeboat -- lifeboat doctor",
        ),
    }
}

fn judge(store: &Store, proof: &Result<Conditions, PreflightError>, config: &Config) -> Finding {
    let at = store.describe();
    match proof {
        Ok(conditions) => match config.claims.decide(conditions, store.as_ref()) {
            Err(error) => Finding::failure(CHECK, error.to_string())
                .because("two nodes could restore one state, so with --claims store it is not used at all")
                .mend(
                    "set LIFEBOAT_CLAIMS=lease on every node, or use a store that decides conditional writes",
                ),
            Ok(decision) => {
                let claims = format!("{}: {}", decision.place.as_str(), decision.reason.in_words(conditions));
                match conditions {
                    Conditions::Decided => Finding::ok(CHECK, format!("{at} can be read, written and listed; claims are in the {claims}")),
                    Conditions::Ignored { how } => Finding::warning(CHECK, format!("{at} does not decide conditional writes: {how}"))
                        .because("claims are Kubernetes Leases then; agents that judge the store differently do not see each other's claims")
                        .mend("set LIFEBOAT_CLAIMS=lease on every node, or use a store that decides conditional writes"),
                }
            }
        },
        Err(error) => {
            let fix = match error {
                PreflightError::Denied { .. } => {
                    "give the role s3:GetObject, s3:PutObject on the prefix and s3:ListBucket on the bucket; with SSE-KMS also \
                     kms:GenerateDataKey and kms:Decrypt on its key (docs/install.md). Which role this is: aws sts get-caller-identity"
                }
                PreflightError::Unreachable { .. } => {
                    "look at the endpoint, DNS, the S3 gateway endpoint of the VPC, NetworkPolicies, and where credentials come from \
                     (Pod Identity agent, IRSA annotation)"
                }
                PreflightError::NoBucket { .. } => "create the bucket, or correct --store (LIFEBOAT_STORE)",
                PreflightError::WrongRegion { .. } => "set LIFEBOAT_STORE_REGION to the bucket's region",
                _ => "look at what answers there; docs/store.md has what a store must do",
            };
            Finding::failure(CHECK, error.to_string()).because(NOTHING_SAVED).mend(fix)
        }
    }
}

async fn clock(store: &Store) -> Finding {
    let before = Timestamp::now();
    match timeout(CLOCK, store.now()).await {
        Ok(Ok(date)) => {
            judge_clock(&format!("the store ({})", store.describe()), ahead(before, Timestamp::now(), date))
        }
        Ok(Err(error)) => Finding::skipped("clock", "the store's clock", error.to_string()),
        Err(_) => Finding::skipped(
            "clock",
            "the store's clock",
            format!("it did not answer within {} s", CLOCK.as_secs()),
        ),
    }
}

fn encryption(url: &str, encryption: &Encryption) -> Option<Finding> {
    const CHECK: &str = "store-encryption";
    if !url.starts_with("s3://") {
        return Some(
            Finding::note(CHECK, "a folder is not encrypted by lifeboat")
                .because("whoever reads the folder reads conversations")
                .mend("keep it on an encrypted file system, or use s3://"),
        );
    }
    Some(match encryption {
        Encryption::Kms(key) => Finding::ok(
            CHECK,
            format!(
                "each object asks for SSE-KMS with {key}; what was written just now was accepted or is a failure above"
            ),
        ),
        Encryption::Aes256 => Finding::ok(CHECK, "each object asks for SSE-S3 (AES256)"),
        Encryption::BucketDefault => Finding::ok(
            CHECK,
            "the bucket's own default decides; S3 encrypts everything since 2023 (a key of yours: LIFEBOAT_STORE_ENCRYPTION=kms:KEY)",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        run: crate::runtime::config::RunArgs,
    }

    fn config(args: &[&str]) -> Config {
        Cli::try_parse_from(["lifeboat", "--node-name=a"].iter().chain(args)).unwrap().run.validate().unwrap()
    }

    async fn checked(args: &[&str]) -> Vec<Finding> {
        check(&config(args), true).await
    }

    fn of<'f>(found: &'f [Finding], check: &str) -> &'f Finding {
        found.iter().find(|finding| finding.check == check).unwrap()
    }

    #[tokio::test]
    async fn a_sound_store_is_proven_and_its_clock_compared() {
        let folder = tempfile::tempdir().unwrap();
        let found = checked(&[&format!("--store=dir:{}", folder.path().display())]).await;
        assert_eq!(of(&found, CHECK).severity, Severity::Ok, "{found:?}");
        assert_eq!(of(&found, "clock").severity, Severity::Ok, "{found:?}");
        assert_eq!(of(&found, "store-encryption").severity, Severity::Note, "{found:?}");
    }

    #[tokio::test]
    async fn a_store_without_conditions_is_a_warning_and_a_failure_where_claims_must_be_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("--store=dir:{}", folder.path().display());
        let fault = "--store-fault=put=unconditional";
        assert_eq!(of(&checked(&[&store, fault]).await, CHECK).severity, Severity::Warning);
        assert_eq!(of(&checked(&[&store, fault, "--claims=store"]).await, CHECK).severity, Severity::Failure);
    }

    #[tokio::test]
    async fn a_store_that_refuses_names_the_rights() {
        let folder = tempfile::tempdir().unwrap();
        let store = format!("--store=dir:{}", folder.path().display());
        let found = checked(&[&store, "--store-fault=put=denied"]).await;
        assert_eq!(of(&found, CHECK).severity, Severity::Failure);
        assert!(of(&found, CHECK).fix.contains("s3:PutObject"), "{found:?}");
    }

    #[tokio::test]
    async fn no_store_is_a_warning_on_a_node_and_skipped_elsewhere() {
        assert_eq!(of(&checked(&[]).await, CHECK).severity, Severity::Warning);
        assert_eq!(of(&check(&config(&[]), false).await, CHECK).severity, Severity::Skipped);
        let found = checked(&["--store=nonsense"]).await;
        assert!(
            of(&found, CHECK).severity == Severity::Failure && of(&found, CHECK).what.contains("s3://"),
            "{found:?}"
        );
    }
}
