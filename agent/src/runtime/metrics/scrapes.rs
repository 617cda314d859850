//! Who has been told what: whether a scrape lies between a count and now.
//!
//! The fleet role must know when it ends: what it counted and nobody has seen, the next leader may count.

use parking_lot::Mutex;

/// Scrapes so far.
#[derive(Debug, Default)]
pub(crate) struct Scrapes(Mutex<ScrapeState>);

#[derive(Debug, Default)]
struct ScrapeState {
    answered: u64,
    closed: bool,
}

/// When something was counted, in scrapes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CountedAt(u64);

impl Scrapes {
    /// Answers one; `None` once they are closed.
    pub(crate) fn scrape(&self, render: impl FnOnce() -> String) -> Option<String> {
        let mut state = self.0.lock();
        if state.closed {
            return None;
        }
        let text = render();
        state.answered += 1;
        Some(text)
    }

    /// Counts while no scrape is being answered.
    pub(crate) fn between(&self, count: impl FnOnce()) -> CountedAt {
        let state = self.0.lock();
        count();
        CountedAt(state.answered)
    }

    pub(crate) fn seen(&self, counted: CountedAt) -> bool {
        self.0.lock().answered > counted.0
    }

    pub(crate) fn close(&self) {
        self.0.lock().closed = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_seen_by_the_next_scrape_and_by_none_after_the_end() {
        let scrapes = Scrapes::default();
        assert_eq!(scrapes.scrape(|| "a".into()), Some("a".into()));
        let counted = scrapes.between(|| ());
        assert!(!scrapes.seen(counted));
        scrapes.scrape(String::new);
        assert!(scrapes.seen(counted));
        let late = scrapes.between(|| ());
        scrapes.close();
        assert_eq!(scrapes.scrape(String::new), None);
        assert!(!scrapes.seen(late) && scrapes.seen(counted));
    }
}
