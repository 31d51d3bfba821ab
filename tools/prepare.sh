#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes sure that the machine has what a make target needs: prepare.sh [build|test|demo|debian|sanitize|bench|fuzz]...
# Missing Debian packages are installed when this runs as root; otherwise it says what to install. May be run any
# number of times; does nothing when all is there.
set -eu

missing=""
need() { # need PACKAGE COMMAND...: the package is missing unless the command succeeds
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
wish() { # wish PACKAGE COMMAND...: as need, but who is not root does without (no mount is built then)
    [ "$(id -u)" != 0 ] || need "$@"
}
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1"; }
has_file() { [ -e "$1" ]; }
compiles() { echo 'int main(void) { return 0; }' | gcc -x c -o /dev/null -; }
sanitizes() { has_file "$(gcc -print-file-name=libasan.so)" && has_file "$(gcc -print-file-name=libtsan.so)"; }
fuzzes() {
    has clang && echo 'int LLVMFuzzerTestOneInput(const char *d, long n) { return d && n < 0; }' |
        clang -x c -fsanitize=fuzzer,address -o /dev/null -
}
python_has() { python3 -c "import $1"; }
python_headers() { python3 -c 'import os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")'; }
python_new_enough() { python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; }

for purpose in "$@"; do
    case $purpose in
        build)
            need gcc has gcc
            need libc6-dev compiles
            need make has make
            need cmake has cmake
            need python3 has python3
            need python3-venv python_has ensurepip
            need python3-dev python_headers
            wish libfuse3-dev has_file /usr/include/fuse3/fuse_lowlevel.h
            wish fuse3 has fusermount3
            wish pkg-config has pkg-config
            need ca-certificates has_file /etc/ssl/certs/ca-certificates.crt
            ;;
        test)
            need skopeo has skopeo
            need umoci has umoci
            need busybox-static has busybox
            need debootstrap has debootstrap
            need attr has setfattr
            need valgrind has valgrind
            ;;
        bench)
            # What is not to be had is left out of the comparison, and said there.
            need debootstrap has debootstrap
            need xfsprogs has mkfs.xfs
            need btrfs-progs has mkfs.btrfs
            need fuse-overlayfs has fuse-overlayfs
            need mount has losetup
            need e2fsprogs has mkfs.ext4
            ;;
        demo) need busybox-static has busybox ;;
        debian) need debootstrap has debootstrap ;;
        sanitize) need gcc sanitizes ;;
        fuzz)
            need clang has clang
            need libclang-rt-dev fuzzes
            ;;
        *)
            echo "prepare.sh: unknown purpose: $purpose" >&2
            exit 2
            ;;
    esac
done

if [ -n "$missing" ]; then
    if [ "$(id -u)" != 0 ]; then
        echo "These Debian packages are needed; install them as root:" >&2
        echo "    apt-get install$missing" >&2
        exit 1
    fi
    echo "Installing:$missing"
    export DEBIAN_FRONTEND=noninteractive
    log=$(mktemp)
    if ! { apt-get update && apt-get install -y --no-install-recommends $missing; } >"$log" 2>&1 </dev/null; then
        cat "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
fi

if ! python_new_enough; then
    echo "Python 3.11 or later is needed." >&2
    exit 1
fi

# A virtual environment whose Python is gone (an upgrade of the system) is made anew.
if ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    rm -rf .venv
    python3 -m venv .venv
fi
