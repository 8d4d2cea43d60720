package node

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/internal/provider"
)

// Bounds, in bytes, on what a line repeats of what the author of a pod wrote: a class's name can have 253, and kubelet tries
// again and again.
const (
	maxNameLogged = 256
	maxKeysLogged = 1024
)

// Interceptor logs how each call ended, and turns a panic into an error: the process serves every pod of the node. Calls
// that succeed are logged at debug level, what they asked for at trace. Neither logs a secret, a token, or the value of an
// attribute.
func Interceptor(logger *slog.Logger, trace slog.Level) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
		started := time.Now()
		defer func() {
			if r := recover(); r != nil {
				resp, err = nil, status.Error(codes.Unavailable, "the driver stopped with "+describePanic(r))
			}
			attrs := append(about(req), slog.Duration("took", time.Since(started)))
			if err != nil {
				logger.LogAttrs(ctx, slog.LevelError, "call failed", append(attrs, slog.String("method", info.FullMethod), slog.String("err", err.Error()))...)
				return
			}
			logger.LogAttrs(ctx, slog.LevelDebug, "call done", append(attrs, slog.String("method", info.FullMethod))...)
		}()
		if logger.Enabled(ctx, trace) {
			logger.LogAttrs(ctx, trace, "call", append(details(req), slog.String("method", info.FullMethod))...)
		}
		return handler(ctx, req)
	}
}

// describePanic repeats only what the runtime itself says: another panic's value may hold anything.
func describePanic(r any) string {
	if re, ok := r.(runtime.Error); ok {
		return re.Error()
	}
	return fmt.Sprintf("a panic with a %T", r)
}

// about names the volume that a call is for.
func about(req any) []slog.Attr {
	switch r := req.(type) {
	case *csi.NodePublishVolumeRequest:
		a := r.GetVolumeContext()
		return []slog.Attr{slog.String("volume", r.GetVolumeId()), slog.String("pod", a[keyPodNamespace]+"/"+a[keyPodName]),
			slog.String("class", a[keyPodNamespace]+"/"+provider.OneLine(a[keyClass], maxNameLogged))}
	case *csi.NodeUnpublishVolumeRequest:
		return []slog.Attr{slog.String("volume", r.GetVolumeId()), slog.String("target", r.GetTargetPath())}
	}
	return nil
}

// details adds which fields a request has, by name only.
func details(req any) []slog.Attr {
	attrs := about(req)
	if r, ok := req.(*csi.NodePublishVolumeRequest); ok {
		keys := strings.Join(slices.Sorted(maps.Keys(r.GetVolumeContext())), " ")
		attrs = append(attrs, slog.String("target", r.GetTargetPath()), slog.Bool("readonly", r.GetReadonly()),
			slog.String("group", r.GetVolumeCapability().GetMount().GetVolumeMountGroup()),
			slog.String("attributes", provider.OneLine(keys, maxKeysLogged)), slog.Int("secrets", len(r.GetSecrets())))
	}
	return attrs
}
