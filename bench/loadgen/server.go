package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

// pools keeps connections from one order to the next.
type pools map[Server][]*http.Transport

// Sender sends one request of an order. The string names what went wrong; "" is success.
type Sender func() string

func (p pools) sender(order Order) (Sender, error) {
	transports, known := p[order.Server]
	if !known {
		var err error
		if transports, err = connect(order.Server); err != nil {
			return nil, err
		}
		p[order.Server] = transports
	}
	template, body, err := request(order)
	if err != nil {
		return nil, err
	}
	timeout := time.Duration(order.TimeoutS * float64(time.Second))
	var next atomic.Uint64
	return func() string {
		transport := transports[next.Add(1)%uint64(len(transports))]
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		call := template.WithContext(ctx)
		call.Body = io.NopCloser(bytes.NewReader(body))
		return exchange(transport, call, order.GRPC)
	}, nil
}

// connect makes as many transports as connections: each of them opens one, as long as a connection carries the streams.
func connect(server Server) ([]*http.Transport, error) {
	ca, err := os.ReadFile(server.CA)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate", server.CA)
	}
	config := &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	if server.Cert != "" {
		pair, err := tls.LoadX509KeyPair(server.Cert, server.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transports := make([]*http.Transport, max(1, server.Connections))
	for at := range transports {
		transports[at] = &http.Transport{
			TLSClientConfig:    config.Clone(),
			ForceAttemptHTTP2:  true,
			DisableCompression: true,
			MaxConnsPerHost:    0,
		}
	}
	return transports, nil
}

func request(order Order) (*http.Request, []byte, error) {
	body := order.Body
	if order.GRPC {
		framed := make([]byte, 5, 5+len(body)) // not compressed, and how long
		binary.BigEndian.PutUint32(framed[1:], uint32(len(body)))
		body = append(framed, body...)
	}
	template, err := http.NewRequest(order.Method, "https://"+order.Server.Address+order.Path, nil)
	if err != nil {
		return nil, nil, err
	}
	template.ContentLength = int64(len(body))
	for name, value := range order.Headers {
		template.Header.Set(name, value)
	}
	if order.GRPC {
		template.Header.Set("Content-Type", "application/grpc")
		template.Header.Set("TE", "trailers")
	}
	return template, body, nil
}

func exchange(transport *http.Transport, call *http.Request, grpc bool) string {
	response, err := transport.RoundTrip(call)
	if err != nil {
		return "transport: " + firstLine(err.Error())
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		return "transport: " + firstLine(err.Error())
	}
	if response.ProtoMajor != 2 {
		return "transport: the server does not speak HTTP/2"
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Sprintf("HTTP status %d", response.StatusCode)
	}
	if !grpc {
		return ""
	}
	status, message := response.Trailer.Get("Grpc-Status"), response.Trailer.Get("Grpc-Message")
	if status == "" { // an error without a message comes as headers alone
		status, message = response.Header.Get("Grpc-Status"), response.Header.Get("Grpc-Message")
	}
	if status == "0" {
		return ""
	}
	return fmt.Sprintf("gRPC status %s %s", status, firstLine(message))
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return line
}
