//! From what was typed to what is meant: arguments become [`RuntimeOptions`].

use std::path::Path;
use std::sync::Arc;

use windlass_core::config::Selection;
use windlass_core::platform::Platform;
use windlass_core::recipe::{Recipe, Recipes, RuntimeOptions};
use windlass_core::{Error, ErrorKind, Result};

use crate::args::{AgentServerArgs, RuntimeImageArgs, RuntimeOutputArgs};
use crate::request::{build_args, drop_repeated, outputs, pairs, parse_all};
use crate::session::Session;
use crate::settings::{context_settings, source_date_epoch};

/// Finds a recipe: by its name, or in a file.
pub(in crate::commands) fn recipe(typed: &str, session: &Session<'_>) -> Result<Arc<Recipe>> {
    let mut recipes = Recipes::of(&session.settings)?;
    let path = session.program.surroundings.current_dir.join(typed);
    let is_file = Path::new(typed).extension().is_some_and(|extension| extension == "toml");
    if is_file {
        return recipes.read_file(&path);
    }
    recipes.get(typed).map_err(|error| match path.is_file() {
        true => error.with_hint(format!("the file of a recipe ends in `.toml`; `{typed}` does not")),
        false => error,
    })
}

/// Reads every option. Where nothing is built there are no outputs.
pub(super) fn read(
    image: &RuntimeImageArgs,
    output: Option<&RuntimeOutputArgs>,
    selection: &Selection,
    session: &Session<'_>,
) -> Result<RuntimeOptions> {
    let surroundings = &session.program.surroundings;
    let recipe = recipe(&image.recipe, session)?;
    let set = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let build_args = build_args(&image.build_args, &surroundings.environment)?;
    let epoch = build_args.get("SOURCE_DATE_EPOCH").map(String::as_str);
    let epoch = epoch.or_else(|| surroundings.variable("SOURCE_DATE_EPOCH"));
    let mut options = RuntimeOptions::new(recipe.clone());
    options.base_image = set(&image.base_image).unwrap_or(options.base_image);
    if let Some(source) = image.source.as_ref().filter(|source| !source.as_os_str().is_empty()) {
        options.source.clone_from(source);
    }
    options.repository = set(&image.repository);
    options.version = set(&image.image_version);
    options.extra_deps = set(&image.extra_deps).unwrap_or_default();
    options.platforms = parse_all(&image.platforms)?;
    drop_repeated(&mut options.platforms);
    if options.platforms.is_empty() {
        options.platforms = default_platform(selection, session)?.into_iter().collect();
    }
    options.source_date_epoch = source_date_epoch(epoch)?;
    options.build_args = build_args;
    options.labels = pairs("--label", &image.labels, Some(""))?;
    options.variables = image.variables.iter().map(|typed| recipe.variable(typed)).collect::<Result<_>>()?;
    options.context = context_settings(&session.settings.context);
    if image.no_browser {
        if !recipe.uses("enable_browser") {
            let message = format!("`--no-browser` would change nothing: `{}` installs none", recipe.name);
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        options.browser = false;
    }
    read_agent_server(&image.agent_server, &mut options)?;
    if let Some(output) = output {
        options.force_rebuild = output.force_rebuild;
        options.further_tags = parse_all(&output.tags)?;
        drop_repeated(&mut options.further_tags);
        options.outputs = outputs(&output.destination)?;
        (options.no_cache, options.pull) = (output.no_cache, output.pull);
    }
    Ok(options)
}

/// The platform that docker builds for where none is typed: tags must tell it. That of this machine changes
/// nothing.
fn default_platform(selection: &Selection, session: &Session<'_>) -> Result<Option<Platform>> {
    let variable = "DOCKER_DEFAULT_PLATFORM";
    let builds = selection.backends.iter().any(|backend| backend.type_name == windlass_docker::TYPE);
    let Some(text) = session.program.surroundings.variable(variable).filter(|_| builds) else {
        return Ok(None);
    };
    let platform: Platform = text.parse().map_err(|error: Error| error.with_detail("set in", variable))?;
    if platform == Platform::host() {
        return Ok(None);
    }
    session.output.note(&format!("{variable} says {platform}: as with `--platform {platform}`"));
    Ok(Some(platform))
}

fn read_agent_server(args: &AgentServerArgs, options: &mut RuntimeOptions) -> Result<()> {
    let target = args.target.as_deref().filter(|target| !target.is_empty());
    options.target = target.map(str::parse).transpose()?;
    let tags = args.custom_tags.iter().map(|tag| tag.trim()).filter(|tag| !tag.is_empty());
    options.custom_tags = tags.map(str::to_owned).collect();
    options.architecture = args.architecture.clone().filter(|architecture| !architecture.is_empty());
    (options.base_tag, options.release_tags) = (!args.no_base_tag, args.release_tags);
    Ok(())
}
