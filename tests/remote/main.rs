//! Build services on a good day and on every bad one: services of ours that do what they are told, also wrong, and the
//! real program. Each scenario is held against its outcome: exit code, words, number and shape of the requests.
//!
//! Nothing here needs an engine or a registry but what is said to. `rig.rs` says what a test has at hand.

mod bad_days;
mod clocks;
mod forms;
mod image_builder;
mod images;
mod ledger;
mod load;
mod network;
mod refusals;
mod rig;
mod snapshots;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// Most tests wait for something most of the time.
const AT_A_TIME: usize = 6;

fn main() -> ExitCode {
    // A process that one of the tests started.
    if let Some(code) = load::ordered() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    let rig = rig::Rig::default();
    let parts = [
        forms::trials(&rig),
        bad_days::trials(&rig),
        refusals::trials(&rig),
        ledger::trials(&rig),
        images::trials(&rig),
        snapshots::trials(&rig),
        image_builder::trials(&rig),
        network::trials(&rig),
        clocks::trials(&rig),
        load::trials(&rig),
    ];
    libtest_mimic::run(&arguments, parts.into_iter().flatten().collect()).exit_code()
}
