//! What a backend meets around it: an engine that is down, a client without buildx, a registry that is not there, a
//! disk that is full or refuses.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_core::ErrorKind;
use windlass_core::output::Output;
use windlass_core::request::BuildRequest;
use windlass_tests::image_check::{Ignoring, Image, Platform, compare};
use windlass_tests::scenario::{Scenario, scenario};

use crate::kinds::noise;
use crate::left_over;
use crate::outputs::run;
use crate::rig::{Rig, Setup, shown};
use crate::world::World;

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = vec![
        world.trial("docker::engine_is_down", engine_is_down),
        world.trial("docker::buildx_is_missing", buildx_is_missing),
        world.trial("docker::docker_is_missing_and_the_engine_builds", engine_builds),
        world.trial("oci::output_onto_a_full_disk", full_disk),
    ];
    for backend in ["oci", "docker"] {
        let name = |what: &str| format!("{backend}::{what}");
        trials.extend([
            world.trial(name("check_says_that_all_is_well"), move |world, root| {
                all_is_well(world, root, backend)
            }),
            world.trial(name("registry_of_the_push_is_down"), move |world, root| {
                push_fails(world, root, backend)
            }),
            world.trial(name("output_into_a_directory_that_is_missing"), move |world, root| {
                no_directory(world, root, backend)
            }),
            world.trial(name("output_over_a_directory"), move |world, root| {
                over_a_directory(world, root, backend)
            }),
        ]);
    }
    trials
}

fn simple() -> Scenario {
    scenario("simple").file("a", "1").dockerfile("FROM scratch\nCOPY a /\n")
}

fn setup(world: &World, root: &Path, backend: &str) -> Setup {
    // The containerd store, for it can export archives.
    if backend == "oci" { Setup::oci(root) } else { Setup::docker(root, &world.containerd) }
}

fn rig(root: &Path, setup: Setup) -> Result<Rig, Failed> {
    Ok(Rig::new(root, setup).map_err(|error| shown(&error))?)
}

fn request(world: &World, rig: &Rig, scenario: &Scenario, output: &str) -> Result<BuildRequest, Failed> {
    let mut request = rig.request(world, scenario).map_err(|error| shown(&error))?;
    request.outputs = vec![output.parse()?];
    Ok(request)
}

/// Builds, and expects this kind of error with these words.
fn refused(
    world: &World,
    rig: &Rig,
    request: BuildRequest,
    kind: ErrorKind,
    says: &[&str],
) -> Result<(), Failed> {
    let error = match rig.build(world, request) {
        Ok(report) => return Err(format!("it worked: {report:?}").into()),
        Err(error) => error,
    };
    let text = shown(&error);
    assert_eq!(error.kind(), kind, "{text}");
    for part in says {
        assert!(text.contains(part), "it does not say `{part}`:\n{text}");
    }
    assert!(rig.root.exists(), "the test's directory is still there");
    let left = left_over::after_failure(rig);
    assert!(left.is_empty(), "left behind: {left:?}");
    Ok(())
}

fn engine_is_down(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::docker(root, &format!("unix://{}/none.sock", root.display())))?;
    let request = request(world, &rig, &simple(), "type=docker")?;
    refused(world, &rig, request, ErrorKind::Unavailable, &["none.sock", "start docker"])?;
    let report = world.runtime.block_on(rig.backend.check(&rig.job));
    assert!(!report.is_good(), "{report:?}");
    let mut hints = report.items.iter().filter_map(|item| item.hint.as_deref());
    assert!(hints.any(|hint| hint.contains("start docker")), "{report:#?}");
    Ok(())
}

/// A docker client that has no plugins, as far as a build is concerned.
fn docker_without_buildx(root: &Path) -> std::io::Result<PathBuf> {
    fs::create_dir_all(root)?;
    let program = root.join("docker");
    let script = "#!/bin/sh\ncase $1 in\n--version | version) exec /usr/bin/docker \"$@\" ;;\nesac\n\
                  echo \"docker: 'buildx' is not a docker command.\" >&2\nexit 1\n";
    fs::write(&program, script)?;
    fs::set_permissions(&program, Permissions::from_mode(0o755))?;
    Ok(program)
}

fn buildx_is_missing(world: &World, root: &Path) -> Result<(), Failed> {
    let program = docker_without_buildx(root)?.display().to_string();
    let strict = Setup::docker(root, &world.classic).option("docker", program).option("via", "buildx");
    let rig = rig(root, strict)?;
    let request = request(world, &rig, &simple(), "type=docker")?;
    refused(world, &rig, request, ErrorKind::Unavailable, &["buildx", "install the buildx plugin"])
}

/// Where nothing but the engine is there, the engine builds, and the image is the same.
fn engine_builds(world: &World, root: &Path) -> Result<(), Failed> {
    let scenario = scenario("by_the_engine")
        .file("bin/tool", "#!/bin/sh\n")
        .mode(0o755)
        .file("drop.log", "")
        .file("data/ünï", noise(100_000))
        .symlink("link", "bin/tool")
        .file(".dockerignore", "*.log\n")
        .dockerfile(
            "FROM {busybox} AS build\nARG V=1\nCOPY --chown=app . /src/\nRUN echo $V >/src/v\n\
             FROM build\nCOPY <<EOF /etc/note\nnote $V\nEOF\nENV V=$V\nWORKDIR /src\n",
        )
        .build_arg("V", "2")
        .label("l", "v");
    let mut images = Vec::new();
    for (name, docker) in [("through-buildx", "/usr/bin/docker"), ("through-the-engine", "/no/such/docker")] {
        let (root, host) = (root.join(name), &world.classic);
        let rig = rig(&root, Setup::docker(&root, host).option("docker", docker))?;
        let mut request = request(world, &rig, &scenario, "type=docker")?;
        let tag = format!("windlass.test/by-the-engine/{name}:1");
        request.tags = vec![tag.parse()?];
        let report = rig.build(world, request).map_err(|error| shown(&error))?;
        assert_eq!(report.image.references.len(), 1);
        let warned = rig.recorder.warnings().iter().any(|warning| warning.contains("engine"));
        assert_eq!(warned, name != "through-buildx", "{:?}", rig.recorder.warnings());
        let saved = root.join("saved.tar");
        run("docker", &["--host", host, "save", "--output", &saved.display().to_string(), &tag])?;
        run("docker", &["--host", host, "image", "rm", &tag])?;
        images.push(Image::from_archive(&saved, None, &Platform::amd64())?);
    }
    let differences = compare(&images[0], &images[1], &Ignoring::between_builders());
    assert!(differences.is_empty(), "{}", differences.join("\n"));

    // With the containerd store the engine takes no context through its API: moby's build session needs buildx there.
    let root = root.join("containerd");
    let rig = rig(&root, Setup::docker(&root, &world.containerd).option("docker", "/no/such/docker"))?;
    let request = request(world, &rig, &scenario, "type=docker")?;
    refused(world, &rig, request, ErrorKind::Unavailable, &["install the buildx plugin"])
}

fn all_is_well(world: &World, root: &Path, backend: &str) -> Result<(), Failed> {
    let rig = rig(root, setup(world, root, backend))?;
    let report = world.runtime.block_on(rig.backend.check(&rig.job));
    assert!(!report.items.is_empty());
    assert!(report.is_good(), "{report:#?}");
    Ok(())
}

fn push_fails(world: &World, root: &Path, backend: &str) -> Result<(), Failed> {
    let rig = rig(root, setup(world, root, backend))?;
    let mut request = rig.request(world, &simple()).map_err(|error| shown(&error))?;
    // Nobody listens on the discard port.
    request.tags = vec!["127.0.0.1:9/team/app:1".parse()?];
    request.outputs = vec![Output::push()];
    refused(world, &rig, request, ErrorKind::Unavailable, &["127.0.0.1:9"])
}

fn no_directory(world: &World, root: &Path, backend: &str) -> Result<(), Failed> {
    let rig = rig(root, setup(world, root, backend))?;
    let destination = root.join("missing/image.tar");
    let request = request(world, &rig, &simple(), &format!("type=oci,dest={}", destination.display()))?;
    refused(world, &rig, request, ErrorKind::InvalidInput, &["missing"])?;
    assert!(!destination.exists() && !root.join("missing").exists());
    Ok(())
}

fn over_a_directory(world: &World, root: &Path, backend: &str) -> Result<(), Failed> {
    let rig = rig(root, setup(world, root, backend))?;
    let destination = root.join("is-a-directory");
    fs::create_dir_all(&destination)?;
    let request = request(world, &rig, &simple(), &format!("type=oci,dest={}", destination.display()))?;
    refused(world, &rig, request, ErrorKind::InvalidInput, &["is-a-directory"])?;
    assert_eq!(fs::read_dir(&destination)?.count(), 0);
    Ok(())
}

/// A file system with next to no room, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf) -> Result<Self, Failed> {
        fs::create_dir_all(&at)?;
        run("mount", &["-t", "tmpfs", "-o", "size=256k", "tmpfs", &at.display().to_string()])?;
        Ok(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.0.display().to_string()]);
    }
}

fn full_disk(world: &World, root: &Path) -> Result<(), Failed> {
    let disk = SmallDisk::mount(root.join("small"))?;
    let rig = rig(root, Setup::oci(root))?;
    let scenario = scenario("big").file("big", noise(2 << 20)).dockerfile("FROM scratch\nCOPY big /\n");
    for (name, output) in [("archive", "type=oci"), ("docker", "type=docker"), ("tar", "type=tar")] {
        let destination = disk.0.join(name);
        let request = request(world, &rig, &scenario, &format!("{output},dest={}", destination.display()))?;
        refused(
            world,
            &rig,
            request,
            ErrorKind::LocalIo,
            &[&destination.display().to_string(), "No space left"],
        )?;
        assert_eq!(left_over::files(&disk.0), [""; 0], "{name}");
    }
    Ok(())
}
