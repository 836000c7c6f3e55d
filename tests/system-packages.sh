#!/bin/sh
# Installs what the tests need of the system: openssl (checks our certificates) and Go (builds grpcurl).
set -eu
missing=""
command -v openssl >/dev/null || missing="$missing openssl"
command -v go >/dev/null || missing="$missing golang-go"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of package names
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
else
    echo "the tests need these packages; install them and run make test again:$missing" >&2
    exit 1
fi
