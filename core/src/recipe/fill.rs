//! Fills in one template, as Jinja2 would, and says what is wrong with it.
//!
//! Templates written for Jinja2 are filled in unchanged: its syntax, its line ends, and the methods of
//! Python's texts. A name that nobody has set is an error, never an empty text.

use std::path::Path;

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::error::{Error, ErrorKind, Result, SourceLine, nearest};

/// The values of a template, by name. Sorted, so that messages are.
pub(super) type Values = std::collections::BTreeMap<String, Value>;

/// Makes values of names and anything that can be one.
pub(super) fn values<'a, T: Into<Value>>(pairs: impl IntoIterator<Item = (&'a str, T)>) -> Values {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect()
}

/// So many steps a template may take; large ones take some thousands.
const STEPS: u64 = 1_000_000;

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(unknown_method_callback);
    // One that loops for ever ends, too: nothing else could stop it.
    environment.set_fuel(Some(STEPS));
    // Errors then know the part of the line that they are about.
    environment.set_debug(true);
    environment
}

/// Fills in a template. `name` is how messages call it.
///
/// # Errors
/// `InvalidConfig` with the name of the template, the line and the expression.
pub(super) fn fill(name: &str, text: &str, values: &Values) -> Result<String> {
    let environment = environment();
    let template = environment.template_from_named_str(name, text);
    let filled = template.and_then(|template| template.render(values));
    filled.map_err(|error| explained(name, text, &error, values))
}

/// Checks that a template can be read, without filling it in.
///
/// # Errors
/// As [`fill`].
pub(super) fn check(name: &str, text: &str) -> Result<()> {
    let environment = environment();
    let read = environment.template_from_named_str(name, text).map(drop);
    read.map_err(|error| explained(name, text, &error, &Values::new()))
}

/// Says whether a template hangs on a value; one that cannot be read hangs on none.
pub(super) fn uses(text: &str, value: &str) -> bool {
    let environment = environment();
    let template = environment.template_from_str(text);
    template.is_ok_and(|template| template.undeclared_variables(false).contains(value))
}

fn explained(name: &str, text: &str, error: &minijinja::Error, values: &Values) -> Error {
    let syntax = error.kind() == minijinja::ErrorKind::SyntaxError;
    let what = if syntax { "read" } else { "fill in" };
    let mut told = Error::new(ErrorKind::InvalidConfig, format!("could not {what} the template `{name}`"));
    let expression = expression(text, error);
    if let Some(expression) = &expression {
        told = told.with_detail("expression", format!("`{expression}`"));
    }
    if let Some(number) = error.line() {
        let line = text.lines().nth(number.saturating_sub(1)).unwrap_or_default().to_owned();
        told =
            told.with_source_line(SourceLine { file: Path::new(name).to_owned(), line: number, text: line });
    }
    told = match error.kind() {
        minijinja::ErrorKind::UndefinedError => hint(told, expression.as_deref().unwrap_or_default(), values),
        _ => told,
    };
    told.with_source(cause(error))
}

/// The reason alone: place and name are told already.
fn cause(error: &minijinja::Error) -> String {
    let kind = error.kind().to_string();
    match (error.kind(), error.detail()) {
        (minijinja::ErrorKind::UndefinedError, None) => "it stands for nothing: nobody has set it".to_owned(),
        (_, Some(detail)) => format!("{kind}: {detail}"),
        (_, None) => kind,
    }
}

/// The part of the template that an error is about.
fn expression(text: &str, error: &minijinja::Error) -> Option<String> {
    let found = text.get(error.range()?)?.trim();
    let bare = found.trim_start_matches(['{', '%', '-', '+']).trim_end_matches(['}', '%', '-', '+']).trim();
    Some(bare.to_owned()).filter(|bare| !bare.is_empty() && !bare.contains('\n'))
}

/// Which name may be meant, or which names there are.
fn hint(error: Error, expression: &str, values: &Values) -> Error {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let names = expression.split(|character| !is_part(character)).filter(|name| !name.is_empty());
    let unknown = names.into_iter().find(|name| !values.contains_key(*name));
    let known = values.keys().map(String::as_str);
    match unknown.and_then(|name| nearest(name, known.clone())) {
        Some(name) => error.with_hint(format!("did you mean `{name}`?")),
        None => error.with_hint(format!(
            "the template has {}; a variable of your own stands under `variables` of the recipe",
            known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String> {
        let base = [("base_image", Value::from("ubuntu:24.04")), ("enable_browser", Value::from(true))];
        fill("Dockerfile.j2", text, &values(base))
    }

    #[test]
    fn templates_of_jinja2_are_filled_in_unchanged() {
        let text = "{% macro setup(name) %}\nRUN useradd {{ name }}\n{%- endmacro %}\nFROM {{ base_image }}\n\
                    {%- if base_image.endswith(':latest') or base_image.endswith(':24.04') %}\n\
                    {{ setup(\"openhands\") }}\n{% elif 'debian' in base_image %}\nRUN true\n{% endif -%}\n\
                    {# a comment #}\n{% if enable_browser and not (build is defined and build) %}RUN <x> \"&\"{% endif %}\n";
        let rendered = filled(text).expect("fills in");
        assert_eq!(rendered, "\nFROM ubuntu:24.04\n\nRUN useradd openhands\n\nRUN <x> \"&\"");
        assert_eq!(filled("{{ base_image.split(':')[0] | upper }}").expect("fills in"), "UBUNTU");
    }

    #[test]
    fn what_nobody_has_set_is_named_with_line_and_expression() {
        let error = filled("FROM {{ base_image }}\nRUN a\nRUN b {{ bse_image }} c\n").expect_err("strict");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.message(), "could not fill in the template `Dockerfile.j2`");
        assert_eq!(error.details(), [("expression", "`bse_image`".to_owned())]);
        assert_eq!(error.hints(), ["did you mean `base_image`?"]);
        let line = error.source_line().expect("a line");
        assert_eq!((line.line, line.text.as_str()), (3, "RUN b {{ bse_image }} c"));
        assert_eq!(line.file, Path::new("Dockerfile.j2"));

        for (text, expression) in [
            ("{{ acme.user }}", "acme.user"),
            ("{% if acme %}x{% endif %}", "acme"),
            ("{% for x in acme %}{% endfor %}", "acme"),
            ("{{ base_image.nothing }}", "base_image.nothing"),
            ("{{ base_image | upper ~ acme }}", "base_image | upper ~ acme"),
        ] {
            let error = filled(text).expect_err(text);
            assert_eq!(error.details(), [("expression", format!("`{expression}`"))], "{text}");
            let named = error.hints()[0].starts_with("the template has `base_image`, `enable_browser`");
            assert!(named, "{text}: {:?}", error.hints());
        }
    }

    #[test]
    fn a_template_that_cannot_be_read_says_where() {
        for (text, line) in [("FROM a\n{% if x %}\n", 2), ("a\n\n{{ x ", 3), ("{{ x | nonsense }}", 1)] {
            let error = filled(text).expect_err(text);
            assert_eq!(error.source_line().map(|line| line.line), Some(line), "{text}: {error:?}");
            let cause = std::error::Error::source(&error).expect("a cause").to_string();
            assert!(!cause.contains("Dockerfile.j2") && !cause.is_empty(), "{cause}");
        }
        assert!(check("t", "{% if %}").is_err() && check("t", "{{ anything }}").is_ok());
    }

    #[test]
    fn a_template_that_runs_away_ends() {
        let loops = "{% for a in range(9999) %}{% for b in range(9999) %}{{ b }}{% endfor %}{% endfor %}";
        let error = filled(loops).expect_err("it takes too many steps");
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert_eq!(error.source_line().map(|line| line.line), Some(1));
    }

    #[test]
    fn a_template_tells_what_it_hangs_on() {
        let text = "{% set y = extra_deps %}{% if y %}RUN {{ y }}{% endif %}{# enable_browser #}";
        assert!(uses(text, "extra_deps") && !uses(text, "enable_browser") && !uses(text, "y"));
    }
}
