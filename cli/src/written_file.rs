//! Files that the commands write, such as `--iidfile`: see [`windlass_core::written_file`].

pub(crate) use windlass_core::written_file::{WrittenFile, check_writable, is_special, write};
