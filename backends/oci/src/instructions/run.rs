//! RUN. A program needs namespaces and mounts, which this backend has not; so a Dockerfile whose
//! target needs one is refused before any work. What needs no program is to remove files: `RUN ["rm",
//! "-rf", "--", "/srv/app"]` means the same everywhere, and [`crate::removal`] does it.

use windlass_core::backend::Feature;
use windlass_core::dockerfile::{Instruction, Source};
use windlass_core::error::Error;

/// The refusal, with the line. The pipeline adds the backends that can.
pub(crate) fn refusal(source: &Source, instruction: &Instruction) -> Error {
    Error::unsupported(Feature::Run, "the backend `oci` cannot run programs, and the target needs a RUN")
        .with_source("RUN needs a container to run in; `oci` only puts files and settings together")
        .with_source_line(source.line(instruction.location))
}
