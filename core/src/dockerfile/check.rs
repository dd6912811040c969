//! The options of `# check=`: which of BuildKit's checks are skipped, and whether the others fail a
//! build.
//!
//! Source: BuildKit's `frontend/dockerfile/linter`. Of its checks we make one, `NoEmptyContinuation`.

/// Which checks are made, and what becomes of what they find.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Checks {
    skip_all: bool,
    skipped: Vec<String>,
    /// What a check finds is an error.
    pub(super) error: bool,
}

impl Checks {
    /// Reads `skip=A,B;error=true`; the text is what is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut checks = Self::default();
        for option in text.split(';') {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| format!("the check option `{}` is not `name=value`", option.trim()))?;
            let value = value.trim();
            let rules = || value.split(',').map(|rule| rule.trim().to_owned());
            match key.trim() {
                "skip" if value == "all" => checks.skip_all = true,
                "skip" => checks.skipped.extend(rules()),
                "experimental" => {}
                "error" => {
                    checks.error = match value {
                        "1" | "t" | "T" | "TRUE" | "true" | "True" => true,
                        "0" | "f" | "F" | "FALSE" | "false" | "False" => false,
                        _ => {
                            return Err(format!("the check option `error` is true or false, not `{value}`"));
                        }
                    }
                }
                unknown => return Err(format!("unknown check option `{unknown}`")),
            }
        }
        Ok(checks)
    }

    /// Says whether a rule is looked at.
    pub(super) fn makes(&self, rule: &str) -> bool {
        !self.skip_all && !self.skipped.iter().any(|skipped| skipped.eq_ignore_ascii_case(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_or_named() {
        let checks = Checks::parse("skip=JSONArgsRecommended, NoEmptyContinuation;error=true").expect("good");
        assert!(!checks.makes("noemptycontinuation") && checks.makes("Other") && checks.error);
        assert!(!Checks::parse("skip=all").expect("good").makes("Other"));
        for (bad, named) in
            [("skip", "`skip`"), ("error=maybe", "`maybe`"), ("a=b", "`a`"), ("skip=all;", "``")]
        {
            assert!(Checks::parse(bad).expect_err(bad).contains(named), "{bad}");
        }
    }
}
