//! Messages exactly as the service sends and takes them, nothing else.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use windlass_core::service::{Form, Frame};

/// The header that carries the key.
pub(crate) const KEY_HEADER: &str = "X-API-Key";

/// The answer to `GET /registry_prefix`.
#[derive(Debug, Deserialize)]
pub(crate) struct PrefixAnswer {
    pub(crate) registry_prefix: String,
}

/// The answer to `GET /image_exists`; what else it says has had several forms and is not needed.
#[derive(Debug, Deserialize)]
pub(crate) struct ExistsAnswer {
    pub(crate) exists: bool,
}

/// The answer to `POST /build`. Older services answer when the build is done, without an id.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct BuildAnswer {
    build_id: Value,
    image: Value,
    status: Value,
    error: Value,
}

impl BuildAnswer {
    /// The id of the build; an empty one is none, and some services count.
    pub(crate) fn id(&self) -> Option<String> {
        match &self.build_id {
            Value::Number(number) => Some(number.to_string()),
            id => text(id),
        }
    }

    /// The image, of a service that has finished.
    pub(crate) fn image(&self) -> Option<String> {
        text(&self.image)
    }

    /// How the build is, of a service that has finished.
    pub(crate) fn status(&self) -> Option<String> {
        text(&self.status)
    }

    /// Why it failed.
    pub(crate) fn error(&self) -> Option<String> {
        words(&self.error)
    }
}

/// The answer to `GET /build_status`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct StatusAnswer {
    status: Value,
    image: Value,
    error: Value,
}

impl StatusAnswer {
    /// The service's word; empty where it has none.
    pub(crate) fn status(&self) -> String {
        text(&self.status).unwrap_or_default()
    }

    /// The image, once it exists.
    pub(crate) fn image(&self) -> Option<String> {
        text(&self.image)
    }

    /// Why the build failed.
    pub(crate) fn error(&self) -> Option<String> {
        words(&self.error)
    }
}

/// A text that says something. What a field holds that should hold one loses nothing else of the document.
fn text(value: &Value) -> Option<String> {
    Some(value.as_str()?.trim().to_owned()).filter(|text| !text.is_empty())
}

/// What is said, whatever form it has.
fn words(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(_) => text(value),
        Value::Object(object) => match object.get("message") {
            Some(Value::String(message)) if !message.is_empty() => Some(message.clone()),
            _ if object.is_empty() => None,
            _ => Some(value.to_string()),
        },
        other => Some(other.to_string()),
    }
}

/// What a multipart form says of the file in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FilePart {
    pub(crate) file_name: &'static str,
    pub(crate) content_type: &'static str,
    /// Further names are repeated `tags` fields, or `tags_0`, `tags_1` and so on.
    pub(crate) numbered_tags: bool,
}

/// A build context, as base64 text. The type is what the original Python client guesses from the name.
pub(crate) const CONTEXT_PART: FilePart =
    FilePart { file_name: "context.tar.gz", content_type: "application/x-tar", numbered_tags: false };

/// A finished image, as the bytes of the archive.
pub(crate) const IMAGE_PART: FilePart =
    FilePart { file_name: "image.tar.gz", content_type: "application/gzip", numbered_tags: true };

/// The JSON form. Base64 text needs no escapes, so it goes between two quotation marks.
pub(crate) fn json(target: &str, tags: &[String]) -> Frame {
    #[derive(Serialize)]
    struct Rest<'a> {
        target_image: &'a str,
        #[serde(skip_serializing_if = "<[String]>::is_empty")]
        tags: &'a [String],
    }
    let rest = serde_json::to_string(&Rest { target_image: target, tags }).unwrap_or_default();
    let after = format!("\",{}", rest.trim_start_matches('{'));
    Frame {
        content_type: "application/json".to_owned(),
        before: Bytes::from_static(b"{\"context\":\""),
        after: after.into(),
    }
}

/// The multipart form: the file, the target, the further tags.
pub(crate) fn multipart(boundary: &str, part: FilePart, target: &str, tags: &[String]) -> Frame {
    let FilePart { file_name, content_type, numbered_tags } = part;
    let form = Form::new(boundary).file("context", file_name, content_type).field("target_image", target);
    let tags = tags.iter().enumerate().fold(form, |form, (index, tag)| match numbered_tags {
        true => form.field(&format!("tags_{index}"), tag),
        false => form.field("tags", tag),
    });
    tags.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vector of the protocol description.
    #[test]
    fn a_multipart_form_has_its_parts_in_order() {
        let tags = ["r/x:2".to_owned(), "r/x:3".to_owned()];
        let frame = multipart("XX", CONTEXT_PART, "r/x:1", &tags);
        assert_eq!(frame.content_type, "multipart/form-data; boundary=XX");
        let field = |name: &str, value: &str| {
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let expected =
            "--XX\r\nContent-Disposition: form-data; name=\"context\"; filename=\"context.tar.gz\"\r\n\
             Content-Type: application/x-tar\r\n\r\nQUJD\r\n"
                .to_owned()
                + &field("target_image", "r/x:1")
                + &field("tags", "r/x:2")
                + &field("tags", "r/x:3")
                + "--XX--\r\n";
        assert_eq!(frame.around("QUJD"), expected);
        assert_eq!(frame.size_bytes() as usize + 4, expected.len());
        let image = multipart("XX", IMAGE_PART, "r/x:1", &tags).around("");
        assert!(image.contains("filename=\"image.tar.gz\"\r\nContent-Type: application/gzip"), "{image}");
        assert!(
            image.contains("name=\"tags_0\"\r\n\r\nr/x:2") && image.contains("name=\"tags_1\"\r\n\r\nr/x:3")
        );
    }

    #[test]
    fn json_is_json() {
        let text = json("r/x:1", &[]).around("QUJD");
        assert_eq!(text, r#"{"context":"QUJD","target_image":"r/x:1"}"#);
        let text = json("r/\"x:1", &["a".to_owned()]).around("");
        let read: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, serde_json::json!({"context": "", "target_image": "r/\"x:1", "tags": ["a"]}));
    }

    #[test]
    fn answers_are_read_in_every_form() {
        let answer = |text: &str| serde_json::from_str::<BuildAnswer>(text).expect(text);
        assert_eq!(answer(r#"{"build_id":"a-1","more":1}"#).id().as_deref(), Some("a-1"));
        assert_eq!(answer(r#"{"build_id":7}"#).id().as_deref(), Some("7"));
        for none in [r#"{"build_id":""}"#, r#"{"build_id":null}"#, "{}"] {
            assert_eq!(answer(none).id(), None, "{none}");
        }
        for text in [
            r#"{"exists":true,"image":{"upload_time":"x","image_size_bytes":1}}"#,
            r#"{"exists":true,"created_at":"x","size":1}"#,
            r#"{"exists":true,"image":null}"#,
        ] {
            assert!(serde_json::from_str::<ExistsAnswer>(text).expect(text).exists);
        }
        let status: StatusAnswer = serde_json::from_str(r#"{"image":null}"#).expect("read");
        assert_eq!((status.status().as_str(), status.image()), ("", None));
        // What is odd in one field loses nothing of the others.
        assert_eq!(answer(r#"{"build_id":"x","status":202,"error":{}}"#).id().as_deref(), Some("x"));
        let odd = r#"{"status":"FAILURE","image":7,"error":{"message":"no room"}}"#;
        let status: StatusAnswer = serde_json::from_str(odd).expect("read");
        assert_eq!((status.status().as_str(), status.error().as_deref()), ("FAILURE", Some("no room")));
        let status: StatusAnswer = serde_json::from_str(r#"{"status":null,"error":["a"]}"#).expect("read");
        assert_eq!((status.status().as_str(), status.error().as_deref()), ("", Some(r#"["a"]"#)));
    }
}
