//! Words that were renamed.

use structure::StructureError;
use structure::tree::Tree;
use structure::words::table::read;
use structure::words::{left, unknown};

#[test]
fn no_word_of_before_is_left() -> Result<(), StructureError> {
    let tree = Tree::of_checkout()?;
    let words = read(&tree)?;
    let mut wrong: Vec<String> = left(&tree, &words)?.iter().map(ToString::to_string).collect();
    wrong.extend(unknown(&tree, &words).iter().map(|word| {
        format!("CHANGELOG.md:{}: docs/metrics.md has no {} `{}`", word.line, word.kind, word.new)
    }));
    assert!(wrong.is_empty(), "{} findings:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

// ---- planted -------------------------------------------------------------------------------------------------------

const CHANGES: &str = "\
# Changes

### Renamed on the wire

Words of before.

| where | old | new |
|---|---|---|
| `action label` | `look` | `inspect_engine` |
| `action label` | `hand_over` | `import_state` |
| `event label` | `withdrawn` | `notice_withdrawn` |
| `report word` | `let_go` | `deleted_at_cut_off` |
| `report word` | `lost` | `gone_for_good` |
| `Event reason` | `LetGo` | `PodDeleted` |
| `Event reason` | `Noticed` | `NoticeReceived` |
| `fault plan` | `engine=rude` | `engine=impolite` |
| `fault plan` | `agent=kill@step:mark` | `agent=kill@step:mark_node` |
| journal, event | `woke` | `timer_fired` |
| journal, field of `save` | `round` | `kind` |
| `/status` | `standing` | `active_notice` |

## 0.1.0
";

fn found(file: &str, text: &str) -> Result<Vec<String>, StructureError> {
    let tree = Tree::planted([("CHANGELOG.md", CHANGES), (file, text)]);
    let words = read(&tree)?;
    Ok(left(&tree, &words)?.iter().map(ToString::to_string).collect())
}

#[test]
fn an_old_word_is_found_in_each_form() -> Result<(), StructureError> {
    for (file, line) in [
        ("manifests/rules.yaml", r#"expr: sum(lifeboat_effects_total{action="look"})"#),
        (
            "manifests/rules.yaml",
            r#"expr: sum(lifeboat_effects_total{node="a", action =~ "mark_node|look|.*"})"#,
        ),
        ("manifests/board.json", r#""expr": "lifeboat_effects_total{action!=\"look\"}""#),
        ("manifests/board.json", r#""expr": "lifeboat_effects_total{action=~\"save|look\"}""#),
        ("manifests/tests/a.yaml", "exp_labels: {action: look}"),
        ("tests/wire/main.rs", r#"let labels = [("action", "look"), ("outcome", "done")];"#),
        ("tests/panels.py", r#"{"action": "look"}"#),
        (
            "docs/metrics.md",
            "| `lifeboat_effects_total` | counter | – | `action`: `save`, `look`; `outcome`: `done` | Effects. |",
        ),
        ("docs/operations.md", "The effect `look` asks the engine."),
        ("tests/run", "one_drill x --fault agent-b=kill@step:look"),
        ("README.md", "`agent=kill@step:look` shows it."),
        ("tests/wire/main.rs", r#"assert!(steps.contains("hand_over"));"#),
        ("manifests/tests/a.yaml", "series: 'lifeboat_events_total{event=\"withdrawn\"}'"),
        (
            "docs/metrics.md",
            "| `lifeboat_events_total` | counter | – | `event`: `started`, `withdrawn` | Events. |",
        ),
        ("tests/e2e/a.rs", r#"ensure!(pod["departure"] == "let_go");"#),
        ("docs/operations.md", "| `let_go` | it had no second left |"),
        ("docs/operations.md", "look for a report whose `state` is `lost`"),
        ("tests/e2e/a.rs", r#"json!({"state": "lost"})"#),
        ("SECURITY.md", "It writes `LetGo`."),
        ("tests/e2e/a.rs", r#"events(&bed, "LetGo").await?"#),
        ("tests/parts/a.sh", "kubectl get events --field-selector reason=Noticed"),
        ("docs/operations.md", "The Event `Noticed` says so."),
        ("tests/run", "--fault engine=rude@5s"),
        ("tests/run", "--fault agent-b=kill@step:mark+5s"),
        ("tests/e2e/a.rs", r#"{"at":5,"woke":{}}"#),
        ("tests/e2e/a.rs", r#"{"event": "woke"}"#),
        ("tests/e2e/a.rs", r#"{"action":{"save":{"by":7,"round":"full"}}}"#),
        ("docs/operations.md", "In the journal `round` says which."),
        ("tests/e2e/a.rs", r#"ensure!(status(&bed).await?["standing"].is_null());"#),
        ("docs/operations.md", "`/status` has it as `standing`."),
    ] {
        let found = found(file, &format!("\n{line}\n"))?;
        assert_eq!(found.len(), 1, "{file}: {line}: {found:?}");
        assert!(found[0].starts_with(&format!("{file}:2: ")), "{found:?}");
    }
    Ok(())
}

#[test]
fn a_word_of_several_kinds_is_told_apart_where_its_form_says_which() -> Result<(), StructureError> {
    let table =
        "| `action label` | `let_go` | `delete_pod` |\n| `report word` | `let_go` | `deleted_at_cut_off` |\n";
    let changes = format!("### Renamed on the wire\n\n| where | old | new |\n|---|---|---|\n{table}");
    for (line, kinds) in [
        ("an effect's `let_go`", &["action label"][..]),
        ("kill@step:let_go or \"let_go\"", &["action label"]),
        ("{departure: let_go}", &["report word"]),
        ("\"let_go\"", &["action label", "report word"]),
    ] {
        let file = if line.contains('`') { "docs/a.md" } else { "tests/a.sh" };
        let tree = Tree::planted([("CHANGELOG.md", &changes), (file, line)]);
        let words = read(&tree)?;
        let found: Vec<String> =
            left(&tree, &words)?.iter().map(|left| left.renamed.kind.to_string()).collect();
        assert_eq!(found, kinds, "{line}");
    }
    Ok(())
}

#[test]
fn english_and_other_labels_are_left_alone() -> Result<(), StructureError> {
    for (file, line) in [
        ("docs/operations.md", "What there is to look at after each action, and what to do."),
        ("docs/operations.md", "| `short`, `withdrawn` | the notice left less time, or came to nothing |"),
        (
            "docs/metrics.md",
            "| `lifeboat_fleet_evacuations_total` | counter | – | `outcome`: `late`, `withdrawn` | By event. |",
        ),
        (
            "manifests/tests/a.yaml",
            r#"series: 'lifeboat_evacuations_total{node="withdrawn", outcome="lost"}'"#,
        ),
        ("manifests/a.yaml", "# an action, look: it is one"),
        ("tests/e2e/a.rs", "let let_go = deletions(audit, name(pod)); // the withdrawn notice"),
        ("tests/e2e/a.rs", r#".context("withdrawn")?; pod("look", "node-a")"#),
        ("tests/e2e/a.rs", r#"{action="look_closely", reaction="look"}"#),
        ("tests/e2e/a.rs", "kill@step:lookup kill@step:hand_over_more engine=rudely"),
        ("tests/e2e/a.rs", r#"killed.standing["began"]; note["standing"]; "round""#),
        ("docs/protocol.md", r#"{"pod_uid": "…", "round": "flush"}"#),
        ("docs/operations.md", "A `round` of saves; a notice that is `standing`."),
        ("tests/run", "kill@step:mark_node kill@step:unmark"),
        ("tests/structure/tests/words.rs", r#"{action="look"}"#),
        ("agent/src/lib.rs", r#"{action="look"}"#),
    ] {
        // In a report `lost` would be meant; in a metric another label is.
        let found: Vec<String> =
            found(file, line)?.into_iter().filter(|line| !line.contains("report word `lost`")).collect();
        assert_eq!(found, [""; 0], "{file}: {line}");
    }
    Ok(())
}

#[test]
fn a_new_value_that_no_metric_has_is_found() -> Result<(), StructureError> {
    let metrics = "| `lifeboat_x_total` | counter | – | `action`: `inspect_engine`, `import_state`; `event`: `woke` | – |\n";
    let tree = Tree::planted([("CHANGELOG.md", CHANGES), ("docs/metrics.md", metrics)]);
    let words = read(&tree)?;
    let unknown: Vec<&str> = unknown(&tree, &words).iter().map(|word| word.new.as_str()).collect();
    assert_eq!(unknown, ["notice_withdrawn"]);
    Ok(())
}

#[test]
fn a_table_that_cannot_be_right_is_an_error_with_its_line() {
    let table =
        |rows: &str| format!("### Renamed on the wire\n\n| where | old | new |\n|---|---|---|\n{rows}");
    for (text, said) in [
        ("# Changes\n".to_owned(), "CHANGELOG.md:1: the heading `### Renamed on the wire`"),
        ("### Renamed on the wire\n\nNothing.\n".to_owned(), "CHANGELOG.md:1: a table with the columns"),
        (table(""), "CHANGELOG.md:1: the table has no line"),
        (table("| `wrong` | `a` | `b` |\n"), "CHANGELOG.md:5: `wrong` is none of"),
        (table("| `action label` | `a` |\n"), "CHANGELOG.md:5: 2 cells instead of 3"),
        (table("| `action label` | `a` | `a` |\n"), "CHANGELOG.md:5: `a` cannot have become `a`"),
        (
            table("| `x label` | `a` | `b` |\n| `x label` | `a` | `c` |\n"),
            "CHANGELOG.md:6: `a` is renamed twice",
        ),
        (
            table("| `x label` | `a` | `b` |\n| `x label` | `b` | `c` |\n"),
            "CHANGELOG.md:6: `b` is old and new",
        ),
    ] {
        let error = read(&Tree::planted([("CHANGELOG.md", &text)])).unwrap_err().to_string();
        assert!(error.starts_with(said), "{text}: {error}");
    }
}
