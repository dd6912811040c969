//! Owners: `--chown=app:staff`, and the user of WORKDIR.

use windlass_core::error::{Error, ErrorKind, Result};

/// Numbers of a user and a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The user.
    pub(crate) uid: u64,
    /// The group.
    pub(crate) gid: u64,
}

/// A user or group as written.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    Number(u64),
    Word(String),
}

/// `user[:group]` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnerSpec {
    user: Option<Name>,
    group: Option<Name>,
}

impl OwnerSpec {
    /// Reads `user`, `user:group`, `user:`, `:group`; numbers are taken as they are.
    ///
    /// # Errors
    /// `InvalidDockerfile` for a negative number or one beyond 32 bits.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let name = |part: &str| -> Result<Option<Name>> {
            if part.is_empty() {
                return Ok(None);
            }
            match part.parse::<i64>() {
                Ok(number) => {
                    u32::try_from(number).map(|number| Some(Name::Number(number.into()))).map_err(|_| {
                        Error::new(ErrorKind::InvalidDockerfile, format!("`{part}` is no id of an owner"))
                    })
                }
                Err(_) => Ok(Some(Name::Word(part.to_owned()))),
            }
        };
        // Nothing after the colon is the group 0.
        let group = group.map(|group| Ok(name(group)?.unwrap_or(Name::Number(0)))).transpose()?;
        Ok(Self { user: name(user)?, group })
    }

    /// Says whether a name in it has to be looked up in the image.
    pub(crate) fn needs_files(&self) -> bool {
        [&self.user, &self.group].into_iter().flatten().any(|name| matches!(name, Name::Word(_)))
    }

    /// Finds the numbers; `passwd` and `group` are the contents of these files of the image.
    ///
    /// A user without group brings its own. What is not found is 0, as for BuildKit; its name is
    /// in the second part of the result.
    pub(crate) fn find(&self, passwd: &[u8], group: &[u8]) -> (Owner, Vec<String>) {
        let mut owner = Owner::default();
        let mut unknown = Vec::new();
        match &self.user {
            Some(Name::Number(uid)) => owner = Owner { uid: *uid, gid: *uid },
            Some(Name::Word(name)) => match lookup(passwd, name) {
                Some(fields) => owner = Owner { uid: fields[0], gid: fields[1] },
                None => unknown.push(name.clone()),
            },
            None => {}
        }
        match &self.group {
            Some(Name::Number(gid)) => owner.gid = *gid,
            Some(Name::Word(name)) => match lookup(group, name) {
                Some(fields) => owner.gid = fields[0],
                None => unknown.push(name.clone()),
            },
            None => {}
        }
        (owner, unknown)
    }
}

/// The third and fourth fields of the line for `name`, as numbers; the fourth may be missing.
fn lookup(file: &[u8], name: &str) -> Option<[u64; 2]> {
    String::from_utf8_lossy(file).lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let third = fields.nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
        let fourth = fields.next().and_then(|field| field.parse().ok()).unwrap_or(0);
        Some([third, fourth])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &[u8] = b"root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:app\n";

    #[test]
    fn finds_names_and_takes_numbers() {
        for (text, uid, gid) in [
            ("app", 1000, 1001),
            ("app:staff", 1000, 50),
            ("app:7", 1000, 7),
            ("5", 5, 5),
            ("5:6", 5, 6),
            ("5:", 5, 0),
            ("app:", 1000, 0),
            (":staff", 0, 50),
            ("nobody", 0, 0),
            ("nobody:nogroup", 0, 0),
        ] {
            let spec = OwnerSpec::parse(text).expect(text);
            assert_eq!(spec.find(PASSWD, GROUP).0, Owner { uid, gid }, "{text}");
        }
        let unknown = OwnerSpec::parse("nobody:nogroup").expect("valid").find(PASSWD, GROUP).1;
        assert_eq!(unknown, ["nobody", "nogroup"]);
        assert!(OwnerSpec::parse("-1").is_err() && OwnerSpec::parse("4294967296").is_err());
    }
}
