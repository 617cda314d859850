//! What could hold an evacuation up holds up nobody else.
//!
//! The disruption budgets, the pods that do not end and the kubelet that waits for them are real. The engine that hangs is
//! ours (tests/testbed/src/engine.rs) and takes connections without answering them, or writes at 1000 bytes per second: it
//! proves what the agent makes of that, not what makes a real engine do it. No replacement can go anywhere, so nothing
//! else loads the machine.

use crate::asked::{Window, deletions, entry, evictions, final_report, finished, removed, seconds};
use crate::cast::{Template, budget, name, priority_classes, ready, tell, text, uid};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::time::Duration;
use testbed::Testbed;
use testbed::audit::Entry;

/// From the notice to the end of the node.
const NOTICE: Duration = Duration::from_secs(45);
/// "At once", on a machine that others load too.
const PROMPT: f64 = 8.0;

/// A pod on node-a and nowhere else.
fn plain(app: &str, class: &str) -> Template {
    Template::plain(app).priority(class).on("node-a")
}

/// A pod that only SIGKILL ends, after this grace.
fn deaf(app: &str, class: &str, grace: u32) -> Template {
    plain(app, class).edit(|spec| {
        spec["terminationGracePeriodSeconds"] = grace.into();
        spec["containers"][0]["command"] =
            json!(["/bin/sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"]);
    })
}

/// Waits for the cordon.
async fn window(bed: &Testbed, notice: jiff::Timestamp) -> Result<Window> {
    bed.until("the cordon", Duration::from_secs(10), async |bed| {
        Window::of(&bed.audit()?, "node-a", notice).map(Some)
    })
    .await
}

/// The pod was evicted once, at once.
fn evicted_at_once<'a>(audit: &'a [Entry], pod: &Value, window: Window) -> Result<&'a Entry> {
    let asked = evictions(audit, name(pod));
    ensure!(asked.len() == 1 && asked[0].succeeded(), "{} was evicted {} times", name(pod), asked.len());
    let after = window.after(asked[0]);
    ensure!((0.0..PROMPT).contains(&after), "{} was evicted {after:.1} s after the cordon", name(pod));
    ensure!(asked[0].uid_precondition() == Some(uid(pod)), "{} was evicted whoever it is", name(pod));
    Ok(asked[0])
}

/// The API server refused it with this code again and again; at its cut-off it was deleted, with what was left.
fn refused_and_let_go(audit: &[Entry], pod: &Value, code: u64, window: Window) -> Result<()> {
    let asked = evictions(audit, name(pod));
    let cut_off = window.cut_off(30.0);
    ensure!(
        asked.iter().all(|entry| entry.code == code) && asked.len() as f64 > cut_off / 3.0,
        "{}: {:?}",
        name(pod),
        asked.iter().map(|entry| entry.code).collect::<Vec<_>>()
    );
    ensure!(window.after(asked[0]) < PROMPT, "{} was not tried at once", name(pod));
    let let_go = deletions(audit, name(pod));
    ensure!(let_go.len() == 1 && let_go[0].succeeded(), "{} was deleted {} times", name(pod), let_go.len());
    let let_go = let_go[0];
    let after = window.after(let_go);
    ensure!(
        (cut_off - 1.5..cut_off + 3.0).contains(&after),
        "{} was let go {after:.1} s after the cordon, its cut-off is at {cut_off:.1}",
        name(pod)
    );
    ensure!(let_go.uid_precondition() == Some(uid(pod)), "{} was let go whoever it is", name(pod));
    // Its own grace is 30 s: what is left is less.
    let (grace, left) = (let_go.grace().unwrap_or(0) as f64, window.left(let_go));
    ensure!((left - 2.0..left + 0.5).contains(&grace), "{} got {grace} s of {left:.1}", name(pod));
    let disrupted = |entry: &&Entry| {
        entry.by_agent()
            && entry.name == name(pod)
            && entry.subresource == "status"
            && entry.body.to_string().contains("DisruptionTarget")
    };
    let marked = audit.iter().find(disrupted).context("a Job would count it as a failure of its own")?;
    ensure!(marked.at < let_go.at, "{} was marked after it was deleted", name(pod));
    Ok(())
}

#[tokio::test]
async fn budgets_that_never_allow_deaf_pods_and_pods_that_leave_already_delay_nobody() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.install_agent().await?;
    bed.apply(&priority_classes())?;
    let innocents =
        [("shed", "batch", 2), ("gold", "gold", 3), ("silver", "silver", 4), ("bronze", "bronze", 4)];
    let mut objects: Vec<Value> =
        innocents.iter().map(|(app, class, count)| plain(app, class).deployment(*count)).collect();
    objects.extend([
        budget("never", "refused", 0),
        budget("one", "twice", 1),
        budget("two", "twice", 1),
        plain("refused", "gold").deployment(1),
        plain("twice", "gold").deployment(1),
        deaf("deaf", "gold", 300).deployment(1),
        deaf("leaving", "gold", 300).pod(),
    ]);
    bed.apply(&objects)?;
    let mut pods = Vec::new();
    for (app, _, count) in innocents {
        pods.push(ready(&bed, app, count as usize, None).await?);
    }
    let refused = ready(&bed, "refused", 1, None).await?.remove(0);
    let twice = ready(&bed, "twice", 1, None).await?.remove(0);
    let deaf = ready(&bed, "deaf", 1, None).await?.remove(0);
    let leaving = ready(&bed, "leaving", 1, None).await?.remove(0);
    bed.kubectl(&["delete", "pod", name(&leaving), "--wait=false"])?;

    let notice = bed.metadata("node-a")?.interrupt(NOTICE).await?;
    let window = window(&bed, notice).await?;
    let report = final_report(&bed, "node-a", window).await?;
    let audit = bed.audit()?;

    // Nobody waits: all are evicted in the first seconds, and gone before anyone's cut-off.
    let mut evicted = Vec::new();
    for tier in &pods {
        for pod in tier {
            evicted.push((text(pod, "/metadata/labels/app"), evicted_at_once(&audit, pod, window)?.at));
            let gone = removed(&audit, name(pod)).with_context(|| format!("{} was never gone", name(pod)))?;
            let after = seconds(window.cordon, gone);
            ensure!(after < window.cut_off(30.0) - 2.0, "{} was gone after {after:.1} s", name(pod));
            ensure!(entry(&report, name(pod))?["departure"] == "gone", "{}", entry(&report, name(pod))?);
        }
    }
    // Eight are asked at a time, in order; those behind come when one in front is answered. Requests that are under way
    // together may overtake one another on their way: a few may, all of them may not.
    evicted.sort_by_key(|(_, at)| *at);
    let order: Vec<&str> = evicted.iter().map(|(app, _)| *app).collect();
    let first = order.iter().enumerate().filter(|(_, app)| ["shed", "gold"].contains(*app));
    let overtaken = first.map(|(at, _)| order[..at].iter().filter(|app| **app == "bronze").count());
    ensure!(overtaken.sum::<usize>() <= 5, "of twenty pairs too many are the wrong way round: {order:?}");

    // The blocked ones, each in its own way, and each named.
    refused_and_let_go(&audit, &refused, 429, window)?;
    refused_and_let_go(&audit, &twice, 500, window)?;
    let eviction = evicted_at_once(&audit, &deaf, window)?;
    let (grace, left) = (eviction.grace().unwrap_or(0) as f64, window.left(eviction));
    ensure!((left - 2.0..left + 0.5).contains(&grace), "{} got {grace} s of {left:.1}", name(&deaf));
    let told = entry(&report, name(&deaf))?;
    ensure!(["leaving", "gone"].contains(&text(told, "/departure")), "{told}");
    // A termination that has begun cannot be hurried: nobody tries.
    let asked = evictions(&audit, name(&leaving)).len() + deletions(&audit, name(&leaving)).len();
    ensure!(asked == 0, "{} left already and was asked to go {asked} times", name(&leaving));
    let told = entry(&report, name(&leaving))?;
    ensure!(told["departure"] == "leaving", "{told}");
    for pod in [&refused, &twice] {
        let told = entry(&report, name(pod))?;
        ensure!(told["refusals"].as_u64() > Some(5), "{told}");
        ensure!(text(told, "/reason").contains("deleted"), "not told that it was let go: {told}");
    }
    Ok(())
}

#[tokio::test]
async fn engines_that_hang_or_crawl_delay_no_other_engine_s_save() -> Result<()> {
    let bed = Testbed::up(&["node-a"]).await?;
    bed.install_agent().await?;
    bed.apply(&priority_classes())?;
    let engine = |app: &str, class: &str| Template::engine(app, 1, 1 << 20).priority(class).on("node-a");
    // As many as may flush at once, all of them more important than the two that work: it would take them 17 minutes.
    let crawls = |spec: &mut Value| {
        let rate = json!({"name": "RATE", "value": "1000"});
        spec["containers"][0]["env"].as_array_mut().into_iter().for_each(|env| env.push(rate.clone()));
    };
    bed.apply(&[
        engine("hangs", "gold").deployment(1),
        engine("crawls", "gold").edit(crawls).deployment(4),
        engine("held", "silver").deployment(1),
        engine("not-held", "bronze").not_held().deployment(1),
    ])?;
    let mut blocked = ready(&bed, "hangs", 1, None).await?;
    tell(&blocked[0], "behaviour/hang").await?;
    blocked.extend(ready(&bed, "crawls", 4, None).await?);
    let held = ready(&bed, "held", 1, None).await?.remove(0);
    let not_held = ready(&bed, "not-held", 1, None).await?.remove(0);

    let notice = bed.metadata("node-a")?.interrupt(NOTICE).await?;
    let window = window(&bed, notice).await?;
    let report = final_report(&bed, "node-a", window).await?;
    let audit = bed.audit()?;

    // The five: held inside their eviction as long as there is hope, let go in time, and named.
    for pod in &blocked {
        evicted_at_once(&audit, pod, window)?;
        let ended = finished(&audit, name(pod)).with_context(|| format!("{} never ended", name(pod)))?;
        let late = seconds(window.deadline, ended);
        ensure!(late < 1.0, "{} was released {late:.1} s after the deadline", name(pod));
        let told = entry(&report, name(pod))?;
        ensure!(told["state"] == "lost" && told["departure"] == "gone", "{told}");
        ensure!(text(told, "/state_reason").contains("flush"), "{told}");
    }

    // The two that work are committed while the five are waited for, 30 s each (their flush-timeout).
    for pod in [&held, &not_held] {
        let committed = committed(&bed, pod)?;
        let after = seconds(window.cordon, committed);
        ensure!(after < 2.0 * PROMPT, "{} was committed {after:.1} s after the cordon", name(pod));
        let gone = removed(&audit, name(pod)).with_context(|| format!("{} was never gone", name(pod)))?;
        let longer = seconds(committed, gone);
        ensure!((0.0..PROMPT).contains(&longer), "{} was gone {longer:.1} s after its commit", name(pod));
        let told = entry(&report, name(pod))?;
        ensure!(told["state"] == "saved" && told["departure"] == "gone", "{told}");
    }
    evicted_at_once(&audit, &held, window)?;
    let asked = evictions(&audit, name(&not_held));
    ensure!(asked.len() == 1, "{} was evicted {} times", name(&not_held), asked.len());
    let longer = seconds(committed(&bed, &not_held)?, asked[0].at);
    ensure!(
        (0.0..PROMPT).contains(&longer),
        "{} was evicted {longer:.1} s after its commit",
        name(&not_held)
    );
    Ok(())
}

/// When the pod's one generation became whole in the store.
fn committed(bed: &Testbed, pod: &Value) -> Result<jiff::Timestamp> {
    let lineage = format!("/{}/gen/", uid(pod));
    let objects = bed.objects()?;
    let mut found = objects.iter().filter(|object| object.key.contains(&lineage));
    let first = found.next().with_context(|| format!("nothing of {} is in the store", name(pod)))?;
    ensure!(found.next().is_none(), "{} was committed twice", name(pod));
    Ok(first.at)
}
