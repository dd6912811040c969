//! Builds that cannot work, and builds that the user stops.

use std::path::Path;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_tests::service::StalledRegistry;

use crate::place::{Place, Services, interrupt, wait_until};

/// The tests of this file.
pub(crate) fn trials(services: &Arc<Services>) -> Vec<Trial> {
    vec![
        services.trial("refused_run_without_docker", run_without_docker),
        services.trial("refused_run_that_fails", run_that_fails),
        services.trial("refused_engine_down", engine_down),
        services.trial("refused_registry_down", registry_down),
        services.trial("refused_base_missing", base_missing),
        services.trial("interrupted_during_docker_run", interrupted_run),
        services.trial("interrupted_during_upload", interrupted_upload),
        services.trial("timed_out_during_upload", timed_out_upload),
    ]
}

fn run_without_docker(place: &Place) -> Result<(), Failed> {
    place.dockerfile("FROM {busybox}\nRUN make\n")?;
    place.run(&["build", "."])?.refused(2, &["RUN make", "Dockerfile:2", "docker"])
}

fn run_that_fails(place: &Place) -> Result<(), Failed> {
    place.dockerfile("FROM {busybox}\nRUN echo the last words && exit 7\n")?;
    place
        .run(&["build", ".", "-b", "docker"])?
        .refused(1, &["RUN echo the last words", "7", "the last words"])
}

fn engine_down(place: &Place) -> Result<(), Failed> {
    place.dockerfile("FROM scratch\nCOPY Dockerfile /\n")?;
    let outcome =
        place.run_with(&["build", ".", "-b", "docker"], &[("DOCKER_HOST", "unix:///nowhere.sock")])?;
    outcome.refused(3, &["nowhere.sock", "start docker"])
}

fn registry_down(place: &Place) -> Result<(), Failed> {
    place.dockerfile("FROM scratch\nCOPY Dockerfile /\n")?;
    for backend in ["oci", "docker"] {
        let line = ["build", ".", "-b", backend, "-t", "127.0.0.1:9/team/app:1", "--push"];
        place.run(&line)?.refused(3, &["127.0.0.1:9", "refused"])?;
    }
    Ok(())
}

fn base_missing(place: &Place) -> Result<(), Failed> {
    place.write("Dockerfile", format!("FROM {}/none/such:1\nENV A=1\n", place.services.registry))?;
    for backend in ["oci", "docker"] {
        place.run(&["build", ".", "-b", backend])?.refused(1, &["none/such:1", "Dockerfile:1"])?;
    }
    Ok(())
}

/// True while a process has this on its command line.
fn runs(text: &str) -> bool {
    let carries = |entry: std::fs::DirEntry| {
        let numbered = entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok());
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        numbered && String::from_utf8_lossy(&line).replace('\0', " ").contains(text)
    };
    std::fs::read_dir("/proc").into_iter().flatten().flatten().any(carries)
}

fn leaves_nothing(place: &Place) -> Result<(), Failed> {
    wait_until("no process of the build", || !runs(&place.mark().display().to_string()))?;
    let incoming = place.mark().join("home/cache/windlass/images/incoming");
    let left = std::fs::read_dir(&incoming).map_or(0, Iterator::count);
    assert_eq!(left, 0, "half-written blobs in {}", incoming.display());
    Ok(())
}

fn interrupted_run(place: &Place) -> Result<(), Failed> {
    // A number that no other process has on its command line.
    let sleep = format!("sleep 2{}", std::process::id());
    place.dockerfile(&format!("FROM {{busybox}}\nRUN {sleep}\n"))?;
    let child = place.start(&["build", ".", "-b", "docker"])?;
    wait_until("the container runs", || runs(&sleep))?;
    interrupt(child)?.refused(130, &["cancelled"])?;
    wait_until("the container is gone", || !runs(&sleep))?;
    leaves_nothing(place)
}

fn stalled_build<'a>(registry: &StalledRegistry, tag: &'a mut String) -> [&'a str; 5] {
    *tag = format!("{}/team/app:1", registry.address());
    ["build", ".", "--push", "-t", tag]
}

fn interrupted_upload(place: &Place) -> Result<(), Failed> {
    let (registry, mut tag) = (StalledRegistry::start()?, String::new());
    place.dockerfile("FROM scratch\nCOPY Dockerfile /\n")?;
    let child = place.start(&stalled_build(&registry, &mut tag))?;
    wait_until("the registry is silent", || registry.has_stalled())?;
    interrupt(child)?.refused(130, &["cancelled"])?;
    leaves_nothing(place)
}

fn timed_out_upload(place: &Place) -> Result<(), Failed> {
    let (registry, mut tag) = (StalledRegistry::start()?, String::new());
    place.dockerfile("FROM scratch\nCOPY Dockerfile /\n")?;
    let line = [&stalled_build(&registry, &mut tag)[..], &["--timeout", "2s"]].concat();
    place.run(&line)?.refused(4, &["stopped after 2"])?;
    assert!(Path::new(&place.path("Dockerfile")).exists());
    leaves_nothing(place)
}
