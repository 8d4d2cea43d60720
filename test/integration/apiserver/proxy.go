//go:build integration && linux

package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A port is a TCP port of 127.0.0.1 that nobody else is given: a bound socket, which never listens, holds it. Others of
// this user can listen there with SO_REUSEPORT, so there is no moment between finding a free port and using it.
type port struct {
	number int
	fd     int
}

func reservePort() (*port, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("reserving a port: %w", err)
	}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
		unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}),
	)
	bound, nameErr := unix.Getsockname(fd)
	if err := errors.Join(err, nameErr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("reserving a port: %w", err)
	}
	return &port{bound.(*unix.SockaddrInet4).Port, fd}, nil
}

func (p *port) address() string { return fmt.Sprintf("127.0.0.1:%d", p.number) }

func (p *port) listen() (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		controlErr := c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		})
		return errors.Join(controlErr, err)
	}}
	return config.Listen(context.Background(), "tcp4", p.address())
}

func (p *port) release() { unix.Close(p.fd) }

// A proxy stands between the clients and the API server, so that a test can take the server away while it goes on running.
// It forwards bytes and knows nothing of what they mean.
type proxy struct {
	port     *port
	upstream string

	mu       sync.Mutex
	listener net.Listener          // nil while connections are refused
	conns    map[net.Conn]struct{} // both sides of each connection
	flowing  chan struct{}         // closed while bytes flow; open while they are held back
	closed   bool
}

func newProxy(upstream string) (*proxy, error) {
	port, err := reservePort()
	if err != nil {
		return nil, err
	}
	p := &proxy{port: port, upstream: upstream, conns: map[net.Conn]struct{}{}}
	if err := p.restore(); err != nil {
		port.release()
		return nil, err
	}
	return p, nil
}

// restore lets connections in and bytes flow.
func (p *proxy) restore() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flowing == nil {
		p.flowing = make(chan struct{})
	}
	if !isClosed(p.flowing) {
		close(p.flowing)
	}
	if p.listener != nil || p.closed {
		return nil
	}
	listener, err := p.port.listen()
	if err != nil {
		return fmt.Errorf("listening in front of the API server: %w", err)
	}
	p.listener = listener
	go p.accept(listener)
	return nil
}

// refuse cuts all connections; new ones are refused by the kernel.
func (p *proxy) refuse() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
	}
	for conn := range p.conns {
		conn.Close()
	}
}

// hang holds back what either side sends, on connections that are there and on new ones.
func (p *proxy) hang() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if isClosed(p.flowing) {
		p.flowing = make(chan struct{})
	}
}

func (p *proxy) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.refuse()
	_ = p.restore() // wakes those who are held back; they find their connections closed
	p.port.release()
}

func (p *proxy) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return // the listener was closed
		}
		go p.serve(conn)
	}
}

func (p *proxy) serve(client net.Conn) {
	if !p.add(client) {
		return
	}
	defer p.drop(client)
	p.wait()
	server, err := net.Dial("tcp4", p.upstream)
	if err != nil || !p.add(server) {
		return
	}
	defer p.drop(server)
	both := make(chan struct{}, 2)
	for _, way := range [][2]net.Conn{{client, server}, {server, client}} {
		go func() {
			p.copy(way[1], way[0])
			// One side that is done ends both: HTTPS does not use half a connection.
			client.Close()
			server.Close()
			both <- struct{}{}
		}()
	}
	<-both
	<-both
}

func (p *proxy) copy(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		p.wait()
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait returns when bytes may flow.
func (p *proxy) wait() {
	p.mu.Lock()
	flowing := p.flowing
	p.mu.Unlock()
	<-flowing
}

// add takes a connection on; false means that it was closed because connections are refused now.
func (p *proxy) add(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listener == nil {
		conn.Close()
		return false
	}
	p.conns[conn] = struct{}{}
	return true
}

func (p *proxy) drop(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	conn.Close()
}

func isClosed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Refuse makes the API server unreachable: connections are cut and new ones refused, until Restore.
func (s *Server) Refuse() { s.proxy.refuse() }

// Hang makes the API server silent: connections stay, and are taken, but nothing comes through, until Restore. What was
// sent meanwhile arrives then.
func (s *Server) Hang() { s.proxy.hang() }

// Restore ends Refuse and Hang.
func (s *Server) Restore() error { return s.proxy.restore() }
