//go:build integration && linux

package integration

import (
	"crypto/rand"
	"crypto/tls"
	"maps"
	"strings"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/internal/publish"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// The Secrets of a class are there when the first volume of it is, and each costs one read and one write, whoever comes afterwards. What
// changes in the vault changes in them, and what does not asks nobody.
func TestRootSecretsOfAClass(t *testing.T) {
	claim(t, "10.1/19-secrets-are-there-in-time", "10.1/3-unchanged-costs-nothing", "12.6/events-of-secret-rotation", "12.7/data-labels-annotations-type", "12.7/owners")
	r := newSyncRig(t, "secrets-of-a-class", append(withAzure("--share-reads-for=0s"), rotation("1ms")...)...)
	r.emu.PutSecret(vault, "db", "one")
	if _, err := r.emu.Server.PutCertificate(vault, emulator.Certificate{Name: "web", KeyType: "EC"}); err != nil {
		t.Fatal(err)
	}
	r.principal("sp")
	r.syncedClass("app", "azure", map[string]string{"keyvaultName": vault, "tenantId": emulatortest.Tenant,
		"objects": "array:\n- |\n  objectName: db\n  objectType: secret\n- |\n  objectName: web\n  objectType: secret\n"},
		opaque("db", "db"), publish.SecretObject{Name: "web", Type: "kubernetes.io/tls",
			Data: []publish.SecretKey{{Key: "tls.crt", File: "web"}, {Key: "tls.key", File: "web"}}})
	first, second := r.volume("app", withSecret("sp"), ownedBy("shop")), r.volume("app", withSecret("sp"), ownedBy("shop"))

	began := time.Now()
	r.mustPublish(first)
	r.cluster.wantData("db", map[string]string{"db": "one"})
	web := r.cluster.secret("web")
	if web == nil {
		t.Fatal("there is no Secret web")
	}
	if _, err := tls.X509KeyPair(web.Data["tls.crt"], web.Data["tls.key"]); err != nil || web.Type != "kubernetes.io/tls" || len(web.Data) != 2 {
		t.Errorf("a Secret of type %s with %d keys: %v", web.Type, len(web.Data), err)
	}
	for _, name := range []string{"db", "web"} {
		r.cluster.wantOwners(name, uidOf("shop"))
	}
	r.wantAsked("the first volume", map[string]int{readClass: 1, makeStatus: 1, "get pods": 1, "get secrets": 2, "create secrets": 2})
	r.secondOfAClass(second, began)
	r.refreshOfSecrets(first)
	r.immutableSecret(first)
}

// secondOfAClass mounts one more volume, for which the Secrets are what they were a moment ago.
func (r *syncRig) secondOfAClass(v *kubelet.Volume, began time.Time) {
	r.Helper()
	r.mustPublish(v)
	got := r.asked()
	if time.Since(began) > 5*time.Second && got["get secrets"] <= 2 {
		delete(got, "get secrets") // a machine as slow as that may look again
	}
	if got[readClass] == 1 {
		delete(got, readClass) // the watch had not said anything yet
	}
	if want := map[string]int{makeStatus: 1, "get pods": 1}; !maps.Equal(got, want) {
		r.Errorf("the second volume: asked %v, want %v", got, want)
	}
}

// refreshOfSecrets refreshes a volume that is as it was, and one of which a secret changed.
func (r *syncRig) refreshOfSecrets(v *kubelet.Volume) {
	r.Helper()
	r.awaitWatch(v)
	r.asked()
	fetched := r.emu.Requests().Total(emulator.GroupVault)
	for range 3 {
		r.mustRepublish(v)
	}
	if n := r.emu.Requests().Total(emulator.GroupVault); n < fetched+3 {
		r.Errorf("the vault was asked %d times: the volume was not refreshed", n-fetched)
	}
	r.wantAsked("three refreshes that find nothing new", map[string]int{})

	r.emu.PutSecret(vault, "db", "two")
	r.mustRepublish(v)
	r.cluster.wantData("db", map[string]string{"db": "two"})
	r.awaitEvent("Normal SecretRotationComplete: SecretProviderClass app: the Kubernetes Secret db was updated")
	r.awaitEvent("Normal MountRotationComplete: ")
	r.wantAsked("a refresh of one that changed", map[string]int{"get secrets": 1, "patch secrets": 1, patchStatus: 1, "create events": 2})
	r.wantMetric(`keymount_secret_syncs_total{provider="azure",result="created"} 2`)
	r.wantMetric(`keymount_secret_syncs_total{provider="azure",result="updated"} 1`)
	r.wantMetric(`keymount_secrets_out_of_sync{provider="azure"} 0`)
	r.wantMetric(`sync_k8s_secret_total{os_type="linux",provider="azure"} 3`)
}

// immutableSecret has a change that the Secret cannot take, until somebody does as the remedy says.
func (r *syncRig) immutableSecret(v *kubelet.Volume) {
	r.Helper()
	r.cluster.patch("db", map[string]any{"immutable": true})
	r.emu.PutSecret(vault, "db", "three")
	r.mustRepublish(v)
	r.cluster.wantData("db", map[string]string{"db": "two"})
	r.awaitEvent("Warning SecretRotationFailed: SecretProviderClass app: syncing Secret " + r.ns + "/db: it is immutable")
	r.awaitMetric(`keymount_secrets_out_of_sync{provider="azure"} 1`)
	if len(r.metric(`keymount_secret_sync_failures_total{kind="invalid",provider="azure"} `)) != 1 {
		r.Errorf("no failure is counted: %q", r.metric("keymount_secret_"))
	}
	r.awaitCondition(v, "False", "it is immutable")

	// The next driver knows nothing of that, and the volume no longer changes.
	r.driver.Kill()
	r.cluster.remove("db")
	r.driver.Start()
	r.mustRepublish(v)
	r.cluster.wantData("db", map[string]string{"db": "three"})
	r.awaitCondition(v, "True", "")
	r.wantMetric(`keymount_secrets_out_of_sync{provider="azure"} 0`)
}

// Without the rights on Secrets volumes are mounted all the same. The pods are told, the log says it once, and when the rights are there
// the Secrets are, too.
func TestRootSecretsWithoutTheRights(t *testing.T) {
	claim(t, "12.6/failed-to-create-secret", "10.1/16-retries-are-spaced-and-made")
	account := "no-secrets-" + strings.ToLower(rand.Text()[:8]) // what it is given later, no other run may have
	r := syncRigOf(newRigWith(t, driver.Options{Account: grant(t, account, usualRights...)}), account)
	r.provide(r.driver.Providers, "other")
	r.syncedClass("app", "other", some, opaque("db", "a"))
	volumes := []*kubelet.Volume{r.volume("app", ownedBy("shop")), r.volume("app", ownedBy("shop")), r.volume("app", ownedBy("shop"))}
	for _, v := range volumes {
		r.mustPublish(v)
		r.wantFiles(v, map[string]string{"a": "a v1"})
	}
	r.awaitEvent("Warning FailedToCreateSecret: SecretProviderClass app: syncing Secret " + r.ns + "/db: ")
	r.awaitEvent("syncSecret.enabled")
	r.awaitMetric(`keymount_secrets_out_of_sync{provider="other"} 3`)
	r.mustUnpublish(volumes[2])
	r.awaitMetric(`keymount_secrets_out_of_sync{provider="other"} 2`)
	for _, v := range volumes[:2] {
		r.awaitCondition(v, "False", "syncSecret.enabled")
	}
	if len(r.metric(`keymount_secret_sync_failures_total{kind="denied",provider="other"} `)) != 1 {
		t.Errorf("no failure is counted: %q", r.metric("keymount_secret_"))
	}

	grant(t, account, syncingRights...)
	r.awaitSecret("db", map[string]string{"a": "a v1"})
	for _, v := range volumes[:2] {
		r.awaitCondition(v, "True", "")
	}
	r.awaitMetric(`keymount_secrets_out_of_sync{provider="other"} 0`)
	r.cluster.wantOwners("db", uidOf("shop"))
	if n := warnings(r.driver.Log(), "Kubernetes Secret could not be synced"); n != 1 {
		t.Errorf("the log says it %d times", n)
	}
	for _, e := range r.events() {
		if strings.Contains(e, "SecretRotation") {
			t.Errorf("told of a Secret that was never there before: %s", e)
		}
	}
}

// Upstream's rights serve for Secrets, too.
func TestRootSecretsWithUpstreamsRights(t *testing.T) {
	for _, release := range []string{"1.5.6", "1.6.0"} {
		t.Run(release, func(t *testing.T) {
			claim(t, "12.2/rights-of-upstream-"+release)
			account := grant(t, "upstream-syncing-"+release, "test/integration/testdata/rbac-upstream-"+release+".yaml",
				"test/integration/testdata/rbac-upstream-syncing.yaml")
			node := newNode(t, driver.Options{Upstream: true, Account: account, Args: append(upstreamRotation(), upstreamArguments...)})
			node.driver.Start()
			node.registrar()
			node.register()
			r := syncRigOf(node, account)
			p := r.provide(r.driver.Providers, "other")
			r.syncedClass("app", "other", some, opaque("db", "a"))
			v := r.volume("app", ownedBy("shop"))
			r.mustPublish(v)
			r.cluster.wantData("db", map[string]string{"a": "a v1"})
			r.cluster.wantOwners("db", uidOf("shop"))
			p.say(content("v2", "a"))
			r.mustRepublish(v)
			r.cluster.wantData("db", map[string]string{"a": "a v2"})
			r.awaitEvent("Normal SecretRotationComplete: ")
			other := r.volume("app", ownedBy("desk"))
			r.mustPublish(other)
			r.cluster.wantOwners("db", uidOf("shop"), uidOf("desk"))
			r.mustUnpublish(v)
			if got := r.forbidden(account); len(got) > 0 {
				t.Errorf("forbidden: %+v", got)
			}
		})
	}
}
