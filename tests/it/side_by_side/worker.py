"""One process of a side: carries out one operation a line in a directory, answers one line each.

Invariant: what it answers depends on the file system alone (no inode numbers, no clock, no order of
a directory), so that two sides that behave alike answer alike. A failure is answered by its errno.
"""

import ctypes
import errno
import os
import stat
import sys
import zlib

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.msync.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
READ_WRITE, SHARED, MS_SYNC = 3, 1, 4
MAP_FAILED = ctypes.c_void_p(-1).value
AT_FDCWD = -100
PUNCH_HOLE_KEEP_SIZE = 3
slots = {}
maps = {}


def called(result):
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def content(seed, length):
    """Bytes that tell where they came from."""
    return (f"{seed}.".encode() * (length // 2 + 1))[:length]


def digest(data):
    return f"{len(data)}:{zlib.crc32(data):08x}"


def shown(meta):
    kind = stat.S_IFMT(meta.st_mode) >> 12
    size = meta.st_size if kind == 8 else "-"
    return f"{kind:o} {meta.st_mode & 0o7777:o} {size} links {meta.st_nlink}"


def fd(slot):
    if slot not in slots:
        raise OSError(errno.EBADF, "")
    return slots[slot]


def put(slot, new):
    if slot in slots:
        os.close(slots[slot])
    slots[slot] = new


def op_begin(name):
    os.makedirs(name, exist_ok=True)
    os.chdir(name)


def op_end():
    for into in list(maps):
        op_unmap(into)
    for held in slots.values():
        os.close(held)
    slots.clear()
    os.chdir("/")


def op_open(slot, name, flags):
    value = 0
    for flag in flags.split("|"):
        value |= getattr(os, flag)
    put(slot, os.open(name, value, 0o644))


def op_close(slot):
    held = fd(slot)
    del slots[slot]
    os.close(held)


def op_dup(slot, to):
    put(to, os.dup(fd(slot)))


def op_write(slot, seed, length):
    return os.write(fd(slot), content(seed, int(length)))


def op_pwrite(slot, at, seed, length):
    return os.pwrite(fd(slot), content(seed, int(length)), int(at))


def op_read(slot, length):
    return digest(os.read(fd(slot), int(length)))


def op_pread(slot, at, length):
    return digest(os.pread(fd(slot), int(length), int(at)))


def op_seek(slot, at, whence):
    return os.lseek(fd(slot), int(at), getattr(os, whence))


def op_ftruncate(slot, size):
    os.ftruncate(fd(slot), int(size))


def op_truncate(name, size):
    os.truncate(name, int(size))


def op_fsync(slot):
    os.fsync(fd(slot))


def op_fstat(slot):
    return shown(os.fstat(fd(slot)))


def op_stat(name):
    return shown(os.lstat(name))


def op_allocate(slot, at, length):
    os.posix_fallocate(fd(slot), int(at), int(length))


def op_punch(slot, at, length):
    at, length = ctypes.c_longlong(int(at)), ctypes.c_longlong(int(length))
    called(libc.fallocate(fd(slot), PUNCH_HOLE_KEEP_SIZE, at, length))


def op_copy(source, at, to, target, length):
    return os.copy_file_range(fd(source), fd(to), int(length), int(at), int(target))


def op_forked(slot, seed, length):
    """A child writes through what it inherited, and ends: its copies are closed."""
    held = fd(slot)
    child = os.fork()
    if child == 0:
        try:
            os.write(held, content(seed, int(length)))
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "")


def op_map(slot, into):
    """Not by the mmap module, which would keep a descriptor of its own: here the last close of the
    file comes while the mapping lives. Its size is asked by a descriptor that opens nothing."""
    held = fd(slot)
    length = os.fstat(held).st_size
    address = libc.mmap(None, length, READ_WRITE, SHARED, held, 0)
    if address == MAP_FAILED:
        called(-1)
    op_unmap(into)
    maps[into] = (address, length, os.open(f"/proc/self/fd/{held}", os.O_PATH))


def touched(into, at, length):
    """Where a piece of a mapping is. Touching what was truncated away would be SIGBUS."""
    if into not in maps:
        raise OSError(errno.EBADF, "")
    address, mapped, path = maps[into]
    at, length = int(at), int(length)
    if at + length > min(mapped, os.fstat(path).st_size):
        raise OSError(errno.EFAULT, "")
    return address + at, length


def op_store(into, at, seed, length):
    address, length = touched(into, at, length)
    ctypes.memmove(address, content(seed, length), length)


def op_load(into, at, length):
    return digest(ctypes.string_at(*touched(into, at, length)))


def op_msync(into):
    if into in maps:
        called(libc.msync(*maps[into][:2], MS_SYNC))


def op_unmap(into):
    if into in maps:
        address, length, path = maps.pop(into)
        called(libc.munmap(address, length))
        os.close(path)


def op_unlink(name):
    os.unlink(name)


def op_rename(old, new, flags):
    called(libc.renameat2(AT_FDCWD, old.encode(), AT_FDCWD, new.encode(), int(flags)))


def op_mkdir(name):
    os.mkdir(name, 0o755)


def op_rmdir(name):
    os.rmdir(name)


def op_symlink(target, name):
    os.symlink(target, name)


def op_readlink(name):
    return os.readlink(name)


def op_chmod(name, mode):
    os.chmod(name, int(mode, 8))


def op_fchmod(slot, mode):
    os.fchmod(fd(slot), int(mode, 8))


def op_utimes(name, secs):
    os.utime(name, (int(secs), int(secs)), follow_symlinks=False)


def op_list(name):
    return ",".join(sorted(os.listdir(name))) or "-"


def op_cat(name):
    with open(name, "rb") as file:
        return digest(file.read())


def op_tree():
    """All below here: NAME|what stat shows|content|mtime, `;` between them."""
    lines = []
    for folder, folders, files in os.walk("."):
        for name in sorted(folders + files):
            path = os.path.join(folder, name)
            meta = os.lstat(path)
            if stat.S_ISREG(meta.st_mode):
                said = op_cat(path)
            elif stat.S_ISLNK(meta.st_mode):
                said = os.readlink(path)
            else:
                said = "-"
            lines.append(f"{path[2:]}|{shown(meta)}|{said}|{meta.st_mtime_ns}")
    return ";".join(sorted(lines)) or "-"


os.umask(0o022)
for line in sys.stdin:
    verb, *arguments = line.split()
    try:
        answer = globals()[f"op_{verb}"](*arguments)
        answer = "ok" if answer is None else answer
    except OSError as error:
        answer = errno.errorcode[error.errno]
    except ValueError as error:
        answer = f"ValueError: {error}"
    print(answer, flush=True)
