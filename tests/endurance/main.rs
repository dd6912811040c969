//! Bad input and bad days: hostile archives and images, programs that are killed, disks that are full, clocks that
//! are wrong, many at once. After each of them the store is sound, the next build is right, and nothing half-written lies around.
//!
//! With the program and the real registry, as `tests/run` starts it. Random moments come from a seed, which every
//! failure names: `WINDLASS_TEST_SEED=N` repeats them.

mod bombs;
mod clocks;
mod crowd;
mod full_disk;
mod hostile;
mod hostile_registry;
mod killed;
mod place;
mod tmpfs;
mod volumes;

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::Arguments;
use windlass_tests::service;

use place::Services;

fn main() -> ExitCode {
    let arguments = Arguments::from_args();
    let trials = Services::from_environment().map(|services| {
        let services = Arc::new(services);
        let parts = [
            hostile::trials(&services),
            killed::trials(&services),
            crowd::trials(&services),
            full_disk::trials(&services),
            volumes::trials(&services),
            clocks::trials(&services),
        ];
        parts.into_iter().flatten().collect()
    });
    service::run(&arguments, trials)
}
