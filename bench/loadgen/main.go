// Loadgen is the load of the benchmarks: one request, sent again and again over HTTP/2 with TLS, by gRPC or as it stands.
//
// Each line on standard input is an order as JSON, each line on standard output what came of it. Why no tool of others:
// docs/performance.md, "The load generator".
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "loadgen:", err)
		os.Exit(1)
	}
}

func serve() error {
	lines := bufio.NewScanner(os.Stdin)
	lines.Buffer(nil, 32<<20) // a batch of 10,000 is a few MiB, in base64
	answers := json.NewEncoder(os.Stdout)
	servers := pools{}
	fmt.Println("ready -")
	for lines.Scan() {
		var order Order
		if err := json.Unmarshal(lines.Bytes(), &order); err != nil {
			return fmt.Errorf("an order that is no JSON: %w", err)
		}
		sender, err := servers.sender(order)
		if err != nil {
			return err
		}
		stop := servers.watch(time.Duration(order.TimeoutS * float64(time.Second)))
		answer := run(order, sender)
		stop()
		if err := answers.Encode(answer); err != nil {
			return err
		}
	}
	return lines.Err()
}
