package main

// Order is one slice of load. Rate is calls a second that begin at fixed times, whatever has been answered; without it
// InFlight calls are kept under way. Calls go over the connections in turn; with Apart those that one caller makes, each when
// the one before it has ended, keep to one connection.
type Order struct {
	Server   Server            `json:"server"`
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Headers  map[string]string `json:"headers"`
	Body     []byte            `json:"body"`
	GRPC     bool              `json:"grpc"`
	InFlight int               `json:"in_flight"`
	Apart    bool              `json:"apart"`
	Rate     float64           `json:"rate"`
	Seconds  float64           `json:"seconds"`
	TimeoutS float64           `json:"timeout_s"`
}

// Server says where, and as whom. CA, Cert and Key are files in PEM; a server that knows its callers by a token has no Cert.
type Server struct {
	Address     string `json:"address"`
	CA          string `json:"ca"`
	Cert        string `json:"cert"`
	Key         string `json:"key"`
	Connections int    `json:"connections"`
}

// Answer is what came of an order. A slice ends when the calls that began in its time have ended, so that CPU that is counted
// around it belongs to the calls that are counted in it.
type Answer struct {
	ElapsedS   float64        `json:"elapsed_s"`
	ClientCPUS float64        `json:"client_cpu_s"`
	Latencies  []byte         `json:"latencies"` // microseconds, 32 bits each, little endian, of calls that succeeded
	Errors     map[string]int `json:"errors"`
	MostOpen   int            `json:"most_open"`
	LatestUS   int64          `json:"latest_us"` // the latest start of a call, behind its time
}
