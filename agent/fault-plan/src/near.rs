//! Which known texts are near an unknown one.

/// The `at_most` candidates that need the fewest changes of a letter, nearest first.
pub fn nearest(text: &str, candidates: &[&'static str], at_most: usize) -> Vec<&'static str> {
    let mut ranked: Vec<(usize, &'static str)> =
        candidates.iter().map(|candidate| (distance(text, candidate), *candidate)).collect();
    ranked.sort();
    ranked.dedup();
    ranked.into_iter().take(at_most).map(|(_, candidate)| candidate).collect()
}

/// Levenshtein's distance: insertions, deletions and replacements, each one step.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.chars().take(200).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for j in 0..b.len() {
            let replaced = diagonal + usize::from(letter != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_single_changes() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn the_nearest_comes_first() {
        assert_eq!(nearest("comit", &["flush", "commit", "claim"], 2), ["commit", "claim"]);
    }
}
