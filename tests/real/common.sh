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

# A Go program by module path, into a folder named by its version: go_program NAME PACKAGE VERSION
go_program() {
    local name=$1 package=$2 version=$3
    local folder="$cache/$name-$version"
    one_at_a_time "$name"
    if [ ! -x "$folder/$name" ]; then
        need go
        rm -rf "$folder.new"
        quietly env GOBIN="$folder.new" nice go install "$package@$version"
        [ -x "$folder.new/$name" ] || fail "go install of $package made no program called $name"
        rm -rf "$folder"
        mv "$folder.new" "$folder"
    fi
    echo "$name $version: $folder/$name"
}

# Debian's packages, unless the function `there` finds all that they should bring: debian PACKAGE... Root on a Debian gets
# what is missing, others are told.
debian() {
    there && return
    [ "$(id -u)" = 0 ] || fail "missing, and only root can install it: apt-get install $*"
    command -v apt-get >/dev/null || fail "missing, and this is no Debian: $*"
    export DEBIAN_FRONTEND=noninteractive
    local install=(apt-get -q -y -o DPkg::Lock::Timeout=120 install --no-install-recommends "$@")
    # With yesterday's lists the download can fail; then with today's.
    "${install[@]}" >/dev/null 2>&1 9>&- </dev/null || {
        quietly apt-get -q -o Acquire::Retries=3 update
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
        local package=k8s.io/component-base/version program source flags
        flags="-s -w -X $package.gitVersion=$1 -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$1")"
        for program in "${programs[@]}"; do
            source=k8s.io/kubernetes/cmd/$program
            [ "$program" != etcd ] || source=go.etcd.io/etcd/server/v3
            quietly env CGO_ENABLED=0 nice go -C "$module" build -mod=readonly -trimpath -ldflags "$flags" \
                -o "$2/$program" "$source"
        done
    }
    go_module kubernetes "$module" k8s.io/kubernetes
}
