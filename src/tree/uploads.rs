//! Multipart uploads of ours that S3 may still have parts of: nobody else remembers them.
//!
//! Invariant: from the record of its beginning on an upload is in here until a record says that it was
//! completed, or aborted: so also after a crash none is left behind unknown. Its key's entry
//! names it as long as it is wanted.

use std::collections::BTreeMap;

use crate::types::RelKey;

use super::pending::PendingMap;

/// By S3's id, for which key.
#[derive(Debug, Default)]
pub(super) struct Uploads(BTreeMap<String, RelKey>);

impl Uploads {
    /// It was begun.
    pub(super) fn begun(&mut self, key: &RelKey, upload: &str) {
        if !upload.is_empty() {
            self.0.insert(upload.to_owned(), key.clone());
        }
    }

    /// It was completed or aborted.
    pub(super) fn ended(&mut self, upload: &str) {
        self.0.remove(upload);
    }

    /// They were in another folder of the bucket, which is out of reach.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// Those that no pending change names.
    pub(super) fn unwanted(&self, pending: &PendingMap) -> Vec<(RelKey, String)> {
        let is_wanted = |key: &RelKey, upload: &String| {
            pending.get(key).is_some_and(|entry| {
                let begun = entry.uploading.as_ref().map(|begun| &begun.upload);
                let staged = entry.staged.as_ref().map(|(_, staged, _)| staged);
                begun == Some(upload) || staged == Some(upload)
            })
        };
        let unwanted = self
            .0
            .iter()
            .filter(|(upload, key)| !is_wanted(key, upload));
        unwanted
            .map(|(upload, key)| (key.clone(), upload.clone()))
            .collect()
    }
}
