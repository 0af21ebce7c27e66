#!/bin/sh
# Builds a real Kubernetes API server and an etcd from Debian's sources, for `make test-kubernetes-real`, where no ready
# binary can be had:
#
#   tests/contract/kube/build_api_server.sh whole FOLDER    kube-apiserver 1.20.2, all kinds (Debian 12's source)
#   tests/contract/kube/build_api_server.sh custom FOLDER   apiextensions-apiserver of Debian's present version (sid):
#                                                           CustomResourceDefinitions and nothing else
#
# Needs apt, dpkg, curl, 4 GB of disk and, on 2 cores, 8 to 20 minutes. Nothing is installed: packages are unpacked below
# FOLDER/build, with lists of packages of their own. FOLDER/assets is what KUBEBUILDER_ASSETS is to name.
set -eu

what=${1:-} folder=${2:-}
case "$what" in
    whole) suite=bookworm go=1.19 packages="golang-1.19-go golang-1.19-src golang-github-modern-go-reflect2-dev" ;;
    custom) suite=sid go=1.26 packages="golang-1.26-go golang-1.26-src golang-k8s-apiextensions-apiserver-dev golang-go.uber-zap-dev" ;;
    *) sed -n '2,10s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
[ -n "$folder" ] || { echo "name a folder to build in: $0 $what FOLDER" >&2; exit 2; }
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
build=$folder/build root=$folder/build/root
mkdir -p "$folder/assets" "$root" "$build/debs" "$build/apt/lists/partial" "$build/apt/cache/archives/partial"

# ── an apt of its own, which knows of no installed package ──────────────────────────────────────────────────────────
: >"$build/apt/status"
keys=/usr/share/keyrings/debian-archive-keyring.gpg
printf 'deb [signed-by=%s] %s %s main\ndeb-src [signed-by=%s] %s %s main\n' \
    $keys "$mirror" $suite $keys "$mirror" $suite >"$build/apt/sources.list"
cat >"$build/apt/conf" <<EOF
Dir::Etc::sourcelist "$build/apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::State::lists "$build/apt/lists";
Dir::State::status "$build/apt/status";
Dir::Cache "$build/apt/cache";
APT::Install-Recommends "false";
APT::Sandbox::User "root";
EOF
export APT_CONFIG="$build/apt/conf"
apt-get update -q

# ── the compiler, libraries and etcd, unpacked ──────────────────────────────────────────────────────────────────────
cd "$build/debs"
# shellcheck disable=SC2086 # a list of words
apt-get install -y --print-uris $packages etcd-server | sed -n "s/^'\([^']*\)'.*/\1/p" |
    grep -E '/(golang|gopath|etcd-server)' |
    grep -vE 'circl|lz4|klauspost-compress|x-tools|google-cloud|aws-sdk|mongo|gonum' | # large, and imported by nothing here
    xargs -n 8 curl -sS --fail --remote-name-all
for deb in *.deb; do dpkg -x "$deb" "$root"; done
ln -sf "$root/usr/bin/etcd" "$folder/assets/etcd"

export GOROOT="$root/usr/lib/go-$go" GO111MODULE=off GOFLAGS='' CGO_ENABLED=0 GOTOOLCHAIN=local GOCACHE="${GOCACHE:-$build/cache}"
export PATH="$GOROOT/bin:$PATH"

if [ "$what" = custom ]; then
    export GOPATH="$root/usr/share/gocode"
    cd "$GOPATH/src/k8s.io/apiextensions-apiserver"
    nice -n 5 go build -p 2 -trimpath -ldflags '-s -w' -o "$folder/assets/apiextensions-apiserver" .
    exit
fi

# ── kube-apiserver ──────────────────────────────────────────────────────────────────────────────────────────────────
export GOPATH="$build/gopath"
source=$GOPATH/src/k8s.io/kubernetes
mkdir -p "$GOPATH/src/k8s.io" "$build/source"
cd "$build/source"
[ -d "$source" ] || { apt-get source -q --download-only kubernetes && mkdir "$source" &&
    tar -xzf kubernetes_*.orig.tar.gz -C "$source" --strip-components=1; }
cd "$source"
# Of 2021, for Go 1.15. Under a later Go reflect2 1.0.1 crashes where it walks through maps, and an empty string looks
# like nothing to the validator of defaults: both were mended so by their makers later.
rm -rf vendor/github.com/modern-go/reflect2
cp -r "$root/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go/reflect2
for validator in vendor/github.com/go-openapi/validate/type.go vendor/k8s.io/kube-openapi/pkg/validation/validate/type.go; do
    sed -i 's/if data == nil || reflect.DeepEqual(reflect.Zero(reflect.TypeOf(data)), reflect.ValueOf(data)) {/if data == nil {/' \
        $validator
done
# The one generated file that sources come without.
go build -o "$build/openapi-gen" ./vendor/k8s.io/kube-openapi/cmd/openapi-gen
inputs=$(grep -rl --include='*.go' '+k8s:openapi-gen=true' staging/src/k8s.io | xargs -n 1 dirname | sort -u |
    sed 's|^staging/src/|k8s.io/kubernetes/vendor/|' | grep -vE '/(sample-|code-generator)' | tr '\n' ',')
"$build/openapi-gen" -i "${inputs%,}" -p k8s.io/kubernetes/pkg/generated/openapi \
    -O zz_generated.openapi --go-header-file hack/boilerplate/boilerplate.generatego.txt -r "$build/violations"
nice -n 5 go build -p 2 -trimpath -ldflags '-s -w' -o "$folder/assets/kube-apiserver" ./cmd/kube-apiserver
