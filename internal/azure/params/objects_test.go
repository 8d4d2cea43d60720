package params_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"keymount/internal/azure/params"
	"keymount/internal/provider"
)

const first = "parameters.objects.array[0]"

func TestObjectsDocument(t *testing.T) {
	row(t, "1.4/objects", func(t *testing.T) {
		refused(t, without("objects"), "parameters.objects", "objects is not set")
		refused(t, with("objects", " "), "parameters.objects", "objects is not set")
		for _, bad := range []string{"array: one", "- one", "one", "array:\n  a: b", "array: [", "\tx", "array: []\narray: []"} {
			refused(t, with("objects", bad), "parameters.objects", "failed to yaml unmarshal objects, error: yaml: ")
		}
		refused(t, with("objects", "Array: []"), "parameters.objects", "did you mean array where it says Array?")
	})
	row(t, "1.4/empty-array", func(t *testing.T) {
		for _, empty := range []string{"array: []", "array:", "array: null"} {
			if spec := parse(t, with("objects", empty)); len(spec.Objects) != 0 {
				t.Errorf("%q gives %+v", empty, spec.Objects)
			}
		}
	})
	row(t, "1.4/object-entries", func(t *testing.T) {
		refused(t, with("objects", entries(secret("one"), "objectName: [")), "parameters.objects.array[1]",
			"unmarshal failed for keyVaultObjects at index 1, error: yaml: ")
		refused(t, with("objects", entries(secret("one", "objectVersionHistory: \"3\""))), first,
			"unmarshal failed for keyVaultObjects at index 0, error: yaml: unmarshal errors:\n  line 3: cannot unmarshal !!str `3` into int32")
		refused(t, with("objects", entries("just text")), first, "cannot unmarshal !!str into a map")
		refused(t, with("objects", "array: [[a]]"), first, "cannot unmarshal !!seq into a map")
		refused(t, with("objects", entries("objectName: {a: b}\nobjectType: secret")), first, "cannot unmarshal !!map into string")
	})
	t.Run("an entry may be a map", func(t *testing.T) {
		spec := parse(t, with("objects", "array:\n- objectName: one\n  objectType: key\n- {objectName: two, objectType: cert}\n- |\n  objectName: three\n  objectType: secret\n"))
		var ids []string
		for _, o := range spec.Objects {
			ids = append(ids, o.ID())
		}
		if got := fmt.Sprint(ids); got != "[key/one cert/two secret/three]" {
			t.Errorf("got %s", got)
		}
	})
	t.Run("anchors serve", func(t *testing.T) {
		spec := parse(t, with("objects", "common: &c {objectType: secret, filePermission: \"0400\"}\narray:\n- {<<: *c, objectName: one}\n- &e {objectName: two, objectType: key}\n"))
		if o := spec.Objects[0]; o.ID() != "secret/one" || o.Mode != 0o400 || spec.Objects[1].ID() != "key/two" {
			t.Errorf("got %+v", spec.Objects)
		}
	})
}

func TestObjectFields(t *testing.T) {
	row(t, "1.5/objectName", func(t *testing.T) {
		refused(t, with("objects", entries("objectType: secret")), first+".objectName", "file name must not be empty")
		refused(t, with("objects", entries("objectType: secret\nobjectAlias: alias")), first+".objectName", "file name must not be empty")
		for field, slip := range map[string]string{"objectName": "objectname: one\nobjectType: secret", "objectType": "objectName: one\nobjectTyp: secret"} {
			_, err := params.Parse(with("objects", entries(slip)), params.Options{})
			if errs := provider.ErrorsOf(err); len(errs) != 1 || !strings.HasPrefix(errs[0].Remedy, "write "+field+" where the class says object") {
				t.Errorf("%s: %v", slip, err)
			}
		}
		if o := parseOne(t); o.Name != "one" || o.Path != "one" {
			t.Errorf("got %+v", o)
		}
	})
	row(t, "4/object-name", func(t *testing.T) {
		for _, bad := range []string{"a_b", "a/b", "a b", "a.b", "a?b", "a%2e", strings.Repeat("a", 128), "ä"} {
			refused(t, with("objects", entries("objectName: "+bad+"\nobjectType: secret\nobjectAlias: x")), first+".objectName",
				"is not a name in Key Vault: 1 to 127 letters, digits and dashes")
		}
		parse(t, with("objects", entries(secret(strings.Repeat("a", 127)))))
	})
	row(t, "1.5/objectType", func(t *testing.T) {
		for _, bad := range []string{"Secret", "certificate", "", "keys"} {
			refused(t, with("objects", entries("objectName: one\nobjectType: "+bad)), first+".objectType",
				"Invalid vaultObjectTypes. Should be secret, key, or cert")
		}
		for _, good := range []params.Kind{params.Secret, params.Key, params.Certificate} {
			if o := parse(t, with("objects", entries("objectName: one\nobjectType: \" "+string(good)+" \""))).Objects[0]; o.Kind != good {
				t.Errorf("got %q", o.Kind)
			}
		}
	})
	row(t, "1.5/objectVersion", func(t *testing.T) {
		for text, want := range map[string]string{`""`: "", "latest": "", version: version, strings.ToUpper(version): strings.ToUpper(version)} {
			if o := parseOne(t, "objectVersion: "+text); o.Version != want {
				t.Errorf("%s gives %q", text, o.Version)
			}
		}
	})
	row(t, "4/object-version", func(t *testing.T) {
		for _, bad := range []string{"v1", "Latest", version + "0", version[1:], "../" + version[3:], version[:31] + "/", version[:31] + "g"} {
			refused(t, with("objects", entries(secret("one", "objectVersion: "+bad))), first+".objectVersion",
				"is not a version in Key Vault: 32 hexadecimal digits")
		}
	})
	row(t, "1.5/objectVersionHistory", func(t *testing.T) {
		for text, want := range map[string]int{"0": 0, "1": 0, "-5": 0, "2": 2, "500": 500} {
			o := parseOne(t, "objectVersionHistory: "+text)
			if o.History != want {
				t.Errorf("%s gives %d", text, o.History)
			}
			if want == 2 && (o.PathOf(1) != "one/1" || o.IDOf(1) != "secret/one/1") {
				t.Errorf("second version is %s as %s", o.IDOf(1), o.PathOf(1))
			}
			if want == 0 && (o.PathOf(0) != "one" || o.IDOf(0) != "secret/one") {
				t.Errorf("a single version is %s as %s", o.IDOf(0), o.PathOf(0))
			}
		}
		refused(t, with("objects", entries(secret("one", "objectVersionHistory: 501"))), first+".objectVersionHistory", "501 versions are too many")
		refused(t, with("objects", entries(secret("one", "objectVersionHistory: 99999999999"))), first, "into int32")
	})
	row(t, "1.5/objectFormat", func(t *testing.T) {
		for text, want := range map[string]params.Format{`""`: params.PEM, "PEM": params.PEM, "pfx": params.PFX, "Pfx": params.PFX} {
			if o := parseOne(t, "objectFormat: "+text); o.Format != want {
				t.Errorf("%s gives %q", text, o.Format)
			}
		}
		refused(t, with("objects", entries(secret("one", "objectFormat: der"))), first+".objectFormat", "invalid objectFormat: der, should be PEM or PFX")
		for _, kind := range []string{"key", "cert"} {
			for _, pfx := range []string{"pfx", "PFX"} {
				refused(t, with("objects", entries("objectName: one\nobjectType: "+kind+"\nobjectFormat: "+pfx)), first+".objectFormat",
					"PFX format only supported for objectType: secret")
			}
		}
		parse(t, with("objects", entries("objectName: one\nobjectType: key\nobjectFormat: PEM")))
	})
	row(t, "1.5/objectEncoding", func(t *testing.T) {
		for text, want := range map[string]params.Encoding{`""`: params.UTF8, "UTF-8": params.UTF8, "Hex": params.Hex, "BASE64": params.Base64} {
			if o := parseOne(t, "objectEncoding: "+text); o.Encoding != want {
				t.Errorf("%s gives %q", text, o.Encoding)
			}
		}
		refused(t, with("objects", entries(secret("one", "objectEncoding: rot13"))), first+".objectEncoding",
			"invalid objectEncoding: rot13, should be hex, base64 or utf-8")
		refused(t, with("objects", entries("objectName: one\nobjectType: cert\nobjectEncoding: hex")), first+".objectEncoding",
			"objectEncoding only supported for objectType: secret")
	})
}

func TestFileNames(t *testing.T) {
	alias := func(a string) map[string]string {
		return with("objects", fmt.Sprintf("array:\n- {objectName: one, objectType: secret, objectAlias: %q}", a))
	}
	row(t, "1.5/objectAlias", func(t *testing.T) {
		for _, good := range []string{"tls.key", "a/b/c", "with blank", "größe", ".hidden", strings.Repeat("x", 251)} {
			if o := parse(t, alias(good)).Objects[0]; o.Path != good || o.ID() != "secret/one" {
				t.Errorf("%q gives %q", good, o.Path)
			}
		}
		if o := parse(t, alias("")).Objects[0]; o.Path != "one" {
			t.Errorf("an empty one gives %q", o.Path)
		}
	})
	bad := func(text string, names ...string) func(t *testing.T) {
		return func(t *testing.T) {
			for _, n := range names {
				refused(t, alias(n), first+".objectAlias", text)
			}
		}
	}
	row(t, "4/name-empty", func(t *testing.T) {
		refused(t, with("objects", entries("objectType: secret")), first+".objectName", "file name must not be empty")
	})
	row(t, "4/name-absolute", bad("file name must be a relative path", "/etc/passwd", "/"))
	row(t, "4/name-dot-dot", bad("file name must not contain '..'", "..", "../x", "a/../b", "a..b", "..data", "a/.."))
	row(t, "4/name-not-clean", func(t *testing.T) {
		bad("file name must not be the volume itself", ".", "./", "./.")(t)
		bad("is not in its shortest form", "./a", "a/", "a//b", "a/./b")(t)
		bad("file name must be printable text", "a\x00b", "a\nb", "a\u202eb")(t)
		bad("file name must not be longer than", strings.Repeat("x", 252), strings.Repeat("x/", 600)+"x")(t)
	})
	row(t, "4/name-backslash", bad(`file name must not contain '\'`, `a\b`, `\a`))
}

func TestConflicts(t *testing.T) {
	two := func(a, b string) map[string]string {
		return with("objects", "array:\n- {objectName: zero, objectType: cert}\n- "+a+"\n- "+b)
	}
	both := func(t *testing.T, m map[string]string, text string) {
		t.Helper()
		refused(t, m, "parameters.objects.array[2].objectAlias", text)
		_, err := params.Parse(m, params.Options{})
		for _, entry := range []string{"parameters.objects.array[1] (secret/a)", "parameters.objects.array[2] ("} {
			if !strings.Contains(err.Error(), entry) {
				t.Errorf("%v does not name %s", err, entry)
			}
		}
	}
	row(t, "4/duplicate-paths", func(t *testing.T) {
		both(t, two("{objectName: a, objectType: secret, objectAlias: x}", "{objectName: b, objectType: key, objectAlias: x}"), "are both the file x")
		both(t, two("{objectName: a, objectType: secret}", "{objectName: a, objectType: key}"), "are both the file a")
		both(t, two("{objectName: a, objectType: secret, objectVersionHistory: 3}", "{objectName: b, objectType: key, objectAlias: a/2}"), "are both the file a/2")
		parse(t, two("{objectName: a, objectType: secret, objectVersionHistory: 3}", "{objectName: b, objectType: key, objectAlias: a/3}"))
	})
	row(t, "4/file-folder-conflict", func(t *testing.T) {
		both(t, two("{objectName: a, objectType: secret}", "{objectName: b, objectType: key, objectAlias: a/b}"), "as a folder for a/b")
		both(t, two("{objectName: a, objectType: secret}", "{objectName: b, objectType: key, objectAlias: a, objectVersionHistory: 2}"), "as a folder for a/0")
		m := two("{objectName: a, objectType: secret, objectAlias: x/y/z}", "{objectName: b, objectType: key, objectAlias: x/y}")
		refused(t, m, "parameters.objects.array[1].objectAlias", "is the file x/y, which")
		parse(t, two("{objectName: a, objectType: secret, objectAlias: x/y}", "{objectName: b, objectType: key, objectAlias: x/yy}"))
	})
}

const stackFile = "\xef\xbb\xbf" + `{"name":"AzureStackCloud","activeDirectoryEndpoint":"https://login.stack.test/","keyVaultEndpoint":"https://vault.stack.test/",
	"keyVaultDNSSuffix":"Vault.stack.test","managementPortalURL":"https://x"}`

func TestClouds(t *testing.T) {
	row(t, "1.4/cloudName", func(t *testing.T) {
		for names, want := range map[string]params.Cloud{
			"AzurePublicCloud AzureCloud azurecloud AZUREPUBLICCLOUD": {Name: "AzurePublicCloud",
				AuthorityHost: "https://login.microsoftonline.com", VaultSuffix: "vault.azure.net", Resource: "https://vault.azure.net"},
			"AzureUSGovernmentCloud AzureUSGovernment azureusgovernment": {Name: "AzureUSGovernmentCloud",
				AuthorityHost: "https://login.microsoftonline.us", VaultSuffix: "vault.usgovcloudapi.net", Resource: "https://vault.usgovcloudapi.net"},
			"AzureChinaCloud azurechinacloud": {Name: "AzureChinaCloud",
				AuthorityHost: "https://login.chinacloudapi.cn", VaultSuffix: "vault.azure.cn", Resource: "https://vault.azure.cn"},
			"AzureGermanCloud": {Name: "AzureGermanCloud",
				AuthorityHost: "https://login.microsoftonline.de", VaultSuffix: "vault.microsoftazure.de", Resource: "https://vault.microsoftazure.de"},
		} {
			for name := range strings.FieldsSeq(names) {
				if got := parse(t, with("cloudName", " "+name)).Cloud; got != want {
					t.Errorf("%s is %+v, want %+v", name, got, want)
				}
				if err := params.CheckCloudName(name); err != nil {
					t.Error(err)
				}
			}
		}
		const text = `cloudName Moon is not valid, error: autorest/azure: There is no cloud environment matching the name "MOON"`
		refused(t, with("cloudName", "Moon"), "parameters.cloudName", text)
		if err := params.CheckCloudName("Moon"); err == nil || !strings.HasPrefix(err.Error(), text+" (use AzurePublicCloud, ") {
			t.Errorf("the flag's error is %v", err)
		}
		spec, err := params.Parse(with("cloudName", ""), params.Options{DefaultCloud: "AzureChinaCloud"})
		if err != nil || spec.Cloud.VaultSuffix != "vault.azure.cn" {
			t.Errorf("the default gives %+v, %v", spec, err)
		}
	})
}

func TestCustomCloud(t *testing.T) {
	m := with("cloudName", "azurestackcloud")
	refused(t, m, "parameters.cloudEnvFileName", "cloudName azurestackcloud is not valid, error: ")
	m["cloudEnvFileName"] = " stack.json "
	read := func(content string, err error) params.Options {
		return params.Options{CloudFile: func(name string) ([]byte, error) {
			if name != "stack.json" {
				t.Errorf("asked for %q", name)
			}
			return []byte(content), err
		}}
	}
	spec, err := params.Parse(m, read(stackFile, nil))
	if err != nil {
		t.Fatal(err)
	}
	want := params.Cloud{Name: "AzureStackCloud", AuthorityHost: "https://login.stack.test", VaultSuffix: "vault.stack.test", Resource: "https://vault.stack.test"}
	if spec.Cloud != want {
		t.Errorf("got %+v, want %+v", spec.Cloud, want)
	}
	for name, tc := range map[string]struct{ from, to, text string }{
		"not JSON":       {stackFile, "root:x:0:0:root:/root:/bin/sh", "it is not a JSON object that describes a cloud"},
		"plain http":     {"https://login", "http://login", "activeDirectoryEndpoint is not an https address"},
		"user in URL":    {"https://login", "https://u:p@login", "activeDirectoryEndpoint is not an https address"},
		"no authority":   {"activeDirectoryEndpoint", "x", "activeDirectoryEndpoint is not an https address"},
		"no suffix":      {"keyVaultDNSSuffix", "x", "keyVaultDNSSuffix is not a host name"},
		"suffix is path": {"Vault.stack.test", "Vault.stack.test/x", "keyVaultDNSSuffix is not a host name"},
		"endpoint":       {"https://vault.stack.test/", "ftp://vault", "must be https addresses"},
	} {
		t.Run(name, func(t *testing.T) {
			content := strings.Replace(stackFile, tc.from, tc.to, 1)
			_, err := params.Parse(m, read(content, nil))
			if err == nil || !strings.Contains(err.Error(), tc.text) || strings.Contains(err.Error(), "root") {
				t.Errorf("got %v, want %q and no content", err, tc.text)
			}
		})
	}
	if _, err := params.Parse(m, read("", &os.PathError{Op: "open", Path: "stack.json", Err: os.ErrNotExist})); err == nil ||
		!strings.Contains(err.Error(), "cloudName azurestackcloud is not valid, error: open stack.json: file does not exist") {
		t.Errorf("a missing file gives %v", err)
	}
	opt := read(strings.Replace(stackFile, "activeDirectoryEndpoint", "x", 1), nil)
	opt.AuthorityHost = "https://fallback.test/"
	if spec, err := params.Parse(m, opt); err != nil || spec.Cloud.AuthorityHost != "https://fallback.test" {
		t.Errorf("the operator's authority gives %+v, %v", spec, err)
	}
	if _, err := params.Parse(valid(), params.Options{CloudFile: func(string) ([]byte, error) {
		t.Error("a class of a known cloud had a file read")
		return nil, errors.New("x")
	}}); err != nil {
		t.Error(provider.ErrorsOf(err))
	}
}
