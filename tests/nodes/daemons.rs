//! Who does not leave as others do: DaemonSets, static pods, finished pods, pods without a controller.
//!
//! All of them are real: a real DaemonSet controller would bring a pod back within three seconds, were it not for the
//! taint; the static pod comes from a file in its kubelet's folder.

use crate::asked::{Window, deletions, entry, evictions, final_report, removed, seconds};
use crate::cast::{Template, describe, name, text};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;

/// From the notice to the end of the node.
const NOTICE: Duration = Duration::from_secs(45);

fn daemon_sets() -> Vec<Value> {
    let everything = |spec: &mut Value| spec["tolerations"] = json!([{"operator": "Exists"}]);
    vec![
        Template::plain("default").daemon_set(),
        Template::plain("early").annotated("lifeboat.dev/drain", "early").daemon_set(),
        Template::plain("late").annotated("lifeboat.dev/drain", "late").daemon_set(),
        // Late because of its name: a log shipper that says nothing.
        Template::plain("fluent-bit").daemon_set(),
        Template::plain("tolerant").annotated("lifeboat.dev/drain", "early").edit(everything).daemon_set(),
    ]
}

fn bare_pods() -> Vec<Value> {
    let finished = |spec: &mut Value| {
        spec["restartPolicy"] = "Never".into();
        spec["containers"][0]["command"] = json!(["/bin/true"]);
    };
    vec![
        Template::plain("finished").edit(finished).pod(),
        Template::plain("bare").pod(),
        Template::plain("bare-may-go").annotated("lifeboat.dev/drain", "true").pod(),
    ]
}

/// The pods of namespace default by their `app`, once all are running or finished.
async fn cast(bed: &Testbed) -> Result<Vec<Value>> {
    bed.until("all pods to run", Duration::from_secs(60), async |bed| {
        let pods = bed.list("/api/v1/namespaces/default/pods").await?;
        let is_there = |pod: &Value| match text(pod, "/metadata/labels/app") {
            "finished" => text(pod, "/status/phase") == "Succeeded",
            _ => testbed::bed::condition(pod, "Ready") == Some("True"),
        };
        if pods.len() == 9 && pods.iter().all(is_there) {
            return Ok(Some(pods));
        }
        bail!("{}", pods.iter().map(describe).collect::<Vec<_>>().join("; "))
    })
    .await
}

#[tokio::test]
async fn daemon_sets_leave_in_their_tiers_and_nobody_is_brought_back() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.install_agent().await?;
    bed.apply(&daemon_sets())?;
    bed.apply(&bare_pods())?;
    let mut manifest = Template::plain("static").pod();
    manifest["spec"]["volumes"] = json!([]);
    std::fs::write(bed.folder().node("node-a").join("static/static.json"), manifest.to_string())?;
    let pods = cast(&bed).await?;
    let pod = |app: &str| -> Result<&str> {
        let found = pods.iter().find(|pod| text(pod, "/metadata/labels/app") == app);
        found.map(name).with_context(|| format!("there is no pod of {app}"))
    };

    let notice = bed.metadata("node-a")?.interrupt(NOTICE).await?;
    let window = bed
        .until("the cordon", Duration::from_secs(10), async |bed| {
            Window::of(&bed.audit()?, "node-a", notice).map(Some)
        })
        .await?;
    let report = final_report(&bed, "node-a", window).await?;
    let audit = bed.audit()?;

    // Those that leave like any other pod: at once, and once.
    for app in ["early", "bare-may-go"] {
        let asked = evictions(&audit, pod(app)?);
        ensure!(asked.len() == 1 && asked[0].succeeded(), "{app} was evicted {} times", asked.len());
        let after = window.after(asked[0]);
        ensure!((0.0..8.0).contains(&after), "{app} was evicted {after:.1} s after the cordon");
    }
    // Those that leave late: in the last ten seconds (a quarter of a window below 40 s), and gone by the deadline.
    let last = f64::min(10.0, window.seconds() / 4.0);
    for app in ["late", "fluent-bit"] {
        let asked = evictions(&audit, pod(app)?);
        ensure!(asked.len() == 1 && asked[0].succeeded(), "{app} was evicted {} times", asked.len());
        let left = window.left(asked[0]);
        ensure!(
            (last - 5.0..last + 1.0).contains(&left),
            "{app} was evicted {left:.1} s before the deadline"
        );
    }
    for app in ["early", "late", "fluent-bit", "bare-may-go"] {
        let gone = removed(&audit, pod(app)?).with_context(|| format!("{app} was never gone"))?;
        ensure!(gone <= window.deadline, "{app} was gone {:.1} s too late", seconds(window.deadline, gone));
        ensure!(entry(&report, pod(app)?)?["departure"] == "gone", "{}", entry(&report, pod(app)?)?);
    }

    // Those that stay: nobody asked for their end, and the report says why.
    let stay = [
        ("default", "DaemonSet pod"),
        ("tolerant", "cannot leave: its DaemonSet tolerates every taint"),
        ("static", "static pod"),
        ("finished", "finished"),
        ("bare", "no controller would create it again"),
    ];
    for (app, why) in stay {
        let asked = evictions(&audit, pod(app)?).len() + deletions(&audit, pod(app)?).len();
        ensure!(asked == 0, "{app} was to stay, and was asked to go {asked} times");
        let told = entry(&report, pod(app)?)?;
        ensure!(told["departure"] == "stays" && text(told, "/reason").starts_with(why), "{app}: {told}");
        let there = bed.get(&format!("/api/v1/namespaces/default/pods/{}", pod(app)?)).await?;
        ensure!(there.is_some_and(|there| !crate::cast::leaves(&there)), "{app} is gone or leaves");
    }

    // Nobody was brought back, seconds after the deadline: the taint keeps their controller away.
    let made = audit.iter().filter(|entry| {
        entry.verb == "create"
            && entry.resource == "pods"
            && entry.subresource.is_empty()
            && entry.namespace == "default"
            && entry.user.ends_with(":daemon-set-controller")
    });
    let (before, again): (Vec<_>, Vec<_>) = made.partition(|entry| entry.at < window.cordon);
    ensure!(before.len() == 5, "the DaemonSet controller made {} pods at first", before.len());
    ensure!(again.is_empty(), "the DaemonSet controller made {} pods again", again.len());
    let now: Vec<Value> = bed.list("/api/v1/namespaces/default/pods").await?;
    ensure!(now.len() == 5, "{}", now.iter().map(describe).collect::<Vec<_>>().join("; "));
    Ok(())
}
