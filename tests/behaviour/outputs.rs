//! Where results go, read back by programs that are not ours: skopeo, umoci, `docker load`.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use libtest_mimic::{Failed, Trial};
use serde_json::Value;
use windlass_core::backend::FindScope;
use windlass_core::output::Output;
use windlass_core::pipeline::{BuildReport, PipelineOptions, Reuse};
use windlass_core::reference::Reference;
use windlass_tests::image_check::{Ignoring, Image, Listing, Platform, compare, compare_files};
use windlass_tests::scenario::{Scenario, scenario};

use crate::rig::{Rig, Setup, shown};
use crate::world::World;

/// The tests of this file.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    let mut trials = vec![
        world.trial("oci::output_store_is_found_again", oci_store_is_found_again),
        world.trial("docker::output_store_is_found_again", docker_store_is_found_again),
        world.trial("oci::output_archive_is_read_by_skopeo", archive_is_read_by_skopeo),
        world.trial("oci::output_layout_is_unpacked_by_umoci", layout_is_unpacked_by_umoci),
        world.trial("oci::output_docker_archive_is_loaded_by_both_engines", docker_archive_is_loaded),
        world.trial("oci::output_of_several_kinds_at_once", several_kinds_at_once),
        world.trial("oci::output_compressed_with_zstd", compressed_with_zstd),
        world.trial("oci::output_is_the_same_anywhere_and_any_time", same_anywhere_and_any_time),
        world.trial("oci::output_of_two_platforms_is_one_index", two_platforms_are_one_index),
        world.trial("oci::reuse_of_the_fingerprint_in_the_registry", reuse_in_the_registry),
    ];
    for backend in ["oci", "docker"] {
        let name = |what: &str| format!("{backend}::output_{what}");
        trials.push(
            world.trial(name("pushed_is_in_the_registry"), move |world, root| pushed(world, root, backend)),
        );
        trials.push(
            world.trial(name("tar_is_the_flattened_image"), move |world, root| tar(world, root, backend)),
        );
        trials.push(
            world.trial(name("local_is_the_flattened_image"), move |world, root| local(world, root, backend)),
        );
    }
    trials
}

/// An image with most kinds of things in it.
fn sample() -> Scenario {
    scenario("sample")
        .file("bin/tool", "#!/bin/sh\n")
        .mode(0o4755)
        .file("data/ünï", "text")
        .mode(0o640)
        .directory("data/empty")
        .symlink("data/link", "../bin/tool")
        .dockerfile(
            "FROM {busybox}\nCOPY --chown=1000:50 . /app/\nCOPY bin /lib64/\nENV A=1\nLABEL l=v\nWORKDIR /app\n\
             ENTRYPOINT [\"/app/bin/tool\"]\n",
        )
}

/// Builds the sample in a directory, with these outputs and tags.
fn build(world: &World, rig: &Rig, outputs: &[&str], tags: &[&str]) -> Result<BuildReport, Failed> {
    let mut request = rig.request(world, &sample()).map_err(|error| shown(&error))?;
    request.outputs = outputs.iter().map(|output| output.parse().expect("an output")).collect();
    request.tags = tags.iter().map(|tag| tag.parse().expect("a reference")).collect();
    Ok(rig.build(world, request).map_err(|error| shown(&error))?)
}

fn rig(root: &Path, setup: Setup) -> Result<Rig, Failed> {
    Ok(Rig::new(root, setup).map_err(|error| shown(&error))?)
}

/// Runs a program and gives what it printed.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String, Failed> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let line = arguments.join(" ");
    Err(format!("`{program} {line}` failed: {}", String::from_utf8_lossy(&output.stderr)).into())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("paths of tests are text")
}

fn equal(left: &Image, right: &Image, ignoring: &Ignoring) -> Result<(), Failed> {
    let differences = compare(left, right, ignoring);
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n").into()) }
}

fn oci_store_is_found_again(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::oci(root))?;
    let first = build(world, &rig, &["type=image"], &[])?.image;
    assert!(!first.reused);
    let reference = first.references.first().ok_or("no reference")?.clone();
    assert!(reference.to_string().contains(":fp-"), "{reference}");

    let second = build(world, &rig, &["type=image"], &[])?.image;
    assert!(second.reused, "nothing changed");
    assert_eq!((second.digest, second.references.first()), (first.digest, Some(&reference)));

    let found = world.runtime.block_on(rig.backend.find(&reference, FindScope::Store, &rig.job));
    let found = found.map_err(|error| shown(&error))?.ok_or("the image is not found")?;
    assert_eq!((found.digest, found.in_registry), (first.digest, false));

    fs::write(root.join("context/bin/tool"), "#!/bin/sh\nexit 1\n")?;
    let request = rig.read(world, &sample()).map_err(|error| shown(&error))?;
    let third = rig.build(world, request).map_err(|error| shown(&error))?.image;
    assert!(!third.reused, "a file changed");
    assert_ne!(third.digest, first.digest);
    Ok(())
}

fn docker_store_is_found_again(world: &World, root: &Path) -> Result<(), Failed> {
    for (name, host) in [("classic", &world.classic), ("containerd", &world.containerd)] {
        let root = root.join(name);
        let rig = rig(&root, Setup::docker(&root, host))?;
        let first = build(world, &rig, &["type=docker"], &[])?.image;
        assert!(!first.reused);
        let reference = first.references.first().ok_or("no reference")?.clone();
        let inspected = run("docker", &["--host", host, "image", "inspect", &reference.to_string()])?;
        let inspected: Value = serde_json::from_str(&inspected)?;
        assert_eq!(inspected[0]["Config"]["Labels"]["l"], "v");

        let second = build(world, &rig, &["type=docker"], &[])?.image;
        assert!(second.reused, "nothing changed on the engine with the {name} store");
        assert_eq!(second.references.first(), Some(&reference));
    }
    Ok(())
}

fn pushed(world: &World, root: &Path, backend: &'static str) -> Result<(), Failed> {
    let rig = rig(root, setup_of(world, root, backend))?;
    let repository = format!("{}/outputs/pushed-{backend}", world.registry);
    let tags = [format!("{repository}:1"), format!("{repository}:latest")];
    let report = build(world, &rig, &["type=registry"], &[&tags[0], &tags[1]])?;
    let digest = report.image.digest.ok_or("no digest")?.to_string();
    for tag in &tags {
        let image = Image::from_registry(tag, &Platform::amd64())?;
        assert_eq!(image.root_digest, digest);
        assert_eq!(image.config["config"]["Labels"]["l"], "v");
        let source = format!("docker://{tag}");
        let inspected = run("skopeo", &["inspect", "--tls-verify=false", &source])?;
        let inspected: Value = serde_json::from_str(&inspected)?;
        assert_eq!((&inspected["Digest"], &inspected["Labels"]["l"]), (&digest.as_str().into(), &"v".into()));
        let reference: Reference = tag.parse()?;
        let found = world.runtime.block_on(rig.backend.find(&reference, FindScope::Registry, &rig.job));
        let found = found.map_err(|error| shown(&error))?.ok_or("the image is not found")?;
        assert_eq!(
            (found.digest.map(|digest| digest.to_string()), found.in_registry),
            (Some(digest.clone()), true)
        );
    }
    Ok(())
}

fn archive_is_read_by_skopeo(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::oci(root))?;
    let archive = root.join("image.tar");
    let report = build(world, &rig, &[&format!("type=oci,dest={}", text(&archive))], &["team/app:1"])?;
    assert_eq!(report.image.written, [archive.as_path()]);
    let inspected = run("skopeo", &["inspect", &format!("oci-archive:{}", text(&archive))])?;
    let inspected: Value = serde_json::from_str(&inspected)?;
    assert_eq!(inspected["Digest"].as_str(), report.image.digest.map(|digest| digest.to_string()).as_deref());

    let copy = root.join("copy");
    run(
        "skopeo",
        &["copy", "-q", &format!("oci-archive:{}", text(&archive)), &format!("oci:{}:x", text(&copy))],
    )?;
    let (ours, theirs) = (
        Image::from_archive(&archive, None, &Platform::amd64())?,
        Image::from_layout(&copy, Some("x"), &Platform::amd64())?,
    );
    assert_eq!(ours.digest, theirs.digest);
    assert_eq!(
        Some(ours.manifest["config"]["digest"].clone()),
        report.image.image_id.map(|id| id.to_string().into())
    );
    equal(&ours, &theirs, &Ignoring::default())
}

fn layout_is_unpacked_by_umoci(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::oci(root))?;
    let layout = root.join("layout");
    build(world, &rig, &[&format!("type=oci,tar=false,dest={}", text(&layout))], &["team/app:1"])?;
    let image = Image::from_layout(&layout, None, &Platform::amd64())?;
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json"))?)?;
    let tag =
        index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().ok_or("no tag")?;

    let bundle = root.join("bundle");
    run("umoci", &["unpack", "--image", &format!("{}:{tag}", text(&layout)), text(&bundle)])?;
    files_equal(&image.files, &listing_of(&bundle.join("rootfs"))?)?;

    // A second image in the same layout leaves the first one where it is.
    build(world, &rig, &[&format!("type=oci,tar=false,dest={}", text(&layout))], &["team/app:2"])?;
    for tag in ["1", "2"] {
        Image::from_layout(&layout, Some(tag), &Platform::amd64())?;
    }
    Ok(())
}

fn docker_archive_is_loaded(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::oci(root))?;
    let (docker, oci) = (root.join("docker.tar"), root.join("oci.tar"));
    let outputs = [format!("type=docker,dest={}", text(&docker)), format!("type=oci,dest={}", text(&oci))];
    let tag = "windlass.test/outputs/loaded:1";
    build(world, &rig, &[&outputs[0], &outputs[1]], &[tag])?;
    let ours = Image::from_archive(&oci, None, &Platform::amd64())?;
    for (name, host) in [("classic", &world.classic), ("containerd", &world.containerd)] {
        run("docker", &["--host", host, "load", "--quiet", "--input", text(&docker)])?;
        let inspected: Value =
            serde_json::from_str(&run("docker", &["--host", host, "image", "inspect", tag])?)?;
        assert_eq!(inspected[0]["Config"]["Entrypoint"][0], "/app/bin/tool", "{name}");
        assert_eq!(inspected[0]["RootFS"]["Layers"], ours.config["rootfs"]["diff_ids"], "{name}");
        let saved = root.join(format!("{name}.tar"));
        run("docker", &["--host", host, "save", "--output", text(&saved), tag])?;
        equal(&ours, &Image::from_archive(&saved, None, &Platform::amd64())?, &Ignoring::default())?;
        run("docker", &["--host", host, "image", "rm", tag])?;
    }
    let inspected = run("skopeo", &["inspect", &format!("docker-archive:{}", text(&docker))])?;
    assert!(inspected.contains("\"l\": \"v\""), "{inspected}");
    Ok(())
}

fn several_kinds_at_once(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::oci(root))?;
    let archive = root.join("image.tar");
    let tag = format!("{}/outputs/several:1", world.registry);
    let outputs = ["type=image", "type=registry", &format!("type=oci,dest={}", text(&archive))];
    let digest = build(world, &rig, &outputs, &[&tag])?.image.digest.ok_or("no digest")?.to_string();
    assert_eq!(Image::from_archive(&archive, None, &Platform::amd64())?.digest, digest);
    assert_eq!(Image::from_registry(&tag, &Platform::amd64())?.digest, digest);
    let found = world.runtime.block_on(rig.backend.find(&tag.parse()?, FindScope::Store, &rig.job));
    assert!(found.map_err(|error| shown(&error))?.is_some());
    Ok(())
}

fn compressed_with_zstd(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::oci(root))?;
    let (gzip, zstd) = (root.join("gzip.tar"), root.join("zstd.tar"));
    build(world, &rig, &[&format!("type=oci,dest={}", text(&gzip))], &[])?;
    build(world, &rig, &[&format!("type=oci,dest={},compression=zstd", text(&zstd))], &[])?;
    let gzip = Image::from_archive(&gzip, None, &Platform::amd64())?;
    let zstd = Image::from_archive(&zstd, None, &Platform::amd64())?;
    let top = |image: &Image| image.layers.last().map(|layer| layer.media_type.clone()).unwrap_or_default();
    assert!(top(&gzip).ends_with("tar+gzip") && top(&zstd).ends_with("tar+zstd"));
    equal(&gzip, &zstd, &Ignoring::default())
}

fn same_anywhere_and_any_time(world: &World, root: &Path) -> Result<(), Failed> {
    let mut digests = Vec::new();
    for (name, age) in [("here", 0), ("there/and/elsewhere", 400_000_000)] {
        let root = root.join(name);
        let rig = rig(&root, Setup::oci(&root))?;
        let mut request = rig.request(world, &sample()).map_err(|error| shown(&error))?;
        let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(age));
        for file in ["bin/tool", "data/ünï", "bin", "data", "data/empty", ""] {
            File::open(root.join("context").join(file))?.set_times(times)?;
        }
        let archive = format!("type=oci,dest={}", text(&root.join("image.tar")));
        request.outputs = vec![archive.parse()?];
        let report = rig.build(world, request).map_err(|error| shown(&error))?;
        digests.push((report.image.digest, fs::read(root.join("image.tar"))?.len()));
    }
    assert_eq!(digests[0], digests[1]);
    Ok(())
}

fn two_platforms_are_one_index(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = rig(root, Setup::oci(root))?;
    let mut request = rig.request(world, &sample()).map_err(|error| shown(&error))?;
    request.platforms = vec!["linux/amd64".parse()?, "linux/arm64".parse()?];
    let tag = format!("{}/outputs/index:1", world.registry);
    request.tags = vec![tag.parse()?];
    request.outputs = vec![Output::push()];
    let report = rig.build(world, request).map_err(|error| shown(&error))?;
    assert_eq!(report.image.platforms.len(), 2);
    let digest = report.image.digest.ok_or("no digest")?.to_string();
    for platform in [Platform::amd64(), Platform::arm64()] {
        let image = Image::from_registry(&tag, &platform)?;
        assert_eq!(
            (image.root_digest, &image.config["architecture"]),
            (digest.clone(), &platform.architecture.into())
        );
    }
    Ok(())
}

fn reuse_in_the_registry(world: &World, root: &Path) -> Result<(), Failed> {
    let options = PipelineOptions { reuse: Reuse::Always, ..PipelineOptions::default() };
    let repository = format!("{}/outputs/reused", world.registry);
    let mut digests = Vec::new();
    // A second machine: nothing in its cache.
    for (name, tag) in [("one", "1"), ("two", "2")] {
        let root = root.join(name);
        let rig = rig(&root, Setup::oci(&root))?;
        let mut request = rig.request(world, &sample()).map_err(|error| shown(&error))?;
        request.tags = vec![format!("{repository}:{tag}").parse()?];
        request.outputs = vec![Output::push()];
        let image = rig.build_with(world, request, &options).map_err(|error| shown(&error))?.image;
        assert_eq!(image.reused, name == "two");
        digests.push(Image::from_registry(&format!("{repository}:{tag}"), &Platform::amd64())?.root_digest);
    }
    assert_eq!(digests[0], digests[1]);
    Ok(())
}

/// The image of the sample as one backend makes it, opened.
fn sample_image(world: &World, root: &Path, backend: &'static str) -> Result<Image, Failed> {
    let setup = setup_of(world, root, backend);
    let tag = format!("{}/outputs/sample-{backend}-{}:1", world.registry, std::process::id());
    build(world, &rig(root, setup)?, &["type=registry"], &[&tag])?;
    Ok(Image::from_registry(&tag, &Platform::amd64())?)
}

fn setup_of(world: &World, root: &Path, backend: &'static str) -> Setup {
    if backend == "oci" { Setup::oci(root) } else { Setup::docker(root, &world.classic) }
}

fn tar(world: &World, root: &Path, backend: &'static str) -> Result<(), Failed> {
    let image = sample_image(world, &root.join("image"), backend)?;
    let file = root.join("rootfs.tar");
    let rig = rig(root, setup_of(world, root, backend))?;
    build(world, &rig, &[&format!("type=tar,dest={}", text(&file))], &[])?;
    files_equal(&image.files, &Listing::of_tar(File::open(&file)?, "rootfs.tar")?)
}

fn local(world: &World, root: &Path, backend: &'static str) -> Result<(), Failed> {
    let image = sample_image(world, &root.join("image"), backend)?;
    let directory = root.join("rootfs");
    let rig = rig(root, setup_of(world, root, backend))?;
    build(world, &rig, &[&format!("type=local,dest={}", text(&directory))], &[])?;
    // buildx gives all files to whoever runs it.
    let ignoring = Ignoring { mtimes: true, owners: backend == "docker", ..Ignoring::default() };
    let differences = compare_files(&image.files, &listing_of(&directory)?, &ignoring);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    // A test's directory must be removable whatever modes the image has.
    fs::set_permissions(directory.join("root"), Permissions::from_mode(0o755))?;
    Ok(())
}

/// The tree below a directory, as GNU tar sees it.
fn listing_of(directory: &Path) -> Result<Listing, Failed> {
    let arguments = ["--create", "--numeric-owner", "--format=pax", "--directory", text(directory), "."];
    let tar = Command::new("tar").args(arguments).output()?;
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    Ok(Listing::of_tar(tar.stdout.as_slice(), "tar of a directory")?)
}

fn files_equal(left: &Listing, right: &Listing) -> Result<(), Failed> {
    let differences = compare_files(left, right, &Ignoring { mtimes: true, ..Ignoring::default() });
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n").into()) }
}
