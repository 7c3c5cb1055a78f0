//! Answers: what `fs` said, as the kernel wants to hear it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;

use bytes::Bytes;
use fuser::{
    Errno, FileHandle, FopenFlags, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr,
};

use super::convert;
use super::errno::errno;
use super::mode::fopen;
use super::serve::{Class, Serve};
use crate::fs::{DirEntry, Fh, Fs, Opened, Result, Stat, StatFs};

/// Inode numbers are never reused in a mount, so one generation is enough.
const GENERATION: Generation = Generation(0);
/// Block size of statfs.
const BLOCK: u32 = 4096;

pub(super) fn entry(fs: &Fs, reply: ReplyEntry, said: Result<Stat>) {
    match said {
        Ok(stat) => reply.entry(&fs.kernel_ttl(), &convert::attr(&stat), GENERATION),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn attr(fs: &Fs, reply: ReplyAttr, said: Result<Stat>) {
    match said {
        Ok(stat) => reply.attr(&fs.kernel_ttl(), &convert::attr(&stat)),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn data(reply: ReplyData, said: Result<Bytes>) {
    match said {
        Ok(data) => reply.data(&data),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn empty(reply: ReplyEmpty, said: Result<()>) {
    match said {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn written(reply: ReplyWrite, said: Result<u32>) {
    match said {
        Ok(bytes) => reply.written(bytes),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn offset(reply: ReplyLseek, said: Result<i64>) {
    match said {
        Ok(offset) => reply.offset(offset),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn opened(reply: ReplyOpen, said: Result<Opened>, flags: i32) {
    match said {
        Ok(opened) => {
            let mut answer = fopen(flags, opened.keep_cache);
            answer.set(FopenFlags::FOPEN_NOFLUSH, convert::never_writes(flags));
            reply.opened(FileHandle(opened.fh.0), answer);
        }
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn opened_dir(reply: ReplyOpen, said: Result<Fh>) {
    match said {
        Ok(fh) => reply.opened(FileHandle(fh.0), FopenFlags::empty()),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn created(fs: &Fs, reply: ReplyCreate, said: Result<(Stat, Opened)>, flags: i32) {
    match said {
        Ok((stat, opened)) => reply.created(
            &fs.kernel_ttl(),
            &convert::attr(&stat),
            GENERATION,
            FileHandle(opened.fh.0),
            fopen(flags, opened.keep_cache),
        ),
        Err(error) => reply.error(errno(&error)),
    }
}

pub(super) fn statfs(reply: ReplyStatfs, said: Result<StatFs>) {
    match said {
        Ok(said) => reply.statfs(
            said.blocks,
            said.free,
            said.free,
            said.files,
            said.files,
            BLOCK,
            crate::types::NAME_MAX as u32,
            BLOCK,
        ),
        Err(error) => reply.error(errno(&error)),
    }
}

/// With `size` 0 the caller only asks how much there is.
pub(super) fn xattr(reply: ReplyXattr, said: Result<Vec<u8>>, size: u32) {
    match said.map(|value| fitted(value, size)) {
        Ok(Fitted::Length(length)) => reply.size(length),
        Ok(Fitted::Value(value)) => reply.data(&value),
        Ok(Fitted::TooLong) => reply.error(Errno::ERANGE),
        Err(error) => reply.error(errno(&error)),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Fitted {
    Length(u32),
    Value(Vec<u8>),
    TooLong,
}

fn fitted(value: Vec<u8>, size: u32) -> Fitted {
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => Fitted::Length(length),
        Ok(length) if length <= size => Fitted::Value(value),
        _ => Fitted::TooLong,
    }
}

/// Where a directory is to be read: inode, handle, offset.
pub(super) type Place = (Fh, u64);

pub(super) async fn names(fs: &Fs, serve: &Serve, place: Place, mut reply: ReplyDirectory) {
    let (said, any) = walk(fs, serve, place, false, &mut |entry| {
        !reply.add(
            INodeNo(entry.stat.ino.0),
            entry.next.unsigned_abs(),
            convert::file_type(entry.stat.kind),
            OsStr::from_bytes(&entry.name),
        )
    })
    .await;
    match said {
        Err(error) if !any => reply.error(errno(&error)),
        _ => reply.ok(),
    }
}

pub(super) async fn entries(fs: &Fs, serve: &Serve, place: Place, mut reply: ReplyDirectoryPlus) {
    let ttl: Duration = fs.kernel_ttl();
    let (said, any) = walk(fs, serve, place, true, &mut |entry| {
        !reply.add(
            INodeNo(entry.stat.ino.0),
            entry.next.unsigned_abs(),
            OsStr::from_bytes(&entry.name),
            &ttl,
            &convert::attr(&entry.stat),
            GENERATION,
        )
    })
    .await;
    match said {
        Err(error) if !any => reply.error(errno(&error)),
        _ => reply.ok(),
    }
}

/// Emits entries until the buffer is full. What was emitted before an error is answered: it counts
/// as looked up, and the error comes again when the kernel goes on.
async fn walk(
    fs: &Fs,
    serve: &Serve,
    (fh, offset): Place,
    plus: bool,
    add: &mut (dyn FnMut(&DirEntry) -> bool + Send),
) -> (Result<()>, bool) {
    let mut any = false;
    let mut emit = |entry: &DirEntry| {
        let fits = add(entry);
        any |= fits;
        fits
    };
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let work = fs.readdir(fh, offset, plus, &mut emit);
    let said = serve.limited(Class::List, work).await;
    (said, any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_xattr_is_measured_sent_or_too_long() {
        let value = || b"four".to_vec();
        assert_eq!(fitted(value(), 0), Fitted::Length(4));
        assert_eq!(fitted(value(), 4), Fitted::Value(value()));
        assert_eq!(fitted(value(), 3), Fitted::TooLong);
        assert_eq!(fitted(Vec::new(), 5), Fitted::Value(Vec::new()));
    }
}
