package charts

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What each chart makes of some installations: a change of a template shows its effect in review.
func TestGolden(t *testing.T) {
	for _, chart := range []string{driverChart, providerChart} {
		for file, i := range installations(t, chart) {
			name := filepath.Base(file)
			t.Run(chart+"/"+strings.TrimSuffix(name, ".yaml"), func(t *testing.T) {
				t.Parallel()
				out, err := i.render(t, chart)
				if err != nil {
					t.Fatal(err)
				}
				parse(t, out)
				golden(t, filepath.Join("testdata/golden", chart, name), out)
			})
		}
	}
}

// golden compares with a file, or writes it with -update.
func golden(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is out of date (%v): run 'make generate' and look at what changed", path, err)
	}
}

// Helm's own checks, with warnings as errors.
func TestLint(t *testing.T) {
	charts, err := filepath.Glob("*/Chart.yaml")
	if err != nil || len(charts) == 0 {
		t.Fatalf("there are no charts: %v", err)
	}
	for _, chart := range charts {
		if out, err := runHelm(t, nil, "lint", "--strict", filepath.Dir(chart)); err != nil {
			t.Errorf("%s: %v\n%s", chart, err, out)
		}
	}
}
