//go:build integration && linux

package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a test binary prints becomes a table, with the output of those that failed.
func TestReport(t *testing.T) {
	const mark = "\x16"
	text := strings.Join([]string{
		mark + "=== RUN   TestEndToEnd", mark + "=== RUN   TestEndToEnd/provider", "    suite.go:1: figure: prepared in 3s",
		mark + "=== RUN   TestEndToEnd/provider/Good", mark + "=== RUN   TestEndToEnd/provider/Bad", "    bad.go:1: the file is wrong", "    which goes on",
		mark + "=== NAME  TestEndToEnd/provider/Good", "    good.go:1: nobody reads this",
		mark + "--- FAIL: TestEndToEnd/provider/Bad (1.50s)", mark + "--- PASS: TestEndToEnd/provider/Good (0.50s)",
		mark + "--- FAIL: TestEndToEnd/provider (2.00s)", mark + "=== NAME  TestEndToEnd", "    journal.go:1: 2 error lines", mark + "--- FAIL: TestEndToEnd (3.00s)", "FAIL", ""}, "\n")
	var out, log bytes.Buffer
	r := newReport(&out, &log)
	r.read(strings.NewReader(text))
	r.print()
	if !r.failed() || r.scenarios() != 2 || log.String() != text {
		t.Error("the failure or the log is lost")
	}
	for _, want := range []string{"1.50s  FAIL provider/Bad\n", "the file is wrong\n", "which goes on\n", "2 error lines\n", "provider/Good  0.50s  PASS\n", "1 scenarios passed", "prepared in 3s"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "nobody reads this") {
		t.Error("the output of what passed is printed")
	}
}

// A test binary that ends in the middle is no success, and what it said last is seen.
func TestReportOfACrash(t *testing.T) {
	var out bytes.Buffer
	r := newReport(&out, &bytes.Buffer{})
	r.read(strings.NewReader("\x16=== RUN   TestEndToEnd\n\x16=== RUN   TestEndToEnd/provider/Slow\npanic: test timed out\n"))
	r.print()
	if r.scenarios() != 0 {
		t.Errorf("%d scenarios have ended", r.scenarios())
	}
	if !strings.Contains(out.String(), "TestEndToEnd/provider/Slow did not end; it said:\n  panic: test timed out") {
		t.Errorf("the crash is not told:\n%s", &out)
	}
}

// A process that bears the sign of the cluster is a leak while it lives; others are not looked at.
func TestSurveySeesWhatIsLeft(t *testing.T) {
	dir := t.TempDir()
	p := newPaths(dir, "out")
	if err := os.MkdirAll(p.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	before, err := survey()
	if err != nil {
		t.Fatal(err)
	}
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(p.bin, "sleep")
	if err := os.WriteFile(left, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(left, "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	after, err := survey()
	if err != nil {
		t.Fatal(err)
	}
	if leaks := before.leaks(after, p); len(leaks) != 1 || !strings.Contains(leaks[0], left+" 100") {
		t.Errorf("the leaks are %q", leaks)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := before.compare(t.Context(), p); err != nil {
		t.Error(err)
	}
}

// A folder that was named by mistake keeps what is in it.
func TestARunTakesNoFolderOfOthers(t *testing.T) {
	root := t.TempDir()
	fresh := newPaths(root, "a/b")
	for range 2 { // a folder that was a run's may be again
		if err := fresh.claim(); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(fresh.images, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := newPaths(root, ".").claim(); err == nil || !strings.Contains(err.Error(), "choose an empty or a new folder with --out") {
		t.Errorf("a folder with other files: %v", err)
	}
	if err := os.WriteFile(newPaths(root, ".").sign(), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := newPaths(root, ".").claim(); err != nil {
		t.Errorf("a folder of a run before there was a mark: %v", err)
	}
}

func TestClusterGroup(t *testing.T) {
	for list, want := range map[string]string{
		"12:cpu:/keymount-cluster-0123/n1\n0::/\n": "keymount-cluster-0123", "0::/keymount-cluster-4567\n": "keymount-cluster-4567", "0::/user.slice\n": "",
	} {
		if got := clusterGroup(list); got != want {
			t.Errorf("%q: %q", list, got)
		}
	}
}
