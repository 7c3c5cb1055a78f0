"""What a worker's directory must hold: the oracle of tests/vm/cuts, kept outside the machine.

Invariants: a State never changes, `after` makes the next one; `files` is what was acknowledged (by
close, fsync, or the 0 of a name change), `held` what a file that is open holds beyond that.
"""

import hashlib
import random
from dataclasses import dataclass, field, replace

from machine import noise

FEW = 25
KIB, MIB = 1 << 10, 1 << 20


def digest(content):
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class State:
    files: dict = field(default_factory=dict)  # path: (content, mode)
    dirs: frozenset = frozenset()
    links: dict = field(default_factory=dict)  # path: target
    held: dict = field(default_factory=dict)  # handle: (path, content)

    def crashed(self):
        return replace(self, held={})

    def names(self):
        return self.dirs | self.files.keys() | self.links.keys()

    def seen(self):
        """As the agent's `look` shows it."""
        shown = {path: ["dir"] for path in self.dirs}
        shown |= {path: ["link", target] for path, target in self.links.items()}
        for path, (content, mode) in self.files.items():
            shown[path] = ["file", digest(content), len(content), mode]
        return shown

    def after(self, op):
        files, links, held = dict(self.files), dict(self.links), dict(self.held)
        dirs, path, name = self.dirs, op.get("path"), op["op"]
        mode = files[path][1] if path in files else 0o644
        data = noise(op["seed"], op["size"]) if "seed" in op else b""
        if name == "put":
            files[path] = (data, mode)
        elif name == "append":
            files[path] = (files[path][0] + data, mode)
        elif name == "edit":
            old = files[path][0]
            files[path] = (old[: op["at"]] + data + old[op["at"] + len(data) :], mode)
        elif name == "hold":
            held[op["handle"]] = (path, files[path][0] if path in files else b"")
        elif name in ("synced", "unsynced", "release"):
            path, content = held[op["handle"]]
            held[op["handle"]] = (path, content + data)
            if name != "unsynced":
                files[path] = (content + data, files[path][1] if path in files else 0o644)
            if name == "release":
                del held[op["handle"]]
        elif name == "rename":
            def moved(known):
                inside = known == path or known.startswith(path + "/")
                return op["to"] + known[len(path) :] if inside else known
            files.pop(op["to"], None)
            files = {moved(known): value for known, value in files.items()}
            links = {moved(known): value for known, value in links.items()}
            dirs = frozenset(moved(known) for known in dirs)
            held = {handle: (moved(known), value) for handle, (known, value) in held.items()}
        elif name == "unlink":
            files.pop(path, None)
            links.pop(path, None)
        elif name == "mkdir":
            dirs |= {path}
        elif name == "rmdir":
            dirs -= {path}
        elif name == "symlink":
            links[path] = op["to"]
        elif name == "chmod":
            files[path] = (files[path][0], op["mode"])
        else:
            raise ValueError(name)
        return State(files, dirs, links, held)


class Plan:
    """An endless choice of what to do next below one directory."""

    def __init__(self, top, seed):
        self.top, self.random, self.count, self.queue = top, random.Random(seed), 0, []

    def crashed(self):
        self.queue = []

    def fresh(self, state, kind):
        self.count += 1
        return f"{self.random.choice(sorted(state.dirs))}/{kind}{self.count}"

    def data(self, least, most):
        size = self.random.randint(least, most)
        return {"seed": self.random.getrandbits(32), "size": size}

    def next(self, state):
        """An operation that must succeed."""
        if not state.dirs:
            return {"op": "mkdir", "path": self.top}
        if self.queue:
            return self.queue.pop(0)
        open_paths = {path for path, _ in state.held.values()}
        choice = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        if len(state.files) > FEW and choice.startswith("new"):
            choice = "unlink"
        idle = sorted(state.files.keys() - open_paths)
        op = getattr(self, choice)(state, idle)
        return op or {"op": "put", "path": self.fresh(state, "f"), **self.data(0, 20 * KIB)}

    def new_small(self, state, _):
        return {"op": "put", "path": self.fresh(state, "f"), **self.data(0, 20 * KIB)}

    def new_large(self, state, _):
        return {"op": "put", "path": self.fresh(state, "f"), **self.data(100 * KIB, 2 * MIB)}

    def new_parts(self, state, _):
        return {"op": "put", "path": self.fresh(state, "f"), **self.data(9 * MIB, 12 * MIB)}

    def rewrite(self, _, idle):
        return idle and {"op": "put", "path": self.random.choice(idle), **self.data(0, 40 * KIB)}

    def append(self, _, idle):
        return idle and {"op": "append", "path": self.random.choice(idle), **self.data(1, 8 * KIB)}

    def edit(self, state, idle):
        idle = [path for path in idle if state.files[path][0]]
        if not idle:
            return None
        path = self.random.choice(idle)
        at = self.random.randrange(len(state.files[path][0]))
        return {"op": "edit", "path": path, "at": at, **self.data(1, 6 * KIB)}

    def hold(self, state, idle):
        if len(state.held) >= 3:
            return None
        self.count += 1
        old = idle and self.random.random() < 0.5
        path = self.random.choice(idle) if old else self.fresh(state, "log")
        return {"op": "hold", "handle": f"{self.top}:{self.count}", "path": path}

    def on_held(self, state, name, more):
        return state.held and {"op": name, "handle": self.random.choice(sorted(state.held)), **more}

    def synced(self, state, _):
        return self.on_held(state, "synced", self.data(1, 30 * KIB))

    def unsynced(self, state, _):
        return self.on_held(state, "unsynced", self.data(1, 100 * KIB))

    def release(self, state, _):
        return self.on_held(state, "release", {})

    def rename(self, state, _):
        """Also of a file that is open; not of one that only its opener has seen."""
        if not state.files:
            return None
        path = self.random.choice(sorted(state.files))
        return {"op": "rename", "path": path, "to": self.fresh(state, "f")}

    def replace(self, state, idle):
        """As editors and cp do: a new file beside it, renamed over it."""
        if not idle:
            return None
        path, aside = self.random.choice(idle), self.fresh(state, "tmp")
        self.queue = [{"op": "rename", "path": aside, "to": path}]
        return {"op": "put", "path": aside, **self.data(0, 20 * KIB)}

    def unlink(self, state, idle):
        names = sorted(idle + list(state.links))
        return names and {"op": "unlink", "path": self.random.choice(names)}

    def mkdir(self, state, _):
        return len(state.dirs) < 8 and {"op": "mkdir", "path": self.fresh(state, "d")}

    def rmdir(self, state, _):
        used = state.names() | {path for path, _ in state.held.values()}
        empty = [d for d in state.dirs if not any(name.startswith(d + "/") for name in used)]
        empty = sorted(set(empty) - {self.top})
        return empty and {"op": "rmdir", "path": self.random.choice(empty)}

    def rename_dir(self, state, _):
        dirs = sorted(state.dirs - {self.top})
        if not dirs:
            return None
        path = self.random.choice(dirs)
        to = self.fresh(state, "d")
        return None if to.startswith(path + "/") else {"op": "rename", "path": path, "to": to}

    def symlink(self, state, _):
        return {"op": "symlink", "path": self.fresh(state, "l"), "to": f"../{self.count}"}

    def chmod(self, _, idle):
        mode = self.random.choice([0o600, 0o640, 0o755, 0o444])
        return idle and {"op": "chmod", "path": self.random.choice(idle), "mode": mode}


WEIGHTS = {
    "new_small": 20, "new_large": 3, "new_parts": 0.5, "rewrite": 10, "append": 12, "edit": 8,
    "hold": 5, "synced": 8, "unsynced": 6, "release": 4, "rename": 8, "replace": 8, "unlink": 8,
    "mkdir": 4, "rmdir": 3, "rename_dir": 3, "symlink": 2, "chmod": 3,
}
