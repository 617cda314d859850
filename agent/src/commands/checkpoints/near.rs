//! What is said of a name that is not there: the names near it.

use super::CheckpointsFailure;
use super::target::{Target, short};
use checkpoint::key::{GenerationNumber, LineageId};

/// What is said of a lineage that its workload does not have.
pub(super) fn unknown_lineage<'a>(
    target: &Target,
    lineage: &LineageId,
    known: impl Iterator<Item = &'a LineageId>,
) -> CheckpointsFailure {
    let names: Vec<String> = known.map(ToString::to_string).collect();
    let near = nearest(lineage.as_str(), &names).join(", ");
    let workload = format!("{}/{}", target.namespace, target.workload);
    CheckpointsFailure::Failed(format!(
        "{target}: {workload} has no lineage {lineage}; the nearest: {near} (all: `list {workload}`)"
    ))
}

/// What is said of a generation that its lineage does not have.
pub(super) fn unknown_generation(target: &Target, known: &[GenerationNumber]) -> CheckpointsFailure {
    let there: Vec<String> = known.iter().take(5).map(|number| short(*number)).collect();
    let there = if there.is_empty() {
        "none was committed yet".to_owned()
    } else {
        format!("the newest: {}", there.join(", "))
    };
    CheckpointsFailure::Failed(format!("{target}: there is no such generation; {there}"))
}

/// Up to three names, those first that need the fewest changes of a letter.
pub(super) fn nearest<'a>(wanted: &str, names: &'a [String]) -> Vec<&'a str> {
    let mut by_distance: Vec<(usize, &str)> =
        names.iter().map(|name| (strsim::levenshtein(wanted, name), name.as_str())).collect();
    by_distance.sort_unstable();
    by_distance.into_iter().take(3).map(|(_, name)| name).collect()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_nearest_names_come_first_and_at_most_three() {
        let names = ["chat/llama", "chat/lama", "batch/mixtral", "chat/qwen"].map(str::to_owned);
        assert_eq!(nearest("chat/llamma", &names), ["chat/llama", "chat/lama", "chat/qwen"]);
    }
}
