//! Input that cannot work: the message, its kind, and that nothing stays behind. Every backend has them all.

use windlass_core::ErrorKind::{
    BuildFailed, InvalidDockerfile, InvalidInput, NotFound, Unavailable, Unsupported,
};
use windlass_core::backend::Feature;
use windlass_tests::scenario::{NamedContext, Scenario, at, only, scenario};

use crate::suite::ANY_REMOTE;

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [dockerfiles(), copies(), bases(), runs()].concat()
}

fn dockerfiles() -> Vec<Scenario> {
    vec![
        scenario("dockerfile_without_a_stage")
            .dockerfile("# nothing\n\n")
            .fails(InvalidDockerfile, &["Dockerfile"]),
        scenario("dockerfile_that_is_empty").dockerfile("").fails(InvalidDockerfile, &["Dockerfile"]),
        scenario("dockerfile_that_starts_with_copy")
            .file("a", "1")
            .dockerfile("COPY a /\nFROM scratch\n")
            .fails(InvalidDockerfile, &["COPY a /"]),
        scenario("instruction_unknown_shows_the_line")
            .file("a", "1")
            .dockerfile("FROM scratch\n\nCOPPY a /\n")
            .fails_on("oci", InvalidDockerfile, &["COPPY", "Dockerfile:3", "did you mean `COPY`"])
            .fails_on("docker", InvalidDockerfile, &["COPPY", "COPPY a /"]),
        scenario("flag_unknown_shows_the_line")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY --chwon=1 a /\n")
            .fails_on("oci", InvalidDockerfile, &["chwon", "Dockerfile:2", "did you mean `--chown`"])
            .fails_on("docker", InvalidDockerfile, &["chwon", "COPY --chwon=1 a /"]),
        scenario("copy_with_one_word")
            .dockerfile("FROM scratch\nCOPY a\n")
            .fails(InvalidDockerfile, &["COPY a"]),
        scenario("env_without_value")
            .dockerfile("FROM scratch\nENV A\n")
            .fails(InvalidDockerfile, &["ENV A"]),
        scenario("label_with_an_open_quote")
            .dockerfile("FROM scratch\nLABEL a=\"b\n")
            .fails(InvalidDockerfile, &["LABEL a=\"b"]),
        scenario("heredoc_without_an_end")
            .dockerfile("FROM scratch\nCOPY <<EOF /x\nhello\n")
            .fails(InvalidDockerfile, &["EOF"]),
        scenario("stage_upon_itself")
            .dockerfile("FROM scratch AS one\nCOPY --from=two /a /\nFROM one AS two\nCOPY --from=one /b /\n")
            .fails(InvalidDockerfile, &["two"]),
        scenario("onbuild_of_from")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /\nONBUILD FROM scratch\n")
            .fails(InvalidDockerfile, &["ONBUILD FROM"]),
        scenario("health_check_without_type")
            .dockerfile("FROM scratch\nHEALTHCHECK --interval=soon CMD x\n")
            .fails(InvalidDockerfile, &["soon"]),
        scenario("expose_of_nonsense")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /\nEXPOSE eighty\n")
            .fails(InvalidDockerfile, &["eighty"]),
    ]
}

fn copies() -> Vec<Scenario> {
    vec![
        scenario("copy_source_missing_shows_the_line")
            .file("mian.rs", "1")
            .dockerfile("FROM scratch\nCOPY main.rs /\n")
            .fails_on("oci", InvalidDockerfile, &["main.rs", "Dockerfile:2", "COPY main.rs /"])
            .fails_on("docker", InvalidDockerfile, &["main.rs", "not found"]),
        scenario("copy_source_outside_the_context")
            .beside("outside", "1")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY ../outside /\n")
            .fails_on("oci", InvalidDockerfile, &["../outside", "context"])
            .fails_on("docker", InvalidDockerfile, &["outside"]),
        scenario("copy_through_a_link_out_of_the_context")
            .beside("outside/secret", "1")
            .symlink("link", "../outside")
            .dockerfile("FROM scratch\nCOPY link/secret /\n")
            .fails(InvalidDockerfile, &["secret"]),
        scenario("wildcard_that_matches_nothing_is_no_error")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY *.txt /d/\nCOPY a *.md /e/\n")
            .expect(only("/e", &["a"])),
        scenario("several_sources_to_what_is_no_directory_the_last_wins")
            .file("a", "1")
            .file("b", "2")
            .dockerfile("FROM scratch\nCOPY a b /c\n")
            .expect(at("/c").file("2")),
        scenario("directory_over_a_file")
            .file("one/x", "1")
            .file("two/x/y", "1")
            .dockerfile("FROM scratch\nCOPY one /d\nCOPY two /d\n")
            .fails(InvalidDockerfile, &["/d/x"]),
        scenario("file_over_a_directory")
            .file("one/x/y", "1")
            .file("two/x", "1")
            .dockerfile("FROM scratch\nCOPY one /d\nCOPY two /d\n")
            .fails(InvalidDockerfile, &["/d/x"]),
        scenario("copy_below_a_file")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /x\nCOPY a /x/y\n")
            .fails(InvalidDockerfile, &["/x"]),
        scenario("copy_into_a_file_as_if_it_were_a_directory")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /x\nCOPY a /x/\n")
            .fails(InvalidDockerfile, &["/x"]),
        scenario("chown_of_an_unknown_user_is_root")
            .file("a", "1")
            .dockerfile("FROM {busybox}\nCOPY --chown=nosuch a /\n")
            .warns_on("oci", "nosuch")
            .expect(at("/a").owner(0, 0)),
        scenario("chown_by_name_where_there_are_no_names")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY --chown=app a /\n")
            .fails(InvalidDockerfile, &["app"]),
        scenario("chmod_of_nonsense")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY --chmod=rwx a /\n")
            .fails_on("oci", InvalidDockerfile, &["rwx"])
            .differs(
                "",
                "BuildKit 0.13 takes no notice of a mode that it cannot read; later ones refuse it as we do",
            ),
        scenario("copy_from_an_unknown_stage_or_image")
            .dockerfile("FROM scratch\nCOPY --from={registry}/none/such:1 /a /\n")
            .fails(NotFound, &["none/such:1"]),
    ]
}

fn bases() -> Vec<Scenario> {
    vec![
        scenario("base_that_the_registry_has_not")
            .dockerfile("FROM {registry}/none/such:1\nENV A=1\n")
            .fails(NotFound, &["none/such:1"]),
        scenario("base_at_a_registry_that_is_down")
            .dockerfile("FROM 127.0.0.1:9/base/busybox:1\nENV A=1\n")
            .fails(Unavailable, &["127.0.0.1:9"]),
        scenario("base_with_a_digest_that_is_not_there")
            .dockerfile("FROM {registry}/base/busybox@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\nENV A=1\n")
            .fails(NotFound, &["0123456789abcdef"]),
        scenario("base_whose_reference_is_wrong")
            .dockerfile("FROM {registry}/Base/Busybox:1\nENV A=1\n")
            .fails(InvalidDockerfile, &["Base/Busybox"]),
        scenario("base_that_is_an_empty_argument")
            .dockerfile("ARG BASE\nFROM $BASE\nENV A=1\n")
            .fails(InvalidDockerfile, &["FROM $BASE"]),
        scenario("layout_context_that_is_missing")
            .dockerfile("FROM base\nENV A=1\n")
            .context("base", NamedContext::Layout("{root}/no-layout", "1"))
            .fails(InvalidInput, &["no-layout"]),
        scenario("directory_context_that_is_missing")
            .dockerfile("FROM scratch\nCOPY --from=other a /\n")
            .context("other", NamedContext::Directory("{root}/no-directory"))
            .fails(InvalidInput, &["no-directory"]),
    ]
}

fn runs() -> Vec<Scenario> {
    vec![
        scenario("run_changes_files")
            .file("a", "1")
            .dockerfile("FROM {busybox}\nCOPY a /a\nRUN echo two >>/a && ln -s a /b && rm -r /home\n")
            .needs(Feature::Run)
            .expect(at("/a").file("1two\n"))
            .expect(at("/b").symlink("a")),
        scenario("run_is_refused_before_anything_is_fetched")
            .dockerfile("FROM {registry}/none/such:1\nENV A=1\nRUN make \\\n  all\n")
            .fails_on("oci", Unsupported, &["RUN", "Dockerfile:3", "RUN make", "docker"])
            .fails_on(ANY_REMOTE, BuildFailed, &["RUN", "Dockerfile:3", "RUN make"])
            .fails_on("docker", NotFound, &["none/such:1"]),
        scenario("run_that_fails")
            .dockerfile("FROM {busybox}\nRUN echo first && echo the last words >&2 && exit 7\n")
            .needs(Feature::Run)
            .fails(BuildFailed, &["RUN echo first", "exit code: 7", "the last words"]),
        scenario("run_of_a_program_that_is_missing")
            .dockerfile("FROM {busybox}\nRUN no-such-program --now\n")
            .needs(Feature::Run)
            .fails(BuildFailed, &["RUN no-such-program", "127"]),
    ]
}
