//! Somebody else in the bucket, and a link that is down: what our side does not see yet, and what
//! may become of it, and of what was changed here meanwhile.
//!
//! The rules (design, 2.3): what somebody else wrote is replaced by a whole content of ours only;
//! what is built on an older version goes to a sibling with all of its bytes, mode and times are set
//! on theirs, a removal lets theirs be. What was changed here is under its name or a sibling's.
//!
//! Whether a change is waiting to be sent is asked of the machine: a drain that broke off may have
//! sent it or not.

use super::action::{Action, PATHS};
use super::look::{Seen, Shown, visible};
use super::node::{Body, Change, FILE_MODE};
use super::{Pair, RenameFlags};
use crate::types::{Headers, RelKey};

/// In the name of what was kept of ours where both changed something.
const MARK: &str = ".conflict-";

impl Pair {
    fn is_pending(&self, path: &str) -> bool {
        let key = RelKey::parse(path).unwrap();
        self.machine
            .on(async |world| world.fs.tree.pending(|all| all.get(&key).is_some()))
    }

    fn is_dir(&self, path: &str) -> bool {
        self.model
            .at(path)
            .is_some_and(|node| node.body == Body::Dir)
    }

    /// Whether all that leads to a path is a directory here.
    fn has_parents(&self, path: &str) -> bool {
        path.match_indices('/')
            .all(|(at, _)| self.is_dir(&path[..at]))
    }

    fn is_open(&self, path: &str) -> bool {
        (0..self.held.len()).any(|slot| self.model.path_of(slot) == Some(path))
    }

    /// Whether somebody else may write at a path: a name that is a file for one and a directory for
    /// another, and what our side has open, have tests of their own.
    fn is_theirs_to_change(&self, path: &str) -> bool {
        let below = format!("{path}/");
        let keys = self.machine.twin.keys();
        let is_in_the_way =
            |key: &String| key.starts_with(&below) || path.starts_with(&format!("{key}/"));
        self.has_parents(path)
            && !self.is_dir(path)
            && !self.is_open(path)
            && !keys.iter().any(is_in_the_way)
            && !self.theirs.keys().any(is_in_the_way)
    }

    pub(super) fn remote_put(&mut self, path: &str) {
        if !self.is_theirs_to_change(path) {
            return;
        }
        self.count += 1;
        let bytes = format!("what somebody else wrote: {}", self.count).into_bytes();
        self.machine
            .twin
            .put_behind(path, bytes.clone(), Headers::default());
        self.model.acked.insert((path.into(), bytes.clone()));
        self.theirs.insert(path.into(), Some(bytes));
        self.merge();
    }

    pub(super) fn remote_delete(&mut self, path: &str) {
        let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir);
        let keeps_dir = dir.is_empty() || self.machine.twin.object(&format!("{dir}/")).is_some();
        if !keeps_dir || !self.is_theirs_to_change(path) || !self.machine.twin.delete_behind(path) {
            return;
        }
        self.theirs.insert(path.into(), None);
        self.merge();
    }

    pub(super) fn set_link(&mut self, is_down: bool) {
        if is_down {
            // All is known then, so all is shown while it is down.
            self.machine.on(visible);
        }
        self.machine.set_link(is_down);
        self.is_down = is_down;
        self.merge();
    }

    /// What is seen at once: where the link is up, and nothing of ours waits to be sent.
    pub(super) fn merge(&mut self) {
        if self.is_down {
            return;
        }
        self.machine.age();
        for (path, theirs) in self.theirs.clone() {
            if self.is_pending(&path) || !self.has_parents(&path) {
                continue;
            }
            self.theirs.remove(&path);
            self.model.vanishes(&path);
            if let Some(bytes) = theirs {
                self.model.appears(&path, Body::File(bytes), FILE_MODE);
            }
        }
    }

    /// Whether a step would make a file of what is a directory elsewhere, or the other way round.
    pub(super) fn is_in_the_way(&self, action: &Action) -> bool {
        let meets = |path: &str, theirs: &String| {
            theirs.starts_with(&format!("{path}/")) || path.starts_with(&format!("{theirs}/"))
        };
        let (path, is_dir) = match *action {
            Action::Put(path, _) | Action::Append(path, _) | Action::Open(_, path, _) => {
                (path, false)
            }
            Action::Symlink(path, _) => (path, false),
            Action::Mkdir(path) => (path, true),
            Action::Rename(from, to, flags) => {
                let swaps = flags == RenameFlags::Exchange && self.is_dir(to);
                (to, self.is_dir(from) || swaps)
            }
            _ => return false,
        };
        let mut theirs = self.theirs.keys();
        theirs.any(|theirs| meets(path, theirs) || (is_dir && path == theirs))
    }

    /// What is open where both sides changed something is closed before it is sent.
    pub(super) fn close_disputed(&mut self) {
        for slot in 0..self.held.len() {
            let path = self.model.path_of(slot);
            if path.is_some_and(|path| self.theirs.contains_key(path)) {
                self.close(slot);
            }
        }
    }

    /// What became of what both sides changed, after something may have been sent.
    pub(super) fn settle(&mut self, seen: &Seen, when: &dyn std::fmt::Display) {
        let mut aside: Vec<String> = seen
            .keys()
            .filter(|path| path.contains(MARK))
            .cloned()
            .collect();
        aside.retain(|path| self.model.at(path).is_none());
        for (path, theirs) in self.theirs.clone() {
            let ours = self.model.at(&path);
            let ours = ours.map(|node| (node.body.clone(), node.origin.change(&path)));
            let there = self.machine.twin.object(&path);
            let sibling = ours.as_ref().and_then(|(body, _)| {
                let is_it = |name: &String| is_of(name, &path) && seen[name].body == *body;
                Some(aside.remove(aside.iter().position(is_it)?))
            });
            let shown = seen.get(&path);
            let fate = Fate {
                ours,
                theirs: theirs.map(Body::File),
                shown: shown.map(|shown| shown.body.clone()),
                there: there.map(|(bytes, _)| Body::File(bytes.to_vec())),
                is_aside: sibling.is_some(),
            };
            match fate.is_settled() {
                Ok(false) => continue,
                Ok(true) => {}
                Err(why) => panic!("{when}: {path}: {why}\n{fate:?}"),
            }
            self.theirs.remove(&path);
            self.adopt(&path, shown);
            if let Some(sibling) = sibling {
                self.adopt(&sibling, seen.get(&sibling));
            }
        }
        assert_eq!(aside, Vec::<String>::new(), "{when}: nobody's siblings");
    }

    fn adopt(&mut self, path: &str, shown: Option<&Shown>) {
        match shown {
            Some(shown)
                if self
                    .model
                    .at(path)
                    .is_none_or(|node| node.body != shown.body) =>
            {
                self.model.appears(path, shown.body.clone(), shown.mode);
            }
            Some(_) => {}
            None => self.model.vanishes(path),
        }
    }

    /// Whether a key holds what was acknowledged there, or at the name it is a sibling of.
    pub(super) fn was_acknowledged(&self, key: &str, bytes: &[u8]) -> bool {
        let all = &self.model.acked;
        let is_it = |path: &str| all.contains(&(path.to_owned(), bytes.to_vec()));
        is_it(key)
            || (key.contains(MARK) && PATHS.iter().any(|path| is_of(key, path) && is_it(path)))
    }
}

/// What was at a name that both sides changed, and what is there now.
#[derive(Debug)]
struct Fate {
    ours: Option<(Body, Change)>,
    theirs: Option<Body>,
    /// By our side.
    shown: Option<Body>,
    /// In the bucket.
    there: Option<Body>,
    /// Ours is kept under a sibling's name.
    is_aside: bool,
}

impl Fate {
    /// Whether it is decided; an error where that was against the rules.
    fn is_settled(&self) -> Result<bool, &'static str> {
        let is_theirs = self.shown.is_some() && self.shown == self.theirs;
        let is_waiting = self.there == self.theirs;
        match &self.ours {
            Some((_, Change::Whole | Change::BuildsOn)) if is_theirs && !self.is_aside => {
                Err("what was written here is nowhere")
            }
            _ if is_theirs => Ok(true),
            None if self.shown.is_none() && self.theirs.is_none() => Ok(true),
            None if self.shown.is_none() && is_waiting => Ok(false),
            None => Err("it was removed by somebody who never saw it"),
            Some((ours, change)) if self.shown.as_ref() == Some(ours) => match change {
                _ if is_waiting => Ok(false),
                Change::BuildsOn | Change::Metadata if self.theirs.is_some() => {
                    Err("what builds on an older version has replaced it")
                }
                _ => Ok(true),
            },
            // Nothing of it was changed here.
            Some((_, Change::Metadata | Change::Unsure)) if self.shown.is_none() && is_waiting => {
                Ok(true)
            }
            Some(_) => Err("it is neither"),
        }
    }
}

/// Whether a name is a sibling of `path`. (The names here have no ending.)
fn is_of(sibling: &str, path: &str) -> bool {
    sibling
        .strip_prefix(path)
        .is_some_and(|rest| rest.starts_with(MARK))
}
