//! Layers that were made before, and what is done at the same time.

use std::sync::Mutex;

use windlass_core::digest::Digest;
use windlass_core::events::{Event, EventSink, Events, StepOutcome};
use windlass_core::image::{Descriptor, LayerIndex};
use windlass_core::platform::Platform;

use super::*;

/// How the steps of a build ended, by their names.
#[derive(Default)]
struct Steps(Mutex<Ended>);

/// The names of the steps by their numbers, and how they ended, in that order.
#[derive(Default)]
struct Ended(BTreeMap<u64, String>, Vec<(String, StepOutcome)>);

impl EventSink for Steps {
    fn emit(&self, event: Event) {
        let Ended(names, ended) = &mut *self.0.lock().unwrap();
        match event {
            Event::StepStarted { step, name } => drop(names.insert(step.0, name)),
            Event::StepFinished { step, outcome } => ended.push((names[&step.0].clone(), outcome)),
            _ => {}
        }
    }
}

/// A build, and which of its instructions were `cached` or `made`, in the order of their names.
struct Run {
    layers: Vec<Descriptor>,
    outcomes: Vec<&'static str>,
}

impl Bench {
    async fn watched(&self, request: &BuildRequest) -> Result<Run> {
        let steps = Arc::new(Steps::default());
        let job = Job::new(Events::new(steps.clone()), Default::default());
        let built = self.oci.build(request, &job).await?;
        let store = self.store();
        let image = store.resolve(&built.references[0]).unwrap().unwrap();
        let layers = store.manifests(&image).unwrap().into_iter();
        let layers = layers.flat_map(|manifest| Image::load(&store, &manifest).unwrap().manifest.layers);
        let mut ended = std::mem::take(&mut steps.0.lock().unwrap().1);
        ended.retain(|(name, _)| name.contains("COPY") || name.contains("ADD") || name.contains("WORKDIR"));
        ended.sort_by(|a, b| a.0.cmp(&b.0));
        let word = |outcome: &StepOutcome| match outcome {
            StepOutcome::Cached => "cached",
            StepOutcome::Done => "made",
            other => panic!("{other:?}"),
        };
        Ok(Run {
            layers: layers.collect(),
            outcomes: ended.iter().map(|(_, outcome)| word(outcome)).collect(),
        })
    }

    async fn again(&self, dockerfile: &str) -> Run {
        self.watched(&self.request(dockerfile)).await.unwrap_or_else(|error| panic!("{error:?}"))
    }

    pub(super) fn store(&self) -> ImageStore {
        ImageStore::open(self.oci.store_dir()).unwrap()
    }
}

const DOCKERFILE: &str = "FROM scratch AS a\nWORKDIR /w\nCOPY a b ./\nFROM a\nCOPY --from=a /w/b /b\n";

#[tokio::test]
async fn a_layer_of_the_same_is_not_made_again() {
    let bench = Bench::new();
    bench.write("a", "1").write("b", "2").write("c", "3");
    let first = bench.again(DOCKERFILE).await;
    assert_eq!(first.outcomes, ["made", "made", "made"]);
    let second = bench.again(DOCKERFILE).await;
    assert_eq!(second.outcomes, ["cached", "cached", "cached"]);
    assert_eq!(second.layers, first.layers);
    // What no instruction takes does not count, nor does when a file was written.
    bench.write("c", "4").write("a", "1");
    let third = bench.again(DOCKERFILE).await;
    assert_eq!((third.outcomes, third.layers), (vec!["cached"; 3], first.layers.clone()));
    let mut request = bench.request(DOCKERFILE);
    request.no_cache = true;
    let fresh = bench.watched(&request).await.unwrap();
    assert_eq!((fresh.outcomes, fresh.layers), (vec!["made"; 3], first.layers));
}

#[tokio::test]
async fn everything_that_shows_in_a_layer_makes_it_new() {
    let bench = Bench::new();
    bench.write("a", "1").mode("a", 0o644);
    let copy = "FROM scratch\nCOPY a /a\n";
    let mut known = vec![bench.again(copy).await.layers];
    let mut is_new = |run: Run| {
        assert_eq!(run.outcomes, ["made"]);
        assert!(!known.contains(&run.layers));
        known.push(run.layers);
    };
    bench.write("a", "2");
    is_new(bench.again(copy).await);
    bench.write("a", "22");
    is_new(bench.again(copy).await);
    bench.mode("a", 0o755);
    is_new(bench.again(copy).await);
    for change in ["--chown=7", "--chown=:7", "--chmod=600"] {
        is_new(bench.again(&copy.replace("COPY", &format!("COPY {change}"))).await);
    }
    is_new(bench.again(&copy.replace("/a", "/b")).await);
    let mut request = bench.request(copy);
    request.source_date_epoch = Some(1);
    is_new(bench.watched(&request).await.unwrap());
    let mut request = bench.request(copy);
    for (name, value) in [("compression", "zstd"), ("compression-level", "5"), ("compression", "gzip")] {
        request.outputs[0].attributes.insert(name.to_owned(), value.to_owned());
        is_new(bench.watched(&request).await.unwrap());
    }
    // And all of them are still known.
    assert_eq!(bench.again(&copy.replace("COPY", "COPY --chown=7")).await.outcomes, ["cached"]);
}

#[tokio::test]
async fn times_of_the_disk_count_where_they_are_kept() {
    let mut bench = Bench::new();
    let mut host = bench.oci.host().clone();
    host.archive.timestamps = windlass_core::archive::Timestamps::Keep;
    bench.oci = Oci::new("oci", OciConfig::default(), Arc::new(host));
    bench.write("a", "1");
    let at = |seconds: u64| {
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(bench.path("a")).unwrap().set_modified(time).unwrap();
    };
    at(1_000_000_000);
    assert_eq!(bench.again("FROM scratch\nCOPY a /\n").await.outcomes, ["made"]);
    assert_eq!(bench.again("FROM scratch\nCOPY a /\n").await.outcomes, ["cached"]);
    at(1_000_000_001);
    assert_eq!(bench.again("FROM scratch\nCOPY a /\n").await.outcomes, ["made"]);
}

#[tokio::test]
async fn a_layer_that_is_lost_or_damaged_is_made_again() {
    let bench = Bench::new();
    bench.write("a", "1");
    let dockerfile = "FROM scratch\nCOPY a /\n";
    let first = bench.again(dockerfile).await;
    let blob = bench.store().path(&first.layers[0].digest);
    std::fs::remove_file(&blob).unwrap();
    let second = bench.again(dockerfile).await;
    assert_eq!((second.outcomes, &second.layers), (vec!["made"], &first.layers));

    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, "short").unwrap();
    assert_eq!(bench.again(dockerfile).await.outcomes, ["made"]);
    assert_eq!(std::fs::metadata(&blob).unwrap().len(), first.layers[0].size_bytes);
    assert_eq!(bench.again(dockerfile).await.outcomes, ["cached"]);

    for memo in std::fs::read_dir(bench.store().dir().join("memos")).unwrap() {
        let path = memo.unwrap().path();
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
    let last = bench.again(dockerfile).await;
    assert_eq!((last.outcomes, last.layers), (vec!["made"], first.layers));
}

#[tokio::test]
async fn archives_and_links_are_known_again_by_what_they_hold() {
    let bench = Bench::new();
    let tar = |content| archive(&[("d/x", TarKind::File { size_bytes: 1 }, content)]);
    bench.write("x.tar", tar("1")).write("a", "1");
    std::fs::hard_link(bench.path("a"), bench.path("z")).unwrap();
    let dockerfile = "FROM scratch\nADD x.tar /\nCOPY a z /d/\nCOPY <<E /h\ntext\nE\n";
    let first = bench.again(dockerfile).await;
    assert_eq!(bench.again(dockerfile).await.outcomes, ["cached"; 3]);
    // Nor is it unpacked again to know what is in it.
    let members = bench.store().archive_index(&Digest::of(tar("1"))).unwrap();
    assert_eq!(members[0].path, b"d/x");
    bench.write("x.tar", tar("2"));
    let changed = bench.again(dockerfile).await;
    assert_eq!(changed.outcomes, ["made", "cached", "cached"]);
    assert_ne!(changed.layers[0], first.layers[0]);
    let other = bench.again(&dockerfile.replace("text", "next")).await;
    assert_eq!(other.outcomes, ["cached", "cached", "made"]);
}

#[tokio::test]
async fn a_layer_that_is_made_leaves_the_list_of_what_is_in_it() {
    let bench = Bench::new();
    let long = "n".repeat(200);
    bench.write("d/a", "1").write(&format!("d/{long}"), "2").write("d/e/f", "").link("d/l", &long);
    std::fs::hard_link(bench.path("d/a"), bench.path("d/z")).unwrap();
    bench.write(
        "x.tar",
        archive(&[("y", TarKind::File { size_bytes: 1 }, "y"), ("p/q", TarKind::Directory, "")]),
    );
    let run =
        bench.again("FROM scratch\nCOPY --chown=100000:70000 d /d/\nADD x.tar /t/\nWORKDIR /w/v\n").await;
    let (store, job) = (bench.store(), Job::silent());
    for layer in &run.layers {
        let read = LayerIndex::read(store.open_layer(&layer.digest).unwrap(), &job).unwrap();
        assert!(store.has_layer_index(&layer.digest, read.diff_id));
        assert_eq!(store.layer_index(layer, read.diff_id, &job).unwrap(), read);
    }
}

#[tokio::test]
async fn what_is_the_same_for_two_platforms_is_made_once() {
    let bench = Bench::new();
    bench.write("a", "1");
    let mut request = bench.request("FROM scratch\nCOPY a /\n");
    request.platforms = ["linux/amd64", "linux/arm64"].map(|name| name.parse::<Platform>().unwrap()).to_vec();
    let run = bench.watched(&request).await.unwrap();
    let mut outcomes = run.outcomes;
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["cached", "made"]);
    assert_eq!(run.layers[0], run.layers[1]);
    // `--no-cache` is about earlier builds.
    request.no_cache = true;
    let mut outcomes = bench.watched(&request).await.unwrap().outcomes;
    outcomes.sort_unstable();
    assert_eq!(outcomes, ["cached", "made"]);
}

#[tokio::test]
async fn of_several_stages_that_fail_the_first_is_reported() {
    let bench = Bench::new();
    bench.write("a", "1");
    // The first of them needs longer to find out.
    let copies = "COPY a /\n".repeat(20);
    let dockerfile = format!(
        "FROM scratch AS x\n{copies}COPY first /\nFROM scratch AS y\nCOPY second /\n\
         FROM scratch\nCOPY --from=y / /y/\nCOPY --from=x / /x/\n"
    );
    let error = bench.refuse(&dockerfile).await;
    assert!(error.message().contains("first"), "{error}");
    assert_eq!(error.source_line().unwrap().line, 22);
    assert!(bench.store().list().unwrap().is_empty());
    // A stage that the target does not need may be wrong.
    bench.build("FROM scratch AS x\nCOPY first /\nFROM scratch\nCOPY a /\n").await;
}

#[tokio::test]
async fn names_of_owners_need_their_layer_only_once() {
    let bench = Bench::new();
    bench.write("etc/passwd", "app:x:7:8::/:\n").write("etc/group", "app:x:9:\n").write("a", "1");
    let base = bench.again("FROM scratch\nCOPY etc /etc/\n").await;
    let mut request = bench.request("FROM localhost/test\nCOPY --chown=app a /\n");
    request.outputs[0].kind = windlass_core::output::OutputKind::CacheOnly;
    bench.run(&request).await.unwrap();
    // Nobody knows where to get it again.
    std::fs::remove_file(bench.store().path(&base.layers[0].digest)).unwrap();
    request.no_cache = true;
    bench.run(&request).await.unwrap();
    std::fs::remove_dir_all(bench.store().dir().join("files")).unwrap();
    assert_eq!(bench.run(&request).await.expect_err("gone").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_layer_that_is_known_does_not_need_what_it_was_copied_from() {
    let bench = Bench::new();
    bench.write("a", "1");
    let base = bench.again("FROM scratch\nCOPY a /\n").await;
    let copy =
        |again: &str| bench.request(&format!("FROM scratch\nCOPY --from=localhost/test a /b{again}\n"));
    let request = |again: &str| {
        let mut request = copy(again);
        request.outputs[0].kind = windlass_core::output::OutputKind::CacheOnly;
        request
    };
    bench.run(&request("")).await.unwrap();
    std::fs::remove_file(bench.store().path(&base.layers[0].digest)).unwrap();
    bench.run(&request("")).await.unwrap();
    assert_eq!(bench.run(&request("2")).await.expect_err("gone").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_stage_that_needs_itself_by_a_trigger_is_refused() {
    let bench = Bench::new();
    bench.write("a", "1");
    bench.build("FROM scratch\nCOPY a /\nONBUILD COPY --from=later /a /b\n").await;
    for (dockerfile, line) in [
        ("FROM localhost/test AS later\n", 1),
        ("FROM localhost/test AS first\nFROM first AS later\n", 1),
        ("FROM localhost/test AS first\nFROM scratch AS later\nCOPY --from=first /a /\n", 1),
    ] {
        let error = bench.refuse(dockerfile).await;
        assert_eq!(error.message(), "the stage `later` needs itself", "{dockerfile}");
        assert_eq!(error.source_line().unwrap().line, line, "{dockerfile}");
    }
    // One that only comes later is no circle.
    let out = bench.build("FROM scratch AS later\nCOPY a /\nFROM localhost/test\n").await;
    assert_eq!(out.file("b"), "644 0:0 \"1\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_does_not_depend_on_who_was_faster() {
    let mut digests = Vec::new();
    for round in 0..6 {
        let bench = Bench::new();
        let tar = |name: &str| archive(&[(name, TarKind::File { size_bytes: 1 }, "x")]);
        bench.write("1.tar", tar("b")).write("2.tar", tar("a")).write("c", "c").mode("c", 0o644);
        let other = TempDir::new().unwrap();
        std::fs::write(other.path().join("3.tar"), tar("d")).unwrap();
        let mut request = bench.request(concat!(
            "FROM scratch AS x\nCOPY <<E /x\nx\nE\nADD 1.tar 2.tar /\n",
            "FROM scratch AS y\nADD 2.tar 1.tar /y/\nCOPY c /y/\nCOPY --from=more . /more/\n",
            "FROM scratch AS z\nCOPY --from=y /y /\nCOPY <<A <<B /h/\na\nA\nb\nB\n",
            "FROM x\nCOPY --from=z / /z/\nCOPY --from=y / /y/\nCOPY c <<E /w/\nw\nE\n",
        ));
        let more = NamedContext::Directory(other.path().to_owned());
        request.build_contexts.insert("more".to_owned(), more);
        request.platforms = vec!["linux/amd64".parse().unwrap(), "linux/arm64".parse().unwrap()];
        if round % 2 == 1 {
            request.platforms.truncate(1);
        }
        let built = bench.run(&request).await.unwrap();
        let store = bench.store();
        let image = store.resolve(&built.references[0]).unwrap().unwrap();
        let first = store.manifests(&image).unwrap().remove(0);
        digests.push(Image::load(&store, &first).unwrap().manifest.layers);
    }
    assert!(digests[0].len() >= 5 && digests.iter().all(|layers| *layers == digests[0]));
}

#[tokio::test]
async fn a_layer_that_takes_blocks_of_an_earlier_one_is_as_if_made_anew() {
    let content: String = (0..150_000).map(|line| format!("line {line}\n")).collect();
    let write = |bench: &Bench, small: &str| {
        bench.write("a", small).write("b", &content).write("c", &content).write("d", &content);
    };
    let bench = Bench::new();
    write(&bench, "1");
    bench.again("FROM scratch\nCOPY . /\n").await;
    write(&bench, "another");
    let changed = bench.again("FROM scratch\nCOPY . /\n").await;
    assert_eq!(changed.outcomes, ["made"]);
    let anew = Bench::new();
    write(&anew, "another");
    assert_eq!(changed.layers, anew.again("FROM scratch\nCOPY . /\n").await.layers);
}

#[tokio::test]
async fn a_layer_that_rots_gets_into_no_other() {
    let bench = Bench::new();
    // It hardly gets smaller, so that a wrong byte of the blob is a wrong byte of the file.
    let noise: String = (0..400_u32).map(|number| Digest::of(number.to_le_bytes()).hex()).collect();
    bench.write("f", &noise).write("g", "after it");
    let from =
        |name: &str| format!("FROM scratch AS a\nCOPY f g /\nFROM scratch\nCOPY --from=a /f /{name}\n");
    bench.again(&from("one")).await;
    let mut blobs: Vec<_> = std::fs::read_dir(bench.store().path(&Digest::of(b"")).parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.metadata().unwrap().len() > 10_000)
        .map(|entry| entry.path())
        .collect();
    assert_eq!(blobs.len(), 2, "the layer of the stage, and that of the image");
    blobs.retain(|path| {
        let mut bytes = std::fs::read(path).unwrap();
        bytes[9_000] ^= 1;
        std::fs::remove_file(path).unwrap();
        std::fs::write(path, bytes).unwrap();
        true
    });
    let error = bench.run(&bench.request(&from("two"))).await.expect_err("rotten");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error:?}");
    let out = bench.build(&from("two")).await;
    assert_eq!(out.layers.len(), 1);
    assert_eq!(out.file("two"), format!("644 0:0 {noise:?}"));
}

#[tokio::test]
async fn builds_of_one_program_share_the_layer_of_a_linked_copy() {
    let bench = Bench::new();
    bench.write("code/a", "1").write("code/b", "2").write("one", "1").write("two", "2");
    for base in ["one", "two"] {
        let mut request = bench.request(&format!("FROM scratch\nCOPY {base} /srv/old\n"));
        request.tags = vec![format!("localhost/{base}").parse().unwrap()];
        bench.watched(&request).await.unwrap();
    }
    let first = bench.request("FROM localhost/one\nCOPY --link code /srv/\n");
    let on_two = |text: &str| {
        let content = format!("FROM localhost/two\nRUN [\"rm\",\"-rf\",\"/opt\"]\n{text}").into();
        let dockerfile = DockerfileSource { content, ..first.dockerfile.clone() };
        BuildRequest { dockerfile, ..first.clone() }
    };
    let one = bench.watched(&first).await.unwrap();
    assert_eq!(one.outcomes, ["made"]);
    // What the others read is what was listed for the first: nobody looks at the file again.
    std::fs::remove_dir_all(bench.path("code")).unwrap();
    let second = bench.watched(&on_two("COPY --link code /opt/\nCOPY --link code /srv/\n")).await;
    assert_eq!(second.err().map(|error| error.kind()), Some(ErrorKind::ContextUnreadable));
    let second = bench.watched(&on_two("COPY --link one /opt/\nCOPY --link code /srv/\n")).await.unwrap();
    assert_eq!(second.outcomes, ["made", "cached"]);
    assert_eq!(second.layers.last(), one.layers.last());
    // What is hidden beside it is part of such a layer.
    let third =
        bench.watched(&on_two("COPY --link one /opt/\nCOPY --link --chown=1 one /srv/\n")).await.unwrap();
    assert_eq!((third.outcomes[0], third.layers[1].clone()), ("cached", second.layers[1].clone()));
    let fourth = bench.request("FROM localhost/one\nCOPY --link one /opt/\n");
    let fourth = bench.watched(&BuildRequest { context: first.context.clone(), ..fourth }).await.unwrap();
    assert_eq!(fourth.outcomes, ["made"]);
    assert_ne!(fourth.layers.last(), Some(&second.layers[1]));
    // A layer that is lost is made again, here from files that are no longer there.
    std::fs::remove_file(bench.store().path(&one.layers[1].digest)).unwrap();
    let fifth = bench.watched(&first).await;
    assert_eq!(fifth.err().map(|error| error.kind()), Some(ErrorKind::ContextUnreadable));
}
