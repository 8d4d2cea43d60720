package process

import (
	"errors"
	"flag"
	"fmt"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		code int
		want string
	}{
		{"a clean stop", nil, 0, ""},
		{"help", fmt.Errorf("parsing: %w", flag.ErrHelp), 0, ""},
		{"a wrong command line", UsageError{errors.New("--x: no")}, 2, "prog: --x: no\nprog --help lists the flags\n"},
		{"a failure", errors.New("no"), 1, "prog: no\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			if code := report(&out, "prog", tc.err); code != tc.code || out.String() != tc.want {
				t.Errorf("%d, %q", code, out.String())
			}
		})
	}
}
