"""A disk with a cache that forgets: what was written after the last flush is lost, or not.

qemu logs every write and flush (blklogwrites, the format of dm-log-writes: little-endian; a
superblock of one sector; per entry one sector with sector, sectors and flags, then the data, but for
a discard). After a cut the disk is made again: as it was at the boot, all that was logged up to the last
flush, and of the later blocks of 4 KiB each with the toss of a coin, in the order they were written.
(Smaller pieces would tear the superblock of ext4, which no file system outlives.)
"""

import os
import struct
import subprocess

SECTOR, BLOCK = 512, 4096
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD = 1, 2, 4


class Disk:
    def __init__(self, path):
        self.path, self.before, self.log = path, f"{path}.before", f"{path}.log"

    def begin(self):
        """Before a boot. What qemu is told: the node's name is `disk`."""
        subprocess.run(["cp", "--sparse=always", self.path, self.before], check=True)
        with open(self.log, "wb"):
            pass
        return [
            "-blockdev", f"driver=file,node-name=file,filename={self.path},cache.no-flush=on",
            "-blockdev", f"driver=file,node-name=log,filename={self.log},cache.no-flush=on",
            "-blockdev", "driver=blklogwrites,node-name=disk,file=file,log=log",
            "-device", "virtio-blk-pci,drive=disk",
        ]

    def entries(self):
        """(position in the log, flags, first byte, bytes), as far as the log is whole."""
        with open(self.log, "rb") as log:
            end = os.fstat(log.fileno()).st_size
            magic, _, _, sector = struct.unpack("<QQQI", log.read(28))
            if (magic, sector) != (MAGIC, SECTOR):
                raise ValueError(f"{self.log} is no log of writes")
            at = sector
            while at + sector <= end:
                log.seek(at)
                first, count, flags = struct.unpack("<QQQ", log.read(24))
                at += sector
                data = 0 if flags & DISCARD else count * SECTOR
                if at + data > end or not (flags or count):
                    return
                yield at, flags, first * SECTOR, count * SECTOR
                at += data

    def forget(self, random):
        """After a cut: makes the disk of it. Blocks that were written and not flushed, and how many of
        them are lost."""
        entries = list(self.entries())
        durable = max((i for i, entry in enumerate(entries) if entry[1] & FLUSH), default=-1)
        os.replace(self.before, self.path)
        later = lost = 0
        with open(self.log, "rb") as log, open(self.path, "r+b") as disk:
            for number, (at, flags, first, count) in enumerate(entries):
                if flags & DISCARD:
                    continue
                safe = number <= durable or flags & FUA
                step = count if safe else BLOCK
                for offset in range(0, count, step or BLOCK):
                    later += not safe
                    if not safe and random.random() < 0.5:
                        lost += 1
                        continue
                    log.seek(at + offset)
                    disk.seek(first + offset)
                    disk.write(log.read(min(step, count - offset)))
        return later, lost
