package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
)

// A ClientConfig says where a provider is.
type ClientConfig struct {
	// Socket is the path of the provider's socket. It need not exist yet.
	Socket string
	// MaxMessageBytes bounds an answer; 0 means 4 MiB.
	MaxMessageBytes int
	// ConnectWithin is how long a call waits for somebody to listen, so that a provider may restart; 0 means 5 s. A call's
	// own deadline counts too.
	ConnectWithin time.Duration
}

const defaultConnectWithin = 5 * time.Second

// A Client is a provider.Provider behind a socket. It connects at the first call, and anew whenever the socket at its path
// is another one than before.
type Client struct {
	cfg   ClientConfig
	links *links
}

// NewClient returns a client; it does not connect.
func NewClient(cfg ClientConfig) *Client {
	if cfg.MaxMessageBytes <= 0 {
		cfg.MaxMessageBytes = defaultMessageBytes
	}
	if cfg.ConnectWithin <= 0 {
		cfg.ConnectWithin = defaultConnectWithin
	}
	return &Client{cfg: cfg, links: &links{socket: cfg.Socket, maxMessageBytes: cfg.MaxMessageBytes}}
}

// Close ends the connection and every call on it; calls after it fail.
func (c *Client) Close() error { return c.links.close() }

// MayWriteTarget implements provider.TargetWriter: the protocol lets every provider write into the target.
func (c *Client) MayWriteTarget() bool { return true }

// Version asks the provider what it is.
func (c *Client) Version(ctx context.Context) (Info, error) { return askVersion(ctx, c.call) }

// Fetch implements provider.Provider.
//
// Errors have the kinds that our own Server gives them. Other providers use gRPC codes as they please, so of theirs only an
// ended connection or deadline is Unavailable and all else Internal. An answer with an error code has a *CodeError as its
// cause.
func (c *Client) Fetch(ctx context.Context, req *provider.Request) (*provider.Bundle, error) {
	return askMount(ctx, c.call, req)
}

// A caller makes a call wherever the provider is.
type caller func(ctx context.Context, do doing) error

func askVersion(ctx context.Context, call caller) (Info, error) {
	var out Info
	err := call(ctx, func(ctx context.Context, p v1alpha1.CSIDriverProviderClient) error {
		answer, err := p.Version(ctx, &v1alpha1.VersionRequest{Version: APIVersion})
		out = Info{clean(answer.GetRuntimeName(), maxObjectBytes), clean(answer.GetRuntimeVersion(), maxObjectBytes)}
		return err
	})
	return out, err
}

func askMount(ctx context.Context, call caller, req *provider.Request) (*provider.Bundle, error) {
	in, err := encodeRequest(req)
	if err != nil {
		return nil, err
	}
	var answer *v1alpha1.MountResponse
	var header metadata.MD
	err = call(ctx, func(ctx context.Context, p v1alpha1.CSIDriverProviderClient) (err error) {
		answer, err = p.Mount(withNotBefore(ctx, req.NotBefore), in, grpc.Header(&header))
		if size := proto.Size(in); refusedAsTooLarge(err, size) {
			return &provider.Error{
				Kind:    provider.Invalid,
				Message: fmt.Sprintf("the provider takes no requests of %d bytes, which is what the class, the volume's attributes and its nodePublishSecretRef take together", size),
				Remedy:  "split the class",
			}
		}
		return withoutEchoes(req, answer, err)
	})
	if err != nil {
		return nil, err
	}
	bundle, err := decodeBundle(answer)
	if err != nil {
		return nil, err
	}
	bundle.AsOf = asOf(header)
	return bundle, nil
}

// A doing is one call of the protocol.
type doing func(context.Context, v1alpha1.CSIDriverProviderClient) error

// call makes one call on a connected link. Where the provider goes away during the call, it is made once more on a new
// connection: to ask twice is safe, upstream's driver asks three times.
func (c *Client) call(ctx context.Context, do doing) error {
	for retried := false; ; retried = true {
		drops := c.links.drops.Load()
		l, err := c.connect(ctx)
		if err != nil {
			return err
		}
		lost, err := c.use(ctx, l, drops, do)
		if !lost || retried || ctx.Err() != nil {
			return err
		}
	}
}

// use makes one call on a link and releases it. drops is what links.drops was before the link was acquired. lost says that
// the provider went away during the call, so that asking again may help.
func (c *Client) use(ctx context.Context, l *link, drops int64, do doing) (lost bool, err error) {
	err = do(ctx, l.provider)
	// A status that the provider itself gave leaves the connection as it is. The state tells of one that is given up before
	// it is closed, as when its other side says that it will go away.
	lost = status.Code(err) == codes.Unavailable &&
		(c.links.drops.Load() != drops || l.open.Load() == 0 || l.conn.GetState() != connectivity.Ready)
	c.links.release(l)
	switch {
	case err == nil:
		return false, nil
	case lost:
		return true, &provider.Error{
			Kind:    provider.Unavailable,
			Message: fmt.Sprintf("the provider at %s went away during the call", c.cfg.Socket),
			Remedy:  "see why it ended, in the log of its pod's former container",
		}
	}
	return false, c.failure(ctx, err)
}

// connect returns a link that is ready, to be released.
func (c *Client) connect(ctx context.Context) (*link, error) {
	within, cancel := context.WithTimeout(ctx, c.cfg.ConnectWithin)
	defer cancel()
	l, err := c.links.acquire(within)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, errClosed):
		return nil, &provider.Error{Kind: provider.Internal, Message: "the client of " + c.cfg.Socket + " is closed"}
	case ctx.Err() != nil:
		return nil, ended(ctx, "waiting for a connection", c.cfg.Socket)
	}
	return nil, &provider.Error{
		Kind:    provider.Unavailable,
		Message: fmt.Sprintf("nobody answers on the provider's socket %s: %v", c.cfg.Socket, err),
		Remedy:  "check that the provider's pod runs on this node and serves this very path",
	}
}

// failure puts what a call came back with into the terms of the contract.
func (c *Client) failure(ctx context.Context, err error) error {
	var ours *provider.Error
	if errors.As(err, &ours) {
		return err
	}
	st := status.Convert(err)
	switch {
	case ctx.Err() != nil && (st.Code() == codes.Canceled || st.Code() == codes.DeadlineExceeded):
		return ended(ctx, "waiting for its answer", c.cfg.Socket)
	case st.Code() == codes.ResourceExhausted && isTooLarge(st.Message()):
		return &provider.Error{
			Kind:    provider.Invalid,
			Message: fmt.Sprintf("the answer of the provider at %s is over the limit of %d bytes", c.cfg.Socket, c.cfg.MaxMessageBytes),
			Remedy:  "raise --max-call-recv-msg-size (chart value maxCallRecvMsgSize), or mount less in one class",
		}
	case st.Code() == codes.Internal && strings.HasPrefix(st.Message(), unreadable):
		return malformed("the provider at %s answered with what is no message of the provider protocol %s", c.cfg.Socket, APIVersion)
	case st.Code() == codes.Unimplemented:
		return &provider.Error{
			Kind:    provider.Internal,
			Message: fmt.Sprintf("what listens on %s does not speak the provider protocol %s", c.cfg.Socket, APIVersion),
		}
	}
	return fromStatus(st)
}

// unreadable begins gRPC's own complaint about bytes that are no message.
const unreadable = "grpc: failed to unmarshal the received message"

// ended says what was being waited for when ctx was done. The cause is the context's error, so that callers can tell a
// deadline from a cancellation.
func ended(ctx context.Context, waiting, where string) error {
	what := "the call was cancelled"
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		what = "the deadline passed"
	}
	return &provider.Error{
		Kind: provider.Unavailable, Cause: ctx.Err(),
		Message: fmt.Sprintf("%s while %s, from the provider at %s", what, waiting, where),
	}
}
