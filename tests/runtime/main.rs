//! real engine, the real registry, and build services that really build.
//!
//! Every test has a home, a cache and repositories of its own. `world.rs` says what is up, `rig.rs` what a test has at
//! hand, `project.rs` what is built: a small platform with a recipe of its own.

mod bases;
mod batch;
mod builtin;
mod generator;
mod large_tree;
mod lists;
mod project;
mod questions;
mod registry;
mod report;
mod rig;
mod table;
mod world;

use std::process::ExitCode;

use libtest_mimic::Arguments;

use world::World;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match World::new() {
        Ok(world) => [
            table::trials(&world),
            builtin::trials(&world),
            large_tree::trials(&world),
            batch::trials(&world),
            lists::trials(&world),
            generator::trials(&world),
            questions::trials(&world),
        ]
        .into_iter()
        .flatten()
        .collect(),
        Err(absent) => vec![absent.trial()],
    };
    assert!(!trials.is_empty(), "a suite without tests proves nothing");
    libtest_mimic::run(&arguments, trials).exit_code()
}
