//! Each verb over a store that was written by the checkpoint crate itself.

use super::bench::{StoreBench, args, flip, json, target, text};
use super::target::Place;
use super::verify::DefectKind;
use super::{CommandOutput, diff, erase, fetch, gc, list, show, verify};
use checkpoint::intent::IntentState;
use serde_json::Value;
use std::fs;

async fn lines(bench: &StoreBench, place: Option<&str>) -> Value {
    let place: Option<Place> = place.map(|place| place.parse().unwrap());
    json(&list::list(&bench.args, place.as_ref()).await.unwrap())
}

/// The state of one lineage, and what is noted of it.
async fn state(bench: &StoreBench, lineage: &str) -> (String, String) {
    let listing = lines(bench, Some("chat/llama")).await;
    let all = listing["lineages"].as_array().unwrap().clone();
    let line = all.into_iter().find(|line| line["lineage"] == lineage).unwrap();
    let word = |field: &str| line[field].as_str().unwrap().to_owned();
    (word("state"), word("note"))
}

#[tokio::test]
async fn the_list_has_every_lineage_with_the_newest_first() {
    let bench = StoreBench::new().await;
    bench.write("a", 3_000_000, 1);
    bench
        .checkpoint_as("llama", "llama-0", None, |m| m.created = "2026-01-01T00:00:00Z".parse().unwrap())
        .await;
    bench.write("b", 10, 2);
    bench.checkpoint("qwen", "qwen-0", None).await;
    let listing = list::list(&bench.args, None).await.unwrap();
    let document = json(&listing);
    let found = document["lineages"].as_array().unwrap();
    assert_eq!([&found[0]["lineage"], &found[1]["lineage"]], ["qwen-0", "llama-0"]);
    assert_eq!((&found[1]["bytes"], &found[1]["files"]), (&3_000_000.into(), &1.into()));
    assert_eq!((&found[0]["generation"], &found[0]["state"]), (&"1-1".into(), &"committed".into()));
    assert!(found[1]["age_seconds"].as_u64().unwrap() > 86_400);
    assert!(text(&listing).lines().nth(1).unwrap().starts_with("chat/qwen"), "{}", text(&listing));
    assert_eq!(lines(&bench, Some("chat/llama")).await["lineages"].as_array().unwrap().len(), 1);
    assert_eq!(lines(&bench, Some("chat")).await["lineages"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_lineage_is_coming_overdue_abandoned_claimed_or_restored_and_says_by_whom() {
    let bench = StoreBench::new().await;
    bench.write("a", 100, 1);
    bench.checkpoint("llama", "llama-0", None).await;
    bench.announce("llama", "llama-1", 60_000, IntentState::Coming).await;
    assert_eq!(state(&bench, "llama-1").await.0, "coming");
    bench.announce("llama", "llama-1", 0, IntentState::Coming).await;
    assert_eq!(state(&bench, "llama-1").await.0, "overdue");
    bench.announce("llama", "llama-1", 60_000, IntentState::Abandoned { reason: "disk full".into() }).await;
    let (word, note) = state(&bench, "llama-1").await;
    assert!(word == "abandoned" && note.contains("disk full") && note.contains("llama-1"), "{word}: {note}");

    let claim = bench.claim("llama", "llama-0").await;
    let (word, note) = state(&bench, "llama-0").await;
    assert!(word == "claimed" && note.contains("replacement") && note.contains("node-b"), "{word}: {note}");
    bench.finish(claim).await;
    assert_eq!(state(&bench, "llama-0").await.0, "restored");
}

#[tokio::test]
async fn a_claim_taken_while_the_checkpoint_was_coming_is_a_restore_until_its_holder_commits() {
    let bench = StoreBench::new().await;
    bench.write("a", 100, 1);
    let claim = bench.claim("llama", "llama-0").await;
    bench.checkpoint("llama", "llama-0", None).await;
    bench.finish(claim).await;
    assert_eq!(state(&bench, "llama-0").await.0, "restored");
    bench.checkpoint_as("llama", "llama-0", None, |manifest| manifest.source.uid = "uid-r".into()).await;
    assert_eq!(state(&bench, "llama-0").await.0, "committed");
}

#[tokio::test]
async fn a_workload_a_lineage_or_a_generation_that_is_unknown_is_told_with_what_is_near_it() {
    let bench = StoreBench::new().await;
    bench.write("a", 100, 1);
    bench.checkpoint("llama", "llama-0", None).await;
    for (wanted, near) in
        [("chat/lama", "chat/llama"), ("chat/llama/lama-0", "llama-0"), ("chat/llama/llama-0/1-7", "1-1")]
    {
        for said in [
            show::show(&bench.args, &target(wanted), None).await.map(drop),
            verify::verify(&bench.args, &target(wanted), 2).await.map(drop),
        ] {
            let said = said.unwrap_err().to_string();
            assert!(said.contains(wanted) && said.contains(near) && said.lines().count() == 1, "{said}");
        }
    }
    for (place, near) in [("chat/lama", "chat/llama"), ("cat", "chat")] {
        let said = list::list(&bench.args, Some(&place.parse().unwrap())).await.unwrap_err().to_string();
        assert!(said.contains(near), "{said}");
    }
}

#[tokio::test]
async fn a_store_that_is_none_is_named_with_its_flag_and_is_not_made_into_one() {
    let bench = StoreBench::new().await;
    for (url, word) in [
        (format!("dir:{}", bench.path("state").display()), "no store"),
        ("dir:/nowhere".into(), "does not exist"),
        ("ftp://x".into(), "s3://"),
    ] {
        let said = list::list(&args(&url), None).await.unwrap_err().to_string();
        assert!(said.starts_with("--store") && said.contains(word), "{said}");
    }
    assert_eq!(fs::read_dir(bench.path("state")).unwrap().count(), 0, "looking wrote something");
    let said = list::list(&args(""), None).await.unwrap_err().to_string();
    assert!(said.contains("--store is missing"), "{said}");
    assert_eq!(lines(&bench, None).await["lineages"], serde_json::json!([]));
}

#[tokio::test]
async fn show_tells_the_manifest_the_files_the_packs_and_the_parent() {
    let bench = StoreBench::new().await;
    bench.write("slots/0.bin", 5_000_000, 1);
    let first = bench.checkpoint("llama", "llama-0", None).await;
    bench.write("slots/1.bin", 70, 2);
    bench.checkpoint_as("llama", "llama-0", Some(&first), |manifest| manifest.partial = true).await;
    let shown = show::show(&bench.args, &target("chat/llama"), None).await.unwrap();
    let document = json(&shown);
    assert_eq!((&document["lineage"], &document["generation"]), (&"llama-0".into(), &"1-2".into()));
    assert_eq!((&document["parent"], &document["partial"]), (&"llama-0/1-1".into(), &true.into()));
    assert_eq!(document["files"][0]["path"], "slots/0.bin");
    assert_eq!((&document["bytes"], &document["spec_key"]), (&5_000_070.into(), &"spec".into()));
    assert_eq!(document["fingerprint"]["facts"]["kv-type"], "f16");
    assert_eq!(document["other_generations"], serde_json::json!(["1-1"]));
    let told = text(&shown);
    for word in ["partial", "slots/1.bin", "kv-type: f16", "notice-1", "uid-llama-0", "llama-0/1-1"] {
        assert!(told.contains(word), "{word:?} is not in\n{told}");
    }
    let old = show::show(&bench.args, &target("chat/llama/llama-0/1-1"), None).await.unwrap();
    assert!(!old.partial && json(&old)["files"].as_array().unwrap().len() == 1);
}

#[tokio::test]
async fn two_fingerprints_are_compared_and_the_first_fact_that_differs_is_named() {
    let bench = StoreBench::new().await;
    bench.write("a", 100, 1);
    bench.checkpoint("llama", "llama-0", None).await;
    bench.checkpoint("llama", "llama-1", None).await;
    let other = |manifest: &mut checkpoint::manifest::Manifest| {
        manifest.fingerprint.facts.insert("kv-type".into(), "q8_0".into());
        manifest.spec_key = "other".into();
    };
    bench.checkpoint_as("llama", "llama-2", None, other).await;
    let of = async |a: &str, b: &str| show::show(&bench.args, &target(a), Some(&target(b))).await.unwrap();
    let same = json(&of("chat/llama/llama-0", "chat/llama/llama-1").await);
    assert_eq!((&same["against"]["fits"], &same["against"]["same_spec_key"]), (&true.into(), &true.into()));
    let differs = of("chat/llama/llama-0", "chat/llama/llama-2").await;
    let document = json(&differs);
    assert_eq!(
        (&document["against"]["fits"], &document["against"]["differs_in"]),
        (&false.into(), &"kv-type".into())
    );
    assert!(
        text(&differs).contains("kv-type differs: it is \"q8_0\", was \"f16\"; another spec key"),
        "{}",
        text(&differs)
    );
}

#[tokio::test]
async fn verify_reads_every_byte_once_and_finds_nothing_wrong_where_nothing_is() {
    let bench = StoreBench::new().await;
    bench.write("a", 9_000_000, 1);
    bench.write("empty", 0, 0);
    let first = bench.checkpoint("llama", "llama-0", None).await;
    bench.checkpoint("llama", "llama-1", Some(&first)).await;
    let verified = verify::verify(&bench.args, &target("chat/llama"), 2).await.unwrap();
    assert!(verified.whole && verified.code() == 0, "{:#?}", verified.problems);
    assert_eq!((verified.generations, verified.files, verified.bytes_read), (2, 4, 9_000_000));
    assert_eq!(json(&verified)["packs"], bench.objects("/pack/").len());
    assert!(text(&verified).contains("whole"));
}

#[tokio::test]
async fn a_flipped_byte_is_found_with_its_pack_and_the_file_that_needs_it() {
    let bench = StoreBench::new().await;
    bench.write("good", 100, 1);
    let first = bench.checkpoint("llama", "llama-0", None).await;
    bench.write("bad", 3_000_000, 2);
    bench.checkpoint("llama", "llama-0", Some(&first)).await;
    let pack =
        bench.objects("/pack/").into_iter().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    flip(&pack);
    let verified = verify::verify(&bench.args, &target("chat/llama/llama-0"), 2).await.unwrap();
    assert_eq!((verified.code(), verified.problems.len()), (1, 1), "{:#?}", verified.problems);
    let problem = &verified.problems[0];
    assert_eq!(
        (problem.kind, problem.name.as_str()),
        (DefectKind::Pack, pack.file_name().unwrap().to_str().unwrap())
    );
    assert_eq!(problem.files, ["llama-0/1-2 bad"]);
    assert!(text(&verified).contains("needed by llama-0/1-2 bad"), "{}", text(&verified));
    let older = verify::verify(&bench.args, &target("chat/llama/llama-0/1-1"), 2).await.unwrap();
    assert!(older.whole, "the generation before it is untouched: {:#?}", older.problems);
}

#[tokio::test]
async fn a_missing_and_a_short_pack_are_named_and_a_missing_one_is_seen_by_show() {
    let bench = StoreBench::new().await;
    bench.write("a", 100, 1);
    let first = bench.checkpoint("llama", "llama-0", None).await;
    bench.write("b", 2_000_000, 2);
    bench.checkpoint("llama", "llama-0", Some(&first)).await;
    let mut packs = bench.objects("/pack/");
    packs.sort_by_key(|path| fs::metadata(path).unwrap().len());
    fs::remove_file(&packs[0]).unwrap();
    fs::File::options().write(true).open(&packs[1]).unwrap().set_len(1_000_000).unwrap();
    let verified = verify::verify(&bench.args, &target("chat/llama"), 2).await.unwrap();
    let gone = packs[0].file_name().unwrap().to_str().unwrap();
    let problem = verified.problems.iter().find(|problem| problem.name == gone).unwrap();
    assert!(problem.problem.contains("not in the store"), "{problem:?}");
    assert_eq!(problem.files, ["llama-0/1-2 a", "llama-0/1-1 a"]);
    assert!(verified.problems.iter().any(|problem| problem.problem.contains("cut short")), "{verified:#?}");
    let shown = show::show(&bench.args, &target("chat/llama"), None).await.unwrap();
    let missing: Vec<String> = shown.packs.iter().filter(|p| p.missing).map(|p| p.pack.to_string()).collect();
    assert_eq!(missing, [gone]);
}

#[tokio::test]
async fn a_manifest_and_a_commit_that_are_damaged_are_named_and_the_rest_is_read_all_the_same() {
    let bench = StoreBench::new().await;
    bench.write("a", 100, 1);
    bench.checkpoint("llama", "llama-0", None).await;
    bench.checkpoint("llama", "llama-1", None).await;
    bench.checkpoint("llama", "llama-2", None).await;
    fs::write(&bench.objects("lineage/llama-1/gen")[0], "{").unwrap();
    let listing = lines(&bench, None).await;
    let damaged = listing["lineages"].as_array().unwrap().iter().find(|l| l["lineage"] == "llama-1").unwrap();
    assert_eq!((&damaged["generation"], damaged["unreadable"].as_array().unwrap().len()), (&Value::Null, 1));
    for manifest in bench.objects("/manifest/") {
        if fs::read_to_string(&manifest).unwrap().contains("uid-llama-2") {
            flip(&manifest);
        }
    }
    let verified = verify::verify(&bench.args, &target("chat/llama"), 1).await.unwrap();
    let named: Vec<(DefectKind, &str)> =
        verified.problems.iter().map(|p| (p.kind, p.name.as_str())).collect();
    assert_eq!(named, [(DefectKind::Generation, "llama-1/1-1"), (DefectKind::Manifest, "llama-2/1-1")]);
    assert_eq!((verified.generations, verified.packs), (3, 1));
}

#[tokio::test]
async fn diff_tells_what_was_added_removed_and_changed_and_how_many_bytes_are_new() {
    let bench = StoreBench::new().await;
    for (path, seed) in [("same", 1), ("grows", 2), ("goes", 3)] {
        bench.write(path, 2 << 20, seed);
    }
    let first = bench.checkpoint("llama", "llama-0", None).await;
    fs::remove_file(bench.path("state/goes")).unwrap();
    let mut grown = fs::read(bench.path("state/grows")).unwrap();
    grown.extend([1; 1_000]);
    fs::write(bench.path("state/grows"), grown).unwrap();
    bench.write("comes", 500, 4);
    bench.checkpoint("llama", "llama-0", Some(&first)).await;
    let (a, b) = (target("chat/llama/llama-0/1-1"), target("chat/llama/llama-0"));
    let difference = diff::diff(&bench.args, &a, &b).await.unwrap();
    let changes: Vec<(&str, diff::ChangeKind)> =
        difference.files.iter().map(|change| (change.path.as_str(), change.change)).collect();
    assert_eq!(
        changes,
        [
            ("comes", diff::ChangeKind::Added),
            ("goes", diff::ChangeKind::Removed),
            ("grows", diff::ChangeKind::Changed)
        ]
    );
    assert_eq!(difference.bytes_new, 1_500);
    let document = json(&difference);
    assert_eq!((&document["unchanged"], &document["packs_new"]), (&1.into(), &1.into()));
    assert!(text(&difference).contains("1 file unchanged"), "{}", text(&difference));
    assert_eq!(json(&diff::diff(&bench.args, &b, &b).await.unwrap())["files"], serde_json::json!([]));
}

#[tokio::test]
async fn fetch_writes_the_files_as_they_were_and_nothing_else() {
    let bench = StoreBench::new().await;
    bench.write("slots/0.bin", 3_000_000, 1);
    bench.write("index", 10, 2);
    bench.checkpoint("llama", "llama-0", None).await;
    let out = bench.path("out");
    let fetched = fetch::fetch(&bench.args, &target("chat/llama"), &out, 4).await.unwrap();
    assert_eq!(json(&fetched)["files"], 2);
    for file in ["slots/0.bin", "index"] {
        assert!(
            fs::read(out.join(file)).unwrap() == fs::read(bench.path("state").join(file)).unwrap(),
            "{file}"
        );
    }
    assert_eq!(fs::read_dir(&out).unwrap().count(), 2, "something of ours was left behind");
    let again = fetch::fetch(&bench.args, &target("chat/llama"), &out, 4).await.unwrap_err().to_string();
    assert!(again.starts_with("DIRECTORY") && again.contains("not empty"), "{again}");
}

#[tokio::test]
async fn fetch_of_damaged_bytes_fails_by_name_installs_nothing_and_goes_on_once_they_are_mended() {
    let bench = StoreBench::new().await;
    bench.write("a", 6_000_000, 1);
    bench.checkpoint("llama", "llama-0", None).await;
    let pack =
        bench.objects("/pack/").into_iter().min_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    flip(&pack);
    let out = bench.path("out");
    let said = fetch::fetch(&bench.args, &target("chat/llama"), &out, 1).await.unwrap_err().to_string();
    assert!(
        said.contains("chat/llama/llama-0/1-1") && said.contains(pack.file_name().unwrap().to_str().unwrap()),
        "{said}"
    );
    assert!(!out.join("a").exists());
    flip(&pack);
    let fetched = fetch::fetch(&bench.args, &target("chat/llama"), &out, 1).await.unwrap();
    assert!(fs::read(out.join("a")).unwrap() == fs::read(bench.path("state/a")).unwrap());
    assert!(fetched.bytes_fetched <= 6_000_000);
}

/// Makes everything in the store so much older, by the store's clock.
fn age(bench: &StoreBench, hours: u64) {
    for path in bench.objects("") {
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(hours * 3_600);
        fs::File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
    }
}

#[derive(clap::Parser)]
struct Gc {
    #[command(flatten)]
    keep: crate::runtime::garbage_args::GarbageArgs,
}

fn keep(arguments: &[&str]) -> crate::runtime::garbage_args::GarbageArgs {
    let arguments = std::iter::once(&"gc").chain(arguments);
    <Gc as clap::Parser>::try_parse_from(arguments).unwrap().keep
}

#[tokio::test]
async fn gc_says_what_would_go_and_why_and_then_does_it() {
    let bench = StoreBench::new().await;
    for seed in 0..3 {
        bench.write("a", 100, seed);
        bench.checkpoint("llama", "llama-0", None).await;
    }
    age(&bench, 1);
    let before = bench.objects("");
    let planned = gc::gc(&bench.args, None, &keep(&["--keep", "1"]), true).await.unwrap();
    assert_eq!(bench.objects(""), before, "a dry run wrote something");
    let document = json(&planned);
    let steps = document["workloads"][0]["steps"].as_array().unwrap();
    let names = |action: &str| steps.iter().filter(|step| step["action"] == action).count();
    // Two generations go, and with them what they alone name: two manifests and two packs.
    assert_eq!((steps.len(), names("generation"), names("mark")), (6, 2, 4));
    assert!(text(&planned).contains("beyond the last 1 of its lineage"), "{}", text(&planned));
    assert!(text(&planned).contains("would be freed"), "{}", text(&planned));
    let place: Place = "chat/llama".parse().unwrap();
    let pass = async || gc::gc(&bench.args, Some(&place), &keep(&["--keep", "1"]), false).await.unwrap();
    assert_eq!(pass().await.workloads[0].steps.len(), 6);
    assert_eq!(bench.objects("/pack/").len(), 3, "nothing waited");
    age(&bench, 2);
    let removed = pass().await;
    assert_eq!((bench.objects("/pack/").len(), bench.objects("/manifest/").len()), (1, 1));
    assert!(removed.workloads[0].bytes_freed > 200 && removed.code() == 0, "{removed:?}");
    let verified = verify::verify(&bench.args, &target("chat/llama"), 2).await.unwrap();
    assert!(verified.whole && verified.generations == 1, "{verified:?}");
}

#[tokio::test]
async fn a_policy_that_could_lose_something_is_refused_before_the_store_is_asked() {
    let bench = StoreBench::new().await;
    let said = gc::gc(&bench.args, None, &keep(&["--grace", "1m"]), true).await.unwrap_err().to_string();
    assert!(said.contains("grace"), "{said}");
    for wrong in [["--keep", "0"], ["--grace", "10"], ["--retention", "1w"]] {
        assert!(
            <Gc as clap::Parser>::try_parse_from(std::iter::once(&"gc").chain(&wrong)).is_err(),
            "{wrong:?}"
        );
    }
}

#[tokio::test]
async fn erase_says_how_much_it_is_until_yes_is_said_and_refuses_while_a_checkpoint_comes() {
    let bench = StoreBench::new().await;
    bench.write("a", 100, 1);
    bench.checkpoint("llama", "llama-0", None).await;
    bench.claim("llama", "llama-0").await;
    let before = bench.objects("/chat/");
    let place: Place = "chat".parse().unwrap();
    let ask = async |yes, force| erase::erase(&bench.args, &place, Some("me"), yes, force).await;
    let said = ask(false, false).await.unwrap_err();
    assert!(
        matches!(&said, super::CheckpointsFailure::Usage(said) if said.contains("4 objects") && said.contains("--yes"))
    );
    bench.announce("llama", "llama-1", 60_000, IntentState::Coming).await;
    let said = ask(true, false).await.unwrap_err().to_string();
    assert!(said.contains("chat/llama/llama-1") && said.contains("--force"), "{said}");
    assert_eq!(bench.objects("/chat/").len(), before.len() + 1);
    let erased = ask(true, true).await.unwrap();
    let document = json(&erased);
    assert_eq!((&document["record"]["by"], &document["record"]["objects"]), (&"me".into(), &5.into()));
    assert!(text(&erased).contains("erase again"), "{}", text(&erased));
    assert_eq!((bench.objects("/lineage/").len(), bench.objects("/erased/chat/").len()), (0, 1));
    assert!(text(&ask(true, false).await.unwrap()).contains("has nothing"));
}
