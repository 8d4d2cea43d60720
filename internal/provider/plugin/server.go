package plugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/provider"
)

// Info is what the Version call answers.
type Info struct {
	RuntimeName    string // the program, such as "secrets-store-csi-driver-provider-azure"
	RuntimeVersion string
}

const (
	// stopWithin bounds a graceful stop; Kubernetes kills a pod 30 s after it asked it to stop.
	stopWithin = 20 * time.Second
	// mountWithin bounds a call whose caller set no deadline; kubelet gives up after 120 s.
	mountWithin = 110 * time.Second
	// maxStreams bounds calls in flight per connection: more than the pods of a node, and still a bound.
	maxStreams = 1024
)

// A Server serves a provider to drivers. The zero value is not usable.
type Server struct {
	provider provider.Provider
	info     Info
	log      *slog.Logger
	stop     time.Duration
	answered func(Answer)

	v1alpha1.UnimplementedCSIDriverProviderServer
}

// NewServer returns a server of p that logs one line per call to log, never attributes, secrets or contents.
func NewServer(p provider.Provider, info Info, log *slog.Logger) *Server {
	return &Server{provider: p, info: info, log: log, stop: stopWithin, answered: func(Answer) {}}
}

// An Answer is what came of one call, in closed sets of words.
type Answer struct {
	Method string // such as "/v1alpha1.CSIDriverProvider/Mount"
	Code   string // gRPC's name of it, such as "OK"
	Kind   string // of the failure; "" if there is none
	Took   time.Duration
}

// OnAnswer has f told of every call that is answered, from any number of goroutines. Call it before Serve.
func (s *Server) OnAnswer(f func(Answer)) { s.answered = f }

// Serve serves on l, which it closes, until ctx is done: then it takes no more calls, waits for those in flight, at most
// 20 s, ends what is left, and returns nil. Any other end is an error. Serve may be called for several listeners.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	g := grpc.NewServer(
		grpc.UnaryInterceptor(s.intercept),
		grpc.MaxRecvMsgSize(defaultMessageBytes),
		grpc.MaxConcurrentStreams(maxStreams),
	)
	v1alpha1.RegisterCSIDriverProviderServer(g, s)
	state := health.NewServer()
	healthpb.RegisterHealthServer(g, state)

	ended := make(chan error, 1)
	go func() { ended <- g.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	case <-ctx.Done():
	}
	state.Shutdown()
	// GracefulStop waits for handlers, for ever if one ignores its context; g.Serve returns after whichever stop is first.
	hard := time.AfterFunc(s.stop, g.Stop)
	defer hard.Stop()
	go g.GracefulStop()
	if err := <-ended; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serving on %s: %w", l.Addr(), err)
	}
	return nil
}

// Version implements v1alpha1.CSIDriverProviderServer.
func (s *Server) Version(context.Context, *v1alpha1.VersionRequest) (*v1alpha1.VersionResponse, error) {
	return &v1alpha1.VersionResponse{
		Version: APIVersion, RuntimeName: s.info.RuntimeName, RuntimeVersion: s.info.RuntimeVersion,
	}, nil
}

// Mount implements v1alpha1.CSIDriverProviderServer.
func (s *Server) Mount(ctx context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, mountWithin)
	defer cancel()
	req, err := decodeRequest(in)
	if err != nil {
		return nil, err
	}
	req.NotBefore = notBefore(ctx)
	from(ctx).pod = req.Pod
	bundle, err := s.provider.Fetch(ctx, req)
	if err != nil {
		return nil, err
	}
	if bundle == nil {
		return nil, &provider.Error{Kind: provider.Internal, Message: "the provider answered with neither a bundle nor an error"}
	}
	from(ctx).bundle = bundle
	if err := tellAsOf(ctx, bundle.AsOf); err != nil {
		return nil, fmt.Errorf("telling as of when the bundle is: %w", err)
	}
	return encodeBundle(bundle), nil
}

// A call is what the handler tells the interceptor for its log line.
type call struct {
	pod    provider.Pod
	bundle *provider.Bundle
}

type callKey struct{}

// from returns the call of ctx; a throw-away one outside of the interceptor.
func from(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// intercept is around every call: it turns panics and errors into a status, and is the only place that logs.
func (s *Server) intercept(ctx context.Context, in any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	c := &call{}
	start := time.Now()
	out, err := s.recovering(context.WithValue(ctx, callKey{}, c), in, next)
	took := time.Since(start)
	attrs := []any{"method", info.FullMethod, "duration", took}
	if info.FullMethod == v1alpha1.CSIDriverProvider_Mount_FullMethodName {
		attrs = append(attrs, "namespace", clean(c.pod.Namespace, maxObjectBytes), "pod", clean(c.pod.Name, maxObjectBytes))
	}
	if err != nil {
		st := status.Convert(err) // of gRPC's own services, such as health
		if strings.HasPrefix(info.FullMethod, "/"+v1alpha1.CSIDriverProvider_ServiceDesc.ServiceName+"/") {
			st = toStatus(err)
		}
		kind := provider.KindOf(err).String()
		s.answered(Answer{info.FullMethod, st.Code().String(), kind, took})
		s.log.WarnContext(ctx, "call failed", append(attrs, "kind", kind, "err", st.Message())...)
		return nil, st.Err()
	}
	s.answered(Answer{Method: info.FullMethod, Code: codes.OK.String(), Took: took})
	if c.bundle == nil {
		s.log.DebugContext(ctx, "call served", attrs...)
		return out, nil
	}
	for _, warning := range c.bundle.Warnings {
		s.log.WarnContext(ctx, "mount has a warning", append(attrs, "warning", clean(warning, maxTextBytes))...)
	}
	s.log.InfoContext(ctx, "call served", append(attrs, "files", len(c.bundle.Files))...)
	return out, nil
}

// recovering calls next and survives its panic, which would otherwise end the process for every pod of the node. The value
// of a panic can hold anything, so only the runtime's own (index out of range and the like) is repeated, and the stack,
// which has addresses in place of values, is logged.
func (s *Server) recovering(ctx context.Context, in any, next grpc.UnaryHandler) (out any, err error) {
	defer func() {
		value := recover()
		if value == nil {
			return
		}
		what := fmt.Sprintf("a value of type %T", value)
		if e, ok := value.(runtime.Error); ok {
			what = e.Error()
		}
		s.log.ErrorContext(ctx, "call panicked", "panic", what, "stack", string(debug.Stack()))
		out, err = nil, &provider.Error{
			Kind: provider.Internal, Message: "the provider failed in a way that it did not expect",
			Remedy: "its log has the stack: report it to its maintainers",
		}
	}()
	return next(ctx, in)
}
