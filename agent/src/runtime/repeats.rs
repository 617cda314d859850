//! Whether a failure is news: what repeats word for word is logged once, and again only after a while.
//!
//! A log in which one line stands a thousand times hides the others. What is counted is counted elsewhere, each time.

use evacuation::moment::{Moment, Span};
use std::collections::BTreeMap;

/// A failure that goes on unchanged is logged again after this long: whoever looks late must still find it.
pub const AGAIN_AFTER: Span = Span::from_secs(300);

/// The last failure of each key.
#[derive(Debug)]
pub struct Repeats<K> {
    last: BTreeMap<K, LastFailure>,
}

#[derive(Debug)]
struct LastFailure {
    text: String,
    logged: Moment,
    /// How many like it came since, and were not logged.
    unlogged: u64,
}

impl<K> Default for Repeats<K> {
    fn default() -> Self {
        Self { last: BTreeMap::new() }
    }
}

impl<K: Ord> Repeats<K> {
    /// It failed so. `Some` if that is to be logged, with how many failures like the one before were not.
    pub fn failed(&mut self, key: K, text: &str, now: Moment) -> Option<u64> {
        if let Some(last) = self.last.get_mut(&key)
            && last.text == text
            && now.since(last.logged) < AGAIN_AFTER
        {
            last.unlogged += 1;
            return None;
        }
        let news = LastFailure { text: text.to_owned(), logged: now, unlogged: 0 };
        Some(self.last.insert(key, news).map_or(0, |before| before.unlogged))
    }

    /// It worked: the next failure is news again.
    pub fn worked(&mut self, key: &K) {
        self.last.remove(key);
    }

    /// Forgets what nobody will try again.
    pub fn forget(&mut self, is_over: impl Fn(&K) -> bool) {
        self.last.retain(|key, _| !is_over(key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_millis(seconds * 1_000)
    }

    #[test]
    fn what_repeats_is_logged_when_it_changes_and_every_five_minutes() {
        let mut repeats = Repeats::default();
        assert_eq!(repeats.failed("a", "401", at(0)), Some(0));
        assert_eq!(repeats.failed("a", "401", at(1)), None);
        assert_eq!(repeats.failed("a", "401", at(299)), None);
        assert_eq!(repeats.failed("a", "500", at(299)), Some(2), "it changed");
        assert_eq!(repeats.failed("a", "500", at(598)), None);
        assert_eq!(repeats.failed("a", "500", at(599)), Some(1), "five minutes later");
        assert_eq!(repeats.failed("b", "500", at(599)), Some(0), "another one's failure");
    }

    #[test]
    fn after_it_worked_the_same_failure_is_news() {
        let mut repeats = Repeats::default();
        repeats.failed("a", "401", at(0));
        repeats.worked(&"a");
        assert_eq!(repeats.failed("a", "401", at(1)), Some(0));
        repeats.forget(|key| *key == "a");
        assert_eq!(repeats.failed("a", "401", at(2)), Some(0));
    }
}
