//! Work on the first backend of the list that is there.

use std::sync::Arc;

use super::{BuildPlan, BuildReport, PassedOver, Pipeline, PipelineOptions};
use crate::Result;
use crate::backend::{Backend, Job};
use crate::error::{Error, ErrorKind};
use crate::request::BuildRequest;

impl Pipeline {
    /// Does something with the first backend of the list that is available, the whole of it on one
    /// backend. Gives the backends that were not there beside.
    ///
    /// # Errors
    /// That of the work on the first backend where it is not that the backend is unavailable; of the last
    /// one where all are.
    pub async fn first_available<T, W: Future<Output = Result<T>>>(
        &self,
        job: &Job,
        work: impl Fn(Arc<dyn Backend>) -> W,
    ) -> Result<(T, Vec<PassedOver>)> {
        let mut passed_over = Vec::new();
        for (index, backend) in self.backends.iter().enumerate() {
            match work(backend.clone()).await {
                Err(error) if self.passes_over(index, &error, job).await => {
                    passed_over.push(PassedOver::of(backend.as_ref(), &error));
                }
                result => return result.map(|done| (done, passed_over)),
            }
        }
        Err(Error::new(ErrorKind::InvalidConfig, "no backend is configured"))
    }

    /// [`Pipeline::build`] on one backend: for [`Pipeline::first_available`].
    pub(crate) async fn build_with(
        &self,
        backend: &dyn Backend,
        request: BuildRequest,
        job: &Job,
    ) -> Result<BuildReport> {
        self.build_on(backend, request, &PipelineOptions::default(), job).await
    }

    /// [`Pipeline::plan`] on one backend: for [`Pipeline::first_available`].
    pub(crate) async fn plan_with(
        &self,
        backend: &dyn Backend,
        request: BuildRequest,
        job: &Job,
    ) -> Result<BuildPlan> {
        self.plan_on(backend, request, &PipelineOptions::default(), job).await
    }

    /// Refuses a request whose options one backend does not have and a Dockerfile that it cannot build,
    /// before any work.
    ///
    /// # Errors
    /// As [`Pipeline::refuse_options`] and [`Pipeline::refuse_dockerfile`].
    pub(crate) async fn refuse_unsupported(
        &self,
        backend: &dyn Backend,
        request: &BuildRequest,
        job: &Job,
    ) -> Result<()> {
        self.refuse_options(backend, request)?;
        self.refuse_dockerfile(backend, request, job).await
    }

    /// Refuses a request whose options one backend does not have, before any work.
    ///
    /// # Errors
    /// `Unsupported`, with the backends that have them.
    pub(crate) fn refuse_options(&self, backend: &dyn Backend, request: &BuildRequest) -> Result<()> {
        for (feature, option) in request.needs() {
            if !backend.capabilities().has(feature) {
                let message = format!("`{option}` cannot be used with the backend `{}`", backend.name());
                return Err(self.name_able(Error::unsupported(feature, message), backend));
            }
        }
        Ok(())
    }

    /// Refuses a Dockerfile that one backend cannot build, before any work.
    ///
    /// # Errors
    /// `Unsupported`, with the backends that can; `InvalidDockerfile`.
    pub(crate) async fn refuse_dockerfile(
        &self,
        backend: &dyn Backend,
        request: &BuildRequest,
        job: &Job,
    ) -> Result<()> {
        backend.plan(request, job).await.map(drop).map_err(|error| self.name_able(error, backend))
    }
}
