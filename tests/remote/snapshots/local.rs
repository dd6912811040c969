//! Snapshots of images that are built on this machine: the real registry, which lets in who has the issued credential,
//! and real engines.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::Command;

use libtest_mimic::{Completion, Failed, Trial};
use serde_json::Value;
use windlass_tests::place::wait_until;
use windlass_tests::service::together::{API_KEY, Call, Habits, Issued, id};
use windlass_tests::service::{
    Absent, Act, Answer, Fault, FaultProxy, PASSWORD, Registry, RegistryOptions, StalledRegistry,
    TokenHabits, TokenServer, USER, from_environment, variables,
};

use super::{Case, is_name};
use crate::rig::{Rig, same};

/// The project in the registry: what base32 makes of `project`.
const PROJECT: &str = "obzg62tfmn2a";
const FOR_EVER: &str = "2999-01-01T00:00:00Z";
const ENDED: &str = "2020-01-01T00:00:00Z";
/// A login of the user for the same registry. It would not be let in.
const DOCKER_CONFIG: &str = r#"{"auths": {"REGISTRY": {"auth": "dXNlcjp3cm9uZw=="}},
  "HttpHeaders": {"X-Mine": "1"}}
"#;

/// A real registry that wants a password, and the service that issues one.
struct Local {
    case: Case,
    registry: Registry,
}

impl Local {
    /// `ends` says when the first, second, … credential ends, as `date` reads it; further ones do not say.
    fn new(rig: &Rig, password: &str, ends: &[&str]) -> Result<Self, Failed> {
        let options = RegistryOptions { accounts: true, ..RegistryOptions::default() };
        let registry = Registry::start_with(&options)?;
        let address = registry.address().to_owned();
        Self::of(rig, registry, &address, password, ends)
    }

    /// With a registry that is reached by this address.
    fn of(
        rig: &Rig,
        registry: Registry,
        address: &str,
        password: &str,
        ends: &[&str],
    ) -> Result<Self, Failed> {
        let ends: Vec<String> = ends.iter().map(|end| moment(end)).collect::<Result<_, _>>()?;
        let issued = Issued {
            registry_url: format!("{address}/{PROJECT}"),
            username: USER.to_owned(),
            password: password.to_owned(),
            expired_at: Box::new(move |number| ends.get(number - 1).cloned()),
        };
        let case = Case::new(rig, Habits { issued: Some(issued), ..Habits::default() })?;
        let local = Self { case, registry };
        std::fs::create_dir(local.case.place.home(".docker"))?;
        std::fs::write(local.case.place.home(".docker/config.json"), local.docker_config())?;
        Ok(local)
    }

    fn docker_config(&self) -> String {
        DOCKER_CONFIG.replace("REGISTRY", self.registry.address())
    }

    /// What must be so however it ended: nobody's settings changed, nothing left behind.
    fn is_clean(&self) -> Result<(), Failed> {
        let config = std::fs::read_to_string(self.case.place.home(".docker/config.json"))?;
        same("the user's docker configuration", config, self.docker_config())?;
        same("what is left", left(&self.case)?, Vec::new())?;
        let images = self.case.place.run(&["image", "list"])?;
        same("images with the name", images.good()?.contains("image-"), false)
    }

    /// The image that was registered last, without the registry and the project.
    fn registered(&self) -> Result<String, Failed> {
        let asked = self.case.service.calls(Call::Create);
        let document =
            asked.last().and_then(|asked| asked.document.clone()).ok_or("nothing was registered")?;
        let image = document["image"].as_str().ok_or("no image")?.to_owned();
        let start = format!("{}/{PROJECT}/", self.registry.address());
        Ok(image.strip_prefix(&start).ok_or_else(|| format!("{image} is elsewhere"))?.to_owned())
    }

    /// The image config of what was registered, read by our own program with the real credential.
    fn config(&self) -> Result<Value, Failed> {
        let image = format!("{}/{PROJECT}/{}", self.registry.address(), self.registered()?);
        let login = DOCKER_CONFIG
            .replace("REGISTRY", self.registry.address())
            .replace("dXNlcjp3cm9uZw==", "d2luZGxhc3M6c2VjcmV0");
        let directory = self.case.place.path("login");
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("config.json"), login)?;
        let directory = directory.to_string_lossy().into_owned();
        let line = ["image", "inspect", &format!("docker-image://{image}"), "--format", "json"];
        let seen = self.case.place.run_with(&line, &[("DOCKER_CONFIG", &directory)])?;
        Ok(serde_json::from_str(seen.good()?)?)
    }

    /// A docker configuration that the registry lets in, away from home; what is looked through for secrets is home.
    fn login(&self) -> Result<String, Failed> {
        let login = self.docker_config().replace("dXNlcjp3cm9uZw==", "d2luZGxhc3M6c2VjcmV0");
        let directory = self.case.place.path("login");
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join("config.json"), login)?;
        Ok(directory.to_string_lossy().into_owned())
    }
}

/// What is left of work that needed a place on the disk.
fn left(case: &Case) -> Result<Vec<PathBuf>, Failed> {
    match std::fs::read_dir(case.place.home("cache/windlass/images/incoming")) {
        Ok(work) => Ok(work.map(|left| left.map(|left| left.path())).collect::<Result<_, _>>()?),
        // Nothing was kept at all.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// A moment as the service says it, from what `date` understands; what it does not is left as it is.
fn moment(text: &str) -> Result<String, Failed> {
    let said = Command::new("date").args(["-u", "-d", text, "+%Y-%m-%dT%H:%M:%S.000Z"]).output()?;
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    Ok(if said.is_empty() { text.to_owned() } else { said })
}

pub(super) fn trials(rig: &Rig) -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("snapshots::local_leaving", {
            let rig = rig.clone();
            move || leaving(&rig, &["-INT"])
        }),
        // The second comes before the first is through.
        Trial::test("snapshots::local_leaving_at_once", {
            let rig = rig.clone();
            move || leaving(&rig, &["-INT", "-TERM"])
        }),
        trial(rig, "oci", variables::REGISTRY, |rig, registry| without_docker(rig, &registry)),
        trial(rig, "credential_that_does_not_work", variables::REGISTRY, |rig, _| {
            refused_before_the_build(rig)
        }),
        trial(rig, "credential_that_ends", variables::REGISTRY, |rig, _| renewed_before_the_push(rig)),
        trial(rig, "credential_taken_back", variables::REGISTRY, |rig, _| taken_back(rig)),
        trial(rig, "registry_with_tokens", variables::REGISTRY, |rig, _| with_tokens(rig)),
        trial(rig, "another_architecture", variables::REGISTRY, another_architecture),
        trial(rig, "failed_build", variables::REGISTRY, |rig, _| failed_build(rig)),
        trial(rig, "no_engine", variables::DOCKER_HOST, |rig, host| no_engine(rig, &host)),
    ];
    for (store, variable) in
        [("classic", variables::DOCKER_HOST), ("containerd", variables::DOCKER_HOST_CONTAINERD)]
    {
        // Without buildx the engine must have its own image store.
        for via in if store == "classic" { &["buildx", "engine"][..] } else { &["buildx"] } {
            trials.push(trial(rig, &format!("docker_{store}_{via}"), variable, move |rig, host| {
                with_docker(rig, &host, via)
            }));
        }
    }
    trials
}

/// A test that needs the real registry, and what this variable names.
fn trial(
    rig: &Rig,
    name: &str,
    variable: &'static str,
    test: impl FnOnce(&Rig, String) -> Result<(), Failed> + Send + 'static,
) -> Trial {
    let rig = rig.clone();
    Trial::ignorable_test(format!("snapshots::local_{name}"), move || match from_environment(variable) {
        Ok(address) => test(&rig, address).map(|()| Completion::Completed),
        Err(Absent::Missing(reason)) => Err(reason.into()),
        Err(Absent::Ignored(reason)) => Ok(Completion::ignored_with(reason)),
    })
}

fn without_docker(rig: &Rig, bases: &str) -> Result<(), Failed> {
    let local = Local::new(rig, PASSWORD, &[FOR_EVER])?;
    local.case.place.write("app/Dockerfile", format!("FROM {bases}/base/busybox:1\nCOPY hello.txt /\n"))?;
    let line =
        ["create", "--context", "app", "--backend", "oci", "--alias", "app@1", "--build-arg", "A=1", "--ci"];
    let outcome = local.case.run(&line)?;
    same("the id alone", outcome.stdout.as_str(), &format!("{}\n", id(1)))?;
    let steps = ["prepare", "auth", "build", "push", "register", "alias"];
    let places: Vec<Option<usize>> = steps.iter().map(|step| outcome.stderr.find(step)).collect();
    same("every step in order", places.iter().all(Option::is_some) && places.is_sorted(), true)?;
    same("the name", is_name(&local.registered()?), true)?;
    same(
        "requests",
        local.case.service.lines(),
        [
            "POST /v1/container-registries/default/credentials".to_owned(),
            "POST /v1/snapshots".to_owned(),
            format!("POST /v1/snapshots/{}/aliases", id(1)),
        ]
        .to_vec(),
    )?;
    same("what it runs on", local.config()?.to_string().contains("amd64"), true)?;
    local.is_clean()
}

fn with_docker(rig: &Rig, host: &str, via: &str) -> Result<(), Failed> {
    let local = Local::new(rig, PASSWORD, &[])?;
    let images = || -> Result<String, Failed> {
        let listed = Command::new("docker")
            .args(["images", "--all", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}}"])
            .env("DOCKER_HOST", host)
            .output()?;
        Ok(String::from_utf8_lossy(&listed.stdout)
            .lines()
            .filter(|line| line.contains(local.registry.address()))
            .collect())
    };
    let variables = [("TOGETHER_LOCAL_BUILD", "1"), ("DOCKER_HOST", host)];
    let option = format!("backends.docker.via={via}");
    let line = ["create", "--context", "app", "--cache-key", "a/b", "--set", &option];
    let outcome = local.case.run_with(&line, &variables)?;
    same("the id alone", outcome.line()?, id(1).as_str())?;
    same(
        "says who builds",
        outcome.stderr.contains("docker (the environment variable TOGETHER_LOCAL_BUILD says so)"),
        true,
    )?;
    same("says what does not count", outcome.stderr.contains("`--cache-key` changes nothing"), true)?;
    same("the name", is_name(&local.registered()?), true)?;
    same("what it runs on", local.config()?.to_string().contains("amd64"), true)?;
    same("images of the project in the engine", images()?, String::new())?;
    local.is_clean()
}

fn refused_before_the_build(rig: &Rig) -> Result<(), Failed> {
    let local = Local::new(rig, "not-the-password", &[FOR_EVER])?;
    let outcome = local.case.run(&["create", "--context", "app", "--backend", "oci"])?;
    let registry = format!("the registry `{}` does not take the credential", local.registry.address());
    outcome.refused(3, &[&registry, "ask Together"])?;
    same("no advice that does not help", outcome.stderr.contains("docker login"), false)?;
    same("nothing was built", outcome.stderr.contains("COPY"), false)?;
    same("requests", local.case.service.lines().len(), 1)?;
    local.is_clean()
}

fn renewed_before_the_push(rig: &Rig) -> Result<(), Failed> {
    for (ends, requests) in [
        (&[ENDED, FOR_EVER][..], 2),
        (&[FOR_EVER], 1),
        (&[], 1),
        (&["4 minutes"], 2),
        (&["1 hour"], 1),
        (&["nonsense"], 1),
        (&[ENDED, ENDED], 2),
    ] {
        let local = Local::new(rig, PASSWORD, ends)?;
        local.case.run(&["create", "--context", "app", "--backend", "oci"])?.line()?;
        same("credentials", local.case.service.calls(Call::Credential).len(), requests)?;
        local.is_clean()?;
    }
    Ok(())
}

/// The registry lets us in, and later does not any more, whatever was said about the end.
fn taken_back(rig: &Rig) -> Result<(), Failed> {
    for (times, code) in [(1, 0), (2, 3)] {
        let options = RegistryOptions { accounts: true, ..RegistryOptions::default() };
        let registry = Registry::start_with(&options)?;
        let no =
            Answer::error(401, "UNAUTHORIZED", "who are you").header("WWW-Authenticate", "Basic realm=\"x\"");
        let fault = Fault::on("PUT", "/manifests/").times(times).then(Act::Answer(no));
        let proxy = FaultProxy::start(registry.address(), vec![fault])?;
        let local = Local::of(rig, registry, proxy.address(), PASSWORD, &[FOR_EVER])?;
        let outcome = local.case.run(&["create", "--context", "app", "--backend", "oci"])?;
        match code {
            0 => outcome.line().map(drop)?,
            code => outcome.refused(code, &["does not take the credential that Together issued"])?,
        }
        same("credentials", local.case.service.calls(Call::Credential).len(), 2)?;
        local.is_clean()?;
    }
    Ok(())
}

/// A registry that wants tokens, which are fetched with the credential.
fn with_tokens(rig: &Rig) -> Result<(), Failed> {
    let directory = tempfile::tempdir()?;
    let tokens = TokenServer::start(TokenHabits::default(), directory.path())?;
    let registry =
        Registry::start_with(&RegistryOptions { tokens: Some(&tokens), ..RegistryOptions::default() })?;
    let address = registry.address().to_owned();
    let local = Local::of(rig, registry, &address, PASSWORD, &[])?;
    local.case.run(&["create", "--context", "app", "--backend", "oci"])?.line()?;
    let by: Vec<Option<String>> = tokens.asked(PROJECT).into_iter().map(|asked| asked.by).collect();
    same("who asked", by.is_empty() || by.iter().any(|by| by.as_deref() != Some(USER)), false)?;
    local.is_clean()
}

/// An image in the registry that is for something else than asked for, and one that says what it is for.
fn another_architecture(rig: &Rig, _: String) -> Result<(), Failed> {
    let local = Local::new(rig, PASSWORD, &[])?;
    let image = format!("{}/{PROJECT}/arm:1", local.registry.address());
    let build = ["build", "app", "-b", "oci", "--platform", "linux/arm64", "-t", &image, "--push"];
    let directory = local.login()?;
    local.case.place.run_with(&build, &[("DOCKER_CONFIG", &directory)])?.good()?;
    let line = ["create", "--built", &image];
    let arm = [("TOGETHER_REMOTE_ARCHITECTURE", "amd64")];
    let refused = local.case.run_with(&line, &arm)?;
    refused.refused(
        2,
        &["is for arm64, and `TOGETHER_REMOTE_ARCHITECTURE` asks for amd64", "no snapshot was made"],
    )?;
    let refused = local.case.run(&[&line[..], &["--platform", "linux/amd64"]].concat())?;
    refused.refused(2, &["is for arm64, and `--platform` asks for amd64", "no snapshot was made"])?;
    same("nothing was registered", local.case.service.calls(Call::Create).len(), 0)?;
    local.case.run(&line)?.line()?;
    local.case.run(&[&line[..], &["--platform", "linux/aarch64"]].concat())?.line()?;
    let sent = local.case.service.calls(Call::Create);
    let labels: Vec<_> =
        sent.iter().filter_map(|sent| Some(sent.document.as_ref()?["architecture"].clone())).collect();
    same("labels", labels, vec![Value::from("arm64"); 2])?;
    local.is_clean()
}

fn failed_build(rig: &Rig) -> Result<(), Failed> {
    let local = Local::new(rig, PASSWORD, &[])?;
    local.case.place.write("app/Dockerfile", "FROM scratch\nCOPY absent.txt /\n")?;
    let outcome = local.case.run(&["create", "--context", "app", "--backend", "oci", "--ci"])?;
    outcome.refused(1, &["absent.txt"])?;
    same("nothing was registered", local.case.service.calls(Call::Create).len(), 0)?;
    local.is_clean()
}

/// Ctrl-C, once or twice, while the registry takes nothing more.
fn leaving(rig: &Rig, signals: &[&str]) -> Result<(), Failed> {
    let registry = StalledRegistry::start()?;
    let issued = Issued {
        registry_url: format!("{}/{PROJECT}", registry.address()),
        username: USER.to_owned(),
        password: "password-of-together".to_owned(),
        expired_at: Box::new(|_| None),
    };
    let case = Case::new(rig, Habits { issued: Some(issued), ..Habits::default() })?;
    let variables = [("TOGETHER_BASE_URL", case.service.url()), ("TOGETHER_API_KEY", API_KEY)];
    let line = ["snapshot", "create", "--context", "app", "--backend", "oci"];
    let program = case.place.start_with(&line, &variables)?;
    wait_until("the push stands still", || registry.has_stalled())?;
    // Together, so that the program cannot be through with the first before the second comes.
    let id = program.id().ok_or("it has ended")?;
    let kills: Vec<String> = signals.iter().map(|signal| format!("kill {signal} {id}")).collect();
    Command::new("sh").args(["-c", &kills.join("; ")]).status()?;
    let outcome = program.wait()?;
    outcome.refused(130, &["cancelled"])?;
    case.tells_nothing(&outcome)?;
    same("nothing was registered", case.service.calls(Call::Create).len(), 0)?;
    same("what is left", left(&case)?, Vec::new())
}

/// Found out before the service is asked for anything.
fn no_engine(rig: &Rig, host: &str) -> Result<(), Failed> {
    let local = Local::new(rig, PASSWORD, &[])?;
    let line = ["create", "--context", "app"];
    let variables = [("TOGETHER_LOCAL_BUILD", "1"), ("DOCKER_HOST", "unix:///nonexistent/docker.sock")];
    let outcome = local.case.run_with(&line, &variables)?;
    outcome.refused(3, &["could not reach the docker engine", "/nonexistent/docker.sock", "start docker"])?;
    let variables = [("TOGETHER_LOCAL_BUILD", "1"), ("DOCKER_HOST", host)];
    let options =
        ["--set", "backends.docker.via=buildx", "--set", "backends.docker.docker=/nonexistent/docker"];
    let outcome = local.case.run_with(&[&line[..], &options].concat(), &variables)?;
    outcome.refused(3, &["the backend `docker` cannot build", "/nonexistent/docker"])?;
    same("requests", local.case.service.lines().len(), 0)?;
    local.is_clean()
}
