//! A token server: what a registry names in `WWW-Authenticate: Bearer`.
//!
//! Its tokens are what distribution's own registry accepts: JSON Web Tokens signed with ES256 whose key comes along as
//! a certificate (`x5c`) that the registry was told to trust. Source: distribution, `docs/spec/auth/{token,jwt,oauth}.md`.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{CertificateParams, KeyPair};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use serde_json::{Value, json};

use super::Error;
use super::http::{Answer, Head, listen};

/// What the registry calls itself and the token server, in tokens.
pub(super) const SERVICE: &str = "windlass test registry";
pub(super) const ISSUER: &str = "windlass test token server";

/// The only account.
pub const USER: &str = "windlass";
/// Its password.
pub const PASSWORD: &str = "secret";
/// The identity token of that account.
pub const IDENTITY_TOKEN: &str = "identity-of-windlass";

/// What is odd about the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenHabits {
    /// The token is in `access_token`, not in `token`.
    pub access_token: bool,
    /// `expires_in` of the answer; `None` leaves it out.
    pub expires_in: Option<u64>,
    /// How long a token is really good, seconds.
    pub lifetime_seconds: u64,
    /// Identity tokens are not taken by POST (404), as GCR does it.
    pub refuses_post: bool,
    /// Only reading is granted, whatever is asked for.
    pub read_only: bool,
}

impl Default for TokenHabits {
    fn default() -> Self {
        Self {
            access_token: false,
            expires_in: Some(300),
            lifetime_seconds: 300,
            refuses_post: false,
            read_only: false,
        }
    }
}

/// Something that was asked of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET` or `POST`.
    pub method: String,
    /// Every scope that was asked for.
    pub scopes: Vec<String>,
    /// Who asked: the user name, `<identity>` for an identity token, `None` for nobody.
    pub by: Option<String>,
    /// The service that was named.
    pub service: Option<String>,
}

/// A running token server. Its threads end with the process.
#[derive(Debug)]
pub struct TokenServer {
    address: String,
    certificate: PathBuf,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl TokenServer {
    /// Starts a server, and writes the certificate of its key into a directory.
    ///
    /// # Errors
    /// `Io` if it has no port, or the key cannot be made.
    pub fn start(habits: TokenHabits, directory: &Path) -> Result<Self, Error> {
        let failed = |source: rcgen::Error| Error::io("make a key for tokens", io::Error::other(source));
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = CertificateParams::new(vec!["tokens".to_owned()]).map_err(failed)?;
        params.distinguished_name.push(rcgen::DnType::CommonName, ISSUER);
        let certificate = params.self_signed(&key).map_err(failed)?;
        let file = directory.join("tokens.pem");
        fs::write(&file, certificate.pem())
            .map_err(|source| Error::io("write the token server's certificate", source))?;
        let signer = EcdsaKeyPair::from_pkcs8(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &key.serialize_der(),
            &SystemRandom::new(),
        )
        .map_err(|source| Error::io("read the key for tokens", io::Error::other(source.to_string())))?;
        let signer = Signer { key: signer, certificate: STANDARD.encode(certificate.der()) };

        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let notes = asked.clone();
        let address = listen(move |head, reader, writer| {
            let mut body = String::new();
            reader.take(head.length().unwrap_or(0)).read_to_string(&mut body)?;
            let question = Question::read(&head, &body);
            notes.lock().unwrap_or_else(PoisonError::into_inner).push(question.asked.clone());
            question.answer(&habits, &signer).write(writer, false).map(|()| true)
        })
        .map_err(|source| Error::io("start a token server", source))?;
        Ok(Self { address, certificate: file, asked })
    }

    /// The `realm` of challenges: its address.
    pub fn realm(&self) -> String {
        format!("http://{}/token", self.address)
    }

    /// The certificate that vouches for its tokens, PEM.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// What was asked so far about repositories whose name contains a text.
    pub fn asked(&self, repository: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let meant = |asked: &&Asked| asked.scopes.iter().any(|scope| scope.contains(repository));
        asked.iter().filter(meant).cloned().collect()
    }
}

struct Question {
    asked: Asked,
    /// Somebody was named, and it was not our account.
    is_wrong: bool,
}

impl Question {
    fn read(head: &Head, body: &str) -> Self {
        let [method, path, _] = &head.start;
        let query = if method == "POST" { body } else { path.split_once('?').map_or("", |(_, query)| query) };
        let fields = form(query);
        let one = |name: &str| fields.get(name).and_then(|values| values.first()).cloned();
        let scopes = fields.get("scope").into_iter().flatten();
        let scopes = scopes.flat_map(|scope| scope.split(' ')).map(str::to_owned).collect();
        let (by, is_wrong) = match (one("refresh_token"), head.header("authorization")) {
            (Some(token), _) => (Some("<identity>".to_owned()), token != IDENTITY_TOKEN),
            (None, Some(basic)) => {
                let decoded = basic.strip_prefix("Basic ").and_then(|text| STANDARD.decode(text).ok());
                let text = String::from_utf8(decoded.unwrap_or_default()).unwrap_or_default();
                let (user, password) = text.split_once(':').unwrap_or_default();
                let right = [(USER, PASSWORD), ("<token>", IDENTITY_TOKEN)].contains(&(user, password));
                (Some(user.to_owned()), !right)
            }
            (None, None) => (None, false),
        };
        Self { asked: Asked { method: method.clone(), scopes, by, service: one("service") }, is_wrong }
    }

    fn answer(&self, habits: &TokenHabits, signer: &Signer) -> Answer {
        if self.asked.method == "POST" && habits.refuses_post {
            return Answer::new(404);
        }
        if self.is_wrong {
            return Answer::error(401, "UNAUTHORIZED", "incorrect username or password");
        }
        let granted = |scope: &String| {
            let (name, actions) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
            let may_push = self.asked.by.is_some() && !habits.read_only;
            let actions: Vec<&str> =
                actions.split(',').filter(|action| *action == "pull" || may_push).collect();
            Some(json!({ "type": "repository", "name": name, "actions": actions }))
        };
        let access: Vec<Value> = self.asked.scopes.iter().filter_map(granted).collect();
        let token = signer.token(&access, habits.lifetime_seconds);
        let mut document = json!({});
        document[if habits.access_token { "access_token" } else { "token" }] = token.into();
        if let Some(seconds) = habits.expires_in {
            document["expires_in"] = seconds.into();
        }
        Answer::new(200).header("Content-Type", "application/json").body(document.to_string())
    }
}

struct Signer {
    key: EcdsaKeyPair,
    certificate: String,
}

impl Signer {
    fn token(&self, access: &[Value], lifetime_seconds: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": ISSUER,
            "sub": USER,
            "aud": SERVICE,
            "exp": now + lifetime_seconds,
            "nbf": now.saturating_sub(1),
            "iat": now,
            "jti": format!("{now}"),
            "access": access,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(&claims));
        let signature =
            self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("signing needs only chance");
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// The fields of a query or of a form; one may come several times.
fn form(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in text.split('&').filter_map(|pair| pair.split_once('=')) {
        fields.entry(decoded(name)).or_default().push(decoded(value));
    }
    fields
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        let digits: Vec<u8> = if byte == b'%' { rest.by_ref().take(2).collect() } else { Vec::new() };
        let digits = String::from_utf8(digits).unwrap_or_default();
        match (byte, u8::from_str_radix(&digits, 16)) {
            (b'%', Ok(byte)) => bytes.push(byte),
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_is_asked() {
        let head = Head {
            start: [
                "GET".into(),
                "/token?service=a+b%22&scope=repository%3Aa%2Fb%3Apull&scope=x".into(),
                "HTTP/1.1".into(),
            ],
            headers: vec![("Authorization".into(), format!("Basic {}", STANDARD.encode("windlass:secret")))],
        };
        let question = Question::read(&head, "");
        assert!(!question.is_wrong);
        assert_eq!(question.asked.by.as_deref(), Some("windlass"));
        assert_eq!(question.asked.service.as_deref(), Some("a b\""));
        assert_eq!(question.asked.scopes, ["repository:a/b:pull", "x"]);
    }
}
