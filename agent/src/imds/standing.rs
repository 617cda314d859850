//! Which notices are shown, so that only what changes is told.

use super::ImdsEvent;
use super::document::{Document, DocumentContent};
use std::collections::BTreeMap;

/// A notice counts as withdrawn after this many answers in a row without it: IMDS is a service of several hosts,
/// and one answer that lags behind must not uncordon a dying node.
const ABSENT_MAX: u32 = 2;
/// The most notices of one document that are followed: those with the least time left.
const SHOWN_MAX: usize = 32;

/// What is shown, by document and id, and how many answers in a row did not show it.
#[derive(Debug, Default)]
pub(super) struct ShownNotices {
    shown: BTreeMap<(Document, String), u32>,
}

impl ShownNotices {
    /// This document shows a notice, or did in the answer before.
    pub(super) fn shows(&self, document: Document) -> bool {
        self.shown.keys().any(|(of, _)| *of == document)
    }

    /// Takes in what the document shows now. One answer is enough to say that something is over. An answer with an entry
    /// that could not be read says nothing of what it does not show.
    pub(super) fn update(
        &mut self,
        document: Document,
        content: DocumentContent,
        events: &mut Vec<ImdsEvent>,
    ) {
        let DocumentContent { mut notices, over, odd } = content;
        for id in over {
            if self.shown.remove(&(document, id.clone())).is_some() {
                tracing::info!(id, "notice is over");
                events.push(ImdsEvent::Withdrawn { id, is_over: true });
            }
        }
        notices.sort_by_key(|notice| notice.left_ms);
        let ids: Vec<String> = notices.iter().take(SHOWN_MAX).map(|notice| notice.id.clone()).collect();
        // Interruption and rebalance documents hold one notice each: another one takes its place.
        let replaced = document != Document::Maintenance && !ids.is_empty();
        for notice in notices.into_iter().take(SHOWN_MAX) {
            let key = (document, notice.id.clone());
            if self.shown.insert(key, 0).is_none() {
                tracing::info!(
                    kind = notice.kind.as_str(),
                    id = notice.id,
                    left_ms = notice.left_ms,
                    "notice"
                );
                events.push(ImdsEvent::Notice(notice));
            }
        }
        self.shown.retain(|(of, id), absent| {
            if *of != document || ids.contains(id) {
                return true;
            }
            if replaced {
                return false;
            }
            *absent += u32::from(odd.is_none());
            if *absent < ABSENT_MAX {
                return true;
            }
            tracing::info!(id, "notice withdrawn");
            events.push(ImdsEvent::Withdrawn { id: id.clone(), is_over: false });
            false
        });
    }
}
