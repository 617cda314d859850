//! Judges how the source tree is built: its layers, its import circles, its names, the length of its files, and whether
//! what its documents and comments point at is there.
//!
//! It reads text and neither runs nor imports the project, so its own tests can plant a tree in memory and see that
//! each fault in it is found.
//!
//! `LIFEBOAT_STRUCTURE_ROOT=/path/of/a/tree` has the tests judge another tree than their own.
//!
//! | module | what |
//! |---|---|
//! | [`tree`] | the files of a checkout, or planted ones |
//! | [`workspace`] | the crates: their folders, their names in code, what they depend on |
//! | [`scan`] | one file's paths and types, read from its tokens |
//! | [`source`] | the same of a whole crate |
//! | [`layers`], [`circles`] | who may import whom |
//! | [`types`], [`sizes`], [`words`] | shared names, long files, words that were renamed |
//! | [`places`], [`citations`] | the table of where things are; documents that are cited and are not here |

pub mod circles;
pub mod citations;
pub mod layers;
mod markdown;
pub mod places;
pub mod scan;
pub mod sizes;
pub mod source;
mod tokens;
pub mod tree;
pub mod types;
mod use_tree;
pub mod words;
pub mod workspace;

use std::path::PathBuf;

/// Why a tree cannot be judged. A tree that is judged and found wanting is no error.
#[derive(Debug, thiserror::Error)]
pub enum StructureError {
    /// A file or a folder.
    #[error("{}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file that is not what its name says.
    #[error("{path}:{line}: {why}")]
    Malformed {
        /// Which, from the root of the tree.
        path: String,
        /// Where in it; 1 if that is not known.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
}

impl StructureError {
    fn malformed(path: &str, line: usize, why: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), line, why: why.into() }
    }
}
