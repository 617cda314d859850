//! Which known texts are near an unknown one.

/// The `at_most` candidates that need the fewest changes of a letter, nearest first.
pub fn nearest(text: &str, candidates: &[&'static str], at_most: usize) -> Vec<&'static str> {
    let mut ranked: Vec<(usize, &'static str)> =
        candidates.iter().map(|candidate| (strsim::levenshtein(text, candidate), *candidate)).collect();
    ranked.sort();
    ranked.dedup();
    ranked.into_iter().take(at_most).map(|(_, candidate)| candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_comes_first() {
        assert_eq!(nearest("comit", &["flush", "commit", "claim"], 2), ["commit", "claim"]);
    }
}
