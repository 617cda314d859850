//! What the agent, its engines and its drill share of the node they run on.
//!
//! | module | what |
//! |---|---|
//! | [`clock`] | the node's boot clock, and what the rest of the world has instead |
//! | [`small_file`] | small files in a pod's volume, read and written off the async threads |
//! | [`hold`] | the hold file, by which a pod waits for its save |
//! | [`causes`], [`exit`] | what stands behind an error; exit codes |
//!
//! Decides nothing. It does not know what any of it is for.

pub mod causes;
pub mod clock;
pub mod exit;
pub mod hold;
pub mod small_file;
