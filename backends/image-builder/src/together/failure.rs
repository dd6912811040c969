//! What went wrong with a call, in the words that users of the service know: `Failed to <operation>:
//! <message> (code: <code>)`.

use reqwest::StatusCode;
use serde_json::Value;
use windlass_core::error::{Error, ErrorKind};
use windlass_core::http::Failure;
use windlass_core::service::{Refusal, ServiceKey};

/// Of what the service says, so much is shown.
const WORDS_LIMIT_CHARACTERS: usize = 1000;
/// So many fields that it finds wrong are shown.
const FIELDS_LIMIT: usize = 20;

/// The error of an answer that is a no. Bodies may be documents of several forms, text, empty, or no text
/// at all. The key is shown nowhere; `source` says who named the address.
pub(super) fn refused(operation: &str, key: &ServiceKey, source: &str, refusal: &Refusal) -> Error {
    let said = Said::read(&refusal.page, key);
    let message = said.message.unwrap_or_else(|| refusal.in_words());
    let code = said.code.unwrap_or_else(|| refusal.status.as_u16().to_string());
    let kind = match refusal.status {
        StatusCode::BAD_REQUEST | StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY => {
            ErrorKind::InvalidInput
        }
        _ => refusal.kind(),
    };
    let mut error = Error::new(kind, format!("Failed to {operation}: {message} (code: {code})"))
        .with_detail("status", refusal.status.to_string());
    for field in said.fields {
        error = error.with_detail("field", field);
    }
    match hint(refusal.status, key.variable(), source) {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// The failure of an exchange that came to no answer.
pub(super) fn broke_off(operation: &str, source: &str, failure: Failure) -> Failure {
    let wrap = |error: Error| {
        let mut wrapped = Error::new(error.kind(), format!("Failed to {operation}: {}", error.message()));
        if let Some(cause) = std::error::Error::source(&error) {
            wrapped = wrapped.with_source(cause.to_string());
        }
        // Those of the client speak of the option `url`, which may be a variable here.
        let hints = error.hints().iter().filter(|hint| !hint.contains("`url`"));
        hints
            .fold(wrapped, |wrapped, hint| wrapped.with_hint(hint))
            .with_hint(format!("check the network, and the address in {source}"))
    };
    match failure {
        Failure::Final(error) => Failure::Final(wrap(error)),
        Failure::Transient { error, retry_after, refused } => {
            Failure::Transient { error: wrap(error), retry_after, refused }
        }
    }
}

fn hint(status: StatusCode, key_variable: &str, source: &str) -> Option<String> {
    Some(match status.as_u16() {
        401 => format!("check the key in {key_variable}: the service does not know it"),
        403 => "the key is known, but its project or scope does not allow this".to_owned(),
        404 => "`windlass snapshot list` shows what there is; an alias is written `@ALIAS`".to_owned(),
        429 => "wait a little, then try again".to_owned(),
        300..=399 => format!("the service seems to be elsewhere: check the address in {source}"),
        408 | 500..=599 => "the service has a problem: try again later".to_owned(),
        _ => return None,
    })
}

/// What the body of an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    message: Option<String>,
    code: Option<String>,
    fields: Vec<String>,
}

impl Said {
    /// Without the key, which is hidden before anything is cut: the half of a key is one too.
    fn read(page: &[u8], key: &ServiceKey) -> Self {
        let Ok(document) = serde_json::from_slice::<Value>(page) else { return Self::default() };
        let document = without(key, document);
        let inner = document.get("error").filter(|inner| inner.is_object());
        let text = |key: &str| inner.and_then(|inner| word(inner, key)).or_else(|| word(&document, key));
        let fields = document.get("errors").or_else(|| inner?.get("errors")).and_then(Value::as_array);
        Self {
            message: text("message").or_else(|| word(&document, "error")),
            code: text("code"),
            fields: fields.into_iter().flatten().filter_map(field).take(FIELDS_LIMIT).collect(),
        }
    }
}

/// The same document without the key, which some services repeat.
fn without(key: &ServiceKey, document: Value) -> Value {
    let hidden = |text: String| key.hide(&text).into_owned();
    match document {
        Value::String(text) => Value::String(hidden(text)),
        Value::Array(items) => items.into_iter().map(|item| without(key, item)).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(name, value)| (hidden(name), without(key, value))).collect()
        }
        other => other,
    }
}

fn word(document: &Value, key: &str) -> Option<String> {
    let text = match document.get(key)? {
        Value::String(text) => text.split_whitespace().collect::<Vec<_>>().join(" "),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let cut = text.char_indices().nth(WORDS_LIMIT_CHARACTERS).map(|(end, _)| format!("{}…", &text[..end]));
    Some(cut.unwrap_or(text)).filter(|text| !text.is_empty())
}

/// `parameter: message (code): details`, of what there is of it.
fn field(error: &Value) -> Option<String> {
    if let Some(text) = error.as_str() {
        return Some(text.to_owned());
    }
    let mut text = match (word(error, "parameter"), word(error, "message")) {
        (Some(parameter), Some(message)) => format!("`{parameter}`: {message}"),
        (Some(parameter), None) => format!("`{parameter}`"),
        (None, Some(message)) => message,
        (None, None) => String::new(),
    };
    if let Some(code) = word(error, "code") {
        text += &format!(" (code: {code})");
    }
    let details = error.get("details").filter(|details| match details {
        Value::Null => false,
        Value::Object(fields) => !fields.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::String(text) => !text.is_empty(),
        _ => true,
    });
    if let Some(details) = details {
        text += &format!(": {}", details.as_str().map_or_else(|| details.to_string(), str::to_owned));
    }
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use windlass_core::service::KeyHeader;

    use super::*;

    const KEY: &str = "sk-the-whole-key";

    fn key() -> ServiceKey {
        ServiceKey::new(&KEY.into(), KeyHeader::Bearer, "TOGETHER_API_KEY").expect("a key")
    }

    fn said(page: &str) -> (Option<String>, Option<String>, Vec<String>) {
        let Said { message, code, fields } = Said::read(page.as_bytes(), &key());
        (message, code, fields)
    }

    #[test]
    fn every_form_of_an_error_is_read() {
        let some = |text: &str| Some(text.to_owned());
        for (page, expected) in [
            (
                r#"{"code":"invalid","message":"bad\nttl","errors":[]}"#,
                (some("bad ttl"), some("invalid"), vec![]),
            ),
            (r#"{"message":"no"}"#, (some("no"), None, vec![])),
            (r#"{"error":"no"}"#, (some("no"), None, vec![])),
            (r#"{"error":{"message":"no","code":7}}"#, (some("no"), some("7"), vec![])),
            ("", (None, None, vec![])),
            ("<html>", (None, None, vec![])),
            ("[]", (None, None, vec![])),
        ] {
            assert_eq!(said(page), expected, "{page}");
        }
        assert_eq!(Said::read(&[0xff, 0xfe], &key()), Said::default());
    }

    #[test]
    fn every_field_is_shown() {
        let page = r#"{"code":"c","message":"m","errors":[
            {"parameter":"ttl","code":"min","message":"too small","details":{"min":1}},
            {"parameter":"tags","code":"x","message":"","details":null}, "words", {}, {"details":"only"}]}"#;
        assert_eq!(
            said(page).2,
            [r#"`ttl`: too small (code: min): {"min":1}"#, "`tags` (code: x)", "words", ": only"]
        );
    }

    #[test]
    fn the_key_is_not_repeated() {
        let across_the_cut = format!("{} {KEY}", "x".repeat(WORDS_LIMIT_CHARACTERS - 10));
        for page in [
            format!(r#"{{"message":"unknown key {KEY}","code":"{KEY}"}}"#),
            format!(r#"{{"error":{{"message":"unknown key","code":"Bearer {KEY}"}}}}"#),
            format!(r#"{{"message":"{across_the_cut}","errors":["{KEY}"]}}"#),
            format!(r#"{{"errors":[{{"parameter":"{KEY}","message":"{KEY}","code":"{KEY}"}}]}}"#),
            format!(r#"{{"errors":[{{"message":"no","details":{{"{KEY}":["{KEY}"]}}}}]}}"#),
            r#"{"message":"sk\u002dthe-whole-key"}"#.to_owned(),
        ] {
            let shown = format!("{:?}", said(&page));
            assert!(!shown.contains(&KEY[..6]), "{shown}");
            assert!(shown.contains("(hidden)") || page.contains("xxx"), "{shown}");
        }
    }
}
