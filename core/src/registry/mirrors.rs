//! Mirrors: hosts that are asked first when something is fetched.
//!
//! What a mirror does not have, or will not give, the registry itself is asked for. A mirror that
//! cannot be reached is left alone for the rest of the process. Nothing is ever sent to one.

use std::sync::PoisonError;

use super::RegistryClient;
use super::settings::RegistrySettings;
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::reference::Reference;

/// A mirror as it stands in the settings: scheme, host with port, path in front of repositories.
struct Mirror<'a> {
    plain_http: Option<bool>,
    host: &'a str,
    prefix: &'a str,
}

fn parse(text: &str) -> Mirror<'_> {
    let (plain_http, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (Some(scheme == "http"), rest),
        None => (None, text),
    };
    let rest = rest.trim_end_matches('/');
    let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    Mirror { plain_http, host, prefix }
}

/// Checks the mirrors, and lets what their schemes say count for their hosts.
///
/// # Errors
/// `InvalidConfig` for a mirror that is no host.
pub(super) fn settle(settings: &mut RegistrySettings) -> Result<()> {
    let mirrors: Vec<String> = settings.hosts.values().flat_map(|host| host.mirrors.clone()).collect();
    for text in &mirrors {
        let mirror = parse(text);
        // The text is left out: it may hold a password.
        if let Some((_, host)) = mirror.host.rsplit_once('@') {
            let message = format!("the mirror at `{host}` is given with a user name or password");
            return Err(Error::new(ErrorKind::InvalidConfig, message)
                .with_hint(format!("name the host alone, and run `docker login {host}`")));
        }
        if let Err(error) = format!("{}/x", mirror.host).parse::<Reference>() {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                format!("the mirror `{text}` is no registry host"),
            )
            .with_source(error));
        }
        if let Some(plain_http) = mirror.plain_http {
            settings.hosts.entry(mirror.host.to_owned()).or_default().plain_http.get_or_insert(plain_http);
        }
    }
    Ok(())
}

impl RegistryClient {
    /// The places to fetch from: the mirrors that have not failed, then the registry itself.
    pub(super) fn places(&self, reference: &Reference) -> Vec<Reference> {
        let host = self.inner.settings.hosts.get(reference.registry());
        let down = self.inner.mirrors_down.lock().unwrap_or_else(PoisonError::into_inner);
        let mirrors = host.into_iter().flat_map(|host| &host.mirrors).map(|text| parse(text));
        let mirrors = mirrors.filter(|mirror| !down.contains(mirror.host)).filter_map(|mirror| {
            let prefix = if mirror.prefix.is_empty() { "" } else { "/" };
            let name = format!("{}{prefix}{}/{}", mirror.host, mirror.prefix, reference.repository());
            let tag = reference.tag().map(|tag| format!(":{tag}")).unwrap_or_default();
            let digest = reference.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
            format!("{name}{tag}{digest}").parse().ok()
        });
        mirrors.chain([reference.clone()]).collect()
    }

    /// Notes that somebody gave wrong content of an image in these places: its mirrors are asked no more. Says
    /// whether any of them was asked so far.
    pub(super) fn distrust_mirrors(&self, origins: &[Reference], job: &Job) -> bool {
        let asked = origins
            .iter()
            .flat_map(|origin| self.places(origin).into_iter().filter(move |place| place != origin));
        let mut any = false;
        for place in asked {
            let mut down = self.inner.mirrors_down.lock().unwrap_or_else(PoisonError::into_inner);
            if down.insert(place.registry().to_owned()) {
                job.events
                    .warn(format!("the mirror `{}` is passed over: wrong content came", place.registry()));
                any = true;
            }
        }
        any
    }

    /// Notes that a place failed. The error comes back if there is no use in trying the next.
    pub(super) fn pass_over(&self, place: &Reference, error: Error, job: &Job) -> Result<()> {
        match error.kind() {
            ErrorKind::Cancelled | ErrorKind::LocalIo => return Err(error),
            ErrorKind::Unavailable | ErrorKind::TimedOut => {
                let mut down = self.inner.mirrors_down.lock().unwrap_or_else(PoisonError::into_inner);
                down.insert(place.registry().to_owned());
            }
            _ => {}
        }
        if error.kind() != ErrorKind::NotFound {
            job.events.warn(format!("the mirror `{}` is passed over: {error}", place.registry()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::HostSettings;

    fn client(mirrors: &[&str]) -> Result<RegistryClient> {
        let host = HostSettings {
            mirrors: mirrors.iter().map(|&mirror| mirror.to_owned()).collect(),
            ..HostSettings::default()
        };
        let hosts = [("docker.io".to_owned(), host)].into();
        RegistryClient::new(RegistrySettings { hosts, ..RegistrySettings::default() })
    }

    #[test]
    fn mirrors_come_first() {
        let client =
            client(&["mirror.gcr.io", "http://10.0.0.7:5000", "https://harbor.local/hub/"]).expect("client");
        let places = client.places(&"debian:12".parse().expect("reference"));
        let places: Vec<_> = places.iter().map(ToString::to_string).collect();
        assert_eq!(
            places,
            [
                "mirror.gcr.io/library/debian:12",
                "10.0.0.7:5000/library/debian:12",
                "harbor.local/hub/library/debian:12",
                "docker.io/library/debian:12"
            ]
        );
        assert_eq!(client.settings().hosts["10.0.0.7:5000"].plain_http, Some(true));
        assert_eq!(client.places(&"ghcr.io/a/b".parse().expect("reference")).len(), 1);
    }

    #[test]
    fn a_mirror_must_be_a_host() {
        assert_eq!(super::tests::client(&["http://"]).expect_err("no host").kind(), ErrorKind::InvalidConfig);
        let error = super::tests::client(&["https://me:secret@mirror.io"]).expect_err("no host alone");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
