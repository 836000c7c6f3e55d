module vaultd.dev/bench/loadgen

go 1.24
