//! Where the services are, and a place of its own for each test.

use std::ops::Deref;
use std::sync::Arc;

use libtest_mimic::{Failed, Trial};
use windlass_tests::place::{self, Program};
use windlass_tests::service::{Absent, from_environment, variables};

pub(crate) use windlass_tests::place::{interrupt, wait_until};

/// Where the services are.
#[derive(Debug)]
pub(crate) struct Services {
    pub(crate) registry: String,
    pub(crate) classic: String,
    program: Arc<Program>,
}

/// The place of one test.
pub(crate) struct Place {
    pub(crate) services: Arc<Services>,
    place: place::Place,
}

impl Services {
    pub(crate) fn from_environment() -> Result<Self, Absent> {
        Ok(Self {
            registry: from_environment(variables::REGISTRY)?,
            classic: from_environment(variables::DOCKER_HOST)?,
            program: Arc::default(),
        })
    }

    /// A test with a place.
    pub(crate) fn trial(
        self: &Arc<Self>,
        name: &str,
        test: impl FnOnce(&Place) -> Result<(), Failed> + Send + 'static,
    ) -> Trial {
        let services = self.clone();
        Trial::test(name, move || {
            let place = place::Place::new(&services.program)?;
            test(&Place { services, place })
        })
    }
}

impl Deref for Place {
    type Target = place::Place;

    fn deref(&self) -> &place::Place {
        &self.place
    }
}

impl Place {
    /// Writes a Dockerfile in which `{busybox}` is the base image of the registry.
    pub(crate) fn dockerfile(&self, content: &str) -> Result<(), Failed> {
        let busybox = format!("{}/base/busybox:1", self.services.registry);
        self.write("Dockerfile", content.replace("{busybox}", &busybox))
    }
}
