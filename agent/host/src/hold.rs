//! The hold file: `.lifeboat/hold` contains a Unix time before which the pod should not end.

use crate::clock;
use crate::small_file::{self, SmallFileError};
use checkpoint::folder::Folder;
use checkpoint::path::OURS;
use evacuation::effect::Hold;
use evacuation::moment::Moment;
use std::sync::Arc;

/// Where it is, from the root of the state volume.
pub const PATH: &str = ".lifeboat/hold";

/// Writes the hold file, so that a reader sees the old time or the new one and nothing between.
///
/// # Errors
/// [`SmallFileError`]; the old hold then stands and runs out by itself.
pub async fn write_hold(folder: &Arc<Folder>, hold: Hold) -> Result<(), SmallFileError> {
    let seconds = match hold {
        Hold::Until(moment) => unix_seconds_not_before(moment),
        Hold::Released => 0,
    };
    small_file::write(folder, OURS, PATH, format!("{seconds}\n").into_bytes()).await
}

/// The first whole second of Unix time at or after `moment`. The pod waits until its `date +%s`, which is rounded
/// down, is not less: so it never ends early.
fn unix_seconds_not_before(moment: Moment) -> i64 {
    // In this order: if we are held up between the two readings the result is late, not early.
    let left = moment.left(clock::now());
    let now = jiff::Timestamp::now().as_millisecond();
    let at = now.saturating_add(i64::try_from(left.as_millis()).unwrap_or(i64::MAX));
    at.div_euclid(1000) + i64::from(at.rem_euclid(1000) != 0)
}
