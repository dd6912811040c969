//! Which backend builds, and why.
//!
//! The order: `--backend`, WINDLASS_BACKEND, TOGETHER_LOCAL_BUILD, the chosen environment's
//! backend, `default-backend`, what the surroundings offer, the embedded one.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::backend_registry::{BackendOptions, BackendRegistry};
use crate::error::{Error, ErrorKind, Result, nearest};

use super::kind::parse_flag;
use super::origin::Origin;
use super::settings::Settings;

/// The parts of the choice that depend on which backends a program has.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// The type that needs nothing and is used where nothing else is said.
    pub embedded: &'a str,
    /// The type that `TOGETHER_LOCAL_BUILD=1` means.
    pub together_local: &'a str,
    /// Types that credentials in the environment point to, in order.
    pub offers: &'a [Offer],
}

/// A type of backend that is meant where all of these variables are set.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    /// The type. It counts only if it is registered.
    pub type_name: &'static str,
    /// The variables.
    pub variables: &'static [&'static str],
}

/// What the user asked for on the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    /// `--backend`, each value a name or several with commas between them.
    pub backends: &'a [String],
    /// `--env`
    pub environment: Option<&'a str>,
    /// What `backends` was typed with, where that is another option than `--backend`.
    pub option: Option<&'a str>,
}

/// The backends to try, in order, and why these.
#[derive(Clone, Debug)]
pub struct Selection {
    /// Never empty.
    pub backends: Vec<SelectedBackend>,
    /// Why.
    pub reason: Reason,
    /// What the user should know about the choice.
    pub warnings: Vec<String>,
}

/// A backend that was chosen: its name, its type, its options.
#[derive(Clone, Debug)]
pub struct SelectedBackend {
    /// The name in the configuration; the type's name where it is not configured.
    pub name: String,
    /// Its type.
    pub type_name: String,
    /// Its options.
    pub options: BackendOptions,
}

/// Why a backend was chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Reason {
    /// `--backend`
    Argument,
    /// A variable: WINDLASS_BACKEND or TOGETHER_LOCAL_BUILD.
    Variable {
        /// Its name.
        name: &'static str,
    },
    /// `--env` or WINDLASS_ENV.
    Environment {
        /// The chosen environment.
        environment: String,
        /// What chose it: `--env` or `WINDLASS_ENV`.
        chosen_by: &'static str,
        /// Where its backend is set.
        origin: Origin,
    },
    /// `default-backend`
    Configuration {
        /// Where it is set.
        origin: Origin,
    },
    /// Credentials in the environment.
    Offered {
        /// The variables that are set.
        variables: &'static [&'static str],
    },
    /// Nothing else was said.
    Embedded,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Argument => f.write_str("`--backend` says so"),
            Self::Variable { name } => write!(f, "the environment variable {name} says so"),
            Self::Environment { environment, chosen_by, origin } => {
                write!(f, "it is the backend of the environment `{environment}` ({chosen_by}; {origin})")
            }
            Self::Configuration { origin } => write!(f, "`default-backend` says so ({origin})"),
            Self::Offered { variables } => write!(f, "the environment has {}", variables.join(" and ")),
            Self::Embedded => f.write_str("nothing says otherwise, and it needs nothing"),
        }
    }
}

/// Chooses the backends.
///
/// # Errors
/// `InvalidConfig` for the name of a backend or of an environment that does not exist, with the nearest one.
pub fn select(
    settings: &Settings,
    registry: &BackendRegistry,
    rules: &Rules<'_>,
    asked: &Asked<'_>,
    variables: &BTreeMap<String, String>,
) -> Result<Selection> {
    let variable = |name: &str| variables.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let environment = environment(settings, asked, variable("WINDLASS_ENV"))?;
    let mut warnings = Vec::new();
    let (names, reason) = if !asked.backends.is_empty() {
        (split_names(asked.backends), Reason::Argument)
    } else if let Some(names) = variable("WINDLASS_BACKEND") {
        (split_names(&[names.to_owned()]), Reason::Variable { name: "WINDLASS_BACKEND" })
    } else if local_build(variable("TOGETHER_LOCAL_BUILD"), &mut warnings) {
        (vec![rules.together_local.to_owned()], Reason::Variable { name: "TOGETHER_LOCAL_BUILD" })
    } else if let Some(chosen) = environment {
        chosen
    } else if !settings.default_backend.is_empty() {
        let origin = settings.origin("default-backend");
        (settings.default_backend.clone(), Reason::Configuration { origin })
    } else if let Some(offer) = offered(registry, rules, &variable) {
        warnings.extend(half_offered(registry, rules, &variable, Some(offer.type_name)));
        (vec![offer.type_name.to_owned()], Reason::Offered { variables: offer.variables })
    } else {
        warnings.extend(half_offered(registry, rules, &variable, None));
        (vec![rules.embedded.to_owned()], Reason::Embedded)
    };
    if names.is_empty() {
        return Err(Error::new(ErrorKind::InvalidConfig, "the list of backends is empty")
            .with_detail("chosen by", reason.to_string()));
    }
    let chosen_by = match (&reason, asked.option) {
        (Reason::Argument, Some(option)) => format!("`{option}` says so"),
        _ => reason.to_string(),
    };
    let find = |name: &String| {
        find(settings, registry, name).map_err(|error| error.with_detail("chosen by", &chosen_by))
    };
    let backends = names.iter().map(find).collect::<Result<_>>()?;
    Ok(Selection { backends, reason, warnings })
}

fn split_names(typed: &[String]) -> Vec<String> {
    let names = typed.iter().flat_map(|names| names.split(',')).map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The original honours exactly `1`. Other words for yes are taken too, but said to be unusual.
fn local_build(value: Option<&str>, warnings: &mut Vec<String>) -> bool {
    match value {
        None => false,
        Some("1") => true,
        Some(other) => match parse_flag(other) {
            Some(true) => {
                warnings.push(format!(
                    "TOGETHER_LOCAL_BUILD=`{other}` is taken as `1`; other programs know only `1`"
                ));
                true
            }
            Some(false) => false,
            None => {
                warnings.push(format!("TOGETHER_LOCAL_BUILD=`{other}` is not `1` and changes nothing"));
                false
            }
        },
    }
}

/// The backends of the chosen environment; `None` if none is chosen, or it says nothing about backends.
fn environment(
    settings: &Settings,
    asked: &Asked<'_>,
    variable: Option<&str>,
) -> Result<Option<(Vec<String>, Reason)>> {
    let (name, chosen_by) = match (asked.environment, variable) {
        (Some(name), _) => (name, "--env"),
        (None, Some(name)) => (name, "WINDLASS_ENV"),
        (None, None) => return Ok(None),
    };
    let Some(environment) = settings.environments.get(name) else {
        let known = || settings.environments.keys().map(String::as_str);
        let error = Error::new(ErrorKind::InvalidConfig, format!("unknown environment `{name}`"))
            .with_detail("chosen by", chosen_by);
        return Err(match nearest(name, known()) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None if settings.environments.is_empty() => error.with_hint(format!(
                "no environment is configured: add `[environments.{name}]` to `windlass.toml`"
            )),
            None => {
                error.with_hint(format!("known environments: {}", known().collect::<Vec<_>>().join(", ")))
            }
        });
    };
    if environment.backend.is_empty() {
        return Ok(None);
    }
    let origin =
        settings.origin(&super::file::show(&["environments".into(), name.to_owned(), "backend".into()]));
    let reason = Reason::Environment { environment: name.to_owned(), chosen_by, origin };
    Ok(Some((environment.backend.clone(), reason)))
}

fn offered<'a>(
    registry: &BackendRegistry,
    rules: &'a Rules<'_>,
    variable: &impl Fn(&str) -> Option<&'a str>,
) -> Option<&'a Offer> {
    let registered = |name: &str| registry.types().iter().any(|known| known.name == name);
    rules.offers.iter().find(|offer| {
        registered(offer.type_name) && offer.variables.iter().all(|name| variable(name).is_some())
    })
}

/// Whoever set one variable of two meant the backend, which is not `chosen` now.
fn half_offered<'a>(
    registry: &BackendRegistry,
    rules: &Rules<'_>,
    variable: &impl Fn(&str) -> Option<&'a str>,
    chosen: Option<&str>,
) -> Option<String> {
    let registered = |name: &str| registry.types().iter().any(|known| known.name == name);
    let is_set = |name: &&&str| variable(name).is_some();
    rules.offers.iter().find_map(|Offer { type_name, variables }| {
        let (set, missing) = (variables.iter().find(is_set)?, variables.iter().find(|name| !is_set(name))?);
        (registered(type_name) && chosen != Some(type_name)).then(|| {
            format!(
                "{set} is set and {missing} is not: the backend `{type_name}` is not used; \
                 set both, or choose a backend with `--backend`"
            )
        })
    })
}

fn find(settings: &Settings, registry: &BackendRegistry, name: &str) -> Result<SelectedBackend> {
    let types = || registry.types().iter().map(|known| known.name);
    let configured = settings.backends.get(name);
    if configured.is_none() && !types().any(|known| known == name) {
        let mut known: Vec<&str> = settings.backends.keys().map(String::as_str).chain(types()).collect();
        known.sort_unstable();
        known.dedup();
        let error = Error::new(ErrorKind::InvalidConfig, format!("unknown backend `{name}`"));
        return Err(match nearest(name, known.iter().copied()) {
            Some(near) => error.with_hint(format!("did you mean `{near}`?")),
            None => error.with_hint(format!("known backends: {}", known.join(", "))),
        });
    }
    let configured = configured.cloned().unwrap_or_default();
    let origins = configured.origins.iter().map(|(option, origin)| (option.clone(), origin.to_string()));
    Ok(SelectedBackend {
        name: name.to_owned(),
        type_name: configured.type_name.unwrap_or_else(|| name.to_owned()),
        options: BackendOptions::new(configured.options, origins.collect()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Capabilities;
    use crate::backend_registry::BackendType;
    use crate::config::{Sources, load};

    const RULES: Rules<'static> = Rules {
        embedded: "here",
        together_local: "engine",
        offers: &[
            Offer { type_name: "absent", variables: &["KEY"] },
            Offer { type_name: "remote", variables: &["KEY", "URL"] },
        ],
    };

    fn registry() -> BackendRegistry {
        ["here", "engine", "remote"].iter().fold(BackendRegistry::new(), |registry, name| {
            registry.with(BackendType {
                name,
                summary: "",
                capabilities: || Capabilities::of([]),
                factory: |_| Err(Error::cancelled()),
            })
        })
    }

    /// Selects with these `--set` and variables, and gives names and reason.
    fn choose(
        set: &[&str],
        asked: &Asked<'_>,
        variables: &[(&str, &str)],
    ) -> Result<(String, Reason, usize)> {
        let overrides: Vec<String> = set.iter().map(|text| (*text).to_owned()).collect();
        let settings = load(&Sources { overrides: &overrides, ..Sources::default() })?;
        let variables =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let selection = select(&settings, &registry(), &RULES, asked, &variables)?;
        let names: Vec<String> =
            selection.backends.iter().map(|b| format!("{}:{}", b.name, b.type_name)).collect();
        Ok((names.join(" "), selection.reason, selection.warnings.len()))
    }

    #[test]
    fn the_first_that_applies_wins() {
        let names = vec!["engine,here".to_owned()];
        let argument = Asked { backends: &names, environment: Some("ci"), option: None };
        let environment = Asked { backends: &[], environment: Some("ci"), option: None };
        let nothing = Asked::default();
        let set =
            ["environments.ci.backend=mine", "backends.mine.type=remote", "default-backend=here,engine"];
        let all = [
            ("WINDLASS_BACKEND", "remote"),
            ("TOGETHER_LOCAL_BUILD", "1"),
            ("WINDLASS_ENV", "ci"),
            ("KEY", "x"),
            ("URL", "x"),
        ];
        for (asked, set, variables, expected) in [
            (&argument, &set[..], &all[..], "engine:engine here:here"),
            (&environment, &set, &all, "remote:remote"),
            (&environment, &set, &all[1..], "engine:engine"),
            (&nothing, &set, &all[2..], "mine:remote"),
            (&nothing, &set, &all[3..], "here:here engine:engine"),
            (&nothing, &[], &all[3..], "remote:remote"),
            (&nothing, &[], &all[3..4], "here:here"),
            (&nothing, &[], &[("WINDLASS_BACKEND", "")], "here:here"),
        ] {
            let (names, ..) = choose(set, asked, variables).expect(expected);
            assert_eq!(names, expected);
        }
    }

    #[test]
    fn only_1_is_a_local_build_without_a_warning() {
        for (value, local, warnings) in [
            ("1", true, 0),
            ("true", true, 1),
            ("on", true, 1),
            ("0", false, 0),
            ("false", false, 0),
            ("2", false, 1),
        ] {
            let (names, _, count) =
                choose(&[], &Asked::default(), &[("TOGETHER_LOCAL_BUILD", value)]).expect(value);
            assert_eq!((names == "engine:engine", count), (local, warnings), "{value}");
        }
    }

    #[test]
    fn the_reason_names_its_source() {
        let set = ["environments.ci.backend=here"];
        let (_, reason, _) = choose(&set, &Asked::default(), &[("WINDLASS_ENV", "ci")]).expect("selects");
        assert_eq!(
            reason.to_string(),
            "it is the backend of the environment `ci` (WINDLASS_ENV; --set environments.ci.backend=here)"
        );
    }

    #[test]
    fn unknown_names_get_the_nearest() {
        let names = vec!["engin".to_owned()];
        let error = choose(&[], &Asked { backends: &names, ..Asked::default() }, &[]).expect_err("unknown");
        assert_eq!(
            (error.kind(), error.hints()),
            (ErrorKind::InvalidConfig, &["did you mean `engine`?".to_owned()][..])
        );
        let asked = Asked { environment: Some("cj"), ..Asked::default() };
        let error = choose(&["environments.ci.backend=here"], &asked, &[]).expect_err("unknown");
        assert_eq!(error.hints(), ["did you mean `ci`?"]);
        let empty = vec![",".to_owned()];
        assert!(choose(&[], &Asked { backends: &empty, ..Asked::default() }, &[]).is_err());
    }
}
