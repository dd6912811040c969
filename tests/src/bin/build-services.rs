//! Runs a command while the build services of the tests are up, for trying things by hand.
//!
//! ```text
//! with-services build-services COMMAND [ARGUMENT]...
//! ```
//!
//! A Runtime API, an image-builder and Together's management API, which build with the `oci` backend and push to the
//! registry of `with-services`. The command finds them in its environment, as users name them.
#![expect(
    clippy::print_stderr,
    reason = "a program for developers, which has no output of its own but messages"
)]

use std::process::{Command, ExitCode};

use windlass_tests::service::together::Issued;
use windlass_tests::service::{
    Builder, ImageBuilder, RuntimeApi, Together, image_builder, runtime_api, together, variables,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("build-services: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<ExitCode, Failure> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().ok_or("usage: build-services COMMAND [ARGUMENT]...")?;
    let registry = std::env::var(variables::REGISTRY)
        .map_err(|_| format!("`{}` is not set: run this with `with-services`", variables::REGISTRY))?;
    let directory = tempfile::tempdir()?;
    let builder = Builder::new(directory.path())?;

    let runtime_api = RuntimeApi::start(runtime_api::Habits::building(&builder, &registry))?;
    let image_builder = ImageBuilder::start(image_builder::Habits::building(&builder, &registry))?;
    let issued = Issued {
        registry_url: format!("{registry}/nbswy3dp"),
        username: "together".to_owned(),
        password: "issued-password".to_owned(),
        expired_at: Box::new(|_| None),
    };
    let habits = together::Habits { issued: Some(issued), ..together::Habits::default() };
    let together = Together::start(habits)?;

    let status = Command::new(program)
        .args(arguments)
        .env("RUNTIME_API_URL", runtime_api.url())
        .env("RUNTIME_API_KEY", runtime_api::API_KEY)
        .env("TOGETHER_BASE_URL", together.url())
        .env("TOGETHER_API_KEY", together::API_KEY)
        .env("WINDLASS_BACKENDS__IMAGE_BUILDER__URL", image_builder.url())
        .status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
