//! A build, from top to bottom: read, refuse, interpret, assemble, deliver.

use std::sync::Arc;

use windlass_core::backend::{Backend, Feature, Job, PlannedAction};
use windlass_core::dockerfile::{
    Base, Dockerfile, InstructionKind, PlanInput, StagePlan, is_proxy_argument, platform_arguments,
    without_credentials,
};
use windlass_core::error::{Error, ErrorKind, Result, ResultExt};
use windlass_core::fingerprint::StatCache;
use windlass_core::image::{Descriptor, ImageStore};
use windlass_core::output::{Destination, OutputKind};
use windlass_core::platform::Platform;
use windlass_core::request::{BuildRequest, BuiltImage};

use crate::ahead::Ahead;
use crate::assemble::{self, BuiltPlatform};
use crate::backend::Oci;
use crate::base::Bases;
use crate::deliver;
use crate::outputs::{self, Form};
use crate::preflight;
use crate::remote::Remotes;
use crate::rewrite;
use crate::schedule;
use crate::stages::Interpreter;
use crate::workshop::Workshop;

/// A request that was read and not refused.
struct Prepared {
    dockerfile: Dockerfile,
    platforms: Vec<Platform>,
    plans: Vec<StagePlan>,
    form: Form,
}

fn prepare(oci: &Oci, request: &BuildRequest) -> Result<Prepared> {
    let (content, shown) = (&request.dockerfile.content, &request.dockerfile.shown);
    if Dockerfile::is_foreign(content, shown)? {
        let message = format!("`{}` is written for a frontend of BuildKit", shown.display());
        return Err(Error::unsupported(Feature::EngineOptions, message)
            .with_hint("this backend reads Dockerfiles without `# syntax=`, or with `docker/dockerfile`"));
    }
    let dockerfile = Dockerfile::parse(content, shown)?;
    let form = Form::of(request, oci.host().archive.compression)?;
    let host = Platform::host();
    let mut platforms = request.platforms.clone();
    platforms.dedup();
    if platforms.is_empty() {
        platforms.push(host.clone());
    }
    deliver::check(request, &oci.host().current_dir, platforms.len() > 1)?;
    let mut plans = Vec::new();
    for platform in &platforms {
        let plan = StagePlan::new(&dockerfile, &PlanInput::of(request, platform, &host))?;
        preflight::check(&dockerfile, &plan, request)?;
        plans.push(plan);
    }
    Ok(Prepared { dockerfile, platforms, plans, form })
}

/// Builds a request and brings the result to its outputs.
///
/// # Errors
/// As [`windlass_core::backend::Backend::build`] says.
pub(crate) async fn build(oci: &Oci, request: &BuildRequest, job: &Job) -> Result<BuiltImage> {
    let prepared = prepare(oci, request)?;
    deliver::check_writable(request, &oci.host().current_dir)?;
    warn(&prepared.dockerfile, request, job);
    let store = ImageStore::open(oci.store_dir())?.with_unpack_limit(oci.host().archive.unpack_limit);
    let client = oci.host().registry_client.clone();
    let bases = Bases::new(store.clone(), client, request.pull, oci.base_turns().clone());
    let cache = StatCache::open(&oci.host().cache_dir);
    let remotes = Remotes::new(store.clone(), oci.host());
    let mut workshop = Workshop::new(store.clone(), cache, remotes, oci.host().archive, epoch(request)?);
    workshop.compression = prepared.form.compression;
    workshop.no_cache = request.no_cache;
    workshop.linked = oci.linked().clone();
    workshop.force_compression = prepared.form.force_compression;
    workshop.latest = workshop.explicit_epoch().filter(|_| prepared.form.rewrite_timestamp);
    if prepared.form.rewrite_timestamp && workshop.latest.is_none() {
        job.events.warn("`rewrite-timestamp` does nothing without `SOURCE_DATE_EPOCH`");
    }
    workshop.ahead = Ahead::of(&bases, request, job)?.map(Arc::new);
    let created = timestamp(workshop.epoch())?;

    let jobs = schedule::jobs(job, prepared.platforms.len());
    let works = prepared.platforms.iter().zip(&jobs).map(|(platform, job)| {
        let dockerfile = &prepared.dockerfile;
        let (created, bases, workshop) = (created.clone(), &bases, &workshop);
        let interpreter =
            Interpreter::new(dockerfile, request, platform.clone(), created, bases, workshop, job);
        (job, async move { interpreter?.target().await })
    });
    let stages = schedule::together(works).await;
    workshop.sources.save_hashes();
    if let Some(ahead) = &workshop.ahead {
        match &stages {
            Ok(_) => ahead.finish().await,
            Err(_) => ahead.give_up().await,
        }
    }
    let mut stages = stages?;
    let form = &prepared.form;
    for stage in stages.iter_mut().filter(|_| form.force_compression) {
        *stage = rewrite::recompress(&bases, stage, form.compression, job).await?;
    }
    let mut built = Vec::new();
    for (platform, stage) in prepared.platforms.iter().zip(&stages) {
        let asked = Some(platform).filter(|_| !request.platforms.is_empty());
        built.push(assemble::platform(
            &store,
            stage,
            asked,
            &request.labels,
            &form.annotations,
            form.media_types,
        )?);
    }
    let image = match &built[..] {
        [one] => one.manifest.clone(),
        several => assemble::index(&store, several, &prepared.form.annotations, prepared.form.media_types)?,
    };
    let written = deliver::all(&bases, request, &oci.host().current_dir, &image, job).await?;
    report(oci, request, &image, &built, written)
}

fn report(
    oci: &Oci,
    request: &BuildRequest,
    image: &Descriptor,
    built: &[BuiltPlatform],
    written: Vec<std::path::PathBuf>,
) -> Result<BuiltImage> {
    let mut references = Vec::new();
    for output in &request.outputs {
        references.extend(outputs::pushed_names(output, request, image.digest)?);
    }
    let mut seen = std::collections::HashSet::new();
    references.retain(|reference| seen.insert(reference.clone()));
    let makes_image =
        request.outputs.iter().any(|output| !matches!(output.kind, OutputKind::Tar | OutputKind::Local));
    let image_id = match built {
        [one] => Some(one.config.digest),
        _ => None,
    };
    let mut metadata = serde_json::Map::new();
    if makes_image {
        metadata.insert("containerimage.digest".to_owned(), image.digest.to_string().into());
        let descriptor = serde_json::to_value(image)
            .or_error(ErrorKind::UnexpectedAnswer, || "could not describe the image")?;
        metadata.insert("containerimage.descriptor".to_owned(), descriptor);
        if let Some(id) = image_id {
            metadata.insert("containerimage.config.digest".to_owned(), id.to_string().into());
        }
        if !references.is_empty() {
            let names: Vec<String> = references.iter().map(ToString::to_string).collect();
            metadata.insert("image.name".to_owned(), names.join(",").into());
        }
    }
    Ok(BuiltImage {
        references,
        digest: Some(image.digest).filter(|_| makes_image),
        image_id: image_id.filter(|_| makes_image),
        platforms: built.iter().map(|built| built.platform.clone()).collect(),
        backend: oci.name().to_owned(),
        reused: false,
        written,
        metadata,
    })
}

/// Says what [`build`] would do.
///
/// # Errors
/// What [`build`] refuses before any work.
pub(crate) fn plan(oci: &Oci, request: &BuildRequest) -> Result<Vec<PlannedAction>> {
    let prepared = prepare(oci, request)?;
    let several = prepared.platforms.len() > 1;
    let mut actions = Vec::new();
    let mut add = |verb: &str, subject: String, details: Vec<String>| {
        actions.push(PlannedAction { verb: verb.to_owned(), subject, details });
    };
    for (platform, plan) in prepared.platforms.iter().zip(&prepared.plans) {
        let on = |stage: &str| {
            let mut details = vec![format!("stage {stage}")];
            details.extend(several.then(|| format!("for {platform}")));
            details
        };
        for (stage, resolved) in prepared.dockerfile.stages.iter().zip(&plan.stages) {
            if !resolved.needed {
                continue;
            }
            if matches!(resolved.base, Base::Image(_) | Base::Context(_)) {
                add("pull", resolved.base_name.clone(), on(&stage.label()));
            }
            for instruction in stage.instructions.iter().filter(|_| !resolved.replaced) {
                let verb = match instruction.kind {
                    InstructionKind::Add(_)
                    | InstructionKind::Copy(_)
                    | InstructionKind::Run(_)
                    | InstructionKind::Workdir(_) => "layer",
                    _ => "config",
                };
                add(verb, without_credentials(&instruction.text), on(&stage.label()));
            }
        }
    }
    for output in &request.outputs {
        let names = outputs::names(output, request)?;
        if output.pushes() {
            names.iter().for_each(|name| add("push", name.to_string(), Vec::new()));
        } else if output.kind == OutputKind::Image {
            names.iter().for_each(|name| add("store", name.to_string(), Vec::new()));
        }
        match &output.destination {
            Some(Destination::Path(path)) => {
                add("write", path.display().to_string(), vec![output.to_string()])
            }
            Some(Destination::Stdout) => add("write", "standard output".to_owned(), vec![output.to_string()]),
            None => {}
        }
    }
    Ok(actions)
}

/// Tells the user what the Dockerfile reader let pass, and which build arguments nobody asked for.
fn warn(dockerfile: &Dockerfile, request: &BuildRequest, job: &Job) {
    dockerfile.warnings.iter().for_each(|warning| job.events.warn(warning));
    let stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let declared: std::collections::BTreeSet<&str> = dockerfile
        .global_arguments
        .iter()
        .chain(stages)
        .filter_map(|instruction| match &instruction.kind {
            InstructionKind::Arg(arguments) => Some(arguments.iter().map(|argument| argument.name.as_str())),
            _ => None,
        })
        .flatten()
        .collect();
    let host = Platform::host();
    let predefined = platform_arguments(&host, &host, "", &Default::default());
    let unused = request.build_args.keys().filter(|name| {
        !declared.contains(name.as_str())
            && !predefined.contains_key(*name)
            && !is_proxy_argument(name)
            && !name.starts_with("BUILDKIT_")
            && *name != "SOURCE_DATE_EPOCH"
    });
    for name in unused {
        job.events.warn(format!("the build argument `{name}` is not used: no ARG has this name"));
    }
}

/// `SOURCE_DATE_EPOCH` of the request, which buildx takes as a build argument.
fn epoch(request: &BuildRequest) -> Result<Option<i64>> {
    let argument = request.build_args.get("SOURCE_DATE_EPOCH").filter(|text| !text.is_empty());
    let parsed = argument.map(|text| {
        text.parse().or_error(ErrorKind::InvalidInput, || format!("`SOURCE_DATE_EPOCH` is no time: {text}"))
    });
    Ok(request.source_date_epoch.or(parsed.transpose()?))
}

fn timestamp(seconds: i64) -> Result<String> {
    let time = jiff::Timestamp::from_second(seconds)
        .or_error(ErrorKind::InvalidInput, || format!("`SOURCE_DATE_EPOCH` is no time: {seconds}"))?;
    Ok(time.to_string())
}
