//! What a runtime image is called: its hashes, its tags, its repository.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use super::agent_server::{SLUG_LIMIT, TagInput, Target};
use super::build_folder::package_name;
use super::inputs::{Hashes, Inputs};
use super::openhands::{extension, generic_image};
use super::options::RuntimeOptions;
use super::{HashedTags, TagValues, Tags, TypedImage};
use crate::backend::{Backend, Job};
use crate::backend_registry::Host;
use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;

/// Every name of a runtime image, and what it is made of.
#[derive(Clone, Debug, Serialize)]
pub struct RuntimeNames {
    /// The recipe.
    pub recipe: String,
    /// The base image, as it is typed.
    pub base_image: String,
    /// The version of the platform; `None` where no tag has it.
    pub version: Option<String>,
    /// The repository, as it is typed or spelled by the service.
    pub repository: String,
    /// Where the repository comes from.
    pub repository_from: RepositoryFrom,
    /// The tags.
    pub tags: RuntimeTags,
    /// References that the image gets besides.
    pub further: Vec<Reference>,
}

/// What said which repository the images belong to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum RepositoryFrom {
    /// `--repository`
    Argument,
    /// The build service: images go to its own registry.
    Service {
        /// The configured name of the backend.
        backend: String,
    },
    /// A variable.
    Variable {
        /// Its name.
        name: String,
    },
    /// The recipe.
    Recipe,
}

/// The tags of one scheme.
#[derive(Clone, Debug, Serialize)]
#[serde(tag = "scheme", rename_all = "kebab-case")]
#[expect(clippy::large_enum_variant, reason = "there is one for an image, and nobody keeps many")]
pub enum RuntimeTags {
    /// By the hashes of what goes in.
    Hashes {
        /// Of base image, browser and lock files.
        lock_hash: String,
        /// Of the source directory.
        source_hash: String,
        /// What stands in the tags for inputs that the hashes leave out; empty where there are none.
        extension: String,
        /// Those inputs, by the name of their option.
        extended_by: BTreeMap<&'static str, Value>,
        /// Same version, base image, dependencies and sources.
        source: Reference,
        /// Same version, base image and dependencies; `None` where the recipe has no such tag.
        lock: Option<Reference>,
        /// Same version and base image; `None` where the recipe has no such tag.
        versioned: Option<Reference>,
        /// What stands for the base image whatever the sources: `repository:tag`. `None` where the recipe
        /// makes no use of it.
        generic: Option<String>,
    },
    /// By commit, branch and base image.
    AgentServer {
        /// The commit of the sources; `None` where it is not known.
        commit: Option<String>,
        /// Branch or git reference; `None` where it is not known.
        git_reference: Option<String>,
        /// What is built.
        target: String,
        /// All of them, in their order.
        all: Vec<Reference>,
        /// The tag that the build cache of this branch is kept under.
        cache_tag: String,
        /// That of the main branch, the second source of every build.
        main_cache_tag: String,
    },
}

impl RuntimeNames {
    /// All references in their order, the main one first.
    pub fn references(&self) -> Vec<Reference> {
        let tags: Vec<Reference> = match &self.tags {
            RuntimeTags::Hashes { source, lock, versioned, .. } => {
                [Some(source), lock.as_ref(), versioned.as_ref()].into_iter().flatten().cloned().collect()
            }
            RuntimeTags::AgentServer { all, .. } => all.clone(),
        };
        tags.into_iter().chain(self.further.iter().cloned()).collect()
    }

    /// The tags alone, for the templates of the recipe; `None` where they are not by hashes.
    pub(super) fn hashed(&self) -> Option<HashedTags> {
        let tag = |reference: &Reference| reference.tag().unwrap_or_default().to_owned();
        match &self.tags {
            RuntimeTags::Hashes { source, lock, versioned, .. } => Some(HashedTags {
                source: tag(source),
                lock: lock.as_ref().map(tag),
                versioned: versioned.as_ref().map(tag),
            }),
            RuntimeTags::AgentServer { .. } => None,
        }
    }
}

/// Computes every name of an image, as it would be on a backend; without one, as the options, the recipe's
/// variable and the recipe say. Asks a build service for the name of its registry; else nothing over the
/// network.
///
/// # Errors
/// `InvalidInput`: what is missing, named; a tag that registries would refuse. `ContextUnreadable`. What the
/// service answers.
pub async fn runtime_names(
    options: &RuntimeOptions,
    backend: Option<&dyn Backend>,
    host: &Host,
    job: &Job,
) -> Result<RuntimeNames> {
    let inputs = Inputs::read(options, host, job).await?;
    let hashes = inputs.hashes(job).await?;
    let (repository, from) = repository(options, backend, host, job).await?;
    names(options, &inputs, &hashes, repository, from)
}

/// The repository of the images, and what said so.
///
/// A build service keeps images in a registry of its own, and the last word of the recipe's repository is
/// the name there, as OpenHands' `<registry_prefix>/runtime`.
pub(super) async fn repository(
    options: &RuntimeOptions,
    backend: Option<&dyn Backend>,
    host: &Host,
    job: &Job,
) -> Result<(String, RepositoryFrom)> {
    if let Some(typed) = options.repository.as_ref().filter(|typed| !typed.is_empty()) {
        return Ok((typed.clone(), RepositoryFrom::Argument));
    }
    let recipe = &options.recipe;
    if let Some(backend) = backend
        && let Some(remote) = backend.remote()
    {
        let whole = TypedImage::new(&recipe.repository).repository;
        let last = whole.rsplit('/').next().unwrap_or(whole);
        match remote.registry_names(&[last.parse()?], job).await {
            Ok(names) if names.len() == 1 => {
                let from = RepositoryFrom::Service { backend: backend.name().to_owned() };
                return Ok((names[0].familiar_name(), from));
            }
            // It has one, and takes no name with a registry.
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                return Ok((last.to_owned(), RepositoryFrom::Service { backend: backend.name().to_owned() }));
            }
            // It does not say which: names are taken as they are given.
            Err(error) if error.kind() == ErrorKind::InvalidInput => {}
            Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    let variable = recipe.repository_env.as_deref();
    Ok(match variable.and_then(|name| Some((name, host.variable(name)?))) {
        Some((name, value)) => (value.to_owned(), RepositoryFrom::Variable { name: name.to_owned() }),
        None => (recipe.repository.clone(), RepositoryFrom::Recipe),
    })
}

/// Puts the names together.
pub(super) fn names(
    options: &RuntimeOptions,
    inputs: &Inputs,
    hashes: &Hashes,
    repository: String,
    repository_from: RepositoryFrom,
) -> Result<RuntimeNames> {
    let at: Reference = repository.parse().map_err(|source| {
        let message = format!("`{repository}` cannot be the repository of the images");
        let error = Error::new(ErrorKind::InvalidInput, message).with_source(source);
        match &repository_from {
            RepositoryFrom::Variable { name } => error.with_detail("set in", name.as_str()),
            _ => error,
        }
    })?;
    let tags = match &options.recipe.tags {
        Tags::Hashes(_) => by_hashes(options, inputs, hashes, &repository, &at)?,
        Tags::Scheme { .. } => agent_server(options, inputs, &at)?,
    };
    Ok(RuntimeNames {
        recipe: options.recipe.name.clone(),
        base_image: options.base_image.clone(),
        version: inputs.version.clone(),
        repository: TypedImage::new(&repository).repository.to_owned(),
        repository_from,
        tags,
        further: options.further_tags.clone(),
    })
}

fn by_hashes(
    options: &RuntimeOptions,
    inputs: &Inputs,
    hashes: &Hashes,
    repository: &str,
    at: &Reference,
) -> Result<RuntimeTags> {
    let recipe = &options.recipe;
    let version = inputs.version.as_deref().unwrap_or_default();
    let extended_by = extended_by(options, inputs)?;
    let extension = match extended_by.is_empty() {
        true => String::new(),
        // A map with sorted keys and no spaces: the canonical form.
        false => extension(&serde_json::to_string(&extended_by).unwrap_or_default()),
    };
    let tags = recipe.hashed_tags(&TagValues {
        version,
        base_image: &options.base_image,
        lock_hash: &hashes.lock,
        source_hash: &hashes.source,
        extension: &extension,
    })?;
    let named = |tag: &Option<String>| tag.as_deref().map(|tag| at.with_tag(tag)).transpose();
    let wants_generic = recipe.config_file.as_ref().is_some_and(|file| file.text.contains("generic_tag"));
    let generic = wants_generic
        .then(|| generic_image(version, TypedImage::new(repository).repository, &options.base_image))
        .transpose()?
        .map(|(repository, tag)| match tag.contains(':') {
            true => format!("{repository}@{tag}"),
            false => format!("{repository}:{tag}"),
        });
    Ok(RuntimeTags::Hashes {
        lock_hash: hashes.lock.clone(),
        source_hash: hashes.source.clone(),
        source: at.with_tag(&tags.source)?,
        lock: named(&tags.lock)?,
        versioned: named(&tags.versioned)?,
        extension,
        extended_by,
        generic,
    })
}

/// What is set of the inputs that the hashes leave out.
fn extended_by(options: &RuntimeOptions, inputs: &Inputs) -> Result<BTreeMap<&'static str, Value>> {
    let mut set = BTreeMap::new();
    let mut add = |name, is_set: bool, value: Value| {
        if is_set {
            set.insert(name, value);
        }
    };
    // In whatever order they are typed, it is the same index.
    let platforms: BTreeSet<String> = options.platforms.iter().map(ToString::to_string).collect();
    let defaults = &options.recipe.variables;
    let changed: BTreeMap<&String, &Value> =
        options.variables.iter().filter(|(name, value)| defaults.get(*name) != Some(value)).collect();
    add("build-arg", !options.build_args.is_empty(), serde_json::json!(options.build_args));
    add("extra-deps", !options.extra_deps.is_empty(), options.extra_deps.clone().into());
    add("label", !options.labels.is_empty(), serde_json::json!(options.labels));
    add("platform", !platforms.is_empty(), serde_json::json!(platforms));
    add("var", !changed.is_empty(), serde_json::json!(changed));
    let package = package_name(inputs.source())?;
    add("source", is_elsewhere(options, &package), package.into());
    Ok(set)
}

/// Says whether the sources are at another place in the image than those of the recipe's own directory, whose
/// name this is not.
fn is_elsewhere(options: &RuntimeOptions, package: &str) -> bool {
    let recipe = &options.recipe;
    let expected = recipe.source.file_name().map(|name| name.to_string_lossy());
    let differs = match expected {
        Some(name) => name != package,
        None => options.source != recipe.source,
    };
    let places = recipe.sources.iter().map(|tree| &tree.destination);
    let mut places = places.chain(recipe.lock_files.iter().map(|file| &file.destination));
    differs && (recipe.uses("package") || places.any(|place| place.contains("package")))
}

fn agent_server(options: &RuntimeOptions, inputs: &Inputs, at: &Reference) -> Result<RuntimeTags> {
    let (commit, git_reference) = (inputs.commit.clone(), inputs.git_reference.clone());
    let target = options.target.unwrap_or(Target::Binary);
    let input = TagInput {
        base_image: &options.base_image,
        slug_limit: SLUG_LIMIT,
        commit: commit.as_deref(),
        git_reference: git_reference.as_deref(),
        custom: options.custom_tags.iter().map(String::as_str).collect(),
        target,
        architecture: options.architecture.as_deref(),
        with_base: options.base_tag,
        release_of: inputs.version.as_deref().filter(|_| options.release_tags),
    };
    let all = input.tags()?.iter().map(|tag| at.with_tag(tag)).collect::<Result<Vec<_>>>()?;
    if all.is_empty() {
        return Err(Error::new(ErrorKind::InvalidInput, "nothing says what the image shall be called")
            .with_hint("give it a tag with `--custom-tag`, or leave `--no-base-tag` out"));
    }
    let (cache_tag, main_cache_tag) = (input.cache_tag()?, input.main_cache_tag()?);
    Ok(RuntimeTags::AgentServer {
        target: target.to_string(),
        all,
        cache_tag,
        main_cache_tag,
        commit,
        git_reference,
    })
}
