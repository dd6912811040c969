//! How one image of a list is made: through the pipeline.

use std::sync::Arc;

use async_trait::async_trait;

use super::entry::{Entry, Work};
use crate::backend::{Backend, FindScope, Job};
use crate::backend_registry::Host;
use crate::digest::Digest;
use crate::error::Result;
use crate::pipeline::{Pipeline, PipelineOptions, Reuse};
use crate::recipe::build_runtime;
use crate::reference::Reference;

/// So many tags of an image are asked for together.
const AT_ONCE: usize = 8;

/// What became of an image that did not fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The references that it has.
    pub tags: Vec<Reference>,
    /// The digest of its manifest, where that is known.
    pub digest: Option<Digest>,
    /// The backend that built or found it.
    pub backend: String,
    /// It was there already.
    pub found: bool,
}

/// Makes the images of a list.
#[async_trait]
pub trait ImageBuilder: Send + Sync {
    /// Builds an image, or finds out that it need not be. `begun_before` says that an earlier attempt may have
    /// left some of its tags: they are no reason then to leave out the others.
    ///
    /// # Errors
    /// Those of the build.
    async fn build(&self, entry: &Entry, begun_before: bool, job: &Job) -> Result<Built>;
}

/// Makes images through a pipeline.
#[derive(Clone, Debug)]
pub struct PipelineBuilder {
    /// The backends.
    pub pipeline: Arc<Pipeline>,
    /// The surroundings.
    pub host: Arc<Host>,
    /// Builds whatever exists.
    pub force: bool,
}

#[async_trait]
impl ImageBuilder for PipelineBuilder {
    async fn build(&self, entry: &Entry, begun_before: bool, job: &Job) -> Result<Built> {
        match &entry.work {
            Work::Dockerfile(request) => {
                if !self.force
                    && let Some(found) = self.find(entry, begun_before, job).await?
                {
                    return Ok(found);
                }
                let reuse = if self.force { Reuse::Never } else { Reuse::WhenUntagged };
                let options = PipelineOptions { reuse, explain: false };
                let report = self.pipeline.build((**request).clone(), &options, job).await?;
                Ok(Built {
                    tags: report.image.references,
                    digest: report.image.digest,
                    backend: report.image.backend,
                    found: report.image.reused,
                })
            }
            Work::Recipe(options) => {
                let mut options = (**options).clone();
                options.force_rebuild |= self.force;
                let report = build_runtime(&self.pipeline, &options, &self.host, job).await?;
                let mut tags = report.build.image.references;
                if !tags.contains(&report.result) {
                    tags.insert(0, report.result);
                }
                Ok(Built {
                    tags,
                    digest: report.digest,
                    backend: report.build.image.backend,
                    found: report.build.image.reused,
                })
            }
        }
    }
}

impl PipelineBuilder {
    /// Looks for the tags of an image that is to be pushed: one of them in the registry is enough, as the scripts have
    /// it that lists like these come from. One that was begun before is there when all of them are, and are the
    /// same image: the one may be all that was pushed of it.
    async fn find(&self, entry: &Entry, begun_before: bool, job: &Job) -> Result<Option<Built>> {
        if !entry.pushes() || entry.tags.is_empty() {
            return Ok(None);
        }
        let look = |backend: Arc<dyn Backend>| async move {
            let mut there = Vec::new();
            for tags in entry.tags.chunks(AT_ONCE) {
                let questions = tags.iter().map(|tag| backend.find(tag, FindScope::Registry, job));
                let answers = job.run(futures_util::future::try_join_all(questions)).await?;
                there.extend(tags.iter().zip(answers).filter_map(|(tag, found)| Some((tag.clone(), found?))));
            }
            Ok((there, backend.name().to_owned()))
        };
        let ((there, backend), _) = self.pipeline.first_available(job, look).await?;
        let Some((_, found)) = there.first() else { return Ok(None) };
        let missing: Vec<String> = entry
            .tags
            .iter()
            .filter(|tag| there.iter().all(|(known, _)| known != *tag))
            .map(|tag| format!("`{}`", tag.familiar()))
            .collect();
        let is_one = there.iter().all(|(_, other)| other.digest == found.digest);
        if begun_before && !(missing.is_empty() && is_one) {
            return Ok(None);
        }
        if !missing.is_empty() {
            let (wanted, exist) = (entry.tags.len(), there.len());
            let verb = if exist == 1 { "exists" } else { "exist" };
            let missing = missing.join(", ");
            job.events.warn(format!(
                "of its {wanted} tags {exist} {verb}, so nothing is built: there is no {missing}"
            ));
        }
        let digest = found.digest;
        let tags = there.into_iter().map(|(tag, _)| tag).collect();
        Ok(Some(Built { tags, digest, backend, found: true }))
    }
}

#[cfg(test)]
mod tests;
