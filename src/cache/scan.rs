//! What lies in the folder when it is opened: listed at once, looked at in the background.
//!
//! The list of names is taken before anybody writes, so a name on it that the index has learned
//! meanwhile is left alone. Nothing is read here but names, sizes and times: a file is believed
//! or not when it is opened. Files that are not named as ours are left alone.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::file::Name;

/// What the unfinished files of a dead process are called.
pub(super) const UNFINISHED: &str = "tmp";

/// The versions named in the folder, each once. Removes what a crash left unfinished.
pub(super) fn names(dir: &Path) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let file = entry.file_name();
        let Some((stem, kind)) = file.to_str().and_then(|text| text.rsplit_once('.')) else {
            continue;
        };
        match (kind, Name::parse(stem)) {
            ("dat" | "idx", Some(name)) => names.push(name),
            (UNFINISHED, _) => fs::remove_file(entry.path())?,
            _ => {}
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// One version as found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) name: Name,
    /// Bytes of disk.
    pub(super) bytes: u64,
    /// When its data was last used, as far as the file system tells; `None`: a file is missing.
    pub(super) used: Option<i64>,
}

/// Looks at both files of one version.
pub(super) fn look(dir: &Path, name: Name) -> Found {
    let (data, index) = (
        fs::symlink_metadata(name.dat(dir)),
        fs::symlink_metadata(name.idx(dir)),
    );
    let taken = |meta: &io::Result<fs::Metadata>| meta.as_ref().map_or(0, |m| m.blocks() * 512);
    Found {
        name,
        bytes: taken(&data) + taken(&index),
        used: index
            .is_ok()
            .then_some(data)
            .and_then(|data| data.ok().map(|meta| meta.mtime().max(meta.atime()))),
    }
}
