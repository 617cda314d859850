//! What the fuzz targets share: a count of the memory that the code under test takes, and a store to put hostile
//! objects into.
//!
//! libFuzzer's own limits see a process that is far too large; [`memory::within`] sees one that is too large for
//! what it was given.

pub mod bench;
pub mod memory;
