//! What is seen through the verbs, beside what the reference has.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};

use super::super::{Ino, ME, Stat, World};
use super::node::{Body, Node};
use super::reference::Reference;
use crate::types::Kind;

/// A name: what it is, its mode and, where it is told, its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) body: Body,
    pub(super) mode: u32,
    mtime: Option<i64>,
}

impl Shown {
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match &self.body {
            Body::File(bytes) | Body::Link(bytes) => Some(bytes),
            Body::Dir => None,
        }
    }
}

/// All names.
pub(super) type Seen = BTreeMap<String, Shown>;

/// All that the mount shows.
pub(super) async fn visible(world: &World) -> Seen {
    let mut all = Seen::new();
    let mut todo = vec![(Ino(1), String::new())];
    while let Some((dir, above)) = todo.pop() {
        let fh = world.fs.opendir(dir).await.unwrap();
        let names = world.read_names(fh).await.unwrap();
        world.fs.releasedir(fh);
        for name in names {
            let path = format!("{above}{name}");
            let stat = world.fs.lookup(dir, name.as_bytes()).await;
            let stat = stat.unwrap_or_else(|error| panic!("{path}: {error:?}"));
            let body = match stat.kind {
                Kind::Dir => {
                    todo.push((stat.ino, format!("{path}/")));
                    Body::Dir
                }
                Kind::Symlink => Body::Link(world.fs.readlink(stat.ino).await.unwrap().to_vec()),
                _ => Body::File(whole(world, &path, &stat).await),
            };
            let (mode, mtime) = (u32::from(stat.perm), Some(stat.mtime.secs));
            all.insert(path, Shown { body, mode, mtime });
        }
    }
    all
}

async fn whole(world: &World, path: &str, stat: &Stat) -> Vec<u8> {
    let read = async || {
        let fh = world.fs.open(stat.ino, libc::O_RDONLY, ME).await?.fh;
        let read = world.fs.read(stat.ino, fh, 0, 1 << 20).await;
        world.fs.release(stat.ino, fh).await?;
        read
    };
    let bytes = read()
        .await
        .unwrap_or_else(|error| panic!("{path}: {error:?}"));
    assert_eq!(stat.size, bytes.len() as u64, "the size of {path}");
    bytes.to_vec()
}

/// All that the reference has.
pub(super) fn wanted(model: &Reference) -> Seen {
    let shown = |node: &Node| Shown {
        body: node.body.clone(),
        mode: node.mode,
        mtime: node.mtime.filter(|_| node.body != Body::Dir),
    };
    model
        .all()
        .map(|(path, node)| (path.to_owned(), shown(node)))
        .collect()
}

pub(super) fn assert_same(seen: &Seen, wanted: &Seen, when: &dyn Display) {
    let is_same = |(seen, wanted): (&Shown, &Shown)| {
        seen.body == wanted.body
            && seen.mode == wanted.mode
            && (wanted.mtime.is_none() || seen.mtime == wanted.mtime)
    };
    let are_same = seen.keys().eq(wanted.keys()) && seen.values().zip(wanted.values()).all(is_same);
    assert!(
        are_same,
        "{when}:\n seen {}\n want {}",
        short(seen),
        short(wanted)
    );
}

fn short(all: &Seen) -> String {
    let mut text = String::new();
    for (path, Shown { body, mode, mtime }) in all {
        let what = match body {
            Body::Dir => "dir".into(),
            Body::Link(to) => format!("-> {}", String::from_utf8_lossy(to)),
            Body::File(bytes) => format!("{} B {:?}", bytes.len(), &bytes[..bytes.len().min(4)]),
        };
        write!(text, "\n  {path}: {what} {mode:o} {mtime:?}").unwrap();
    }
    text
}

pub(super) fn brief(all: &[(String, Vec<u8>)]) -> String {
    let one = |(key, bytes): &(String, Vec<u8>)| {
        format!(
            "{key}: {} B {:?}",
            bytes.len(),
            &bytes[..bytes.len().min(4)]
        )
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}
