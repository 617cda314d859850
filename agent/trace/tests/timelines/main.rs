//! Single evacuations and restores, moment by moment, each as a test that can be read.
//!
//! Times are milliseconds since the start of the timeline. With a notice of 120 s at 0 the deadline
//! is at 115 000, and the cut-off of a pod with 30 s of grace at 98 000 (15 s for the pod, 2 s for the
//! commit).
//!
//! `golden` holds whole evacuations as text files, of which one command writes all anew.

mod announcements;
mod departures;
mod drills;
mod endangered;
mod evictions;
mod golden;
mod local_reloads;
mod marks;
mod notices;
mod others;
mod progress;
mod restarts;
mod restore_limits;
mod restore_patience;
mod restores;
mod resumes;
mod shortage;
mod stage;
mod starts;
