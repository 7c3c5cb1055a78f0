//! What of the facts about the bucket the kept listings tell already, and facts read back from them.
//!
//! Invariant: a slot that is `told` is in the file as it is here; one that is not lies in a directory
//! in `untold`.

use std::time::Instant;

use super::remote::{Dir, Fact, Known, Remote, Slot};
use crate::types::{Name, RelPath, Seq};

/// Whether a directory is there, and its marker.
type Marker = Fact<Fact<Box<Known>>>;

/// What is to be told of a directory next.
#[derive(Debug)]
pub(super) struct Part {
    /// What was told of it before is void.
    pub(super) anew: bool,
    /// All of its names are known, and are told with this.
    pub(super) is_listed: bool,
    pub(super) gone: Vec<Name>,
    pub(super) names: Vec<(Name, Fact<Known>, Marker)>,
}

impl Remote {
    /// A directory of which not all is told.
    pub(super) fn untold(&self) -> Option<&RelPath> {
        self.untold.first()
    }

    /// At most `most` names of a directory, told by this. Once all are, the directory is.
    pub(super) fn tell(&mut self, path: &RelPath, most: usize) -> Option<Part> {
        let dir = self.dirs.get_mut(path)?;
        let mut part = Part {
            anew: !std::mem::replace(&mut dir.told, true),
            is_listed: false,
            gone: std::mem::take(&mut dir.gone),
            names: Vec::new(),
        };
        let mut untold = dir.names.iter_mut().filter(|(_, slot)| !slot.told);
        for (name, slot) in untold.by_ref().take(most) {
            slot.told = true;
            if slot.file.present().is_some() || slot.dir.present().is_some() {
                let (file, dir) = (slot.file.clone(), slot.dir.clone());
                part.names.push((name.clone(), file, dir));
            } else {
                part.gone.push(name.clone());
            }
        }
        if untold.next().is_none() {
            part.is_listed = dir.listed.is_some();
            self.untold.remove(path);
        }
        Some(part)
    }

    /// Nothing is to be told of the directory now.
    pub(super) fn is_told(&mut self, path: &RelPath) {
        self.untold.remove(path);
        if let Some(dir) = self.dirs.get_mut(path) {
            dir.gone = Vec::new();
        }
    }

    /// Nothing is told of the directory any more, until something about it changes.
    pub(super) fn leave_out(&mut self, path: &RelPath) {
        self.is_told(path);
        if let Some(dir) = self.dirs.get_mut(path) {
            dir.forget_told();
        }
    }

    /// All is to be told again.
    pub(super) fn tell_anew(&mut self) {
        self.dirs.values_mut().for_each(Dir::forget_told);
        self.untold = self.dirs.keys().cloned().collect();
    }

    /// Facts read back: these of a name.
    pub(super) fn put_kept(&mut self, dir: &RelPath, name: Name, slot: Slot) {
        let dir = self.dirs.entry(dir.clone()).or_default();
        dir.names.insert(name, slot);
    }

    /// Whether, read back, all names of a directory are known.
    pub(super) fn put_listed(&mut self, path: &RelPath, listed: Option<Instant>) {
        let dir = self.dirs.entry(path.clone()).or_default();
        (dir.listed, dir.told) = (listed, true);
    }

    /// What was read back of a name is void.
    pub(super) fn drop_kept_name(&mut self, path: &RelPath, name: &Name) {
        if let Some(dir) = self.dirs.get_mut(path) {
            dir.names.remove(name);
        }
    }

    /// What was read back of a directory is void.
    pub(super) fn drop_kept(&mut self, path: &RelPath) {
        self.dirs.remove(path);
    }

    /// What was read back, with our own results of the log, which `self` holds: those behind `as_of`
    /// are newer.
    pub(super) fn over(self, mut kept: Self, as_of: Seq, now: Instant) -> Self {
        for (key, seq) in &self.recent {
            if *seq <= as_of && kept.slot(&key.path()).is_some() {
                continue;
            }
            let known = self.known(key);
            let is_gone_dir = key.is_dir() && known.is_none();
            kept.result(key, known, *seq, now);
            if is_gone_dir && self.is_no_dir(&key.path()) {
                kept.forget_dir(&key.path(), now);
            }
        }
        kept
    }

    fn is_no_dir(&self, path: &RelPath) -> bool {
        let slot = self.slot(path);
        slot.is_none_or(|slot| slot.dir.present().is_none())
    }
}

impl Dir {
    pub(super) fn forget_told(&mut self) {
        (self.told, self.gone) = (false, Vec::new());
        self.names.values_mut().for_each(|slot| slot.told = false);
    }
}
