#!/usr/bin/env bash
# Installs the Debian packages that the tests need. Does nothing, quickly, when all of them are there.
#
# Everything comes from the machine's own Debian mirror. On bookworm the engine, its client and buildx come from
# trixie (bookworm's engine has BuildKit 0.8, which is too old to be a peer), and so does oras, which bookworm lacks;
# a pin keeps every other package where it is.
set -euo pipefail

trixie_packages=(docker.io docker-cli docker-buildx oras)
packages=(
    "${trixie_packages[@]}" iptables      # the engine that the docker backend talks to, and a reader (oras)
    docker-registry skopeo umoci podman   # a real registry, and independent readers of what windlass writes
    debootstrap wget busybox-static       # what the base images are made of
    gcc libc6-dev                         # some crates compile C
    faketime                              # the clock of a program alone
    git python3 iproute2 util-linux pigz zstd xz-utils        # programs that tests and benchmarks call
    ca-certificates
)

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

missing=()
for package in "${packages[@]}"; do
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
# Bookworm's own engine counts as missing: it would be upgraded.
engine=$(dpkg-query -W -f '${Version}' docker.io 2>/dev/null || true)
if [ -n "$engine" ] && dpkg --compare-versions "$engine" lt 26; then missing+=(docker.io); fi
[ ${#missing[@]} -gt 0 ] || exit 0

echo "tests/setup: installing ${missing[*]}" >&2

# Address of the mirror that serves this machine's own release.
mirror_of() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' "Codename: $1" | head -n 1
}

. /etc/os-release
codename=${VERSION_CODENAME:-}
mirror=$(mirror_of "$codename")
if [ -z "$mirror" ]; then
    as_root apt-get -q update >&2
    mirror=$(mirror_of "$codename")
fi
[ -n "$mirror" ] || { echo "tests/setup: no Debian mirror among the apt sources of this machine" >&2; exit 1; }

if [ "$codename" = bookworm ]; then
    # An older keyring does not know trixie's keys yet; the newest one of bookworm does.
    if [ ! -e /usr/share/keyrings/debian-archive-trixie-stable.gpg ]; then
        as_root apt-get -q update >&2
        as_root apt-get -q -y install debian-archive-keyring >&2
    fi
    as_root tee /etc/apt/preferences.d/windlass-tests >/dev/null <<EOF
# Written by windlass' tests/setup/packages.sh: only these come from trixie.
Package: *
Pin: release n=trixie
Pin-Priority: -1

Package: ${trixie_packages[*]}
Pin: release n=trixie
Pin-Priority: 990
EOF
    as_root tee /etc/apt/sources.list.d/windlass-tests.sources >/dev/null <<EOF
# Written by windlass' tests/setup/packages.sh.
Types: deb
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
EOF
fi

# The engine and the registry must not start as services of the machine: the tests start their own.
policy=/usr/sbin/policy-rc.d
saved=$policy.before-windlass-tests
restore_policy() {
    if [ -e "$saved" ]; then as_root mv -f "$saved" "$policy"; else as_root rm -f "$policy"; fi
}
# A saved policy that is still here belongs to a run that was killed; it is the original one.
if [ -e "$policy" ] && [ ! -e "$saved" ]; then as_root mv "$policy" "$saved"; fi
trap restore_policy EXIT
printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
as_root chmod 0755 "$policy"

as_root apt-get -q update >&2
as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${packages[@]}" >&2
