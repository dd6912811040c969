//! In which form a registry takes blobs: learned from what it refused and took.

use std::sync::PoisonError;

use super::super::RegistryClient;

/// What a registry has shown of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Form {
    /// It took a whole blob after it had refused a piece of it.
    whole_only: bool,
    /// It took pieces after it had refused a whole blob of this size.
    too_large_bytes: Option<u64>,
}

impl RegistryClient {
    /// Says whether a blob of this size goes to this registry in pieces.
    pub(super) fn sends_in_pieces(&self, registry: &str, size_bytes: u64) -> bool {
        let form = self.form(registry);
        let too_large = form.too_large_bytes.is_some_and(|refused| size_bytes >= refused);
        !form.whole_only && (too_large || size_bytes > self.settings().whole_limit_bytes)
    }

    /// Says whether a registry is known to take no pieces.
    pub(super) fn takes_only_whole(&self, registry: &str) -> bool {
        self.form(registry).whole_only
    }

    /// Notes the form that was taken after the other had been refused.
    pub(super) fn remember_form(&self, registry: &str, in_pieces: bool, size_bytes: u64) {
        let mut forms = self.inner.forms.lock().unwrap_or_else(PoisonError::into_inner);
        let form = forms.entry(registry.to_owned()).or_default();
        if in_pieces {
            let least = form.too_large_bytes.map_or(size_bytes, |known| known.min(size_bytes));
            *form = Form { whole_only: false, too_large_bytes: Some(least) };
        } else {
            form.whole_only = form.too_large_bytes.is_none();
        }
    }

    fn form(&self, registry: &str) -> Form {
        let forms = self.inner.forms.lock().unwrap_or_else(PoisonError::into_inner);
        forms.get(registry).copied().unwrap_or_default()
    }
}
