//! Room for a flush: a full disk fails it half-way, and the kubelet evicts a pod whose emptyDir is over its `sizeLimit`; the
//! state is gone with it.
//!
//! <https://kubernetes.io/docs/concepts/storage/volumes/#emptydir>

use super::failure::EffectFailure;
use bytesize::ByteSize;
use checkpoint::folder::{Folder, WalkLimits};
use evacuation::event::FailureKind;

/// Refuses a flush that would break the limit or fill the disk, by name and with what would do.
///
/// # Errors
/// There is no room, or the folder cannot be listed.
pub(super) fn check(
    volume: &str,
    limit: Option<u64>,
    folder: &Folder,
    state: u64,
) -> Result<(), EffectFailure> {
    let free = folder.free()?;
    if limit.is_none() && state <= free {
        return Ok(());
    }
    let contents = folder.files(&WalkLimits::default())?;
    let sizes = || contents.files.iter().map(|file| file.size);
    let used = sizes().sum();
    let peak = peak(used, sizes().max().unwrap_or(0), state);
    let refuse = |why: String| Err(EffectFailure::new(FailureKind::Permanent, format!("no flush: {why}")));
    match limit {
        Some(limit) if peak > limit => refuse(format!(
            "with {} of state volume {volume} would hold about {}, over its sizeLimit of {}, and the kubelet would evict \
             the pod: raise sizeLimit to {peak} bytes or more",
            ByteSize(state),
            ByteSize(peak),
            ByteSize(limit)
        )),
        _ if peak.saturating_sub(used) > free => refuse(format!(
            "{} of state need {} more on the disk of volume {volume}, which has {} free: give the node a larger disk, or \
             the volume one of its own",
            ByteSize(state),
            ByteSize(peak - used),
            ByteSize(free)
        )),
        _ => Ok(()),
    }
}

/// What the volume holds at most while a flush writes: engines write a file beside the one that it replaces.
fn peak(used: u64, largest: u64, state: u64) -> u64 {
    let flushed_before = used >= state / 2;
    if flushed_before { used.max(state).saturating_add(largest) } else { used.saturating_add(state) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_flush_needs_room_for_the_state_and_later_ones_for_one_file_more() {
        assert_eq!(peak(0, 0, 100), 100);
        assert_eq!(peak(10, 10, 100), 110, "something else lies there");
        assert_eq!(peak(100, 25, 100), 125, "one of four files is written anew");
        assert_eq!(peak(100, 25, 160), 185, "the state grew");
    }

    #[test]
    fn a_flush_beyond_the_limit_is_refused_with_what_would_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("slot-0"), [7; 600]).unwrap();
        let opened = Folder::open(folder.path()).unwrap();
        assert!(check("state", Some(1_200), &opened, 600).is_ok());
        let refused = check("state", Some(1_199), &opened, 600).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Permanent);
        assert!(refused.why.contains("sizeLimit") && refused.why.contains("1200 bytes"), "{}", refused.why);
    }

    #[test]
    fn a_flush_for_which_the_disk_has_no_room_is_refused_and_without_a_limit_any_other_goes() {
        let folder = tempfile::tempdir().unwrap();
        let opened = Folder::open(folder.path()).unwrap();
        assert!(check("state", None, &opened, 600).is_ok());
        let refused = check("state", None, &opened, 1 << 60).unwrap_err();
        assert_eq!(refused.kind, FailureKind::Permanent);
        assert!(refused.why.contains("on the disk of volume state"), "{}", refused.why);
    }
}
