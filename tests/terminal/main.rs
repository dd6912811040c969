//! What a user does at a terminal, with the real engine and the real registry: what is printed where, and how the
//! program ends. What needs no services is tested beside the program, in `cli/tests`.

mod builds;
mod images;
mod place;
mod refusals;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Completion, Trial};
use windlass_tests::service::Absent;

use place::Services;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = match Services::from_environment() {
        Ok(services) => {
            let services = Arc::new(services);
            let parts = [builds::trials(&services), images::trials(&services), refusals::trials(&services)];
            parts.into_iter().flatten().collect()
        }
        Err(absent) => vec![without_services(absent)],
    };
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn without_services(absent: Absent) -> Trial {
    Trial::ignorable_test("all", move || match absent {
        Absent::Missing(reason) => Err(reason.into()),
        Absent::Ignored(reason) => Ok(Completion::ignored_with(reason)),
    })
}
