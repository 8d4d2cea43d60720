// Package charts tests the charts, and the plain manifests that are made from them, with the helm of tools/. Each render is a
// process of its own; tests may run at the same time.
package charts

import (
	"bytes"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the golden files and the plain manifests anew")

const driverChart = "secrets-store-csi-driver"

// helm is the path of the program, which the go command builds if it is not in its cache. It also reads the charts: the go command
// takes a result from its cache only if the files that the test itself has read are the same.
var helm = sync.OnceValues(func() (string, error) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			_, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "tool", "-n", "-modfile=../tools/go.mod", "helm")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false") // what everything but -race tests is built with
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("building helm: %w: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
})

// runHelm returns what helm prints, and as an error what it complains about.
func runHelm(t *testing.T, stdin []byte, args ...string) ([]byte, error) {
	t.Helper()
	program, err := helm()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	cmd.Stdin = bytes.NewReader(stdin)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%w: %s", err, stderr.String())
	}
	return out, nil
}

// An installation is what the user of a chart decides.
type installation struct {
	Release     string         `json:"release,omitempty"`
	Namespace   string         `json:"namespace,omitempty"`
	KubeVersion string         `json:"kubeVersion,omitempty"`
	APIVersions []string       `json:"apiVersions,omitempty"` // beyond Kubernetes' own
	Values      map[string]any `json:"values"`
}

// installations returns those of testdata/values for a chart, by their files.
func installations(t *testing.T, chart string) map[string]installation {
	t.Helper()
	files, err := filepath.Glob("testdata/values/" + chart + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no installations of %s: %v", chart, err)
	}
	all := map[string]installation{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var i installation
		if err := yaml.UnmarshalStrict(text, &i); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all[file] = i
	}
	return all
}

// render returns what `helm template` makes of a chart, a folder.
func (i installation) render(t *testing.T, chart string) ([]byte, error) {
	t.Helper()
	values, err := yaml.Marshal(i.Values)
	if err != nil {
		t.Fatal(err)
	}
	return runHelm(t, values, "template", or(i.Release, "test"), chart, "--namespace", or(i.Namespace, "kube-system"),
		"--kube-version", or(i.KubeVersion, "v1.35.0"), "--api-versions", strings.Join(i.APIVersions, ","), "--values", "-")
}

func or(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}

// values reads `a.b.c: value` lines into values.
func values(t *testing.T, text string) map[string]any {
	t.Helper()
	all := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// objects renders with values and returns the objects, each checked to be what the API server would take.
func objects(t *testing.T, chart, text string) objectSet {
	t.Helper()
	return installation{Values: values(t, text)}.objects(t, chart)
}

func (i installation) objects(t *testing.T, chart string) objectSet {
	t.Helper()
	out, err := i.render(t, chart)
	if err != nil {
		t.Fatal(err)
	}
	return parse(t, out)
}

// refusal renders with values, which must fail, and returns the complaint.
func refusal(t *testing.T, chart, text string) string {
	t.Helper()
	out, err := installation{Values: values(t, text)}.render(t, chart)
	if err == nil {
		t.Fatalf("rendered with %s:\n%s", text, out)
	}
	return err.Error()
}
