//! Whole builds on `scratch`, into a store in a temporary directory: no network.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use windlass_core::archive::unpack::TarReader;
use windlass_core::archive::{ArchiveSettings, TarEntry, TarKind, TarWriter, decompress};
use windlass_core::backend::{Backend, Feature, FindScope, Job};
use windlass_core::backend_registry::Host;
use windlass_core::context::{Context, ContextPath, ContextSettings};
use windlass_core::error::{Error, ErrorKind, Result};
use windlass_core::image::{Image, ImageStore};
use windlass_core::registry::{RegistryClient, RegistrySettings};
use windlass_core::request::{BuildRequest, BuiltImage, DockerfileSource, NamedContext};

use crate::{Oci, OciConfig};

mod forms;
mod removals;
mod reuse;
mod sending;

/// A context and a Dockerfile, and where they are built.
struct Bench {
    dir: TempDir,
    oci: Oci,
}

/// What came out: the image, and all files with type, mode, owner and content.
struct Outcome {
    image: Image,
    files: BTreeMap<String, String>,
    /// The names in each layer, in its order.
    layers: Vec<Vec<String>>,
    /// What they are.
    kinds: Vec<Vec<TarKind>>,
}

impl Bench {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let host = Host {
            environment: BTreeMap::new(),
            home_dir: None,
            current_dir: dir.path().to_owned(),
            cache_dir: dir.path().join("cache"),
            state_dir: dir.path().join("state"),
            registry_client: RegistryClient::new(RegistrySettings::default()).unwrap(),
            archive: ArchiveSettings::default(),
        };
        std::fs::create_dir(dir.path().join("context")).unwrap();
        let oci = Oci::new("oci", OciConfig::default(), Arc::new(host));
        Self { dir, oci }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("context").join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self
    }

    fn link(&self, name: &str, target: &str) -> &Self {
        std::os::unix::fs::symlink(target, self.path(name)).unwrap();
        self
    }

    fn mode(&self, name: &str, mode: u32) -> &Self {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    fn request(&self, dockerfile: &str) -> BuildRequest {
        let context =
            Context::from_dir(&self.dir.path().join("context"), None, &ContextSettings::default()).unwrap();
        let source = DockerfileSource {
            shown: PathBuf::from("Dockerfile"),
            path: None,
            in_context: None,
            content: dockerfile.to_owned().into(),
        };
        let mut request = BuildRequest::new(context, source);
        request.tags = vec!["localhost/test".parse().unwrap()];
        request
    }

    async fn run(&self, request: &BuildRequest) -> Result<BuiltImage> {
        self.oci.build(request, &Job::silent()).await
    }

    async fn build(&self, dockerfile: &str) -> Outcome {
        self.outcome(&self.request(dockerfile)).await
    }

    async fn outcome(&self, request: &BuildRequest) -> Outcome {
        let built = self.run(request).await.unwrap_or_else(|error| panic!("{error:?}"));
        let store = ImageStore::open(self.oci.store_dir()).unwrap();
        let descriptor = store.resolve(&built.references[0]).unwrap().unwrap();
        let image = Image::load(&store, &descriptor).unwrap();
        read_layers(&store, image)
    }

    async fn refuse(&self, dockerfile: &str) -> Error {
        self.run(&self.request(dockerfile)).await.expect_err(dockerfile)
    }
}

fn read_layers(store: &ImageStore, image: Image) -> Outcome {
    let mut files: BTreeMap<String, String> = BTreeMap::new();
    let mut layers = Vec::new();
    let mut all_kinds = Vec::new();
    for layer in &image.manifest.layers {
        let blob = std::io::BufReader::new(store.open_blob(&layer.digest).unwrap());
        let mut reader = TarReader::new(decompress(blob).unwrap());
        let mut names = Vec::new();
        let mut kinds = Vec::new();
        while let Some(mut member) = reader.next_member().unwrap() {
            let mut content = String::new();
            member.read_to_string(&mut content).unwrap();
            let entry = &member.entry;
            let name = String::from_utf8(entry.path.clone()).unwrap();
            let kind = match &entry.kind {
                TarKind::Directory => "dir".to_owned(),
                TarKind::File { .. } => format!("{content:?}"),
                TarKind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
                TarKind::HardLink { target } => files[&*String::from_utf8_lossy(target)].clone(),
                other => format!("{other:?}"),
            };
            let whole = match entry.kind {
                TarKind::HardLink { .. } => kind,
                _ => format!("{:o} {}:{} {kind}", entry.mode, entry.uid, entry.gid),
            };
            files.insert(name.clone(), whole);
            names.push(name);
            kinds.push(member.entry.kind.clone());
        }
        layers.push(names);
        all_kinds.push(kinds);
    }
    Outcome { image, files, layers, kinds: all_kinds }
}

impl Outcome {
    fn file(&self, name: &str) -> &str {
        self.files.get(name).map_or("missing", String::as_str)
    }

    fn history(&self) -> Vec<&str> {
        self.image.config.history.iter().filter_map(|entry| entry.created_by.as_deref()).collect()
    }
}

fn archive(entries: &[(&str, TarKind, &str)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (path, kind, content) in entries {
        let entry = TarEntry { uid: 7, gid: 8, mtime: 1, ..TarEntry::new(*path, kind.clone(), 0o640) };
        tar.append_bytes(&entry, content.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

#[tokio::test]
async fn the_config_says_what_the_instructions_do() {
    let bench = Bench::new();
    let out = bench
        .build(concat!(
            "FROM scratch\n",
            "ARG V=1 W\n",
            "ENV A=1 B=\"x $V\"\n",
            "ENV A=2 C=$A\n",
            "LABEL l=\"a b\" m=$C\n",
            "EXPOSE 80 53/udp\n",
            "VOLUME /a \"/b\"\n",
            "USER app\n",
            "SHELL [\"/bin/bash\", \"-c\"]\n",
            "ENTRYPOINT run it\n",
            "CMD [\"a\", \"b\"]\n",
            "STOPSIGNAL SIGTERM\n",
            "HEALTHCHECK --interval=30s --retries=3 CMD true\n",
            "ONBUILD COPY . /x\n",
            "MAINTAINER me\n",
        ))
        .await;
    let config = &out.image.config.config;
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(config.env, [path, "A=2", "B=x 1", "C=1"]);
    assert_eq!((config.labels["l"].as_str(), config.labels["m"].as_str()), ("a b", "1"));
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["53/udp", "80/tcp"]);
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/a", "/b"]);
    assert_eq!(config.entrypoint.as_deref().unwrap(), ["/bin/bash", "-c", "run it"]);
    assert_eq!(config.cmd.as_deref().unwrap(), ["a", "b"]);
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("app", "/"));
    assert_eq!(
        (config.stop_signal.as_str(), config.on_build.as_slice()),
        ("SIGTERM", &["COPY . /x".to_owned()][..])
    );
    assert_eq!(config.healthcheck.as_ref().unwrap().test, ["CMD-SHELL", "true"]);
    assert_eq!(out.image.config.author.as_deref(), Some("me"));
    assert_eq!(
        out.history(),
        [
            "ARG V=1 W",
            "ENV A=1 B=x 1",
            "ENV A=2 C=1",
            "LABEL l=a b m=1",
            "EXPOSE map[53/udp:{} 80/tcp:{}]",
            "VOLUME [/a /b]",
            "USER app",
            "SHELL [/bin/bash -c]",
            "ENTRYPOINT [\"/bin/bash\" \"-c\" \"run it\"]",
            "CMD [\"a\" \"b\"]",
            "STOPSIGNAL SIGTERM",
            "HEALTHCHECK &{[\"CMD-SHELL\" \"true\"] \"30s\" \"0s\" \"0s\" \"0s\" '\\x03'}",
            "MAINTAINER me",
        ]
    );
    assert!(out.image.config.history.iter().all(|entry| entry.empty_layer));
}

#[tokio::test]
async fn an_entrypoint_drops_the_command_of_the_base_only() {
    let bench = Bench::new();
    let out = bench.build("FROM scratch AS a\nCMD x\nFROM a\nENTRYPOINT [\"y\"]\n").await;
    assert_eq!(out.image.config.config.cmd, None);
    let out = bench.build("FROM scratch\nCMD [\"x\"]\nENTRYPOINT [\"y\"]\n").await;
    assert_eq!(out.image.config.config.cmd.as_deref().unwrap(), ["x"]);
}

#[tokio::test]
async fn copies_land_where_buildkit_puts_them() {
    let bench = Bench::new();
    bench.write("a.txt", "a").write("b.txt", "b").write("d/x", "x").write("d/e/y", "y").write("script", "#!");
    bench.mode("script", 0o755).mode("d", 0o700).mode("d/e", 0o750).mode("a.txt", 0o644).mode("b.txt", 0o600);
    let out = bench
        .build(concat!(
            "FROM scratch\n",
            "COPY a.txt /one\n",
            "COPY a.txt /dir/\n",
            "COPY a.txt b.txt /many/\n",
            "COPY d /copied\n",
            "COPY d/ script /both/\n",
            "WORKDIR /w/x\n",
            "COPY a.txt .\n",
            "COPY *.txt rel/\n",
            "COPY d /dir\n",
            "COPY --chown=1:2 --chmod=640 a.txt /own/deep/a\n",
        ))
        .await;
    for (name, expected) in [
        ("one", "644 0:0 \"a\""),
        ("dir", "755 0:0 dir"),
        ("dir/a.txt", "644 0:0 \"a\""),
        ("many/b.txt", "600 0:0 \"b\""),
        // The directory that a source directory becomes is made like any parent.
        ("copied", "755 0:0 dir"),
        ("copied/e", "750 0:0 dir"),
        ("copied/e/y", "644 0:0 \"y\""),
        ("both/x", "644 0:0 \"x\""),
        ("both/script", "755 0:0 \"#!\""),
        ("w/x", "755 0:0 dir"),
        ("w/x/a.txt", "644 0:0 \"a\""),
        ("w/x/rel/b.txt", "600 0:0 \"b\""),
        ("dir/e/y", "644 0:0 \"y\""),
        ("own", "755 1:2 dir"),
        ("own/deep", "755 1:2 dir"),
        ("own/deep/a", "640 1:2 \"a\""),
    ] {
        assert_eq!(out.file(name), expected, "{name}");
    }
    assert_eq!(out.layers[0], ["one"]);
    assert_eq!(out.layers[1], ["dir", "dir/a.txt"]);
    assert_eq!(out.history()[0], "COPY a.txt /one # buildkit");
    assert_eq!(out.history().last().unwrap(), &"COPY --chown=1:2 --chmod=640 a.txt /own/deep/a # buildkit");
}

#[tokio::test]
async fn parents_are_kept_and_exclusions_left_out() {
    let bench = Bench::new();
    bench
        .write("a/b/c.txt", "c")
        .write("a/d.txt", "d")
        .write("a/e.md", "e")
        .mode("a/b", 0o700)
        .mode("a", 0o711);
    let out = bench
        .build(concat!(
            "FROM scratch\n",
            "COPY --parents a/b /p/\n",
            "COPY --parents ./a/./*.txt /q/\n",
            "COPY --exclude=*.md --exclude=b a /r/\n",
            "COPY --exclude=** --exclude=!b/c.txt a /s/\n",
        ))
        .await;
    assert_eq!((out.file("p/a"), out.file("p/a/b")), ("711 0:0 dir", "700 0:0 dir"));
    assert_eq!((out.file("p/a/b/c.txt"), out.file("p/a/d.txt")), ("644 0:0 \"c\"", "missing"));
    assert_eq!((out.file("q/d.txt"), out.file("q/b")), ("644 0:0 \"d\"", "missing"));
    assert_eq!(
        (out.file("r/d.txt"), out.file("r/e.md"), out.file("r/b")),
        ("644 0:0 \"d\"", "missing", "missing")
    );
    assert_eq!(
        (out.file("s/b"), out.file("s/b/c.txt"), out.file("s/d.txt")),
        ("700 0:0 dir", "644 0:0 \"c\"", "missing")
    );
    assert_eq!(out.history()[0], "COPY --parents a/b /p/ # buildkit");
    assert!(bench.refuse("FROM scratch\nCOPY --parents x/y /\n").await.message().contains("does not exist"));
}

#[tokio::test]
async fn layers_are_reproducible_to_the_bit() {
    let build = async || {
        let bench = Bench::new();
        bench.write("b", "2").write("a", "1").write("d/c", "3").mode("d", 0o755);
        for name in ["a", "b", "d/c"] {
            bench.mode(name, 0o644);
        }
        let mut request = bench.request("FROM scratch\nCOPY . /\n");
        request.platforms = vec!["linux/amd64".parse().unwrap()];
        // What a compressor makes of it is another test's business.
        request.outputs = vec!["type=image,compression=uncompressed".parse().unwrap()];
        bench.run(&request).await.unwrap().digest.unwrap().to_string()
    };
    let first = build().await;
    assert_eq!(first, build().await);
    // Changes only when layers, config or manifest are meant to change.
    assert_eq!(first, GOLDEN);
}

const GOLDEN: &str = "sha256:0c2623ed9932682394924c4e0a2bc47c21e00e21d590c99ab954a85c76bf7cfe";

#[tokio::test]
async fn links_of_the_stage_lead_the_way_and_stay() {
    let bench = Bench::new();
    bench.write("f", "f").write("root/usr/lib/old", "o").link("root/lib", "usr/lib");
    let out = bench.build("FROM scratch\nCOPY root /\nCOPY f /lib/new\nCOPY f /lib/\nWORKDIR /lib/w\n").await;
    assert_eq!(out.file("lib"), "777 0:0 -> usr/lib");
    assert_eq!(out.file("usr/lib/new"), "644 0:0 \"f\"");
    assert_eq!(out.file("usr/lib/f"), "644 0:0 \"f\"");
    assert_eq!(out.file("usr/lib/w"), "755 0:0 dir");
    assert_eq!(out.file("lib/new"), "missing");
}

#[tokio::test]
async fn a_linked_copy_does_not_look_at_the_stage() {
    let bench = Bench::new();
    bench.write("f", "f").write("root/usr/lib/old", "o").link("root/lib", "usr/lib");
    let out = bench.build("FROM scratch AS s\nCOPY root /\nCOPY --link f /lib/x/f\nWORKDIR /lib/w\nFROM scratch\nCOPY --from=s / /\n").await;
    assert_eq!(out.file("lib"), "755 0:0 dir");
    assert_eq!((out.file("lib/x/f"), out.file("lib/w")), ("644 0:0 \"f\"", "755 0:0 dir"));
    assert_eq!(out.file("usr/lib/old"), "644 0:0 \"o\"");
}

#[tokio::test]
async fn links_of_the_context_are_followed_at_the_source_only() {
    let bench = Bench::new();
    bench.write("real/x", "x").link("l", "real").link("real/inner", "x").link("dangling", "nowhere");
    let out = bench.build("FROM scratch\nCOPY l /dst/\nCOPY real/inner /y\n").await;
    assert_eq!(out.file("dst/x"), "644 0:0 \"x\"");
    assert_eq!(out.file("dst/inner"), "777 0:0 -> x");
    assert_eq!(out.file("y"), "644 0:0 \"x\"");
    let error = bench.refuse("FROM scratch\nCOPY dangling /\n").await;
    assert!(error.message().contains("is a link to `nowhere`"), "{error:?}");
}

#[tokio::test]
async fn stages_give_files_with_owner_and_mode() {
    let bench = Bench::new();
    bench.write("f", "f").write("g", "g");
    let out = bench
        .build(concat!(
            "FROM scratch AS one\nCOPY --chown=5:6 --chmod=4711 f /bin/f\nCOPY g /bin/sub/g\n",
            "FROM scratch AS unused\nCOPY missing /\n",
            "FROM scratch\nCOPY --from=one /bin /opt\nCOPY --from=0 --chown=9 bin/f /f\n",
        ))
        .await;
    assert_eq!(out.file("opt/f"), "4711 5:6 \"f\"");
    assert_eq!(out.file("opt/sub/g"), "644 0:0 \"g\"");
    assert_eq!(out.file("f"), "4711 9:9 \"f\"");
    assert_eq!(out.history()[0], "COPY /bin /opt # buildkit");
}

#[tokio::test]
async fn hard_links_stay_within_one_copy() {
    let bench = Bench::new();
    bench.write("d/a", "a");
    std::fs::hard_link(bench.path("d/a"), bench.path("d/b")).unwrap();
    let out = bench
        .build("FROM scratch AS s\nCOPY d /one\nCOPY d/a d/b /two/\nFROM scratch\nCOPY --from=s /one /x\nCOPY --from=s /one/a /one/b /y/\n")
        .await;
    let links = |layer: usize| {
        out.kinds[layer].iter().filter(|kind| matches!(kind, TarKind::HardLink { .. })).count()
    };
    assert_eq!((links(0), links(1)), (1, 0));
    for name in ["x/a", "x/b", "y/a", "y/b"] {
        assert!(out.file(name).ends_with("\"a\""), "{name}");
    }
}

#[tokio::test]
async fn the_last_name_of_a_file_in_an_archive_says_what_it_is_like() {
    let bench = Bench::new();
    let mut tar = TarWriter::new(Vec::new());
    let link = |target: &str| TarKind::HardLink { target: target.into() };
    let file = TarKind::File { size_bytes: 1 };
    for (name, kind, mode, uid) in
        [("f", file, 0o604, 5), ("g", link("f"), 0o640, 6), ("h", link("f"), 0o4755, 7)]
    {
        let content: &[u8] = if name == "f" { b"x" } else { b"" };
        let entry = TarEntry { mode, uid, ..TarEntry::new(name, kind, 0) };
        tar.append_bytes(&entry, content).unwrap();
    }
    bench.write("a.tar", tar.finish().unwrap());
    let out = bench.build("FROM scratch\nADD a.tar /\n").await;
    for name in ["f", "g", "h"] {
        assert_eq!(out.file(name), "4755 7:0 \"x\"", "{name}");
    }
}

#[tokio::test]
async fn owners_are_found_by_name_in_the_stage() {
    let bench = Bench::new();
    bench.write("etc/passwd", "app:x:10:20::/:\n").write("etc/group", "staff:x:30:\n").write("f", "f");
    let out = bench
        .build("FROM scratch\nCOPY etc /etc\nCOPY --chown=app f /a\nCOPY --chown=app:staff f /b\nUSER app\nWORKDIR /home/app\n")
        .await;
    assert_eq!((out.file("a"), out.file("b")), ("644 10:20 \"f\"", "644 10:30 \"f\""));
    assert_eq!((out.file("home"), out.file("home/app")), ("755 10:20 dir", "755 10:20 dir"));
}

#[tokio::test]
async fn heredocs_become_files() {
    let bench = Bench::new();
    let out = bench
        .build("FROM scratch\nARG x=1\nCOPY <<one <<-\"two\" /d/\nx=$x \"q\" \\$x\none\n\ty=$x\n\ttwo\nCOPY <<E /named\nz\nE\n")
        .await;
    assert_eq!(out.file("d/one"), "644 0:0 \"x=1 \\\"q\\\" $x\\n\"");
    assert_eq!(out.file("d/two"), "644 0:0 \"y=$x\\n\"");
    assert_eq!(out.file("named"), "644 0:0 \"z\\n\"");
    assert_eq!(out.history()[1], "COPY <<one <<two /d/ # buildkit");
}

#[tokio::test]
async fn add_unpacks_archives_and_copy_does_not() {
    let bench = Bench::new();
    let file = TarKind::File { size_bytes: 1 };
    let link = |target: &str| TarKind::HardLink { target: target.into() };
    let symlink = |target: &str| TarKind::Symlink { target: target.into() };
    bench.write(
        "a.tar",
        archive(&[
            ("sub/f", file.clone(), "x"),
            ("sub/g", link("sub/f"), ""),
            ("s", symlink("/sub"), ""),
            ("s/through", file.clone(), "t"),
        ]),
    );
    bench.write("text.tar", "no archive");
    let out = bench
        .build("FROM scratch\nADD a.tar text.tar /opt/\nCOPY text.tar /t\nADD --chown=3 a.tar /own\n")
        .await;
    assert_eq!(out.file("opt/sub"), "755 0:0 dir");
    assert_eq!(out.file("opt/sub/f"), "640 7:8 \"x\"");
    assert_eq!(out.file("opt/sub/g"), "640 7:8 \"x\"");
    assert_eq!(out.file("opt/s"), "777 7:8 -> /sub");
    // An absolute link of an archive leads to the root of the archive.
    assert_eq!(out.file("opt/sub/through"), "640 7:8 \"t\"");
    assert_eq!(out.file("opt/text.tar"), "644 0:0 \"no archive\"");
    assert_eq!((out.file("own"), out.file("own/sub")), ("755 3:3 dir", "755 0:0 dir"));
    assert_eq!(out.file("own/sub/f"), "640 3:3 \"x\"");
    assert_eq!(out.file("own/s"), "777 3:3 -> /sub");
    bench.write("climbing.tar", climbing_archive());
    let out = bench.build("FROM scratch\nADD climbing.tar /d/\n").await;
    assert_eq!(out.file("d/x"), "640 7:8 \"x\"");
}

/// One member whose name leads out of the root; our writer would not write it.
fn climbing_archive() -> Vec<u8> {
    let mut bytes = archive(&[("aa/x", TarKind::File { size_bytes: 1 }, "x")]);
    bytes[..4].copy_from_slice(b"../x");
    let sum: u32 =
        bytes[..148].iter().chain(&bytes[156..512]).map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    bytes[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

#[tokio::test]
async fn excluded_and_missing_sources_are_told_apart() {
    let bench = Bench::new();
    bench.write(".dockerignore", "# x\nsecret*\n").write("secret.txt", "s").write("a", "a");
    let error = bench.refuse("FROM scratch\n\nCOPY secret.txt /\n").await;
    assert_eq!(error.message(), "`secret.txt` is excluded from the build context");
    assert_eq!(error.source_line().unwrap().line, 3);
    assert!(error.details()[0].1.ends_with(".dockerignore:2: `secret*`"), "{error:?}");
    let error = bench.refuse("FROM scratch\nCOPY nothing /\n").await;
    assert_eq!(error.message(), "`nothing` does not exist in the build context");
    let error = bench.refuse("FROM scratch\nCOPY ../x /\n").await;
    assert_eq!(error.message(), "`../x` is outside of the build context");
    let error = bench.refuse("FROM scratch AS s\nFROM scratch\nCOPY --from=s /x /\n").await;
    assert_eq!(error.message(), "`/x` does not exist in `s`");
    assert!(!bench.oci.store_dir().join("references").read_dir().unwrap().any(|_| true));
}

#[tokio::test]
async fn files_and_directories_do_not_replace_each_other() {
    let bench = Bench::new();
    bench.write("f", "f").write("d/f/x", "x").write("e/f", "f");
    for dockerfile in [
        "FROM scratch\nCOPY f /x\nCOPY d /x\n",
        "FROM scratch\nCOPY f /x\nCOPY f /x/\n",
        "FROM scratch\nCOPY d /x\nCOPY e /x\n",
        "FROM scratch\nCOPY e /x\nCOPY d /x\n",
        "FROM scratch\nCOPY f /x\nWORKDIR /x/y\n",
    ] {
        assert_eq!(bench.refuse(dockerfile).await.kind(), ErrorKind::InvalidDockerfile, "{dockerfile}");
    }
}

#[tokio::test]
async fn what_it_cannot_do_is_refused_before_any_work() {
    let bench = Bench::new();
    let error = bench.refuse("FROM scratch\nCOPY missing /\nRUN x\n").await;
    assert_eq!((error.kind(), error.feature()), (ErrorKind::Unsupported, Some(Feature::Run)));
    assert_eq!(error.source_line().unwrap().line, 3);
    for (instruction, words) in [
        ("COPY https://example.org/x /", "COPY cannot take an address"),
        ("COPY git@example.org:x /", "COPY cannot take a git repository"),
        ("ADD --checksum=sha256:0 https://example.org/x /", "invalid `--checksum`"),
        ("ADD --checksum=sha256:0 x /", "`--checksum` is for addresses"),
        ("ADD --checksum=abc git@example.org:x git@example.org:y /", "one source alone"),
        ("ADD https://example.org/x.git?branch=a&tag=b /", "a tag and a branch"),
        ("ADD --keep-git-dir=false https://example.org/x.git?keep-git-dir=1 /", "contradicts"),
    ] {
        let error = bench.refuse(&format!("FROM scratch\n{instruction}\n")).await;
        assert!(error.message().contains(words), "{instruction}: {error:?}");
        assert_eq!(error.source_line().unwrap().line, 2, "{instruction}");
    }
    assert!(!bench.oci.store_dir().exists());
    bench.build("FROM scratch AS a\nRUN x\nFROM scratch\n").await;
}

#[tokio::test]
async fn triggers_run_in_the_child_and_only_there() {
    let bench = Bench::new();
    bench.write("f", "f");
    let out =
        bench.build("FROM scratch AS a\nONBUILD COPY f /t\nONBUILD ENV x=1\nFROM a AS b\nFROM b\n").await;
    assert_eq!(out.file("t"), "644 0:0 \"f\"");
    assert_eq!(out.history(), ["COPY f /t # buildkit", "ENV x=1"]);
    assert!(out.image.config.config.on_build.is_empty());
}

#[tokio::test]
async fn several_platforms_make_an_index() {
    let bench = Bench::new();
    let mut request = bench.request("FROM scratch\nARG TARGETARCH\nENV arch=$TARGETARCH\n");
    request.platforms = vec!["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
    request.labels.insert("k".to_owned(), "v".to_owned());
    let built = bench.run(&request).await.unwrap();
    assert_eq!((built.platforms.len(), built.image_id), (2, None));
    let store = ImageStore::open(bench.oci.store_dir()).unwrap();
    let index = store.resolve(&request.tags[0]).unwrap().unwrap();
    for (manifest, arch) in store.manifests(&index).unwrap().iter().zip(["amd64", "arm64"]) {
        let image = Image::load(&store, manifest).unwrap();
        assert_eq!(image.config.architecture, arch);
        assert_eq!(image.config.config.env[1], format!("arch={arch}"));
        assert_eq!(image.config.config.labels["k"], "v");
    }
}

#[tokio::test]
async fn a_store_image_can_be_a_base() {
    let bench = Bench::new();
    bench.write("f", "f");
    bench.build("FROM scratch\nCOPY f /base\nONBUILD LABEL l=1\nENV x=1\n").await;
    let mut request = bench.request("FROM named\nCOPY --from=named /base /again\n");
    request.build_contexts.insert("named".to_owned(), NamedContext::Image("localhost/test".parse().unwrap()));
    request.tags = vec!["localhost/child".parse().unwrap()];
    let out = bench.outcome(&request).await;
    assert_eq!((out.file("base"), out.file("again")), ("644 0:0 \"f\"", "644 0:0 \"f\""));
    assert_eq!(out.image.config.config.labels["l"], "1");
    assert_eq!(out.image.config.config.env.last().unwrap(), "x=1");
}

#[tokio::test]
async fn a_directory_can_be_a_named_context() {
    let bench = Bench::new();
    let other = bench.dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("o"), "o").unwrap();
    let mut request = bench.request("FROM scratch\nCOPY --from=more o /\n");
    request.build_contexts.insert("more".to_owned(), NamedContext::Directory(other.clone()));
    assert_eq!(bench.outcome(&request).await.file("o"), "644 0:0 \"o\"");
    let mut request = bench.request("FROM more\nENV a=1\nCOPY --from=more o /again\n");
    request.build_contexts.insert("more".to_owned(), NamedContext::Directory(other));
    let out = bench.outcome(&request).await;
    assert_eq!((out.file("o"), out.layers.len()), ("644 0:0 \"o\"", 2));
    assert_eq!(out.image.config.config.working_dir, "/");
    let made: Vec<bool> = out.image.config.history.iter().map(|entry| !entry.empty_layer).collect();
    assert_eq!(made, [true, false, true]);
}

#[tokio::test]
async fn finds_and_tags_what_it_built() {
    let bench = Bench::new();
    bench.build("FROM scratch\nENV a=1\n").await;
    let (reference, more) = ("localhost/test".parse().unwrap(), vec!["localhost/more:1".parse().unwrap()]);
    let job = Job::silent();
    let found = bench.oci.find(&reference, FindScope::Store, &job).await.unwrap().unwrap();
    assert!(found.image_id.is_some() && !found.in_registry);
    bench.oci.tag(&found, &more, &job).await.unwrap();
    let again = bench.oci.find(&more[0], FindScope::Store, &job).await.unwrap().unwrap();
    assert_eq!(again.digest, found.digest);
    let other = "localhost/other".parse().unwrap();
    assert_eq!(bench.oci.find(&other, FindScope::Store, &job).await.unwrap(), None);
}

#[tokio::test]
async fn a_stopped_build_leaves_nothing_behind() {
    let bench = Bench::new();
    bench.write("f", "f");
    let job = Job::silent();
    job.cancel.cancel();
    let error = bench.oci.build(&bench.request("FROM scratch\nCOPY f /\n"), &job).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(
        bench.run(&bench.request("FROM scratch\nCOPY g /\n")).await.unwrap_err().source_line().unwrap().line,
        2
    );
    let left: Vec<_> = files_below(&bench.oci.store_dir().join("blobs"));
    assert!(left.is_empty(), "{left:?}");
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn in_memory_entries_are_copied_like_files() {
    let bench = Bench::new();
    let mut request = bench.request("FROM scratch\nCOPY gen /gen\n");
    request.context.insert(ContextPath::from_clean("gen/x"), "made".as_bytes(), 0o600);
    assert_eq!(bench.outcome(&request).await.file("gen/x"), "600 0:0 \"made\"");
}
