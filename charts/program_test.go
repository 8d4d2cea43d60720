package charts

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// The programs themselves take the arguments of every installation: they check them before they say their version.
func TestProgramsTakeTheirArguments(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ chart, container, program string }{
		{driverChart, "secrets-store", "keymount-driver"},
		{providerChart, "provider-azure-installer", "keymount-azure"},
	} {
		t.Run(test.program, func(t *testing.T) {
			t.Parallel()
			claim(t, "12.3/chart-arguments")
			program := compile(t, test.program)
			takes := func(args []string) ([]byte, error) {
				return exec.CommandContext(t.Context(), program, append(args, "--version")...).CombinedOutput()
			}
			for file, i := range installations(t, test.chart) {
				args := arguments(t, i.objects(t, test.chart), test.container)
				if args == nil {
					t.Errorf("%s has no container %s", file, test.container)
					continue
				}
				if out, err := takes(args); err != nil {
					t.Errorf("%s: %v\n%s", file, err, out)
				}
				if _, err := takes(append(args, "--no-such-flag")); err == nil {
					t.Errorf("%s takes any argument", test.program)
				}
			}
		})
	}
}

func compile(t *testing.T, program string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), program)
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "keymount/cmd/"+program)
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building %s: %v\n%s", program, err, out)
	}
	return path
}

// arguments are those of a container of that name in any DaemonSet, with the environment in place of its variables; nil if there is none.
func arguments(t *testing.T, objects objectSet, name string) []string {
	t.Helper()
	environment := strings.NewReplacer("$(CSI_ENDPOINT)", "unix:///csi/csi.sock", "$(KUBE_NODE_NAME)", "node")
	for _, object := range objects {
		set, ok := object.(*appsv1.DaemonSet)
		if !ok {
			continue
		}
		for _, c := range set.Spec.Template.Spec.Containers {
			if c.Name == name {
				args := slices.Clone(c.Args)
				for i, arg := range args {
					args[i] = environment.Replace(arg)
				}
				return args
			}
		}
	}
	return nil
}
