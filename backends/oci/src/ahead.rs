//! Sending layers to the registry while others are still being made.
//!
//! Nothing depends on it: what did not get there goes with the image, which asks for every layer
//! whether it is there. Where the image goes to several repositories, the first is served ahead.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use windlass_core::backend::Job;
use windlass_core::error::Result;
use windlass_core::events::Step;
use windlass_core::image::{Descriptor, ImageStore, push_layer};
use windlass_core::output::OutputKind;
use windlass_core::reference::Reference;
use windlass_core::registry::{BlobSink, BlobStream, RegistryClient};
use windlass_core::request::BuildRequest;

use crate::base::Bases;
use crate::outputs;

/// Sends the layers of one build to one repository.
#[derive(Debug)]
pub(crate) struct Ahead {
    client: RegistryClient,
    store: ImageStore,
    repository: Reference,
    /// The image goes nowhere else.
    only: bool,
    job: Job,
    state: Mutex<State>,
    at_a_time: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    /// There once something is sent.
    step: Option<Arc<Step>>,
    /// Layers that may have to be sent: while nothing new was made, the registry may have the
    /// whole image, and is not asked for its layers.
    waiting: Vec<Descriptor>,
    running: Vec<JoinHandle<()>>,
}

impl Ahead {
    /// Makes one for the first repository that a request pushes to, if there is one.
    ///
    /// # Errors
    /// `InvalidInput` for names of outputs that are no references.
    pub(crate) fn of(bases: &Bases, request: &BuildRequest, job: &Job) -> Result<Option<Self>> {
        let mut places = Vec::new();
        for output in request.outputs.iter().filter(|output| output.pushes()) {
            places.extend(outputs::names(output, request)?);
        }
        let Some(repository) = places.first().cloned() else { return Ok(None) };
        let only = request.outputs.iter().all(|output| output.kind == OutputKind::Registry)
            && places.iter().all(|place| place.name() == repository.name());
        let at_a_time = Arc::new(Semaphore::new(bases.client.settings().concurrency.max(1)));
        Ok(Some(Self {
            client: bases.client.clone(),
            store: bases.store.clone(),
            repository,
            only,
            job: job.child(),
            state: Mutex::default(),
            at_a_time,
        }))
    }

    /// Says that the image will be a new one: what waited is sent.
    pub(crate) fn start(&self) {
        let mut state = self.lock();
        let step = self.step(&mut state);
        for layer in std::mem::take(&mut state.waiting) {
            state.running.push(self.spawn(layer, step.clone()));
        }
    }

    /// Sends layers that are in the store, or that the store knows the origin of, unless the registry
    /// has them.
    pub(crate) fn send(&self, layers: impl IntoIterator<Item = Descriptor>) {
        let mut state = self.lock();
        for layer in layers {
            match state.step.clone() {
                Some(step) => state.running.push(self.spawn(layer, step)),
                None => state.waiting.push(layer),
            }
        }
    }

    /// Whether a layer that is not in the store is at the registry, where the image goes nowhere else.
    pub(crate) async fn claim(&self, layer: &Descriptor) -> bool {
        let origins = self.store.origins(&layer.digest);
        let here = |origin: &&Reference| origin.registry() == self.repository.registry();
        let Some(from) = origins.iter().find(here).filter(|_| self.only) else { return false };
        let claimed = self.client.claim_blob(&self.repository, layer, Some(from.repository()), &self.job);
        let claimed = Box::pin(self.job.run(claimed)).await;
        matches!(claimed, Ok(Some(_)) if self.store.record_origin(&layer.digest, &self.repository).is_ok())
    }

    /// Opens the upload of a layer that is about to be made; `None` where that does not work.
    pub(crate) async fn stream(&self) -> Option<(BlobStream, BlobSink)> {
        self.start();
        let step = self.step(&mut self.lock());
        self.client.stream_blob(&self.repository, &step, &self.job).await.ok()
    }

    /// Ends the upload of a layer that was made.
    pub(crate) fn end(&self, stream: BlobStream, layer: Descriptor) {
        let (store, repository) = (self.store.clone(), self.repository.clone());
        let mut state = self.lock();
        let step = self.step(&mut state);
        // Whoever needs the same layer at this registry waits, and has it taken over.
        let turn = self.client.try_upload_turn(self.repository.registry(), layer.digest);
        state.running.push(tokio::spawn(async move {
            let _turn = turn;
            match stream.finish(&layer).await {
                Ok(_) => {
                    // What is not noted is asked for.
                    let _ = store.record_origin(&layer.digest, &repository);
                    step.log(format!("{} sent", layer.digest));
                }
                Err(error) => step.log(format!("{} is sent again: {error}", layer.digest)),
            }
        }));
    }

    /// Waits until all has been sent that could be.
    pub(crate) async fn finish(&self) {
        let running = std::mem::take(&mut self.lock().running);
        for transfer in running {
            // What a transfer panicked about, the push of the image will meet again.
            let _ = transfer.await;
        }
        let step = self.lock().step.take();
        if let Some(step) = step.and_then(Arc::into_inner) {
            step.done();
        }
    }

    /// Stops everything, and waits until the registry has been told.
    pub(crate) async fn give_up(&self) {
        self.job.cancel.cancel();
        let running = std::mem::take(&mut self.lock().running);
        for transfer in running {
            let _ = transfer.await;
        }
    }

    fn spawn(&self, layer: Descriptor, step: Arc<Step>) -> JoinHandle<()> {
        let (client, store, repository) = (self.client.clone(), self.store.clone(), self.repository.clone());
        let (job, at_a_time) = (self.job.clone(), self.at_a_time.clone());
        tokio::spawn(async move {
            let Ok(_turn) = at_a_time.acquire().await else { return };
            if let Err(error) = push_layer(&client, &store, &repository, &layer, &step, &job).await {
                step.log(format!("{} is sent later: {error}", layer.digest));
            }
        })
    }

    fn step(&self, state: &mut State) -> Arc<Step> {
        let new = || Arc::new(self.job.events.step(format!("send layers to {}", self.repository.name())));
        state.step.get_or_insert_with(new).clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
