//! How we know that the tests can be believed: the real services answer, and `image_check` says "equal" of images that
//! are equal and "different" or "broken" of those that are not. No windlass in here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Completion, Failed, Trial};
use windlass_tests::image_check::{Error, Ignoring, Image, Kind, Platform, compare};
use windlass_tests::service::{Absent, from_environment, variables};

type Test = fn(&Services) -> Result<(), Failed>;

fn main() -> ExitCode {
    let tests: [(&str, Test); 5] = [
        ("base_images_are_the_same_in_layout_and_registry", base_images_are_the_same_in_layout_and_registry),
        ("index_opens_by_platform", index_opens_by_platform),
        ("two_engines_build_equal_images", two_engines_build_equal_images),
        ("a_changed_mode_is_found", a_changed_mode_is_found),
        ("a_damaged_blob_is_found", a_damaged_blob_is_found),
    ];
    let trials = tests.into_iter().map(|(name, test)| trial(name, test)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A test that runs with the services, is ignored without them, and fails without them where they were promised.
fn trial(name: &str, test: Test) -> Trial {
    match Services::from_environment() {
        Ok(services) => Trial::test(name, move || test(&services)),
        Err(Absent::Missing(reason)) => Trial::test(name, move || Err(reason.into())),
        Err(Absent::Ignored(reason)) => {
            Trial::ignorable_test(name, move || Ok(Completion::ignored_with(reason)))
        }
    }
}

struct Services {
    registry: String,
    classic: String,
    containerd: String,
    bases: PathBuf,
}

impl Services {
    fn from_environment() -> Result<Self, Absent> {
        Ok(Self {
            registry: from_environment(variables::REGISTRY)?,
            classic: from_environment(variables::DOCKER_HOST)?,
            containerd: from_environment(variables::DOCKER_HOST_CONTAINERD)?,
            bases: from_environment(variables::BASES)?.into(),
        })
    }

    /// A context whose image has whiteouts, an emptied directory, links, modes, owners and a path behind a link.
    fn context(&self) -> Result<tempfile::TempDir, Failed> {
        let context = tempfile::tempdir()?;
        let dockerfile = format!(
            "FROM {}/base/busybox:1\n\
             RUN echo one >/one && ln /one /two && mkdir -p /d/e && echo x >/d/e/x && chmod 4755 /d/e/x\n\
             RUN rm /one && rm -r /d/e && mkdir /d/e && echo y >/d/e/y && chown 1000:50 /d/e/y\n\
             COPY --chown=app:app file /lib64/file\n\
             ENV A=1\n\
             USER app\n",
            self.registry
        );
        fs::write(context.path().join("Dockerfile"), dockerfile)?;
        fs::write(context.path().join("file"), "content")?;
        Ok(context)
    }
}

fn docker(host: &str, arguments: &[&str]) -> Result<(), Failed> {
    let output = Command::new("docker").args(["--host", host]).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr)).into())
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn expect_equal(left: &Image, right: &Image, ignoring: &Ignoring) -> Result<(), Failed> {
    let differences = compare(left, right, ignoring);
    if differences.is_empty() { Ok(()) } else { Err(differences.join("\n").into()) }
}

fn base_images_are_the_same_in_layout_and_registry(services: &Services) -> Result<(), Failed> {
    for (name, tag) in [("debian", "bookworm"), ("busybox", "1")] {
        let layout = Image::from_layout(&services.bases.join(name), Some(tag), &Platform::amd64())?;
        let reference = format!("{}/base/{name}:{tag}", services.registry);
        let registry = Image::from_registry(&reference, &Platform::amd64())?;
        assert_eq!(layout.root_digest, registry.root_digest);
        expect_equal(&layout, &registry, &Ignoring::default())?;
        assert_eq!(
            layout.files.get("/tmp").map(|entry| (entry.kind, entry.mode)),
            Some((Kind::Directory, 0o1777))
        );
        assert_eq!(layout.files.remarks(), [""; 0]);
    }
    Ok(())
}

fn index_opens_by_platform(services: &Services) -> Result<(), Failed> {
    let reference = format!("{}/base/busybox:1", services.registry);
    let amd64 = Image::from_registry(&reference, &Platform::amd64())?;
    let arm64 = Image::from_registry(&reference, &Platform::arm64())?;
    assert_eq!(amd64.config["architecture"], "amd64");
    assert_eq!(arm64.config["architecture"], "arm64");
    assert_eq!(amd64.root_digest, arm64.root_digest);
    let other = Platform { architecture: "riscv64".into(), ..Platform::amd64() };
    assert!(matches!(Image::from_registry(&reference, &other), Err(Error::Wrong { .. })));
    Ok(())
}

fn two_engines_build_equal_images(services: &Services) -> Result<(), Failed> {
    let context = services.context()?;
    let reference = format!("{}/harness/equal:1", services.registry);
    let build = ["buildx", "build", "--quiet", "--output"];
    let directory = text(context.path());

    docker(
        &services.classic,
        &[&build[..], &[&format!("type=image,push=true,name={reference}"), &directory]].concat(),
    )?;
    let pushed = Image::from_registry(&reference, &Platform::amd64())?;

    let archives = tempfile::tempdir()?;
    let oci = archives.path().join("oci.tar");
    docker(
        &services.containerd,
        &[&build[..], &[&format!("type=oci,dest={}", text(&oci)), &directory]].concat(),
    )?;
    let exported = Image::from_archive(&oci, None, &Platform::amd64())?;
    expect_equal(&pushed, &exported, &Ignoring::between_builders())?;

    let saved = archives.path().join("docker.tar");
    docker(&services.classic, &["pull", "--quiet", &reference])?;
    docker(&services.classic, &["save", "--output", &text(&saved), &reference])?;
    let saved = Image::from_archive(&saved, None, &Platform::amd64())?;
    expect_equal(&pushed, &saved, &Ignoring::default())?;

    let owner = |path: &str| pushed.files.get(path).map(|entry| (entry.uid, entry.gid));
    assert_eq!(owner("/lib/file"), Some((1000, 1000)), "COPY goes through the link /lib64");
    assert_eq!((owner("/one"), owner("/two")), (None, Some((0, 0))));
    assert_eq!((owner("/d/e/x"), owner("/d/e/y")), (None, Some((1000, 50))));
    Ok(())
}

fn a_changed_mode_is_found(services: &Services) -> Result<(), Failed> {
    let context = services.context()?;
    let build = |mode: &str| -> Result<Image, Failed> {
        let dockerfile = format!("FROM scratch\nCOPY --chmod={mode} file /file\n");
        fs::write(context.path().join("Dockerfile"), dockerfile)?;
        let archive = context.path().join(format!("{mode}.tar"));
        let output = format!("type=oci,dest={}", text(&archive));
        let directory = text(context.path());
        docker(&services.containerd, &["buildx", "build", "--quiet", "--output", &output, &directory])?;
        Ok(Image::from_archive(&archive, None, &Platform::amd64())?)
    };
    let differences = compare(&build("644")?, &build("640")?, &Ignoring::between_builders());
    let about: Vec<&str> = differences.iter().filter_map(|text| text.lines().next()).collect();
    assert_eq!(about, ["/file", "config history/0/created_by"], "{differences:#?}");
    Ok(())
}

fn a_damaged_blob_is_found(services: &Services) -> Result<(), Failed> {
    let copy = tempfile::tempdir()?;
    let source = format!("oci:{}:1", text(&services.bases.join("busybox")));
    let layout = copy.path().join("layout");
    let destination = format!("oci:{}:1", text(&layout));
    let copied = Command::new("skopeo").args(["copy", "--quiet", "--all", &source, &destination]).output()?;
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));

    let image = Image::from_layout(&layout, Some("1"), &Platform::amd64())?;
    let digest = &image.layers[0].digest;
    let blob = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let mut bytes = fs::read(&blob)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&blob, bytes)?;
    match Image::from_layout(&layout, Some("1"), &Platform::amd64()) {
        Err(Error::Wrong { what, .. }) if what == *digest => Ok(()),
        other => Err(format!("the damage went unnoticed: {:?}", other.map(|image| image.digest)).into()),
    }
}
