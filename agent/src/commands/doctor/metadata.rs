//! Instance metadata, from where the notices come.

use super::finding::Finding;
use crate::imds::{FaultKind, Imds, ImdsEvent, LifeCycle};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const CHECK: &str = "imds";
/// For the first poll, with its token.
const PATIENCE: Duration = Duration::from_secs(6);

/// What the first poll came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Polled {
    life_cycle: Option<LifeCycle>,
    /// `None`: nothing was told in time.
    answered: Option<Result<(), String>>,
    faults: Vec<FaultKind>,
}

/// Asks the metadata service as the agent does.
pub async fn check(endpoint: &str) -> Vec<Finding> {
    let imds = match Imds::new(endpoint, Duration::from_secs(1)) {
        Ok(imds) => imds,
        Err(error) => {
            return vec![Finding::failure(CHECK, error.to_string()).mend("correct --imds-endpoint")];
        }
    };
    let (faults, cancel) = (imds.faults(), CancellationToken::new());
    let (out, mut events) = mpsc::channel(64);
    let mut polled = Polled::default();
    let listen = async {
        while let Some(event) = events.recv().await {
            match event {
                ImdsEvent::LifeCycle(life_cycle) => polled.life_cycle = Some(life_cycle),
                ImdsEvent::Reachable(true, _) => polled.answered = Some(Ok(())),
                ImdsEvent::Reachable(false, why) => polled.answered = Some(Err(why)),
                ImdsEvent::Notice(_) | ImdsEvent::Withdrawn { .. } => {}
            }
            if polled.answered.is_some() {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(PATIENCE, async {
        tokio::select! {
            () = imds.watch(out, cancel.clone()) => {}
            () = listen => {}
        }
    })
    .await;
    polled.faults = faults.counts().filter(|(_, count)| *count > 0).map(|(kind, _)| kind).collect();
    vec![judge(endpoint, &polled)]
}

fn judge(endpoint: &str, polled: &Polled) -> Finding {
    match (&polled.answered, &polled.life_cycle) {
        (Some(Ok(())), Some(LifeCycle::Spot)) => {
            Finding::ok(CHECK, format!("{endpoint} answers with IMDSv2: a Spot instance"))
        }
        (Some(Ok(())), Some(other)) => Finding::note(
            CHECK,
            format!("{endpoint} answers: the instance is {other}, not Spot"),
        )
        .because(
            "there is no two-minute notice here; scheduled maintenance, restores and holds work all the same",
        ),
        (Some(Err(why)), _) => unreachable(endpoint, why, &polled.faults),
        (Some(Ok(())), None) | (None, _) => unreachable(endpoint, "no answer in time", &polled.faults),
    }
}

fn unreachable(endpoint: &str, why: &str, faults: &[FaultKind]) -> Finding {
    let has = |kind| faults.contains(&kind);
    let fix = if has(FaultKind::Timeout) {
        "a hop limit of 1 has this effect in a pod: set metadataOptions.httpPutResponseHopLimit: 2 in Karpenter's EC2NodeClass or \
         in the launch template, for this instance at once `aws ec2 modify-instance-metadata-options --instance-id ID \
         --http-put-response-hop-limit 2`; or run the agent with hostNetwork: true. If it is 2 already, look for a NetworkPolicy \
         or an iptables rule that keeps pods from 169.254.169.254"
    } else if has(FaultKind::Refused) {
        "nobody listens there: correct --imds-endpoint (LIFEBOAT_IMDS_ENDPOINT), or this is no EC2 instance"
    } else if has(FaultKind::Forbidden) {
        "enable it: `aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled`; a proxy for IMDS such as \
         kube2iam must let api/token and meta-data through"
    } else if has(FaultKind::Throttled) || has(FaultKind::ServerError) {
        "something on this node asks IMDS too often: find it, or poll less with --imds-poll 2s"
    } else {
        "look at what answers there: curl -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' ENDPOINT/latest/api/token"
    };
    Finding::failure(CHECK, format!("{endpoint} does not answer: {why}"))
        .because("without it no notice is ever seen: nothing on this node is saved when it is taken back")
        .mend(fix)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity;
    use super::*;

    fn polled(
        life_cycle: Option<LifeCycle>,
        answered: Option<Result<(), &str>>,
        faults: &[FaultKind],
    ) -> Finding {
        let answered = answered.map(|answered| answered.map_err(str::to_owned));
        judge("http://imds", &Polled { life_cycle, answered, faults: faults.to_vec() })
    }

    #[test]
    fn a_token_that_never_comes_is_the_hop_limit() {
        let found = polled(None, Some(Err("api/token: no answer within 1000 ms")), &[FaultKind::Timeout]);
        assert_eq!(found.severity, Severity::Failure);
        assert!(found.fix.contains("httpPutResponseHopLimit: 2"), "{found:?}");
    }

    #[test]
    fn each_way_of_failing_has_its_own_remedy() {
        for (kind, word) in [
            (FaultKind::Refused, "--imds-endpoint"),
            (FaultKind::Forbidden, "--http-endpoint enabled"),
            (FaultKind::Throttled, "--imds-poll"),
            (FaultKind::Garbage, "curl"),
        ] {
            let found = polled(None, Some(Err("no")), &[kind]);
            assert_eq!(found.severity, Severity::Failure, "{kind:?}");
            assert!(found.fix.contains(word), "{kind:?}: {}", found.fix);
        }
        assert_eq!(polled(None, None, &[]).severity, Severity::Failure, "silence is no answer");
    }

    #[test]
    fn spot_is_as_it_should_be_and_on_demand_is_worth_knowing() {
        assert_eq!(polled(Some(LifeCycle::Spot), Some(Ok(())), &[]).severity, Severity::Ok);
        assert_eq!(polled(Some(LifeCycle::OnDemand), Some(Ok(())), &[]).severity, Severity::Note);
    }

    #[tokio::test]
    async fn where_nobody_listens_it_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let found = check(&endpoint).await;
        assert_eq!(found[0].severity, Severity::Failure);
        assert!(found[0].fix.contains("nobody listens"), "{found:?}");
    }
}
