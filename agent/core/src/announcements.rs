//! The notices that stand: each from the moment it is seen until it is withdrawn.
//!
//! Decides which of them is new, and which maintenance event is waited for. It must not know what a notice begins.

use crate::notice::{ActiveNotice, Notice, NoticeKind};
use std::collections::BTreeMap;

/// The set of them, by id.
#[derive(Debug, Default)]
pub(crate) struct Announcements {
    standing: BTreeMap<String, Notice>,
    /// The maintenance event that is still far away.
    awaited: Option<String>,
}

impl Announcements {
    /// It was announced already, and not withdrawn since.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.standing.contains_key(id)
    }

    /// It is announced. Of one that stands already the first sight counts.
    pub(crate) fn insert(&mut self, notice: Notice) {
        self.standing.entry(notice.id.clone()).or_insert(notice);
    }

    /// What an earlier life has put on the node was announced to it.
    pub(crate) fn resume(&mut self, active_notice: &ActiveNotice) {
        let left = active_notice.deadline.since(active_notice.began).as_millis();
        self.insert(Notice {
            kind: active_notice.kind,
            id: active_notice.notice.clone(),
            seen: active_notice.began,
            left_ms: i64::try_from(left).unwrap_or(i64::MAX),
        });
        if !active_notice.is_hard() && active_notice.kind == NoticeKind::Maintenance {
            self.awaited = Some(active_notice.notice.clone());
        }
    }

    /// It is withdrawn. True if it was the maintenance event that was waited for.
    pub(crate) fn remove(&mut self, id: &str) -> bool {
        self.standing.remove(id);
        self.awaited.take_if(|awaited| awaited == id).is_some()
    }

    /// This maintenance event is waited for, in place of one that was announced before it.
    pub(crate) fn wait_for(&mut self, id: &str) {
        self.awaited = Some(id.to_owned());
    }

    /// The maintenance event that is waited for.
    pub(crate) fn awaited(&self) -> Option<&Notice> {
        self.standing.get(self.awaited.as_ref()?)
    }

    /// Another notice takes the node: none is waited for any more.
    pub(crate) fn wait_for_none(&mut self) {
        self.awaited = None;
    }
}
