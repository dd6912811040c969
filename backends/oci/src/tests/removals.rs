//! `RUN ["rm", …]`: files that are removed without a process.

use windlass_core::image::Tree;

use super::*;

impl Bench {
    /// Builds a base that the Dockerfiles of these tests begin with.
    async fn base(&self, dockerfile: &str) -> Outcome {
        let mut request = self.request(dockerfile);
        request.tags = vec!["localhost/base".parse().unwrap()];
        self.outcome(&request).await
    }
}

/// What whoever unpacks the image has in the end.
fn unpacked(bench: &Bench, outcome: &Outcome) -> Vec<String> {
    let mut tree = Tree::default();
    for (layer, diff_id) in outcome.image.layers() {
        let index = bench.store().layer_index(layer, diff_id, &Job::silent()).unwrap();
        tree.apply(&index, |member| member).unwrap();
    }
    tree.below(b"").map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
}

fn with_layer(outcome: &Outcome) -> Vec<bool> {
    outcome.image.config.history.iter().map(|entry| !entry.empty_layer).collect()
}

#[tokio::test]
async fn what_a_linked_copy_replaces_is_hidden_in_its_layer_and_the_base_is_not_read() {
    let bench = Bench::new();
    bench
        .write("old/code/gone", "1")
        .write("old/code/kept", "1")
        .write("code/kept", "2")
        .write("code/.env", "3");
    let base = bench.base("FROM scratch\nCOPY old /srv/\n").await;
    let lost = base.image.manifest.layers[0].digest;
    // Neither the layer nor what is known of it is there any more.
    let store = bench.store();
    std::fs::rename(store.path(&lost), bench.path("layer")).unwrap();
    std::fs::remove_dir_all(store.dir().join("indexes")).unwrap();
    let mut request = bench.request(
        "FROM localhost/base\nUSER root\nRUN [\"rm\", \"-rf\", \"--\", \"/srv/code\"]\nCOPY --link --chown=7:8 code/ /srv/code/\n",
    );
    request.outputs = vec!["type=cacheonly".parse().unwrap()];
    bench.run(&request).await.unwrap();
    std::fs::rename(bench.path("layer"), store.path(&lost)).unwrap();
    request.outputs = vec!["type=image".parse().unwrap()];
    let out = bench.outcome(&request).await;
    assert_eq!(out.layers[1], ["srv", "srv/code", "srv/code/.wh..wh..opq", "srv/code/.env", "srv/code/kept"]);
    assert_eq!(out.file("srv/code/.wh..wh..opq"), "0 0:0 \"\"");
    assert_eq!(out.file("srv/code/kept"), "644 7:8 \"2\"");
    assert_eq!(unpacked(&bench, &out), ["srv", "srv/code", "srv/code/.env", "srv/code/kept"]);
    let words = "RUN rm -rf -- /srv/code # buildkit";
    assert_eq!(
        out.history(),
        ["COPY old /srv/ # buildkit", "USER root", words, "COPY --chown=7:8 code/ /srv/code/ # buildkit"]
    );
    assert_eq!(with_layer(&out), [true, false, false, true]);
}

#[tokio::test]
async fn what_nothing_replaces_gets_whiteouts_in_a_layer_of_its_own() {
    let bench = Bench::new();
    bench.write("d/a/x", "1").write("d/b", "2").write("d/keep", "3").write("f", "4");
    // A link is followed where it is a source itself.
    bench.write("links/x", "").link("links/alias", "d");
    bench.base("FROM scratch\nCOPY d /d/\nCOPY --exclude=x links /\nCOPY f /other/\n").await;
    let from = "FROM localhost/base\n";
    let out = bench
        .build(&format!(
            "{from}ARG V=1\nRUN [\"rm\",\"-r\",\"-f\",\"/d/a\",\"/alias/b\",\"/none\"]\nCOPY f /x\n"
        ))
        .await;
    assert_eq!(out.layers[3], ["d", "d/.wh.a", "d/.wh.b"]);
    assert_eq!(unpacked(&bench, &out), ["alias", "d", "d/keep", "other", "other/f", "x"]);
    assert_eq!(out.history()[4], "RUN |1 V=1 rm -r -f /d/a /alias/b /none # buildkit");
    // A linked COPY that goes elsewhere changes nothing, and a link is removed itself.
    let out = bench
        .build(&format!(
            "{from}RUN [\"rm\",\"-rf\",\"--\",\"/d/a\"]\nRUN [\"rm\",\"-f\",\"/alias\"]\nCOPY --link f /y/\n"
        ))
        .await;
    assert_eq!(out.layers[3..], [vec!["d", "d/.wh.a"], vec![".wh.alias"], vec!["y", "y/f"]]);
    assert_eq!(with_layer(&out), [true; 6]);
    assert_eq!(out.history()[3..5], ["RUN rm -rf -- /d/a # buildkit", "RUN rm -f /alias # buildkit"]);
    // What was removed can come back, and what is not there makes an empty layer, as with an engine.
    let out = bench
        .build(&format!(
            "{from}WORKDIR /d\nRUN [\"rm\",\"-rf\",\"a\"]\nRUN [\"rm\",\"-rf\",\"/d/a/x\"]\nCOPY f a/\n"
        ))
        .await;
    assert_eq!(out.layers[4..], [vec!["d", "d/.wh.a"], vec![], vec!["d", "d/a", "d/a/f"]]);
    assert_eq!(unpacked(&bench, &out), ["alias", "d", "d/a", "d/a/f", "d/b", "d/keep", "other", "other/f"]);
}

#[tokio::test]
async fn one_linked_copy_hides_all_that_lies_beside_it() {
    let bench = Bench::new();
    bench.write("old/a/1", "1").write("old/b/2", "2").write("old/c", "3").write("f", "4");
    bench.base("FROM scratch\nCOPY old /srv/\nCOPY f /top\n").await;
    let out = bench
        .build(concat!(
            "FROM localhost/base\n",
            "RUN [\"rm\",\"-rf\",\"--\",\"/srv/a\",\"/srv/c\",\"/top\",\"/none\"]\n",
            "ENV A=1\n",
            "COPY --link f /srv/a/\n",
            "COPY --from=localhost/base /srv/b /b\n"
        ))
        .await;
    let hidden = [".wh.none", ".wh.top", "srv", "srv/.wh.c", "srv/a", "srv/a/.wh..wh..opq", "srv/a/f"];
    assert_eq!(out.layers[2], hidden);
    let all = "RUN [\"rm\",\"-rf\",\"/srv\",\"/srv/-\"]\nCOPY --link f /srv/.a\n";
    let both = bench.build(&format!("FROM localhost/base\n{all}")).await;
    assert_eq!(both.layers[2], ["srv", "srv/.wh..wh..opq", "srv/.wh.-", "srv/.a"]);
    assert_eq!(unpacked(&bench, &out), ["b", "b/2", "srv", "srv/a", "srv/a/f", "srv/b", "srv/b/2"]);
    // A file takes the place of whatever was there.
    let out = bench.build("FROM localhost/base\nRUN [\"rm\",\"-rf\",\"/srv\"]\nCOPY --link f /srv\n").await;
    assert_eq!(out.layers[2], ["srv"]);
    assert_eq!(unpacked(&bench, &out), ["srv", "top"]);
}

#[tokio::test]
async fn a_directory_that_replaces_a_link_hides_nothing_where_that_led() {
    let bench = Bench::new();
    bench.write("old/real/x", "1").link("old/code", "real").write("new/y", "2");
    bench.base("FROM scratch\nCOPY old /srv/\n").await;
    let out = bench
        .build(concat!(
            "FROM localhost/base\n",
            "RUN [\"rm\",\"-rf\",\"--\",\"/srv/code\"]\n",
            "COPY --link new/ /srv/code/\n",
            "COPY --from=localhost/base /srv/real/x /srv/code/\n"
        ))
        .await;
    assert_eq!(out.layers[1], ["srv", "srv/code", "srv/code/.wh..wh..opq", "srv/code/y"]);
    let expected = ["srv", "srv/code", "srv/code/x", "srv/code/y", "srv/real", "srv/real/x"];
    assert_eq!(unpacked(&bench, &out), expected);
}

#[tokio::test]
async fn what_rm_fails_at_fails() {
    let bench = Bench::new();
    bench.write("all/d/x", "1").write("f", "2").link("all/l", "d");
    bench.base("FROM scratch\nCOPY all /\nCOPY f /\n").await;
    for (words, why) in [
        ("\"-r\",\"/none\"", "does not exist"),
        ("\"-f\",\"/d\"", "it is a directory"),
        ("\"-rf\",\"/l/\"", "it is no directory"),
        ("\"-rf\",\"/etc\"", "mounted"),
        ("\"-rf\",\"/proc/self\"", "mounted"),
    ] {
        for below in ["COPY f /y", "COPY --link f /d/"] {
            let error = bench.refuse(&format!("FROM localhost/base\nRUN [\"rm\",{words}]\n{below}\n")).await;
            assert_eq!(error.kind(), ErrorKind::BuildFailed, "{words}");
            assert!(error.message().contains(why), "{words}: {error}");
            assert_eq!(error.source_line().unwrap().line, 2, "{words}");
        }
    }
}

#[tokio::test]
async fn any_other_run_is_refused_before_any_work() {
    let bench = Bench::new();
    for run in [
        "RUN rm -rf /x",
        "RUN [\"rm\",\"-rf\",\"/\"]",
        "RUN [\"rm\",\"-rf\",\"//.\"]",
        "RUN [\"rm\",\"-rf\",\"/a/../b\"]",
        "RUN [\"rm\",\"-rf\",\"\"]",
        "RUN [\"rm\",\"-rf\",\".\"]",
        "RUN [\"rm\",\"-rf\"]",
        "RUN [\"rm\",\"-rfv\",\"/x\"]",
        "RUN [\"rm\",\"/x\",\"-rf\"]",
        "RUN [\"/bin/rm\",\"-rf\",\"/x\"]",
        "RUN --network=none [\"rm\",\"-rf\",\"/x\"]",
        "USER app\nRUN [\"rm\",\"-rf\",\"/x\"]",
        "USER 1000:0\nRUN [\"rm\",\"-rf\",\"/x\"]",
        "RUN []",
    ] {
        let error = bench.refuse(&format!("FROM localhost/none\n{run}\n")).await;
        assert_eq!((error.kind(), error.feature()), (ErrorKind::Unsupported, Some(Feature::Run)), "{run}");
        assert!(error.source_line().is_some(), "{run}");
    }
    assert!(!bench.oci.store_dir().exists());
    // Who the base runs programs as is in its config.
    bench.write("f", "1");
    bench.base("FROM scratch\nCOPY f /\nUSER app\n").await;
    let error = bench.refuse("FROM localhost/base\nRUN [\"rm\",\"-rf\",\"/f\"]\n").await;
    assert_eq!((error.kind(), error.feature()), (ErrorKind::Unsupported, Some(Feature::Run)));
    let out = bench.build("FROM localhost/base\nUSER 0\nRUN [\"rm\",\"--\",\"/f\"]\nUSER app\n").await;
    assert_eq!(out.layers[1], [".wh.f"]);
}
