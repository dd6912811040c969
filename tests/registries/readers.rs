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
        rig.trial("readers::podman_pulls_every_form", podman_forms),
        rig.trial("readers::skopeo_reads_every_platform", skopeo_platforms),
        rig.trial("readers::tar_and_skopeo_read_what_is_saved", saved),
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

/// Podman with a storage of its own.
struct Podman {
    root: String,
    run: tempfile::TempDir,
}

impl Podman {
    fn new(test: &Test) -> Result<Self, Failed> {
        // It wants a path of at most 50 characters.
        Ok(Self { root: path(test, "podman"), run: tempfile::tempdir_in("/tmp")? })
    }

    fn call(&self, arguments: &[&str]) -> Result<String, Failed> {
        let run = self.run.path().display().to_string();
        // Without a kernel's overlay file system, which containers seldom have.
        let own = ["--root", &self.root, "--runroot", &run, "--storage-driver", "vfs"];
        let output = Command::new("podman").env_remove("DOCKER_CONFIG").args(own).args(arguments).output()?;
        assert!(output.status.success(), "{output:?}");
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

fn podman_load(test: &Test) -> Result<(), Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let podman = Podman::new(test)?;
    let name = format!("windlass.test/{}:1", test.repository);
    test.windlass(&["build", ".", "-t", &name, "-o", "type=docker,dest=docker.tar"])?.good()?;
    podman.call(&["load", "--quiet", "--input", &path(test, "docker.tar")])?;
    let layers = podman.call(&["image", "inspect", "--format", "{{len .RootFS.Layers}}", &name])?;
    podman.call(&["image", "rm", "--all", "--force"])?;
    assert_eq!(layers.trim(), image.layers.len().to_string());
    Ok(())
}

/// Compressions and families of media types, as files in the end.
fn podman_forms(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    let podman = Podman::new(test)?;
    for (compression, oci) in
        [("gzip", true), ("gzip", false), ("zstd", true), ("uncompressed", true), ("uncompressed", false)]
    {
        let name = format!("{}-{compression}-{oci}", test.tag(test.world.open.address()));
        let output = format!("type=registry,name={name},compression={compression},oci-mediatypes={oci}");
        test.windlass(&["build", ".", "-o", &output])?.good()?;
        podman.call(&["pull", "--quiet", "--tls-verify=false", &name])?;
        let mounted = podman.call(&["image", "mount", &name])?;
        for file in ["file0", "file1"] {
            let pulled = std::fs::read(std::path::Path::new(mounted.trim()).join(file))?;
            assert!(pulled == std::fs::read(test.path(file))?, "{name}: {file}");
        }
        podman.call(&["image", "unmount", &name])?;
    }
    podman.call(&["image", "rm", "--all", "--force"])?;
    Ok(())
}

fn skopeo_platforms(test: &Test) -> Result<(), Failed> {
    test.make_image(&[SMALL_BYTES])?;
    let name = test.tag(test.world.open.address());
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    test.windlass(&[&["build", ".", "-t", &name, "--push"], &platforms[..]].concat())?.good()?;
    test.windlass(&[&["build", ".", "-o", "type=oci,dest=both.tar"], &platforms[..]].concat())?.good()?;
    for (from, to) in [
        (format!("docker://{name}"), "from-registry"),
        (format!("oci-archive:{}", path(test, "both.tar")), "from-archive"),
    ] {
        let raw = command("skopeo", &["inspect", "--raw", "--tls-verify=false", &from])?;
        let raw: serde_json::Value = serde_json::from_str(&raw)?;
        let seen: Vec<_> = raw["manifests"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|manifest| manifest["platform"]["architecture"].as_str())
            .collect();
        assert_eq!(seen, ["amd64", "arm64"], "{from}");
        let to = format!("dir:{}", path(test, to));
        command("skopeo", &["copy", "--all", "--quiet", "--src-tls-verify=false", &from, &to])?;
    }
    Ok(())
}

fn saved(test: &Test) -> Result<(), Failed> {
    let image = test.make_image(&[SMALL_BYTES, LARGE_BYTES])?;
    test.windlass(&["build", ".", "-o", "type=tar,dest=root.tar"])?.good()?;
    let (archive, out) = (path(test, "root.tar"), path(test, "root"));
    std::fs::create_dir(&out)?;
    command("tar", &["--extract", "--file", &archive, "--directory", &out])?;
    for name in ["file0", "file1"] {
        assert!(std::fs::read(test.path("root").join(name))? == std::fs::read(test.path(name))?, "{name}");
    }
    test.windlass(&["build", ".", "-t", "saved:1"])?.good()?;
    for (form, transport) in [("oci", "oci-archive"), ("docker", "docker-archive"), ("oci-dir", "oci")] {
        test.windlass(&["image", "save", "saved:1", "--type", form, "--output", form])?.good()?;
        let from = format!("{transport}:{}", path(test, form));
        let layers = command("skopeo", &["inspect", "--format", "{{len .Layers}}", &from])?;
        assert_eq!(layers.trim(), image.layers.len().to_string(), "{transport}");
    }
    Ok(())
}
