//! What the handles of one inode share: its draft while it is dirty, and which content it shows.
//!
//! Invariants:
//! - an inode shows one foreign version for as long as it has a handle; changes made here show at
//!   once. What somebody else put in its place is met by a new inode (`fs/open.rs`);
//! - a clean file keeps no extents of spool files: they are looked up in the tree for each read, so
//!   the spool may let go of what S3 has;
//! - `seal` is held by whoever makes a generation of it: one at a time.
//!
//! Lock order: this file's lock is taken before the table's and the tree's, and none of them is held
//! across an await.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::tree::{Content, Node};
use crate::types::{ObjectId, Seq};

use super::Ino;
use super::draft::{Draft, Writer};
use super::unclosed::Watch;

/// Which content an open inode shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// This version, written by somebody else (or before this run).
    Foreign(ObjectId, u64),
    /// Whatever the tree has for its name, from our generation with this number on.
    Own(Seq),
}

impl Shown {
    pub(super) fn of(node: &Node) -> Self {
        match &node.content {
            Content::Pending(_, number) | Content::Open(number) => Self::Own(*number),
            Content::Remote(_, Some(number)) => Self::Own(*number),
            Content::Remote(id, None) => Self::Foreign(id.clone(), node.len),
            Content::None => Self::Own(Seq(0)),
        }
    }

    /// Whether `node` is this content, or one that was made from it here.
    pub(super) fn continues_as(&self, node: &Node) -> bool {
        match (self, Self::of(node)) {
            (Self::Own(mine), Self::Own(number)) => number >= *mine,
            (Self::Foreign(..), Self::Own(_)) => true,
            (Self::Foreign(mine, _), Self::Foreign(id, _)) => *mine == id,
            (Self::Own(_), Self::Foreign(..)) => false,
        }
    }
}

/// What the lock of an open file guards.
#[derive(Debug, Default)]
pub(super) struct Inner {
    pub(super) handles: usize,
    pub(super) writers: usize,
    pub(super) draft: Option<Draft>,
    pub(super) writer: Option<Writer>,
    pub(super) shown: Option<Shown>,
    /// The last generation made of it: whoever finds nothing left to seal waits for its flush.
    pub(super) sealed: Option<Seq>,
    /// What the kernel's pages were made from.
    pub(super) pages: Option<Shown>,
    /// Somebody looks after the draft (`fs/unclosed.rs`), by what was seen of it last.
    pub(super) watch: Option<Watch>,
    /// The disk failed to take this file's bytes: nothing of it is acknowledged any more.
    pub(super) poisoned: Option<i32>,
}

impl Inner {
    /// Whether it is being changed here: then it keeps its name and content, whatever the bucket
    /// holds meanwhile (its upload will find out).
    pub(super) fn is_ours(&self) -> bool {
        self.draft.is_some() || self.writers > 0
    }

    /// Whether `node`, at its name now, is another content than the one it shows.
    pub(super) fn differs(&self, node: &Node) -> bool {
        let shown = self.shown.as_ref();
        self.handles > 0 && shown.is_some_and(|shown| !shown.continues_as(node))
    }

    /// Our own change `seq` is what it shows from now on; the kernel's pages stay right.
    pub(super) fn shows(&mut self, seq: Seq) {
        if self.pages.is_some() && self.pages == self.shown {
            self.pages = Some(Shown::Own(seq));
        }
        self.shown = Some(Shown::Own(seq));
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct OpenFile {
    pub(super) ino: Ino,
    pub(super) inner: Mutex<Inner>,
    pub(super) seal: Arc<Semaphore>,
}

impl OpenFile {
    pub(super) fn new(ino: Ino) -> Self {
        Self {
            ino,
            inner: Mutex::default(),
            seal: Arc::new(Semaphore::new(1)),
        }
    }

    /// One that its creator, who may write, has open.
    pub(super) fn created(ino: Ino, draft: Draft, seq: Seq) -> Arc<Self> {
        let shown = Some(Shown::Own(seq));
        let inner = Inner {
            handles: 1,
            writers: 1,
            draft: Some(draft),
            pages: shown.clone(),
            shown,
            ..Inner::default()
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            ..Self::new(ino)
        })
    }
}
