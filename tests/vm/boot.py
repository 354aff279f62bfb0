"""Runs a command on Debian's own kernel under qemu: python -m tests.vm.boot [--kernel bookworm] -- COMMAND...

Exits with the command's status, or with 70 when the guest gave none (panic, time limit). The guest has no
network device and reads the host's files without being able to write them."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.vm.initramfs import CONSOLE_PORT, HOST_TAG, STATUS_PREFIX, build
from tests.vm.kernel import RELEASES, Kernel, KernelUnavailable, cached_kernel

CHECKOUT = Path(__file__).resolve().parents[2]
NO_STATUS = 70
INTERRUPTED = 130

# The mitigations only slow an emulated processor down; a kernel bug must end the run, not be overlooked.
KERNEL_OPTIONS = "quiet loglevel=3 mitigations=off nokaslr random.trust_cpu=on audit=0 panic=-1 oops=panic"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.vm.boot", description=__doc__)
    parser.add_argument("--kernel", choices=RELEASES, default="bookworm", help="the Debian release (bookworm)")
    parser.add_argument("--timeout", type=float, default=900, metavar="SECONDS", help="time limit (900)")
    parser.add_argument("command", nargs="+", help="program and arguments, run in the root of the checkout")
    options = parser.parse_args(arguments)
    # Ended by kill as by Ctrl-C, the run still removes its folder.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        kernel = cached_kernel(options.kernel)
        return run(kernel, options.command, options.timeout)
    except KernelUnavailable as error:
        print(f"splitwg-vm: {error}", file=sys.stderr)
        return NO_STATUS
    except KeyboardInterrupt:
        return INTERRUPTED


def run(kernel: Kernel, command: list[str], timeout: float) -> int:
    """Boots the guest, shows the command's output live and returns its status."""
    with tempfile.TemporaryDirectory(prefix="splitwg-vm-") as folder:
        initramfs, console, status = (Path(folder) / name for name in ("initramfs", "console", "status"))
        initramfs.write_bytes(build(kernel, CHECKOUT, command))
        sys.stdout.flush()
        trouble = "the guest ended without giving the command's status; its kernel said:"
        with subprocess.Popen(_qemu(kernel, initramfs, console, status), stdin=subprocess.DEVNULL) as qemu:
            try:
                qemu.wait(timeout)
            except subprocess.TimeoutExpired:
                trouble = f"the command did not end within {timeout:g} s; the guest's kernel said:"
            finally:
                qemu.kill()
                qemu.wait()
        reported = status.read_text() if status.exists() else ""
        if reported.startswith(STATUS_PREFIX) and reported.endswith("\n"):
            return int(reported.removeprefix(STATUS_PREFIX))
        # The kernel says only errors, so this is mostly the panic; the limit is for one it repeats.
        last_words = console.read_text(errors="replace").splitlines()[-100:] if console.exists() else []
        print(f"splitwg-vm: {trouble}", *last_words, sep="\n  ", file=sys.stderr)
        return NO_STATUS


def _qemu(kernel: Kernel, initramfs: Path, console: Path, status: Path) -> list[str]:
    return [
        # A test run killed from outside must not leave its machine behind.
        "setpriv", "--pdeathsig", "KILL", "--",
        "qemu-system-x86_64", "-M", "q35", "-smp", "2", "-m", "2G", "-rtc", "base=utc", *_accelerator(),
        "-nodefaults", "-nic", "none", "-display", "none", "-no-reboot",
        "-kernel", str(kernel.image), "-initrd", str(initramfs),
        "-append", f"console={Path(CONSOLE_PORT).name} {KERNEL_OPTIONS}",
        "-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap",
        "-device", f"virtio-9p-pci,fsdev=host,mount_tag={HOST_TAG}",
        # In this order: the ports that initramfs.py names for output, kernel messages and the status.
        "-serial", "stdio", "-serial", f"file:{console}", "-serial", f"file:{status}",
    ]  # fmt: skip


def _accelerator() -> list[str]:
    """Hardware virtualisation where it works, else emulation of all threads in parallel.

    The processor flags are asked as well: hosts that are guests themselves may have a /dev/kvm which opens
    but cannot run an ordinary kernel."""
    flags = Path("/proc/cpuinfo").read_text().split()
    if ("vmx" in flags or "svm" in flags) and os.access("/dev/kvm", os.R_OK | os.W_OK):
        return ["-accel", "kvm", "-cpu", "host"]
    return ["-accel", "tcg,thread=multi", "-cpu", "max"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
