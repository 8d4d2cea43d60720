// Package archtest holds the project's structure to its rules: who may import whom, where foreign libraries may be used,
// and that every package says what it is for. It reads the tree with the go command and runs with the other tests.
package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "keymount/"

// law lists, for each package of the module, the packages of the module that it may import. A package that is not listed
// here fails the test: whoever adds one decides its place. "x/..." stands for x and everything below.
var law = map[string][]string{
	"api/v1":                         nil,
	"api/v1alpha1":                   nil,
	"api/provider/v1alpha1":          nil,
	"internal/provider":              nil,
	"internal/provider/plugin":       {"internal/provider", "internal/socket", "api/provider/v1alpha1"},
	"internal/provider/providertest": {"internal/provider"},
	"internal/azure":                 {"internal/provider", "internal/azure/...", "internal/pfx"},
	"internal/azure/params":          {"internal/provider"},
	"internal/azure/encode":          {"internal/pfx"},
	"internal/pfx":                   nil,
	"internal/secretsync/tlspair":    {"internal/pfx"},
	"internal/azure/identity":        {"internal/provider", "internal/azure/params"},
	"internal/azure/vault":           {"internal/provider", "internal/azure/identity"},
	"internal/volume":                {"internal/provider"},
	"internal/volume/registry":       {"internal/provider", "internal/volume"},
	"internal/volume/volumetest":     nil,
	"internal/publish":               {"internal/provider", "internal/volume/..."},
	"internal/cli": {"internal/publish", "internal/provider", "internal/provider/plugin", "internal/azure/...",
		"internal/volume/...", "internal/process", "api/v1", "api/v1alpha1"},
	"internal/emulator":              nil,
	"internal/emulator/front":        {"internal/emulator"},
	"internal/emulator/emulatortest": {"internal/emulator", "internal/emulator/front"},
	"internal/azure/bench": {"internal/azure/...", "internal/emulator/...", "internal/provider", "internal/volume",
		"internal/provider/plugin", "internal/benchdoc"},
	"internal/benchdoc":                nil,
	"internal/azure/azuretest":         {"internal/emulator", "internal/emulator/emulatortest", "internal/provider", "internal/provider/providertest"},
	"internal/azure/encode/encodetest": nil,
	"internal/process":                 nil,
	"internal/logging":                 nil,
	"internal/classes":                 {"internal/provider", "internal/publish", "internal/apierror", "internal/apiwatch", "api/v1"},
	"internal/secretsync":              {"internal/provider", "internal/publish", "internal/classes", "internal/apierror", "internal/pfx", "internal/secretsync/tlspair"},
	"internal/token":                   {"internal/provider", "internal/apiwatch"},
	"internal/podstatus":               {"internal/provider", "internal/publish", "internal/apierror", "api/v1"},
	"internal/events":                  {"internal/provider", "internal/publish"},
	"internal/metrics":                 {"internal/provider", "internal/publish", "internal/scrape"},
	"internal/scrape":                  {"internal/provider"},
	"internal/httpserve":               {"internal/socket"},
	"internal/providerd":               {"internal/provider", "internal/provider/plugin", "internal/scrape", "internal/httpserve", "internal/socket"},
	"internal/socket":                  nil,
	"internal/kubelet":                 {"internal/provider", "internal/httpserve", "internal/socket"},
	"internal/apierror":                {"internal/provider"},
	"internal/apiwatch":                nil,
	"internal/serviceaccount":          {"internal/provider", "internal/apierror"},
	"internal/node":                    {"internal/provider", "internal/publish", "internal/classes", "internal/token"},
	"internal/daemon":                  {"internal/...", "api/..."},
	"internal/conformance":             nil,
	"internal/conformance/report":      {"internal/conformance"},
	"cmd/keymount":                     {"internal/cli", "internal/process"},
	"cmd/keymount-azure":               {"internal/azure/...", "internal/provider/plugin", "internal/providerd", "internal/process", "internal/logging", "internal/socket"},
	"cmd/keymount-driver":              {"internal/daemon", "internal/process", "internal/logging"},
	"cmd/keyvault-emulator":            {"internal/emulator/..."},
	"examples/demo":                    nil, // a user of the programs
	"test/mutants":                     nil,
}

// A fence keeps a foreign library inside some packages.
type fence struct {
	imports string   // a prefix of import paths
	only    []string // packages that may use it; none means nobody
	why     string
}

var fences = []fence{
	{"github.com/Azure/azure-sdk-for-go/", []string{"internal/azure/identity", "internal/azure/vault"},
		"the SDK's types must not leak through the provider seam"},
	{"k8s.io/client-go", []string{"internal/apiwatch", "internal/classes", "internal/token", "internal/serviceaccount", "internal/podstatus", "internal/secretsync", "internal/events", "internal/daemon"},
		"only some packages talk to the API server; the typed clientset costs 15 MiB per process"},
	{"k8s.io/client-go/kubernetes", nil, "the typed clientset costs 15 MiB per process"},
	{"sigs.k8s.io/controller-runtime", nil, "it costs 18 MiB per process"},
	{"google.golang.org/grpc", []string{"internal/provider/plugin", "api/provider/v1alpha1", "internal/kubelet", "internal/node",
		"internal/daemon", "cmd/keymount-driver"},
		"the wire is an adapter, not the seam"},
	{"testing", []string{"internal/volume/volumetest", "internal/emulator/emulatortest", "internal/provider/providertest", "internal/azure/encode/encodetest",
		"internal/azure/azuretest"},
		"test code does not belong into the programs"},
}

type pkg struct {
	ImportPath, Dir                    string
	Imports                            []string
	GoFiles, TestGoFiles, XTestGoFiles []string
	IgnoredGoFiles                     []string
}

func TestImportLaw(t *testing.T) {
	seen := map[string]bool{}
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		if len(p.GoFiles) == 0 {
			continue
		}
		seen[name] = true
		allowed, ok := law[name]
		if !ok {
			t.Errorf("%s is not in the import law: decide what it may import", name)
			continue
		}
		for _, imported := range p.Imports {
			if target, ours := strings.CutPrefix(imported, module); ours && !matches(target, allowed) {
				t.Errorf("%s imports %s, which the import law does not allow", name, target)
			}
		}
	}
	for name := range law {
		if !seen[name] {
			t.Errorf("the import law names %s, which does not exist", name)
		}
	}
}

func TestForeignLibrariesStayInTheirPackages(t *testing.T) {
	pkgs := list(t)
	for _, f := range fences {
		for _, p := range pkgs {
			name := strings.TrimPrefix(p.ImportPath, module)
			for _, imported := range p.Imports {
				under := imported == f.imports || strings.HasPrefix(imported, strings.TrimSuffix(f.imports, "/")+"/")
				if under && !matches(name, f.only) {
					t.Errorf("%s imports %s: %s", name, imported, f.why)
				}
			}
		}
	}
}

// Mounting is the most dangerous thing that the project does: one package does it.
func TestMountSyscallsStayInVolume(t *testing.T) {
	banned := []string{"Mount", "Unmount", "MoveMount", "Fsmount", "Fsopen", "PivotRoot", "SYS_MOUNT", "SYS_UMOUNT2"}
	found := false
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		for _, file := range slices.Concat(p.GoFiles, p.IgnoredGoFiles) {
			ast.Inspect(parse(t, filepath.Join(p.Dir, file), 0), func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				from, ok := sel.X.(*ast.Ident)
				if ok && (from.Name == "unix" || from.Name == "syscall") && slices.Contains(banned, sel.Sel.Name) {
					found = true
					if name != "internal/volume" {
						t.Errorf("%s/%s uses %s.%s", name, file, from.Name, sel.Sel.Name)
					}
				}
				return true
			})
		}
	}
	if !found {
		t.Error("no mount syscall found anywhere: this test looks for the wrong names")
	}
}

func TestEveryPackageHasOneDocComment(t *testing.T) {
	for _, p := range list(t) {
		var docs []string
		for _, file := range slices.Concat(p.GoFiles, p.TestGoFiles, p.XTestGoFiles) {
			f := parse(t, filepath.Join(p.Dir, file), parser.PackageClauseOnly|parser.ParseComments)
			if f.Doc != nil && (len(p.GoFiles) == 0 || !strings.HasSuffix(file, "_test.go")) && !ast.IsGenerated(f) {
				docs = append(docs, file)
			}
		}
		if len(docs) != 1 {
			t.Errorf("%s has %d package doc comments %v, want 1", p.ImportPath, len(docs), docs)
		}
	}
}

// The programs must not link what they have no use for.
func TestWhatProgramsLink(t *testing.T) {
	for _, tc := range []struct{ program, must, mustNot, why string }{
		{"cmd/keymount", "keymount/internal/publish", "keymount/internal/daemon", "the CLI needs no cluster"},
		{"cmd/keymount", "keymount/internal/publish", "keymount/internal/emulator", "the product must not know the emulator"},
		{"cmd/keymount-azure", "keymount/internal/azure", "keymount/internal/volume", "a provider hands files over, it writes none"},
		{"cmd/keymount-azure", "keymount/internal/azure", "keymount/internal/emulator", "the product must not know the emulator"},
		{"cmd/keymount-driver", "keymount/internal/daemon", "keymount/internal/emulator", "the product must not know the emulator"},
		{"cmd/keymount-driver", "keymount/internal/daemon", "keymount/internal/cli", "the daemon is no command line"},
		{"cmd/keymount", "keymount/internal/publish", "keymount/internal/metrics", "the CLI serves nothing"},
		{"cmd/keyvault-emulator", "keymount/internal/emulator", "keymount/internal/provider", "the emulator must not share the product's mistakes"},
	} {
		deps := strings.Fields(string(goCmd(t, "list", "-deps", "./"+tc.program)))
		if !slices.Contains(deps, tc.must) {
			t.Errorf("%s does not link %s: this test looks at the wrong program", tc.program, tc.must)
		}
		for _, dep := range deps {
			if dep == tc.mustNot || strings.HasPrefix(dep, tc.mustNot+"/") {
				t.Errorf("%s links %s: %s", tc.program, dep, tc.why)
			}
		}
	}
}

func TestRootModuleHasNoReplace(t *testing.T) {
	var mod struct{ Replace []any }
	if err := json.Unmarshal(goCmd(t, "mod", "edit", "-json"), &mod); err != nil {
		t.Fatal(err)
	}
	if len(mod.Replace) > 0 {
		t.Errorf("go.mod has replace directives: whoever builds a release must get the modules it names")
	}
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		base, below := strings.CutSuffix(p, "/...")
		return name == base || below && strings.HasPrefix(name, base+"/")
	})
}

func list(t *testing.T) []pkg {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(goCmd(t, "list", "-json", "./...")))
	var pkgs []pkg
	for {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatal(err)
		}
		pkgs = append(pkgs, p)
	}
}

func goCmd(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func parse(t *testing.T, file string, mode parser.Mode) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, mode)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
