#!/bin/sh
# The one script: what a developer or a curious person runs. Each command installs what it lacks
# (on Debian and Ubuntu by apt; elsewhere it says what to install).
set -eu
cd "$(dirname "$0")"

usage() {
    cat <<'END'
usage: sudo ./do demo [--keep]   a small internet on this machine, and the article's four tests in it
       sudo ./do test [ARG...]   all tests (without root: only those that need none); ARGs go to pytest
       sudo ./do test-vm         the package on Debian 12 and 13 with the WireGuard in their kernels, under qemu
       sudo ./do vmtest [ARG...] the tests of WireGuard in the kernel, on a Debian kernel under qemu
       sudo ./do leaktest [--json FILE] [--times N] [SCENARIO...]
                                 what leaves in clear while things happen, beside the set-up of the article
       sudo ./do leaktest --chaos [--seed N] [--minutes M]
                                 the same while faults happen at random, for 10 minutes
       sudo ./do bench [--quick] [--rows 1,3] [--runs N] [--json FILE] [--document]
                                 speed and memory beside dnsmasq and smartdns, in 20 minutes (--quick: 2)
       sudo ./do test-system [ARG...]
                                 the package on a booted Debian 12 and 13: set up, upgraded, rebooted, purged
            ./do deb             the Debian package: dist/splitwg_VERSION_all.deb
            ./do lint            ruff and mypy
END
}

say() { printf '%s\n' "$*" >&2; }

# command:package, by Debian's names
NEEDS="nft:nftables ip:iproute2 wg:wireguard-tools wireguard-go:wireguard-go dig:bind9-dnsutils
       curl:curl conntrack:conntrack unshare:util-linux pkill:procps"

# The distribution's Python where it will do: it is what the package runs on, and made for speed (PGO, LTO).
python=python3
if /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    python=/usr/bin/python3
fi

# install_system [COMMAND:PACKAGE...]: these, and what every command needs
install_system() {
    missing=""
    for need in $NEEDS "$@"; do
        command -v "${need%%:*}" >/dev/null 2>&1 || missing="$missing ${need#*:}"
    done
    # ensurepip is what Debian keeps back in python3-venv.
    $python -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "do: please install, by your distribution's names for them:$missing"
        exit 1
    fi
    if [ "$(id -u)" != 0 ]; then
        say "do: missing:$missing; run: sudo apt-get install$missing"
        exit 1
    fi
    say "do: installing$missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of packages
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

install_python() {
    $python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        say "do: Python 3.11 or later is needed, and this is $($python --version)"
        exit 1
    }
    wanted="$python $($python --version) $(cksum <pyproject.toml)"
    [ "$(cat .venv/made-of 2>/dev/null)" = "$wanted" ] && return 0
    say "do: installing splitwg and its libraries into .venv"
    rm -rf .venv
    $python -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[dev]'
    printf '%s' "$wanted" >.venv/made-of
    give_back .venv ./*.egg-info
}

# give_back FILE...: made by sudo, but the owner of the checkout goes on using them
give_back() {
    [ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID:${SUDO_GID:-$SUDO_UID}" "$@"
}

# A DNS server of Debian's without its service, which would start and take port 53 of this machine.
unpack_server() {
    command -v "$1" >/dev/null || [ -x ".venv/bin/$1" ] || {
        command -v apt-get >/dev/null || {
            say "do: please install $1, and see to it that its service does not start"
            exit 1
        }
        say "do: unpacking $1 into .venv"
        apt-get update -qq
        # shellcheck disable=SC2046  # a list of packages: the libraries that it needs
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            $(apt-cache depends "$1" | sed -n 's/^ *Depends: \(lib[^ ]*\)$/\1/p') >/dev/null
        mkdir -p ".venv/$1"
        (cd ".venv/$1" && apt-get download -qq -o APT::Sandbox::User=root "$1" && dpkg-deb -x "$1"_*.deb .)
        ln -sf "../$1/usr/sbin/$1" ".venv/bin/$1"
        give_back ".venv/$1"
    }
}

# For the tests on a booted systemd. On this one it would take the DNS over.
unpack_resolved() {
    [ -e /lib/systemd/systemd-resolved ] || [ -d .venv/systemd-resolved ] || ! command -v apt-get >/dev/null || {
        say "do: unpacking systemd-resolved into .venv"
        mkdir -p .venv/systemd-resolved
        (cd .venv/systemd-resolved && apt-get download -qq -o APT::Sandbox::User=root systemd-resolved &&
            dpkg-deb -x systemd-resolved_*.deb .) || say "do: the tests beside systemd-resolved are skipped"
        give_back .venv/systemd-resolved
    }
}

need_root() {
    [ "$(id -u)" = 0 ] && return 0
    say "do: this needs root, because it makes network namespaces: sudo ./do $1"
    exit 1
}

# A network, mount and process namespace of its own: nothing in it can reach the machine's network, and
# whatever way it ends, all that it started ends with it.
enclosed() {
    [ -e /dev/net/tun ] || modprobe tun 2>/dev/null || {
        say "do: there is no /dev/net/tun, which WireGuard in userspace needs: modprobe tun"
        exit 1
    }
    # The lab's clients hold 1,000 sockets at once, and a shell may have 1,024 files.
    # shellcheck disable=SC3045  # dash has -S and -H
    ulimit -S -n "$(ulimit -H -n)"
    # What systemd told the caller is not meant for the lab's daemons: unbound ends where it cannot notify.
    unshare --net --mount --pid --fork --kill-child --mount-proc \
        env -u NOTIFY_SOCKET -u WATCHDOG_USEC -u WATCHDOG_PID -u JOURNAL_STREAM -u RUNTIME_DIRECTORY \
        SPLITWG_OUTER_NETNS="$(readlink /proc/self/ns/net)" PATH="$PWD/.venv/bin:$PATH" "$@"
}

# packaged: the packages and the systems that the tests boot, made here, because the enclosure has no network
packaged() {
    packages=$(mktemp -d)
    trap 'rm -rf "$packages"' EXIT
    .venv/bin/python -m tests.debian.roots
    .venv/bin/python -m tests.debian.packages "$packages"
}

# on_kernel RELEASE PYTEST-ARGUMENT...: enclosed, on that release's kernel
on_kernel() {
    # shellcheck disable=SC2016  # expanded by the guest's shell
    .venv/bin/python -m tests.vm.boot --kernel "$1" -- sh -c '
        packages=$1 release=$2; shift 2
        exec unshare --net --mount --pid --fork --kill-child --mount-proc \
            env SPLITWG_OUTER_NETNS="$(readlink /proc/self/ns/net)" PATH="$PWD/.venv/bin:$PATH" \
            SPLITWG_PACKAGES="$packages" SPLITWG_GUEST="$release" \
            .venv/bin/python -m pytest -p no:cacheprovider --timeout=600 "$@"' sh "${packages:-}" "$@"
}

case "${1:-}" in
demo)
    need_root demo
    shift
    install_system
    install_python
    enclosed .venv/bin/python -m tests.lab.demo "$@"
    ;;
test)
    shift
    if [ "$(id -u)" = 0 ]; then
        install_system dnsperf:dnsperf strace:strace systemd-nspawn:systemd-container
        install_python
        unpack_server unbound
        unpack_resolved
        if [ $# -gt 0 ]; then
            enclosed .venv/bin/python -m pytest "$@"
        else
            enclosed .venv/bin/python -m tests.halves
        fi
    else
        install_python
        say "do: without root, so the tests on the real kernel and in the lab are skipped: sudo ./do test runs all"
        .venv/bin/python -m pytest "$@"
    fi
    ;;
test-system)
    need_root test-system
    shift
    install_system systemd-nspawn:systemd-container mmdebstrap:mmdebstrap dpkg-deb:dpkg lintian:lintian
    install_python
    packaged
    enclosed env SPLITWG_PACKAGES="$packages" .venv/bin/python -m pytest -p no:cacheprovider tests/debian "$@"
    ;;
vmtest)
    need_root vmtest
    shift
    install_system qemu-system-x86_64:qemu-system-x86 depmod:kmod
    install_python
    # The whole path once, on a kernel that has WireGuard; without arguments not all tests, since it is emulated.
    [ $# -gt 0 ] || set -- tests/kernel/test_wireguard.py tests/lab/test_leaks.py -k "(wireguard or steady or udp-A) and not AAAA"
    on_kernel bookworm "$@"
    ;;
test-vm)
    need_root test-vm
    install_system qemu-system-x86_64:qemu-system-x86 depmod:kmod systemd-nspawn:systemd-container \
        mmdebstrap:mmdebstrap dpkg-deb:dpkg lintian:lintian
    install_python
    packaged
    for release in bookworm trixie; do
        say "do: Debian's $release on its own kernel"
        on_kernel "$release" tests/debian/test_kernel_wireguard.py
    done
    ;;
leaktest)
    need_root leaktest
    shift
    # dnsmasq-base is dnsmasq without a service: the other half of the table.
    install_system dnsmasq:dnsmasq-base setpriv:util-linux
    install_python
    enclosed .venv/bin/python -m tests.lab.leaktest --article "$@"
    ;;
bench)
    need_root bench
    shift
    # gencat stands for the C library's headers, dnsmasq-base is dnsmasq without a service.
    install_system dnsmasq:dnsmasq-base dnsperf:dnsperf taskset:util-linux gcc:gcc gencat:libc6-dev
    install_python
    unpack_server smartdns
    enclosed .venv/bin/python -m tests.bench "$@"
    ;;
deb)
    shift
    install_python
    .venv/bin/python -m deb.build "$@"
    give_back dist
    ;;
lint)
    install_python
    .venv/bin/ruff check .
    .venv/bin/ruff format --check .
    .venv/bin/mypy
    ;;
*)
    usage
    [ "${1:-}" = help ] || exit 2
    ;;
esac
