#!/bin/sh
# Installs what the tests need of the system: openssl (checks our certificates), Go (builds grpcurl), SoftHSM (a token),
# pkcs11-tool (looks into it), a C compiler (builds the module that fails when it is told to), PostgreSQL (rotates the
# passwords of its roles) and promtool (checks the alerts).
set -eu
missing=""
command -v openssl >/dev/null || missing="$missing openssl"
command -v go >/dev/null || missing="$missing golang-go"
command -v softhsm2-util >/dev/null || missing="$missing softhsm2"
command -v pkcs11-tool >/dev/null || missing="$missing opensc"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
command -v promtool >/dev/null || missing="$missing prometheus"
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of package names
    # Runlevel 1: what is installed is not started, too.
    DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends $missing
else
    echo "the tests need these packages; install them and run make test again:$missing" >&2
    exit 1
fi
