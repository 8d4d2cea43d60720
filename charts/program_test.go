package charts

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// The driver itself takes the arguments of every installation: it checks them before it says its version.
func TestDriverTakesItsArguments(t *testing.T) {
	t.Parallel()
	claim(t, "12.3/chart-arguments")
	program := filepath.Join(t.TempDir(), "keymount-driver")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "keymount/cmd/keymount-driver")
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the driver: %v\n%s", err, out)
	}
	files, err := filepath.Glob("testdata/values/" + driverChart + "/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no installations: %v", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var i installation
		if err := yaml.UnmarshalStrict(text, &i); err != nil {
			t.Fatal(err)
		}
		found := false
		for _, object := range i.objects(t, driverChart) {
			set, ok := object.(*appsv1.DaemonSet)
			if !ok {
				continue
			}
			found = true
			driver, _ := container(t, set.Spec.Template.Spec, "secrets-store")
			args := strings.Split(strings.NewReplacer("$(CSI_ENDPOINT)", "unix:///csi/csi.sock", "$(KUBE_NODE_NAME)", "node").
				Replace(strings.Join(driver.Args, "\n")), "\n")
			if out, err := exec.CommandContext(t.Context(), program, append(args, "--version")...).CombinedOutput(); err != nil {
				t.Errorf("%s: %v\n%s", file, err, out)
			}
			if err := exec.CommandContext(t.Context(), program, append(args, "--no-such-flag", "--version")...).Run(); err == nil {
				t.Error("the driver takes any argument")
			}
		}
		if !found {
			t.Errorf("%s has no DaemonSet", file)
		}
	}
}
