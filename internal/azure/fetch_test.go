package azure_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"keymount/internal/azure"
	"keymount/internal/azure/identity"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/provider"
)

// failures mounts and returns what failed, which must be something.
func (r *rig) failures(t *testing.T, req *provider.Request) provider.Errors {
	t.Helper()
	b, err := r.Fetch(t.Context(), req)
	if err == nil || b != nil {
		t.Fatalf("mounted: %v", b)
	}
	return provider.ErrorsOf(err)
}

func (r *rig) fails(t *testing.T, req *provider.Request, kind provider.Kind, texts ...string) {
	t.Helper()
	all := r.failures(t, req)
	for _, text := range texts {
		if !strings.Contains(all.Error(), text) {
			t.Errorf("%q does not contain %q", all.Error(), text)
		}
	}
	if got := provider.KindOf(all); got != kind {
		t.Errorf("kind %v, want %v: %v", got, kind, all)
	}
}

func TestPodIsRequired(t *testing.T) {
	t.Parallel()
	r := start(t)
	row(t, "1.4/pod.name", func(t *testing.T) {
		req := r.request(array(entry("secret", "one")))
		req.Pod.Name = ""
		r.fails(t, req, provider.Invalid, "csi.storage.k8s.io/pod.name: pod name is not provided")
	})
	row(t, "1.4/pod.namespace", func(t *testing.T) {
		req := r.request(array(entry("secret", "one")))
		req.Pod.Namespace = ""
		r.fails(t, req, provider.Invalid, "csi.storage.k8s.io/pod.namespace: pod namespace is not provided")
	})
	row(t, "1.4/serviceAccount.tokens", func(t *testing.T) {
		const prefix = "failed to build auth config for mode None: failed to parse workload identity tokens, error: "
		req := r.request(array(entry("secret", "one")))
		req.Tokens = nil
		r.fails(t, req, provider.Invalid, prefix+"service account tokens not found")
		req = r.request(array(entry("secret", "one")))
		req.Tokens = map[string]provider.Token{"api://other": {Value: "x"}}
		r.fails(t, req, provider.Invalid, prefix+"token for audience api://AzureADTokenExchange not found")
		// A service principal needs none.
		req.Tokens = nil
		delete(req.Parameters, "clientID")
		req.Secrets = map[string]provider.Sensitive{"clientid": emulatortest.ClientID, "ClientSecret": emulatortest.ClientSecret}
		r.PutSecret(vaultName, "one", "1")
		if _, err := r.Fetch(t.Context(), req); err != nil {
			t.Error(err)
		}
		req.Tokens = map[string]provider.Token{emulatortest.Audience: {Value: "no token at all"}}
		if _, err := r.Fetch(t.Context(), req); err != nil {
			t.Error(err)
		}
	})
	if n := r.Requests().Total(emulator.KindSecretGet); n != 2 {
		t.Errorf("%d secrets were read, want 2", n)
	}
}

func TestNothingIsAskedForAnInvalidClass(t *testing.T) {
	t.Parallel()
	r := start(t)
	row(t, "4/before-network", func(t *testing.T) {
		r.PutSecret(vaultName, "one", "1")
		for _, bad := range []string{
			entry("Secret", "two"), entry("secret", "t_wo"), entry("secret", "two", "objectVersion: 1"), entry("secret", "two", "objectFormat: x"),
			entry("key", "two", "objectEncoding: hex"), entry("secret", "two", "filePermission: \"999\""), entry("secret", "two", "objectAlias: ../x"),
			entry("secret", "two", "objectAlias: one/x"), "objectName: [",
		} {
			r.fails(t, r.request(array(entry("secret", "one"), bad)), provider.Invalid, "parameters.objects.array[1]")
		}
		if all := r.Requests(); all.Total() != 0 {
			t.Errorf("requests were made: %v", all)
		}
	})
	t.Run("every problem reaches the driver", func(t *testing.T) {
		req := r.request(array(entry("Secret", "one"), entry("secret", "t_wo")))
		req.Parameters["keyvaultName"] = "x"
		req.Pod.Name = ""
		if n := len(r.failures(t, req)); n != 4 {
			t.Errorf("%d problems, want 4", n)
		}
	})
	row(t, "1.4/empty-array", func(t *testing.T) {
		if b := r.mount(t, "array: []"); len(b.Files)+len(b.Versions) != 0 {
			t.Errorf("got %v", b)
		}
		if n := r.Requests().Total(); n != 0 {
			t.Errorf("%d requests were made", n)
		}
	})
}

func TestEveryFailureIsNamed(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.PutSecret(vaultName, "good", "x")
	r.PutSecret(vaultName, "text", "not base64!")
	r.PutSecret(vaultName, "off", "x")
	if err := r.Server.SetEnabled(vaultName, "secrets", "off", "", false); err != nil {
		t.Fatal(err)
	}
	r.ofCertificate(t, "odd", "text/plain", "hidden")
	r.ofCertificate(t, "untyped", "", "hidden")
	r.ofCertificate(t, "broken", "application/x-pkcs12", "aGlkZGVu")
	if _, err := r.Server.PutKey(vaultName, emulator.Key{Name: "k256", Type: "EC", Curve: "P-256K"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Server.PutKey(vaultName, emulator.Key{Name: "oct", Type: "oct-HSM"}); err != nil {
		t.Fatal(err)
	}
	const none = "0123456789abcdef0123456789abcdef"
	type failure struct {
		object, text string
		kind         provider.Kind
	}
	var entries []string
	var wants []failure
	for _, tc := range []struct {
		entry string
		failure
	}{
		{entry("secret", "good"), failure{}},
		{entry("secret", "absent"), failure{"secret/absent", "SecretNotFound", provider.NotFound}},
		{entry("secret", "good", "objectVersion: "+none, "objectAlias: v"), failure{"secret/good", none, provider.NotFound}},
		{entry("secret", "off"), failure{"secret/off", "SecretDisabled", provider.Denied}},
		{entry("secret", "text", "objectEncoding: base64"), failure{"secret/text", "illegal base64 data at input byte 3", provider.Invalid}},
		{entry("secret", "text", "objectEncoding: hex", "objectAlias: t2"), failure{"secret/text", "invalid byte at input byte 0", provider.Invalid}},
		{entry("secret", "odd"), failure{"secret/odd", "failed to get certificate. unknown content type 'text/plain'", provider.Invalid}},
		{entry("secret", "untyped"), failure{"secret/untyped", "failed to get certificate. unknown content type ''", provider.Invalid}},
		{entry("secret", "broken"), failure{"secret/broken", "reading PKCS #12: it is not PKCS #12 in DER", provider.Invalid}},
		{entry("key", "k256"), failure{"key/k256", "curve P-256K is not supported", provider.Invalid}},
		{entry("key", "oct"), failure{"key/oct", "failed to get key. key type 'oct-HSM' currently not supported", provider.Invalid}},
		{entry("cert", "absent", "objectAlias: c"), failure{"cert/absent", "CertificateNotFound", provider.NotFound}},
		{entry("secret", "absent2", "objectVersionHistory: 3"), failure{"secret/absent2", "it does not exist", provider.NotFound}},
		{entry("secret", "good", "objectVersionHistory: 3", "objectAlias: h", "objectVersion: "+none), failure{"secret/good", "it has no version " + none, provider.NotFound}},
		{entry("secret", "off", "objectVersionHistory: 3", "objectAlias: o"), failure{"secret/off", "all of its versions are disabled", provider.Denied}},
	} {
		entries = append(entries, tc.entry)
		if tc.object != "" {
			wants = append(wants, tc.failure)
		}
	}
	got := r.failures(t, r.request(array(entries...)))
	if len(got) != len(wants) {
		t.Fatalf("%d failures, want %d:\n%v", len(got), len(wants), got)
	}
	for i, w := range wants { // in the order of the class
		e := got[i]
		name := strings.SplitN(w.object, "/", 2)[1]
		if e.Object != w.object || e.Kind != w.kind || !strings.Contains(e.Message, w.text) || !strings.Contains(e.Message, name) ||
			!strings.Contains(e.Message, vaultName) || e.Remedy == "" {
			t.Errorf("failure %d is %v of %s: %q (%s), want %v of %s with %q, the vault and a remedy", i, e.Kind, e.Object, e.Message, e.Remedy, w.kind, w.object, w.text)
		}
		if strings.Contains(e.Error(), "hidden") || strings.Contains(e.Error(), "not base64!") {
			t.Errorf("a value is in %q", e.Error())
		}
	}
}

// What upstream dies of: members that an answer does not have.
func TestAnswersWithMissingMembers(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.PutSecret(vaultName, "secret", "x")
	if _, err := r.Server.PutKey(vaultName, emulator.Key{Name: "key", Type: "EC"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Server.PutCertificate(vaultName, emulator.Certificate{Name: "cert", KeyType: "EC"}); err != nil {
		t.Fatal(err)
	}
	for kind, members := range map[string][]string{"secret": {"value", "id"}, "key": {"key", "kid", "kty", "crv", "x", "y"}, "cert": {"cer", "id"}} {
		for _, member := range members {
			t.Run(kind+" without "+member, func(t *testing.T) {
				defer r.SetFault(emulator.Fault{Do: emulator.ActMissing, Member: member})()
				r.fails(t, r.request(array(entry(kind, kind))), provider.Internal, kind, vaultName)
			})
		}
	}
	defer r.SetFault(emulator.Fault{Do: emulator.ActBareChallenge})()
	r.fails(t, r.request(array(entry("secret", "secret"))), provider.Denied, "secret", vaultName)
}

func TestHistory(t *testing.T) {
	t.Parallel()
	t.Attr("conformance", "1.5/objectVersionHistory")
	t.Attr("conformance", "1.5/objectVersion")
	r := start(t)
	now := time.Now().Add(-time.Hour)
	var versions []string // oldest first
	for i := range 8 {
		v, err := r.Server.PutSecret(vaultName, emulator.Secret{Name: "multi", SecretVersion: emulator.SecretVersion{
			Value: fmt.Sprint("value ", i), Created: now.Add(time.Duration(i) * time.Minute)}})
		if err != nil {
			t.Fatal(err)
		}
		versions = append(versions, v)
	}
	if err := r.Server.SetEnabled(vaultName, "secrets", "multi", versions[6], false); err != nil {
		t.Fatal(err)
	}
	wants := func(path string, indexes ...int) []want {
		var out []want
		for i, v := range indexes {
			out = append(out, want{path: fmt.Sprint(path, "/", i), id: fmt.Sprint("secret/multi/", i), version: versions[v], contents: fmt.Append(nil, "value ", v)})
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		entry string
		want  []want
	}{
		{"N is N, without the disabled one", entry("secret", "multi", "objectVersionHistory: 3"), wants("multi", 7, 5, 4)},
		{"with an alias", entry("secret", "multi", "objectVersionHistory: 2", "objectAlias: a/b"), wants("a/b", 7, 5)},
		{"from the pinned version on", entry("secret", "multi", "objectVersionHistory: 3", "objectVersion: "+strings.ToUpper(versions[3])), wants("multi", 3, 2, 1)},
		{"latest", entry("secret", "multi", "objectVersionHistory: 2", "objectVersion: latest"), wants("multi", 7, 5)},
		{"fewer than asked for", entry("secret", "multi", "objectVersionHistory: 100"), wants("multi", 7, 5, 4, 3, 2, 1, 0)},
		{"no history", entry("secret", "multi", "objectVersionHistory: 1", "objectVersion: latest"),
			[]want{{path: "multi", id: "secret/multi", version: versions[7], contents: []byte("value 7")}}},
		{"pinned, no history", entry("secret", "multi", "objectVersion: "+versions[2]),
			[]want{{path: "multi", id: "secret/multi", version: versions[2], contents: []byte("value 2")}}},
	} {
		t.Run(tc.name, func(t *testing.T) { check(t, r.mount(t, array(tc.entry)), tc.want...) })
	}
	r.fails(t, r.request(array(entry("secret", "multi", "objectVersionHistory: 2", "objectVersion: "+versions[6]))), provider.Denied, "is disabled", "multi")
}

func TestModes(t *testing.T) {
	t.Parallel()
	t.Attr("conformance", "1.5/filePermission")
	r := start(t)
	r.PutSecret(vaultName, "one", "1")
	req := r.request(array(entry("secret", "one"), entry("secret", "one", "objectAlias: two", "filePermission: \"0777\""), entry("secret", "one", "objectAlias: three", "filePermission: \"0\"")))
	req.DefaultMode = 0o400
	b, err := r.Fetch(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	for i, mode := range []os.FileMode{0o400, 0o777, 0} {
		if got := b.Files[i].Mode; got != mode {
			t.Errorf("%s has mode %04o, want %04o", b.Files[i].Path, got, mode)
		}
	}
}

// A vault may be the class author's own, and answer with what it likes.
func TestBundlesAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t)
	big := r.PutSecret(vaultName, "big", "x")
	body := fmt.Sprintf(`{"value":%q,"id":"https://%s.vault.azure.net/secrets/big/%s","attributes":{"enabled":true}}`,
		strings.Repeat("x", 900<<10), vaultName, big)
	r.SetFault(emulator.Fault{Do: emulator.ActBody, Body: body, Path: "/secrets/big"})
	var entries []string
	for i := range 80 {
		entries = append(entries, entry("secret", "big", fmt.Sprintf("objectAlias: f%d", i)))
	}
	r.fails(t, r.request(array(entries...)), provider.Invalid, "larger than 67108864 bytes together", vaultName)
}

// One identity that is refused fails every object and is said once.
func TestRefusedIdentityIsSaidOnce(t *testing.T) {
	t.Parallel()
	r := start(t)
	req := r.request(array(entry("secret", "one"), entry("secret", "two"), entry("key", "three")))
	req.Tokens = nil
	delete(req.Parameters, "clientID")
	req.Secrets = map[string]provider.Sensitive{"clientid": emulatortest.ClientID, "clientsecret": "wrong-secret"}
	all := r.failures(t, req)
	if len(all) != 1 || all[0].Kind != provider.Denied || strings.Contains(all.Error(), "wrong-secret") {
		t.Errorf("got %d failures: %v", len(all), all)
	}
	if n := r.Requests().Total(emulator.GroupVault); n != 0 {
		t.Errorf("%d requests to the vault", n)
	}
}

func TestDeadlineSaysWhatWasWaitedFor(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.PutSecret(vaultName, "slow", "x")
	r.SetFault(emulator.Fault{Do: emulator.ActHang, Path: "/secrets/slow"})
	// Long enough that the half second by which the provider ends early lets its answer through on a busy machine.
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Second)
	defer cancel()
	_, err := r.Fetch(ctx, r.request(array(entry("secret", "slow"))))
	if provider.KindOf(err) != provider.Unavailable || !strings.Contains(fmt.Sprint(err), `secret "slow"`) {
		t.Errorf("kind %v: %v", provider.KindOf(err), err)
	}
}

func TestParametersAreNotChanged(t *testing.T) {
	t.Parallel()
	r := start(t)
	r.PutSecret(vaultName, "one", "1")
	req := r.request(array(entry("secret", "one")))
	before := maps.Clone(req.Parameters)
	if _, err := r.inner.Fetch(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(before, req.Parameters) {
		t.Error("the parameters were changed")
	}
}

type panicking struct{}

func (panicking) Credential(context.Context, *provider.Request, identity.Spec) (*identity.Credential, error) {
	panic("with hidden-value")
}

func TestPanicsEndTheCallOnly(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	r := start(t, func(cfg *azure.Config) {
		cfg.Identity = panicking{}
		cfg.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	b, err := r.inner.Fetch(t.Context(), r.request(array(entry("secret", "one"))))
	if b != nil || provider.KindOf(err) != provider.Internal || !strings.Contains(fmt.Sprint(err), "has a defect") {
		t.Errorf("got %v, %v", b, err)
	}
	if !strings.Contains(log.String(), "panicking") || strings.Contains(log.String()+err.Error(), "hidden-value") {
		t.Errorf("the log has no stack, or the panic's value: %s", log.String())
	}
}

func TestFailuresAreBounded(t *testing.T) {
	t.Parallel()
	r := start(t)
	var entries []string
	for i := range 150 {
		entries = append(entries, entry("secret", fmt.Sprintf("absent%d", i)))
	}
	_, err := r.inner.Fetch(t.Context(), r.request(array(entries...)))
	all := provider.ErrorsOf(err)
	if len(all) != 101 || all[100].Message != "50 more objects failed" || all[100].Kind != provider.NotFound {
		t.Errorf("%d failures, the last is %v", len(all), all[len(all)-1])
	}
}

// Somebody who changed a secret and asks for a refresh gets the new one, though a pod has read the old one just before: through the socket, too.
func TestNotBefore(t *testing.T) {
	r := start(t, func(c *azure.Config) { c.ShareFor = time.Hour })
	r.PutSecret(vaultName, "s", "old")
	req := r.request(array("objectName: s\nobjectType: secret"))
	var asOf time.Time
	content := func() string {
		t.Helper()
		bundle, err := r.Client.Fetch(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		asOf = bundle.AsOf
		return string(bundle.Files[0].Contents)
	}
	if got := content(); got != "old" {
		t.Fatalf("the content is %q", got)
	}
	changed := time.Now()
	r.PutSecret(vaultName, "s", "new")
	if got := content(); got != "old" {
		t.Fatalf("the content is %q: nothing was shared", got)
	}
	if asOf.IsZero() || !asOf.Before(changed) {
		t.Errorf("what was read before the change is said to be as of %v, after %v", asOf, changed)
	}
	req.NotBefore = time.Now()
	if got := content(); got != "new" {
		t.Errorf("the content is %q", got)
	}
	if asOf.Before(changed) {
		t.Errorf("what was read after the change is said to be as of %v, before %v", asOf, changed)
	}
}
