package azure_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keymount/internal/azure"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

func TestCloudFiles(t *testing.T) {
	t.Parallel()
	folder, elsewhere := t.TempDir(), t.TempDir()
	const content = `{"name":"AzureStackCloud","activeDirectoryEndpoint":"https://login.microsoftonline.com/","keyVaultDNSSuffix":"vault.azure.net"}`
	write := func(path, content string) string {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	inside := write(filepath.Join(folder, "stack.json"), content)
	secret := write(filepath.Join(elsewhere, "token"), content)
	operators := write(filepath.Join(elsewhere, "operator.json"), content)
	for name, target := range map[string]string{"out": secret, "in": "stack.json"} {
		if err := os.Symlink(target, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	e := emulatortest.Start(t, emulatortest.DefaultSeed(vaultName))
	r := startWith(t, e, func(cfg *azure.Config) { cfg.CloudFolder = folder })
	r.PutSecret(vaultName, "one", "1")
	ask := func(name string) *provider.Request {
		req := r.request(array(entry("secret", "one")))
		req.Parameters["cloudName"], req.Parameters["cloudEnvFileName"] = "AzureStackCloud", name
		return req
	}
	row(t, "1.4/cloudEnvFileName", func(t *testing.T) {
		for _, name := range []string{"stack.json", inside, "in"} {
			if _, err := r.Fetch(t.Context(), ask(name)); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		before := e.Requests().Total()
		for _, name := range []string{secret, operators, "/etc/passwd", "out", "../" + filepath.Base(elsewhere) + "/token", "absent.json", ".", folder, ""} {
			r.fails(t, ask(name), provider.Invalid, "parameters.cloudEnvFileName: cloudName AzureStackCloud is not valid, error: ")
		}
		if e.Requests().Total() != before {
			t.Error("a class without a permitted file asked somebody")
		}
		if name, set := os.LookupEnv("AZURE_ENVIRONMENT_FILEPATH"); set {
			t.Errorf("the environment names %s", name)
		}
	})
	t.Run("the operator's file", func(t *testing.T) {
		own := startWith(t, e, func(cfg *azure.Config) { cfg.CloudFile = operators })
		for _, name := range []string{"", operators} {
			if _, err := own.Fetch(t.Context(), ask(name)); err != nil {
				t.Errorf("%q: %v", name, err)
			}
		}
		own.fails(t, ask(secret), provider.Invalid, "open token: not in the folder of cloud files")
		own.fails(t, ask(inside), provider.Invalid, "not in the folder of cloud files")
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	_, err := azure.New(azure.Config{CloudName: "Moon"})
	if err == nil || !strings.Contains(err.Error(), "cloudName Moon is not valid") {
		t.Errorf("got %v", err)
	}
	if _, err := azure.New(azure.Config{}); err != nil {
		t.Error(err)
	}
}
