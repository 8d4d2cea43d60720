package daemon

import (
	"context"
	"log/slog"

	"k8s.io/klog/v2"
)

// hearClientGo has client-go, which logs by klog, write its lines where all others go.
func hearClientGo(log *slog.Logger) { klog.SetSlogLogger(slog.New(withoutBodies{log.Handler()})) }

// withoutBodies leaves out what klog writes from a verbosity of 5 on, whatever the flags say: client-go's lines are then
// about headers and, from 8 on, the bodies of requests and answers, which hold parameters of classes.
type withoutBodies struct{ next slog.Handler }

func (h withoutBodies) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelDebug && h.next.Enabled(ctx, level) // klog's verbosity n is slog's level -n
}

func (h withoutBodies) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelDebug {
		return nil
	}
	return h.next.Handle(ctx, r)
}

func (h withoutBodies) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withoutBodies{h.next.WithAttrs(attrs)}
}
func (h withoutBodies) WithGroup(name string) slog.Handler {
	return withoutBodies{h.next.WithGroup(name)}
}
