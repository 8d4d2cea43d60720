package logging_test

import (
	"bytes"
	"context"
	"flag"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"keymount/internal/logging"
)

// open makes a logger of a command line.
func open(t *testing.T, args ...string) (log *slog.Logger, stdout, stderr *bytes.Buffer) {
	t.Helper()
	var o logging.Options
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	o.Register(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	stdout, stderr = &bytes.Buffer{}, &bytes.Buffer{}
	log, closeFile, err := o.Open(stdout, stderr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := closeFile(); err != nil {
			t.Error(err)
		}
	})
	return log, stdout, stderr
}

// A line of this file and one of elsewhere_test.go; what is logged of each, from the least to the most.
func TestVerbosity(t *testing.T) {
	const info, debug, trace = "INFO", "DEBUG", "TRACE"
	for _, tc := range []struct{ args, here, elsewhere string }{
		{"", info, info},
		{"-v=1", info, info},
		{"--v=2", debug, debug},
		{"-v=4", debug, debug},
		{"-v=5", trace, trace},
		{"-v=10", trace, trace},
		{"-vmodule=logging_test=2", debug, info},
		{"-vmodule=logging_test.go=5", trace, info},
		{"-vmodule=else*=4,", info, debug},
		{"-vmodule=nosuch=9,*where_test=5,logging_test=3", debug, trace},
		{"-vmodule=logging=5", trace, trace},      // the package's folder
		{"-vmodule=logging/else*=5", info, trace}, // the last two parts of the path
		{"-vmodule=internal/logging/*=2", debug, debug},
		{"-vmodule=main/logging/*=2", info, info},
		{"-vmodule=logging/*/*=2", info, info},
		{"-vmodule=*_test=2,elsewhere_test=5", debug, debug}, // the first that matches
		{"-vmodule=elsewhere_test=0,*_test=5", trace, trace}, // 0 says nothing
		{"-v=5 -vmodule=elsewhere_test=1", trace, trace},     // never lowers
		{"-v=2 -vmodule=elsewhere_test=5", debug, trace},
		{"-vmodule=elsewhere_test=5 -vmodule=logging_test=2", debug, info}, // the last flag
	} {
		t.Run(tc.args, func(t *testing.T) {
			log, _, stderr := open(t, strings.Fields(tc.args)...)
			for _, level := range []slog.Level{slog.LevelInfo, slog.LevelDebug, logging.LevelTrace} {
				log.With("k", "v").WithGroup("g").Log(context.Background(), level, "here "+level.String())
			}
			logElsewhere(log)
			if got := lowest(stderr.String(), "here"); got != tc.here {
				t.Errorf("here %s, want %s:\n%s", got, tc.here, stderr)
			}
			if got := lowest(stderr.String(), "elsewhere"); got != tc.elsewhere {
				t.Errorf("elsewhere %s, want %s:\n%s", got, tc.elsewhere, stderr)
			}
		})
	}
}

// lowest returns the level of the last line of a file: levels are logged in falling order.
func lowest(text, from string) (level string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, `msg="`+from+" ") {
			_, level, _ = strings.Cut(strings.Fields(line)[1], "=")
		}
	}
	return level
}

// A pattern may be the whole path, however the program was built.
func TestPatternOfWholePath(t *testing.T) {
	_, file, _, _ := runtime.Caller(0)
	dir := filepath.ToSlash(filepath.Dir(file))
	for pattern, want := range map[string]string{dir + "/else*": "DEBUG", "/logging/else*": "INFO", dir: "INFO"} {
		log, _, stderr := open(t, "-vmodule="+pattern+"=2")
		logElsewhere(log)
		if got := lowest(stderr.String(), "elsewhere"); got != want {
			t.Errorf("%s: %s, want %s", pattern, got, want)
		}
	}
}

func TestDestinations(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for _, tc := range []struct {
		name                   string
		args                   []string
		stdout, stderr, inFile string // the first letters of the levels that go there
		warned                 string
	}{
		{"default", nil, "", "EWI", "", ""},
		{"JSON", []string{"--log-format-json"}, "WI", "E", "", ""},
		{"file", []string{"-logtostderr=false", "-log_file=" + file}, "", "E", "EWI", ""},
		{"file in JSON", []string{"-logtostderr=false", "-log_file=" + file, "--log-format-json"}, "", "E", "EWI", ""},
		{"file without -logtostderr=false", []string{"-log_file=" + file}, "", "EWI", "", "--log_file"},
		{"-logtostderr=false without a file", []string{"-logtostderr=false"}, "", "EWI", "", "--logtostderr"},
		{"defaults given", []string{"-logtostderr", "-stderrthreshold=2", "-alsologtostderr=false", "-log_file_max_size=1800", "-log_dir="},
			"", "EWI", "", ""},
		{"the others", []string{"-alsologtostderr", "-stderrthreshold=INFO", "-log_dir=/tmp", "-log_file_max_size=1", "-one_output",
			"-skip_headers", "-skip_log_headers=true", "-add_dir_header", "-log_backtrace_at=x.go:1"}, "", "EWI", "",
			"--alsologtostderr --stderrthreshold --log_dir --log_file_max_size --one_output --skip_headers --skip_log_headers --add_dir_header --log_backtrace_at"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			os.Remove(file)
			log, stdout, stderr := open(t, tc.args...)
			warning := stderr.String()
			if strings.Contains(warning, "flags without effect") != (tc.warned != "") || !strings.Contains(warning, tc.warned) {
				t.Errorf("warned %q, want of %q", warning, tc.warned)
			}
			stderr.Reset()
			logElsewhere(log)
			written, _ := os.ReadFile(file)
			for where, got := range map[string][2]string{
				"stdout": {stdout.String(), tc.stdout}, "stderr": {stderr.String(), tc.stderr}, "file": {string(written), tc.inFile},
			} {
				if initials(got[0]) != got[1] {
					t.Errorf("%s has %q, want %q:\n%s", where, initials(got[0]), got[1], got[0])
				}
			}
			if asJSON := strings.HasPrefix(stdout.String()+string(written), "{"); asJSON != strings.Contains(tc.name, "JSON") {
				t.Errorf("JSON %v: %s%s", asJSON, stdout, written)
			}
		})
	}
}

func initials(text string) (all string) {
	for line := range strings.Lines(text) {
		_, message, _ := strings.Cut(line, "elsewhere ")
		all += message[:1]
	}
	return all
}

// What a logger carries is on its lines, whatever decides on them.
func TestAttributes(t *testing.T) {
	for _, args := range []string{"", "-vmodule=x=5", "--log-format-json"} {
		log, stdout, stderr := open(t, strings.Fields(args)...)
		log.With("pod", "p").WithGroup("call").Info("served", "files", 1)
		got := strings.NewReplacer(`"call":{"files":1}`, "call.files=1", `"pod":"p"`, "pod=p").Replace(stdout.String() + stderr.String())
		if !strings.Contains(got, "pod=p") || !strings.Contains(got, "call.files=1") {
			t.Errorf("%s: %s", args, got)
		}
	}
}

// The file is appended to, and nobody else may read it: names of pods and classes are in it.
func TestFileIsAppendedTo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "log")
	for _, text := range []string{"first", "second"} {
		log, _, _ := open(t, "-logtostderr=false", "-log_file="+file)
		log.Info(text)
	}
	text, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(text), "first") || !strings.Contains(string(text), "second") {
		t.Errorf("%v: %s", err, text)
	}
	if info, err := os.Stat(file); err != nil || runtime.GOOS != "windows" && info.Mode() != fs.FileMode(0o600) {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestFileThatCannotBeOpened(t *testing.T) {
	var o logging.Options
	flags := flag.NewFlagSet("test", flag.ContinueOnError)
	o.Register(flags)
	if err := flags.Parse([]string{"-logtostderr=false", "-log_file=" + filepath.Join(t.TempDir(), "no", "log")}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := o.Open(io.Discard, io.Discard); err == nil || !strings.Contains(err.Error(), "opening --log_file: ") {
		t.Errorf("error %v", err)
	}
}

func TestWrongValues(t *testing.T) {
	for _, tc := range []struct{ arg, want string }{
		{"-v=much", `invalid value "much" for flag -v`},
		{"-logtostderr=perhaps", `invalid boolean value "perhaps" for -logtostderr`},
		{"-one_output=perhaps", `invalid boolean value "perhaps" for -one_output`},
		{"-log_file_max_size=-1", "log_file_max_size"},
		{"-vmodule=a", "syntax error: expect comma-separated list of filename=N"},
		{"-vmodule==1", "syntax error: expect comma-separated list of filename=N"},
		{"-vmodule=a=x", "syntax error: expect comma-separated list of filename=N"},
		{"-vmodule=a=-1", "negative value for vmodule level"},
		{"-vmodule=[a=1", "syntax error in pattern"},
	} {
		var o logging.Options
		flags := flag.NewFlagSet("test", flag.ContinueOnError)
		flags.SetOutput(io.Discard)
		o.Register(flags)
		if err := flags.Parse([]string{tc.arg}); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.arg, err, tc.want)
		}
	}
}
