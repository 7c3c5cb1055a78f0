//! The whole log: opened, appended to, flushed, closed, opened again.

mod faults;
mod life;
mod outside;
mod power;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::types::{
    Attrs, Base, Extent, Extents, Generation, Kind, RelKey, RelPath, Source, Time, Want,
};

pub(in crate::log) fn config(dir: &Path) -> Config {
    Config {
        dir: dir.join("spool"),
        binding: Binding {
            endpoint: "https://s3.ap-northeast-1.amazonaws.com".into(),
            bucket: "b".into(),
            prefix: "p/".into(),
        },
        spool_max: 64 << 20,
        disk_reserve: 0,
    }
}

pub(in crate::log) fn key(name: &str) -> RelKey {
    RelKey::file(&RelPath::new(name).unwrap())
}

pub(in crate::log) fn set(name: &str, want: Want) -> Record {
    Record::Set(vec![Change {
        key: key(name),
        want,
        base: Base::Absent,
        number: None,
    }])
}

/// A file whose bytes lie in the spool.
pub(in crate::log) fn file(pieces: &[(FileNo, u64, u64)]) -> Want {
    let mut extents = Extents::default();
    let mut len = 0;
    for (file, offset, size) in pieces {
        extents.put(Extent {
            at: len,
            len: *size,
            from: Source::Local {
                file: *file,
                offset: *offset,
            },
        });
        len += size;
    }
    let attrs = Attrs::new(Kind::File, 0o644, 0, 0, Time { secs: 1, nanos: 2 });
    Want::Object(Arc::new(Generation {
        extents,
        len,
        attrs,
    }))
}

/// The record of a small file.
pub(in crate::log) fn small(name: &str, len: usize) -> Record {
    set(name, file(&[(FileNo::INLINE, 0, len as u64)]))
}

pub(in crate::log) type Records = Vec<(Seq, Record)>;

pub(in crate::log) fn open(config: &Config) -> Result<(Arc<Log>, Records), LogError> {
    open_on(Disk::default(), config)
}

pub(in crate::log) fn open_on(
    disk: Disk,
    config: &Config,
) -> Result<(Arc<Log>, Records), LogError> {
    let mut records = Records::new();
    let log = Log::open_on(disk, config, &mut |seq, record| records.push((seq, record)))?;
    Ok((log, records))
}

/// The bytes a record names, by key.
pub(in crate::log) fn bytes_of(log: &Log, record: &Record) -> BTreeMap<RelKey, Vec<u8>> {
    let Record::Set(changes) = record else {
        panic!("{record:?}")
    };
    let mut all = BTreeMap::new();
    for change in changes {
        let Want::Object(generation) = &change.want else {
            continue;
        };
        let mut bytes = Vec::new();
        for piece in generation.extents.iter() {
            let Source::Local { file, offset } = piece.from else {
                panic!("{piece:?}")
            };
            let len = usize::try_from(piece.len).unwrap();
            bytes.extend_from_slice(&log.spool().read_at(file, offset, len).unwrap());
        }
        all.insert(change.key.clone(), bytes);
    }
    all
}

/// The segments on the disk, by number.
pub(in crate::log) fn segments(config: &Config) -> BTreeMap<String, Vec<u8>> {
    let dir = std::fs::read_dir(config.dir.join("log")).unwrap();
    let all = dir.map(|entry| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, std::fs::read(entry.path()).unwrap())
    });
    all.collect()
}
