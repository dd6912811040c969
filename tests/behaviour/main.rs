//! The behaviour suite: every scenario on every backend, against the real engine and the real registry.
//!
//! A scenario makes three tests: `oci::NAME` and `docker::NAME` build it and hold the image, or the error, against
//! what the scenario says; `same::NAME` compares the two images, every file and the config. A backend that lacks a
//! capability shows as ignored with the capability's name, never as passed.
//!
//! Scenarios are data and stand in the files of this directory by theme; the corpus is data as well, and stands in
//! `tests/corpus`: `corpus::AREA::NAME` builds a case of it on both backends and compares. What is no scenario (outputs, cancelling,
//! daemons that are down) is in files that have `trials()`. How one is run: `suite.rs`; on what: `world.rs`.

mod cancel;
mod config;
mod contents;
mod corpus;
mod errors;
mod files;
mod ignore;
mod inputs;
mod kinds;
mod left_over;
mod outputs;
mod real_size;
mod removals;
mod rig;
mod stages;
mod suite;
mod surroundings;
mod world;

use std::process::ExitCode;

use libtest_mimic::Arguments;
use windlass_tests::service;

use world::World;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let scenarios = [
        files::scenarios(),
        kinds::scenarios(),
        ignore::scenarios(),
        contents::scenarios(),
        stages::scenarios(),
        config::scenarios(),
        errors::scenarios(),
        removals::scenarios(),
    ]
    .concat();
    let trials = World::new().map(|world| {
        let parts = [
            suite::trials(&world, scenarios),
            corpus::trials(&world),
            inputs::trials(&world),
            outputs::trials(&world),
            surroundings::trials(&world),
            cancel::trials(&world),
            real_size::trials(&world),
        ];
        parts.into_iter().flatten().collect()
    });
    service::run(&arguments, trials)
}
