"""What tests/vm stands on: a real Debian in QEMU, a simulated cloud on the host that it reaches as
10.0.2.2, an agent in it that does what it is asked over a serial line (guest/agent.py), and an S3
client that shares no code with the mount (tests/it/client.py).

Invariants: all that is made lies below $CARGO_TARGET_DIR/vm; every process that is started ends with
this one; what the machine acknowledged is known outside it.
"""

import ctypes
import fcntl
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from disk import Disk

ROOT = Path(__file__).resolve().parents[2]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
MOUNT = "/mnt/s3"
BUCKET, PREFIX = "demo", "box/"
OPTIONS = """region = "{region}"
endpoint_url = "{s3}"
krypton_url = "{krypton}"
cognito_url = "{cognito}"
ca_file = "/etc/kryptonfs/ca.pem"
interface = "eth0"
resolve = "localhost=10.0.2.2"
ntp = "{ntp}"
"""
FSTAB = f"s3://{BUCKET}/{PREFIX.rstrip('/')} {MOUNT} kryptonfs {{options}} 0 0\n"
# What this machine has no use for is left out: a boot takes a minute and more without KVM.
UNUSED = (
    "systemd-logind", "e2scrub_reap", "modprobe@drm", "modprobe@dm_mod", "modprobe@loop", "getty@tty1",
    "serial-getty@ttyS0", "systemd-user-sessions", "systemd-update-utmp-runlevel", "systemd-update-utmp",
    "systemd-pstore", "systemd-binfmt",
)
KERNEL = (
    "console=ttyS0 quiet net.ifnames=0 panic=-1 mitigations=off audit=0 apparmor=0 selinux=0 "
    "systemd.show_status=no "
    + " ".join(f"systemd.mask={name}.service" for name in UNUSED)
)
NETWORK = "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\n"
AGENT = """[Unit]
DefaultDependencies=no
After=systemd-remount-fs.service systemd-udevd.service
[Service]
ExecStart=/usr/bin/python3 -B /opt/agent.py
KillMode=process
[Install]
WantedBy=sysinit.target
"""


class Trouble(Exception):
    """Something did not go as it must."""


def noise(seed, size):
    return random.Random(seed).randbytes(size)


def with_us():
    """In a child, before exec: it ends when we do."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def prepare():
    """Builds the binary (KRYPTONFS_BINARY: another one), the image, the client's Python."""
    given = os.environ.get("KRYPTONFS_BINARY")
    if given is None:
        subprocess.run(["cargo", "build", "--locked", "--quiet"], cwd=ROOT, check=True)
    subprocess.run([ROOT / "tests/vm/image"], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([ROOT / "tests/prepare"], check=True)
    return Path(given or TARGET / "debug/kryptonfs").resolve()


class Lines:
    """A child process that answers a line of JSON with one."""

    def __init__(self, command, **more):
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=with_us, **more
        )

    def read(self):
        line = self.child.stdout.readline()
        if not line:
            raise Trouble(f"{self.child.args[0]} ended")
        return json.loads(line)

    def ask(self, request):
        self.child.stdin.write(json.dumps(request).encode() + b"\n")
        self.child.stdin.flush()
        answer = self.read()
        if "error" in answer:
            raise Trouble(f"{request}: {answer}")
        return answer["ok"]

    def end(self):
        self.child.terminate()
        self.child.wait()


class Cloud:
    """`kryptonfs sim`, and a client of its bucket."""

    def __init__(self, binary, directory):
        with open(directory / "cloud.log", "ab") as log:
            command = [binary, "sim", directory / "cloud", "--bucket", BUCKET, "--lease-life", "1d"]
            self.sim = Lines(command, stderr=log)
        self.about = about = self.sim.read()
        venv = TARGET / "test-servers/venv/bin/python"
        self.client = Lines([venv, ROOT / "tests/it/client.py"])
        config = {
            "endpoint": about["s3_url"], "region": about["region"], "bucket": BUCKET,
            "ca_file": about["ca_file"], "access_key": about["access_key_id"],
            "secret_key": about["secret_key"], "session_token": about["session_token"],
        }
        self.client.child.stdin.write(json.dumps(config).encode() + b"\n")

    def tree(self):
        """Every object below the prefix, read: by its name in the mount."""
        objects = self.client.ask({"op": "tree", "prefix": PREFIX})
        return {entry["key"].removeprefix(PREFIX): entry for entry in objects}

    def uploads(self):
        return self.client.ask({"op": "uploads"})

    def end(self):
        self.client.end()
        self.sim.end()


class Machine:
    """A disk, and what is booted from it."""

    def __init__(self, binary, cloud, directory, fstab="_netdev,nofail", unit=False, ntp="none", deb=None):
        self.directory, self.qemu, self.count = directory, None, 0
        self.disk = Disk(directory / "disk")
        self.console = directory / "console.log"
        # One root for all who run at the same time.
        with open(TARGET / "vm/lock", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            root = TARGET / "vm/root"
            try:
                if deb:
                    dpkg(root, "--install", Path(deb).resolve())
                self.make(root, None if deb else binary, cloud, fstab, unit, ntp)
            finally:
                if deb:
                    dpkg(root, "--purge", "kryptonfs")

    def make(self, root, binary, cloud, fstab, unit, ntp):
        about = cloud.about
        # The certificate is for localhost, which is 10.0.2.2 from there.
        urls = {
            name: about[f"{name}_url"].replace("127.0.0.1", "localhost")
            for name in ("s3", "krypton", "cognito")
        }
        options = OPTIONS.format(region=about["region"], ntp=ntp, **urls)
        for name in ("etc/kryptonfs", "mnt/s3"):
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir(parents=True)
        for name, text in (
            (f"etc/kryptonfs/{BUCKET}.toml", options),
            ("etc/kryptonfs/ca.pem", Path(about["ca_file"]).read_text()),
            ("etc/kryptonfs/mnt-s3.conf", f"SOURCE=s3://{BUCKET}/{PREFIX}\n"),
            ("etc/fstab", FSTAB.format(options=fstab) if fstab else ""),
            ("etc/systemd/network/eth0.network", NETWORK),
            ("etc/systemd/system/agent.service", AGENT),
        ):
            (root / name).write_text(text)
        shutil.copy(ROOT / "tests/vm/guest/agent.py", root / "opt/agent.py")
        if binary:
            by_hand(root, binary)
        units = root / "etc/systemd/system"
        link(units / "sysinit.target.wants/agent.service", "/etc/systemd/system/agent.service")
        wants = units / "multi-user.target.wants"
        networkd = "/usr/lib/systemd/system/systemd-networkd.service"
        link(wants / "systemd-networkd.service", networkd)
        (wants / "kryptonfs@mnt-s3.service").unlink(missing_ok=True)
        if unit:
            template = "/usr/lib/systemd/system/kryptonfs@.service"
            link(wants / "kryptonfs@mnt-s3.service", template)
        with open(self.disk.path, "wb") as disk:
            disk.truncate(2 << 30)
        made = ["mkfs.ext4", "-q", "-F", "-E", "root_owner=0:0", "-d", root, self.disk.path]
        subprocess.run(made, check=True)

    def boot(self, link_up=True, rtc="utc"):
        """Starts it, and returns at once."""
        vm, self.count = TARGET / "vm", 0
        self.answers, self.arrived = {}, threading.Condition()
        sockets = {name: self.directory / name for name in ("agent", "monitor")}
        for path in sockets.values():
            path.unlink(missing_ok=True)
        command = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-smp", "2", "-m", "1024",
            "-nodefaults", "-vga", "none", "-display", "none", "-no-reboot", "-rtc", f"base={rtc}",
            "-kernel", vm / "vmlinuz", "-initrd", vm / "initrd",
            "-append", KERNEL,
            *self.disk.begin(),
            "-netdev", "user,id=net0", "-device", "virtio-net-pci,netdev=net0,id=card",
            "-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console",
            "-serial", f"unix:{sockets['agent']},server=on,wait=off",
            "-monitor", f"unix:{sockets['monitor']},server=on,wait=off",
        ]
        if not link_up:
            command.append("-S")
        self.qemu = subprocess.Popen(command, preexec_fn=with_us, stdin=subprocess.DEVNULL)
        self.agent = connect(sockets["agent"], self.qemu)
        self.monitor = connect(sockets["monitor"], self.qemu)
        threading.Thread(target=self.listen, args=(self.agent,), daemon=True).start()
        if not link_up:
            self.set_link(False)
            self.tell_monitor("cont")

    def tell_monitor(self, text):
        self.monitor.sendall(text.encode() + b"\n")

    def set_link(self, up):
        self.tell_monitor(f"set_link card {'on' if up else 'off'}")

    def listen(self, agent):
        """Files the agent's answers until the line is gone."""
        rest = b""
        while data := receive(agent):
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                answer = json.loads(line)
                with self.arrived:
                    self.answers[answer.get("id", "ready")] = answer
                    self.arrived.notify_all()
        with self.arrived:
            self.answers["gone"] = {}
            self.arrived.notify_all()

    def wait(self, number, limit):
        """An answer; None if the machine went first."""
        def there():
            return number in self.answers or "gone" in self.answers
        with self.arrived:
            if not self.arrived.wait_for(there, limit):
                raise Trouble(f"no answer within {limit} s")
            return self.answers.get(number)

    def send(self, op):
        """Sends a request; its number."""
        with self.arrived:
            self.count += 1
            number = self.count
            text = json.dumps({"id": number, **op}).encode() + b"\n"
            try:
                self.agent.sendall(text)
            except OSError:
                pass  # It is gone, and `wait` will say so.
        return number

    def ask(self, op, limit=300):
        answer = self.wait(self.send(op), limit)
        if answer is None or "error" in answer:
            raise Trouble(f"{op}: {answer or 'the machine is gone'}")
        return answer["ok"]

    def shell(self, script, limit=300):
        """Runs a script that must succeed; what it printed."""
        code, text = self.ask({"op": "shell", "script": script}, limit)
        if code != 0:
            raise Trouble(f"{script}: exit {code}: {text}")
        return text

    def ready(self, limit=300):
        """Waits for the agent."""
        if self.wait("ready", limit) is None:
            raise Trouble("the machine went while it booted")

    def mounted(self, limit=300):
        """Waits for the mount."""
        self.ready(limit)
        self.shell(
            f"until grep -q ' {MOUNT} fuse.kryptonfs ' /proc/mounts; do sleep 0.2; done", limit
        )

    def patiently(self, op, limit):
        """Asks until it is done: a bucket that is silent at first (EIO) is no loss."""
        until = time.monotonic() + limit
        while True:
            try:
                return self.ask(op, limit)
            except Trouble:
                if time.monotonic() > until or self.qemu.poll() is not None:
                    raise
                time.sleep(1)

    def journal(self):
        """What the daemon said in this boot, if there is anybody to tell."""
        if self.qemu is None or self.qemu.poll() is not None:
            return "the machine is off"
        try:
            script = f"journalctl -b -t kryptonfs | tail -n 40; kryptonfs status {MOUNT}"
            return self.ask({"op": "shell", "script": script})[1]
        except Trouble as trouble:
            return str(trouble)

    def cut(self, chance):
        """The power is gone. Blocks that were not flushed, and how many of them are lost."""
        self.qemu.kill()
        self.qemu.wait()
        with self.arrived:
            if not self.arrived.wait_for(lambda: "gone" in self.answers, 60):
                raise Trouble("the serial line outlives the machine")
        return self.disk.forget(chance)

    def off(self, limit):
        """Shuts down by the book; seconds it took."""
        start = time.monotonic()
        self.send({"op": "shell", "script": "systemctl --no-block poweroff"})
        self.qemu.wait(limit)
        return time.monotonic() - start

    def end(self):
        if self.qemu is not None and self.qemu.poll() is None:
            self.qemu.kill()
            self.qemu.wait()


def by_hand(root, binary):
    """What the package installs."""
    # Lines of the source are of no use there, and take a while to be read.
    subprocess.run(["strip", "-o", root / "usr/bin/kryptonfs", binary], check=True)
    packaged = ROOT / "packaging/systemd/kryptonfs@.service"
    shutil.copy(packaged, root / "usr/lib/systemd/system/")
    for name in ("mount.kryptonfs", "mount.fuse.kryptonfs"):
        link(root / "usr/sbin" / name, "/usr/bin/kryptonfs")


def dpkg(root, *words):
    subprocess.run(["dpkg", f"--root={root}", *words], check=True, stdout=subprocess.DEVNULL)


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def connect(path, qemu):
    for _ in range(600):
        try:
            line = socket.socket(socket.AF_UNIX)
            line.connect(str(path))
            return line
        except OSError:
            line.close()
            if qemu.poll() is not None:
                raise Trouble("qemu does not start")
            time.sleep(0.1)
    raise Trouble(f"qemu does not open {path}")


def receive(line):
    try:
        return line.recv(65536)
    except OSError:
        return b""


def fresh(name):
    """An empty folder for a run."""
    if os.geteuid() != 0:
        sys.exit("tests/vm: the image is root's, run this as root")
    path = TARGET / "vm" / name
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path
