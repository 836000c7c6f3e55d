package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	dialTimeout   = 10 * time.Second
	streamWindow  = 64 << 20 // larger than any answer: no stream ever waits for us
	connWindow    = 1 << 30
	replenishStep = 64 << 20
	specWindow    = 65_535 // RFC 9113, 6.9.2
	specFrame     = 16_384
	// afterGoAway: the server takes no new calls here, and answers those that it has.
	afterGoAway = "connection is going away"
)

var errAnswered = errors.New("answered before all of it was sent")

// connection is one HTTP/2 connection. A request is one or few writes, and requests that begin at once share a flush: a client
// that wrote headers and body apart would have the server read twice, and take cycles that the server needs on the same cores.
type connection struct {
	socket  *tls.Conn
	framer  *http2.Framer
	control chan func() error
	ended   chan struct{}
	once    sync.Once

	waiting atomic.Int32 // senders that hold or want `writing`; the last one flushes
	writing sync.Mutex
	buffer  *bufio.Writer
	headers bytes.Buffer
	encoder *hpack.Encoder

	state      sync.Mutex
	changed    *sync.Cond
	changes    uint64
	streams    map[uint32]*stream
	nextID     uint32
	maxStreams uint32
	sendWindow int64
	peerWindow int64 // what a new stream may send
	maxFrame   int64
	received   int64
	refusal    error // why no new stream may begin here
}

type stream struct {
	began      time.Time
	sendWindow int64
	done       chan struct{}
	ended      bool
	problem    string
	status     string
	grpcStatus string
	grpcText   string
}

func dial(address string, config *tls.Config) (*connection, error) {
	dialer := &tls.Dialer{NetDialer: &net.Dialer{Timeout: dialTimeout}, Config: config}
	plain, err := dialer.Dial("tcp", address)
	if err != nil {
		return nil, err
	}
	socket := plain.(*tls.Conn)
	if socket.ConnectionState().NegotiatedProtocol != "h2" {
		socket.Close()
		return nil, errors.New("the server does not speak HTTP/2")
	}
	c := &connection{
		socket: socket, buffer: bufio.NewWriterSize(socket, 64<<10), control: make(chan func() error, 64),
		ended: make(chan struct{}), streams: map[uint32]*stream{}, nextID: 1, maxStreams: 100,
		sendWindow: specWindow, peerWindow: specWindow, maxFrame: specFrame,
	}
	c.changed = sync.NewCond(&c.state)
	c.framer = http2.NewFramer(c.buffer, bufio.NewReaderSize(socket, 64<<10))
	c.framer.SetReuseFrames()
	c.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.encoder = hpack.NewEncoder(&c.headers)
	if err := c.greet(); err != nil {
		socket.Close()
		return nil, err
	}
	go c.read()
	go c.answer()
	return c, nil
}

func (c *connection) greet() error {
	if _, err := c.buffer.WriteString(http2.ClientPreface); err != nil {
		return err
	}
	settings := []http2.Setting{
		{ID: http2.SettingEnablePush, Val: 0}, {ID: http2.SettingInitialWindowSize, Val: streamWindow},
	}
	if err := c.framer.WriteSettings(settings...); err != nil {
		return err
	}
	if err := c.framer.WriteWindowUpdate(0, connWindow-specWindow); err != nil {
		return err
	}
	return c.buffer.Flush()
}

// send makes one call and waits for its end. It returns what went wrong, "" for success.
func (c *connection) send(fields []hpack.HeaderField, body []byte) *stream {
	call := &stream{began: time.Now(), done: make(chan struct{})}
	c.waiting.Add(1)
	id, err := c.write(call, fields, body)
	if err != nil {
		c.fail(id, call, err.Error())
	}
	<-call.done
	return call
}

func (c *connection) write(call *stream, fields []hpack.HeaderField, body []byte) (id uint32, err error) {
	c.writing.Lock()
	defer func() {
		if c.waiting.Add(-1) == 0 {
			err = errors.Join(err, c.buffer.Flush())
		}
		c.writing.Unlock()
	}()
	if id, err = c.begin(call); err != nil {
		return id, err
	}
	c.headers.Reset()
	for _, field := range fields {
		if err = c.encoder.WriteField(field); err != nil {
			return id, err
		}
	}
	head := http2.HeadersFrameParam{
		StreamID: id, BlockFragment: c.headers.Bytes(), EndHeaders: true, EndStream: len(body) == 0,
	}
	if err = c.framer.WriteHeaders(head); err != nil {
		return id, err
	}
	for len(body) > 0 {
		var room int
		if room, err = c.room(call, len(body)); err != nil {
			return id, err
		}
		if err = c.framer.WriteData(id, room == len(body), body[:room]); err != nil {
			return id, err
		}
		body = body[room:]
	}
	return id, nil
}

// begin waits for the server to allow one more stream. Streams must begin in the order of their numbers, so `writing` is held.
func (c *connection) begin(call *stream) (uint32, error) {
	c.state.Lock()
	defer c.state.Unlock()
	for c.refusal == nil && uint32(len(c.streams)) >= c.maxStreams {
		if err := c.pause(); err != nil {
			return 0, err
		}
	}
	if c.refusal != nil {
		return 0, c.refusal
	}
	id := c.nextID
	c.nextID += 2
	call.sendWindow = c.peerWindow
	c.streams[id] = call
	return id, nil
}

// room waits until some of what is left may be sent, and takes it from the windows.
func (c *connection) room(call *stream, left int) (int, error) {
	c.state.Lock()
	defer c.state.Unlock()
	for {
		if call.ended { // answered before all of it was sent: refused
			return 0, errAnswered
		}
		if room := min(int64(left), c.maxFrame, c.sendWindow, call.sendWindow); room > 0 {
			c.sendWindow -= room
			call.sendWindow -= room
			return int(room), nil
		}
		if err := c.pause(); err != nil {
			return 0, err
		}
	}
}

// pause waits for a change, with what was written on its way and `writing` free, so that others and the answers to the server's
// own frames go on. Both locks are held before and after.
func (c *connection) pause() error {
	seen := c.changes
	c.state.Unlock()
	c.waiting.Add(-1) // or others would leave the flush to this one
	err := c.buffer.Flush()
	c.writing.Unlock()
	c.state.Lock()
	for err == nil && c.changes == seen {
		c.changed.Wait()
	}
	c.state.Unlock()
	c.waiting.Add(1)
	c.writing.Lock()
	c.state.Lock()
	return err
}

// tell wakes those that wait for a change. The lock is held.
func (c *connection) tell() {
	c.changes++
	c.changed.Broadcast()
}

func (c *connection) read() {
	for {
		frame, err := c.framer.ReadFrame()
		if err == nil {
			err = c.take(frame)
		}
		if err != nil {
			c.close(err)
			return
		}
	}
}

func (c *connection) take(frame http2.Frame) error {
	switch frame := frame.(type) {
	case *http2.MetaHeadersFrame:
		c.takeHeaders(frame)
	case *http2.DataFrame:
		c.takeData(frame)
	case *http2.RSTStreamFrame:
		c.fail(frame.StreamID, nil, "stream reset: "+frame.ErrCode.String())
	case *http2.WindowUpdateFrame:
		c.takeWindow(frame)
	case *http2.GoAwayFrame:
		c.refuse(errors.New(afterGoAway), frame.LastStreamID)
	case *http2.PingFrame:
		if data := frame.Data; !frame.IsAck() {
			c.control <- func() error { return c.framer.WritePing(true, data) }
		}
	case *http2.SettingsFrame:
		return c.takeSettings(frame)
	}
	return nil
}

func (c *connection) takeHeaders(frame *http2.MetaHeadersFrame) {
	c.state.Lock()
	call := c.streams[frame.StreamID]
	c.state.Unlock()
	if call == nil {
		return
	}
	for _, field := range frame.Fields {
		switch field.Name {
		case ":status":
			call.status = field.Value
		case "grpc-status":
			call.grpcStatus = field.Value
		case "grpc-message":
			call.grpcText = field.Value
		}
	}
	if frame.StreamEnded() {
		c.finish(frame.StreamID)
	}
}

func (c *connection) takeData(frame *http2.DataFrame) {
	c.received += int64(frame.Length)
	if c.received >= replenishStep {
		taken := uint32(c.received)
		c.received = 0
		c.control <- func() error { return c.framer.WriteWindowUpdate(0, taken) }
	}
	if frame.StreamEnded() {
		c.finish(frame.StreamID)
	}
}

func (c *connection) takeWindow(frame *http2.WindowUpdateFrame) {
	c.state.Lock()
	defer c.state.Unlock()
	if frame.StreamID == 0 {
		c.sendWindow += int64(frame.Increment)
	} else if call := c.streams[frame.StreamID]; call != nil {
		call.sendWindow += int64(frame.Increment)
	}
	c.tell()
}

func (c *connection) takeSettings(frame *http2.SettingsFrame) error {
	if frame.IsAck() {
		return nil
	}
	var settings []http2.Setting
	err := frame.ForeachSetting(func(setting http2.Setting) error {
		settings = append(settings, setting)
		return nil
	})
	// A server counts by its new windows once it has our acknowledgement: no data may use them before that is written.
	c.control <- func() error {
		if err := c.framer.WriteSettingsAck(); err != nil {
			return err
		}
		c.apply(settings)
		return nil
	}
	return err
}

func (c *connection) apply(settings []http2.Setting) {
	c.state.Lock()
	defer c.state.Unlock()
	for _, setting := range settings {
		switch setting.ID {
		case http2.SettingMaxConcurrentStreams:
			c.maxStreams = setting.Val
		case http2.SettingMaxFrameSize:
			c.maxFrame = int64(setting.Val)
		case http2.SettingInitialWindowSize:
			for _, call := range c.streams {
				call.sendWindow += int64(setting.Val) - c.peerWindow
			}
			c.peerWindow = int64(setting.Val)
		}
	}
	c.tell()
}

// answer writes what the server's own frames ask for. The reader must not: it would wait for a sender that waits for it.
func (c *connection) answer() {
	for {
		select {
		case write := <-c.control:
			c.writing.Lock()
			err := write()
			if err == nil {
				err = c.buffer.Flush()
			}
			c.writing.Unlock()
			if err != nil {
				c.close(err)
				return
			}
		case <-c.ended:
			return
		}
	}
}

func (c *connection) finish(id uint32) {
	c.state.Lock()
	defer c.state.Unlock()
	if call := c.streams[id]; call != nil {
		c.end(id, call, "")
	}
}

// fail ends a call that has not ended. It may be one that never got a stream.
func (c *connection) fail(id uint32, call *stream, problem string) {
	c.state.Lock()
	defer c.state.Unlock()
	if known := c.streams[id]; known != nil {
		call = known
	}
	if call != nil && !call.ended {
		c.end(id, call, problem)
	}
}

// end is how every call ends. The lock is held.
func (c *connection) end(id uint32, call *stream, problem string) {
	delete(c.streams, id)
	call.ended = true
	call.problem = problem
	close(call.done)
	c.tell()
}

// refuse lets no new stream begin, and ends those that the server has not taken.
func (c *connection) refuse(why error, last uint32) {
	c.state.Lock()
	defer c.state.Unlock()
	c.refusal = why
	for id, call := range c.streams {
		if id > last {
			c.end(id, call, why.Error())
		}
	}
	c.tell()
}

func (c *connection) close(why error) {
	c.refuse(fmt.Errorf("connection lost: %w", why), 0)
	c.socket.Close()
	c.once.Do(func() { close(c.ended) })
}

// usable tells whether a new stream may begin.
func (c *connection) usable() bool {
	c.state.Lock()
	defer c.state.Unlock()
	return c.refusal == nil
}

// expire ends calls that have waited for too long.
func (c *connection) expire(timeout time.Duration) {
	c.state.Lock()
	defer c.state.Unlock()
	for id, call := range c.streams {
		if time.Since(call.began) > timeout {
			c.end(id, call, "no answer in "+timeout.String())
		}
	}
}

// outcome names what went wrong, "" for success.
func (s *stream) outcome(grpc bool) string {
	switch {
	case s.problem != "":
		return s.problem
	case s.status != strconv.Itoa(200):
		return "HTTP status " + s.status
	case grpc && s.grpcStatus != "0":
		return fmt.Sprintf("gRPC status %s %s", s.grpcStatus, s.grpcText)
	}
	return ""
}
