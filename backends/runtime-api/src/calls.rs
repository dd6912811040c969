//! The calls of the service that are questions.

use reqwest::StatusCode;
use windlass_core::backend::Job;
use windlass_core::error::Result;
use windlass_core::service::ServiceClient;

use crate::wire::{ExistsAnswer, PrefixAnswer};

/// `GET /registry_prefix`; `None` where the service has no such call.
///
/// # Errors
/// What the service says, after some attempts.
pub(crate) async fn registry_prefix(client: &ServiceClient, job: &Job) -> Result<Option<String>> {
    let message = format!("could not ask `{}` for its registry", client.server());
    match client.ask_again(client.url(&["registry_prefix"], &[]), &message, job).await? {
        Ok(body) => {
            let answer: PrefixAnswer = client.read(&body, "no registry prefix")?;
            Ok(crate::names::prefix(&answer.registry_prefix))
        }
        Err(refusal) if refusal.status == StatusCode::NOT_FOUND => Ok(None),
        Err(refusal) => Err(refusal.into_error(&message)),
    }
}

/// `GET /image_exists`
///
/// # Errors
/// What the service says, after some attempts: not being able to tell is not "absent".
pub(crate) async fn image_exists(client: &ServiceClient, image: &str, job: &Job) -> Result<bool> {
    let message = format!("could not ask whether `{image}` exists");
    match client.ask_again(client.url(&["image_exists"], &[("image", image)]), &message, job).await? {
        Ok(body) => Ok(client.read::<ExistsAnswer>(&body, "not whether the image exists")?.exists),
        Err(refusal) => Err(refusal.into_error(&message)),
    }
}
