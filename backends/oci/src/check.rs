//! What a build would need, looked at one by one.

use std::path::Path;

use windlass_core::backend::{CheckReport, Job};
use windlass_core::error::Error;
use windlass_core::image::ImageStore;
use windlass_core::registry::RegistryClient;

use crate::backend::Oci;

/// Below this, a build of any size will not fit.
const LITTLE_SPACE_BYTES: u64 = 1 << 30;

/// Looks at the store, the space for it, and the registries of the configuration.
pub(crate) async fn run(oci: &Oci, job: &Job) -> CheckReport {
    let dir = oci.store_dir();
    let looked = job.blocking(move |_| {
        let mut report = CheckReport::default();
        look_at_store(&dir, &mut report);
        look_at_space(&dir, &mut report);
        Ok(report)
    });
    let mut report = match looked.await {
        Ok(report) => report,
        // What was not looked at is not good.
        Err(error) => {
            let mut report = CheckReport::default();
            report.bad("image store", in_words(&error), "check again");
            report
        }
    };
    let client = &oci.host().registry_client;
    for registry in client.settings().hosts.keys() {
        look_at_registry(client, registry, &mut report, job).await;
    }
    report
}

/// Looks at a registry that the configuration speaks of.
async fn look_at_registry(client: &RegistryClient, registry: &str, report: &mut CheckReport, job: &Job) {
    let what = format!("registry {registry}");
    match job.run(client.ping(registry, job)).await {
        Ok(ping) if ping.accepted => report.good(what, "reachable"),
        Ok(_) => {
            report.warning(what, "reachable, and wants credentials", format!("run `docker login {registry}`"))
        }
        Err(error) => {
            report.bad(what, in_words(&error), "see whether the address is right and the registry is up")
        }
    }
}

fn look_at_store(dir: &Path, report: &mut CheckReport) {
    let usable = ImageStore::open(dir).and_then(|store| {
        // The writer is dropped unused, and its file with it.
        let writer = store.writer()?;
        drop(writer);
        store.list()
    });
    match usable {
        Ok(images) => report.good("image store", format!("{} ({} names)", dir.display(), images.len())),
        Err(error) => {
            let hint = "make the directory writable, or choose another: `--set backends.oci.store=DIR`";
            report.bad("image store", in_words(&error), hint);
        }
    }
}

fn look_at_space(dir: &Path, report: &mut CheckReport) {
    let existing = dir.ancestors().find(|dir| dir.exists());
    let Some(Ok(free)) = existing.map(free_bytes) else { return };
    let seen = format!("{} MiB free", free >> 20);
    if free < LITTLE_SPACE_BYTES {
        report.warning("space for images", seen, "remove images that are not needed: `windlass image rm`");
    } else {
        report.good("space for images", seen);
    }
}

fn free_bytes(dir: &Path) -> std::io::Result<u64> {
    let space = rustix::fs::statvfs(dir)?;
    Ok(space.f_bavail.saturating_mul(space.f_frsize))
}

fn in_words(error: &Error) -> String {
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        words.push_str(&format!(": {next}"));
        cause = next.source();
    }
    words
}
