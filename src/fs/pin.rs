//! Files that match `pin=` are kept whole in the cache, as they are in the bucket now.
//!
//! Invariants:
//! - a round lists what the patterns need and fetches what is not there, one file at a time; what is
//!   there and unchanged costs no more than the listings;
//! - together they take at most half of the cache, and `FILES_MAX` files: what does not fit is counted
//!   and left to come and go like the rest;
//! - they are held against eviction until the round after, so a file that changed keeps its old version
//!   until then;
//! - what waits to be sent is here anyway.

use std::collections::BTreeMap;

use crate::read::{Hold, ReadError, Window};
use crate::tree::{Content, Freshness, Node, Seen};
use crate::types::{Kind, ObjectId, RelPath};

use super::pattern::{self, Pattern, States};
use super::{Fs, FsError, Result};

/// At most so many files are kept so.
const FILES_MAX: usize = 10_000;
/// Fetched at once.
const STEP: u64 = 1 << 20;

/// What a round found.
#[derive(Debug, Default)]
pub struct Pinned {
    /// Files that are here, whole.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of the pieces that this round had to fetch.
    pub fetched: u64,
    /// Files for which there is no room.
    pub left_out: usize,
    /// Files that vanished or changed while they were fetched.
    pub missed: usize,
    held: Vec<Hold>,
}

impl Fs {
    /// Makes sure that all files that match are here. Drop the answer of the round before after this.
    ///
    /// # Errors
    /// `Unreachable` while the bucket is silent, or what it said; what is here stays.
    pub async fn keep_pinned(&self, patterns: &[Pattern]) -> Result<Pinned> {
        let mut pinned = Pinned::default();
        let room = self.reader.cache_usage().1 / 2;
        for (path, (object, node)) in self.matching(patterns, &mut pinned.left_out).await? {
            if pinned.bytes + node.len > room {
                pinned.left_out += 1;
                continue;
            }
            let hold = self.reader.hold(&object);
            match self.fetch(&node).await {
                Ok(fetched) => {
                    pinned.files += 1;
                    pinned.bytes += node.len;
                    pinned.fetched += fetched;
                    pinned.held.push(hold);
                }
                Err(ReadError::Stale) => {
                    tracing::debug!(%path, "a pinned file changed while it was fetched");
                    pinned.missed += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(pinned)
    }

    /// The files that match and are versions in the bucket.
    async fn matching(
        &self,
        patterns: &[Pattern],
        left_out: &mut usize,
    ) -> Result<BTreeMap<RelPath, (ObjectId, Node)>> {
        let mut found = BTreeMap::new();
        let mut todo: Vec<(RelPath, States)> = vec![(RelPath::root(), pattern::start(patterns))];
        while let Some((dir, states)) = todo.pop() {
            let (names, is_listed) = match pattern::names(patterns, &states) {
                Some(names) => (names, false),
                None => {
                    self.know_names(&dir).await?;
                    (self.tree.view(|view| view.names(&dir)), true)
                }
            };
            for name in names {
                let (is_match, next) = pattern::step(patterns, &states, &name);
                if !is_match && next.is_empty() {
                    continue;
                }
                let path = dir.join(&name);
                let seen = match is_listed {
                    true => self.tree.view(|view| view.lookup(&path)),
                    false => self.look(&path).await?,
                };
                let node = match seen {
                    Seen::Here(node, _) => node,
                    Seen::NotHere(_) => continue,
                    Seen::Unknown if is_listed => continue,
                    Seen::Unknown => return Err(FsError::Unreachable),
                };
                match (node.kind, &node.content) {
                    (Kind::Dir, _) if !next.is_empty() => todo.push((path, next)),
                    (Kind::File, Content::Remote(..)) if is_match && found.len() == FILES_MAX => {
                        *left_out += 1;
                    }
                    (Kind::File, Content::Remote(object, _)) if is_match => {
                        found.insert(path, (object.clone(), *node));
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }

    /// All names of a directory, as of `ttl`.
    async fn know_names(&self, dir: &RelPath) -> Result<()> {
        let listed = self.tree.view(|view| view.listed(dir));
        match listed {
            Some(Freshness::Fresh) => Ok(()),
            _ => self.list_anew(dir).await.into_result(),
        }
    }

    /// Bytes that had to be fetched.
    async fn fetch(&self, node: &Node) -> std::result::Result<u64, ReadError> {
        let (extents, window) = (node.extents(), Window::default());
        let (mut at, mut fetched) = (0, 0);
        while at < node.len {
            let end = node.len.min(at + STEP);
            if !self.reader.is_local(&extents, at, end) {
                let size = usize::try_from(end - at).unwrap_or(usize::MAX);
                let read = self.reader.read_at(&extents, node.len, at, size, &window);
                fetched += read.await?.len() as u64;
            }
            at = end;
        }
        Ok(fetched)
    }
}
