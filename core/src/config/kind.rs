//! The kinds of values, and how each is read from a file or from one word of text.

use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use toml::Value;

/// What a value may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// Yes or no.
    Flag,
    /// A whole number.
    Integer,
    /// A number of bytes: `500MB`, `64MiB`, or a whole number.
    Bytes,
    /// A time span: `90s`, `1h30m`, or whole seconds.
    Duration,
    /// A path. A relative one in a file starts at the directory of that file.
    Path,
    /// One text, or several.
    List,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Anything: the receiver checks it.
    Free,
}

impl Kind {
    /// What to write, for messages and for the commented file.
    pub fn describe(self) -> String {
        match self {
            Self::Text => "a text".into(),
            Self::Flag => "`true` or `false`".into(),
            Self::Integer => "a whole number".into(),
            Self::Bytes => "a size such as `500MB` or `64MiB`".into(),
            Self::Duration => "a time span such as `90s` or `1h30m`".into(),
            Self::Path => "a path".into(),
            Self::List => "a text or a list of texts".into(),
            Self::Choice(choices) => {
                choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ")
            }
            Self::Free => "a value".into(),
        }
    }

    /// Reads a value of a file into its normal form: bytes become a number, a time span becomes
    /// milliseconds, a lone text of a list becomes a list. `None` if it is not of this kind.
    pub(super) fn normalise(self, value: Value, base: Option<&Path>) -> Option<Value> {
        match (self, value) {
            (Self::Text, value @ Value::String(_))
            | (Self::Flag, value @ Value::Boolean(_))
            | (Self::Integer, value @ Value::Integer(_))
            | (Self::Free, value) => Some(value),
            (Self::Bytes, Value::Integer(count)) if count >= 0 => Some(Value::Integer(count)),
            (Self::Bytes, Value::String(text)) => parse_bytes(&text).map(Value::Integer),
            (Self::Duration, Value::Integer(seconds)) if seconds >= 0 => {
                seconds.checked_mul(1000).map(Value::Integer)
            }
            (Self::Duration, Value::String(text)) => {
                i64::try_from(parse_duration(&text)?.as_millis()).ok().map(Value::Integer)
            }
            (Self::Path, Value::String(text)) if !text.is_empty() => {
                let path = base.map_or_else(|| text.clone().into(), |base| base.join(&text));
                Some(Value::String(path.to_string_lossy().into_owned()))
            }
            (Self::List, value @ Value::String(_)) => Some(Value::Array(vec![value])),
            (Self::List, Value::Array(items)) if items.iter().all(Value::is_str) => Some(Value::Array(items)),
            (Self::Choice(choices), Value::String(text)) if choices.contains(&text.as_str()) => {
                Some(Value::String(text))
            }
            _ => None,
        }
    }

    /// Reads a value that is one word: of an environment variable or of `--set`.
    pub(super) fn parse(self, text: &str) -> Option<Value> {
        let value = match self {
            Self::Flag => Value::Boolean(parse_flag(text)?),
            Self::Integer => Value::Integer(text.trim().parse().ok()?),
            Self::Bytes | Self::Duration => {
                text.trim().parse().map_or_else(|_| Value::String(text.to_owned()), Value::Integer)
            }
            Self::List => parse_list(text)?,
            Self::Free => parse_toml(text).unwrap_or_else(|| Value::String(text.to_owned())),
            Self::Text | Self::Path | Self::Choice(_) => Value::String(text.to_owned()),
        };
        self.normalise(value, None)
    }
}

/// `true`, `1`, `yes`, `on` and their opposites, in any case.
pub(super) fn parse_flag(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// `a,b` or `["a", "b"]`.
fn parse_list(text: &str) -> Option<Value> {
    if text.trim_start().starts_with('[') {
        return parse_toml(text);
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
}

fn parse_toml(text: &str) -> Option<Value> {
    let mut table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    table.remove("value")
}

/// A number and a unit: `B`, `kB`, `MB`, `GB`, `TB` in steps of 1000, `KiB`, `MiB`, `GiB`, `TiB` in
/// steps of 1024. Bare `M` is refused: half the world takes it for the one, half for the other. `None` if it
/// is none.
pub fn parse_bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let factor: i64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return None,
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(factor);
    }
    let bytes = number.parse::<f64>().ok()? * factor as f64;
    // Beyond 2^53 the fraction has lost its meaning.
    (bytes.is_finite() && bytes < 9e15).then_some(bytes.round() as i64)
}

/// Reads a time span: `90s`, `5m`, `1h30m`, or whole seconds. `None` if it is none or negative.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    text.trim().parse::<jiff::SignedDuration>().ok()?.try_into().ok()
}

/// Reads an option that is a time span, as whole seconds or as [`parse_duration`] does: for
/// `#[serde(deserialize_with = "...")]` in the options of a backend.
///
/// # Errors
/// Says what it should be.
pub fn duration_option<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Typed {
        Seconds(u64),
        Text(String),
    }
    match Typed::deserialize(from)? {
        Typed::Seconds(seconds) => Ok(Duration::from_secs(seconds)),
        Typed::Text(text) => parse_duration(&text).ok_or_else(|| {
            serde::de::Error::custom(format!("`{text}` is no time span such as `90s` or `30m`"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("500MB", Some(500_000_000)),
            ("64 MiB", Some(67_108_864)),
            ("1.5GB", Some(1_500_000_000)),
            ("12b", Some(12)),
            ("5M", None),
            ("MB", None),
            ("-1", None),
            ("99999999TB", None),
            ("", None),
        ] {
            assert_eq!(Kind::Bytes.parse(text).and_then(|v| v.as_integer()), bytes, "{text}");
        }
    }

    #[test]
    fn reads_time_spans() {
        for (text, milliseconds) in [
            ("90", Some(90_000)),
            ("90s", Some(90_000)),
            ("1h30m", Some(5_400_000)),
            ("250ms", Some(250)),
            ("-5s", None),
            ("soon", None),
        ] {
            assert_eq!(Kind::Duration.parse(text).and_then(|v| v.as_integer()), milliseconds, "{text}");
        }
    }

    #[test]
    fn reads_lists_flags_and_free_values() {
        let list = |items: &[&str]| Value::Array(items.iter().map(|i| Value::String((*i).into())).collect());
        assert_eq!(Kind::List.parse("a, b"), Some(list(&["a", "b"])));
        assert_eq!(Kind::List.parse(r#"["a,b"]"#), Some(list(&["a,b"])));
        assert_eq!(Kind::List.parse("[1]"), None);
        assert_eq!(Kind::Flag.parse("Yes"), Some(Value::Boolean(true)));
        assert_eq!(Kind::Flag.parse("maybe"), None);
        assert_eq!(Kind::Free.parse("true"), Some(Value::Boolean(true)));
        assert_eq!(Kind::Free.parse("a b"), Some(Value::String("a b".into())));
        assert_eq!(Kind::Choice(&["a", "b"]).parse("c"), None);
    }

    #[test]
    fn a_relative_path_starts_at_its_file() {
        let path = |value: &str, base| Kind::Path.normalise(Value::String(value.into()), base);
        assert_eq!(path("ca.pem", Some(Path::new("/etc/w"))), Some(Value::String("/etc/w/ca.pem".into())));
        assert_eq!(path("/ca.pem", Some(Path::new("/etc/w"))), Some(Value::String("/ca.pem".into())));
        assert_eq!(path("ca.pem", None), Some(Value::String("ca.pem".into())));
    }
}
