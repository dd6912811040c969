//! What a build would send, to the byte but for the content; and what it refuses.

use windlass_core::backend::{Feature, Job, PlannedAction};
use windlass_core::context::{ContextPath, Entry, EntryKind};
use windlass_core::error::{Error, Result};
use windlass_core::output::OutputKind;
use windlass_core::reference::Reference;
use windlass_core::request::BuildRequest;
use windlass_core::service::sent_context;

use crate::backend::RuntimeApi;
use crate::config::Upload;
use crate::names;
use crate::submit::{Form, form};
use crate::wire::{self, CONTEXT_PART, KEY_HEADER};

/// Stands for what only the service knows.
const UNKNOWN_PREFIX: &str = "{registry_prefix}";

/// Where the service looks for the Dockerfile: the protocol has no word for another place.
pub(crate) fn dockerfile() -> ContextPath {
    ContextPath::from_clean("Dockerfile")
}

/// Refuses what the protocol has no word for and the capabilities no name.
///
/// # Errors
/// `Unsupported`, by the name of the option.
pub(crate) fn refuse(request: &BuildRequest) -> Result<()> {
    for output in &request.outputs {
        let known = |name: &str| matches!(name, "push" | "name");
        if let Some(name) = output.attributes.keys().find(|name| !known(name)) {
            let message =
                format!("`{name}` of `--output {output}` cannot be told to a service of the Runtime API");
            return Err(Error::new(windlass_core::ErrorKind::Unsupported, message)
                .with_hint("leave it out, or build on another backend"));
        }
        if !matches!(output.kind, OutputKind::Image | OutputKind::Registry) {
            let message = format!("`--output {output}` cannot be had from a service of the Runtime API");
            return Err(Error::unsupported(output.feature(), message));
        }
    }
    let refused = [
        (request.target.is_some(), Feature::Target, "--target"),
        (!request.platforms.is_empty(), Feature::Platform, "--platform"),
        (!request.build_args.is_empty(), Feature::BuildArguments, "--build-arg"),
        (!request.labels.is_empty(), Feature::Labels, "--label"),
        (!request.annotations.is_empty(), Feature::Annotations, "--annotation"),
        (!request.build_contexts.is_empty(), Feature::NamedContexts, "--build-context"),
        (!request.engine_options.is_empty(), Feature::EngineOptions, "an option of BuildKit"),
    ];
    match refused.iter().find(|(asked, ..)| *asked) {
        None => Ok(()),
        Some((_, feature, option)) => {
            let message = format!("`{option}` cannot be told to a service of the Runtime API");
            Err(Error::unsupported(*feature, message))
        }
    }
}

/// Says what has no effect.
pub(crate) fn warn(request: &BuildRequest, job: &Job) {
    for (asked, option) in [
        (request.no_cache, "--no-cache"),
        (request.pull, "--pull"),
        // The times in what is sent are by it; those of the image are the service's.
        (request.source_date_epoch.is_some(), "SOURCE_DATE_EPOCH"),
    ] {
        if asked {
            job.events.warn(format!("`{option}` cannot be told to the service: it keeps to its own rules"));
        }
    }
}

/// The requests, in order, and what is in the archive.
///
/// # Errors
/// As [`refuse`]; what the context meets.
pub(crate) async fn plan(api: &RuntimeApi, request: &BuildRequest, job: &Job) -> Result<Vec<PlannedAction>> {
    refuse(request)?;
    warn(request, job);
    let prefix = api.configured_prefix();
    let shown = prefix.clone().unwrap_or_else(|| Some(UNKNOWN_PREFIX.to_owned()));
    let spelled: Vec<String> =
        request.tags.iter().map(|tag| names::spell(tag, shown.as_deref())).collect::<Result<_>>()?;
    let of_context = request.clone();
    let entries =
        job.blocking(move |job| sent_context(&of_context, &dockerfile(), job)?.list_to_send(job)).await?;
    let mut actions = Vec::new();
    if prefix.is_none() && spelled.iter().any(|name| name.starts_with(UNKNOWN_PREFIX)) {
        actions.push(ask_prefix(api));
    }
    let (target, tags) = match spelled.split_first() {
        Some((target, tags)) => (target.as_str(), tags),
        None => ("", &[][..]),
    };
    actions.push(post(api, target, tags)?);
    actions.extend(entries.iter().map(member));
    let every = format!(
        "every {} to {} s",
        api.config().poll_first.as_secs_f32(),
        api.config().poll_longest.as_secs_f32()
    );
    actions.push(get(api, &["build_status"], &[("build_id", "{build_id}")], &every));
    Ok(actions)
}

/// The calls that ask for an image, in order.
///
/// # Errors
/// `InvalidInput` for a name that no image is built as.
pub(crate) fn find(api: &RuntimeApi, reference: &Reference) -> Result<Vec<PlannedAction>> {
    let prefix = api.configured_prefix();
    let shown = prefix.clone().unwrap_or_else(|| Some(UNKNOWN_PREFIX.to_owned()));
    let name = names::spell(reference, shown.as_deref())?;
    let asks_prefix = prefix.is_none() && name.starts_with(UNKNOWN_PREFIX);
    let mut actions: Vec<PlannedAction> = asks_prefix.then(|| ask_prefix(api)).into_iter().collect();
    actions.push(get(api, &["image_exists"], &[("image", &name)], "exists: nothing is sent"));
    Ok(actions)
}

fn ask_prefix(api: &RuntimeApi) -> PlannedAction {
    get(api, &["registry_prefix"], &[], "gives {registry_prefix}; 404: names go without one")
}

fn key() -> String {
    format!("{KEY_HEADER}: (hidden)")
}

fn get(api: &RuntimeApi, path: &[&str], query: &[(&str, &str)], more: &str) -> PlannedAction {
    let url = api.client().url(path, query).to_string().replace("%7B", "{").replace("%7D", "}");
    PlannedAction { verb: "GET".to_owned(), subject: url, details: vec![key(), more.to_owned()] }
}

fn post(api: &RuntimeApi, target: &str, tags: &[String]) -> Result<PlannedAction> {
    let config = api.config();
    let known = api.memory().load();
    let Form { json, may_change } = form(config.encoding, config.json_tags, tags.len(), known)?;
    let frame = match json {
        true => wire::json(target, tags),
        false => wire::multipart("{boundary}", CONTEXT_PART, target, tags),
    };
    let length = match config.upload {
        Upload::Spool => "Content-Length, from a temporary file",
        Upload::Auto if known.wants_length => "Content-Length, from a temporary file",
        Upload::Auto => "Content-Length up to 1 MiB, else Transfer-Encoding: chunked",
        Upload::Chunked => "Transfer-Encoding: chunked",
    };
    let body = frame.around("(base64 of the archive)").replace("\r\n", "\\r\\n");
    let mut details = vec![key(), format!("Content-Type: {}", frame.content_type), length.to_owned(), body];
    if may_change {
        details.push("400, 415 or 422: again as multipart/form-data".to_owned());
    }
    let url = api.client().url(&["build"], &[]).to_string();
    Ok(PlannedAction { verb: "POST".to_owned(), subject: url, details })
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
