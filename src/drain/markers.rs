//! The markers of directories: one is made where a directory was emptied here.
//!
//! A server whose keys are paths has directories that nobody made: a marker put there is refused
//! as if it existed, and no version of it matches. There it goes unguarded, having been asked for.

use std::collections::{BTreeMap, HashSet};

use bytes::Bytes;

use super::fail::Fail;
use super::hands::Hands;
use crate::log::Record;
use crate::store::{ListRequest, Payload, StoreError};
use crate::types::{
    Attrs, Base, Headers, Kind, ObjectKey, ObjectMeta, Precondition, RelKey, RelPath, Seq, Want,
};

impl Hands {
    pub(super) async fn keep_emptied_dirs(&self, removed: &[(RelKey, Seq)]) -> Result<(), Fail> {
        let parents = removed.iter().filter_map(|(key, number)| {
            let parent = key.path().parent()?;
            Some((parent, *number))
        });
        let parents: BTreeMap<_, _> = parents.collect();
        let keys: HashSet<_> = removed.iter().map(|(key, _)| key).collect();
        let mut seen = HashSet::new();
        for (parent, number) in parents {
            let above = std::iter::successors(Some(parent), RelPath::parent);
            let mut above = above.filter(|dir| !dir.is_root());
            let bare = above.find(|dir| self.tree.is_bare_dir(dir));
            if let Some(dir) = bare.filter(|dir| seen.insert(dir.clone()))
                && self.is_last_below(&dir, &keys)
            {
                self.keep_dir(&dir, number).await?;
            }
        }
        Ok(())
    }

    /// Whether no other object below `dir` waits to be removed.
    fn is_last_below(&self, dir: &RelPath, removed: &HashSet<&RelKey>) -> bool {
        self.tree.pending(|all| {
            let prefix = dir.dir_prefix();
            let mut below = all.below(&prefix);
            !below.any(|(key, entry)| {
                entry.want == Want::Gone && entry.base != Base::Absent && !removed.contains(key)
            })
        })
    }

    async fn keep_dir(&self, dir: &RelPath, number: Seq) -> Result<(), Fail> {
        let request = ListRequest {
            prefix: dir.dir_prefix(),
            max_keys: 1,
            ..ListRequest::default()
        };
        let page = self.store.list(&request).await?;
        if !page.objects.is_empty() || !page.prefixes.is_empty() || page.unreadable > 0 {
            return Ok(());
        }
        let attrs = Attrs {
            kind: Kind::Dir,
            headers: Some(Headers::default()),
            ..Attrs::default()
        };
        let headers = self.dress(&attrs, number, true);
        let key = RelKey::dir(dir);
        let asked = self.tree.now();
        if let Some(meta) = self.put_marker(&ObjectKey::from(&key), &headers).await? {
            let meta = ObjectMeta {
                headers: Some(headers),
                ..meta
            };
            self.tree.learn(&key, Some(&meta), asked);
            self.tell_removal(&key, &meta)?;
        }
        Ok(())
    }

    /// Who removed the directory while its marker was on the way knows of none: it is what is to be
    /// removed. (Who comes later is told by the tree.)
    fn tell_removal(&self, key: &RelKey, marker: &ObjectMeta) -> Result<(), Fail> {
        let unaware = self.tree.pending(|all| {
            let entry = all.get(key)?;
            let is_unaware = entry.want == Want::Gone && entry.base == Base::Absent;
            is_unaware.then_some(entry.number)
        });
        if let Some(number) = unaware {
            self.record(Record::Conflict {
                key: key.clone(),
                number,
                base: Base::of(Some(&marker.id)),
                aside: None,
            })?;
        }
        Ok(())
    }

    /// Puts a marker where a listing showed nothing. `None`: somebody else did, or it is left out.
    async fn put_marker(
        &self,
        object: &ObjectKey,
        headers: &Headers,
    ) -> Result<Option<ObjectMeta>, Fail> {
        let nothing = Payload::of(Bytes::new());
        let mut when = match self.caps.lock().if_absent {
            true => Precondition::IfAbsent,
            false => Precondition::None,
        };
        loop {
            match self.store.put(object, &nothing, headers, &when).await {
                Ok(meta) => return Ok(Some(meta)),
                Err(StoreError::Precondition) if when != Precondition::None => {}
                Err(error) => return Err(error.into()),
            }
            let Some(met) = self.ask(object).await?.filter(|met| met.size == 0) else {
                return Ok(None);
            };
            when = match when {
                Precondition::IfMatch(etag) if etag != met.id.etag => return Ok(None),
                Precondition::IfAbsent if self.caps.lock().marker_guards => {
                    Precondition::IfMatch(met.id.etag)
                }
                _ => {
                    self.marker_unguarded();
                    Precondition::None
                }
            };
        }
    }

    /// The server refuses to compare the version of a marker that is there as believed.
    pub(super) fn marker_unguarded(&self) {
        let mut caps = self.caps.lock();
        caps.marker_guards = false;
        caps.unguarded += 1;
    }
}
