//! Messages exactly as the service sends and takes them, nothing else.

use std::collections::BTreeMap;

use serde::Deserialize;
use windlass_core::service::{Form, Frame};

/// The fields of `POST /builds`, beside the context.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BuildForm<'a> {
    /// `name` or `name:tag`; the namespace comes from the key.
    pub(crate) image_name: &'a str,
    /// The path of the Dockerfile in the context.
    pub(crate) dockerfile: &'a str,
    /// Values for ARG.
    pub(crate) build_args: &'a BTreeMap<String, String>,
    /// Convert the image to the nydus format too.
    pub(crate) nydus_convert: bool,
    /// What the build cache is kept under; the image's name without tag if `None`.
    pub(crate) cache_key: Option<&'a str>,
}

impl BuildForm<'_> {
    /// The fields in their order.
    pub(crate) fn fields(&self) -> Vec<(&'static str, String)> {
        let build_args = serde_json::to_string(self.build_args).unwrap_or_default();
        let mut fields = vec![
            ("image_name", self.image_name.to_owned()),
            ("dockerfile", self.dockerfile.to_owned()),
            ("build_args", build_args),
            ("nydus_convert", self.nydus_convert.to_string()),
        ];
        fields.extend(self.cache_key.map(|key| ("cache_key", key.to_owned())));
        fields
    }

    /// The multipart form: the fields, then the context as raw gzip.
    pub(crate) fn frame(&self, boundary: &str) -> Frame {
        let form = Form::new(boundary);
        let form = self.fields().iter().fold(form, |form, (name, value)| form.field(name, value));
        form.file("context", "context.tar.gz", "application/gzip").finish()
    }
}

/// The answer to `POST /builds`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct BuildAnswer {
    build_id: Option<Id>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Id {
    Text(String),
    Number(u64),
}

impl BuildAnswer {
    /// The id of the build; an empty one is none, and neither is what no path can hold.
    pub(crate) fn id(self) -> Option<String> {
        match self.build_id? {
            Id::Text(text) => {
                Some(text.trim().to_owned()).filter(|text| !matches!(text.as_str(), "" | "." | ".."))
            }
            Id::Number(number) => Some(number.to_string()),
        }
    }
}

/// The answer to `GET /builds/{id}`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct StatusAnswer {
    status: Option<String>,
    image_ref: Option<String>,
    error: Option<serde_json::Value>,
}

impl StatusAnswer {
    /// The service's word for how the build is; `None` where it is silent.
    pub(crate) fn word(&self) -> Option<&str> {
        self.status.as_deref().map(str::trim).filter(|word| !word.is_empty())
    }

    /// The image.
    pub(crate) fn image_ref(&self) -> Option<&str> {
        self.image_ref.as_deref().map(str::trim).filter(|image| !image.is_empty())
    }

    /// Why it failed: a text, or whatever else is there as JSON.
    pub(crate) fn error(&self) -> Option<String> {
        match self.error.as_ref()? {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            other => Some(other.to_string()),
        }
    }
}

/// What an event of the log may claim about the whole build. A build step may print the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Control {
    /// It is done.
    Done,
    /// It failed, for this reason.
    Failed(String),
}

impl Control {
    /// Reads the data of an event; `None` for a line of the log.
    pub(crate) fn of(data: &str) -> Option<Self> {
        // Most lines are no objects, and most objects have neither word.
        if !data.starts_with('{') || !(data.contains("\"done\"") || data.contains("\"error\"")) {
            return None;
        }
        #[derive(Deserialize)]
        struct Claim {
            #[serde(default)]
            done: serde_json::Value,
            #[serde(default)]
            error: serde_json::Value,
        }
        let claim: Claim = serde_json::from_str(data).ok()?;
        match (claim.error, claim.done) {
            (serde_json::Value::String(text), _) if !text.is_empty() => Some(Self::Failed(text)),
            (_, serde_json::Value::Bool(true)) => Some(Self::Done),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_has_its_fields_in_order() {
        let build_args =
            BTreeMap::from([("B".to_owned(), "x \"y\"".to_owned()), ("A".to_owned(), "1".to_owned())]);
        let form = BuildForm {
            image_name: "agent:1",
            dockerfile: "deploy/Dockerfile",
            build_args: &build_args,
            nydus_convert: true,
            cache_key: Some("my/app"),
        };
        let field = |name: &str, value: &str| {
            format!("--XX\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let fields = field("image_name", "agent:1")
            + &field("dockerfile", "deploy/Dockerfile")
            + &field("build_args", r#"{"A":"1","B":"x \"y\""}"#)
            + &field("nydus_convert", "true");
        let file = "--XX\r\nContent-Disposition: form-data; name=\"context\"; filename=\"context.tar.gz\"\r\n\
                    Content-Type: application/gzip\r\n\r\nGZIP\r\n--XX--\r\n";
        let frame = form.frame("XX");
        assert_eq!(frame.content_type, "multipart/form-data; boundary=XX");
        assert_eq!(frame.around("GZIP"), format!("{fields}{}{file}", field("cache_key", "my/app")));
        let without =
            BuildForm { cache_key: None, build_args: &BTreeMap::new(), nydus_convert: false, ..form };
        let text = without.frame("XX").around("GZIP");
        assert!(
            !text.contains("cache_key") && text.contains("\r\n\r\n{}\r\n") && text.contains("false"),
            "{text}"
        );
    }

    #[test]
    fn answers_are_read_in_every_form() {
        let id = |text: &str| serde_json::from_str::<BuildAnswer>(text).expect(text).id();
        assert_eq!(id(r#"{"build_id":"a-1","more":1}"#).as_deref(), Some("a-1"));
        assert_eq!(id(r#"{"build_id":7}"#).as_deref(), Some("7"));
        for none in [r#"{"build_id":" "}"#, r#"{"build_id":"."}"#, r#"{"build_id":null}"#, "{}"] {
            assert_eq!(id(none), None, "{none}");
        }
        let status: StatusAnswer =
            serde_json::from_str(r#"{"status":"success","image_ref":"r/x:1","error":""}"#).expect("read");
        assert_eq!(
            (status.word(), status.image_ref(), status.error()),
            (Some("success"), Some("r/x:1"), None)
        );
        let silent: StatusAnswer = serde_json::from_str(r#"{"status":"","error":{"code":1}}"#).expect("read");
        assert_eq!((silent.word(), silent.image_ref()), (None, None));
        assert_eq!(silent.error().as_deref(), Some(r#"{"code":1}"#));
    }

    #[test]
    fn only_control_objects_are_control_objects() {
        let failed = |text: &str| Some(Control::Failed(text.to_owned()));
        for (data, expected) in [
            (r#"{"done": true}"#, Some(Control::Done)),
            (r#"{"done":true,"error":null,"image":1}"#, Some(Control::Done)),
            (r#"{"error":"no space"}"#, failed("no space")),
            (r#"{"done":true,"error":"x"}"#, failed("x")),
            (r#"{"error":null}"#, None),
            (r#"{"error":""}"#, None),
            (r#"{"error":{"code":1}}"#, None),
            (r#"{"done":false}"#, None),
            (r#"{"done":"true"}"#, None),
            (r#"{"done":true"#, None),
            (r#"{"done":true} x"#, None),
            (r#" {"done":true}"#, None),
            (r#"["done",true]"#, None),
            (r#"{"a":{"done":true}}"#, None),
            ("done", None),
            ("", None),
        ] {
            assert_eq!(Control::of(data), expected, "{data}");
        }
    }
}
