//! `kryptonfs export SOURCE TO [PATH]`: what is unsent, copied into a folder.
//!
//! | in the spool | in the folder |
//! |---|---|
//! | a file that is closed, all its bytes here | the file, with its mode and mtime |
//! | a file that is built on bytes of the bucket | `NAME.ranges`: what was written here, at its own place, zeros elsewhere; `NAME.ranges.json` says which is which |
//! | a symbolic link, a directory that was made | the same |
//! | bytes that were never closed | `NAME.partial-NUMBER`: the data file as it was written |
//! | what cannot be read of the log | `kryptonfs-aside/PIECE` |
//! | a removal, a device, a pipe | told, nothing is written |
//!
//! Invariants: the spool is only read (`--remove` asks its owner for the rest, after all was
//! flushed); bytes that were acknowledged are never removed from it; one failure leaves nothing
//! else out.

mod target;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::{print, spool};
use crate::disk::File;
use crate::tree::{Inspection, Pending, Unclosed};
use crate::types::{
    Extent, Extents, FileNo, Generation, Kind, NAME_MAX, RelKey, RelPath, Source, Want,
};
use target::{Look, Put, Run, Target};

/// Where what cannot be read goes, below the folder.
const ASIDE: &str = "kryptonfs-aside";
/// Of what nobody knows the name of.
const NAMELESS: &str = "nameless";

/// What came of it.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Lines for people.
    told: Vec<String>,
    /// What could not be written, and why.
    failed: Vec<String>,
    /// What is in the folder now and was never acknowledged.
    removable: Removable,
    matched: usize,
}

/// Files under `partial/` and `aside/`.
#[derive(Debug, Default)]
pub(super) struct Removable {
    pub(super) partials: Vec<FileNo>,
    pub(super) aside: Vec<String>,
}

/// The ranges of a file that are here, and where the rest is.
#[derive(Debug, Serialize)]
struct Manifest<'a> {
    version: u32,
    name: &'a str,
    len: u64,
    endpoint: Option<&'a str>,
    bucket: Option<&'a str>,
    prefix: Option<&'a str>,
    ranges: Vec<Range>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case", tag = "from")]
enum Range {
    /// In the file beside.
    Here { at: u64, len: u64 },
    /// In a version of an object.
    Bucket {
        at: u64,
        len: u64,
        key: String,
        etag: String,
        offset: u64,
    },
}

/// Copies what is unsent in `source`, of it what is at `path` or below, into the folder `to`.
pub(super) fn export(
    source: &Path,
    to: &Path,
    path: Option<&str>,
    remove: bool,
) -> Result<(), String> {
    let only = path.map(asked).transpose()?;
    let (folder, socket) = spool::of(source)?;
    let inspection = spool::inspect(&folder)?;
    let target = Target::open(to).map_err(|error| format!("{}: {error}", to.display()))?;
    let mut export = Export {
        inspection: &inspection,
        target: &target,
        to,
        only,
        done: Done::default(),
    };
    export.changes();
    export.unclosed();
    export.aside();
    let Done {
        told,
        failed,
        removable,
        matched,
    } = export.done;
    for line in told {
        print(&format!("{}\n", super::show::plain(&line)))?;
    }
    if let (0, Some(path)) = (matched, path) {
        return Err(format!("nothing of {path} is in {}", folder.display()));
    }
    if remove {
        let count = spool::discard(&folder, socket.as_deref(), &removable)?;
        print(&format!("{count} removed from the spool\n"))?;
    }
    for line in &failed {
        eprintln!("kryptonfs: not written: {}", super::show::plain(line));
    }
    match failed.len() {
        0 => Ok(()),
        count => Err(format!("{count} could not be written, all else was")),
    }
}

/// What was asked for, as a path of the mount.
fn asked(path: &str) -> Result<RelPath, String> {
    RelPath::new(path.trim_matches('/'))
        .map_err(|_| format!("{path} is no path in a mount: say it as seen from the mountpoint"))
}

struct Export<'a> {
    inspection: &'a Inspection,
    target: &'a Target,
    to: &'a Path,
    only: Option<RelPath>,
    done: Done,
}

impl Export<'_> {
    fn is_asked_for(&self, path: &RelPath) -> bool {
        self.only.as_ref().is_none_or(|only| path.is_within(only))
    }

    fn changes(&mut self) {
        let (mut folders, mut removals) = (Vec::new(), 0);
        for (key, entry) in self.inspection.pending().in_order() {
            // What lies in a spool is not known to be a path before it was looked at.
            let Some(key) = RelKey::parse(key.as_str()) else {
                self.fails(&key.to_string(), "its name leads out of the mount");
                continue;
            };
            let path = key.path();
            if !self.is_asked_for(&path) {
                continue;
            }
            match &entry.want {
                Want::Gone => removals += 1,
                Want::Open { .. } => {}
                Want::Object(generation) => {
                    self.done.matched += 1;
                    if key.is_dir() {
                        folders.push((path, generation.attrs.mode));
                    } else if let Err(error) = self.change(&key, entry, generation) {
                        self.change_fails(&path, &error);
                    }
                }
            }
        }
        // Deepest first: a folder that forbids it cannot be written to any more.
        folders.sort_by(|a, b| b.cmp(a));
        for (path, mode) in folders {
            match self.target.folder(&path, mode) {
                Ok(()) => self.wrote(&path, "directory", Put::Written),
                Err(error) => self.fails(path.as_str(), &error.to_string()),
            }
        }
        if removals > 0 {
            let line =
                format!("{removals} names wait to be removed from the bucket: nothing to write");
            self.done.told.push(line);
        }
    }

    fn change_fails(&mut self, path: &RelPath, error: &io::Error) {
        let is_gone = error.kind() == io::ErrorKind::NotFound;
        if is_gone && self.inspection.in_use().is_some() {
            self.done.told.push(format!("{path} was sent meanwhile"));
        } else {
            self.fails(path.as_str(), &error.to_string());
        }
    }

    fn change(&mut self, key: &RelKey, entry: &Pending, generation: &Generation) -> io::Result<()> {
        let path = key.path();
        let attrs = self.inspection.attrs(key, entry).unwrap_or_default();
        let pieces: Vec<&Extent> = generation.extents.iter().collect();
        match generation.attrs.kind {
            Kind::Symlink => {
                let target = self.link(generation)?;
                let put = self.target.symlink(&path, &target)?;
                self.wrote(&path, "link", put);
                return Ok(());
            }
            Kind::Fifo | Kind::Socket | Kind::Char(_) | Kind::Block(_) => {
                let line = format!("{path} is a pipe, a socket or a device: nothing to write");
                self.done.told.push(line);
                return Ok(());
            }
            Kind::File | Kind::Dir => {}
        }
        let opened = self.opened(&generation.extents)?;
        let runs: Vec<_> = pieces
            .iter()
            .filter_map(|piece| run(piece, &opened))
            .collect();
        let look = Look::of(&attrs);
        if runs.len() == pieces.len() {
            let put = self.target.file(&path, generation.len, &runs, look)?;
            self.wrote(&path, &super::show::bytes(generation.len), put);
            return Ok(());
        }
        let ranges = marked(&path, ".ranges")?;
        let put = self.target.file(&ranges, generation.len, &runs, look)?;
        let manifest = marked(&path, ".ranges.json")?;
        self.target
            .text(&manifest, &self.manifest(&path, generation)?)?;
        let ours: u64 = runs.iter().map(|run| run.len).sum();
        let told = format!(
            "{} of {}, the rest is in the bucket: {manifest}",
            super::show::bytes(ours),
            super::show::bytes(generation.len)
        );
        self.wrote(&ranges, &told, put);
        Ok(())
    }

    /// The spool files that are named, each once.
    fn opened(&self, extents: &Extents) -> io::Result<BTreeMap<FileNo, File>> {
        let files = extents.files().into_iter();
        files
            .map(|file| Ok((file, self.inspection.open(file)?)))
            .collect()
    }

    fn link(&self, generation: &Generation) -> io::Result<String> {
        let mut target = Vec::new();
        for piece in generation.extents.iter() {
            let Source::Local { file, offset } = piece.from else {
                return Err(io::Error::other("its target is in the bucket, not here"));
            };
            let len = usize::try_from(piece.len.min(4096)).map_err(io::Error::other)?;
            let mut bytes = vec![0; len];
            self.inspection
                .open(file)?
                .read_exact_at(&mut bytes, offset)?;
            target.extend_from_slice(&bytes);
        }
        String::from_utf8(target).map_err(io::Error::other)
    }

    fn manifest(&self, path: &RelPath, generation: &Generation) -> io::Result<String> {
        let binding = self.inspection.binding();
        let range = |piece: &Extent| match &piece.from {
            Source::Local { .. } => Range::Here {
                at: piece.at,
                len: piece.len,
            },
            Source::Remote { object, offset } => Range::Bucket {
                at: piece.at,
                len: piece.len,
                key: object.key.as_str().to_owned(),
                etag: object.etag.as_str().to_owned(),
                offset: *offset,
            },
        };
        let manifest = Manifest {
            version: 1,
            name: path.as_str(),
            len: generation.len,
            endpoint: binding.map(|binding| binding.endpoint.as_str()),
            bucket: binding.map(|binding| binding.bucket.as_str()),
            prefix: binding.map(|binding| binding.prefix.as_str()),
            ranges: generation.extents.iter().map(range).collect(),
        };
        Ok(serde_json::to_string_pretty(&manifest)? + "\n")
    }

    fn unclosed(&mut self) {
        for unclosed in self.inspection.unclosed() {
            let named = unclosed.name.as_deref().and_then(RelKey::parse);
            let path = named.map(|key| key.path());
            let path = path.map_or_else(|| RelPath::new(NAMELESS), Ok);
            let Ok(path) = path else { continue };
            if !self.is_asked_for(&path) {
                continue;
            }
            self.done.matched += 1;
            match self.partial(&path, unclosed) {
                Ok(()) => self.done.removable.partials.push(unclosed.file),
                Err(error) => self.fails(path.as_str(), &error.to_string()),
            }
        }
    }

    fn partial(&mut self, path: &RelPath, unclosed: &Unclosed) -> io::Result<()> {
        let file = self.inspection.open_unclosed(unclosed)?;
        let look = Look {
            mode: 0o600,
            modified: file.modified()?,
        };
        let len = file.len()?;
        let all = Run {
            at: 0,
            len,
            from: &file,
            offset: 0,
        };
        let path = marked(path, &format!(".partial-{:x}", unclosed.file.0))?;
        let put = self.target.file(&path, len, &[all], look)?;
        self.wrote(
            &path,
            &format!("{}, never closed", super::show::bytes(len)),
            put,
        );
        Ok(())
    }

    fn aside(&mut self) {
        if self.only.is_some() {
            return;
        }
        let done = self.pieces();
        if let Err(error) = done {
            self.fails(ASIDE, &error.to_string());
        }
    }

    fn pieces(&mut self) -> io::Result<()> {
        let reading = self.inspection.reading();
        for kept in reading.aside()? {
            let file = reading.open_aside(&kept.name)?;
            let len = file.len()?;
            self.piece(&kept.name, &file, 0, len)?;
            self.done.removable.aside.push(kept.name);
        }
        for piece in reading.unreadable()? {
            let file = reading.open(piece.segment)?;
            self.piece(&piece.name, &file, piece.at, piece.len)?;
            // The start that comes before the removal keeps it under this name.
            self.done.removable.aside.push(piece.name);
        }
        Ok(())
    }

    fn piece(&mut self, name: &str, from: &File, offset: u64, len: u64) -> io::Result<()> {
        let path =
            RelPath::new(&format!("{ASIDE}/{name}")).map_err(|_| io::ErrorKind::InvalidInput)?;
        let look = Look {
            mode: 0o600,
            modified: from.modified()?,
        };
        let all = Run {
            at: 0,
            len,
            from,
            offset,
        };
        let put = self.target.file(&path, len, &[all], look)?;
        self.wrote(
            &path,
            &format!("{}, of the log", super::show::bytes(len)),
            put,
        );
        Ok(())
    }

    fn wrote(&mut self, path: &RelPath, what: &str, put: Put) {
        let place = self.to.join(path.as_str());
        let how = match put {
            Put::Written => "wrote",
            Put::There => "there already:",
        };
        self.done
            .told
            .push(format!("{how} {} ({what})", place.display()));
    }

    fn fails(&mut self, name: &str, why: &str) {
        self.done.failed.push(format!("{name}: {why}"));
    }
}

/// `None`: it is in the bucket.
fn run<'a>(piece: &Extent, opened: &'a BTreeMap<FileNo, File>) -> Option<Run<'a>> {
    let Source::Local { file, offset } = piece.from else {
        return None;
    };
    Some(Run {
        at: piece.at,
        len: piece.len,
        from: opened.get(&file)?,
        offset,
    })
}

/// The path with `mark` behind its name, which is shortened if need be.
fn marked(path: &RelPath, mark: &str) -> io::Result<RelPath> {
    let name = path.name().ok_or(io::ErrorKind::InvalidInput)?;
    let stem = name.as_str();
    let mut fits = stem.len().min(NAME_MAX - mark.len());
    while !stem.is_char_boundary(fits) {
        fits -= 1;
    }
    let above = path
        .parent()
        .map_or(String::new(), |above| above.dir_prefix());
    RelPath::new(&format!("{above}{}{mark}", &stem[..fits]))
        .map_err(|_| io::ErrorKind::InvalidInput.into())
}
