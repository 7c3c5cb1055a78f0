//! Random operations against a reference model that knows nothing of logs, extents and drains: a
//! map from path to bytes or directory.
//!
//! After each operation the tree shows what the model has; after a reboot too; after the drain the
//! bucket holds exactly it, and a device that knows nothing shows it again.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug, PartialEq)]
enum Node {
    File(Vec<u8>),
    Dir,
}

type Model = BTreeMap<String, Node>;

#[derive(Clone, Debug)]
enum Action {
    Put(usize, Vec<u8>),
    Append(usize, Vec<u8>),
    WriteAt(usize, u64, Vec<u8>),
    Truncate(usize, u64),
    Rename(usize, usize),
    Exchange(usize, usize),
    Unlink(usize),
    Mkdir(usize),
    Rmdir(usize),
    Copy(usize, usize),
    Chmod(usize),
    Foreign(usize, Vec<u8>),
    Drain,
    Reboot,
}

const PATHS: [&str; 14] = [
    "a", "b", "c", "a/a", "a/b", "b/a", "b/b", "c/a", "a/a/a", "a/a/b", "b/b/a", "c/a/a", "d",
    "d/a",
];

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    (
        any::<u8>(),
        prop_oneof![8 => 0usize..40, 1 => 30_000usize..40_000, 1 => 60_000usize..140_000],
    )
        .prop_map(|(first, len)| {
            (0..len)
                .map(|i| first.wrapping_add((i / 7) as u8))
                .collect()
        })
}

fn action() -> impl Strategy<Value = Action> {
    let path = || 0..PATHS.len();
    prop_oneof![
        6 => (path(), bytes()).prop_map(|(p, b)| Action::Put(p, b)),
        4 => (path(), bytes()).prop_map(|(p, b)| Action::Append(p, b)),
        4 => (path(), 0u64..50_000, bytes()).prop_map(|(p, at, b)| Action::WriteAt(p, at, b)),
        2 => (path(), 0u64..50_000).prop_map(|(p, len)| Action::Truncate(p, len)),
        6 => (path(), path()).prop_map(|(a, b)| Action::Rename(a, b)),
        1 => (path(), path()).prop_map(|(a, b)| Action::Exchange(a, b)),
        3 => path().prop_map(Action::Unlink),
        4 => path().prop_map(Action::Mkdir),
        2 => path().prop_map(Action::Rmdir),
        2 => (path(), path()).prop_map(|(a, b)| Action::Copy(a, b)),
        1 => path().prop_map(Action::Chmod),
        2 => (path(), bytes()).prop_map(|(p, b)| Action::Foreign(p, b)),
        3 => Just(Action::Drain),
        1 => Just(Action::Reboot),
    ]
}

fn parent_is_dir(model: &Model, path: &str) -> bool {
    path.rsplit_once('/')
        .is_none_or(|(dir, _)| model.get(dir) == Some(&Node::Dir))
}

fn has_children(model: &Model, path: &str) -> bool {
    model
        .keys()
        .any(|other| other.starts_with(&format!("{path}/")))
}

fn write_at(old: &mut Vec<u8>, at: usize, new: &[u8]) {
    old.resize(old.len().max(at + new.len()), 0);
    old[at..at + new.len()].copy_from_slice(new);
}

/// Whether the rename is allowed, by rename(2).
fn may_rename(model: &Model, from: &str, to: &str) -> bool {
    let (Some(old), new) = (model.get(from), model.get(to)) else {
        return false;
    };
    if !parent_is_dir(model, to) || to.starts_with(&format!("{from}/")) {
        return false;
    }
    match (old, new) {
        (_, None) => true,
        (Node::File(_), Some(Node::File(_))) => true,
        (Node::Dir, Some(Node::Dir)) => from == to || !has_children(model, to),
        (Node::File(_), Some(Node::Dir)) | (Node::Dir, Some(Node::File(_))) => false,
    }
}

fn rename(model: &mut Model, from: &str, to: &str) {
    if from == to {
        return;
    }
    let below = format!("{from}/");
    let moved: Vec<String> = model
        .keys()
        .filter(|path| *path == from || path.starts_with(&below))
        .cloned()
        .collect();
    for path in moved {
        let node = model.remove(&path).unwrap();
        model.insert(format!("{to}{}", &path[from.len()..]), node);
    }
}

impl World {
    async fn edit(&self, path: &str, flags: i32, at: u64, bytes: &[u8]) -> Result<()> {
        let (ino, fh) = self.open(path, flags).await?;
        let written = self.write(ino, fh, at, bytes).await;
        self.close(ino, fh).await?;
        written
    }

    async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let (a, source) = self.open(from, libc::O_RDONLY).await?;
        let (b, target) = self
            .open(to, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC)
            .await?;
        let copied = self
            .fs
            .copy_file_range((source, 0), (target, 0), 1 << 30)
            .await;
        self.close(a, source).await?;
        self.close(b, target).await?;
        copied.map(|_| ())
    }

    /// What is visible, read through the verbs.
    async fn visible(&self) -> Model {
        let mut all = Model::new();
        let mut todo = vec![String::new()];
        while let Some(dir) = todo.pop() {
            for name in self.names(&dir).await.unwrap() {
                let path = if dir.is_empty() {
                    name
                } else {
                    format!("{dir}/{name}")
                };
                let node = match self.at(&path).await.unwrap().kind {
                    Kind::Dir => {
                        todo.push(path.clone());
                        Node::Dir
                    }
                    _ => Node::File(self.get(&path).await.unwrap()),
                };
                all.insert(path, node);
            }
        }
        all
    }
}

/// Carries `action` out on both; what the model does not allow must be refused.
async fn step(world: World, model: &mut Model, action: &Action) -> World {
    let is_file = |model: &Model, path: &str| matches!(model.get(path), Some(Node::File(_)));
    match action {
        Action::Put(p, bytes) => {
            let path = PATHS[*p];
            if parent_is_dir(model, path) && model.get(path) != Some(&Node::Dir) {
                world.put(path, bytes).await.unwrap();
                model.insert(path.into(), Node::File(bytes.clone()));
            }
        }
        Action::Append(p, bytes) if is_file(model, PATHS[*p]) => {
            let Some(Node::File(old)) = model.get_mut(PATHS[*p]) else {
                return world;
            };
            world
                .edit(PATHS[*p], libc::O_WRONLY, old.len() as u64, bytes)
                .await
                .unwrap();
            old.extend_from_slice(bytes);
        }
        Action::WriteAt(p, at, bytes) if is_file(model, PATHS[*p]) && !bytes.is_empty() => {
            let Some(Node::File(old)) = model.get_mut(PATHS[*p]) else {
                return world;
            };
            world
                .edit(PATHS[*p], libc::O_RDWR, *at, bytes)
                .await
                .unwrap();
            write_at(old, usize::try_from(*at).unwrap(), bytes);
        }
        Action::Truncate(p, len) if is_file(model, PATHS[*p]) => {
            let Some(Node::File(old)) = model.get_mut(PATHS[*p]) else {
                return world;
            };
            let ino = world.at(PATHS[*p]).await.unwrap().ino;
            let change = SetAttr {
                size: Some(*len),
                ..SetAttr::default()
            };
            world.fs.setattr(ino, change).await.unwrap();
            old.resize(usize::try_from(*len).unwrap(), 0);
        }
        Action::Copy(a, b) => {
            let (from, to) = (PATHS[*a], PATHS[*b]);
            let fits = parent_is_dir(model, to) && model.get(to) != Some(&Node::Dir);
            if is_file(model, from) && fits && from != to {
                world.copy(from, to).await.unwrap();
                model.insert(to.into(), model[from].clone());
            }
        }
        Action::Chmod(p) => {
            if let Ok(stat) = world.at(PATHS[*p]).await {
                let change = SetAttr {
                    mode: Some(0o600),
                    ..SetAttr::default()
                };
                world.fs.setattr(stat.ino, change).await.unwrap();
            }
        }
        Action::Foreign(p, bytes) => return foreign(world, model, PATHS[*p], bytes).await,
        Action::Drain => world.drain().await,
        Action::Reboot => return world.reboot().await,
        _ => step_names(&world, model, action).await,
    }
    world
}

/// Somebody else puts an object where nothing was.
async fn foreign(world: World, model: &mut Model, path: &str, bytes: &[u8]) -> World {
    if !parent_is_dir(model, path) || model.contains_key(path) {
        return world;
    }
    world.drain().await;
    world
        .twin
        .put_behind(path, bytes.to_vec(), Headers::default());
    model.insert(path.into(), Node::File(bytes.to_vec()));
    world.reboot().await
}

/// The actions on names.
async fn step_names(world: &World, model: &mut Model, action: &Action) {
    let is_file = |model: &Model, path: &str| matches!(model.get(path), Some(Node::File(_)));
    match action {
        Action::Rename(a, b) => {
            let (from, to) = (PATHS[*a], PATHS[*b]);
            let done = world.rename(from, to).await;
            assert_eq!(
                done.is_ok(),
                may_rename(model, from, to),
                "{from} -> {to}: {done:?}"
            );
            if done.is_ok() {
                rename(model, from, to);
            }
        }
        Action::Exchange(a, b) => {
            let (a, b) = (PATHS[*a], PATHS[*b]);
            if is_file(model, a) && is_file(model, b) {
                let (from, to) = (
                    world.parent(a).await.unwrap(),
                    world.parent(b).await.unwrap(),
                );
                world
                    .fs
                    .rename(from, to, RenameFlags::Exchange)
                    .await
                    .unwrap();
                let (x, y) = (model[a].clone(), model[b].clone());
                model.insert(a.into(), y);
                model.insert(b.into(), x);
            }
        }
        Action::Unlink(p) => {
            let done = world.unlink(PATHS[*p]).await;
            assert_eq!(done.is_ok(), is_file(model, PATHS[*p]), "{done:?}");
            if done.is_ok() {
                model.remove(PATHS[*p]);
            }
        }
        Action::Mkdir(p) => {
            let done = world.mkdir(PATHS[*p]).await;
            let may = parent_is_dir(model, PATHS[*p]) && !model.contains_key(PATHS[*p]);
            assert_eq!(done.is_ok(), may, "{done:?}");
            if may {
                model.insert(PATHS[*p].into(), Node::Dir);
            }
        }
        Action::Rmdir(p) => {
            let path = PATHS[*p];
            let may = model.get(path) == Some(&Node::Dir) && !has_children(model, path);
            let done = match world.parent(path).await {
                Ok((dir, name)) => world.fs.rmdir(dir, name).await,
                Err(error) => Err(error),
            };
            assert_eq!(done.is_ok(), may, "{path}: {done:?}");
            if may {
                model.remove(path);
            }
        }
        _ => {}
    }
}

impl World {
    /// A device that has never seen the bucket.
    async fn stranger(&self) -> (World, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        let (fs, drain) = start(&self.twin, dir.path(), TTL);
        let twin = Arc::clone(&self.twin);
        (
            World {
                fs,
                twin,
                drain,
                dir: tempfile::tempdir().unwrap(),
            },
            dir,
        )
    }
}

fn bucket(twin: &Twin) -> Model {
    let files = twin.keys().into_iter().filter(|key| !key.ends_with('/'));
    files
        .map(|key| {
            (
                key.clone(),
                Node::File(twin.object(&key).unwrap().0.to_vec()),
            )
        })
        .collect()
}

async fn check(actions: &[Action]) {
    let (mut world, mut model) = (World::new(), Model::new());
    for (index, action) in actions.iter().enumerate() {
        world = step(world, &mut model, action).await;
        let visible = world.visible().await;
        assert_same(&visible, &model, &format!("after step {index}, {action:?}"));
    }
    world = world.reboot().await;
    assert_same(&world.visible().await, &model, "after a reboot");
    world.drain().await;
    assert_eq!(world.pending(), Vec::<String>::new());
    let files: Model = model
        .iter()
        .filter(|(_, n)| **n != Node::Dir)
        .map(|(p, n)| (p.clone(), n.clone()))
        .collect();
    assert_same(&bucket(&world.twin), &files, "the bucket");
    assert_eq!(world.twin.uploads(), 0, "no upload is left behind");
    let (other, _dir) = world.stranger().await;
    assert_same(&other.visible().await, &model, "a stranger's view");
}

fn assert_same(seen: &Model, wanted: &Model, when: &str) {
    let short = |model: &Model| {
        let show = |node: &Node| match node {
            Node::Dir => "dir".into(),
            Node::File(b) => format!("{} B {:?}", b.len(), &b[..b.len().min(4)]),
        };
        model
            .iter()
            .map(|(path, node)| (path.clone(), show(node)))
            .collect::<Vec<_>>()
    };
    assert!(
        seen == wanted,
        "{when}:\n seen {:?}\n want {:?}",
        short(seen),
        short(wanted)
    );
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 400, ..ProptestConfig::default() })]
    #[test]
    fn any_sequence_of_operations_reboots_and_drains_equals_the_model(
        actions in prop::collection::vec(action(), 1..50)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(check(&actions));
    }
}
