//! From what a list says to what is built: contexts, Dockerfiles and recipes are looked up, references and
//! platforms parsed, names and tags compared.

mod collisions;
mod naming;
mod recipes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::json;

use super::draft::{Draft, Text};
use super::entry::{Entry, Work, hash_of};
use super::list::ListOptions;
use super::problems::{Problems, in_one_line};
use naming::{free_name, is_name, name_of, short_name};

use crate::context::Context;
use crate::digest::Digest;
use crate::dockerfile::{Dockerfile, InstructionKind};
use crate::error::{Error, ErrorKind, nearest};
use crate::output::Output;
use crate::recipe::Recipe;
use crate::reference::Reference;
use crate::request::{BuildRequest, DockerfileSource, EngineOption, NamedContext};

/// The build argument that holds the base image of a list.
const BASE_IMAGE: &str = "BASE_IMAGE";

/// Where relative paths start.
pub(super) enum Paths {
    /// At the directory of the list; a Dockerfile that is not there is looked for in its context.
    OfTheList(PathBuf),
    /// Contexts where the program was called, Dockerfiles in their contexts, as `docker buildx bake` has it.
    OfBake,
}

/// A context with its Dockerfile, read once for all images that have the same.
struct Tree {
    context: Context,
    dockerfile: DockerfileSource,
    /// `None` for another frontend's, which only that can read.
    parsed: Option<Dockerfile>,
}

pub(super) struct Loader<'a> {
    options: &'a ListOptions<'a>,
    paths: Paths,
    problems: &'a mut Problems,
    trees: HashMap<(PathBuf, PathBuf), Result<Rc<Tree>, String>>,
    /// Contexts without a Dockerfile in them.
    bare: HashMap<PathBuf, Result<Context, String>>,
    recipe_files: HashMap<PathBuf, Arc<Recipe>>,
}

impl<'a> Loader<'a> {
    pub(super) fn new(options: &'a ListOptions<'a>, paths: Paths, problems: &'a mut Problems) -> Self {
        Self {
            options,
            paths,
            problems,
            trees: HashMap::new(),
            bare: HashMap::new(),
            recipe_files: HashMap::new(),
        }
    }

    /// Looks everything up. What is wrong is among the problems.
    pub(super) fn load(mut self, drafts: Vec<Draft>) -> Vec<Entry> {
        let mut names = BTreeMap::new();
        for draft in &drafts {
            let Some((line, name)) = &draft.name else { continue };
            if !is_name(name) {
                let text =
                    format!("the name `{name}` must be of at most 100 letters, digits, `.`, `_` and `-`");
                self.problems.add(*line, text);
            }
            if let Some(other) = names.insert(name.clone(), *line) {
                self.problems.add(*line, format!("the name `{name}` is taken by the image in line {other}"));
            }
        }
        self.check_tags(&drafts);
        let mut taken: BTreeSet<String> = names.into_keys().collect();
        let mut entries = Vec::new();
        for draft in drafts {
            let entry = match &draft.recipe {
                Some(recipe) => self.recipe(&draft, recipe),
                None => self.dockerfile(&draft),
            };
            if let Some(mut entry) = entry {
                if draft.name.is_none() {
                    entry.name = free_name(&entry.name, &taken);
                    taken.insert(entry.name.clone());
                }
                entries.push(entry);
            }
        }
        self.check_places(&entries);
        entries
    }

    fn dockerfile(&mut self, draft: &Draft) -> Option<Entry> {
        // All of it is looked at, whatever is wrong with some of it.
        let tree = self.tree(draft);
        let tags: Option<Vec<Reference>> = self.parse_all(&draft.tags);
        let platforms = self.parse_all(&draft.platforms);
        let outputs = self.outputs(draft);
        let annotations = self.annotations(draft);
        let build_contexts = self.named_contexts(draft);
        let tree = tree?;
        let fits = self.check_dockerfile(draft, &tree);
        let (Some(tags), Some(platforms), Some(outputs)) = (tags, platforms, outputs) else { return None };
        let (Some(annotations), Some(build_contexts), true) = (annotations, build_contexts, fits) else {
            return None;
        };
        let mut request = BuildRequest {
            target: draft.target.as_ref().map(|(_, target)| target.clone()),
            platforms,
            build_args: draft.build_args.clone(),
            labels: draft.labels.clone(),
            annotations,
            tags: tags.clone(),
            build_contexts,
            outputs,
            no_cache: draft.no_cache,
            pull: draft.pull,
            source_date_epoch: self.options.source_date_epoch,
            engine_options: engine_options(draft),
            ..BuildRequest::new(tree.context.clone(), tree.dockerfile.clone())
        };
        let base_image = draft.base_image.as_ref().map(|(_, base)| base.clone());
        if let Some(base) = &base_image {
            request.build_args.insert(BASE_IMAGE.to_owned(), base.clone());
        }
        if tags.is_empty() && (request.pushes() || draft.name.is_none()) {
            self.problems.add(draft.line, "an image must have `tags`");
            return None;
        }
        let named = draft.name.as_ref().map(|(_, name)| name.clone());
        let root = request.context.root().map(|root| root.display().to_string()).unwrap_or_default();
        let mut shares = vec![format!("context {root}")];
        shares.extend(base_image.as_ref().map(|base| format!("base {base}")));
        Some(Entry {
            name: named.unwrap_or_else(|| name_of(&short_name(&tags[0]))),
            line: draft.line,
            base_image,
            target: request.target.clone(),
            tags,
            hash: hash_of_request(&request, &root, self.store(&request.outputs)),
            shares,
            work: Work::Dockerfile(Box::new(request)),
        })
    }

    /// The context and the Dockerfile of an image.
    fn tree(&mut self, draft: &Draft) -> Option<Rc<Tree>> {
        let (line, context) = match &draft.context {
            Some((line, context)) => (*line, context.as_str()),
            None => (draft.line, "."),
        };
        if context.contains("://") || context.starts_with("git@") || context.starts_with("target:") {
            self.problems.add(line, format!("the context `{context}` is not a directory on this machine"));
            return None;
        }
        let context = self.below_list(context);
        let found = match (&draft.inline, &draft.dockerfile) {
            (Some((line, text)), _) => return self.inline(draft, *line, text, &context),
            (None, Some((line, file))) => (*line, self.locate(&context, file)),
            (None, None) => (line, context.join("Dockerfile")),
        };
        let (line, file) = found;
        let key = (context.clone(), file.clone());
        let tree = match self.trees.get(&key) {
            Some(tree) => tree.clone(),
            None => {
                let read = self.read(&context, &file).map(Rc::new).map_err(|error| in_one_line(&error));
                self.trees.entry(key).or_insert(read).clone()
            }
        };
        tree.map_err(|text| self.problems.add(line, text)).ok()
    }

    fn inline(&mut self, draft: &Draft, line: usize, text: &str, context: &Path) -> Option<Rc<Tree>> {
        let options = self.options;
        let read = || Context::from_dir(&options.current_dir.join(context), None, options.context);
        let context =
            self.bare.entry(context.to_owned()).or_insert_with(|| read().map_err(|e| in_one_line(&e)));
        let context = context.clone().map_err(|text| self.problems.add(line, text)).ok()?;
        let name = draft.name.as_ref().map_or("", |(_, name)| name.as_str());
        let shown = PathBuf::from(format!("{} (inline of {name})", self.problems.file().display()));
        let content = text.to_owned().into_bytes().into();
        let dockerfile = DockerfileSource { shown, path: None, in_context: None, content };
        match parse(&dockerfile) {
            Ok(parsed) => Some(Rc::new(Tree { context, dockerfile, parsed })),
            Err(error) => {
                self.problems.add_error(line, &error);
                None
            }
        }
    }

    fn read(&self, context: &Path, file: &Path) -> Result<Tree, Error> {
        let (root, path) = (self.options.current_dir.join(context), self.options.current_dir.join(file));
        if !root.exists() {
            let message = format!("the build context `{}` does not exist", context.display());
            return Err(Error::new(ErrorKind::InvalidInput, message));
        }
        let context = Context::from_dir(&root, Some(&path), self.options.context)?;
        let dockerfile = DockerfileSource::read(file, &path, &context)?;
        Ok(Tree { parsed: parse(&dockerfile)?, context, dockerfile })
    }

    /// A path of the list, from where the program was called.
    fn below_list(&self, path: &str) -> PathBuf {
        match &self.paths {
            Paths::OfTheList(directory) if directory.as_os_str().is_empty() => path.into(),
            // `images/.` is how nobody would write it.
            Paths::OfTheList(directory) if path == "." => directory.clone(),
            Paths::OfTheList(directory) => directory.join(path),
            Paths::OfBake => path.into(),
        }
    }

    fn locate(&self, context: &Path, file: &str) -> PathBuf {
        let beside = self.below_list(file);
        let is_bake = matches!(self.paths, Paths::OfBake);
        let is_beside = !is_bake && self.options.current_dir.join(&beside).is_file();
        if is_beside { beside } else { context.join(file) }
    }

    /// Whose store an image goes to; `None` where it goes to a registry.
    fn store(&self, outputs: &[Output]) -> Option<&'a [String]> {
        (!outputs.iter().any(Output::pushes)).then_some(self.options.backends)
    }

    /// What the Dockerfile must have for what the list says.
    fn check_dockerfile(&mut self, draft: &Draft, tree: &Tree) -> bool {
        let Some(parsed) = &tree.parsed else { return true };
        let shown = tree.dockerfile.shown.display();
        let mut fits = true;
        if let Some((line, base)) = &draft.base_image {
            if let Some(error) = base.parse::<Reference>().err().filter(|_| base != "scratch") {
                self.problems.add_error(*line, &error);
                fits = false;
            }
            if draft.build_args.contains_key(BASE_IMAGE) {
                self.problems.add(*line, "`base-image` and the build argument `BASE_IMAGE` say the same");
                fits = false;
            }
            let declares = parsed.global_arguments.iter().any(|instruction| match &instruction.kind {
                InstructionKind::Arg(names) => names.iter().any(|argument| argument.name == BASE_IMAGE),
                _ => false,
            });
            if !declares {
                let text =
                    format!("`base-image` is given, but `{shown}` has no `ARG BASE_IMAGE` before its FROM");
                self.problems.add(*line, text);
                fits = false;
            }
        }
        if let Some((line, target)) = &draft.target {
            let names: Vec<&str> = parsed.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
            let index = target.parse::<usize>().is_ok_and(|index| index < parsed.stages.len());
            if !index && !names.iter().any(|name| name.eq_ignore_ascii_case(target)) {
                let mut text = format!("`{shown}` has no stage `{target}`");
                if let Some(name) = nearest(target, names) {
                    text += &format!("; did you mean `{name}`?");
                }
                self.problems.add(*line, text);
                fits = false;
            }
        }
        fits
    }

    fn parse_all<T: FromStr<Err = Error>>(&mut self, texts: &[Text]) -> Option<Vec<T>> {
        let mut values = Vec::new();
        for (line, text) in texts {
            match text.trim().parse() {
                Ok(value) => values.push(value),
                Err(error) => self.problems.add_error(*line, &error),
            }
        }
        (values.len() == texts.len()).then_some(values)
    }

    fn outputs(&mut self, draft: &Draft) -> Option<Vec<Output>> {
        if let Some(outputs) = self.options.outputs {
            return Some(outputs.to_vec());
        }
        match &draft.outputs {
            Some(outputs) if !outputs.is_empty() => self.parse_all(outputs),
            _ => Some(vec![Output::image()]),
        }
    }

    fn annotations(&mut self, draft: &Draft) -> Option<BTreeMap<String, String>> {
        let mut annotations = Some(BTreeMap::new());
        for (line, text) in &draft.annotations {
            match (text.split_once('='), &mut annotations) {
                (Some((name, value)), Some(annotations)) if !name.is_empty() => {
                    annotations.insert(name.to_owned(), value.to_owned());
                }
                (Some((name, _)), None) if !name.is_empty() => {}
                _ => {
                    self.problems.add(*line, format!("the annotation `{text}` is not `NAME=VALUE`"));
                    annotations = None;
                }
            }
        }
        annotations
    }

    fn named_contexts(&mut self, draft: &Draft) -> Option<BTreeMap<String, NamedContext>> {
        let mut contexts = Some(BTreeMap::new());
        for (name, source) in &draft.contexts {
            match (NamedContext::parse(name, source, self.options.current_dir), &mut contexts) {
                (Ok(NamedContext::Other(_)), _) if source.starts_with("target:") => {
                    let text = format!("the context `{name}` is another target, which is not supported");
                    self.problems.add(draft.line, text);
                    contexts = None;
                }
                (Ok(context), Some(contexts)) => drop(contexts.insert(name.clone(), context)),
                (Ok(_), None) => {}
                (Err(error), _) => {
                    self.problems.add_error(draft.line, &error);
                    contexts = None;
                }
            }
        }
        contexts
    }
}

fn parse(dockerfile: &DockerfileSource) -> Result<Option<Dockerfile>, Error> {
    if Dockerfile::is_foreign(&dockerfile.content, &dockerfile.shown)? {
        return Ok(None);
    }
    Dockerfile::parse(&dockerfile.content, &dockerfile.shown).map(Some)
}

fn engine_options(draft: &Draft) -> Vec<EngineOption> {
    let option = |(name, (_, value)): &(&'static str, Text)| EngineOption {
        name: (*name).to_owned(),
        value: Some(value.clone()),
    };
    draft.engine_options.iter().map(option).collect()
}

fn hash_of_request(request: &BuildRequest, root: &str, store: Option<&[String]>) -> String {
    let engine: Vec<_> = request.engine_options.iter().map(|option| (&option.name, &option.value)).collect();
    hash_of(&json!({
        "context": root,
        "store": store,
        "dockerfile": Digest::of(&request.dockerfile.content).to_string(),
        "target": request.target,
        "platforms": request.platforms,
        "build-args": request.build_args,
        "labels": request.labels,
        "annotations": request.annotations,
        "tags": request.tags,
        "contexts": request.build_contexts,
        "outputs": request.outputs,
        "no-cache": request.no_cache,
        "pull": request.pull,
        "source-date-epoch": request.source_date_epoch,
        "engine-options": engine,
    }))
}
