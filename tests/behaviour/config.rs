//! What instructions write into the image config, and the history that they leave.

use serde_json::{Value, json};
use windlass_tests::scenario::{Scenario, at, config, only, scenario};

/// The scenarios of this file.
pub(crate) fn scenarios() -> Vec<Scenario> {
    [metadata(), commands(), directories(), triggers()].concat()
}

/// One file, these further instructions, and what the config then says.
fn says(name: &'static str, instructions: &str, expected: &[(&'static str, Value)]) -> Scenario {
    let dockerfile = format!("FROM scratch\nCOPY a /\n{instructions}");
    let start = scenario(name).file("a", "1").dockerfile(dockerfile);
    expected.iter().fold(start, |scenario, (place, value)| scenario.expect(config(place, value.clone())))
}

fn metadata() -> Vec<Scenario> {
    vec![
        says(
            "labels",
            "LABEL a=1 b=\"two words\" \"c d\"=e\nLABEL a=2\nLABEL old form here\nLABEL multi=\"one \\\n  two\"\n",
            &[(
                "/config/Labels",
                json!({"a": "2", "b": "two words", "c d": "e", "old": "form here", "multi": "one   two"}),
            )],
        ),
        says(
            "labels_from_the_command_line_win",
            "LABEL a=1 b=1\n",
            &[("/config/Labels", json!({"a": "9", "b": "1", "x.y": "z=1"}))],
        )
        .label("a", "9")
        .label("x.y", "z=1"),
        scenario("labels_of_the_command_line_only")
            .file("a", "1")
            .dockerfile("FROM scratch\nCOPY a /\n")
            .label("a", "")
            .expect(config("/config/Labels", json!({"a": ""}))),
        says(
            "exposed_ports",
            "EXPOSE 80\nEXPOSE 53/udp 53/tcp\nEXPOSE 8000-8002\nEXPOSE 9/UDP\n",
            &[(
                "/config/ExposedPorts",
                json!({"80/tcp": {}, "53/udp": {}, "53/tcp": {}, "8000/tcp": {}, "8001/tcp": {}, "8002/tcp": {}, "9/udp": {}}),
            )],
        ),
        says(
            "volumes",
            "VOLUME /one /two\nVOLUME [\"/three\", \"/with space\"]\nVOLUME relative\n",
            &[(
                "/config/Volumes",
                json!({"/one": {}, "/two": {}, "/three": {}, "/with space": {}, "relative": {}}),
            )],
        ),
        says("user_by_name_and_by_numbers", "USER app\nUSER 12:34\n", &[("/config/User", json!("12:34"))]),
        says("stop_signal", "STOPSIGNAL SIGTERM\n", &[("/config/StopSignal", json!("SIGTERM"))]),
        says(
            "health_check_of_a_shell",
            "HEALTHCHECK --interval=1m30s --timeout=5s --start-period=1500ms --retries=4 CMD test -e /x || exit 1\n",
            &[(
                "/config/Healthcheck",
                json!({"Test": ["CMD-SHELL", "test -e /x || exit 1"], "Interval": 90_000_000_000_u64, "Timeout": 5_000_000_000_u64,
                       "StartPeriod": 1_500_000_000_u64, "Retries": 4}),
            )],
        ),
        says(
            "health_check_of_a_program",
            "HEALTHCHECK CMD [\"check\", \"--now\"]\n",
            &[("/config/Healthcheck", json!({"Test": ["CMD", "check", "--now"]}))],
        ),
        says(
            "health_check_off",
            "HEALTHCHECK CMD x\nHEALTHCHECK NONE\n",
            &[("/config/Healthcheck", json!({"Test": ["NONE"]}))],
        ),
        says(
            "maintainer_is_the_author",
            "MAINTAINER Some One <a@b.c>\n",
            &[("/author", json!("Some One <a@b.c>"))],
        ),
        scenario("config_of_the_base_is_kept")
            .dockerfile("FROM {busybox}\nENV A=1\n")
            .expect(config("/config/Cmd", json!(["sh"])))
            .expect(config("/author", "windlass-tests")),
        scenario("only_config_changes")
            .dockerfile("FROM {busybox}\nENV A=1\nUSER app\nWORKDIR /home/app\nCMD [\"x\"]\n")
            .expect(config("/config/User", "app"))
            .expect(config("/config/WorkingDir", "/home/app")),
        scenario("nothing_but_a_base")
            .dockerfile("FROM {busybox}\n")
            .expect(config("/config/Cmd", json!(["sh"]))),
        says(
            "history_of_every_instruction",
            "ENV A=1   B=\"2 3\"\nLABEL x=y\nEXPOSE 80\nVOLUME /v\nUSER u\nWORKDIR /w\nARG Z=1\nENTRYPOINT [\"e\"]\nCMD c d\n\
             SHELL [\"/bin/x\", \"-c\"]\nSTOPSIGNAL 9\nHEALTHCHECK NONE\nONBUILD COPY b /\nMAINTAINER me\nCOPY --chown=1:2 a   /b\n\
             ADD a /c/\nCOPY <<EOF /h\nx\nEOF\n",
            &[],
        ),
    ]
}

fn commands() -> Vec<Scenario> {
    let busybox =
        |name, instructions: &str| scenario(name).dockerfile(format!("FROM {{busybox}}\n{instructions}"));
    vec![
        says(
            "entrypoint_and_command_of_programs",
            "ENTRYPOINT [\"run\", \"a b\"]\nCMD [\"x\", \"\"]\n",
            &[("/config/Entrypoint", json!(["run", "a b"])), ("/config/Cmd", json!(["x", ""]))],
        ),
        says(
            "entrypoint_and_command_of_a_shell",
            "ENTRYPOINT run \"a b\"  && x\nCMD echo 'hi'\n",
            &[
                ("/config/Entrypoint", json!(["/bin/sh", "-c", "run \"a b\"  && x"])),
                ("/config/Cmd", json!(["/bin/sh", "-c", "echo 'hi'"])),
            ],
        ),
        says(
            "what_looks_like_json_but_is_not_goes_to_the_shell",
            "CMD ['single', 'quotes']\n",
            &[("/config/Cmd", json!(["/bin/sh", "-c", "['single', 'quotes']"]))],
        ),
        busybox("entrypoint_resets_the_command_of_the_base", "ENTRYPOINT [\"e\"]\n")
            .expect(config("/config/Entrypoint", json!(["e"])))
            .expect(config("/config/Cmd", Value::Null)),
        busybox("entrypoint_keeps_a_command_of_its_own_stage", "CMD [\"c\"]\nENTRYPOINT [\"e\"]\n")
            .expect(config("/config/Cmd", json!(["c"]))),
        says("command_that_is_empty", "CMD [\"x\"]\nCMD []\n", &[]),
        says("entrypoint_that_is_empty", "ENTRYPOINT [\"x\"]\nENTRYPOINT []\n", &[]),
        says(
            "shell_of_the_shell_form",
            "SHELL [\"/bin/bash\", \"-eo\", \"pipefail\", \"-c\"]\nCMD one\nENTRYPOINT two\n",
            &[
                ("/config/Shell", json!(["/bin/bash", "-eo", "pipefail", "-c"])),
                ("/config/Cmd", json!(["/bin/bash", "-eo", "pipefail", "-c", "one"])),
                ("/config/Entrypoint", json!(["/bin/bash", "-eo", "pipefail", "-c", "two"])),
            ],
        ),
    ]
}

fn directories() -> Vec<Scenario> {
    vec![
        scenario("workdir_makes_directories")
            .dockerfile("FROM {busybox}\nWORKDIR /srv/app\nWORKDIR deeper\n")
            .expect(at("/srv/app/deeper").directory().mode(0o755).owner(0, 0))
            .expect(config("/config/WorkingDir", "/srv/app/deeper")),
        scenario("workdir_that_exists_stays_as_it_is")
            .dockerfile("FROM {busybox}\nWORKDIR /home/app\nWORKDIR /tmp\n")
            .expect(at("/home/app").mode(0o2775).owner(1000, 1000))
            .expect(at("/tmp").mode(0o1777)),
        scenario("workdir_behind_a_link")
            .dockerfile("FROM {busybox}\nWORKDIR /lib64/x\n")
            .expect(at("/lib/x").directory())
            .expect(config("/config/WorkingDir", "/lib64/x")),
        scenario("workdir_belongs_to_the_user_and_copies_to_root")
            .file("a", "1")
            .dockerfile("FROM {busybox}\nUSER app\nWORKDIR /w\nCOPY a .\n")
            .expect(at("/w").owner(1000, 1000))
            .expect(at("/w/a").owner(0, 0)),
        scenario("workdir_cleans_its_path")
            .file("a", "1")
            .dockerfile("FROM scratch\nWORKDIR /x/../y//z/\nWORKDIR ../q\nCOPY a .\n")
            .expect(at("/y/q/a").file("1"))
            .expect(config("/config/WorkingDir", "/y/q"))
            .differs(
                "history/0/created_by",
                "BuildKit 0.13 writes WORKDIR as it stands in the Dockerfile; later ones clean the path, as we do",
            ),
    ]
}

fn triggers() -> Vec<Scenario> {
    vec![
        says(
            "onbuild_is_kept_for_later",
            "ONBUILD COPY b /\nONBUILD ENV A=1\n",
            &[("/config/OnBuild", json!(["COPY b /", "ENV A=1"]))],
        ),
        scenario("onbuild_runs_in_a_stage_upon_it")
            .file("b", "2")
            .file("c", "3")
            .dockerfile(
                "FROM scratch AS base\nCOPY c /c\nONBUILD COPY b /b\nONBUILD ENV A=1\nFROM base\nCOPY c /d\nENV B=$A\n",
            )
            .expect(only("/", &["b", "c", "d"]))
            .expect(config("/config/Env/2", "B=1"))
            .expect(config("/config/OnBuild", Value::Null)),
    ]
}
