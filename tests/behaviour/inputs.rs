//! Requests that no directory alone can express: entries in memory, a Dockerfile from elsewhere, no context at all.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use sha2::{Digest as _, Sha256};
use windlass_core::context::{Context, ContextPath, ContextSettings, Modes};
use windlass_core::output::Output;
use windlass_core::request::{BuildRequest, DockerfileSource};
use windlass_tests::image_check::{Ignoring, Image, Platform, compare};
use windlass_tests::scenario::{Expectation, absent, at, only};
use windlass_tests::service::http::{Answer, listen};

use crate::left_over;
use crate::outputs::run;
use crate::rig::{Rig, Setup, shown};
use crate::suite::{BACKENDS, LOCAL};
use crate::world::World;

/// The tests of this file: each builds on all backends and compares.
pub(crate) fn trials(world: &Arc<World>) -> Vec<Trial> {
    vec![
        world.trial("same::dockerfile_outside_the_context", dockerfile_outside),
        world.trial("same::dockerfile_from_nowhere", dockerfile_from_nowhere),
        world.trial("same::entries_in_memory_win", entries_in_memory),
        world.trial("same::context_in_memory_alone", context_in_memory),
        world.trial("same::modes_normalized", modes_normalized),
        world.trial("same::ignore_file_switched_off", ignore_file_switched_off),
        world.trial("same::add_of_addresses", add_of_addresses),
        world.trial("same::add_of_repositories", add_of_repositories),
        world
            .trial("docker::dockerfile_that_cannot_be_hidden_is_warned_of", dockerfile_that_cannot_be_hidden),
    ]
}

/// Builds the request that `make` gives for a directory, on all backends, and expects equal images that are so.
fn all(
    world: &World,
    root: &Path,
    make: impl Fn(&Path) -> Result<BuildRequest, Failed>,
    expected: &[Expectation],
) -> Result<(), Failed> {
    all_but(world, root, make, expected, &[])
}

/// The same, where the images of a backend differ from ours in these paths, for the reason that the caller gives.
fn all_but(
    world: &World,
    root: &Path,
    make: impl Fn(&Path) -> Result<BuildRequest, Failed>,
    expected: &[Expectation],
    different: &[(&str, &'static str)],
) -> Result<(), Failed> {
    let mut wrong = Vec::new();
    let mut ours = None;
    for backend in BACKENDS {
        let root = root.join(backend);
        fs::create_dir_all(root.join("context"))?;
        let rig = Rig::new(&root, Setup::of(world, &root, backend)).map_err(|error| shown(&error))?;
        let request = make(&root.join("context"))?;
        let before = left_over::files(&root.join("context"));
        let name = root.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy().into_owned();
        let reference = rig
            .push(world, request, &format!("inputs/{name}"))
            .map_err(|error| format!("{backend}: {}", shown(&error)))?;
        assert_eq!(left_over::files(&root.join("context")), before, "{backend} changed the context");
        let image = Image::from_registry(&reference, &Platform::amd64())?;
        let mut found: Vec<String> = expected.iter().filter_map(|one| one.objection(&image)).collect();
        if let Some(ours) = &ours {
            let paths: Vec<_> =
                different.iter().filter(|(only, _)| *only == backend).map(|(_, path)| *path).collect();
            let between = Ignoring::between_builders();
            let mut ignoring = if LOCAL.contains(&backend) { between } else { Ignoring::default() };
            if !paths.is_empty() && compare(ours, &image, &ignoring).is_empty() {
                found.push(format!("there is no difference at {paths:?}"));
            }
            ignoring.paths = paths;
            if !ignoring.paths.is_empty() {
                ignoring.config.push("rootfs/diff_ids");
                ignoring.config.push("rootfs/diff_ids/*");
            }
            found.extend(compare(ours, &image, &ignoring));
        }
        wrong.extend(found.into_iter().map(|found| format!("{backend}: {found}")));
        ours = ours.or(Some(image));
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n").into()) }
}

fn context(root: &Path, dockerfile: Option<&Path>) -> Result<Context, Failed> {
    settled(root, dockerfile, &ContextSettings::default())
}

fn settled(root: &Path, dockerfile: Option<&Path>, settings: &ContextSettings) -> Result<Context, Failed> {
    Ok(Context::from_dir(root, dockerfile, settings).map_err(|error| shown(&error))?)
}

/// A Dockerfile that is on no disk.
fn rendered(content: &str) -> DockerfileSource {
    DockerfileSource { shown: "-".into(), path: None, in_context: None, content: content.to_owned().into() }
}

/// A request whose Dockerfile is rendered into the context itself.
fn with_rendered(mut context: Context, content: &str) -> BuildRequest {
    context.insert(path("Dockerfile"), content.to_owned(), 0o644);
    let dockerfile = DockerfileSource { in_context: Some(path("Dockerfile")), ..rendered(content) };
    BuildRequest::new(context, dockerfile)
}

fn path(text: &str) -> ContextPath {
    ContextPath::clean(text).expect("a clean path")
}

fn dockerfile_outside(world: &World, root: &Path) -> Result<(), Failed> {
    let make = |directory: &Path| {
        fs::write(directory.join("a"), "1")?;
        fs::write(directory.join("Dockerfile"), "FROM nothing\n")?;
        let outside = directory.with_file_name("other.Dockerfile");
        fs::write(&outside, "FROM scratch\nCOPY . /\n")?;
        let context = context(directory, Some(&outside))?;
        let content = fs::read(&outside)?.into();
        let dockerfile =
            DockerfileSource { shown: outside.clone(), path: Some(outside), in_context: None, content };
        Ok(BuildRequest::new(context, dockerfile))
    };
    // A service of the Runtime API finds the Dockerfile by its name alone: ours takes the place of the other.
    all_but(world, root, make, &[only("/", &["Dockerfile", "a"])], &[("runtime-api", "/Dockerfile")])
}

fn dockerfile_from_nowhere(world: &World, root: &Path) -> Result<(), Failed> {
    let make = |directory: &Path| {
        fs::write(directory.join("a"), "1")?;
        fs::write(directory.join("b"), "1")?;
        fs::write(directory.join(".dockerignore"), "b\n")?;
        let dockerfile = rendered("FROM scratch\nCOPY . /d/\nCOPY <<EOF /e\ne\nEOF\n");
        Ok(BuildRequest::new(context(directory, None)?, dockerfile))
    };
    all(world, root, make, &[only("/d", &[".dockerignore", "a"]), at("/e").file("e\n")])
}

fn entries_in_memory(world: &World, root: &Path) -> Result<(), Failed> {
    let make = |directory: &Path| {
        fs::write(directory.join("a"), "on disk")?;
        fs::write(directory.join("b"), "on disk")?;
        let mut context = context(directory, None)?;
        context.insert(path("b"), &b"in memory"[..], 0o755);
        context.insert(path("deep/er/c"), &b"c"[..], 0o600);
        context.insert_symlink(path("deep/link"), "er/c");
        context.insert_directory(path("empty"), 0o700);
        Ok(with_rendered(context, "FROM scratch\nCOPY . /d\nCOPY empty /d/copied\n"))
    };
    let expected = [
        only("/d", &["Dockerfile", "a", "b", "copied", "deep", "deep/er", "deep/er/c", "deep/link", "empty"]),
        at("/d/a").file("on disk").mode(0o644),
        at("/d/b").file("in memory").mode(0o755),
        at("/d/deep").directory().mode(0o755),
        at("/d/deep/er/c").file("c").mode(0o600).owner(0, 0),
        at("/d/deep/link").symlink("er/c"),
        at("/d/empty").directory().mode(0o700),
    ];
    all(world, root, make, &expected)
}

fn context_in_memory(world: &World, root: &Path) -> Result<(), Failed> {
    let make = |_: &Path| {
        let mut context = Context::empty();
        context.insert(path("only"), &b"1"[..], 0o644);
        Ok(with_rendered(context, "FROM scratch\nCOPY . /d/\n"))
    };
    all(world, root, make, &[only("/d", &["Dockerfile", "only"])])
}

fn modes_normalized(world: &World, root: &Path) -> Result<(), Failed> {
    let make = |directory: &Path| {
        use std::os::unix::fs::PermissionsExt as _;
        for (name, mode) in [("plain", 0o600), ("tool", 0o700), ("open", 0o666)] {
            fs::write(directory.join(name), name)?;
            fs::set_permissions(directory.join(name), fs::Permissions::from_mode(mode))?;
        }
        fs::create_dir(directory.join("sub"))?;
        fs::set_permissions(directory.join("sub"), fs::Permissions::from_mode(0o700))?;
        let settings = ContextSettings { modes: Modes::Normalize, ..ContextSettings::default() };
        Ok(with_rendered(settled(directory, None, &settings)?, "FROM scratch\nCOPY . /d/\n"))
    };
    let expected = [
        at("/d/plain").mode(0o644),
        at("/d/tool").mode(0o755),
        at("/d/open").mode(0o644),
        at("/d/sub").mode(0o755),
    ];
    all(world, root, make, &expected)
}

fn ignore_file_switched_off(world: &World, root: &Path) -> Result<(), Failed> {
    let make = |directory: &Path| {
        fs::write(directory.join("a"), "1")?;
        fs::write(directory.join(".dockerignore"), "a\n")?;
        let settings = ContextSettings { ignore: false, ..ContextSettings::default() };
        Ok(with_rendered(settled(directory, None, &settings)?, "FROM scratch\nCOPY . /d/\n"))
    };
    all(world, root, make, &[only("/d", &[".dockerignore", "Dockerfile", "a"])])
}

/// Serves the files of a directory, as old as the second 1,000,000,000; `/moved/…` points to the rest of the path.
fn serve(directory: &Path) -> Result<String, Failed> {
    let directory = directory.to_owned();
    let address = listen(move |head, _, stream| {
        let path = head.start[1].split('?').next().unwrap_or_default().to_owned();
        let answer = match (path.strip_prefix("/moved"), fs::read(directory.join(&path[1..]))) {
            (Some(target), _) => Answer::new(302).header("Location", target),
            (None, Ok(content)) => Answer::new(200)
                .header("Last-Modified", "Sun, 09 Sep 2001 01:46:40 GMT")
                .header("Content-Disposition", "attachment; filename=\"another-name\"")
                .body(content),
            (None, Err(_)) => Answer::new(404),
        };
        answer.write(stream, head.start[0] == "HEAD").map(|()| true)
    })?;
    Ok(address)
}

fn add_of_addresses(world: &World, root: &Path) -> Result<(), Failed> {
    let served = root.join("served");
    fs::create_dir_all(&served)?;
    fs::write(served.join("a.txt"), "hello")?;
    let host = serve(&served)?;
    let checksum = Sha256::digest(b"hello").iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let make = |directory: &Path| {
        let dockerfile = format!(
            "FROM scratch\n\
             ARG BASE=http://{host}\n\
             ADD http://{host}/a.txt?x=y /in/\n\
             ADD --checksum=sha256:{checksum} --chmod=755 --chown=5:6 $BASE/moved/a.txt /as/file\n"
        );
        Ok(with_rendered(context(directory, None)?, &dockerfile))
    };
    let expected = [
        only("/", &["as", "as/file", "in", "in/a.txt"]),
        at("/in/a.txt").file("hello").mode(0o600).owner(0, 0).mtime(1_000_000_000),
        at("/as/file").file("hello").mode(0o755).owner(5, 6).mtime(1_000_000_000),
    ];
    all(world, root, make, &expected)?;

    let make = |instruction: &str| {
        let rig = Rig::new(root, Setup::oci(root)).map_err(|error| shown(&error))?;
        let dockerfile = format!("FROM scratch\n{instruction}\n");
        let mut request = BuildRequest::new(Context::empty(), rendered(&dockerfile));
        request.tags = vec!["localhost/refused:1".parse()?];
        let error = rig.build(world, request).err().ok_or("it worked")?;
        let left = left_over::after_failure(&rig);
        assert!(left.is_empty(), "left behind: {left:?}");
        Ok::<_, Failed>(shown(&error))
    };
    let missing = make(&format!("ADD http://{host}/none /"))?;
    assert!(missing.contains("404") && missing.contains("ADD http://"), "{missing}");
    let other = make(&format!("ADD --checksum=sha256:{} http://{host}/a.txt /", "0".repeat(64)))?;
    assert!(other.contains(&checksum), "{other}");
    Ok(())
}

fn add_of_repositories(world: &World, root: &Path) -> Result<(), Failed> {
    let (work, served) = (root.join("work"), root.join("served"));
    fs::create_dir_all(work.join("d"))?;
    fs::create_dir_all(&served)?;
    let git = |arguments: &[&str]| {
        let work = work.display().to_string();
        let who = ["-C", &work, "-c", "user.name=x", "-c", "user.email=x@example.org"];
        run("git", &[&who[..], arguments].concat())
    };
    git(&["init", "-q", "-b", "main"])?;
    fs::write(work.join("a"), "1")?;
    fs::write(work.join("d/tool"), "#!/bin/sh\n")?;
    run("chmod", &["755", &work.join("d/tool").display().to_string()])?;
    git(&["add", "."])?;
    git(&["commit", "-q", "-m", "one"])?;
    git(&["tag", "v1"])?;
    fs::write(work.join("a"), "2")?;
    fs::write(work.join(".dockerignore"), "a\n")?;
    git(&["add", "."])?;
    git(&["commit", "-q", "-m", "two"])?;
    let commit = git(&["rev-parse", "v1"])?.trim().to_owned();
    let bare = served.join("x.git");
    git(&["clone", "-q", "--bare", ".", &bare.display().to_string()])?;
    run("git", &["-C", &bare.display().to_string(), "update-server-info"])?;
    let host = serve(&served)?;
    let make = |directory: &Path| {
        let address = format!("http://{host}/x.git");
        let dockerfile = format!(
            "FROM scratch\n\
             ADD {address} /main\n\
             ADD --chown=5:6 {address}#v1:d /tag/\n\
             ADD {address}#{commit} /commit\n"
        );
        Ok(with_rendered(context(directory, None)?, &dockerfile))
    };
    let expected = [
        at("/main/a").file("2").mode(0o644).owner(0, 0),
        at("/main/.dockerignore").file("a\n"),
        at("/main/d/tool").mode(0o755),
        absent("/main/.git"),
        only("/tag", &["tool"]),
        at("/tag/tool").owner(5, 6),
        at("/commit/a").file("1"),
    ];
    all(world, root, make, &expected)
}

/// BuildKit has no way to keep something of an archive from COPY. Where the context must go as one and the Dockerfile
/// is not part of it, that is said.
fn dockerfile_that_cannot_be_hidden(world: &World, root: &Path) -> Result<(), Failed> {
    let rig = Rig::new(root, Setup::docker(root, &world.classic)).map_err(|error| shown(&error))?;
    let mut context = Context::empty();
    context.insert(path("only"), &b"1"[..], 0o644);
    for (copied, warned) in [("only", false), (".", true)] {
        let mut request =
            BuildRequest::new(context.clone(), rendered(&format!("FROM scratch\nCOPY {copied} /d/\n")));
        let tag = format!("{}/inputs/cannot-be-hidden:1", world.registry);
        request.tags = vec![tag.parse()?];
        request.outputs = vec![Output::push()];
        rig.build(world, request).map_err(|error| shown(&error))?;
        let image = Image::from_registry(&tag, &Platform::amd64())?;
        let names =
            image.files.iter().filter(|(path, _)| path.starts_with("d") && path.parent().is_some()).count();
        // The directory itself and the file, and where it cannot be helped the Dockerfile.
        assert_eq!(names, if warned { 3 } else { 2 });
        let warnings = rig.recorder.warnings();
        assert_eq!(
            warnings.iter().any(|warning| warning.contains("the image will hold")),
            warned,
            "{warnings:?}"
        );
    }
    Ok(())
}
