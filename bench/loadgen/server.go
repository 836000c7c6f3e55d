package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2/hpack"
)

// pools keeps connections from one order to the next.
type pools map[Server]*pool

// Sender sends one request of an order, for one of its callers. The string names what went wrong; "" is success.
type Sender func(caller int) string

// pool is the connections to one server.
type pool struct {
	server Server
	config *tls.Config
	slots  []slot
	next   atomic.Uint64
}

// slot is where one connection is, or will be: one that the server ends is made anew by the next call.
type slot struct {
	sync.Mutex
	open *connection
}

func (p pools) sender(order Order) (Sender, error) {
	servers, known := p[order.Server]
	if !known {
		var err error
		if servers, err = newPool(order.Server); err != nil {
			return nil, err
		}
		p[order.Server] = servers
	}
	fields, body := request(order)
	return func(caller int) string {
		if order.Apart {
			return servers.at(uint64(caller)).call(servers, fields, body, order.GRPC)
		}
		return servers.at(servers.next.Add(1)).call(servers, fields, body, order.GRPC)
	}, nil
}

func newPool(server Server) (*pool, error) {
	ca, err := os.ReadFile(server.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", server.CA)
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"}}
	if server.Cert != "" {
		pair, err := tls.LoadX509KeyPair(server.Cert, server.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &pool{server: server, config: config, slots: make([]slot, max(1, server.Connections))}, nil
}

func (p *pool) at(number uint64) *slot {
	return &p.slots[number%uint64(len(p.slots))]
}

func (s *slot) call(p *pool, fields []hpack.HeaderField, body []byte, grpc bool) string {
	for {
		open, err := s.connection(p.server.Address, p.config)
		if err != nil {
			return "connect: " + firstLine(err.Error())
		}
		ended := open.send(fields, body)
		// A server that ends a connection by age says so, and has not taken this call.
		if ended.problem == afterGoAway {
			continue
		}
		return firstLine(ended.outcome(grpc))
	}
}

func (s *slot) connection(address string, config *tls.Config) (*connection, error) {
	s.Lock()
	defer s.Unlock()
	if s.open == nil || !s.open.usable() {
		open, err := dial(address, config)
		if err != nil {
			return nil, err
		}
		s.open = open
	}
	return s.open, nil
}

// watch ends calls that have waited for too long, until it is stopped: one timer for all of them.
func (p pools) watch(timeout time.Duration) (stop func()) {
	stopped, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stopped:
				return
			case <-time.After(time.Second):
				p.expire(timeout)
			}
		}
	}()
	return func() { close(stopped); <-done }
}

func (p pools) expire(timeout time.Duration) {
	for _, servers := range p {
		for at := range servers.slots {
			servers.slots[at].Lock()
			if open := servers.slots[at].open; open != nil {
				open.expire(timeout)
			}
			servers.slots[at].Unlock()
		}
	}
}

func request(order Order) ([]hpack.HeaderField, []byte) {
	body := order.Body
	fields := []hpack.HeaderField{
		{Name: ":method", Value: order.Method},
		{Name: ":scheme", Value: "https"},
		{Name: ":path", Value: order.Path},
		{Name: ":authority", Value: order.Server.Address},
	}
	for name, value := range order.Headers {
		fields = append(fields, hpack.HeaderField{Name: strings.ToLower(name), Value: value})
	}
	if !order.GRPC {
		return append(fields, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(body))}), body
	}
	framed := make([]byte, 5, 5+len(body)) // not compressed, and how long
	binary.BigEndian.PutUint32(framed[1:], uint32(len(body)))
	fields = append(
		fields,
		hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
		hpack.HeaderField{Name: "te", Value: "trailers"},
		hpack.HeaderField{Name: "user-agent", Value: "vaultd-loadgen"},
	)
	return fields, append(framed, body...)
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
