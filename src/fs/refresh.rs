//! `kryptonfs refresh`: what is known of a path is not believed any more, and the path is asked for.
//!
//! Invariant: nothing is forgotten, it only counts as old. If the bucket is silent it is still shown.

use crate::tree::Seen;
use crate::types::{Kind, RelPath};

use super::learn::Learnt;
use super::{Fs, Result};

impl Fs {
    /// Has the bucket asked for `path` now (of a directory: for its names), and for all below it when
    /// somebody looks there; the kernel forgets the names of files. Files that are open stay as they are.
    ///
    /// # Errors
    /// `Unreachable` if the bucket is silent, or what it said.
    pub async fn refresh(&self, path: &RelPath) -> Result<()> {
        self.tree.doubt(path);
        if let Some(forgetter) = self.forgetter.get() {
            let names = self.names.lock().files_at_and_below(path);
            for (parent, name) in names {
                (forgetter.0)(parent, name.as_str().as_bytes());
            }
        }
        let is_dir = |seen: &Seen| matches!(seen, Seen::Here(node, _) if node.kind == Kind::Dir);
        let seen = self.tree.view(|view| view.lookup(path));
        let learnt = if is_dir(&seen) {
            self.list_anew(path).await
        } else {
            match self.learner.name(path, &seen).await {
                Learnt::Yes => {
                    // A file that vanished may have become a directory: one more question tells.
                    let again = self.tree.view(|view| view.lookup(path));
                    match again {
                        Seen::Unknown => self.learner.name(path, &again).await,
                        Seen::Here(..) | Seen::NotHere(_) => Learnt::Yes,
                    }
                }
                other => other,
            }
        };
        learnt.into_result()
    }

    /// Asks for all names of a directory.
    pub(super) async fn list_anew(&self, path: &RelPath) -> Learnt {
        let listing = self.learner.listing_anew(path);
        let mut pages = 0;
        loop {
            pages += 1;
            let learnt = self.learner.pages(&listing, pages, false).await;
            // One that has ended has no more pages than it has.
            if learnt != Learnt::Yes || listing.pages() < pages {
                return learnt;
            }
        }
    }
}
