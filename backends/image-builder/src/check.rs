//! The doctor: is the service there, and does it know us.

use reqwest::StatusCode;
use windlass_core::backend::{CheckReport, Job};
use windlass_core::error::{Error, Result};

use crate::backend::ImageBuilder;
use crate::follow::in_one_line;

/// A build that nobody has: the service says so only to who may ask.
const NOBODYS_BUILD: &str = "windlass-check";

/// Asks the service for a build that does not exist.
pub(crate) async fn check(builder: &ImageBuilder, job: &Job) -> CheckReport {
    let mut report = CheckReport::default();
    let client = builder.client();
    match client.address().is_open() {
        false => report.good("address", client.address().as_str()),
        true => report.warning(
            "address",
            client.address().as_str(),
            "use https: the key goes over the network as it is",
        ),
    }
    report.good("key", format!("{} is set", client.key().variable()));
    match ask(builder, job).await {
        Ok(()) => report.good("service", "answers, and takes the key"),
        Err(error) => {
            let hint = match error.hints().is_empty() {
                true => "check the address and the network".to_owned(),
                false => error.hints().join("; "),
            };
            report.bad("service", in_one_line(&error), hint);
        }
    }
    report
}

async fn ask(builder: &ImageBuilder, job: &Job) -> Result<(), Error> {
    let client = builder.client();
    let message = format!("could not ask `{}` for a build", client.server());
    match client.ask_again(client.url(&["builds", NOBODYS_BUILD], &[]), &message, job).await? {
        Err(refusal) if refusal.status != StatusCode::NOT_FOUND => Err(refusal.into_error(&message)),
        _ => Ok(()),
    }
}
