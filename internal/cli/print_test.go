package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/volume"
)

func TestPrintable(t *testing.T) {
	for _, tc := range []struct{ in, want string }{
		{"plain, ünïcode", "plain, ünïcode"},
		{"one\ntwo\r\nthree", "one; two; three"},
		{"errors:\n  line 1: a\n  line 2: b", "errors: line 1: a; line 2: b"},
		{"\x1b[2Jgone", `\x1b[2Jgone`},
		{"a\u202eb", `a\u202eb`},
		{"bad\xffutf", "bad\ufffdutf"},
		{"bell\a tab\t", `bell\a tab\t`},
	} {
		if got := printable(tc.in); got != tc.want {
			t.Errorf("printable(%q) = %q, want %q", tc.in, got, tc.want)
		}
	}
}

// Names come from vaults and providers: none may steer the terminal or fake a line.
func TestTableIsSafeToPrint(t *testing.T) {
	e := &event{Files: []file{{Path: "a\n/etc/passwd", Mode: "0644", Size: 1, Object: "secret/\x1b]0;x\a", Version: "v\r"}}}
	var out bytes.Buffer
	if err := e.writeTable(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Count(out.String(), "\n") != 2 || strings.ContainsAny(out.String(), "\x1b\r\a") {
		t.Errorf("printed %q", out.String())
	}
}

func TestFailureLines(t *testing.T) {
	err := provider.Errors{
		{Kind: provider.NotFound, Object: "secret/abc", Message: "not there", Remedy: "look"},
		{Kind: provider.Denied, Object: "key/b-c", Message: "reading key b-c: denied"},
		{Kind: provider.Invalid, Message: "two\nlines"},
		{Kind: provider.Internal, Message: "odd"},
	}
	want := []string{
		"secret/abc: not there (look)",
		"reading key b-c: denied (" + remedies[provider.Denied] + ")",
		"two; lines (" + remedies[provider.Invalid] + ")",
		"odd",
	}
	e := failureOf("/d", err)
	if len(e.Errors) != len(want) {
		t.Fatalf("got %d lines, want %d", len(e.Errors), len(want))
	}
	for i, w := range want {
		if got := e.Errors[i].line(); got != w {
			t.Errorf("line %d is %q, want %q", i, got, w)
		}
	}
}

func TestChangesAreOneLine(t *testing.T) {
	res := &publish.Result{
		Change: volume.Change{Added: []string{"a"}, Updated: []string{"b"}, Removed: []string{"c"}},
		Files:  []publish.FileInfo{{Path: "a"}, {Path: "b", Object: "secret/b", Version: "v2"}},
	}
	if got, want := eventOf("changed", "/d", res).changes(), "added a; updated b (secret/b v2); removed c"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := (&event{}).changes(); got != "nothing changed" {
		t.Errorf("got %q", got)
	}
	many := &event{}
	for range 25 {
		many.Added = append(many.Added, "f")
	}
	if got := many.changes(); !strings.HasSuffix(got, "f, and 15 more") {
		t.Errorf("got %q", got)
	}
}

func TestProgressClearsItsLine(t *testing.T) {
	var out bytes.Buffer
	showProgress(&out, "reading", time.Minute)() // no terminal
	if out.Len() > 0 {
		t.Errorf("printed %q where there is no terminal", out.String())
	}
	tick(&out, "reading", time.Minute)()
	if !strings.HasSuffix(out.String(), "\r\x1b[K") {
		t.Errorf("left %q", out.String())
	}
}

// A wait of minutes is announced: once where there is no terminal, with its limit on one.
func TestLongWaitsAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log, terminal bytes.Buffer
		stops := []func(){showProgress(&log, "reading", 2*time.Minute), tick(&terminal, "reading", 2*time.Minute)}
		<-time.After(tellAfter + time.Second)
		synctest.Wait()
		for _, stop := range stops {
			stop()
		}
		if want := "keymount: still reading, for 10 s; it may take up to 120 s\n"; log.String() != want {
			t.Errorf("said %q, want %q", log.String(), want)
		}
		if got := terminal.String(); !strings.Contains(got, "reading (9 s)") || !strings.Contains(got, "reading (11 s of at most 120)") {
			t.Errorf("said %q", got)
		}
	})
}

func TestExitCodes(t *testing.T) {
	for kind, want := range map[provider.Kind]int{
		provider.Internal: ExitFailed, provider.Invalid: ExitInvalid, provider.NotFound: ExitNotFound,
		provider.Denied: ExitDenied, provider.Throttled: ExitUnavailable, provider.Unavailable: ExitUnavailable,
	} {
		if got := exitCode(t.Context(), &provider.Error{Kind: kind}); got != want {
			t.Errorf("%v exits %d, want %d", kind, got, want)
		}
	}
	if got := exitCode(t.Context(), errors.New("disk full")); got != ExitFailed {
		t.Errorf("got %d", got)
	}
}
