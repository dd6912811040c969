//! Registries as they are met: every habit, every way to show who we are, every fault; real ones, with a proxy of ours
//! in front that breaks things, and the real program. And who else can read what windlass writes.
//!
//! Each test has a repository of its own. `world.rs` says what is up; `rig.rs` what a test has at hand.

mod accounts;
mod bearer;
mod fetching;
mod habits;
mod mounts;
mod readers;
mod rig;
mod sending;
mod surroundings;
mod tls;
mod world;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use windlass_tests::service;

use world::World;

/// Most tests wait for something most of the time.
const AT_A_TIME: usize = 6;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    if arguments.list {
        // Nothing needs to be up for that.
        return libtest_mimic::run(&arguments, trials(None)).exit_code();
    }
    service::run(&arguments, World::new().map(|world| trials(Some(world))))
}

fn trials(world: Option<World>) -> Vec<Trial> {
    let rig = rig::Rig::new(world);
    let parts = [
        sending::trials(&rig),
        habits::trials(&rig),
        fetching::trials(&rig),
        accounts::trials(&rig),
        bearer::trials(&rig),
        tls::trials(&rig),
        surroundings::trials(&rig),
        mounts::trials(&rig),
        readers::trials(&rig),
    ];
    parts.into_iter().flatten().collect()
}
