//! Names: one component, a path below the mount's root, and the key such a path has in the bucket.
//!
//! Invariants:
//! - a `Name` is 1..=255 bytes of UTF-8 without `/` and NUL, and is neither `.` nor `..`;
//! - a `RelPath` is such names joined by single `/`, or empty (the root). So a key from the bucket
//!   that would leave the mount, or that a kernel could not look up, is not a `RelPath`;
//! - a `RelKey` is a `RelPath` that is a file (`a/b`) or a directory's marker (`a/b/`).

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name of one component in bytes (Linux `NAME_MAX`).
pub const NAME_MAX: usize = 255;

/// Why bytes are not a name. The caller answers with an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameError {
    /// Empty, `.`, `..`, or with `/` or NUL: `EINVAL`.
    Invalid,
    /// Over 255 bytes: `ENAMETOOLONG`.
    TooLong,
    /// S3 keys are UTF-8, these bytes are not: `EILSEQ`.
    NotUtf8,
}

/// One valid component.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<str>);

impl Name {
    /// Checks one component.
    ///
    /// # Errors
    /// Says which rule it breaks.
    pub fn new(text: &str) -> Result<Self, NameError> {
        check(text).map(|()| Self(text.into()))
    }

    /// As `new`, from what the kernel hands over.
    ///
    /// # Errors
    /// `NotUtf8` too.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NameError> {
        Self::new(std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?)
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), NameError> {
    if text.is_empty() || text == "." || text == ".." || text.contains(['/', '\0']) {
        return Err(NameError::Invalid);
    }
    if text.len() > NAME_MAX {
        return Err(NameError::TooLong);
    }
    Ok(())
}

/// Names joined by `/`, relative to the mount's root. The root is empty.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelPath(Arc<str>);

impl RelPath {
    /// The root of the mount.
    #[must_use]
    pub fn root() -> Self {
        Self("".into())
    }

    /// Checks a whole path (`a/b/c`, no leading or trailing `/`).
    ///
    /// # Errors
    /// Of the first component that is none.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if !text.is_empty() {
            text.split('/').try_for_each(check)?;
        }
        Ok(Self(text.into()))
    }

    /// Whether this is the root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The text: no leading or trailing `/`, empty for the root.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of `name` in this directory.
    #[must_use]
    pub fn join(&self, name: &Name) -> Self {
        if self.is_root() {
            Self(Arc::clone(&name.0))
        } else {
            Self(format!("{self}/{name}").into())
        }
    }

    /// The directory it is in; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        Some(
            self.0
                .rfind('/')
                .map_or_else(Self::root, |at| Self(self.0[..at].into())),
        )
    }

    /// Its last component; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<Name> {
        (!self.is_root()).then(|| Name(self.0[self.0.rfind('/').map_or(0, |at| at + 1)..].into()))
    }

    /// Every key below this directory starts with this: `a/b/`, or nothing for the root.
    #[must_use]
    pub fn dir_prefix(&self) -> String {
        if self.is_root() {
            String::new()
        } else {
            format!("{self}/")
        }
    }

    /// Whether `self` is `dir` or lies below it.
    #[must_use]
    pub fn is_within(&self, dir: &Self) -> bool {
        dir.is_root()
            || self
                .0
                .strip_prefix(&*dir.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The same place below `to` as it has below `from`; `None` if it does not lie within `from`.
    #[must_use]
    pub fn rebased(&self, from: &Self, to: &Self) -> Option<Self> {
        if !self.is_within(from) {
            return None;
        }
        let rest = self.0[from.0.len()..].trim_start_matches('/');
        Some(match (to.is_root(), rest.is_empty()) {
            (_, true) => to.clone(),
            (true, false) => Self(rest.into()),
            (false, false) => Self(format!("{to}/{rest}").into()),
        })
    }
}

/// A key relative to the mount: a file's `a/b`, or a directory marker's `a/b/`.
/// Ordered as S3 lists: by bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RelKey(Arc<str>);

impl RelKey {
    /// The key of the file (or symlink) at `path`.
    #[must_use]
    pub fn file(path: &RelPath) -> Self {
        Self(Arc::clone(&path.0))
    }

    /// The key of the marker of the directory at `path`.
    #[must_use]
    pub fn dir(path: &RelPath) -> Self {
        Self(path.dir_prefix().into())
    }

    /// Reads a key as S3 lists it. `None` for one that is no path (`//`, `..`, too long, empty).
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let path = key.strip_suffix('/').unwrap_or(key);
        (!path.is_empty() && RelPath::new(path).is_ok()).then(|| Self(key.into()))
    }

    /// Whether it is a directory's marker.
    #[must_use]
    pub fn is_dir(&self) -> bool {
        self.0.ends_with('/')
    }

    /// The path it makes visible.
    #[must_use]
    pub fn path(&self) -> RelPath {
        RelPath(if self.is_dir() {
            self.0[..self.0.len() - 1].into()
        } else {
            Arc::clone(&self.0)
        })
    }

    /// The key's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for RelKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

macro_rules! shown {
    ($($kind:ty),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    )*};
}
shown!(Name, RelPath, RelKey);

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    #[test]
    fn keys_that_would_leave_the_mount_or_that_no_kernel_can_name_are_no_paths() {
        for key in [
            "",
            "/",
            "/a",
            "a//b",
            "../a",
            "a/..",
            "a/./b",
            "a\0b",
            &"x".repeat(256),
        ] {
            assert!(RelKey::parse(key).is_none(), "{key:?}");
        }
        for key in ["a", "a/", "a/b", "...", "a\nb", "日本", &"x".repeat(255)] {
            assert_eq!(RelKey::parse(key).unwrap().as_str(), key);
        }
    }

    #[test]
    fn a_sibling_with_the_same_beginning_is_not_within() {
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(path("a").is_within(&RelPath::root()));
        assert!(!path("ab").is_within(&path("a")));
    }

    #[test]
    fn rebasing_keeps_the_place_below() {
        assert_eq!(
            path("a/b/c").rebased(&path("a"), &path("x/y")),
            Some(path("x/y/b/c"))
        );
        assert_eq!(path("a").rebased(&path("a"), &path("x")), Some(path("x")));
        assert_eq!(path("ab").rebased(&path("a"), &path("x")), None);
    }

    #[test]
    fn parents_and_names_of_paths() {
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(RelPath::root()));
        assert_eq!(RelPath::root().parent(), None);
        assert_eq!(path("a/b").name().unwrap().as_str(), "b");
        assert_eq!(RelKey::dir(&path("a/b")).path(), path("a/b"));
    }
}
