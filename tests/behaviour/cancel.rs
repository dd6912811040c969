//! The user stops a build: it ends soon, says so, and nothing of it goes on.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use windlass_core::ErrorKind;
use windlass_core::events::Event;
use windlass_core::output::Output;
use windlass_core::request::BuildRequest;
use windlass_tests::scenario::{Scenario, scenario};
use windlass_tests::service::StalledRegistry;

use crate::kinds::noise;
use crate::left_over;
use crate::rig::{Rig, Setup, shown};
use crate::world::World;

/// How long what is waited for may take to come about.
const SOON: Duration = Duration::from_secs(60);
/// How long a build that was stopped may take to end.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![
        world.trial("oci::cancelled_before_it_starts", |world, root| {
            before_it_starts(world, root, Setup::oci(root))
        }),
        world.trial("docker::cancelled_before_it_starts", |world, root| {
            before_it_starts(world, root, Setup::docker(root, &world.classic))
        }),
        world.trial("oci::cancelled_during_the_walk", |world, root| {
            during_the_walk(world, root, Setup::oci(root))
        }),
        world.trial("docker::cancelled_while_the_context_is_sent", |world, root| {
            during_the_walk(world, root, Setup::docker(root, &world.classic))
        }),
        world.trial("oci::cancelled_while_an_archive_is_written", while_an_archive_is_written),
        world.trial("oci::cancelled_during_the_upload", during_the_upload),
        world.trial("docker::cancelled_during_run", during_run),
    ]
}

/// Builds, and stops the build as soon as `ready` says so. The build must end as cancelled, soon, and leave nothing.
fn stop_when(
    world: &World,
    rig: &Rig,
    request: BuildRequest,
    ready: impl Fn(&Rig) -> bool + Sync,
) -> Result<(), Failed> {
    let (result, stopped) = thread::scope(|scope| {
        let stopper = scope.spawn(|| {
            let start = Instant::now();
            while !ready(rig) && start.elapsed() < SOON {
                thread::sleep(Duration::from_millis(2));
            }
            rig.job.cancel.cancel();
            Instant::now()
        });
        (rig.build(world, request), stopper.join().expect("the stopper does not panic"))
    });
    let took = stopped.elapsed();
    let left = left_over::after_failure(rig);
    match result {
        Err(error) if error.kind() == ErrorKind::Cancelled => {}
        Err(error) => return Err(format!("it failed as {}", shown(&error)).into()),
        Ok(_) => return Err("it was done before it could be stopped".into()),
    }
    assert!(took < ENDED_WITHIN, "it took {took:?} to end");
    assert!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

/// A build into an archive.
fn into_archive(world: &World, rig: &Rig, scenario: &Scenario) -> Result<BuildRequest, Failed> {
    let mut request = rig.request(world, scenario).map_err(|error| shown(&error))?;
    fs::create_dir_all(rig.root.join("out"))?;
    request.outputs = vec![format!("type=oci,dest={}", rig.root.join("out/image.tar").display()).parse()?];
    Ok(request)
}

/// A build into a registry.
fn into_registry(
    world: &World,
    rig: &Rig,
    scenario: &Scenario,
    registry: &str,
) -> Result<BuildRequest, Failed> {
    let mut request = rig.request(world, scenario).map_err(|error| shown(&error))?;
    request.tags = vec![format!("{registry}/cancelled/image:1").parse()?];
    request.outputs = vec![Output::push()];
    Ok(request)
}

fn rig(root: &Path, setup: Setup) -> Result<Rig, Failed> {
    Ok(Rig::new(root, setup).map_err(|error| shown(&error))?)
}

fn before_it_starts(world: &World, root: &Path, setup: Setup) -> Result<(), Failed> {
    let rig = rig(root, setup)?;
    let scenario = scenario("cancelled").file("a", "1").dockerfile("FROM scratch\nCOPY a /\n");
    let request = into_registry(world, &rig, &scenario, &world.registry)?;
    rig.job.cancel.cancel();
    stop_when(world, &rig, request, |_| true)
}

/// A context in which the walk alone takes a while.
fn many_files(count: usize) -> Scenario {
    (0..count).fold(scenario("cancelled").dockerfile("FROM scratch\nCOPY . /\n"), |scenario, number| {
        scenario.file(format!("d{}/f{number}", number % 100), number.to_string())
    })
}

fn during_the_walk(world: &World, root: &Path, setup: Setup) -> Result<(), Failed> {
    let rig = rig(root, setup)?;
    let request = into_registry(world, &rig, &many_files(20_000), &world.registry)?;
    stop_when(world, &rig, request, |rig| !rig.recorder.events().is_empty())
}

fn while_an_archive_is_written(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::oci(root))?;
    let scenario =
        scenario("cancelled").file("big", noise(60 << 20)).dockerfile("FROM scratch\nCOPY big /\n");
    let request = into_archive(world, &rig, &scenario)?;
    let exporting =
        |event: &Event| matches!(event, Event::StepStarted { name, .. } if name.contains("export"));
    stop_when(world, &rig, request, |rig| rig.recorder.events().iter().any(exporting))
}

fn during_the_upload(world: &World, root: &Path) -> Result<(), Failed> {
    let registry = StalledRegistry::start()?;
    let rig = rig(root, Setup::oci(root))?;
    let scenario = scenario("cancelled").file("big", noise(1 << 20)).dockerfile("FROM scratch\nCOPY big /\n");
    let request = into_registry(world, &rig, &scenario, registry.address())?;
    stop_when(world, &rig, request, |_| registry.has_stalled())
}

fn during_run(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::docker(root, &world.classic))?;
    // A number that no other process has on its command line.
    let sleep = format!("sleep 1{}", std::process::id());
    let scenario =
        scenario("cancelled").dockerfile(format!("FROM {{busybox}}\nRUN echo started && {sleep}\n"));
    let request = into_registry(world, &rig, &scenario, &world.registry)?;
    let started = |event: &Event| matches!(event, Event::StepLogged { line, .. } if line.contains("started"));
    stop_when(world, &rig, request, |rig| rig.recorder.events().iter().any(started))?;

    // The engine takes the container down by itself once its client is gone.
    let start = Instant::now();
    while !left_over::processes(Path::new(&sleep)).is_empty() {
        assert!(start.elapsed() < ENDED_WITHIN, "`{sleep}` still runs in the engine");
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}
