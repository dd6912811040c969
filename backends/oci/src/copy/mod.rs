//! What COPY and ADD share: which files, where to, with which owner and mode.
//!
//! The rules are those of BuildKit's `solver/llbsolver/file` and of `fsutil/copy` below it.

mod archive;
mod parents;
mod place;
mod select;

pub(crate) use parents::Pivoted;
pub(crate) use place::{Placer, Settings};
pub(crate) use select::{leads_out, select};
