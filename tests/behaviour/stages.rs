//! Stages, targets, platforms, and the variables that run through them.

use serde_json::json;
use windlass_core::ErrorKind;
use windlass_core::backend::Feature;
use windlass_tests::scenario::{Scenario, absent, at, config, only, scenario};

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [stages(), variables(), expansion(), platforms()].concat()
}

const ARG_IN_HISTORY: &str = "BuildKit 0.13 writes an ARG into the history as it stands in the Dockerfile; later ones write \
                              the value that it has, as we do";
const ARG_IN_A_LINE: &str = "in BuildKit 0.13 an ARG does not see those before it in the same line; in later ones it does, as \
                             with us";

const THREE: &str = "FROM scratch AS one\nCOPY a /1\nFROM one AS Two\nCOPY a /2\nFROM two\nCOPY a /3\n";

fn stages() -> Vec<Scenario> {
    vec![
        scenario("stage_upon_a_stage").file("a", "1").dockerfile(THREE).expect(only("/", &["1", "2", "3"])),
        scenario("target_by_name").file("a", "1").dockerfile(THREE).target("one").expect(only("/", &["1"])),
        scenario("target_by_name_in_other_letters")
            .file("a", "1")
            .dockerfile(THREE)
            .target("TWO")
            .expect(only("/", &["1", "2"])),
        scenario("target_is_no_number")
            .file("a", "1")
            .dockerfile(THREE)
            .target("1")
            .fails(ErrorKind::InvalidInput, &["stage", "1"]),
        scenario("target_unknown_names_the_nearest")
            .file("a", "1")
            .dockerfile("FROM scratch AS builder\nCOPY a /\n")
            .target("bilder")
            .fails_on("oci", ErrorKind::InvalidInput, &["bilder", "did you mean `builder`"])
            .fails_on("docker", ErrorKind::InvalidInput, &["bilder"]),
        scenario("stage_that_is_not_needed_is_not_built")
            .file("a", "1")
            .dockerfile("FROM {registry}/none/such:1 AS unused\nCOPY missing /\nFROM scratch\nCOPY a /\n")
            .expect(only("/", &["a"])),
        scenario("stage_after_the_target_is_not_built")
            .file("a", "1")
            .dockerfile("FROM scratch AS wanted\nCOPY a /\nFROM {registry}/none/such:1\nCOPY missing /\n")
            .target("wanted")
            .expect(only("/", &["a"])),
        scenario("stage_named_like_an_image_wins")
            .file("a", "1")
            .dockerfile("FROM scratch AS busybox\nCOPY a /\nFROM busybox\nCOPY a /b\n")
            .expect(only("/", &["a", "b"])),
        scenario("stage_of_another_config")
            .dockerfile(
                "FROM {busybox} AS one\nENV A=1\nWORKDIR /w\nUSER app\nLABEL l=1\nCMD [\"x\"]\n\
                 FROM one\nENV B=$A\n",
            )
            .expect(config("/config/WorkingDir", "/w"))
            .expect(config("/config/User", "app"))
            .expect(config("/config/Labels/l", "1"))
            .expect(config("/config/Cmd", json!(["x"]))),
        scenario("empty_stage_from_scratch_copied_from")
            .file("a", "1")
            .dockerfile("FROM scratch AS base\nFROM base\nCOPY a /\n")
            .expect(only("/", &["a"])),
    ]
}

/// Puts values of variables into the environment, where the config shows them.
fn env(name: &'static str, dockerfile: &'static str, env: &[&str]) -> Scenario {
    const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let all: Vec<&str> = std::iter::once(PATH).chain(env.iter().copied()).collect();
    // An image with no layer at all is a matter of its own.
    scenario(name).file("a", "1").dockerfile(dockerfile).expect(config("/config/Env", json!(all)))
}

fn variables() -> Vec<Scenario> {
    vec![
        env("scratch_gets_the_default_path", "FROM scratch\nCOPY a /\n", &[]),
        env("argument_with_a_default", "FROM scratch\nCOPY a /\nARG V=1\nENV X=$V\n", &["X=1"]),
        env("argument_from_outside", "FROM scratch\nCOPY a /\nARG V=1\nARG W\nENV X=$V Y=$W\n", &["X=2", "Y=w"])
            .build_arg("V", "2")
            .build_arg("W", "w").differs("history/1/created_by", ARG_IN_HISTORY).differs("history/2/created_by", ARG_IN_HISTORY),
        env("argument_without_value_is_empty", "FROM scratch\nCOPY a /\nARG V\nENV X=$V Y=${V-unset}\n", &["X=", "Y=unset"]),
        env("argument_before_it_is_declared_is_empty", "FROM scratch\nCOPY a /\nENV X=$V\nARG V=1\n", &["X="]).build_arg("V", "2").differs("history/2/created_by", ARG_IN_HISTORY),
        scenario("argument_several_in_a_line")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /\nARG A=1 B=$A C\nLABEL x=$A-$B-$C\n")
            .build_arg("C", "c")
            .expect_on("oci", config("/config/Labels/x", "1-1-c"))
            .expect_on("docker", config("/config/Labels/x", "1--c"))
            .differs("config/Labels/x", ARG_IN_A_LINE)
            .differs("history/1/created_by", ARG_IN_A_LINE)
            .differs("history/2/created_by", ARG_IN_A_LINE),
        env("argument_of_a_stage_goes_on_in_stages_upon_it", "FROM scratch AS one\nCOPY a /\nARG V=1\nFROM one\nENV X=${V:-none}\n", &["X=1"]),
        env("argument_of_a_stage_is_not_that_of_another", "FROM scratch AS one\nARG V=1\nFROM scratch\nCOPY a /\nENV X=${V:-none}\n", &["X=none"]),
        env(
            "argument_before_from_needs_to_be_taken_over",
            "ARG V=global\nARG BASE=scratch\nFROM ${BASE}\nCOPY a /\nENV X=${V:-none}\nARG V\nENV Y=$V\n",
            &["X=none", "Y=global"],
        ).differs("history/2/created_by", ARG_IN_HISTORY),
        env(
            "argument_before_from_with_a_stage_default",
            "ARG V=global\nFROM scratch\nCOPY a /\nARG V=local\nENV X=$V\n",
            &["X=local"],
        ),
        scenario("argument_before_from_chooses_the_base")
            .dockerfile("ARG REGISTRY={registry}\nARG NAME=none\nFROM $REGISTRY/base/${NAME}:1\nENV A=1\n")
            .build_arg("NAME", "busybox")
            .expect(at("/bin/busybox").mode(0o755)),
        env("env_wins_over_an_earlier_argument", "FROM scratch\nCOPY a /\nARG V=arg\nENV V=env\nENV X=$V\n", &["V=env", "X=env"]).build_arg("V", "outside").differs("history/1/created_by", ARG_IN_HISTORY),
        env("argument_wins_over_an_earlier_env", "FROM scratch\nCOPY a /\nENV V=env\nARG V=arg\nENV X=$V\n", &["V=env", "X=outside"]).build_arg("V", "outside").differs("history/2/created_by", ARG_IN_HISTORY),
        env("env_sees_the_values_before_the_line", "FROM scratch\nCOPY a /\nENV A=1\nENV A=2 B=$A\nENV C=$A\n", &["A=2", "B=1", "C=2"]),
        env("env_old_form", "FROM scratch\nCOPY a /\nENV A one two  three\nENV B \"q\"\n", &["A=one two  three", "B=q"]),
        env("env_quotes_and_spaces", "FROM scratch\nCOPY a /\nENV A=\"one two\" B='$A' C=three\\ four D=\"\\\"q\\\"\" E=\n", &["A=one two", "B=$A", "C=three four", "D=\"q\"", "E="]),
        env("env_replaced_keeps_its_place", "FROM scratch\nCOPY a /\nENV A=1\nENV B=2\nENV A=3\n", &["A=3", "B=2"]),
        env("predefined_proxy_argument_is_for_run_alone", "FROM scratch\nCOPY a /\nENV X=${HTTP_PROXY:-none}\n", &["X=none"])
            .build_arg("HTTP_PROXY", "http://proxy"),
        scenario("argument_that_no_one_declared_changes_nothing")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /\n")
            .build_arg("UNKNOWN", "1")
            .expect(only("/", &["a"])),
        scenario("env_of_the_base_is_seen")
            .dockerfile("FROM {busybox}\nENV PATH=/opt/bin:$PATH\nENV A=${PATH%%:*}\n")
            .expect(config(
                "/config/Env",
                json!(["PATH=/opt/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "A=/opt/bin"]),
            )),
        scenario("variables_in_label_workdir_user_expose_volume")
            .file("a", "1")
            .dockerfile(
                "FROM scratch\nARG N=7\nENV D=data\nCOPY a /\nWORKDIR /w/$D\nUSER u$N\nEXPOSE 80$N\nVOLUME /v/$D\n\
                 STOPSIGNAL $N\nLABEL k$N=\"v $D\"\n",
            )
            .expect(config("/config/WorkingDir", "/w/data"))
            .expect(config("/config/User", "u7"))
            .expect(config("/config/ExposedPorts", json!({"807/tcp": {}})))
            .expect(config("/config/Volumes", json!({"/v/data": {}})))
            .expect(config("/config/StopSignal", "7"))
            .expect(config("/config/Labels/k7", "v data")),
        scenario("no_variables_in_cmd_and_entrypoint")
            .file("a", "1")
            .dockerfile("FROM scratch\nENV V=1\nCOPY a /\nENTRYPOINT [\"run\", \"$V\"]\nCMD echo $V ${V}\n")
            .expect(config("/config/Entrypoint", json!(["run", "$V"])))
            .expect(config("/config/Cmd", json!(["/bin/sh", "-c", "echo $V ${V}"]))),
    ]
}

fn expansion() -> Vec<Scenario> {
    vec![
        env(
            "expansion_of_defaults_and_alternatives",
            "FROM scratch\nCOPY a /\nENV S=set E=\nENV A=${S:-d} B=${E:-d} C=${U:-d} D=${S-d} F=${E-d} G=${U-d} H=${S:+a} I=${E:+a} J=${S+a} K=${E+a} L=${U+a}\n",
            &["S=set", "E=", "A=set", "B=d", "C=d", "D=set", "F=", "G=d", "H=a", "I=", "J=a", "K=a", "L="],
        ),
        env(
            "expansion_within_expansion",
            "FROM scratch\nCOPY a /\nENV S=set\nENV A=${U:-${S}-x} B=\"${U:-a b}\" C=\"${U:-\"q\"}\" D=${S}s$S.s\n",
            &["S=set", "A=set-x", "B=a b", "C=q", "D=setsset.s"],
        ),
        env(
            "expansion_of_prefixes_and_suffixes",
            "FROM scratch\nCOPY a /\nENV P=one.two.three\nENV A=${P#*.} B=${P##*.} C=${P%.*} D=${P%%.*} E=${P#x} F=${P/two/2} G=${P//e/E}\n",
            &[
                "P=one.two.three",
                "A=two.three",
                "B=three",
                "C=one.two",
                "D=one",
                "E=one.two.three",
                "F=one.2.three",
                "G=onE.two.thrEE",
            ],
        ),
        env(
            "expansion_escaped",
            "FROM scratch\nCOPY a /\nENV S=set\nENV A=\\$S B='$S' C=\"\\$S\" D=$$S E=\\\\$S\n",
            &["S=set", "A=$S", "B=$S", "C=$S", "D=S", "E=\\set"],
        ),
        scenario("expansion_required_value_missing")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /\nENV A=\"${U:?give a U}\"\n")
            .fails(ErrorKind::InvalidDockerfile, &["give a U"]),
        scenario("escape_directive")
            .file("a", "1")
            .dockerfile("# escape=`\nFROM scratch\nCOPY a `\n  /d\\\nENV A=`$x `\n  B=c:\\d\n")
            .expect(at("/d\\").file("1")),
        scenario("continued_lines_with_comments")
            .file("a", "1")
            .dockerfile(
                "FROM scratch\n# comment\nCOPY a \\\n# within\n\n   /d\n  # indented\n  env A=1 \\\n  B=2\n",
            )
            .expect(at("/d").file("1"))
            .expect(config("/config/Env/2", "B=2")),
        scenario("dockerfile_with_byte_order_mark_and_crlf")
            .file("a", "1")
            .dockerfile("\u{feff}FROM scratch\r\nCOPY a \\\r\n  /d\r\nENV A=1\r\n")
            .expect(at("/d").file("1"))
            .expect(config("/config/Env/1", "A=1")),
        scenario("dockerfile_without_last_line_end")
            .file("a", "1")
            .dockerfile("from scratch as x\ncopy a /d")
            .expect(at("/d").file("1")),
    ]
}

fn platforms() -> Vec<Scenario> {
    vec![
        scenario("platform_of_the_base")
            .file("a", "1")
            .dockerfile("FROM {busybox}\nCOPY a /\n")
            .platform("linux/arm64")
            .expect(config("/architecture", "arm64"))
            .expect(config("/os", "linux"))
            .expect(at("/a").file("1")),
        scenario("platform_from_scratch")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /\n")
            .platform("linux/arm/v7")
            .expect(config("/architecture", "arm"))
            .expect(config("/variant", "v7")),
        scenario("platform_in_from")
            .file("a", "1")
            .dockerfile("FROM --platform=linux/arm64 {busybox}\nCOPY a /\n")
            .expect(config("/architecture", "arm64")),
        env(
            "platform_arguments",
            "FROM scratch\nCOPY a /\nARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDOS BUILDARCH\n\
             ENV A=$TARGETPLATFORM B=$TARGETOS/$TARGETARCH/$TARGETVARIANT C=$BUILDPLATFORM D=$BUILDOS-$BUILDARCH\n",
            &["A=linux/arm/v7", "B=linux/arm/v7", "C=linux/amd64", "D=linux-amd64"],
        )
        .platform("linux/arm/v7").differs("history/1/created_by", ARG_IN_HISTORY),
        scenario("platform_arguments_in_from")
            .file("a", "1")
            .dockerfile(
                "FROM scratch AS for-arm64\nCOPY a /arm\nFROM scratch AS for-amd64\nCOPY a /amd\n\
                 FROM for-$TARGETARCH\nCOPY a /a\n",
            )
            .platform("linux/arm64")
            .expect(only("/", &["a", "arm"]))
            .expect(absent("/amd")),
        scenario("platform_of_the_build_machine_in_a_stage")
            .file("a", "1")
            .dockerfile(
                "FROM --platform=$BUILDPLATFORM {busybox} AS build\nARG TARGETARCH\nENV T=$TARGETARCH\nCOPY a /out/a\n\
                 FROM {busybox}\nCOPY --from=build /out /out\n",
            )
            .platform("linux/arm64")
            .expect(config("/architecture", "arm64"))
            .expect(at("/out/a").file("1")),
        scenario("two_platforms_make_an_index")
            .file("a", "1")
            .dockerfile("FROM {busybox}\nARG TARGETARCH\nENV FOR=$TARGETARCH\nCOPY a /\n")
            .platform("linux/amd64")
            .platform("linux/arm64")
            .needs(Feature::MultiPlatform)
            .expect(at("/a").file("1")).differs("history/2/created_by", ARG_IN_HISTORY),
        scenario("platform_that_the_base_has_not")
            .dockerfile("FROM {busybox}\nENV A=1\n")
            .platform("linux/s390x")
            .fails_on("oci", ErrorKind::NotFound, &["linux/s390x", "base/busybox:1", "linux/arm64"])
            .fails_on("docker", ErrorKind::NotFound, &["base/busybox:1"]),
        scenario("platform_unknown_in_from")
            .dockerfile("FROM --platform=linux/amd46 {busybox}\nENV A=1\n")
            .fails_on("oci", ErrorKind::InvalidDockerfile, &["amd46", "did you mean `amd64`", "FROM --platform=linux/amd46"])
            .fails_on("docker", ErrorKind::NotFound, &["amd46"]),
    ]
}
