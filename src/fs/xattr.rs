//! Extended attributes: the `user.` ones travel with the object; others are not supported.
//!
//! S3 keeps at most 2 KiB of user metadata with an object: more is refused before anything is done.

use std::sync::Arc;

use std::collections::BTreeMap;

use crate::tree::{Content, Node, Seen};
use crate::types::{Attrs, RelPath};

use super::attr::key_of;
use super::learn::Learnt;
use super::{Fs, FsError, Ino, Result};

/// S3's limit for all names and values of user metadata, less what the stamp takes.
const METADATA_MAX: usize = 2048 - 64;

impl Fs {
    /// One value.
    ///
    /// # Errors
    /// `NoAttr`, `NotSupported`.
    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        let name = user(name)?;
        let attrs = self.learnt(ino).await?;
        attrs
            .xattrs
            .and_then(|mut all| all.remove(&name))
            .ok_or(FsError::NoAttr)
    }

    /// Names, each ended by a NUL.
    ///
    /// # Errors
    /// Of the question to the bucket.
    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<u8>> {
        let attrs = self.learnt(ino).await?;
        let names = attrs.xattrs.unwrap_or_default();
        Ok(names
            .keys()
            .flat_map(|name| name.bytes().chain([0]))
            .collect())
    }

    /// Sets one. `flags`: `XATTR_CREATE`, `XATTR_REPLACE`.
    ///
    /// # Errors
    /// `Exists`, `NoAttr`, `MetadataTooBig`, `NotSupported`.
    pub async fn setxattr(
        self: &Arc<Self>,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        flags: i32,
    ) -> Result<()> {
        self.must_be_writable()?;
        let name = user(name)?;
        let mut attrs = self.learnt(ino).await?;
        let all = attrs.xattrs.get_or_insert_with(BTreeMap::new);
        match all.contains_key(&name) {
            true if flags & libc::XATTR_CREATE != 0 => return Err(FsError::Exists),
            false if flags & libc::XATTR_REPLACE != 0 => return Err(FsError::NoAttr),
            true | false => {}
        }
        all.insert(name, value.to_vec());
        let metadata = attrs.to_headers().metadata;
        let size: usize = metadata
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        if size > METADATA_MAX {
            return Err(FsError::MetadataTooBig);
        }
        let all = attrs.xattrs;
        self.set_attrs(ino, move |attrs| attrs.xattrs.clone_from(&all))
            .await
    }

    /// Removes one.
    ///
    /// # Errors
    /// `NoAttr`, `NotSupported`.
    pub async fn removexattr(self: &Arc<Self>, ino: Ino, name: &[u8]) -> Result<()> {
        self.must_be_writable()?;
        let name = user(name)?;
        let mut all = self.learnt(ino).await?.xattrs.unwrap_or_default();
        all.remove(&name).ok_or(FsError::NoAttr)?;
        let all = Some(all);
        self.set_attrs(ino, move |attrs| attrs.xattrs.clone_from(&all))
            .await
    }

    /// The attributes of a node, asked for if the bucket alone knows them.
    async fn learnt(&self, ino: Ino) -> Result<Attrs> {
        let open = self.names.lock().open_file(ino);
        let draft = open.and_then(|file| file.inner.lock().draft.as_ref().map(|d| d.attrs.clone()));
        if let Some(attrs) = draft.filter(|attrs| attrs.xattrs.is_some()) {
            return Ok(attrs);
        }
        let path = self.names.lock().path(ino).ok_or(FsError::NotFound)?;
        if path.is_root() {
            return Ok(self.root.lock().clone());
        }
        let node = self.node(&path)?;
        let is_known = node
            .attrs
            .as_ref()
            .is_some_and(|attrs| attrs.xattrs.is_some());
        if is_known || !matches!(node.content, Content::Remote(..)) {
            return Ok(node.attrs.unwrap_or_default());
        }
        match self.learner.head(&key_of(&path, node.kind)).await {
            Learnt::Yes => Ok(self.node(&path)?.attrs.unwrap_or_default()),
            Learnt::Silence => Err(FsError::Unreachable),
            Learnt::Refused(error) => Err(error.into()),
        }
    }

    fn node(&self, path: &RelPath) -> Result<Node> {
        match self.tree.view(|view| view.lookup(path)) {
            Seen::Here(node, _) => Ok(*node),
            Seen::NotHere(_) => Err(FsError::NotFound),
            Seen::Unknown => Err(FsError::Unreachable),
        }
    }
}

fn user(name: &[u8]) -> Result<String> {
    let name = std::str::from_utf8(name).map_err(|_| FsError::NotSupported)?;
    if name.starts_with("user.") {
        Ok(name.into())
    } else {
        Err(FsError::NotSupported)
    }
}
