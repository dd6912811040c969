//! What is refused before anything is sent.

use libtest_mimic::Trial;
use windlass_tests::service::runtime_api::Habits;

use crate::rig::{Rig, same};

pub(crate) fn trials(rig: &Rig) -> Vec<Trial> {
    vec![
        rig.trial("refusals::options_by_name", Habits::default, |case| {
            for (option, value) in [
                ("--platform", "linux/arm64"),
                ("--build-arg", "A=1"),
                ("--label", "a=1"),
                ("--target", "x"),
                ("--secret", "id=x"),
                ("--build-context", "a=docker-image://b"),
            ] {
                let outcome = case.run(&["build", "-t", "agent:1", option, value])?;
                outcome.refused(
                    2,
                    &[&format!("`{option}` cannot be used with the backend `runtime-api`"), "--backend"],
                )?;
            }
            for option in ["--load", "--output=type=oci,dest=x.tar"] {
                case.run(&["build", "-t", "agent:1", option])?.refused(2, &["runtime-api"])?;
            }
            same("requests", case.service.lines().len(), 0)
        }),
        rig.trial("refusals::what_has_no_effect_is_said", Habits::default, |case| {
            let outcome = case.run(&["build", "-t", "agent:1", "--no-cache", "--pull"])?;
            outcome.good()?;
            for option in ["`--no-cache` cannot be told", "`--pull` cannot be told"] {
                same(option, outcome.stderr.contains(option), true)?;
            }
            Ok(())
        }),
        rig.trial("refusals::detach_needs_a_service", Habits::default, |case| {
            case.run(&["build", "-b", "oci", "--detach"])?
                .refused(2, &["`--detach` cannot be used with the backend `oci`"])
        }),
        rig.trial("refusals::half_of_a_service_is_said", Habits::default, |case| {
            let url = ("RUNTIME_API_URL", case.service.url());
            let (key, empty) = (("SANDBOX_API_KEY", "key"), ("RUNTIME_API_KEY", ""));
            for (variables, says) in [
                (&[url][..], "RUNTIME_API_URL is set and RUNTIME_API_KEY is not"),
                (&[url, empty], "RUNTIME_API_URL is set and RUNTIME_API_KEY is not"),
                (&[key], "SANDBOX_API_KEY is set and RUNTIME_API_URL is not"),
            ] {
                let outcome = case.place.run_with(&["build", "-t", "agent:1"], variables)?;
                outcome.good()?;
                same(says, outcome.stderr.contains(says), true)?;
                same("once", outcome.stderr.matches("is set and").count(), 1)?;
            }
            let chosen = case.place.run_with(&["build", "-t", "agent:1", "-b", "oci"], &[url])?;
            same("who chose", chosen.stderr.contains("is set and"), false)?;
            same("requests", case.service.lines().len(), 0)
        }),
        rig.trial("refusals::an_address_without_a_scheme", Habits::default, |case| {
            let variables = [("RUNTIME_API_URL", "127.0.0.1:1"), ("RUNTIME_API_KEY", "key")];
            case.place
                .run_with(&["build", "-t", "agent:1"], &variables)?
                .refused(2, &["`RUNTIME_API_URL` of the backend `runtime-api` is no address", "`http://`"])
        }),
        rig.trial("refusals::a_wrong_key_names_its_variable", Habits::default, |case| {
            let variables = [("RUNTIME_API_URL", case.service.url()), ("SANDBOX_API_KEY", "wrong")];
            let outcome = case.place.run_with(&["build", "-t", "r.io/agent:1"], &variables)?;
            outcome.refused(3, &["check the key in SANDBOX_API_KEY", "X-API-Key"])?;
            same("nobody stopped it", outcome.stderr.contains("CANCELED"), false)
        }),
        rig.trial("refusals::without_address_or_key", Habits::default, |case| {
            let build = ["build", "-b", "runtime-api", "-t", "agent:1"];
            case.place.run_with(&build, &[])?.refused(2, &["nothing says where", "RUNTIME_API_URL"])?;
            let variables = [("SANDBOX_REMOTE_RUNTIME_API_URL", case.service.url())];
            case.place.run_with(&build, &variables)?.refused(2, &["there is no key", "RUNTIME_API_KEY"])
        }),
    ]
}
