//! Programs of others that read what windlass writes: into registries, layouts and archives.

use std::process::Command;

use libtest_mimic::{Failed, Trial};

use crate::rig::{LARGE_BYTES, Rig, SMALL_BYTES, Test, command};

/// The tests of this file.
pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("readers::skopeo_reads_the_registry", skopeo_registry),
        rig.trial("readers::oras_reads_the_registry", oras_registry),
        rig.trial("readers::skopeo_reads_files", skopeo_files),
        rig.trial("readers::umoci_unpacks_a_layout", umoci_layout),
        rig.trial("readers::docker_loads_an_archive", docker_load),
        rig.trial("readers::podman_loads_an_archive", podman_load),
    ]
}

/// Sends an image to the open registry and gives its name there and its digest.
fn sent(test: &Test) -> Result<(String, String), Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    test.push(test.world.open.address())?.good()?;
    Ok((test.tag(test.world.open.address()), image.root_digest))
}

fn path(test: &Test, name: &str) -> String {
    test.path(name).display().to_string()
}

fn skopeo_registry(test: &Test) -> Result<(), Failed> {
    let (tag, digest) = sent(test)?;
    let from = format!("docker://{tag}");
    let seen = command("skopeo", &["inspect", "--tls-verify=false", "--format", "{{.Digest}}", &from])?;
    assert_eq!(seen.trim(), digest);
    let to = format!("dir:{}", path(test, "copied"));
    command("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &from, &to])?;
    Ok(())
}

fn oras_registry(test: &Test) -> Result<(), Failed> {
    let (tag, digest) = sent(test)?;
    let seen = command("oras", &["manifest", "fetch", "--plain-http", "--descriptor", &tag])?;
    assert!(seen.contains(&digest), "{seen}");
    let to = path(test, "copied");
    command("oras", &["cp", "--from-plain-http", "--to-oci-layout", &tag, &format!("{to}:1")])?;
    Ok(())
}

fn skopeo_files(test: &Test) -> Result<(), Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    for (output, transport, name) in [
        ("type=oci,dest=oci.tar", "oci-archive", "oci.tar"),
        ("type=docker,dest=docker.tar", "docker-archive", "docker.tar"),
        ("type=oci,dest=tree,tar=false", "oci", "tree"),
    ] {
        test.windlass(&["build", ".", "-o", output])?.good()?;
        let from = format!("{transport}:{}", path(test, name));
        let to = format!("dir:{}", path(test, &format!("copied-{name}")));
        command("skopeo", &["copy", "--quiet", &from, &to])?;
        let layers = command("skopeo", &["inspect", "--format", "{{len .Layers}}", &from])?;
        assert_eq!(layers.trim(), image.layers.len().to_string(), "{transport}");
    }
    Ok(())
}

fn umoci_layout(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    test.windlass(&["build", ".", "-t", "umoci:1", "-o", "type=oci,dest=tree,tar=false"])?.good()?;
    let (tree, bundle) = (format!("{}:1", path(test, "tree")), path(test, "bundle"));
    command("umoci", &["unpack", "--rootless", "--image", &tree, &bundle])?;
    for name in ["file0", "file1"] {
        let unpacked = std::fs::read(test.path("bundle/rootfs").join(name))?;
        assert!(unpacked == std::fs::read(test.path(name))?, "{name}");
    }
    Ok(())
}

fn docker_load(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let name = format!("windlass.test/{}:1", test.repository);
    test.windlass(&["build", ".", "-t", &name, "-o", "type=docker,dest=docker.tar"])?.good()?;
    let docker = |arguments: &[&str]| -> Result<String, Failed> {
        let output =
            Command::new("docker").env("DOCKER_HOST", &test.world.engine).args(arguments).output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let said = docker(&["load", "--input", &path(test, "docker.tar")])?;
    let layers = docker(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", &name]);
    docker(&["image", "rm", "--force", &name])?;
    assert!(said.contains(&name), "{said}");
    assert_eq!(layers?.trim(), "1");
    Ok(())
}

fn podman_load(test: &Test) -> Result<(), Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    // It wants a path of at most 50 characters.
    let short = tempfile::tempdir_in("/tmp")?;
    let (root, run) = (path(test, "podman"), short.path().display().to_string());
    let podman = |arguments: &[&str]| -> Result<String, Failed> {
        // Without a kernel's overlay file system, which containers seldom have.
        let own = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
        let output = Command::new("podman").env_remove("DOCKER_CONFIG").args(own).args(arguments).output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let name = format!("windlass.test/{}:1", test.repository);
    test.windlass(&["build", ".", "-t", &name, "-o", "type=docker,dest=docker.tar"])?.good()?;
    podman(&["load", "--quiet", "--input", &path(test, "docker.tar")])?;
    let layers = podman(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", &name])?;
    podman(&["image", "rm", "--all", "--force"])?;
    assert_eq!(layers.trim(), image.layers.len().to_string());
    Ok(())
}
