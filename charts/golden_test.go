package charts

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// What each chart makes of some installations: a change of a template shows its effect in review.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/values/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no installations: %v", err)
	}
	for _, file := range files {
		chart, name := filepath.Base(filepath.Dir(file)), strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run(chart+"/"+name, func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var i installation
			if err := yaml.UnmarshalStrict(text, &i); err != nil {
				t.Fatal(err)
			}
			out, err := i.render(t, chart)
			if err != nil {
				t.Fatal(err)
			}
			parse(t, out)
			golden(t, filepath.Join("testdata/golden", chart, name+".yaml"), out)
		})
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
