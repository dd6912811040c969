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
use windlass_tests::service;

use world::World;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = World::new().map(|world| {
        let parts = [
            table::trials(&world),
            builtin::trials(&world),
            large_tree::trials(&world),
            batch::trials(&world),
            lists::trials(&world),
            generator::trials(&world),
            questions::trials(&world),
        ];
        parts.into_iter().flatten().collect()
    });
    service::run(&arguments, trials)
}
