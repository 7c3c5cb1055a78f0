"""Runs inside the machine: carries out what the host asks for over the second serial line.

One JSON request a line, one JSON answer a line: {"id": N, "op": NAME, ...} gets {"id": N, "ok": ...}
or {"id": N, "error": TEXT}. An answer is written when the system calls have returned, so an answer
the host has read is an acknowledgement it may hold the mount to. Each "worker" has a thread and one
request at a time.
"""

import hashlib
import json
import os
import queue
import random
import stat
import subprocess
import threading
import tty

CHUNK = 1 << 16
held = {}


def noise(seed, size):
    """The same bytes as the host's noise()."""
    return random.Random(seed).randbytes(size)


def write(fd, op):
    data = noise(op["seed"], op["size"])
    for at in range(0, len(data), CHUNK):
        os.write(fd, data[at : at + CHUNK])


def store(op, flags):
    fd = os.open(op["path"], os.O_WRONLY | flags, 0o644)
    write(fd, op)
    os.close(fd)


def put(op):
    store(op, os.O_CREAT | os.O_TRUNC)


def append(op):
    store(op, os.O_APPEND)


def edit(op):
    fd = os.open(op["path"], os.O_WRONLY)
    os.lseek(fd, op["at"], os.SEEK_SET)
    write(fd, op)
    os.close(fd)


def hold(op):
    """Opens a file for appending and leaves it open."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    held[op["handle"]] = os.open(op["path"], flags, 0o644)


def synced(op):
    write(held[op["handle"]], op)
    os.fsync(held[op["handle"]])


def unsynced(op):
    write(held[op["handle"]], op)


def release(op):
    os.close(held.pop(op["handle"]))


def rename(op):
    os.rename(op["path"], op["to"])


def unlink(op):
    os.unlink(op["path"])


def mkdir(op):
    os.mkdir(op["path"], 0o755)


def rmdir(op):
    os.rmdir(op["path"])


def symlink(op):
    os.symlink(op["to"], op["path"])


def chmod(op):
    os.chmod(op["path"], op["mode"])


def look(op):
    """All that is below a directory, read."""
    found = {}

    def refuse(error):
        raise error

    for folder, dirs, files in os.walk(op["path"], onerror=refuse):
        for name in dirs + files:
            path = os.path.join(folder, name)
            about = os.lstat(path)
            if stat.S_ISLNK(about.st_mode):
                found[path] = ["link", os.readlink(path)]
            elif stat.S_ISDIR(about.st_mode):
                found[path] = ["dir"]
            else:
                with open(path, "rb") as file:
                    digest = hashlib.sha256(file.read()).hexdigest()
                found[path] = ["file", digest, about.st_size, stat.S_IMODE(about.st_mode)]
    return found


def shell(op):
    done = subprocess.run(
        op["script"], shell=True, executable="/bin/bash", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )
    return [done.returncode, done.stdout.decode(errors="replace")]


KNOWN = {f.__name__: f for f in (
    put, append, edit, hold, synced, unsynced, release, rename, unlink, mkdir, rmdir, symlink, chmod,
    look, shell,
)}


def main():
    line = os.open("/dev/ttyS1", os.O_RDWR | os.O_NOCTTY)
    tty.setraw(line)
    writing = threading.Lock()

    def say(message):
        data = json.dumps(message).encode() + b"\n"
        with writing:
            while data:
                data = data[os.write(line, data) :]

    def work(requests):
        while True:
            op = requests.get()
            try:
                say({"id": op["id"], "ok": KNOWN[op["op"]](op)})
            except OSError as error:
                say({"id": op["id"], "error": f"{op['op']}: {error}"})

    workers = {}
    say({"ready": True})
    with os.fdopen(os.dup(line), "rb", buffering=0) as lines:
        rest = b""
        while True:
            rest += lines.read(4096)
            *whole, rest = rest.split(b"\n")
            for text in whole:
                op = json.loads(text)
                name = op.get("worker", "")
                if name not in workers:
                    workers[name] = queue.Queue()
                    threading.Thread(target=work, args=(workers[name],), daemon=True).start()
                workers[name].put(op)


main()
