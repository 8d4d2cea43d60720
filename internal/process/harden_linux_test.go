package process_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keymount/internal/process"
)

const childEnv = "KEYMOUNT_TEST_HARDENED_CHILD"

// The change cannot be taken back, so a child process makes it and reports what the kernel says of it.
func TestHarden(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		reportHardened(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestHarden$", "-test.v")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "dumpable=0 core=0/0") {
		t.Fatalf("child: %v\n%s", err, out)
	}
}

func reportHardened(t *testing.T) {
	if err := process.Harden(); err != nil {
		t.Fatal(err)
	}
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil {
		t.Fatal(err)
	}
	t.Logf("dumpable=%d core=%d/%d", dumpable, core.Cur, core.Max)
}
