//! What outlives a call into the tree: a question that is under way, data files that are read.

use std::sync::Arc;
use std::time::Instant;

use crate::types::{FileNo, ListPage, ObjectMeta, RelKey, RelPath, Seq};

use super::remote::Remote;
use super::{Tree, now};

/// A question to the bucket that is under way: own results after it win over its answer.
#[derive(Debug)]
pub struct Asked<'a> {
    pub(super) tree: &'a Tree,
    pub(super) seq: Seq,
    pub(super) started: Instant,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.tree.state.lock().remote.answered(self.seq);
    }
}

/// Data files that a draft reads from: they stay while this lives.
#[derive(Debug)]
pub struct Pin {
    pub(super) tree: Arc<Tree>,
    pub(super) files: Vec<FileNo>,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.tree.state.lock();
        for file in &self.files {
            if let Some(count) = state.pins.get_mut(file) {
                *count -= 1;
                if *count == 0 {
                    state.pins.remove(file);
                }
            }
        }
    }
}

impl Pin {
    /// Whether it keeps all that `other` keeps.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.files.iter().all(|file| self.files.contains(file))
    }
}

impl Asked<'_> {
    /// The position it was asked at.
    #[must_use]
    pub fn seq(&self) -> Seq {
        self.seq
    }

    /// Notes something of the answer, unless the root is another one since it was asked.
    fn learn<T>(&self, note: impl FnOnce(&mut Remote) -> T) -> Option<T> {
        let remote = &mut self.tree.state.lock().remote;
        remote.is_of_this_root(self.seq).then(|| note(remote))
    }

    /// A page of a listing of `path` has come.
    pub fn page(&self, path: &RelPath, page: &ListPage) {
        self.learn(|remote| {
            let at = now();
            remote.page(path, page, self.seq, at);
            remote.trim(path, self.started, at);
        });
    }

    /// The last page has come.
    pub fn listed(&self, path: &RelPath) {
        self.learn(|remote| remote.listed(path, self.started));
    }

    /// A page of a recursive listing has come.
    pub fn deep_page(&self, path: &RelPath, page: &ListPage) {
        self.learn(|remote| remote.deep_page(path, page, self.seq, now()));
    }

    /// Its last page has come.
    pub fn deep_listed(&self, path: &RelPath) {
        self.learn(|remote| remote.deep_listed(path, self.started));
    }

    /// A short listing of the keys that begin with `path` has come. Answers whether it decided.
    #[must_use]
    pub fn probed(&self, path: &RelPath, page: &ListPage) -> bool {
        let decided = self.learn(|remote| remote.probed(path, page, self.seq, now()));
        decided.unwrap_or(false)
    }

    /// Whether a key below the directory `path` exists.
    pub fn dir_probed(&self, path: &RelPath, is_there: bool) {
        self.learn(|remote| remote.dir_probed(path, is_there, self.seq, now()));
    }

    /// A HEAD's answer.
    pub fn head(&self, key: &RelKey, meta: Option<&ObjectMeta>) {
        self.tree.learn(key, meta, self.seq);
    }
}
