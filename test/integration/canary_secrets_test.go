//go:build integration && linux

package integration

import (
	"context"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/publish"
)

// secretScenario has contents synced as Secrets: some that can be, and some that cannot, for each reason of which the API server or the
// driver could say more than it should. The volume stays.
func (a *aviary) secretScenario() {
	a.Helper()
	claim(a.T, "10.1/6-unmanaged-secrets-stay", "10.1/8-no-empty-tls-key", "10.3/refusals-tell-no-content")
	keeper := a.provide(a.driver.Providers, "keeper")
	contents := a.keeperSays(keeper, "first")
	const config = ".dockerconfigjson"
	locked := publish.SecretObject{Name: "locked", Type: "kubernetes.io/tls", Data: []publish.SecretKey{{Key: "tls.key", File: "locked"}, {Key: "tls.crt", File: "locked"}}}
	registry := publish.SecretObject{Name: "registry", Type: "kubernetes.io/dockerconfigjson", Data: []publish.SecretKey{{Key: config, File: "config"}}}
	named := publish.SecretObject{Name: "named", Type: "Opaque", Data: []publish.SecretKey{{Key: "k", File: "password"}, {Key: "k", File: "config"}}}
	theirs := map[string]string{"password": a.put("a Secret of somebody else")}
	a.credentials("theirs", theirs)
	a.syncedClass("kept", "keeper", some, opaque("kept", "password"), opaque("frozen", "password"), locked, registry, named, opaque("theirs", "password"), opaque("absent", "none"))
	v := a.volume("kept", ownedBy("shop"))
	a.mustPublish(v)
	a.wantFiles(v, contents)
	cluster := &secretRig{T: a.T, ns: a.ns}
	cluster.wantData("kept", map[string]string{"password": contents["password"]})
	for _, name := range []string{"locked", "registry", "named", "theirs", "absent"} {
		a.awaitEventAbout("FailedToCreateSecret", name)
	}
	cluster.wantData("theirs", theirs)
	if s := cluster.secret("locked"); s != nil {
		a.Errorf("a Secret of an encrypted key was made, with %d keys", len(s.Data))
	}

	cluster.patch("frozen", map[string]any{"immutable": true})
	contents = a.keeperSays(keeper, "second")
	elapse(a.T, time.Second)
	a.mustRepublish(v)
	a.wantFiles(v, contents)
	cluster.wantData("kept", map[string]string{"password": contents["password"]})
	a.awaitEventAbout("SecretRotationComplete", "kept")
	a.awaitEventAbout("SecretRotationFailed", "frozen")
}

// keeperSays has the provider answer with new canaries, and returns them by file.
func (a *aviary) keeperSays(keeper *scripted, which string) map[string]string {
	body := make([]byte, 1200)
	rand.Read(body) // never fails
	locked := string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: body}))
	contents := map[string]string{
		"password": a.hatch(which + " content of a Secret"),
		"config":   a.hatch(which + " content that is no JSON"),
		"locked":   a.keep(&a.secret, which+" encrypted key", locked),
	}
	resp := &v1alpha1.MountResponse{}
	for path, text := range contents {
		resp.Files = append(resp.Files, &v1alpha1.File{Path: path, Mode: 0o644, Contents: []byte(text)})
		resp.ObjectVersion = append(resp.ObjectVersion, &v1alpha1.ObjectVersion{Id: "secret/" + path, Version: which})
	}
	keeper.say(resp)
	return contents
}

// awaitEventAbout waits for an Event of this reason that names the Secret.
func (a *aviary) awaitEventAbout(reason, secret string) {
	a.Helper()
	a.driver.Await(reason+" of "+secret, func(context.Context) error {
		for _, e := range a.events() {
			if strings.Contains(e, " "+reason+": SecretProviderClass kept: ") && strings.Contains(e, secret) {
				return nil
			}
		}
		return fmt.Errorf("there are %q", a.events())
	})
}
