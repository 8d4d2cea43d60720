package main

import (
	"context"
	"flag"
	"io"
	"log/slog"
	"strconv"
)

// logOptions are the logging flags of upstream, which are klog's and one of its own. Logs are always structured and always
// go to standard error (JSON: see levels), so klog's flags for files and headers have no effect.
type logOptions struct {
	json      bool
	verbosity int
	ignored   []string // those that were given
}

// debugFrom is the verbosity from which debug lines are logged; upstream logs what its users debug with from 2 on.
const debugFrom = 2

func (o *logOptions) register(flags *flag.FlagSet) {
	flags.BoolVar(&o.json, "log-format-json", false, "log JSON: errors to standard error, all else to standard output")
	flags.IntVar(&o.verbosity, "v", 0, "log `level`: 2 and above logs every call")
	for _, f := range []struct {
		name  string
		value string
		check func(string) error
	}{
		{"vmodule", "", nil},
		{"logtostderr", "true", isBool},
		{"alsologtostderr", "false", isBool},
		{"stderrthreshold", "2", nil},
		{"log_dir", "", nil},
		{"log_file", "", nil},
		{"log_file_max_size", "1800", isNumber},
		{"one_output", "false", isBool},
		{"skip_headers", "false", isBool},
		{"skip_log_headers", "false", isBool},
		{"add_dir_header", "false", isBool},
		{"log_backtrace_at", "", nil},
	} {
		// The value is in force already where it is the default: nothing is ignored then.
		flags.Var(&ignored{name: f.name, standard: f.value, check: f.check, given: &o.ignored}, f.name, "")
	}
}

func isBool(s string) error   { _, err := strconv.ParseBool(s); return err }
func isNumber(s string) error { _, err := strconv.ParseUint(s, 10, 64); return err }

// ignored is a flag that is checked as klog would, and has no effect.
type ignored struct {
	name, standard string
	check          func(string) error
	given          *[]string
}

func (f *ignored) String() string   { return f.standard }
func (f *ignored) IsBoolFlag() bool { return f.standard == "true" || f.standard == "false" }

func (f *ignored) Set(value string) error {
	if f.check != nil {
		if err := f.check(value); err != nil {
			return err
		}
	}
	if value != f.standard {
		*f.given = append(*f.given, "--"+f.name)
	}
	return nil
}

func (o *logOptions) logger(stdout, stderr io.Writer) *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if o.verbosity >= debugFrom {
		options.Level = slog.LevelDebug
	}
	if !o.json {
		return slog.New(slog.NewTextHandler(stderr, options))
	}
	return slog.New(levels{slog.NewJSONHandler(stdout, options), slog.NewJSONHandler(stderr, options)})
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
