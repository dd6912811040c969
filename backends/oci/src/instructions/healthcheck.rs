//! HEALTHCHECK

use windlass_core::dockerfile::{Healthcheck, format_duration};
use windlass_core::image;

use crate::go_format;
use crate::stage::Stage;

/// Sets the healthcheck. OCI knows no such field; BuildKit writes it all the same, and docker
/// reads it.
pub(super) fn apply(stage: &mut Stage, check: &Healthcheck) {
    let durations = [check.interval, check.timeout, check.start_period, check.start_interval];
    let durations = durations.map(|duration| format!("\"{}\"", format_duration(duration))).join(" ");
    let test = go_format::quoted_list(&check.test);
    let retries = go_format::quoted_rune(check.retries);
    stage.config.config.healthcheck = Some(image::Healthcheck {
        test: check.test.clone(),
        interval: check.interval,
        timeout: check.timeout,
        start_period: check.start_period,
        start_interval: check.start_interval,
        retries: i64::from(check.retries),
        ..image::Healthcheck::default()
    });
    stage.record(format!("HEALTHCHECK &{{{test} {durations} {retries}}}"));
}
