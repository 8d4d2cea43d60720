package params_test

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"strings"
	"testing"

	"keymount/internal/azure/params"
	"keymount/internal/provider"
)

const version = "0123456789abcdef0123456789abcdef"

// valid is the request that every row changes in one place.
func valid() map[string]string {
	return map[string]string{
		"keyvaultName": "myvault",
		"tenantID":     "11111111-2222-3333-4444-555555555555",
		"objects":      "array:\n  - |\n    objectName: one\n    objectType: secret\n",
	}
}

func with(key, value string) map[string]string {
	m := valid()
	m[key] = value
	return m
}

func without(key string) map[string]string {
	m := valid()
	delete(m, key)
	return m
}

// entries makes an objects parameter in the usual form: a list of strings that are YAML themselves.
func entries(list ...string) string {
	var b strings.Builder
	b.WriteString("array:\n")
	for _, e := range list {
		b.WriteString("  - |\n")
		for line := range strings.SplitSeq(e, "\n") {
			b.WriteString("    " + line + "\n")
		}
	}
	return b.String()
}

func secret(name string, more ...string) string {
	return strings.Join(append([]string{"objectName: " + name, "objectType: secret"}, more...), "\n")
}

func parse(t *testing.T, m map[string]string) *params.Spec {
	t.Helper()
	spec, err := params.Parse(m, params.Options{})
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return spec
}

func parseOne(t *testing.T, more ...string) params.Object {
	t.Helper()
	spec := parse(t, with("objects", entries(secret("one", more...))))
	if len(spec.Objects) != 1 {
		t.Fatalf("%d objects, want 1", len(spec.Objects))
	}
	return spec.Objects[0]
}

// refused checks that exactly one problem is reported, of kind Invalid, that begins with the field's path, contains
// upstream's text and says what to do.
func refused(t *testing.T, m map[string]string, field, text string) {
	t.Helper()
	spec, err := params.Parse(m, params.Options{})
	if err == nil {
		t.Fatalf("accepted as %+v", spec)
	}
	var all provider.Errors
	if !errors.As(err, &all) || len(all) != 1 {
		t.Fatalf("got %d problems, want 1:\n%v", len(all), err)
	}
	e := all[0]
	if e.Kind != provider.Invalid {
		t.Errorf("kind %v", e.Kind)
	}
	if !strings.HasPrefix(e.Message, field+": ") {
		t.Errorf("%q does not begin with %q", e.Message, field)
	}
	if !strings.Contains(e.Message, text) {
		t.Errorf("%q does not contain %q", e.Message, text)
	}
	if e.Remedy == "" {
		t.Errorf("no remedy for %q", e.Message)
	}
}

func row(t *testing.T, id string, f func(t *testing.T)) {
	t.Helper()
	t.Run(id, func(t *testing.T) {
		t.Attr("conformance", id)
		f(t)
	})
}

func TestValidRequest(t *testing.T) {
	spec := parse(t, valid())
	if spec.Mode != params.ServicePrincipal || spec.VaultURL() != "https://myvault.vault.azure.net" || spec.Cloud.Name != "AzurePublicCloud" {
		t.Errorf("got %+v", spec)
	}
	o := spec.Objects[0]
	if o.ID() != "secret/one" || o.Path != "one" || o.Version != "" || o.History != 0 || o.Format != params.PEM ||
		o.Encoding != params.UTF8 || o.HasMode {
		t.Errorf("got %+v", o)
	}
	if len(spec.Warnings) != 0 {
		t.Errorf("warnings: %q", spec.Warnings)
	}
}

func TestIdentityParameters(t *testing.T) {
	for key, mode := range map[string]params.Mode{
		"usePodIdentity":       params.PodIdentity,
		"useVMManagedIdentity": params.ManagedIdentity,
		"useAzureTokenProxy":   params.IdentityBinding,
	} {
		row(t, "1.4/"+key, func(t *testing.T) {
			for _, yes := range []string{"1", "t", "T", "TRUE", "true", "True", " true\n"} {
				m := with(key, yes)
				m["clientID"] = "client"
				if got := parse(t, m).Mode; got != mode {
					t.Errorf("%q gives %v, want %v", yes, got, mode)
				}
			}
			for _, no := range []string{"0", "f", "F", "FALSE", "false", "False", ""} {
				if got := parse(t, with(key, no)).Mode; got != params.ServicePrincipal {
					t.Errorf("%q gives %v", no, got)
				}
			}
			for _, bad := range []string{"tru", "yes", "on", "2", "tRUE"} {
				refused(t, with(key, bad), "parameters."+key,
					fmt.Sprintf(`failed to parse %s flag, error: strconv.ParseBool: parsing %q: invalid syntax`, key, bad))
			}
		})
	}
	row(t, "1.4/one-identity-mode", func(t *testing.T) {
		m := with("usePodIdentity", "true")
		m["useVMManagedIdentity"] = "true"
		refused(t, m, "parameters",
			"only one identity mode can be enabled at a time: usePodIdentity, useVMManagedIdentity, or useAzureTokenProxy")
	})
	row(t, "1.4/clientID", func(t *testing.T) {
		if spec := parse(t, with("clientID", " client ")); spec.Mode != params.WorkloadIdentity || spec.ClientID != "client" {
			t.Errorf("got %v with client %q", spec.Mode, spec.ClientID)
		}
		m := with("clientID", "client")
		m["useVMManagedIdentity"] = "true"
		if got := parse(t, m).Mode; got != params.ManagedIdentity {
			t.Errorf("with a managed identity: %v", got)
		}
		refused(t, with("useAzureTokenProxy", "true"), "parameters.clientID", "clientID is required for identity binding")
		refused(t, with("clientID", strings.Repeat("a", 300)), "parameters.clientID", "is not a client id")
		refused(t, with("clientID", "a\x00b"), "parameters.clientID", "is not a client id")
	})
	row(t, "1.4/userAssignedIdentityID", func(t *testing.T) {
		m := with("useVMManagedIdentity", "true")
		m["userAssignedIdentityID"] = " mi "
		if got := parse(t, m).UserAssignedID; got != "mi" {
			t.Errorf("got %q", got)
		}
		if got := parse(t, with("userAssignedIdentityID", "mi")).Mode; got != params.ServicePrincipal {
			t.Errorf("it chose the mode %v", got)
		}
	})
}

func TestVaultAndTenant(t *testing.T) {
	row(t, "1.4/keyvaultName", func(t *testing.T) {
		refused(t, without("keyvaultName"), "parameters.keyvaultName", "keyvaultName is not provided")
		refused(t, with("keyvaultName", " \n"), "parameters.keyvaultName", "keyvaultName is not provided")
		for slip, missing := range map[string]string{"keyVaultName": "keyvaultName", "keyvaltName": "keyvaultName", "TenantID": "tenantID", "object": "objects"} {
			m := without(missing)
			m[slip] = "x"
			_, err := params.Parse(m, params.Options{})
			if want := "write " + missing + " where the class says " + slip; len(provider.ErrorsOf(err)) != 1 || provider.ErrorsOf(err)[0].Remedy != want {
				t.Errorf("%s for %s is refused with %+v, want the remedy %q", slip, missing, provider.ErrorsOf(err), want)
			}
		}
	})
	for _, id := range []string{"1.4/keyvaultName-syntax", "4/vault-name"} {
		row(t, id, func(t *testing.T) {
			refused(t, with("keyvaultName", "ab"), "parameters.keyvaultName",
				`failed to get vault: Invalid vault name: "ab", must be between 3 and 24 chars`)
			refused(t, with("keyvaultName", strings.Repeat("a", 25)), "parameters.keyvaultName", "must be between 3 and 24 chars")
			for _, bad := range []string{"my_vault", "evil.com/", "my.vault", "vault:80", "a@b", "välte"} {
				refused(t, with("keyvaultName", bad), "parameters.keyvaultName",
					fmt.Sprintf("failed to get vault: Invalid vault name: %q, must match [-a-zA-Z0-9]{3,24}", bad))
			}
			for _, good := range []string{"abc", strings.Repeat("a", 24), "My-Vault-1", " padded "} {
				want := "https://" + strings.ToLower(strings.TrimSpace(good)) + ".vault.azure.net"
				if got := parse(t, with("keyvaultName", good)).VaultURL(); got != want {
					t.Errorf("%q is at %q, want %q", good, got, want)
				}
			}
		})
	}
	row(t, "1.4/tenantID", func(t *testing.T) {
		refused(t, without("tenantID"), "parameters.tenantID", "tenantId is not provided")
		m := without("tenantID")
		m["tenantId"] = " old "
		if got := parse(t, m).TenantID; got != "old" {
			t.Errorf("the old spelling gives %q", got)
		}
		m["tenantID"] = "new"
		if got := parse(t, m).TenantID; got != "new" {
			t.Errorf("both give %q", got)
		}
		for _, mode := range []string{"usePodIdentity", "useVMManagedIdentity"} {
			m := without("tenantID")
			m[mode] = "true"
			refused(t, m, "parameters.tenantID", "tenantId is not provided")
		}
	})
	row(t, "1.4/tenantID-syntax", func(t *testing.T) {
		for _, bad := range []string{"a/b", "a b", "ten_ant", "../common", "a?b", strings.Repeat("a", 300)} {
			refused(t, with("tenantID", bad), "parameters.tenantID",
				"failed to get keyvault client: invalid tenantID. You can locate your tenantID by")
		}
		for _, good := range []string{"contoso.onmicrosoft.com", "adfs", "11111111-2222-3333-4444-555555555555"} {
			if got := parse(t, with("tenantID", good)).TenantID; got != good {
				t.Errorf("got %q", got)
			}
		}
	})
}

func TestAllProblemsAtOnce(t *testing.T) {
	m := map[string]string{
		"usePodIdentity": "tru",
		"keyvaultName":   "x",
		"cloudName":      "Moon",
		"objects": entries(
			"objectName: a_b\nobjectType: Secret\nobjectVersion: v1\nobjectFormat: der\nobjectEncoding: rot13\nfilePermission: rw\nobjectAlias: /etc",
			"objectName: [",
			secret("ok"), secret("ok")),
	}
	_, err := params.Parse(m, params.Options{})
	for _, field := range []string{"usePodIdentity", "keyvaultName", "tenantID", "cloudName",
		"objects.array[0].objectName", "objects.array[0].objectType", "objects.array[0].objectVersion", "objects.array[0].objectFormat",
		"objects.array[0].objectEncoding", "objects.array[0].filePermission", "objects.array[0].objectAlias", "objects.array[1]",
		"objects.array[3].objectAlias"} {
		n := 0
		for _, e := range provider.ErrorsOf(err) {
			if strings.HasPrefix(e.Message, "parameters."+field+": ") {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d problems at %s, want 1", n, field)
		}
	}
	if got := len(provider.ErrorsOf(err)); got != 13 {
		t.Errorf("%d problems in all, want 13:\n%v", got, err)
	}
}

func TestUnknownKeysAreIgnoredWithAHint(t *testing.T) {
	m := valid()
	maps.Copy(m, map[string]string{
		"keyVaultName":                  "typo",
		"cloudname":                     "Moon",
		"csi.storage.k8s.io/pod.name":   "p",
		"secretProviderClass":           "c",
		"keymount.dev/x":                "y",
		"somethingElseThatIsNotOursYet": "1",
	})
	m["objects"] = entries(secret("one", "objectversion: "+version, "filePermisions: 0600", "note: mine"))
	spec := parse(t, m)
	want := []string{"filePermission?", "objectVersion?", "keyvaultName?", "cloudName?"}
	if len(spec.Warnings) != len(want) {
		t.Errorf("%d warnings, want %d: %q", len(spec.Warnings), len(want), spec.Warnings)
	}
	for _, w := range want {
		if !strings.Contains(strings.Join(spec.Warnings, "\n"), w) {
			t.Errorf("no warning suggests %s: %q", w, spec.Warnings)
		}
	}
	if spec.Objects[0].Version != "" || spec.Objects[0].HasMode || spec.Vault != "myvault" {
		t.Errorf("a misspelt key had an effect: %+v", spec)
	}
}

// A class author's bytes end up in log lines and Events.
func TestMessagesAreOneBoundedLine(t *testing.T) {
	evil := "x\nlevel=error msg=forged\x1b[31m" + strings.Repeat("y", 5000)
	_, err := params.Parse(map[string]string{"keyvaultName": evil, "tenantID": evil, "cloudName": evil, "usePodIdentity": evil,
		"objects": fmt.Sprintf("array:\n- objectName: %q\n  objectType: %q\n  objectAlias: %q\n  objectFormat: %q\n", evil, evil, evil, evil)},
		params.Options{})
	for _, e := range provider.ErrorsOf(err) {
		if len(e.Message) > 1200 || strings.ContainsAny(e.Message, "\n\x1b") {
			t.Errorf("%d bytes: %q", len(e.Message), e.Message)
		}
	}
	if n := len(provider.ErrorsOf(err)); n < 8 {
		t.Errorf("only %d problems", n)
	}
}

func TestFilePermission(t *testing.T) {
	for _, id := range []string{"1.5/filePermission", "4/permission-valid"} {
		row(t, id, func(t *testing.T) {
			for text, want := range map[string]fs.FileMode{"0755": 0o755, `"0755"`: 0o755, "420": 0o420, "0": 0, "0777": 0o777, "0400": 0o400} {
				if o := parseOne(t, "filePermission: "+text); !o.HasMode || o.Mode != want {
					t.Errorf("%s gives %04o (set: %v), want %04o", text, o.Mode, o.HasMode, want)
				}
			}
			if o := parseOne(t, `filePermission: ""`); o.HasMode {
				t.Errorf("an empty one gives %04o", o.Mode)
			}
		})
	}
	bad := func(list ...string) func(*testing.T) {
		return func(t *testing.T) {
			for _, text := range list {
				refused(t, with("objects", entries(secret("one", "filePermission: "+text))), "parameters.objects.array[0].filePermission",
					"is not a file permission: octal digits from 0000 to 0777")
			}
		}
	}
	row(t, "4/permission-not-octal", bad(`"0900"`, "rw-r--r--", "0o644", "0x1ff", "6 4 4"))
	row(t, "4/permission-range", bad("7777", "-644", "1000", "77777777777777777777777"))
}

// A class that multiplies, by aliases or by sheer size, is refused at once rather than worked through.
func TestBombs(t *testing.T) {
	var keys strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&keys, "k%d: x, ", i)
	}
	many := keys.String()
	bombs := map[string]string{
		"aliases": "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n" +
			"e: &e [*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e]\narray: [*f,*f,*f,*f,*f,*f]\n",
		"merges":        "a: &a {x: 1}\narray:\n" + strings.Repeat("- {<<: *a, objectName: n, objectType: [1]}\n", 500),
		"merge of many": "a: &a {" + many + "}\narray:\n" + strings.Repeat("- {<<: [*a,*a,*a,*a,*a,*a,*a], objectName: n}\n", 900),
		"merge of one":  "a: &a {" + many + "}\narray:\n" + strings.Repeat("- {<<: *a, objectName: n}\n", 900),
		"nested merges": "a: &a {x: 1}\nb: &b {<<: *a}\narray:\n- {<<: *b, objectName: n, objectType: key}\n",
		"fields":        "array:\n- {" + many + "}\n- |\n  {" + many + "}\n",
		"repeated text": "a: &a \"objectName: b\\nobjectType: key\\nx: " + strings.Repeat("y", 100_000) + "\"\narray: [" + strings.Repeat("*a,", 1000) + "]",
		"many keys":     strings.Repeat("arrav: 1\n", 20000),
		"depth":         "array: " + strings.Repeat("[", 100000),
		"objects":       "array:\n" + strings.Repeat("- |\n  objectName: a\n  objectType: secret\n", 1001),
		"history":       "array:\n" + strings.Repeat("- {objectName: a, objectType: secret, objectVersionHistory: 500}\n", 5),
		"size":          "array: [" + strings.Repeat("x", 1<<20) + "]",
		"self":          "array: &a [*a]",
	}
	for name, text := range bombs {
		t.Run(name, func(t *testing.T) {
			_, err := params.Parse(with("objects", text), params.Options{})
			if err == nil {
				t.Error("accepted")
			} else if n := len(provider.ErrorsOf(err)); n > 51 || len(err.Error()) > 100_000 {
				t.Errorf("%d problems in %d bytes", n, len(err.Error()))
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("array:\n  - |\n    objectName: one\n    objectType: secret\n", "myvault", "AzurePublicCloud", "true")
	f.Add("array:\n- {objectName: a, objectType: cert, objectAlias: a/b, objectVersionHistory: 3}\n- &x {<<: *x}\n", "v", "AzureStackCloud", "")
	f.Add("array: [*a]\n", "", "", "0")
	f.Add("array:\n- |\n  objectName: a\n  filePermission: 0777\n  objectFormat: PFX\n- 3\n- null\n", "abc", "azurecloud", "T")
	f.Fuzz(func(t *testing.T, objects, vault, cloud, flag string) {
		spec, err := params.Parse(map[string]string{"objects": objects, "keyvaultName": vault, "tenantID": vault, "cloudName": cloud,
			"useVMManagedIdentity": flag, "cloudEnvFileName": objects},
			params.Options{CloudFile: func(name string) ([]byte, error) { return []byte(objects), nil }})
		if err != nil {
			for _, e := range provider.ErrorsOf(err) {
				if e.Kind != provider.Invalid || e.Remedy == "" || !strings.HasPrefix(e.Message, "parameters") {
					t.Errorf("odd problem %+v", e)
				}
			}
			return
		}
		for _, o := range spec.Objects {
			for i := range max(1, o.History) {
				if p := o.PathOf(i); !fs.ValidPath(p) || strings.Contains(p, "..") || strings.ContainsAny(p, "\\\x00") {
					t.Errorf("path %q", p)
				}
			}
			if o.Mode > 0o777 {
				t.Errorf("mode %o", o.Mode)
			}
		}
	})
}
