//! Many builds at once through one process, and large ones to a service that is slow: none is lost, what the process
//! needs does not grow with them, and it gives everything back.
//!
//! The process of the builds is this test program, started once more with an order in its environment: what it needs can
//! be seen from outside, and nothing of the services is in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libtest_mimic::{Failed, Trial};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use windlass_core::archive::ArchiveSettings;
use windlass_core::backend::Job;
use windlass_core::backend_registry::{BackendOptions, BackendRegistry, BackendSetup, Host};
use windlass_core::context::{Context, ContextPath, ContextSettings};
use windlass_core::events::Events;
use windlass_core::pipeline::{Pipeline, PipelineOptions};
use windlass_core::registry::{RegistryClient, RegistrySettings};
use windlass_core::request::{BuildRequest, DockerfileSource};
use windlass_tests::place::Place;
use windlass_tests::service::image_builder::Call;
use windlass_tests::service::{ImageBuilder, RuntimeApi, image_builder, runtime_api};

use crate::bad_days::noise;
use crate::rig::{Rig, same};

/// What the process of the builds is told: the backend, how many builds, and where the context is.
const ORDER: &str = "WINDLASS_TEST_LOAD";
/// How long what was used may take to be given back.
const SOON: Duration = Duration::from_secs(20);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What the process of the builds says when it is done.
#[derive(Debug, Serialize, Deserialize)]
struct Said {
    /// The images, in the order of the builds.
    images: Vec<String>,
    /// The most memory that it had, in KiB.
    peak_kib: u64,
    /// Open files and threads before the builds, and after them.
    files: [usize; 2],
    threads: [usize; 2],
}

/// Does what the environment orders, if it orders something.
pub(crate) fn ordered() -> Option<ExitCode> {
    let order = std::env::var(ORDER).ok()?;
    let said = build_all(&order).map(|said| serde_json::to_string(&said).unwrap_or_default());
    match said {
        Ok(said) => write(&mut std::io::stdout(), &said),
        Err(error) => write(&mut std::io::stderr(), &error.to_string()),
    }
}

fn write(to: &mut impl std::io::Write, text: &str) -> Option<ExitCode> {
    to.write_all(text.as_bytes()).ok().map(|()| ExitCode::SUCCESS)
}

/// Builds so many images at once, with one pipeline.
fn build_all(order: &str) -> Result<Said, Failure> {
    let [backend, count, directory] = order.splitn(3, ' ').collect::<Vec<_>>()[..] else {
        return Err("an order has three words".into());
    };
    let (count, directory) = (count.parse()?, Path::new(directory));
    // Threads that wait for files end soon, so that one can see that they do.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_keep_alive(Duration::from_millis(100))
        .enable_all()
        .build()?;
    // The first build opens what stays open.
    runtime.block_on(builds(backend, 1, directory))?;
    settle(|| threads() <= 3);
    let before = (open_files(), threads());
    let images = runtime.block_on(builds(backend, count, directory))?;
    settle(|| open_files() <= before.0 && threads() <= before.1);
    Ok(Said { images, peak_kib: peak_kib(), files: [before.0, open_files()], threads: [before.1, threads()] })
}

fn settle(is_so: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_so() && start.elapsed() < SOON {
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn builds(backend: &str, count: usize, directory: &Path) -> Result<Vec<String>, Failure> {
    let pipeline = Arc::new(pipeline(backend, directory)?);
    let tasks: Vec<_> = (0..count)
        .map(|number| {
            let (pipeline, request) = (pipeline.clone(), request(directory, number));
            tokio::spawn(async move {
                let job = Job::new(Events::silent(), CancellationToken::new());
                let report = pipeline.build(request?, &PipelineOptions::default(), &job).await?;
                Ok::<_, Failure>(report.image.references.first().map(ToString::to_string).unwrap_or_default())
            })
        })
        .collect();
    let mut images = Vec::with_capacity(count);
    for task in tasks {
        images.push(task.await??);
    }
    Ok(images)
}

fn pipeline(backend: &str, directory: &Path) -> Result<Pipeline, Failure> {
    let types = BackendRegistry::new()
        .with(windlass_runtime_api::backend_type())
        .with(windlass_image_builder::backend_type());
    let host = Arc::new(Host {
        home_dir: None,
        current_dir: directory.to_owned(),
        cache_dir: directory.join("cache"),
        state_dir: directory.join("state"),
        registry_client: RegistryClient::new(RegistrySettings::default())?,
        archive: ArchiveSettings::default(),
        environment: std::env::vars().collect(),
    });
    let quick = if backend == "runtime-api" { "poll-first = '100ms'\npoll-longest = '1s'" } else { "" };
    let options = BackendOptions::new(quick.parse()?, BTreeMap::new());
    let setup = BackendSetup { name: backend.to_owned(), options, host: host.clone() };
    let backend = types.create(backend, setup)?;
    Ok(Pipeline::new(types, vec![backend], host)?)
}

fn dockerfile(number: usize) -> String {
    format!("FROM scratch\nLABEL number={number}\nCOPY . /\n")
}

/// The context of all builds, with a Dockerfile for each.
fn request(directory: &Path, number: usize) -> Result<BuildRequest, Failure> {
    let mut context = Context::from_dir(&directory.join("context"), None, &ContextSettings::default())?;
    let content = dockerfile(number);
    let place = ContextPath::clean("Dockerfile").ok_or("a path")?;
    context.insert(place.clone(), content.clone(), 0o644);
    let dockerfile = DockerfileSource {
        shown: "Dockerfile".into(),
        path: None,
        in_context: Some(place),
        content: content.into(),
    };
    let tags = vec![format!("load-{number}:1").parse()?];
    Ok(BuildRequest { tags, ..BuildRequest::new(context, dockerfile) })
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn threads() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn peak_kib() -> u64 {
    peak_kib_of("self").unwrap_or(0)
}

/// The most memory that a process had so far; `None` if it is gone.
fn peak_kib_of(process: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Builds at once in the small round, and in the large one.
const ROUNDS: [usize; 2] = [20, 200];
/// The context of each build.
const CONTEXT_BYTES: usize = 256 << 10;
/// What ten times the builds at once may cost. Uploads wait for their turn, so what is read and compressed ahead of the
/// network is no more than in the small round; a build that waits needs its request and the list of its files.
const MORE_KIB: u64 = 32 << 10;
/// The most that the program may need for one build, however large it is and however slow the service.
const PROGRAM_KIB: u64 = 64 << 10;
/// A context that does not fit into what the program may need.
const LARGE_BYTES: usize = 48 << 20;

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    let slow = |rig: &Rig, name, test: fn(&Rig) -> Result<(), Failed>| {
        let rig = rig.clone();
        Trial::test(format!("load::{name}"), move || test(&rig))
    };
    vec![
        Trial::test("load::many_builds_at_once_on_runtime_api", on_runtime_api),
        Trial::test("load::many_builds_at_once_on_image_builder", on_image_builder),
        slow(rig, "a_large_build_on_a_slow_runtime_api_needs_little", slow_runtime_api),
        slow(rig, "a_large_build_on_a_slow_image_builder_needs_little", slow_image_builder),
    ]
}

/// Lets a process of its own build so many images at once.
fn round(backend: &str, count: usize, variables: &[(&str, &str)]) -> Result<Said, Failed> {
    let directory = tempfile::tempdir()?;
    std::fs::create_dir(directory.path().join("context"))?;
    std::fs::write(directory.path().join("context/noise"), noise(CONTEXT_BYTES))?;
    let order = format!("{backend} {count} {}", directory.path().display());
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.env(ORDER, order).envs(variables.iter().copied()).output()?;
    serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("the builds failed: {}", String::from_utf8_lossy(&output.stderr)).into())
}

/// Holds both rounds against what must come of them. `named` is the image of a build by its number.
fn judge(rounds: &[Said; 2], named: impl Fn(usize) -> String) -> Result<(), Failed> {
    for (said, count) in rounds.iter().zip(ROUNDS) {
        same("images", &said.images, &(0..count).map(&named).collect())?;
        for (what, [before, after]) in [("open files", said.files), ("threads", said.threads)] {
            if after > before {
                return Err(format!("{after} {what} after {count} builds, {before} before").into());
            }
        }
    }
    let [few, many] = rounds.each_ref().map(|said| said.peak_kib);
    if many > few + MORE_KIB {
        return Err(format!("{many} KiB for {} builds, {few} KiB for {}", ROUNDS[1], ROUNDS[0]).into());
    }
    Ok(())
}

/// Every build must have come once, the first of each round once more.
fn all_came(dockerfiles: Vec<Option<String>>) -> Result<(), Failed> {
    same("uploads", dockerfiles.len(), ROUNDS.iter().map(|count| count + 1).sum())?;
    let mut came = BTreeMap::new();
    for dockerfile in dockerfiles {
        *came.entry(dockerfile.ok_or("an upload without a Dockerfile")?).or_insert(0) += 1;
    }
    let expected = (0..ROUNDS[1]).map(|number| {
        let times = ROUNDS.iter().filter(|count| number < **count).count() + if number == 0 { 2 } else { 0 };
        (dockerfile(number), times)
    });
    same("builds that came", came, expected.collect())
}

fn on_runtime_api() -> Result<(), Failed> {
    let service = RuntimeApi::start(runtime_api::Habits { words: Vec::new(), ..Default::default() })?;
    let variables = [("RUNTIME_API_URL", service.url()), ("RUNTIME_API_KEY", runtime_api::API_KEY)];
    let rounds = [
        round(windlass_runtime_api::TYPE, ROUNDS[0], &variables)?,
        round(windlass_runtime_api::TYPE, ROUNDS[1], &variables)?,
    ];
    let sent = service.calls("build").into_iter();
    all_came(sent.map(|asked| asked.upload?.text("Dockerfile")).collect())?;
    judge(&rounds, |number| format!("registry.example.com/team/load-{number}:1"))
}

fn on_image_builder() -> Result<(), Failed> {
    let service = ImageBuilder::start(image_builder::Habits::default())?;
    let variables = [("TOGETHER_BASE_URL", service.url()), ("TOGETHER_API_KEY", image_builder::API_KEY)];
    let rounds = [
        round(windlass_image_builder::TYPE, ROUNDS[0], &variables)?,
        round(windlass_image_builder::TYPE, ROUNDS[1], &variables)?,
    ];
    let sent = service.calls(Call::Submit).into_iter();
    all_came(sent.map(|asked| upload_text(&asked.submission?.archive)).collect())?;
    judge(&rounds, |number| format!("{}/load-{number}:1", image_builder::REGISTRY))
}

fn upload_text(archive: &[u8]) -> Option<String> {
    let upload = runtime_api::Upload { archive: archive.to_vec(), ..Default::default() };
    upload.text("Dockerfile")
}

/// Builds a large context with the program, and sees how much memory it needs.
fn needs_little(rig: &Rig, line: &[&str], variables: &[(&str, &str)]) -> Result<(), Failed> {
    let place = Place::new(rig.program())?;
    place.write("Dockerfile", "FROM scratch\nCOPY noise /\n")?;
    // Compression sees 32 KiB of it at a time.
    place.write("noise", noise(1 << 20).repeat(LARGE_BYTES >> 20))?;
    let program = place.start_with(line, variables)?;
    let process = program.id().ok_or("no process")?.to_string();
    let mut peak = 0;
    // What it had at most is asked until it is gone: it never gets less.
    while let Some(most) = peak_kib_of(&process) {
        peak = most;
        std::thread::sleep(Duration::from_millis(5));
    }
    program.wait()?.good()?;
    match (1..=PROGRAM_KIB).contains(&peak) {
        true => Ok(()),
        false => Err(format!("{peak} KiB for a context of {LARGE_BYTES} bytes").into()),
    }
}

/// What a slow reader waits after each piece of 64 KiB: 13 MB a second, which is slower than anything is made.
const PAUSE: Duration = Duration::from_millis(5);

fn slow_runtime_api(rig: &Rig) -> Result<(), Failed> {
    let script = Box::new(|asked: &runtime_api::Asked| match asked.call.as_str() {
        "build" => runtime_api::Reaction::Slow(PAUSE),
        _ => runtime_api::Reaction::Normal,
    });
    let service = RuntimeApi::start(runtime_api::Habits { script, words: Vec::new(), ..Default::default() })?;
    let variables = [("RUNTIME_API_URL", service.url()), ("RUNTIME_API_KEY", runtime_api::API_KEY)];
    needs_little(rig, &["build", "-t", "agent:1"], &variables)
}

fn slow_image_builder(rig: &Rig) -> Result<(), Failed> {
    let script = Box::new(|asked: &image_builder::Asked| match asked.call {
        Call::Submit => image_builder::Reaction::Slow(PAUSE),
        _ => image_builder::Reaction::Normal,
    });
    let service = ImageBuilder::start(image_builder::Habits { script, ..Default::default() })?;
    let variables = [("TOGETHER_BASE_URL", service.url()), ("TOGETHER_API_KEY", image_builder::API_KEY)];
    needs_little(rig, &["build", "-t", "agent:1"], &variables)
}
