//! The doctor: is the service there, does it know us, where do its images go.

use windlass_core::backend::{CheckReport, Job};
use windlass_core::error::Error;

use crate::backend::RuntimeApi;
use crate::calls;
use crate::config::Encoding;

/// Asks the service what a build would ask it before it sends anything.
pub(crate) async fn check(api: &RuntimeApi, job: &Job) -> CheckReport {
    let mut report = CheckReport::default();
    let client = api.client();
    match client.address().is_open() {
        false => report.good("address", client.address().as_str()),
        true => report.warning(
            "address",
            client.address().as_str(),
            "use https: the key goes over the network as it is",
        ),
    }
    report.good("key", format!("{} is set", client.key().variable()));
    match calls::registry_prefix(client, job).await {
        Ok(Some(prefix)) => {
            report.good("service", "answers, and takes the key");
            report.good("registry", prefix);
        }
        Ok(None) => {
            report.good("service", "answers");
            let seen = "the service has no call for it: names are sent as they are";
            match api.configured_prefix() {
                Some(_) => report.good("registry", "set by `registry-prefix`"),
                None => report.warning("registry", seen, "set `registry-prefix` if it wants one"),
            }
        }
        Err(error) => report.bad("service", in_one_line(&error), hint(&error)),
    }
    let known = api.memory().load().takes_json;
    let encoding = match (api.config().encoding, known) {
        (Encoding::Json, _) => "JSON, as set",
        (Encoding::Multipart, _) => "multipart, as set",
        (Encoding::Auto, Some(true)) => "JSON, as the service took before",
        (Encoding::Auto, Some(false)) => "multipart: the service refused JSON before",
        (Encoding::Auto, None) => "JSON first, multipart if the service refuses it",
    };
    report.good("encoding", encoding);
    report
}

fn in_one_line(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn hint(error: &Error) -> String {
    match error.hints().is_empty() {
        true => "check the address and the network".to_owned(),
        false => error.hints().join("; "),
    }
}
