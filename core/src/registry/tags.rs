//! The tags of a repository.

use reqwest::Method;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;
use url::Url;

use super::RegistryClient;
use super::authentication::Scope;
use super::endpoint::Endpoint;
use super::exchange::Request;
use crate::backend::Job;
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::reference::Reference;

/// A page of tags is not larger; seen: registries that send tens of thousands at once.
const PAGE_LIMIT_BYTES: u64 = 16 << 20;
/// So many tags are listed; a registry that has more, or sends the same again and again, is wrong.
const TAGS_LIMIT: usize = 1_000_000;

#[derive(Deserialize)]
struct Page {
    tags: Option<Vec<String>>,
}

impl RegistryClient {
    /// Lists the tags of a repository, page after page.
    ///
    /// # Errors
    /// `UnexpectedAnswer` for a list without an end; and as [`RegistryClient::manifest`].
    pub async fn tags(&self, repository: &Reference, job: &Job) -> Result<Vec<String>> {
        let endpoint = self.endpoint(repository.registry())?;
        let mut next = Some(endpoint.url(repository.repository(), "tags/list"));
        let mut tags = Vec::new();
        while let Some(url) = next {
            let (page, following) = self.tags_page(&endpoint, repository, url.clone(), job).await?;
            let is_empty = page.is_empty();
            tags.extend(page);
            next = following.filter(|following| *following != url && !is_empty);
            if tags.len() > TAGS_LIMIT {
                let message = format!("the list of tags of `{}` does not end", repository.name());
                return Err(Error::new(ErrorKind::UnexpectedAnswer, message));
            }
        }
        Ok(tags)
    }

    async fn tags_page(
        &self,
        endpoint: &Endpoint,
        repository: &Reference,
        url: Url,
        job: &Job,
    ) -> Result<(Vec<String>, Option<Url>)> {
        let request = Request::new(endpoint, Scope::pull(repository.repository()), Method::GET, url.clone());
        let (headers, body) = match self.exchange_document(&request, PAGE_LIMIT_BYTES, job).await? {
            Ok(answer) => answer,
            Err(refusal) => {
                let message = format!("could not list the tags of `{}`", repository.name());
                return Err(self.refused(refusal, &message, endpoint, repository.repository(), job).await);
            }
        };
        let registry = repository.registry();
        let next = next_page(&url, &headers).filter(|next| endpoint.owns(next));
        let page: Page = serde_json::from_slice(&body).or_error(ErrorKind::UnexpectedAnswer, || {
            format!("`{registry}` answered something other than a list of tags")
        })?;
        Ok((page.tags.unwrap_or_default(), next))
    }
}

/// The address in `Link: </v2/a/tags/list?last=x&n=100>; rel="next"`.
///
/// Source: distribution-spec, "Listing tags"; RFC 8288.
fn next_page(asked: &Url, headers: &HeaderMap) -> Option<Url> {
    let links = headers.get_all(LINK).iter().filter_map(|value| value.to_str().ok());
    let mut links = links.flat_map(|value| value.split(",<").map(|link| link.trim().trim_start_matches('<')));
    links.find_map(|link| {
        let (address, parameters) = link.split_once('>')?;
        let is_next = parameters.split([';', ',']).any(|parameter| {
            matches!(parameter.trim().to_ascii_lowercase().as_str(), "rel=next" | "rel=\"next\"")
        });
        is_next.then(|| asked.join(address).ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_next_page() {
        let asked: Url = "https://r.io/v2/a/tags/list".parse().expect("url");
        for (link, next) in [
            (r#"</v2/a/tags/list?last=b&n=2>; rel="next""#, Some("https://r.io/v2/a/tags/list?last=b&n=2")),
            (r#"<https://r.io/v2/a/tags/list?page=2>;rel=next"#, Some("https://r.io/v2/a/tags/list?page=2")),
            (r#"<?last=b>; rel="next""#, Some("https://r.io/v2/a/tags/list?last=b")),
            (r#"</first>; rel="first",</x>; rel="next""#, Some("https://r.io/x")),
            (r#"</x>; rel="prev""#, None),
            ("nonsense", None),
        ] {
            let headers = HeaderMap::from_iter([(LINK, link.parse().expect("header"))]);
            assert_eq!(next_page(&asked, &headers).as_ref().map(Url::as_str), next, "{link}");
        }
    }
}
