//! Snapshots of images that the service builds.

use std::time::Duration;

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;
use windlass_tests::place::{Outcome, interrupt, wait_until};
use windlass_tests::service::image_builder::{self, Submission};
use windlass_tests::service::runtime_api::Reaction;
use windlass_tests::service::together::{Asked, Call, Habits, Issued, id, refusal};
use windlass_tests::service::{Absent, Builder, ImageBuilder, from_environment, variables};

use super::{Case, is_name, trial};
use crate::rig::{Rig, same};

/// Where the service says that it pushed what nobody really built.
const REGISTRY: &str = image_builder::REGISTRY;

/// Both of Together's services: each at an address of its own.
struct Remote<'a> {
    case: &'a Case,
    builder: ImageBuilder,
}

impl<'a> Remote<'a> {
    fn new(case: &'a Case, habits: image_builder::Habits) -> Result<Self, Failed> {
        Ok(Self { case, builder: ImageBuilder::start(habits)? })
    }

    fn run(&self, line: &[&str]) -> Result<Outcome, Failed> {
        self.run_with(line, &[])
    }

    fn run_with(&self, line: &[&str], variables: &[(&str, &str)]) -> Result<Outcome, Failed> {
        self.case.run_with(&[line, &["--set", &self.option()]].concat(), variables)
    }

    fn option(&self) -> String {
        format!("backends.image-builder.url={}", self.builder.url())
    }

    /// What was sent to be built last.
    fn submission(&self) -> Result<std::sync::Arc<Submission>, Failed> {
        let asked = self.builder.calls(image_builder::Call::Submit);
        Ok(asked.last().and_then(|asked| asked.submission.clone()).ok_or("nothing was submitted")?)
    }

    /// What was registered last.
    fn registered(&self) -> Result<Value, Failed> {
        let asked = self.case.service.calls(Call::Create);
        Ok(asked.last().and_then(|asked| asked.document.clone()).ok_or("nothing was registered")?)
    }
}

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        dry_run(rig),
        flow(rig),
        options(rig),
        public_image(rig),
        switch(rig),
        failing(rig),
        registration_that_fails(rig),
        leaving(rig),
        another_profile(rig),
        really_built(rig),
    ]
}

/// What would be asked is shown; nothing is asked, and nobody is told who we are.
fn dry_run(rig: &Rig) -> Trial {
    trial(rig, "dry_run", Habits::default, |case| {
        let line = ["create", "--dry-run", "--alias", "a@b", "--ttl", "5"];
        let plan = |more: &[&str]| Ok::<_, Failed>(case.run(&[&line[..], more].concat())?.good()?.to_owned());
        let remote = plan(&["--context", "app"])?;
        let local = plan(&["--context", "app", "--backend", "oci"])?;
        let image = plan(&["--image", "node:22"])?;
        let built = plan(&["--built", "r.example.com/p/a:1"])?;
        for shown in [&remote, &local, &image, &built] {
            for part in [
                "/container-registries/default/credentials",
                "/v1/snapshots [Authorization: Bearer (hidden)] [{",
                r#""ttl":5"#,
                r#"{"alias":"a@b"}"#,
            ] {
                same(part, shown.contains(part), true)?;
            }
        }
        same("the service builds", (remote.contains("/builds"), image.contains("/builds")), (true, true))?;
        same("the push", local.contains("push"), true)?;
        same("requests", case.service.lines().len(), 0)
    })
}

fn flow(rig: &Rig) -> Trial {
    trial(rig, "remote_flow", Habits::default, |case| {
        let remote = Remote::new(case, image_builder::Habits::default())?;
        let outcome =
            remote.run(&["create", "--context", "app", "--alias", "app@1", "--tag", "team=x", "--ci"])?;
        same("the id alone", outcome.stdout.as_str(), &format!("{}\n", id(1)))?;
        let said = "built by image-builder (the environment has TOGETHER_API_KEY)";
        same("says who builds", outcome.stderr.contains(said), true)?;
        let steps = [" prepare\n", " build\n", " auth\n", " register\n", " alias\n"];
        let places: Vec<Option<usize>> = steps.iter().map(|step| outcome.stderr.find(step)).collect();
        same("every step in order", places.iter().all(Option::is_some) && places.is_sorted(), true)?;
        let note = "the image could not be looked at, so it counts as amd64";
        same("what is not known is a note", outcome.stderr.contains(note), true)?;
        let submission = remote.submission()?;
        let name = submission.image_name();
        same("the name", is_name(name), true)?;
        let registered = remote.registered()?;
        same("the image", registered["image"].as_str(), Some(format!("{REGISTRY}/{name}").as_str()))?;
        same("the tags", &registered["tags"], &serde_json::json!({ "client": "windlass", "team": "x" }))?;
        same("requests", case.service.lines().len(), 3)?;
        same("the alias", case.service.aliases().get("app@1").cloned(), Some(id(1)))?;
        let builds = case.place.run(&["builds", "--format", "json"])?;
        same("in the ledger", builds.good()?.contains("build-1"), true)?;
        case.tells_nothing(&builds)
    })
}

fn options(rig: &Rig) -> Trial {
    trial(rig, "remote_options", Habits::default, |case| {
        let remote = Remote::new(case, image_builder::Habits::default())?;
        case.place.write("other/Dockerfile.x", "FROM scratch\nCOPY hello.txt /other\n")?;
        let line =
            ["create", "--context", "app", "--dockerfile", "other/Dockerfile.x", "--cache-key", "my/app"];
        let more = ["--no-nydus", "--build-arg", "A=1", "--build-arg", "B=x y"];
        remote.run(&[&line[..], &more].concat())?.line()?;
        let submission = remote.submission()?;
        let field = |name: &str| submission.field(name);
        same(
            "cache key and nydus",
            (field("cache_key"), field("nydus_convert")),
            (Some("my/app"), Some("false")),
        )?;
        let args: Vec<_> = submission.build_args().into_iter().collect();
        same("build arguments", args, vec![("A".into(), "1".into()), ("B".into(), "x y".into())])?;
        let text = submission.text(field("dockerfile").unwrap_or_default());
        same("the Dockerfile", text.as_deref(), Some("FROM scratch\nCOPY hello.txt /other\n"))?;
        remote.run(&["create", "--context", "app", "--cache-key", ""])?.line()?;
        same("an empty key is none", remote.submission()?.field("cache_key").map(str::to_owned), None)
    })
}

fn public_image(rig: &Rig) -> Trial {
    trial(rig, "remote_public_image", Habits::default, |case| {
        let remote = Remote::new(case, image_builder::Habits::default())?;
        // Also where everything else would be built here.
        remote.run_with(&["create", "--image", "node:22"], &[("TOGETHER_LOCAL_BUILD", "1")])?.line()?;
        let submission = remote.submission()?;
        same("one line", submission.text("Dockerfile").as_deref(), Some("FROM node:22\n"))?;
        let names: Vec<String> = submission.members().into_iter().map(|(name, ..)| name).collect();
        let files: Vec<&String> = names.iter().filter(|name| !name.ends_with('/')).collect();
        same("nothing else", files.len(), 1)?;
        let line = ["create", "--image", "node:22", "--platform", "linux/arm64"];
        remote.run(&line)?.line()?;
        let text = remote.submission()?.text("Dockerfile");
        same("the platform", text.as_deref(), Some("FROM --platform=linux/arm64 node:22\n"))?;
        same("the label", remote.registered()?["architecture"].as_str(), Some("arm64"))
    })
}

/// Only `1` means here; other words for yes do too, and are said to be unusual.
fn switch(rig: &Rig) -> Trial {
    trial(rig, "local_switch", Habits::default, |case| {
        let remote = Remote::new(case, image_builder::Habits::default())?;
        for word in ["0", "false", "", "nonsense"] {
            remote.run_with(&["create", "--context", "app"], &[("TOGETHER_LOCAL_BUILD", word)])?.line()?;
        }
        same("builds of the service", remote.builder.calls(image_builder::Call::Submit).len(), 4)?;
        let nowhere = ("DOCKER_HOST", "unix:///nonexistent/docker.sock");
        for (word, says) in [("1", "docker engine"), ("true", "TOGETHER_LOCAL_BUILD=`true` is taken as `1`")]
        {
            let variables = [("TOGETHER_LOCAL_BUILD", word), nowhere];
            remote.run_with(&["create", "--context", "app"], &variables)?.refused(3, &[says])?;
        }
        same("no more", remote.builder.calls(image_builder::Call::Submit).len(), 4)
    })
}

fn failing(rig: &Rig) -> Trial {
    trial(rig, "remote_build_that_fails", Habits::default, |case| {
        let builder = |_: &Submission, _: &_, log: &(dyn Fn(&str) + Sync)| {
            log("npm ERR! no such package");
            Err("exit code 1".to_owned())
        };
        let habits = image_builder::Habits { builder: Box::new(builder), ..image_builder::Habits::default() };
        let remote = Remote::new(case, habits)?;
        let outcome = remote.run(&["create", "--context", "app", "--ci"])?;
        outcome.refused(1, &["build-1", "exit code 1", "npm ERR! no such package"])?;
        same("nothing was asked", case.service.lines().len(), 0)
    })
}

/// The work of a build is not lost where the registration fails.
fn registration_that_fails(rig: &Rig) -> Trial {
    let script = |asked: &Asked| match (asked.call, asked.before) {
        (Some(Call::Create), 0) => Reaction::CutWithoutAnswer,
        (Some(Call::Create), 2) => Reaction::Answer(refusal(503, "down", "not now")),
        _ => Reaction::Normal,
    };
    let habits = move || Habits { script: Box::new(script), ..Habits::default() };
    trial(rig, "remote_registration_that_fails", habits, |case| {
        let remote = Remote::new(case, image_builder::Habits::default())?;
        for _ in 0..2 {
            let outcome = remote.run(&["create", "--context", "app"])?;
            let image = format!("{REGISTRY}/{}", remote.submission()?.image_name());
            let again = format!("windlass snapshot create --built {image}");
            outcome.refused(
                3,
                &["Failed to create snapshot: ", "all the same", &format!("image: {image}"), &again],
            )?;
            remote.run(&["create", "--built", &image])?.line()?;
        }
        same("builds", remote.builder.calls(image_builder::Call::Submit).len(), 2)
    })
}

/// Ctrl-C stops the build there, and nothing is registered.
fn leaving(rig: &Rig) -> Trial {
    trial(rig, "remote_leaving", Habits::default, |case| {
        let builder =
            |_: &Submission, cancel: &tokio_util::sync::CancellationToken, _: &(dyn Fn(&str) + Sync)| {
                while !cancel.is_cancelled() {
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err("stopped".to_owned())
            };
        let habits = image_builder::Habits { builder: Box::new(builder), ..image_builder::Habits::default() };
        let remote = Remote::new(case, habits)?;
        let option = remote.option();
        let line = ["snapshot", "create", "--context", "app", "--set", &option];
        let variables =
            [("TOGETHER_BASE_URL", case.service.url()), ("TOGETHER_API_KEY", image_builder::API_KEY)];
        let program = case.place.start_with(&line, &variables)?;
        wait_until("the log is followed", || !remote.builder.calls(image_builder::Call::Logs).is_empty())?;
        let outcome = interrupt(program)?;
        outcome.refused(130, &["cancelled", "build-1"])?;
        case.tells_nothing(&outcome)?;
        same("stopped there", remote.builder.calls(image_builder::Call::Cancel).len(), 1)?;
        same("nothing was asked", case.service.lines().len(), 0)
    })
}

/// The key of a profile goes to that profile's services, whatever the environment says of others.
fn another_profile(rig: &Rig) -> Trial {
    trial(rig, "remote_another_profile", Habits::default, |case| {
        let remote = Remote::new(case, image_builder::Habits::default())?;
        let option = |text: &str| format!("backends.staging.{text}");
        let line = |url: &str| {
            let options = [
                option("type=image-builder"),
                option(&format!("url={url}")),
                option("api-key-env=STAGING_KEY"),
                option("attempts=1"),
            ];
            let mut line: Vec<String> =
                ["create", "--context", "app", "-b", "staging"].map(str::to_owned).to_vec();
            line.extend(options.into_iter().flat_map(|option| ["--set".to_owned(), option]));
            line
        };
        let keys = [("STAGING_KEY", image_builder::API_KEY), ("TOGETHER_API_KEY", "key-of-production")];
        let run = |line: Vec<String>, more: &[&str]| {
            let line: Vec<&str> = line.iter().map(String::as_str).chain(more.iter().copied()).collect();
            case.run_with(&line, &keys)
        };
        let plan = run(line("https://builder.staging.invalid"), &["--dry-run"])?;
        let there = " https://api.bartender.staging.invalid/v1/snapshots [";
        same("registered beside the builder", plan.good()?.contains(there), true)?;
        // The builder is there, and nothing beside it.
        let outcome = run(line(remote.builder.url()), &[])?;
        same("built", remote.builder.calls(image_builder::Call::Submit).len(), 1)?;
        same("not registered", (outcome.code == Some(0), outcome.stdout.as_str()), (false, ""))?;
        outcome.refused(1, &["Failed to create snapshot: "])?;
        same("nothing was asked of the other service", case.service.lines().len(), 0)
    })
}

/// The service really builds and pushes, and what it built is read with the issued credential.
fn really_built(rig: &Rig) -> Trial {
    let rig = rig.clone();
    Trial::ignorable_test("snapshots::remote_really_built", move || {
        let registry = match from_environment(variables::REGISTRY) {
            Ok(registry) => registry,
            Err(Absent::Missing(reason)) => return Err(reason.into()),
            Err(Absent::Ignored(reason)) => return Ok(Completion::ignored_with(reason)),
        };
        let issued = Issued {
            registry_url: format!("{registry}/image-builder"),
            username: "u".to_owned(),
            password: "password-of-together".to_owned(),
            expired_at: Box::new(|_| None),
        };
        let case = Case::new(&rig, Habits { issued: Some(issued), ..Habits::default() })?;
        let directory = tempfile::tempdir()?;
        let builder = Builder::new(directory.path())?;
        let remote = Remote::new(&case, image_builder::Habits::building(&builder, &registry))?;
        let outcome = remote.run(&["create", "--context", "app"])?;
        same("the id alone", outcome.line()?, id(1).as_str())?;
        let image = remote.registered()?["image"].as_str().unwrap_or_default().to_owned();
        same("the image", image.starts_with(&format!("{registry}/image-builder/image-")), true)?;
        same("what it runs on was read", outcome.stderr.contains("counts as"), false)?;
        let arm = [("TOGETHER_REMOTE_ARCHITECTURE", "arm64")];
        let refused = remote.run_with(&["create", "--context", "app"], &arm)?;
        refused.refused(2, &["is for amd64, and `TOGETHER_REMOTE_ARCHITECTURE` asks for arm64"])?;
        same("registered once", case.service.calls(Call::Create).len(), 1)?;
        Ok(Completion::Completed)
    })
}
