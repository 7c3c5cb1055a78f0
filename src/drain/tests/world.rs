//! The rooms the drain stands on, for its tests: real, but for the bucket.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::super::*;
use crate::log::{self, Binding, Change, LogError};
use crate::store::fault::Fault;
use crate::store::layer::{Layer, Layered};
use crate::store::twin::Twin;
use crate::store::{Op, Result as StoreResult, StoreError};
use crate::types::{
    Attrs, Base, Extent, Extents, FileNo, Generation, Kind as NodeKind, RelKey, Seq, Source, Time,
};

pub(super) const MIB: u64 = 1 << 20;
/// What is not held back, where nothing is.
const OPEN: Op = Op::ListParts;

/// Holds back every request of one kind until it is let through.
#[derive(Debug)]
pub(super) struct Gate {
    op: Op,
    came: Semaphore,
    may_pass: Semaphore,
}

#[async_trait]
impl Layer for Gate {
    type Held = ();

    async fn before(&self, op: Op, _up: u64) -> StoreResult<()> {
        if op == self.op {
            self.came.add_permits(1);
            self.may_pass.acquire().await.unwrap().forget();
        }
        Ok(())
    }
}

impl Gate {
    pub(super) async fn comes(&self) {
        self.came.acquire().await.unwrap().forget();
    }

    /// Whether one came that nobody asked about yet.
    pub(super) fn has_come(&self) -> bool {
        self.came.available_permits() > 0
    }

    pub(super) fn lets_pass(&self, requests: usize) {
        self.may_pass.add_permits(requests);
    }
}

pub(super) struct World {
    pub(super) twin: Twin,
    pub(super) fault: Arc<Fault>,
    pub(super) gate: Arc<Gate>,
    pub(super) tree: Arc<Tree>,
    pub(super) log: Arc<Log>,
    pub(super) drain: Handle,
    pub(super) settings: Config,
    dir: tempfile::TempDir,
}

pub(super) fn no_link() -> StoreError {
    StoreError::Link("no answer".into())
}

pub(super) fn key(text: &str) -> RelKey {
    RelKey::parse(text).unwrap()
}

pub(super) fn attrs(mode: u32) -> Attrs {
    let time = Time { secs: 1, nanos: 0 };
    Attrs::new(NodeKind::File, mode, 1, 2, time)
}

pub(super) fn start(twin: &Twin, gated: Op, settings: &Config, dir: tempfile::TempDir) -> World {
    let spool = dir.path().join("spool");
    let config = log::Config {
        dir: spool.clone(),
        binding: Binding {
            endpoint: "twin".into(),
            bucket: "b".into(),
            prefix: String::new(),
        },
        spool_max: 1 << 30,
        disk_reserve: 0,
    };
    let ttl = Duration::from_secs(60);
    let opened = Tree::open(config, &spool.join("memory"), ttl).unwrap();
    let gate = Arc::new(Gate {
        op: gated,
        came: Semaphore::new(0),
        may_pass: Semaphore::new(0),
    });
    if gated == OPEN {
        gate.lets_pass(1 << 20);
    }
    let store = Layered::new(Arc::new(twin.clone()), Arc::clone(&gate));
    let (store, fault) = Fault::over(Arc::new(store));
    let read = crate::read::Config {
        cache_dir: dir.path().join("cache"),
        disk_reserve: 0,
        ..Default::default()
    };
    let store: Arc<dyn ObjectStore> = store;
    let reader = Reader::new(read, Arc::clone(&store), Arc::clone(opened.log.spool()));
    let (tree, log) = (opened.tree, opened.log);
    let drain = super::start(
        Arc::clone(&tree),
        Arc::clone(&log),
        reader,
        store,
        settings.clone(),
    );
    World {
        twin: twin.clone(),
        fault,
        gate,
        tree,
        log,
        drain,
        settings: settings.clone(),
        dir,
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::gated(OPEN)
    }

    pub(super) fn gated(op: Op) -> Self {
        Self::with(op, ConflictPolicy::LastWriter)
    }

    pub(super) fn with(op: Op, conflict: ConflictPolicy) -> Self {
        let settings = Config {
            conflict,
            ..Self::settings()
        };
        Self::of(op, settings)
    }

    pub(super) fn of(op: Op, settings: Config) -> Self {
        let dir = tempfile::tempdir().unwrap();
        start(&Twin::new(), op, &settings, dir)
    }

    pub(super) fn settings() -> Config {
        Config {
            linger: Duration::from_secs(3600),
            part_size: Some(8 * MIB),
            ..Config::default()
        }
    }

    pub(super) async fn reboot(self) -> Self {
        self.drain.stop().await;
        let Self {
            twin,
            fault,
            gate,
            tree,
            log,
            drain,
            settings,
            dir,
        } = self;
        drop((fault, gate, tree, log, drain));
        start(&twin, OPEN, &settings, dir)
    }

    /// What the mount would show at a key: its extents and length.
    pub(super) fn visible(&self, at: &str) -> (Extents, u64) {
        let pending = self.tree.pending(|all| {
            let entry = all.get(&key(at))?;
            let generation = entry.generation()?;
            Some((generation.extents.clone(), generation.len))
        });
        pending.unwrap_or_else(|| {
            let (bytes, meta) = self.twin.object(at).unwrap();
            let len = bytes.len() as u64;
            (Extents::whole(meta.id, len), len)
        })
    }

    fn base(&self, at: &str) -> Base {
        let pending = self
            .tree
            .pending(|all| all.get(&key(at)).map(|entry| entry.base.clone()));
        pending.unwrap_or_else(|| {
            let there = self.twin.object(at);
            Base::of(there.as_ref().map(|(_, meta)| &meta.id))
        })
    }

    pub(super) fn set(&self, at: &str, want: Want, inline: &[u8]) -> Seq {
        let change = Change {
            key: key(at),
            want,
            base: self.base(at),
            number: None,
        };
        let inline = inline.to_vec();
        let change = || Ok::<_, LogError>((vec![change], inline));
        self.tree.change(|_| change()).unwrap()
    }

    pub(super) fn object(
        &self,
        at: &str,
        extents: Extents,
        len: u64,
        attrs: Attrs,
        inline: &[u8],
    ) -> Seq {
        let generation = Generation {
            extents,
            len,
            attrs,
        };
        self.set(at, Want::Object(Arc::new(generation)), inline)
    }

    pub(super) fn write(&self, at: &str, bytes: &[u8]) -> Seq {
        let mut extents = Extents::default();
        extents.put(inline(0, bytes));
        self.object(at, extents, bytes.len() as u64, attrs(0o644), bytes)
    }

    pub(super) fn append(&self, at: &str, bytes: &[u8]) -> Seq {
        let (mut extents, len) = self.visible(at);
        extents.put(inline(len, bytes));
        self.object(at, extents, len + bytes.len() as u64, attrs(0o644), bytes)
    }

    pub(super) fn chmod(&self, at: &str, mode: u32) -> Seq {
        let (extents, len) = self.visible(at);
        self.object(at, extents, len, attrs(mode), &[])
    }

    pub(super) fn rename(&self, from: &str, to: &str) {
        let (extents, len) = self.visible(from);
        let generation = Generation {
            extents,
            len,
            attrs: attrs(0o644),
        };
        let change = |at: &str, want| Change {
            key: key(at),
            want,
            base: self.base(at),
            number: None,
        };
        let changes = vec![
            change(to, Want::Object(Arc::new(generation))),
            change(from, Want::Gone),
        ];
        let changes = || Ok::<_, LogError>((changes, Vec::new()));
        self.tree.change(|_| changes()).unwrap();
    }

    /// A large new file, in a data file of the spool.
    pub(super) fn write_large(&self, at: &str, len: u64) {
        let byte = |i: u64| u8::try_from(i % 251).unwrap();
        let bytes: Vec<u8> = (0..len).map(byte).collect();
        self.write_spooled(at, &bytes);
    }

    /// A new file in a data file of the spool.
    pub(super) fn write_spooled(&self, at: &str, bytes: &[u8]) {
        let len = bytes.len() as u64;
        let file = self.log.spool().create().unwrap();
        file.write_at(bytes, 0).unwrap();
        file.flush().unwrap();
        let mut extents = Extents::default();
        extents.put(Extent {
            at: 0,
            len,
            from: Source::Local {
                file: file.number(),
                offset: 0,
            },
        });
        self.object(at, extents, len, attrs(0o644), &[]);
    }

    pub(super) async fn drained(&self) {
        self.drain.hurry();
        let drained = tokio::time::timeout(Duration::from_secs(60), self.drain.drained());
        let pending = || {
            self.tree.pending(|all| {
                let shown = |(key, entry)| format!("{key}: {entry:?}");
                all.in_order().map(shown).collect::<Vec<_>>()
            })
        };
        let done = drained.await;
        assert_eq!(done, Ok(true), "{:?} {:?}", self.drain.status(), pending());
        assert_eq!(self.fault.pending(), 0, "every fault happened");
    }

    pub(super) fn bytes(&self, at: &str) -> Vec<u8> {
        self.twin.object(at).unwrap().0.to_vec()
    }

    pub(super) fn metadata(&self, at: &str, name: &str) -> Option<String> {
        let headers = self.twin.object(at).unwrap().1.headers.unwrap();
        headers.metadata.get(name).cloned()
    }

    pub(super) fn count(&self, op: Op) -> u64 {
        self.twin.counts().of(op)
    }

    pub(super) fn refused(&self) -> Vec<(String, String)> {
        self.drain.status().refused
    }
}

pub(super) fn inline(at: u64, bytes: &[u8]) -> Extent {
    Extent {
        at,
        len: bytes.len() as u64,
        from: Source::Local {
            file: FileNo::INLINE,
            offset: 0,
        },
    }
}
