//! A tree of files as a value, to be compared with another.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest, Sha256};

/// One name in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// `f`, `d`, `l`, or `?`.
    pub(crate) kind: char,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// 0 for directories.
    pub(crate) size: u64,
    /// Of a file's content or a link's target; empty for directories.
    pub(crate) sha256: String,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, i64),
}

/// Names below the root, with `/` between the components.
pub(crate) type Tree = BTreeMap<String, Node>;

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    /// Modes and owners of files and links.
    pub(crate) attributes: bool,
    /// Modes and owners of directories.
    pub(crate) of_directories: bool,
    /// mtimes of what `dated` says.
    pub(crate) times: bool,
}

impl Look {
    pub(crate) const ALL: Self = Self {
        attributes: true,
        of_directories: true,
        times: true,
    };
}

/// Reads all below `root`.
pub(crate) fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    walk(root, "", &mut tree);
    tree
}

fn walk(dir: &Path, prefix: &str, tree: &mut Tree) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    for entry in entries {
        let entry = entry.unwrap_or_else(|error| panic!("in {}: {error}", dir.display()));
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let node = read_node(&entry.path());
        let is_dir = node.kind == 'd';
        tree.insert(name.clone(), node);
        if is_dir {
            walk(&entry.path(), &format!("{name}/"), tree);
        }
    }
}

/// Reads one name; the attributes after the content.
pub(crate) fn read_node(path: &Path) -> Node {
    let failed = |error: std::io::Error| -> ! { panic!("{}: {error}", path.display()) };
    let kind_of = |meta: &fs::Metadata| match meta.file_type() {
        kind if kind.is_file() => 'f',
        kind if kind.is_dir() => 'd',
        kind if kind.is_symlink() => 'l',
        _ => '?',
    };
    let before = fs::symlink_metadata(path).unwrap_or_else(|error| failed(error));
    let content = match kind_of(&before) {
        'f' => fs::read(path).unwrap_or_else(|error| failed(error)),
        'l' => fs::read_link(path)
            .unwrap_or_else(|error| failed(error))
            .into_os_string()
            .into_encoded_bytes(),
        _ => Vec::new(),
    };
    let meta = fs::symlink_metadata(path).unwrap_or_else(|error| failed(error));
    let kind = kind_of(&meta);
    if kind == 'f' {
        assert_eq!(
            meta.len(),
            content.len() as u64,
            "stat and read of {} disagree",
            path.display()
        );
    }
    Node {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        size: if kind == 'd' { 0 } else { meta.len() },
        sha256: if kind == 'd' {
            String::new()
        } else {
            sha256(&content)
        },
        mtime: (meta.mtime(), meta.mtime_nsec()),
    }
}

/// In hexadecimal.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    Sha256::digest(bytes)
        .iter()
        .fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// What differs, a line each. `dated` says of which names the mtime is compared.
pub(crate) fn differences(
    left: &Tree,
    right: &Tree,
    look: Look,
    dated: impl Fn(&str) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for (name, one) in left {
        let Some(other) = right.get(name) else {
            found.push(format!("only left: {name}"));
            continue;
        };
        let mut one = one.clone();
        let wanted = if one.kind == 'd' {
            look.attributes && look.of_directories
        } else {
            look.attributes
        };
        if !wanted {
            (one.mode, one.uid, one.gid) = (other.mode, other.uid, other.gid);
        }
        if one.kind == 'l' {
            one.mode = other.mode;
        }
        if !(look.times && dated(name) && wanted) {
            one.mtime = other.mtime;
        }
        if one != *other {
            found.push(format!("{name}: {one:?} against {other:?}"));
        }
    }
    let only_right = right.keys().filter(|name| !left.contains_key(*name));
    found.extend(only_right.map(|name| format!("only right: {name}")));
    found
}

/// Panics with all that differs.
pub(crate) fn assert_same(
    what: &str,
    left: &Tree,
    right: &Tree,
    look: Look,
    dated: impl Fn(&str) -> bool,
) {
    let found = differences(left, right, look, dated);
    let shown = found.len().min(20);
    let (some, all) = (found[..shown].join("\n"), found.len());
    assert!(
        found.is_empty(),
        "{what}: {all} differ, the first are\n{some}"
    );
}
