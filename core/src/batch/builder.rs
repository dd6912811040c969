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
    /// Builds an image, or finds out that it need not be.
    ///
    /// # Errors
    /// Those of the build.
    async fn build(&self, entry: &Entry, job: &Job) -> Result<Built>;
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
    async fn build(&self, entry: &Entry, job: &Job) -> Result<Built> {
        match &entry.work {
            Work::Dockerfile(request) => {
                if !self.force
                    && let Some(found) = self.find(entry, job).await?
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
    /// it that lists like these come from.
    async fn find(&self, entry: &Entry, job: &Job) -> Result<Option<Built>> {
        if !entry.pushes() || entry.tags.is_empty() {
            return Ok(None);
        }
        let look = |backend: Arc<dyn Backend>| async move {
            for tag in &entry.tags {
                if let Some(found) = job.run(backend.find(tag, FindScope::Registry, job)).await? {
                    return Ok(Some(Built {
                        tags: entry.tags.clone(),
                        digest: found.digest,
                        backend: backend.name().to_owned(),
                        found: true,
                    }));
                }
            }
            Ok(None)
        };
        self.pipeline.first_available(job, look).await.map(|(found, _)| found)
    }
}
