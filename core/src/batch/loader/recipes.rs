//! Images that recipes make.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;

use super::super::draft::{Draft, RecipeDraft, Text};
use super::super::entry::{Entry, Work, hash_of};
use super::Loader;
use super::naming::{name_of, short_name};
use crate::error::Error;
use crate::output::Output;
use crate::recipe::agent_server::Target;
use crate::recipe::{Recipe, RuntimeOptions};
use crate::reference::Reference;

impl Loader<'_> {
    /// Looks up what a list says of an image that a recipe makes.
    pub(super) fn recipe(&mut self, draft: &Draft, said: &RecipeDraft) -> Option<Entry> {
        // All of it is looked at, whatever is wrong with some of it.
        let recipe = self.find_recipe(&said.recipe.1);
        let recipe = recipe.map_err(|error| self.problems.add_error(said.recipe.0, &error)).ok();
        let source = self.source(said);
        let tags: Option<Vec<Reference>> = self.parse_all(&draft.tags);
        let platforms = self.parse_all(&draft.platforms);
        let target = draft.target.as_ref().map(|(line, target)| {
            target.parse::<Target>().map_err(|error| self.problems.add_error(*line, &error))
        });
        let target = target.transpose();
        let (recipe, tags, platforms, target) = (recipe?, tags?, platforms?, target.ok()?);
        let text = |text: &Option<Text>| text.as_ref().map(|(_, text)| text.clone());
        let mut options = RuntimeOptions {
            repository: text(&said.repository),
            version: text(&said.version),
            platforms,
            extra_deps: text(&said.extra_deps).unwrap_or_default(),
            build_args: draft.build_args.clone(),
            labels: draft.labels.clone(),
            browser: said.browser,
            variables: said.variables.clone(),
            target,
            custom_tags: said.custom_tags.iter().map(|(_, tag)| tag.clone()).collect(),
            further_tags: tags.clone(),
            outputs: self.options.outputs.map_or_else(|| vec![Output::image()], <[Output]>::to_vec),
            no_cache: draft.no_cache,
            pull: draft.pull,
            source_date_epoch: self.options.source_date_epoch,
            context: self.options.context.clone(),
            ..RuntimeOptions::new(recipe)
        };
        options.base_image = text(&draft.base_image).unwrap_or(options.base_image);
        options.source = source.unwrap_or(options.source);
        if let Err(error) = options.check() {
            self.problems.add_error(draft.line, &error);
            return None;
        }
        let name = text(&draft.name).unwrap_or_else(|| name_of_runtime(&options));
        let directory = options.source.display();
        Some(Entry {
            name,
            line: draft.line,
            base_image: Some(options.base_image.clone()),
            target: text(&draft.target),
            tags,
            hash: hash_of_runtime(&options, self.store(&options.outputs)),
            shares: vec![
                format!("sources {} {directory}", options.recipe.name),
                format!("base {}", options.base_image),
            ],
            work: Work::Recipe(Box::new(options)),
        })
    }

    /// By its name, or in a file.
    fn find_recipe(&mut self, name: &str) -> Result<Arc<Recipe>, Error> {
        let is_file = Path::new(name).extension().is_some_and(|extension| extension == "toml");
        if !is_file {
            return self.options.recipes.get(name);
        }
        let path = self.options.current_dir.join(self.below_list(name));
        if let Some(recipe) = self.recipe_files.get(&path) {
            return Ok(recipe.clone());
        }
        let recipe = self.options.recipes.clone().read_file(&path)?;
        self.recipe_files.insert(path, recipe.clone());
        Ok(recipe)
    }

    fn source(&mut self, said: &RecipeDraft) -> Option<PathBuf> {
        let (line, path) = said.source.as_ref()?;
        let shown = self.below_list(path);
        let path = self.options.current_dir.join(&shown);
        if !path.is_dir() {
            self.problems.add(*line, format!("the source directory `{}` does not exist", shown.display()));
        }
        Some(path)
    }
}

fn hash_of_runtime(options: &RuntimeOptions, store: Option<&[String]>) -> String {
    hash_of(&json!({
        "recipe": *options.recipe,
        "store": store,
        "base-image": options.base_image,
        "source": options.source,
        "repository": options.repository,
        "version": options.version,
        "platforms": options.platforms,
        "extra-deps": options.extra_deps,
        "build-args": options.build_args,
        "labels": options.labels,
        "browser": options.browser,
        "variables": options.variables,
        "target": options.target.map(|target| target.to_string()),
        "custom-tags": options.custom_tags,
        "tags": options.further_tags,
        "outputs": options.outputs,
        "no-cache": options.no_cache,
        "pull": options.pull,
        "source-date-epoch": options.source_date_epoch,
    }))
}

/// What an image of a recipe is called where nobody names it.
fn name_of_runtime(options: &RuntimeOptions) -> String {
    let target = options.target.map(|target| target.to_string()).unwrap_or_default();
    let custom = options.custom_tags.join(" ");
    let base = match options.base_image.parse() {
        Ok(base) => short_name(&base),
        Err(_) => options.base_image.clone(),
    };
    name_of(&format!("{} {base} {target} {custom}", options.recipe.name))
}
