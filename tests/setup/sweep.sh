#!/usr/bin/env bash
# Removes what an earlier test run left because it was killed outright: its directories, mounts and network links.
# A run that still goes on keeps everything: its processes name its directories.
set -euo pipefail

[ "$(id -u)" = 0 ] || exit 0 # only root starts engines

in_use() {
    grep -qsF -- "$1" /proc/[0-9]*/cmdline /proc/[0-9]*/environ
}

# A directory younger than a minute may belong to a run whose first process is only about to start.
find /tmp "${TMPDIR:-/tmp}" -maxdepth 1 -mmin +1 \
    \( -name 'windlass-engine.*' -o -name 'windlass-registry.*' -o -name 'windlass-run.*' \) -print | sort -u |
    while read -r directory; do
        if in_use "${directory##*/}"; then continue; fi
        awk -v below="$directory/" 'index($2, below) == 1 { print $2 }' /proc/self/mounts | sort -r |
            xargs --no-run-if-empty -n 1 umount --lazy
        if [ -e "$directory/bridge" ]; then ip link delete "$(cat "$directory/bridge")" || true; fi
        rm -rf "$directory"
    done
