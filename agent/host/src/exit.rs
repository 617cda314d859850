//! The exit codes of every subcommand.

/// It was done, and the answer is no: something was found, differs, or broke a guarantee. Also of a command that can fail in
/// one way only.
pub const NO: u8 = 1;
/// It could not be done.
pub const FAILED: u8 = 2;
/// `EX_USAGE` of sysexits.h: the command line is wrong, nothing was done.
pub const USAGE: u8 = 64;
/// 128 + SIGINT, as a shell has it.
pub const INTERRUPTED: u8 = 130;
