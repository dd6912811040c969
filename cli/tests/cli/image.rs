//! The local store, archives and layouts.

use crate::sandbox::Sandbox;

fn built() -> Sandbox {
    let sandbox = Sandbox::scratch();
    sandbox.run(&["build", "-q", "-t", "app:1", "-t", "localhost/other:2"]).done();
    sandbox
}

fn references(sandbox: &Sandbox) -> Vec<String> {
    let images = sandbox.run(&["image", "ls", "--format", "json"]).json();
    let names = images.as_array().into_iter().flatten().filter_map(|image| image["reference"].as_str());
    names.map(str::to_owned).collect()
}

#[test]
fn ls_and_rm() {
    let sandbox = built();
    assert_eq!(references(&sandbox), ["docker.io/library/app:1", "localhost/other:2"]);
    let text = sandbox.run(&["images", "ls"]).done();
    assert!(text.starts_with("REFERENCE") && text.contains("app:1"), "{text}");
    sandbox.run(&["image", "rm", "app:2"]).refused(1, &["app:2", "did you mean"]);
    sandbox.run(&["image", "rm", "app:1"]).done();
    assert_eq!(references(&sandbox), ["localhost/other:2"]);
    let blobs = sandbox.home().join(".cache/windlass/images/blobs/sha256");
    let blobs = || std::fs::read_dir(&blobs).expect("blobs").map(|blob| blob.expect("a blob").path());
    // What was used a moment ago is never removed.
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3_600);
    for blob in blobs() {
        std::fs::File::open(blob).and_then(|blob| blob.set_modified(long_ago)).expect("aged");
    }
    assert!(blobs().count() > 0);
    let outcome = sandbox.run(&["image", "rm", "--all"]);
    assert!(outcome.stderr.contains(" freed"), "{outcome:#?}");
    assert_eq!((references(&sandbox), blobs().count()), (vec![], 0));
    sandbox.run(&["image", "rm"]).refused(2, &["REFERENCE"]);
}

#[test]
fn inspect_shows_config_and_layers() {
    let sandbox = built();
    let json = sandbox.run(&["image", "inspect", "app:1", "--format", "json"]).json();
    assert!(json["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:")), "{json:#}");
    assert_eq!(json["images"][0]["manifest"]["layers"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["images"][0]["config"]["os"], "linux");
    assert!(sandbox.run(&["image", "inspect", "app:1"]).done().contains("COPY hello.txt /"));
    sandbox.run(&["image", "inspect", "app:9"]).refused(1, &["app:9"]);
    sandbox.run(&["image", "inspect", "A"]).refused(2, &["invalid image reference"]);
}

#[test]
fn save_and_load_keep_the_digest() {
    let sandbox = built();
    let digest = |sandbox: &Sandbox, name: &str| {
        sandbox.run(&["image", "inspect", name, "--format", "json"]).json()["digest"].clone()
    };
    let original = digest(&sandbox, "app:1");
    for (form, place) in [("oci", "a.tar"), ("oci-dir", "layout"), ("docker", "d.tar")] {
        sandbox.run(&["image", "save", "app:1", "-o", place, "--type", form]).done();
        let other = Sandbox::with(&[]);
        let path = sandbox.path(place);
        let line = ["image", "load", "-i", path.to_str().expect("UTF-8"), "-t", "loaded:1"];
        assert!(other.run(&line).done().starts_with("docker.io/library/loaded:1@sha256:"));
        if form != "docker" {
            assert_eq!(digest(&other, "loaded:1"), original, "{form}");
        }
    }
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn load_reads_stdin_and_wants_a_name() {
    let sandbox = built();
    sandbox.run(&["image", "save", "app:1", "-o", "a.tar"]).done();
    sandbox.run(&["image", "rm", "--all"]).done();
    let load = |tags: &[&str]| {
        let mut command = sandbox.command(&[&["image", "load"], tags].concat());
        command.stdin(std::fs::File::open(sandbox.path("a.tar")).expect("an archive"));
        crate::sandbox::Outcome::of(&command.output().expect("starts"))
    };
    assert!(load(&[]).done().starts_with("docker.io/library/app:1@sha256:"));
    load(&["-t", "x:1", "-t", "y:1"]).done();
    assert_eq!(references(&sandbox).len(), 3);
    sandbox.run(&["build", "-q", "-o", "type=oci,dest=nameless.tar"]).done();
    sandbox.run(&["image", "load", "-i", "nameless.tar"]).refused(2, &["has no name", "--tag"]);
    sandbox.run(&["image", "push", "nameless.tar"]).refused(2, &["where to push"]);
}

#[test]
fn an_archive_on_stdout_is_alone_there() {
    let sandbox = built();
    let save = |form: &str| {
        let output = sandbox.command(&["image", "save", "app:1", "-o", "-", "--type", form]).output();
        output.expect("starts").stdout
    };
    assert_eq!(&save("oci")[257..262], b"ustar");
    assert_eq!(save("docker").len() % 512, 0);
    sandbox.run(&["image", "save", "app:1", "-o", "-", "--type", "oci-dir"]).refused(2, &["stdout"]);
    sandbox.run(&["image", "save", "app:1", "-o", "-", "--format", "json"]).refused(2, &["stdout"]);
}

#[test]
fn inspect_reads_what_is_not_in_the_store() {
    let sandbox = built();
    sandbox.run(&["image", "save", "app:1", "-o", "layout", "--type", "oci-dir"]).done();
    sandbox.run(&["image", "save", "app:1", "-o", "a.tar"]).done();
    let digest = |source: &str| {
        sandbox.run(&["image", "inspect", source, "--format", "json"]).json()["digest"].clone()
    };
    let original = digest("app:1");
    for source in ["layout", "./layout", "a.tar", "oci-layout://layout", "oci-archive:a.tar"] {
        assert_eq!(digest(source), original, "{source}");
    }
    assert_eq!(digest(&format!("layout@{}", original.as_str().expect("a digest"))), original);
}

#[test]
fn what_is_no_archive_is_refused() {
    let sandbox = Sandbox::with(&[("text", "this is no archive\n"), ("empty", ""), ("dir/x", "")]);
    for (line, code, words) in [
        (&["image", "load", "-i", "text"][..], 2, &["text"][..]),
        (&["image", "load", "-i", "empty"], 2, &["empty"]),
        (&["image", "load", "-i", "dir"], 2, &["dir"]),
        (&["image", "load", "-i", "absent"], 1, &["`absent` does not exist"]),
        (&["image", "save", "app:1", "-o", "x.tar"], 1, &["`app:1` is not in the local store"]),
        (&["image", "push", "app:1"], 1, &["`app:1` is not in the local store"]),
        (&["image", "push", "app.tar"], 1, &["no file `app.tar` either"]),
        (&["image", "push", "./absent"], 1, &["`./absent` does not exist"]),
        (&["image", "pull", "127.0.0.1:9/a", "--platform", "linux/amd46"], 2, &["`amd64`"]),
    ] {
        sandbox.run(line).refused(code, words);
    }
    assert_eq!(sandbox.leftovers(), [""; 0]);
}

#[test]
fn verify_finds_damage_and_prune_removes_what_is_not_needed() {
    let sandbox = built();
    assert!(sandbox.run(&["image", "verify"]).done().contains("3 blobs are sound"));
    sandbox.write("hello.txt", "something else\n");
    sandbox.run(&["build", "-q", "-t", "app:1", "-t", "localhost/other:2"]).done();
    let blobs = sandbox.home().join(".cache/windlass/images/blobs/sha256");
    let blobs = || std::fs::read_dir(&blobs).expect("blobs").map(|blob| blob.expect("a blob").path());
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(3_600);
    for blob in blobs() {
        std::fs::File::open(blob).and_then(|blob| blob.set_modified(long_ago)).expect("aged");
    }
    assert_eq!(sandbox.run(&["image", "prune", "--format", "json"]).json()["blobs"], 3);
    assert_eq!((blobs().count(), sandbox.run(&["image", "prune"]).done()), (3, "nothing to remove\n".into()));
    let manifest = sandbox.run(&["image", "inspect", "app:1", "--format", "json"]).json();
    let layer =
        manifest["images"][0]["manifest"]["layers"][0]["digest"].as_str().expect("a layer").to_owned();
    let path = blobs().find(|blob| layer.ends_with(&*blob.file_name().expect("a name").to_string_lossy()));
    let path = path.expect("the layer is there");
    std::fs::remove_file(&path).expect("removed");
    std::fs::write(&path, "damaged").expect("written");
    sandbox.run(&["image", "verify", "app:1"]).refused(1, &["1 damaged blobs", &layer, "build it again"]);
    sandbox.run(&["image", "verify"]).refused(1, &["lacks 1", &layer]);
    sandbox.run(&["image", "verify", "absent:1"]).refused(1, &["absent:1"]);
    sandbox.run(&["build", "-q", "-t", "app:1", "-t", "localhost/other:2"]).done();
    assert!(sandbox.run(&["image", "verify"]).done().contains("3 blobs are sound"));
}

#[test]
fn one_platform_of_several_is_saved() {
    let sandbox = Sandbox::scratch();
    sandbox.run(&["build", "-q", "--platform", "linux/amd64,linux/arm64", "-t", "app:1"]).done();
    sandbox.run(&["image", "save", "app:1", "--type", "docker", "-o", "d.tar"]).refused(2, &["several"]);
    let line = ["image", "save", "app:1", "--type", "docker", "-o", "d.tar", "--platform", "linux/arm64"];
    sandbox.run(&line).done();
    let loaded = sandbox.run(&["image", "inspect", "d.tar", "--format", "json"]).json();
    assert_eq!(loaded["images"][0]["platform"], "linux/arm64");
    let line = ["image", "save", "app:1", "-o", "s.tar", "--platform", "linux/s390x"];
    sandbox.run(&line).refused(1, &["linux/s390x", "linux/arm64"]);
}

#[test]
fn what_unpacks_to_too_much_is_refused() {
    let sandbox = built();
    sandbox.run(&["image", "save", "app:1", "-o", "a.tar"]).done();
    sandbox.run(&["image", "rm", "--all"]).done();
    let outcome = sandbox.run(&["image", "load", "-i", "a.tar", "--set", "limits.unpack=1kB"]);
    outcome.refused(1, &["a.tar", "unpacks to more than 1000 bytes", "limits.unpack"]);
    assert_eq!((references(&sandbox).len(), sandbox.leftovers().len()), (0, 0));
}
