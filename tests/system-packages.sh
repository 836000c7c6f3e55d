#!/bin/sh
# Installs what the tests need of the system: openssl (checks our certificates), Go (builds grpcurl), SoftHSM (a token),
# pkcs11-tool (looks into it) and a C compiler (builds the module that fails when it is told to).
set -eu
missing=""
command -v openssl >/dev/null || missing="$missing openssl"
command -v go >/dev/null || missing="$missing golang-go"
command -v softhsm2-util >/dev/null || missing="$missing softhsm2"
command -v pkcs11-tool >/dev/null || missing="$missing opensc"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
else
    echo "the tests need these packages; install them and run make test again:$missing" >&2
    exit 1
fi
