// Package terraform tests examples/terraform without Terraform: its files are read and their blocks expanded by Terraform's own
// library, and what comes of them goes through helm. Where Terraform is installed, its formatter is asked, too.
package terraform

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/ext/dynblock"
	"github.com/hashicorp/hcl/v2/hclparse"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"
	"sigs.k8s.io/yaml"
)

const example = "../../examples/terraform"

func files(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(example + "/*.tf")
	if err != nil || len(all) == 0 {
		t.Fatalf("there are no files: %v", err)
	}
	return all
}

func TestFormat(t *testing.T) {
	for _, file := range files(t) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(hclwrite.Format(text), text) {
			t.Errorf("%s is not in the form of 'terraform fmt'", file)
		}
	}
	terraform, err := exec.LookPath("terraform")
	if err != nil {
		t.Log("terraform is not installed: its own formatter was not asked")
		return
	}
	cmd := exec.CommandContext(t.Context(), terraform, "fmt", "-check", "-diff", "-recursive", example)
	cmd.Env = append(os.Environ(), "CHECKPOINT_DISABLE=1", "TF_CLI_CONFIG_FILE="+os.DevNull)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("terraform fmt: %v\n%s", err, out)
	}
}

// A release is what the example has Terraform install.
type release struct {
	name, namespace, chart string
	set                    []string // NAME=VALUE, as for helm --set
}

// read returns the blocks of all files, and the default values of the variables.
func read(t *testing.T) (blocks hclsyntax.Blocks, variables map[string]cty.Value) {
	t.Helper()
	parser, variables := hclparse.NewParser(), map[string]cty.Value{}
	for _, file := range files(t) {
		parsed, problems := parser.ParseHCLFile(file)
		if problems.HasErrors() {
			t.Fatal(problems)
		}
		for _, block := range parsed.Body.(*hclsyntax.Body).Blocks {
			blocks = append(blocks, block)
			if block.Type == "variable" {
				variables[block.Labels[0]] = value(t, block.Body, "default", nil)
			}
		}
	}
	return blocks, variables
}

func value(t *testing.T, body *hclsyntax.Body, name string, ctx *hcl.EvalContext) cty.Value {
	t.Helper()
	attribute := body.Attributes[name]
	if attribute == nil {
		t.Fatalf("there is no %s at %s", name, body.SrcRange)
	}
	v, problems := attribute.Expr.Value(ctx)
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	return v
}

// readRelease expands the dynamic blocks as Terraform does.
func readRelease(t *testing.T) release {
	t.Helper()
	blocks, variables := read(t)
	i := slices.IndexFunc(blocks, func(b *hclsyntax.Block) bool { return b.Type == "resource" && b.Labels[0] == "helm_release" })
	if i < 0 {
		t.Fatal("there is no helm_release")
	}
	body, ctx := blocks[i].Body, &hcl.EvalContext{Variables: map[string]cty.Value{"var": cty.ObjectVal(variables)}}
	r := release{
		name:      value(t, body, "name", ctx).AsString(),
		namespace: value(t, body, "namespace", ctx).AsString(),
		chart:     value(t, body, "chart", ctx).AsString(),
	}
	content, _, problems := dynblock.Expand(body, ctx).PartialContent(&hcl.BodySchema{Blocks: []hcl.BlockHeaderSchema{{Type: "set"}}})
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	for _, block := range content.Blocks {
		pair, problems := block.Body.Content(&hcl.BodySchema{Attributes: []hcl.AttributeSchema{{Name: "name", Required: true}, {Name: "value", Required: true}}})
		if problems.HasErrors() {
			t.Fatal(problems)
		}
		text := func(attribute string) string {
			v, problems := pair.Attributes[attribute].Expr.Value(ctx)
			if problems.HasErrors() {
				t.Fatal(problems)
			}
			return v.AsString()
		}
		r.set = append(r.set, text("name")+"="+text("value"))
	}
	return r
}

// The names that many have for upstream's chart, so that a change of the chart alone is an upgrade.
func TestNames(t *testing.T) {
	r := readRelease(t)
	if r.name != "csisecretstorekvprovider" || r.namespace != "csisecretstorekvprovider" || filepath.Base(r.chart) != "csi-secrets-store-provider-azure" {
		t.Errorf("the release is %+v", r)
	}
	var names []string
	for _, pair := range r.set {
		name, _, _ := strings.Cut(pair, "=")
		names = append(names, strings.TrimPrefix(name, "secrets-store-csi-driver."))
	}
	slices.Sort(names)
	if want := []string{"enableSecretRotation", "install", "rotationPollInterval", "syncSecret.enabled"}; !slices.Equal(names, want) {
		t.Errorf("parameters are %v, want %v", names, want)
	}
}

func helm(t *testing.T, args ...string) []byte {
	t.Helper()
	home := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "go", append([]string{"tool", "-modfile=../../tools/go.mod", "helm"}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-trimpath -buildvcs=false",
		"HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home, "KUBECONFIG="+filepath.Join(home, "none"))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("helm %v: %v\n%s", args, err, stderr.String())
	}
	return out
}

// render returns what helm makes of the release, as KIND/NAME: object.
func (r release) render(t *testing.T, set []string) map[string]map[string]any {
	t.Helper()
	args := []string{"template", r.name, filepath.Join(example, r.chart), "--namespace", r.namespace, "--kube-version", "v1.35.0"}
	for _, pair := range set {
		args = append(args, "--set", pair)
	}
	objects := map[string]map[string]any{}
	for _, document := range bytes.Split(helm(t, args...), []byte("\n---\n")) {
		var object map[string]any
		if err := yaml.Unmarshal(document, &object); err != nil {
			t.Fatal(err)
		}
		if object != nil {
			objects[fmt.Sprint(object["kind"], "/", object["metadata"].(map[string]any)["name"])] = object
		}
	}
	return objects
}

// arguments returns those of the first container of a DaemonSet.
func arguments(t *testing.T, objects map[string]map[string]any, name string) []any {
	t.Helper()
	var set struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct{ Args []any }
				}
			}
		}
	}
	text, err := yaml.Marshal(objects["DaemonSet/"+name])
	if err != nil || yaml.Unmarshal(text, &set) != nil || len(set.Spec.Template.Spec.Containers) == 0 {
		t.Fatalf("no DaemonSet %s among %d objects: %v", name, len(objects), err)
	}
	return set.Spec.Template.Spec.Containers[0].Args
}

// Every parameter of the map acts: with it there is something that is not there without.
func TestParametersAct(t *testing.T) {
	r := readRelease(t)
	objects := r.render(t, r.set)
	driver := arguments(t, objects, "secrets-store-csi-driver")
	for _, want := range []string{"--enable-secret-rotation=true", "--rotation-poll-interval=2m"} {
		if !slices.Contains(driver, any(want)) {
			t.Errorf("the driver's arguments are %v, want %s", driver, want)
		}
	}
	if spec := objects["CSIDriver/secrets-store.csi.k8s.io"]["spec"].(map[string]any); spec["requiresRepublish"] != true {
		t.Errorf("the CSIDriver is %v", spec)
	}
	if objects["ClusterRole/secretprovidersyncing-role"] == nil {
		t.Error("there is no role for Secrets")
	}
	provider := arguments(t, objects, "csisecretstorekvprovider-csi-secrets-store-provider-azure")
	if !slices.Contains(provider, any("--endpoint=unix:///provider/azure.sock")) {
		t.Errorf("the provider's arguments are %v", provider)
	}

	var without []string
	for _, pair := range r.set {
		name, _, _ := strings.Cut(pair, "=")
		switch {
		case strings.HasSuffix(name, ".rotationPollInterval"):
			without = append(without, name+"=7m")
		case !strings.HasSuffix(name, ".install"):
			without = append(without, name+"=false")
		}
	}
	objects = r.render(t, without)
	driver = arguments(t, objects, "secrets-store-csi-driver")
	if slices.Contains(driver, any("--enable-secret-rotation=true")) || !slices.Contains(driver, any("--rotation-poll-interval=7m")) ||
		objects["ClusterRole/secretprovidersyncing-role"] != nil ||
		objects["CSIDriver/secrets-store.csi.k8s.io"]["spec"].(map[string]any)["requiresRepublish"] != false {
		t.Errorf("the parameters have no effect: %v", driver)
	}
	objects = r.render(t, []string{"secrets-store-csi-driver.install=false"})
	if objects["DaemonSet/secrets-store-csi-driver"] != nil || objects["CSIDriver/secrets-store.csi.k8s.io"] != nil {
		t.Error("install=false installs the driver")
	}
	arguments(t, objects, "csisecretstorekvprovider-csi-secrets-store-provider-azure")
}
