//! What the kernel may ask, one method a request: each decodes, hands a task the reply, and that task
//! asks `fs` and answers. One `impl` by fuser's rule; nothing is decided here.

use std::ffi::OsStr;
use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, INodeNo, IoctlFlags,
    KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::agree::agree;
use super::answer;
use super::convert::{self, caller, ino, name};
use super::serve::{Class, Serve};
use crate::fs::{Fh, Fs, Result, SetAttr};

/// The kernel asks for it before every write; S3 keeps none.
const CAPABILITY_XATTR: &str = "security.capability";

/// Adapts `Fs` to fuser.
#[derive(Debug)]
pub(super) struct Adapter {
    pub(super) fs: Arc<Fs>,
    pub(super) serve: Serve,
}

impl Adapter {
    /// Asks `fs` in a task and answers with what it says.
    fn go<T, W>(
        &self,
        class: Class,
        ask: impl FnOnce(Arc<Fs>) -> W + Send + 'static,
        answer: impl FnOnce(&Fs, Result<T>) + Send + 'static,
    ) where
        W: Future<Output = Result<T>> + Send + 'static,
        T: Send,
    {
        let (fs, serve) = (Arc::clone(&self.fs), self.serve.clone());
        self.serve.spawn(async move {
            let said = serve.limited(class, ask(Arc::clone(&fs))).await;
            answer(&fs, said);
        });
    }
}

fn fh(handle: FileHandle) -> Fh {
    Fh(handle.0)
}

impl Filesystem for Adapter {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        agree(config);
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEntry) {
        let (parent, child, pid) = (ino(parent), name(child), request.pid());
        self.go(
            Class::Names,
            move |fs| async move { fs.lookup_by(pid, parent, &child).await },
            |fs, said| answer::entry(fs, reply, said),
        );
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        self.fs.forget(ino(node), count);
    }

    fn getattr(&self, _: &Request, node: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let (node, handle) = (ino(node), handle.map(fh));
        self.go(
            Class::Names,
            move |fs| async move { fs.getattr(node, handle).await },
            |fs, said| answer::attr(fs, reply, said),
        );
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let node = ino(node);
        let change = SetAttr {
            mode,
            uid,
            gid,
            size,
            atime: atime.map(convert::set_time),
            mtime: mtime.map(convert::set_time),
            fh: handle.map(fh),
        };
        self.go(
            Class::Names,
            move |fs| async move { fs.setattr(node, change).await },
            |fs, said| answer::attr(fs, reply, said),
        );
    }

    fn readlink(&self, _: &Request, node: INodeNo, reply: ReplyData) {
        let node = ino(node);
        self.go(
            Class::Read,
            move |fs| async move { fs.readlink(node).await },
            |_, said| answer::data(reply, said),
        );
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = convert::node_kind(mode, device) else {
            return reply.error(Errno::EINVAL);
        };
        let (parent, child, caller) = (ino(parent), name(child), caller(request));
        self.go(
            Class::Names,
            move |fs| async move {
                let mode = mode & !umask;
                fs.mknod(parent, &child, (kind, mode), caller).await
            },
            |fs, said| answer::entry(fs, reply, said),
        );
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        let (parent, child, caller) = (ino(parent), name(child), caller(request));
        self.go(
            Class::Names,
            move |fs| async move { fs.mkdir(parent, &child, mode & !umask, caller).await },
            |fs, said| answer::entry(fs, reply, said),
        );
    }

    fn unlink(&self, _: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let (parent, child) = (ino(parent), name(child));
        self.go(
            Class::Names,
            move |fs| async move { fs.unlink(parent, &child).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, child: &OsStr, reply: ReplyEmpty) {
        let (parent, child) = (ino(parent), name(child));
        self.go(
            Class::Names,
            move |fs| async move { fs.rmdir(parent, &child).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let (parent, child, caller) = (ino(parent), name(child), caller(request));
        let target = name(target.as_os_str());
        self.go(
            Class::Names,
            move |fs| async move { fs.symlink(parent, &child, &target, caller).await },
            |fs, said| answer::entry(fs, reply, said),
        );
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        child: &OsStr,
        new_parent: INodeNo,
        new_child: &OsStr,
        flags: fuser::RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(flags) = convert::rename_flags(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (from, child) = (ino(parent), name(child));
        let (to, new_child) = (ino(new_parent), name(new_child));
        self.go(
            Class::Names,
            move |fs| async move { fs.rename((from, &child), (to, &new_child), flags).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let (node, caller) = (ino(node), caller(request));
        self.go(
            Class::Names,
            move |fs| async move { fs.open(node, flags.0, caller).await },
            move |_, said| answer::opened(reply, said, flags.0),
        );
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        child: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let (parent, child, caller) = (ino(parent), name(child), caller(request));
        self.go(
            Class::Names,
            move |fs| async move {
                let mode = mode & !umask;
                fs.create(parent, &child, mode, flags, caller).await
            },
            move |fs, said| answer::created(fs, reply, said, flags),
        );
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (node, handle) = (ino(node), fh(handle));
        self.go(
            Class::Read,
            move |fs| async move { fs.read(node, handle, offset, size as usize).await },
            |_, said| answer::data(reply, said),
        );
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let room = self.serve.room(data.len());
        let (node, handle, data) = (ino(node), fh(handle), Bytes::copy_from_slice(data));
        self.go(
            Class::Write,
            move |fs| async move {
                let written = fs.write(node, handle, offset, data).await;
                drop(room);
                written
            },
            |_, said| answer::written(reply, said),
        );
    }

    fn flush(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        _: LockOwner,
        reply: ReplyEmpty,
    ) {
        let (node, handle, pid) = (ino(node), fh(handle), request.pid());
        self.go(
            Class::Close,
            move |fs| async move { fs.flush(node, handle, pid).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn release(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let (node, handle) = (ino(node), fh(handle));
        self.go(
            Class::Close,
            move |fs| async move { fs.release(node, handle).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn fsync(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let (node, handle) = (ino(node), fh(handle));
        self.go(
            Class::Close,
            move |fs| async move { fs.fsync(node, handle).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn opendir(&self, _: &Request, node: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let node = ino(node);
        self.go(
            Class::List,
            move |fs| async move { fs.opendir(node).await },
            |_, said| answer::opened_dir(reply, said),
        );
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let (fs, serve) = (Arc::clone(&self.fs), self.serve.clone());
        let place = (fh(handle), offset);
        self.serve
            .spawn(async move { answer::names(&fs, &serve, place, reply).await });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let (fs, serve) = (Arc::clone(&self.fs), self.serve.clone());
        let place = (fh(handle), offset);
        self.serve
            .spawn(async move { answer::entries(&fs, &serve, place, reply).await });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.fs.releasedir(fh(handle));
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, node: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let node = ino(node);
        self.go(
            Class::Close,
            move |fs| async move { fs.fsyncdir(node).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.go(
            Class::Names,
            |fs| async move { fs.statfs() },
            |_, said| answer::statfs(reply, said),
        );
    }

    fn setxattr(
        &self,
        _: &Request,
        node: INodeNo,
        attr: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let (node, attr, value) = (ino(node), name(attr), value.to_vec());
        self.go(
            Class::Names,
            move |fs| async move { fs.setxattr(node, &attr, &value, flags).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn getxattr(&self, _: &Request, node: INodeNo, attr: &OsStr, size: u32, reply: ReplyXattr) {
        if attr == CAPABILITY_XATTR {
            return reply.error(Errno::ENODATA);
        }
        let (node, attr) = (ino(node), name(attr));
        self.go(
            Class::Names,
            move |fs| async move { fs.getxattr(node, &attr).await },
            move |_, said| answer::xattr(reply, said, size),
        );
    }

    fn listxattr(&self, _: &Request, node: INodeNo, size: u32, reply: ReplyXattr) {
        let node = ino(node);
        self.go(
            Class::Names,
            move |fs| async move { fs.listxattr(node).await },
            move |_, said| answer::xattr(reply, said, size),
        );
    }

    fn removexattr(&self, _: &Request, node: INodeNo, attr: &OsStr, reply: ReplyEmpty) {
        let (node, attr) = (ino(node), name(attr));
        self.go(
            Class::Names,
            move |fs| async move { fs.removexattr(node, &attr).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (node, handle) = (ino(node), fh(handle));
        self.go(
            Class::Write,
            move |fs| async move { fs.fallocate(node, handle, offset, length, mode).await },
            |_, said| answer::empty(reply, said),
        );
    }

    fn lseek(
        &self,
        _: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (node, handle) = (ino(node), fh(handle));
        self.go(
            Class::Names,
            move |fs| async move { fs.lseek(node, handle, offset, whence).await },
            |_, said| answer::offset(reply, said),
        );
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from_handle: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to_handle: FileHandle,
        to_offset: u64,
        len: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let from = (fh(from_handle), from_offset);
        let to = (fh(to_handle), to_offset);
        self.go(
            Class::Write,
            move |fs| async move { fs.copy_file_range(from, to, len).await },
            |_, said| answer::written(reply, said),
        );
    }
}
