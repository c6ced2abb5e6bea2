# What Ramferry needs from Debian 12, and how it is installed: sourced by the scripts, run by nobody.
# shellcheck shell=bash

BUILD_PACKAGES=(build-essential cmake ninja-build ccache pkg-config git
  libgrpc++-dev protobuf-compiler protobuf-compiler-grpc libprotobuf-dev libssl-dev libabsl-dev
  libcli11-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libtomlplusplus-dev libhwy-dev
  libhwloc-dev libibverbs-dev librdmacm-dev libxen-dev libdpdk-dev liblwip-dev)
DEMO_PACKAGES=(qemu-system-x86 qemu-system-common)
TEST_PACKAGES=(libgtest-dev libgmock-dev libbenchmark-dev clang clang-format clang-tidy libclang-rt-14-dev
  python3 python3-pytest python3-pytest-xdist openssl iproute2 iputils-ping iptables util-linux procps kmod busybox-static cpio
  e2fsprogs zstd xz-utils spin gcc libc6-dev curl ca-certificates ibverbs-providers ethtool
  libvirt-daemon libvirt-daemon-driver-qemu libvirt-clients systemd)

# Commands that need root: as they are for root, else through sudo.
as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo --preserve-env=DEBIAN_FRONTEND "$@"; fi
}

# install_packages PACKAGE...: installs those that are missing; asks the package lists only then.
install_packages() {
  local missing=() package
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) == installed ]] ||
      missing+=("$package")
  done
  [[ ${#missing[@]} == 0 ]] && return 0
  echo "installing ${#missing[@]} Debian packages: ${missing[*]}"
  if [[ $(id -u) != 0 ]] && ! command -v sudo >/dev/null; then
    echo "cannot install packages: run this as root, or install sudo" >&2
    return 1
  fi
  local log
  log=$(mktemp)
  export DEBIAN_FRONTEND=noninteractive
  if ! { as_root apt-get update -q && as_root apt-get install -yq --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    rm -f "$log"
    echo "apt-get could not install them; see above" >&2
    return 1
  fi
  rm -f "$log"
}

# Package lists, which images without them drop; for what downloads packages without installing them.
have_package_lists() {
  compgen -G '/var/lib/apt/lists/*_Packages*' >/dev/null || as_root apt-get update -q >/dev/null
}

# build PRESET TARGET...: configures and builds; quiet unless it fails.
build() {
  local preset=$1 log
  shift
  log=$(mktemp)
  export CCACHE_BASEDIR=$PWD CCACHE_NOHASHDIR=1
  if ! { cmake --preset "$preset" "${CMAKE_EXTRA[@]}" && cmake --build --preset "$preset" --target "$@"; } \
    >"$log" 2>&1; then
    grep -E 'error|Error|FAILED|warning:' "$log" | head -n 40 >&2
    tail -n 20 "$log" >&2
    rm -f "$log"
    echo "the $preset build failed; see above" >&2
    return 1
  fi
  grep -A 20 'what was found, and what is built' "$log" | sed -n 's/^-- //p' | grep -vE '^(Configuring|Generating|Build files)' || true
  rm -f "$log"
}
CMAKE_EXTRA=()
