//! How a version comes into the cache other than block by block: a whole data file by hard link,
//! or the blocks of another version by changing hands.
//!
//! Each is made beside, under a name that no lookup knows, and then named: entries first, data
//! second. A crash between leaves entries without data, or data without entries: misses.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::file::{Entries, LINKED, Name, Version, block_len, blocks_of, private};
use super::{BLOCK, Cache, Folder, Held, OVERHEAD, State, remove};
use crate::types::ObjectId;

/// What becomes of the version whose blocks another one takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hands {
    /// It was replaced: its data file becomes the other's.
    Change,
    /// It is still there: both name the same data file, until one of them is written to. Where
    /// the cap has no room for both, it loses its blocks.
    Share,
}

impl Cache {
    /// The file at `path`, whose bytes `0..size` are those of `object` at their own offsets,
    /// becomes its data: by hard link, or by a copy where there can be none. Reads it once.
    /// `false`: it could not be kept.
    pub fn adopt_file(&self, object: &ObjectId, size: u64, path: &Path) -> bool {
        let Some(on) = self.on.as_ref().filter(|on| (1..=on.max).contains(&size)) else {
            return false;
        };
        let (data, entries) = (on.temp(), on.temp());
        let done = on.adopt(object, size, path, &data, &entries);
        self.said(remove(&data));
        self.said(remove(&entries));
        self.said(done) == Some(true)
    }

    /// Those blocks of `from` that `keep` names become blocks of `to`, a version of `size` bytes;
    /// the caller knows that they hold the same bytes in both. Answers hold of `from`, which a
    /// reader that has it open keeps too: blocks that are written in `to` later are misses there.
    pub fn inherit(
        &self,
        from: &ObjectId,
        to: &ObjectId,
        size: u64,
        hands: Hands,
        keep: &dyn Fn(u64) -> bool,
    ) -> Option<Held> {
        let on = self.on.as_ref()?;
        let entries = on.temp();
        let done = on.inherit(from, to, size, hands, keep, &entries);
        self.said(remove(&entries));
        self.said(done).flatten().map(Held)
    }
}

impl Folder {
    fn adopt(
        &self,
        object: &ObjectId,
        size: u64,
        path: &Path,
        data: &Path,
        entries: &Path,
    ) -> io::Result<bool> {
        let name = Name::of(object);
        let incoming = size + blocks_of(size) * 8 + OVERHEAD;
        let copied = fs::hard_link(path, data).is_err();
        if copied {
            if !self.make_room(&mut self.state.lock(), Some(name), incoming) {
                return Ok(false);
            }
            let mut source = fs::File::open(path)?.take(size);
            io::copy(&mut source, &mut private().create_new(true).open(data)?)?;
        }
        let flags = if copied { 0 } else { LINKED };
        let made = Entries::create(entries, object, size, flags)?;
        made.checksum(&private().open(data)?, size)?;
        let state = &mut *self.state.lock();
        self.discard(state, name)?;
        if !copied && !self.has_cap(state, Some(name), incoming) {
            return Ok(false);
        }
        self.name(state, object, entries, || {
            fs::rename(data, name.dat(&self.dir))
        })?;
        // A longer file, or an index larger than was thought: the cap holds.
        Ok(self.has_cap(state, None, 0))
    }

    fn inherit(
        &self,
        from: &ObjectId,
        to: &ObjectId,
        size: u64,
        hands: Hands,
        keep: &dyn Fn(u64) -> bool,
        entries: &Path,
    ) -> io::Result<Option<Arc<Version>>> {
        let state = &mut *self.state.lock();
        let (base, name) = (Name::of(from), Name::of(to));
        let Some(version) = self.find(state, from)?.filter(|_| base != name) else {
            return Ok(None);
        };
        let was_reused = state.index.is_protected(base);
        let flags = match hands {
            Hands::Change => version.flags,
            Hands::Share => LINKED,
        };
        let made = Entries::create(entries, to, size, flags)?;
        let same = |block| block_len(size, block) == block_len(version.size, block) && keep(block);
        if made.copy(&version, blocks_of(size), &same)? == 0 {
            return Ok(None);
        }
        self.discard(state, name)?;
        let (old, new) = (base.dat(&self.dir), name.dat(&self.dir));
        let is_shared = hands == Hands::Share && {
            state.index.hold(base);
            let fits = self.has_cap(state, Some(name), version.allocated() + OVERHEAD);
            state.index.unpin(base);
            fits
        };
        if is_shared {
            self.name(state, to, entries, || fs::hard_link(&old, &new))?;
            inherit_use(state, was_reused, name);
            return Ok(Some(version));
        }
        self.name(state, to, entries, || fs::rename(&old, &new))?;
        inherit_use(state, was_reused, name);
        self.discard(state, base)?;
        if version.is_only(&new) {
            // Whole blocks stay: the last one may still be read as it was.
            version.shorten(size.next_multiple_of(BLOCK))?;
        }
        Ok(Some(version))
    }

    /// Gives the finished files of a version their names; on a failure it has none.
    fn name(
        &self,
        state: &mut State,
        object: &ObjectId,
        entries: &Path,
        name_data: impl FnOnce() -> io::Result<()>,
    ) -> io::Result<()> {
        let name = Name::of(object);
        let named = fs::rename(entries, name.idx(&self.dir)).and_then(|()| name_data());
        if let Err(error) = named {
            self.discard_quietly(state, name);
            return Err(error);
        }
        self.find(state, object).map(|_| ())
    }

    /// Gives the version a data file of its own, with the blocks it has. `None`: no room.
    pub(super) fn unshare(
        &self,
        name: Name,
        version: &Arc<Version>,
    ) -> io::Result<Option<Arc<Version>>> {
        let incoming = version.allocated() + OVERHEAD;
        if !self.make_room(&mut self.state.lock(), Some(name), incoming) {
            return Ok(None);
        }
        let (data, entries) = (self.temp(), self.temp());
        let copied = Entries::create(&entries, &version.object, version.size, 0)
            .and_then(|made| made.copy(version, blocks_of(version.size), &|_| true))
            .and_then(|_| self.copy_blocks(version, &data));
        let own = copied.and_then(|()| {
            let state = &mut *self.state.lock();
            if version.is_retired() {
                return Ok(None);
            }
            self.discard(state, name)?;
            let name_data = || fs::rename(&data, name.dat(&self.dir));
            self.name(state, &version.object, &entries, name_data)?;
            self.find(state, &version.object)
        });
        remove(&data)?;
        remove(&entries)?;
        own
    }

    fn copy_blocks(&self, version: &Version, data: &Path) -> io::Result<()> {
        let file = private().create_new(true).open(data)?;
        for block in 0..blocks_of(version.size) {
            if let Some(bytes) = version.get(block) {
                file.write_all_at(&bytes, block * BLOCK)?;
            }
        }
        Ok(())
    }
}

/// What grew by an append is used as often as it was before.
fn inherit_use(state: &mut State, was_reused: bool, name: Name) {
    if was_reused {
        state.index.reuse(name);
    }
}
