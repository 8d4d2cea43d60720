package plugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
)

// authority is what upstream's driver sends; some providers refuse any other.
const authority = "localhost"

var errClosed = errors.New("closed")

// links holds the connection to what listens on a path now. When another socket takes the path, new calls get a new link,
// and the old one is closed once its last call has ended.
type links struct {
	socket          string
	maxMessageBytes int
	drops           atomic.Int64 // connections that have ended; gRPC closes one before it tells the calls on it

	mu      sync.Mutex
	current *link
	old     map[*link]bool // replaced, with calls still on them
	closed  bool
}

// A link is one connection to one socket file.
type link struct {
	conn     *grpc.ClientConn
	provider v1alpha1.CSIDriverProviderClient
	drops    *atomic.Int64
	open     atomic.Int64 // connections that have not ended: 0 or 1, and known earlier than gRPC's own state

	mu   sync.Mutex
	file fs.FileInfo // the socket that was dialled last; nil before

	calls int // guarded by links.mu
}

// acquire returns a link that is connected, or the reason why there is none when ctx is done.
func (ls *links) acquire(ctx context.Context) (*link, error) {
	for {
		l, err := ls.take()
		if err != nil {
			return nil, err
		}
		err = l.ready(ctx, ls.socket)
		if err == nil {
			return l, nil
		}
		ls.release(l)
		if !errors.Is(err, errReplaced) {
			return nil, err
		}
	}
}

// take returns the current link, or a new one if another socket has its path.
func (ls *links) take() (*link, error) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.closed {
		return nil, errClosed
	}
	if ls.current != nil && ls.current.replaced(ls.socket) {
		ls.retire(ls.current)
		ls.current = nil
	}
	if ls.current == nil {
		l, err := newLink(ls.socket, ls.maxMessageBytes, &ls.drops)
		if err != nil {
			return nil, err
		}
		ls.current = l
	}
	ls.current.calls++
	return ls.current, nil
}

// retire closes a link that has no calls, or remembers to do so. The caller holds ls.mu.
func (ls *links) retire(l *link) {
	if l.calls == 0 {
		l.conn.Close()
		return
	}
	if ls.old == nil {
		ls.old = map[*link]bool{}
	}
	ls.old[l] = true
}

func (ls *links) release(l *link) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l.calls--
	switch {
	case l.calls > 0:
	case ls.old[l]:
		delete(ls.old, l)
		l.conn.Close()
	case l == ls.current && l.conn.GetState() == connectivity.TransientFailure:
		// It would go on dialling for nobody; and the next call dials at once on a new one, where on this it would wait for
		// gRPC's backoff. (ClientConn.ResetConnectBackoff is no way out: it reads a map that connecting writes to.)
		ls.current = nil
		l.conn.Close()
	}
}

func (ls *links) close() error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.closed = true
	for l := range ls.old {
		l.conn.Close()
	}
	ls.old = nil
	if ls.current == nil {
		return nil
	}
	err := ls.current.conn.Close()
	ls.current = nil
	return err
}

func newLink(socket string, maxMessageBytes int, drops *atomic.Int64) (*link, error) {
	l := &link{drops: drops}
	conn, err := grpc.NewClient("passthrough:///"+authority,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // a socket that only root can enter
		grpc.WithAuthority(authority),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.dial(ctx, socket) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessageBytes)),
		grpc.WithMaxHeaderListSize(maxHeaderBytes), // a status with its details travels as headers
		// A restarted provider is found soon; nobody waits longer than ClientConfig.ConnectWithin anyway.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 250 * time.Millisecond},
			MinConnectTimeout: defaultConnectWithin,
		}),
		grpc.WithDisableServiceConfig(), // nobody but this package decides on retries
		grpc.WithNoProxy(),
	)
	if err != nil {
		return nil, fmt.Errorf("preparing a connection: %w", err)
	}
	l.conn, l.provider = conn, v1alpha1.NewCSIDriverProviderClient(conn)
	return l, nil
}

// dial connects to the socket that is at the path now. It notes which file that is before it connects: should the path be
// replaced in between, the next call sees a difference and dials again.
func (l *link) dial(ctx context.Context, socket string) (net.Conn, error) {
	file, err := statSocket(socket)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.file = file
	l.mu.Unlock()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	l.open.Add(1)
	ended := sync.OnceFunc(func() { l.open.Add(-1); l.drops.Add(1) })
	return &countedConn{Conn: conn, ended: ended}, nil
}

// A countedConn tells of its end.
type countedConn struct {
	net.Conn
	ended func()
}

func (c *countedConn) Close() error {
	c.ended()
	return c.Conn.Close()
}

// replaced reports whether the path holds another socket than the one that was dialled. A path that holds nothing is no
// replacement: what was dialled may still answer.
func (l *link) replaced(socket string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return false
	}
	now, err := statSocket(socket)
	return err == nil && !os.SameFile(l.file, now)
}

// statSocket follows links, as connecting does. What is certainly no socket is an error, which says more than a refused
// connection would.
func statSocket(socket string) (fs.FileInfo, error) {
	info, err := os.Stat(socket)
	if err != nil {
		if info, err = os.Lstat(socket); err != nil { // some builds of Windows cannot stat a socket
			return nil, err
		}
	}
	if info.Mode().IsRegular() || info.IsDir() {
		return nil, errors.New("it is no socket")
	}
	return info, nil
}

// errReplaced says that another socket took the path while this link was connecting to the one before.
var errReplaced = errors.New("another socket took its place")

// ready waits until the link is connected.
func (l *link) ready(ctx context.Context, socket string) error {
	for {
		state := l.conn.GetState()
		switch {
		case state == connectivity.Ready && l.open.Load() > 0:
			return nil
		case state == connectivity.Shutdown:
			return errClosed
		case state == connectivity.Idle:
			l.conn.Connect()
		}
		if l.replaced(socket) {
			return errReplaced
		}
		if !l.conn.WaitForStateChange(ctx, state) {
			return whyNot(ctx, socket)
		}
	}
}

// whyNot says in few words why nobody could be reached.
func whyNot(ctx context.Context, socket string) error {
	if err := probe(ctx, socket); err != nil {
		return err
	}
	return errors.New("somebody listens, but does not speak gRPC")
}

// probeWithin bounds a probe; one of a socket on the same machine takes microseconds or fails.
const probeWithin = time.Second

// probe connects to the socket, to see whether anybody listens. A listener whose queue is full fails it at once, so that it
// never holds anybody up. The error says in few words what is wrong.
func probe(ctx context.Context, socket string) error {
	if _, err := statSocket(socket); errors.Is(err, fs.ErrNotExist) {
		return errors.New("it does not exist")
	} else if err != nil {
		return err
	}
	// A deadline of ctx that has passed must not change what is said.
	d := net.Dialer{Timeout: probeWithin}
	conn, err := d.DialContext(context.WithoutCancel(ctx), "unix", socket)
	switch {
	case err == nil:
		conn.Close()
		return nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return errors.New("it is there, but nobody listens")
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("it is a link that leads to nothing")
	}
	var reason syscall.Errno
	if errors.As(err, &reason) {
		return fmt.Errorf("it is there, but takes no connection: %w", reason)
	}
	return errors.New("it is there, but takes no connection")
}

// connected reports whether there is a connection to what listens on the path now, so that nobody need look whether it does.
func (ls *links) connected() bool {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l := ls.current
	return l != nil && l.open.Load() > 0 && l.conn.GetState() == connectivity.Ready && !l.replaced(ls.socket)
}

// isTooLarge tells gRPC's own complaint about a message's size from a provider's ResourceExhausted.
func isTooLarge(message string) bool {
	return strings.HasPrefix(message, "grpc: received message larger than max") ||
		strings.HasPrefix(message, "grpc: received message after decompression larger than max")
}

// refusedAsTooLarge says whether it was the request, of so many bytes, that was too large for the other side, which complains
// in the same words, with the size.
func refusedAsTooLarge(err error, size int) bool {
	st, ok := status.FromError(err)
	return ok && st.Code() == codes.ResourceExhausted && isTooLarge(st.Message()) && strings.Contains(st.Message(), fmt.Sprintf("(%d vs. ", size))
}
