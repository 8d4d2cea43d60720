package logging

import (
	"context"
	"log/slog"
	"runtime"
	"sync"
)

// A filter passes on the lines that the flags ask for: those of the level of the whole program, and, with -vmodule, those
// of the level of the source file that they come from.
type filter struct {
	next    slog.Handler
	level   slog.Level // of the whole program
	lowest  slog.Level // of any file
	modules modules
	files   *sync.Map // program counter of a call (uintptr) -> the level of its file; as many as the program has log calls
}

func newFilter(next slog.Handler, level slog.Level, m modules) slog.Handler {
	f := &filter{next: next, level: level, lowest: level, modules: m, files: &sync.Map{}}
	for _, module := range m {
		f.lowest = min(f.lowest, levelOf(module.verbosity))
	}
	return f
}

// Enabled cannot know where the line comes from, so it asks whether any file might log it.
func (f *filter) Enabled(_ context.Context, level slog.Level) bool { return level >= f.lowest }

func (f *filter) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < f.level && r.Level < f.levelAt(r.PC) {
		return nil
	}
	return f.next.Handle(ctx, r)
}

func (f *filter) levelAt(pc uintptr) slog.Level {
	if pc == 0 {
		return f.level
	}
	if level, ok := f.files.Load(pc); ok {
		return level.(slog.Level)
	}
	frame, _ := runtime.CallersFrames([]uintptr{pc}).Next()
	level := levelOf(f.modules.verbosityOf(frame.File))
	f.files.Store(pc, level)
	return level
}

func (f *filter) WithAttrs(attrs []slog.Attr) slog.Handler {
	with := *f
	with.next = f.next.WithAttrs(attrs)
	return &with
}

func (f *filter) WithGroup(name string) slog.Handler {
	with := *f
	with.next = f.next.WithGroup(name)
	return &with
}

// levels sends errors to one handler and all else to another, as upstream's JSON logs do.
type levels struct{ below, errors slog.Handler }

func (l levels) of(level slog.Level) slog.Handler {
	if level >= slog.LevelError {
		return l.errors
	}
	return l.below
}

func (l levels) Enabled(ctx context.Context, level slog.Level) bool {
	return l.of(level).Enabled(ctx, level)
}
func (l levels) Handle(ctx context.Context, r slog.Record) error { return l.of(r.Level).Handle(ctx, r) }
func (l levels) WithAttrs(attrs []slog.Attr) slog.Handler {
	return levels{l.below.WithAttrs(attrs), l.errors.WithAttrs(attrs)}
}
func (l levels) WithGroup(name string) slog.Handler {
	return levels{l.below.WithGroup(name), l.errors.WithGroup(name)}
}
