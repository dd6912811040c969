//! What a build would send, to the byte but for the content; and what it refuses.

use windlass_core::ErrorKind;
use windlass_core::backend::{Feature, Job, PlannedAction};
use windlass_core::context::{Context, ContextPath, Entry, EntryKind};
use windlass_core::error::{Error, Result};
use windlass_core::output::OutputKind;
use windlass_core::request::BuildRequest;
use windlass_core::service::{free_place, sent_context};

use crate::backend::ImageBuilder;
use crate::config::Upload;
use crate::names;
use crate::wire::BuildForm;

/// Stands for a name that is made when the build is sent.
const MADE_NAME: &str = "image-{uuid}:{uuid}";
/// Stands for a key that nobody used before.
const FRESH_KEY: &str = "image-{uuid}";

/// Refuses what the protocol has no word for.
///
/// # Errors
/// `Unsupported`, by the name of the option.
pub(crate) fn refuse(request: &BuildRequest) -> Result<()> {
    for output in &request.outputs {
        let known = |name: &str| matches!(name, "push" | "name");
        if let Some(name) = output.attributes.keys().find(|name| !known(name)) {
            let message = format!("`{name}` of `--output {output}` cannot be told to an image-builder");
            return Err(Error::new(ErrorKind::Unsupported, message)
                .with_hint("leave it out, or build on another backend"));
        }
        if !matches!(output.kind, OutputKind::Image | OutputKind::Registry) {
            let message = format!("`--output {output}` cannot be had from an image-builder");
            return Err(Error::unsupported(output.feature(), message));
        }
    }
    let refused = [
        (request.target.is_some(), Feature::Target, "--target"),
        (!request.platforms.is_empty(), Feature::Platform, "--platform"),
        (!request.labels.is_empty(), Feature::Labels, "--label"),
        (!request.annotations.is_empty(), Feature::Annotations, "--annotation"),
        (!request.build_contexts.is_empty(), Feature::NamedContexts, "--build-context"),
        (!request.engine_options.is_empty(), Feature::EngineOptions, "an option of BuildKit"),
    ];
    match refused.iter().find(|(asked, ..)| *asked) {
        None => Ok(()),
        Some((_, feature, option)) => {
            let message = format!("`{option}` cannot be told to an image-builder");
            Err(Error::unsupported(*feature, message))
        }
    }
}

/// Says what has no effect.
pub(crate) fn warn(request: &BuildRequest, job: &Job) {
    let asked = [(request.pull, "--pull"), (request.source_date_epoch.is_some(), "SOURCE_DATE_EPOCH")];
    for (_, what) in asked.iter().filter(|(asked, _)| *asked) {
        job.events.warn(format!("`{what}` cannot be told to the service: it keeps to its own rules"));
    }
}

/// The context as it is sent, its entries, and where in it the Dockerfile is. Blocking.
///
/// # Errors
/// What the context meets; `InvalidInput` for a Dockerfile whose name cannot be told.
pub(crate) fn contents(request: &BuildRequest, job: &Job) -> Result<(Context, Vec<Entry>, String)> {
    let place = match &request.dockerfile.in_context {
        Some(place) => place.clone(),
        None => free_place(&request.context, job)?,
    };
    let name = told(&place)?;
    let context = sent_context(request, &place, job)?;
    let entries = context.list_to_send(job)?;
    Ok((context, entries, name))
}

fn told(place: &ContextPath) -> Result<String> {
    String::from_utf8(place.as_bytes().to_vec()).map_err(|_| {
        let message = format!("the service cannot be told of `{}`", place.as_path().display());
        Error::new(ErrorKind::InvalidInput, message).with_hint("give the Dockerfile a name in UTF-8")
    })
}

/// The requests, in order, and what is in the archive.
///
/// # Errors
/// As [`refuse`]; what the context meets.
pub(crate) async fn plan(
    builder: &ImageBuilder,
    request: &BuildRequest,
    job: &Job,
) -> Result<Vec<PlannedAction>> {
    refuse(request)?;
    warn(request, job);
    let wanted = names::wanted(&request.tags)?;
    let of_context = request.clone();
    let (_, entries, dockerfile) = job.blocking(move |job| contents(&of_context, job)).await?;
    let config = builder.config();
    let cache_key = match request.no_cache {
        true => Some(FRESH_KEY.to_owned()),
        false => names::cache_key(config.cache_key.as_deref(), request, wanted.as_deref()),
    };
    let form = BuildForm {
        image_name: wanted.as_deref().unwrap_or(MADE_NAME),
        dockerfile: &dockerfile,
        build_args: &request.build_args,
        nydus_convert: config.nydus,
        cache_key: cache_key.as_deref(),
    };
    let mut actions = vec![post(builder, &form)];
    actions.extend(entries.iter().map(member));
    let of_build = ["builds", "{build_id}"];
    actions.push(get(
        builder,
        &[of_build[0], of_build[1], "logs"],
        &["Accept: text/event-stream", "404: again until the builder has started"],
    ));
    actions.push(get(builder, &of_build, &["when the log says that the build has ended, or ends itself"]));
    Ok(actions)
}

fn key() -> String {
    "Authorization: Bearer (hidden)".to_owned()
}

fn url(builder: &ImageBuilder, path: &[&str]) -> String {
    builder.client().url(path, &[]).to_string().replace("%7B", "{").replace("%7D", "}")
}

fn get(builder: &ImageBuilder, path: &[&str], more: &[&str]) -> PlannedAction {
    let details = [key()].into_iter().chain(more.iter().map(|&more| more.to_owned())).collect();
    PlannedAction { verb: "GET".to_owned(), subject: url(builder, path), details }
}

fn post(builder: &ImageBuilder, form: &BuildForm<'_>) -> PlannedAction {
    let length = match builder.config().upload {
        Upload::Spool => "Content-Length, from a temporary file",
        Upload::Auto => "Content-Length up to 1 MiB, else Transfer-Encoding: chunked",
        Upload::Chunked => "Transfer-Encoding: chunked",
    };
    let frame = form.frame("{boundary}");
    let body = frame.around("(gzip of the archive)").replace("\r\n", "\\r\\n");
    let details = vec![key(), format!("Content-Type: {}", frame.content_type), length.to_owned(), body];
    PlannedAction { verb: "POST".to_owned(), subject: url(builder, &["builds"]), details }
}

/// One entry of the archive.
fn member(entry: &Entry) -> PlannedAction {
    let mode = format!("{:04o}", entry.mode);
    let path = String::from_utf8_lossy(entry.path.as_bytes()).into_owned();
    let (subject, details) = match &entry.kind {
        EntryKind::Directory => (format!("{path}/"), vec![mode]),
        EntryKind::File { size_bytes } => (path, vec![mode, format!("{size_bytes} bytes")]),
        EntryKind::Symlink { target } => (format!("{path} -> {}", String::from_utf8_lossy(target)), vec![]),
    };
    PlannedAction { verb: "member".to_owned(), subject, details }
}
