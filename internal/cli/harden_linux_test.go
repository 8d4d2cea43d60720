package cli_test

import (
	"io"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"keymount/internal/cli"
)

// Whatever the command, what it holds in memory goes into no core dump, and to no other process of the same user.
func TestRunHardensTheProcess(t *testing.T) {
	env := cli.Env{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard, Getenv: func(string) string { return "" }}
	cli.Run(t.Context(), env, []string{"--help"})
	dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	if err != nil || dumpable != 0 {
		t.Errorf("dumpable is %d, %v", dumpable, err)
	}
	var core unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err != nil || core.Max != 0 {
		t.Errorf("core dumps are limited to %d bytes, %v", core.Max, err)
	}
}
