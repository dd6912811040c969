//! What a user does at a terminal, with the real engine and the real registry: what is printed where, and how the
//! program ends. What needs no services is tested beside the program, in `cli/tests`.

mod builds;
mod images;
mod place;
mod refusals;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::Arguments;
use windlass_tests::service;

use place::Services;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = Services::from_environment().map(|services| {
        let services = Arc::new(services);
        let parts = [builds::trials(&services), images::trials(&services), refusals::trials(&services)];
        parts.into_iter().flatten().collect()
    });
    service::run(&arguments, trials)
}
