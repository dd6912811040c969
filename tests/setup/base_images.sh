#!/usr/bin/env bash
# Makes the base images that scenarios build upon, as OCI layouts, and prints the directory that holds them:
#
#   DIR/debian   bookworm   a minimal Debian, linux/amd64
#   DIR/busybox  1          an index: linux/amd64 and linux/arm64
#
# No image can be pulled from anywhere, and windlass must not make its own test inputs, so debootstrap, busybox and
# umoci make them. The directory is named after this recipe: a changed recipe makes new images, and an unchanged one
# makes none. Each image is built beside its final place and renamed, so that a killed run leaves nothing half-made.
set -euo pipefail
umask 022

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/windlass-tests
recipe=$(cat "$here/base_images.sh" "$here/oci_index.py" | sha256sum | cut -c 1-16)
bases=$cache/bases-$recipe
default_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

if [ -d "$bases/debian" ] && [ -d "$bases/busybox" ]; then
    echo "$bases"
    exit 0
fi

mkdir -p "$bases"
as_root rm -rf "$cache"/making.* # of a run that was killed; tests/run lets only one of us in at a time
work=$(mktemp -d "$cache/making.XXXXXX")
trap 'as_root rm -rf "$work"' EXIT

# add_image LAYOUT TAG ROOTFS ARCHITECTURE COMMAND: one layer with the files below ROOTFS, owners and all.
add_image() {
    local layout=$1 tag=$2 rootfs=$3 architecture=$4 command=$5
    [ -d "$layout" ] || umoci init --layout "$layout"
    umoci new --image "$layout:$tag"
    as_root tar --create --sort=name --numeric-owner --xattrs --directory "$rootfs" --file "$work/layer.tar" .
    umoci raw add-layer --image "$layout:$tag" "$work/layer.tar"
    umoci config --image "$layout:$tag" --os linux --architecture "$architecture" \
        --clear config.cmd --config.cmd "$command" --config.env "PATH=$default_path" --author windlass-tests
    umoci gc --layout "$layout"
}

mirror_of_bookworm() {
    apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' |
        head -n 1
}

make_debian() {
    echo "tests/setup: making the debian base image" >&2
    local mirror rootfs=$work/debian-rootfs
    mirror=$(mirror_of_bookworm)
    if [ -z "$mirror" ]; then
        as_root apt-get -q update >&2 # the lists may have been cleaned away
        mirror=$(mirror_of_bookworm)
    fi
    [ -n "$mirror" ] || { echo "tests/setup: no mirror of bookworm among the apt sources" >&2; return 1; }
    # debootstrap downloads by itself; where apt goes through a proxy, so must it.
    local proxy
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    as_root env ${proxy:+"http_proxy=$proxy"} \
        debootstrap --variant=minbase bookworm "$rootfs" "$mirror" >"$work/debootstrap.log" 2>&1 ||
        { tail -n 20 "$work/debootstrap.log" >&2; return 1; }
    as_root rm -rf "$rootfs"/var/cache/apt "$rootfs"/var/lib/apt/lists "$rootfs"/var/log "$rootfs"/debootstrap \
        "$rootfs"/usr/share/{doc,man,info,locale,lintian} "$rootfs"/var/cache/debconf/*-old
    as_root mkdir -p "$rootfs"/var/cache/apt/archives/partial "$rootfs"/var/lib/apt/lists/partial "$rootfs"/var/log/apt
    as_root rm -f "$rootfs"/etc/resolv.conf "$rootfs"/etc/hostname
    add_image "$work/debian" bookworm "$rootfs" amd64 bash
    rename_into_place debian
}

make_busybox() {
    echo "tests/setup: making the busybox base image" >&2
    local rootfs=$work/busybox-rootfs applet
    mkdir -p "$rootfs"/{bin,dev,etc,home/app,lib,proc,root,run,sys,tmp,usr/bin,usr/sbin,var/tmp}
    cp /bin/busybox "$rootfs/bin/busybox"
    for applet in $(/bin/busybox --list); do
        [ "$applet" = busybox ] || ln -s busybox "$rootfs/bin/$applet"
    done
    ln -s ../bin/env "$rootfs/usr/bin/env"
    # Things that a COPY onto this image can trip over: a directory behind a symlink, sticky and setgid directories.
    ln -s lib "$rootfs/lib64"
    ln -s ../run "$rootfs/var/run"
    chmod 1777 "$rootfs/tmp" "$rootfs/var/tmp"
    chmod 0700 "$rootfs/root"
    printf '%s\n' root:x:0:0:root:/root:/bin/sh daemon:x:1:1:daemon:/usr/sbin:/bin/false \
        www-data:x:33:33:www-data:/var/www:/bin/false app:x:1000:1000:app:/home/app:/bin/sh \
        nobody:x:65534:65534:nobody:/nonexistent:/bin/false >"$rootfs/etc/passwd"
    printf '%s\n' root:x:0: daemon:x:1: staff:x:50:app www-data:x:33: app:x:1000: nogroup:x:65534: \
        >"$rootfs/etc/group"
    as_root chown -R 0:0 "$rootfs"
    as_root chown -R 1000:1000 "$rootfs/home/app"
    as_root chmod 2775 "$rootfs/home/app"
    # The second platform holds the same files: nothing runs on it, it is only copied onto.
    add_image "$work/busybox" amd64 "$rootfs" amd64 sh
    add_image "$work/busybox" arm64 "$rootfs" arm64 sh
    python3 "$here/oci_index.py" "$work/busybox" 1 amd64=linux/amd64 arm64=linux/arm64/v8
    rename_into_place busybox
}

rename_into_place() {
    as_root chown -R "$(id -u):$(id -g)" "$work/$1"
    sync -f "$work/$1"
    mv "$work/$1" "$bases/$1"
}

[ -d "$bases/busybox" ] || make_busybox
[ -d "$bases/debian" ] || make_debian

# Images of older recipes are of no use any more.
find "$cache" -mindepth 1 -maxdepth 1 -name 'bases-*' ! -path "$bases" -exec rm -rf {} +
echo "$bases"
