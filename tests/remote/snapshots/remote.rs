//! Snapshots of images that the service builds.

use libtest_mimic::Trial;
use windlass_tests::service::together::Habits;

use super::trial;
use crate::rig::{Rig, same};

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![dry_run(rig)]
}

/// What would be asked is shown; nothing is asked, and nobody is told who we are.
fn dry_run(rig: &Rig) -> Trial {
    trial(rig, "dry_run", Habits::default, |case| {
        let line = ["create", "--dry-run", "--alias", "a@b", "--ttl", "5"];
        let remote = case.run(&[&line[..], &["--context", "app"]].concat())?.good()?.to_owned();
        let local =
            case.run(&[&line[..], &["--context", "app", "--backend", "oci"]].concat())?.good()?.to_owned();
        let image = case.run(&[&line[..], &["--image", "node:22"]].concat())?.good()?.to_owned();
        let built = case.run(&[&line[..], &["--built", "r.example.com/p/a:1"]].concat())?.good()?.to_owned();
        for shown in [&remote, &local, &image, &built] {
            for part in [
                "/container-registries/default/credentials",
                "POST /v1/snapshots to",
                r#""ttl":5"#,
                r#"{"alias":"a@b"}"#,
            ] {
                same(part, shown.contains(part), true)?;
            }
        }
        same("the service builds", (remote.contains("/builds"), image.contains("/builds")), (true, true))?;
        same("the push", local.contains("push"), true)?;
        same("requests", case.service.lines().len(), 0)
    })
}
