// Package logging makes the logger of a program from klog's flags, which users of the Secrets Store CSI Driver have in
// their manifests. It owns these flags and what they mean, and imports nothing of the module.
//
// klog numbers its lines by verbosity, slog by level. A line of a level is written from this verbosity on:
//
//	slog.LevelInfo and above   -v=0
//	slog.LevelDebug            -v=2   every call, what was decided
//	logging.LevelTrace         -v=5   bodies of requests; whoever logs one strips its secrets first
//
// -vmodule raises the verbosity of some source files, as klog does: it never lowers it. A pattern is the name of a file
// without ".go" ("volume"), or that of its package's folder ("publish"), or, with slashes, the last parts of its path
// ("keymount/internal/publish/run", "publish/*"); all of them may be globs. The first pattern that matches decides.
//
// A logger may be used from any number of goroutines. Options may not.
package logging

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
)

// LevelTrace is the level of the lines that -v=5 adds.
const LevelTrace = slog.LevelDebug - 4

// The verbosities from which the levels below slog.LevelInfo are logged.
const (
	debugFrom = 2
	traceFrom = 5
)

// Options are the logging flags: klog's, and one of upstream's own. The zero value logs text to standard error at -v=0.
type Options struct {
	json      bool
	verbosity int
	modules   modules
	toFile    bool // -logtostderr=false
	file      string
	ignored   []string // flags that were given and have no effect
}

// Register adds the flags to flags. Once these are parsed, Open makes the logger.
func (o *Options) Register(flags *flag.FlagSet) {
	flags.BoolVar(&o.json, "log-format-json", false, "log JSON: errors to standard error, all else to standard output")
	flags.IntVar(&o.verbosity, "v", 0, "log `level`: 2 and above logs every call, 5 and above all there is")
	flags.Var(&o.modules, "vmodule", "log levels of source files or packages, as `pattern=level,...`")
	flags.Var((*toStderr)(&o.toFile), "logtostderr", "log to standard error; false logs to --log_file, and errors to both")
	flags.StringVar(&o.file, "log_file", "", "append to this `file`, with --logtostderr=false only")
	for _, f := range []struct {
		name  string
		value string
		check func(string) error
	}{
		{"alsologtostderr", "false", isBool},
		{"stderrthreshold", "2", nil},
		{"log_dir", "", nil},
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

// WithoutEffect tells whether f is a flag that is checked as klog would and does nothing, so that help can say so.
func WithoutEffect(f *flag.Flag) bool {
	_, is := f.Value.(*ignored)
	return is
}

// Open makes the logger. Its first line warns of flags that have no effect. The second result closes the log file and
// must be called when nothing logs any more; the error is about that file.
func (o *Options) Open(stdout, stderr io.Writer) (*slog.Logger, func() error, error) {
	handler, closeFile, err := o.destination(stdout, stderr)
	if err != nil {
		return nil, nil, err
	}
	log := slog.New(newFilter(handler, levelOf(o.verbosity), o.modules))
	if without := o.withoutEffect(); len(without) > 0 {
		log.Warn("flags without effect", "flags", strings.Join(without, " "))
	}
	return log, closeFile, nil
}

// destination returns what writes the lines. It takes those of all levels: which of them are wanted is the filter's.
func (o *Options) destination(stdout, stderr io.Writer) (slog.Handler, func() error, error) {
	if o.toFile && o.file != "" {
		f, err := os.OpenFile(o.file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
		if err != nil {
			return nil, nil, fmt.Errorf("opening --log_file: %w", err)
		}
		// As with klog, errors are seen without the file, too.
		return levels{o.format(f), slog.NewMultiHandler(o.format(f), o.format(stderr))}, f.Close, nil
	}
	nothing := func() error { return nil }
	if o.json {
		return levels{o.format(stdout), o.format(stderr)}, nothing, nil
	}
	return o.format(stderr), nothing, nil
}

func (o *Options) format(w io.Writer) slog.Handler {
	options := &slog.HandlerOptions{Level: LevelTrace, ReplaceAttr: nameTrace}
	if o.json {
		return slog.NewJSONHandler(w, options)
	}
	return slog.NewTextHandler(w, options)
}

// nameTrace has the level TRACE written as such, rather than as DEBUG-4.
func nameTrace(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.LevelKey && a.Value.Any() == LevelTrace {
		a.Value = slog.StringValue("TRACE")
	}
	return a
}

// withoutEffect lists the flags that were given in vain: --logtostderr=false and --log_file act together only.
func (o *Options) withoutEffect() []string {
	switch without := o.ignored; {
	case o.toFile && o.file == "":
		return append(without, "--logtostderr")
	case !o.toFile && o.file != "":
		return append(without, "--log_file")
	default:
		return without
	}
}

// levelOf returns the lowest level that is logged at a verbosity.
func levelOf(verbosity int) slog.Level {
	switch {
	case verbosity >= traceFrom:
		return LevelTrace
	case verbosity >= debugFrom:
		return slog.LevelDebug
	default:
		return slog.LevelInfo
	}
}

// toStderr is -logtostderr; it is kept the other way round, so that the zero value of Options is the default.
type toStderr bool

func (f *toStderr) String() string   { return strconv.FormatBool(f == nil || !bool(*f)) }
func (f *toStderr) IsBoolFlag() bool { return true }

func (f *toStderr) Set(value string) error {
	yes, err := strconv.ParseBool(value)
	*f = toStderr(!yes)
	return err
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
