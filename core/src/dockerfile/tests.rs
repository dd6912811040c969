#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::platform::Platform;
use crate::request::NamedContext;

fn parse(text: &str) -> Dockerfile {
    Dockerfile::parse(text.as_bytes(), Path::new("Dockerfile"))
        .unwrap_or_else(|error| panic!("{text}: {error:?}"))
}

fn refuse(text: &str) -> Error {
    Dockerfile::parse(text.as_bytes(), Path::new("Dockerfile")).expect_err(text)
}

fn kinds(text: &str) -> Vec<InstructionKind> {
    parse(text).stages.into_iter().flat_map(|stage| stage.instructions).map(|one| one.kind).collect()
}

fn stages(text: &str, target: Option<&str>, arguments: &[(&str, &str)]) -> Result<StagePlan> {
    let build_args =
        arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let platform = "linux/arm64".parse::<Platform>().unwrap();
    let build_platform = "linux/amd64".parse::<Platform>().unwrap();
    let contexts = BTreeMap::from([("base".to_owned(), NamedContext::Directory("x".into()))]);
    let input = PlanInput {
        target,
        build_args: &build_args,
        platform: &platform,
        build_platform: &build_platform,
        contexts: &contexts,
    };
    StagePlan::new(&parse(text), &input)
}

#[test]
fn joins_lines_and_keeps_numbers() {
    let file = parse(
        "\u{feff}# syntax=docker/dockerfile:1\n#escape=`\n\nFROM scratch\nENV a=1 `\n\n  # comment\n  b=2 `  \n c=``\nLABEL x=y\n",
    );
    assert_eq!(file.escape, '`');
    assert_eq!(file.syntax.as_deref(), Some("docker/dockerfile:1"));
    let [env, label] = &file.stages[0].instructions[..] else { panic!("{file:?}") };
    assert_eq!(env.location, Location { first_line: 5, last_line: 9 });
    assert_eq!(env.text, "ENV a=1   b=2  c=``");
    assert_eq!(label.location, Location::line(10));
    assert_eq!(file.warnings.len(), 1);
}

#[test]
fn a_directive_after_anything_else_is_a_comment() {
    assert_eq!(parse("# hello\n# escape=`\nFROM scratch\nCMD a\\\n b\n").escape, '\\');
    assert_eq!(refuse("# escape=x\nFROM scratch").source_line().unwrap().line, 1);
    assert!(refuse("# escape=`\n# escape=`\nFROM scratch").message().contains("twice"));
}

#[test]
fn reads_heredocs_wherever_they_stand() {
    let text = "FROM scratch\nCOPY <<A <<-\"B\" /dst/\nx $y\nA\n\ttab\n\tB\nRUN cat <<E > /x && cat << F\n1\nE\n2\nF\nENV k=v\n";
    let kinds = kinds(text);
    let InstructionKind::Copy(copy) = &kinds[0] else { panic!() };
    assert!(copy.sources.is_empty());
    assert_eq!(copy.heredocs[0].content, "x $y\n");
    assert!(copy.heredocs[0].expand);
    assert_eq!(copy.heredocs[1].chomped(), "tab\n");
    assert!(!copy.heredocs[1].expand);
    let InstructionKind::Run(run) = &kinds[1] else { panic!() };
    assert_eq!(run.heredocs.iter().map(|h| h.content.as_str()).collect::<Vec<_>>(), ["1\n", "2\n"]);
    assert_eq!(kinds[2], InstructionKind::Env(vec![("k".to_owned(), "v".to_owned())]));
    assert_eq!(refuse("FROM scratch\nCOPY <<E /x\nabc\n").source_line().unwrap().line, 2);
    assert_eq!(self::kinds("FROM scratch\nRUN echo $((1 << 2))\n").len(), 1);
    assert_eq!(self::kinds("FROM scratch\nRUN [\"<<E\"]\nENV a b\n").len(), 2);
}

#[test]
fn names_what_is_unknown_and_what_is_near() {
    let error = refuse("FROM scratch\n\nCPOY a b\n");
    assert_eq!(error.message(), "unknown instruction `CPOY`");
    assert_eq!(error.hints(), ["did you mean `COPY`?"]);
    let line = error.source_line().unwrap();
    assert_eq!((line.line, line.text.as_str()), (3, "CPOY a b"));
    let error = refuse("FROM scratch\nCOPY --form=x a b\n");
    assert_eq!(error.message(), "unknown flag `--form` of COPY");
    assert_eq!(error.hints(), ["did you mean `--from`?"]);
}

#[test]
fn refuses_what_buildkit_refuses() {
    for text in [
        "",
        "# only a comment\n",
        "ARG a\n",
        "COPY a b\nFROM scratch\n",
        "FROM\n",
        "FROM a b\n",
        "FROM a AS 1x\n",
        "FROM scratch\nCOPY a\n",
        "FROM scratch\nCOPY a <<E\nE\n",
        "FROM scratch\nENV a\n",
        "FROM scratch\nENV a=1 b\n",
        "FROM scratch\nENV =1\n",
        "FROM scratch\nLABEL\n",
        "FROM scratch\nARG\n",
        "FROM scratch\nSHELL sh -c\n",
        "FROM scratch\nSHELL []\n",
        "FROM scratch\nCMD [1]\n",
        "FROM scratch\nHEALTHCHECK\n",
        "FROM scratch\nHEALTHCHECK NONE x\n",
        "FROM scratch\nHEALTHCHECK CMD\n",
        "FROM scratch\nHEALTHCHECK --interval=1 CMD x\n",
        "FROM scratch\nHEALTHCHECK --interval=1ns CMD x\n",
        "FROM scratch\nHEALTHCHECK --retries=-1 CMD x\n",
        "FROM scratch\nONBUILD\n",
        "FROM scratch\nONBUILD ONBUILD RUN x\n",
        "FROM scratch\nONBUILD FROM x\n",
        "FROM scratch\nVOLUME [\"\"]\n",
        "FROM scratch\nEXPOSE\n",
        "FROM scratch\nWORKDIR\n",
        "FROM scratch\nCOPY --from=a --from=b x y\n",
        "FROM scratch\nCOPY --link=maybe x y\n",
        "FROM scratch\nCOPY --chown x y\n",
        "FROM scratch\nUSER --x y\n",
    ] {
        assert_eq!(refuse(text).kind(), ErrorKind::InvalidDockerfile, "{text}");
    }
}

#[test]
fn reads_each_instruction() {
    let check = |test: &[&str]| Healthcheck {
        test: test.iter().map(|word| (*word).to_owned()).collect(),
        interval: 0,
        timeout: 0,
        start_period: 0,
        start_interval: 0,
        retries: 0,
    };
    for (text, expected) in [
        (
            "ARG a b=\"c d\"",
            InstructionKind::Arg(vec![
                Argument { name: "a".to_owned(), default: None },
                Argument { name: "b".to_owned(), default: Some("\"c d\"".to_owned()) },
            ]),
        ),
        ("CMD [\"a\", \"b\"]", InstructionKind::Cmd(CommandLine::Exec(vec!["a".to_owned(), "b".to_owned()]))),
        ("CMD ['a']", InstructionKind::Cmd(CommandLine::Shell("['a']".to_owned()))),
        ("cmd", InstructionKind::Cmd(CommandLine::Exec(vec![]))),
        ("EXPOSE 80 22/udp", InstructionKind::Expose(vec!["22/udp".to_owned(), "80".to_owned()])),
        ("HEALTHCHECK NONE", InstructionKind::Healthcheck(check(&["NONE"]))),
        (
            "HEALTHCHECK --retries=3 --timeout=1s CMD a b",
            InstructionKind::Healthcheck(Healthcheck {
                timeout: 1_000_000_000,
                retries: 3,
                ..check(&["CMD-SHELL", "a b"])
            }),
        ),
        ("ENV a b  c", InstructionKind::Env(vec![("a".to_owned(), "b  c".to_owned())])),
        ("ONBUILD COPY a b", InstructionKind::Onbuild("COPY a b".to_owned())),
        ("ONBUILD COPY <<E /x\n1\nE", InstructionKind::Onbuild("COPY <<E /x\n1\nE".to_owned())),
        ("VOLUME /a /b", InstructionKind::Volume(vec!["/a".to_owned(), "/b".to_owned()])),
        ("WORKDIR  /a b ", InstructionKind::Workdir("/a b".to_owned())),
        (
            "COPY [\"a b\", \"c\"]",
            InstructionKind::Copy(Copy {
                sources: vec!["a b".to_owned()],
                destination: "c".to_owned(),
                ..Copy::default()
            }),
        ),
    ] {
        assert_eq!(kinds(&format!("FROM scratch\n{text}\n")), [expected], "{text}");
    }
}

#[test]
fn a_trigger_is_read_at_the_place_of_the_from() {
    let file = parse("FROM scratch\n");
    let location = Location::line(1);
    let trigger = file.parse_trigger("COPY <<E /x\n1\nE", location).unwrap();
    let InstructionKind::Copy(copy) = trigger.kind else { panic!() };
    assert_eq!((trigger.location, copy.heredocs[0].content.as_str()), (location, "1\n"));
    assert_eq!(file.parse_trigger("NOPE", location).unwrap_err().source_line().unwrap().line, 1);
}

#[test]
fn plans_only_what_the_target_needs() {
    let text = "ARG V=12\nFROM debian:$V AS a\nFROM a AS b\nFROM --platform=$BUILDPLATFORM golang AS tools\nFROM scratch\nCOPY --from=B x y\nCOPY --from=alpine x y\n";
    let plan = stages(text, None, &[("V", "13")]).unwrap();
    assert_eq!(plan.stages.iter().map(|stage| stage.needed).collect::<Vec<_>>(), [true, true, false, true]);
    assert_eq!(plan.stages[0].base, Base::Image("debian:13".parse().unwrap()));
    assert_eq!(plan.stages[1].base, Base::Stage(0));
    assert_eq!(plan.stages[2].platform, Some("linux/amd64".parse().unwrap()));
    assert_eq!(plan.stages[3].base, Base::Scratch);
    let plan = stages(text, Some("A"), &[]).unwrap();
    assert_eq!((plan.target, plan.stages[1].needed), (0, false));
    assert_eq!(plan.global["TARGETARCH"], "arm64");
}

#[test]
fn a_named_context_takes_the_place_of_a_stage_or_an_image() {
    let plan = stages("FROM debian AS base\nRUN x\nFROM base\n", None, &[]).unwrap();
    assert!(plan.stages[0].replaced);
    assert_eq!(plan.stages[0].base, Base::Context("base".to_owned()));
    let plan = stages("FROM docker.io/library/base:latest\n", None, &[]).unwrap();
    assert_eq!(plan.stages[0].base, Base::Context("base".to_owned()));
}

#[test]
fn refuses_stages_that_cannot_be() {
    for (text, target, line) in [
        ("FROM a AS x\nCOPY --from=x a b\n", None, 2),
        ("FROM a AS x\nCOPY --from=y a b\nFROM b AS y\nCOPY --from=x a b\n", None, 2),
        ("FROM a AS x\nCOPY --from=y a b\nFROM b AS y\nFROM x\n", None, 2),
        ("FROM $NOPE\n", None, 1),
        ("FROM --platform=linux/amd46 a\n", None, 1),
        ("FROM A:B:C\n", None, 1),
        ("FROM a\nCOPY --from=3 a b\n", None, 2),
        ("FROM a\nCOPY --from=$x a b\n", None, 2),
        ("ARG x=${y\nFROM a\n", None, 1),
    ] {
        let error = stages(text, target, &[]).expect_err(text);
        assert_eq!(error.source_line().map(|line| line.line), Some(line), "{text}: {error:?}");
    }
    let error = stages("FROM a AS builder\n", Some("bilder"), &[]).unwrap_err();
    assert_eq!(error.hints(), ["did you mean `builder`?"]);
}

#[test]
fn only_buildkit_reads_other_frontends() {
    let foreign = |text: &str| Dockerfile::is_foreign(text.as_bytes(), Path::new("Dockerfile")).unwrap();
    assert!(foreign("# syntax=acme/frontend:1\nFOO\n"));
    assert!(!foreign("# syntax=docker/dockerfile:1.7\nFROM a\n"));
    assert!(!foreign("# syntax=docker.io/docker/dockerfile@sha256:00\nFROM a\n"));
    assert!(!foreign("FROM a\n"));
}

#[test]
fn checks_are_skipped_or_made_errors() {
    let parse = |directive: &str| {
        let text = format!("{directive}\nFROM scratch\nENV a=1 \\\n\n b=2\n");
        Dockerfile::parse(text.as_bytes(), Path::new("Dockerfile"))
    };
    assert_eq!(parse("# none").expect("good").warnings.len(), 1);
    assert!(parse("# check=skip=all").expect("good").warnings.is_empty());
    assert!(parse("# check=skip=NoEmptyContinuation;error=true").expect("good").warnings.is_empty());
    let line = |directive| parse(directive).expect_err(directive).source_line().expect("a line").line;
    assert_eq!((line("# check=error=true"), line("# check=nonsense")), (4, 1));
}

#[test]
fn what_may_be_something_else_tomorrow_is_known() {
    let unpinned = |text: &str| {
        let source = crate::request::DockerfileSource {
            shown: "Dockerfile".into(),
            path: None,
            in_context: None,
            content: text.to_owned().into(),
        };
        unpinned_sources(&crate::request::BuildRequest::new(crate::context::Context::empty(), source))
            .unwrap()
    };
    let commit = "0123456789012345678901234567890123456789";
    for (add, expected) in [
        ("ADD http://h/x /", 1),
        ("ADD --checksum=sha256:1 http://h/x /", 0),
        ("ADD http://h/x.git#main /", 1),
        ("ADD --checksum=0123 http://h/x.git#main /", 1),
        (&format!("ADD http://h/x.git#{commit} /"), 0),
        (&format!("ADD --checksum={commit} git@h:x /"), 0),
        ("ADD x y /", 0),
        ("ADD $A /", 0),
        ("ARG A=http://h/x\nADD $A /", 1),
        ("ENV A=git@h:x\nADD \"${A}\" b /", 1),
    ] {
        assert_eq!(unpinned(&format!("FROM scratch\n{add}\n")).len(), expected, "{add}");
    }
    assert!(unpinned("FROM scratch AS unneeded\nADD http://h/x /\nFROM scratch\n").is_empty());
}

#[test]
fn the_line_of_an_error_shows_no_password() {
    let error = refuse("FROM scratch\nADD --nothing=1 https://me:secret@h/x /\n");
    let line = error.source_line().unwrap();
    assert_eq!((line.line, &line.text[..]), (2, "ADD --nothing=1 https://xxxxx:xxxxx@h/x /"));
}
