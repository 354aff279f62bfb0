"""Builds the guest's first file system: busybox, the modules that reach the host's files, and two scripts.

The guest sees the host's root read-only through 9p below a layer in memory: it sees the same programs and
checkout, may write anywhere, and nothing it writes reaches the host."""

import shlex
import stat
from pathlib import Path

from tests.vm.kernel import Kernel

OUTPUT_PORT = "/dev/ttyS0"
CONSOLE_PORT = "/dev/ttyS1"
STATUS_PORT = "/dev/ttyS2"
STATUS_PREFIX = "splitwg-vm-exit: "
HOST_TAG = "host"

_FOLDERS = ("bin", "modules", "proc", "sys", "dev", "host", "layer", "root")
_MODULES = (
    "virtio_pci", "9pnet_virtio", "9p", "overlay",
    # The rest would load by itself when first used, except tun (without udev /dev/net/tun exists only once it
    # is loaded), but under emulation every one of them halts `nft -f` for a second: 25 s for a whole ruleset.
    "tun", "veth", "wireguard", "nf_conntrack_netlink", "nft_chain_nat", "nft_ct", "nft_fib_inet",
    "nft_hash", "nft_limit", "nft_log", "nft_masq", "nft_nat", "nft_numgen", "nft_quota", "nft_redir",
    "nft_reject_inet", "nft_socket",
)  # fmt: skip

# Nothing changes on the host's side that the guest must see at once, so cache=loose saves most round trips.
_INIT = """#!/bin/busybox sh
set -e
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in {modules}; do insmod "/modules/$module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=524288 {tag} /host
mount -t tmpfs -o size=75% layer /layer
mkdir /layer/upper /layer/work
mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root
mkdir -p /root/lib/modules/{version}
mount --bind /host{module_folder} /root/lib/modules/{version}
mkdir -p /dev/pts /dev/shm /root/run
mount -t devpts -o ptmxmode=666 devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /root/run
mount -t cgroup2 cgroup /sys/fs/cgroup
ln -s /proc/self/fd /dev/fd
ln -s /proc/self/fd/0 /dev/stdin
ln -s /proc/self/fd/1 /dev/stdout
ln -s /proc/self/fd/2 /dev/stderr
mkdir /root/run/splitwg-vm
cp /bin/busybox /start /root/run/splitwg-vm/
for folder in dev proc sys; do mount --move /$folder /root/$folder; done
exec switch_root /root /bin/sh /run/splitwg-vm/start
"""

# Run by the host's shell: busybox's own would take its builtin unshare, ip and so on for the command's.
# Setting the terminal's modes at the end waits until all output has left; powering off would cut it short.
_START = """
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb LANG=C.UTF-8
busybox=/run/splitwg-vm/busybox
$busybox ip link set lo up
$busybox stty -F {output} raw -echo
cd {folder} && {command} </dev/null >{output} 2>&1
status=$?
$busybox stty -F {output} raw -echo
echo "{prefix}$status" >{status_port}
$busybox stty -F {status_port} raw -echo
$busybox poweroff -f
"""


def build(kernel: Kernel, folder: Path, command: list[str]) -> bytes:
    """An initramfs that runs the command in a folder of the host's files and powers off."""
    modules = kernel.module_files(*_MODULES)
    init = _INIT.format(
        modules=" ".join(modules),
        tag=HOST_TAG,
        version=kernel.version,
        module_folder=shlex.quote(str(kernel.modules.resolve())),
    )
    start = _START.format(
        output=OUTPUT_PORT,
        folder=shlex.quote(str(folder)),
        command=shlex.join(command),
        prefix=STATUS_PREFIX,
        status_port=STATUS_PORT,
    )
    entries = [_entry(name, b"", stat.S_IFDIR) for name in _FOLDERS]
    entries.append(_entry("bin/busybox", kernel.busybox.read_bytes()))
    entries += [_entry(f"modules/{name}", content) for name, content in modules.items()]
    entries += [_entry("init", init.encode()), _entry("start", start.encode()), _entry("TRAILER!!!", b"", 0)]
    return b"".join(entries)


def _entry(name: str, content: bytes, kind: int = stat.S_IFREG) -> bytes:
    """One record of a cpio archive in the "newc" format, the only one the kernel unpacks."""
    encoded = name.encode() + b"\0"
    mode = kind | 0o755 if kind else 0
    inode = owner = group = time = major = minor = checksum = 0
    numbers = (inode, mode, owner, group, 1, time, len(content), major, minor, 0, 0, len(encoded), checksum)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers) + encoded
    return header + b"\0" * (-len(header) % 4) + content + b"\0" * (-len(content) % 4)
