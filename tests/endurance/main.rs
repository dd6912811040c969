//! Bad days: programs that are killed, disks that are full, clocks that are wrong, many at once. After each of
//! them the store is sound, the next build is right, and nothing half-written lies around.
//!
//! With the program and the real registry, as `tests/run` starts it. Random moments come from a seed, which every
//! failure names: `WINDLASS_TEST_SEED=N` repeats them.

mod clocks;
mod crowd;
mod full_disk;
mod killed;
mod place;
mod tmpfs;
mod volumes;

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
            let parts = [
                killed::trials(&services),
                crowd::trials(&services),
                full_disk::trials(&services),
                volumes::trials(&services),
                clocks::trials(&services),
            ];
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
