//go:build integration && linux

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/internal/emulator"
)

const patchStatus = "patch secretproviderclasspodstatuses.secrets-store.csi.x-k8s.io"

// syncs counts what two Kubernetes Secrets of a class cost the API server. Upstream's figures are those of its driver 1.6.0 with rotation
// on: it creates each Secret and adds an owner to it, and where it is there replaces it before.
func syncs(r *report, e *environment) {
	r.Helper()
	const pods = 50
	var synced []any
	for _, name := range []string{"secret-0", "secret-1"} {
		synced = append(synced, map[string]any{"secretName": "synced-" + name, "type": "Opaque",
			"data": []any{map[string]string{"objectName": name, "key": "value"}}})
	}
	p := e.start(r.B, "synced", "1s", synced...)
	defer p.end()

	took := p.publishPods(1)
	r.request("first mount of the first volume of a class with 2 Kubernetes Secrets, to the API server", p.requests(), 7, ms(took, 50), "5")
	for range 20 { // the watch takes a moment to say what it has
		p.reset()
		took = p.publishPods(1)
		if p.requests() <= 2 {
			break
		}
	}
	r.request("first mount of another volume of it, within 5 s, to the API server", p.requests(), 2, ms(took, 50), "7")
	elapse(r, shareFor+time.Second)
	p.reset()
	took = p.publishPods(1)
	r.request("the same, later", p.requests(), 4, ms(took, 50), "7")

	p.refreshFirst(r)
	r.request("refresh of that volume, unchanged, to the API server", p.requests(), 0, "", "2, and 6 every 5 min")
	e.emu.PutSecret(vaultName, "secret-0", time.Now().String())
	p.refreshFirst(r)
	const events = "create events"
	p.driver.Await("the Events", func(context.Context) error {
		if n := p.asked()[events]; n < 2 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	r.request("refresh of that volume, the secret of one of the Secrets changed, to the API server", p.requests()-p.asked()[events], 3, "", "2, and later 6")
	r.request("that refresh, Events on the pod, afterwards", p.asked()[events], 2, "", "0")

	p.together(r, e, pods)
}

// together counts what many pods of one class cost that start at once, where there are Secrets already, and then change.
func (p *process) together(r *report, e *environment, pods int) {
	r.Helper()
	elapse(r, shareFor+time.Second)
	p.reset()
	start := time.Now()
	p.publishPods(pods)
	wall := time.Since(start)
	r.request(fmt.Sprintf("%d pods of that class start at once, to the API server", pods), p.requests(), 2*pods+2*windows(wall), seconds(wall)+" in all", "350")
	r.request("of these about Secrets", p.aboutSecrets(), 2*windows(wall), "", "300")

	e.emu.PutSecret(vaultName, "secret-0", time.Now().String())
	elapse(r, shareFor+time.Second)
	p.reset()
	start = time.Now()
	p.republish()
	wall = time.Since(start)
	if n := p.asked()[patchStatus]; n < pods {
		r.Errorf("%d volumes have changed, want %d", n, pods)
	}
	r.request("refresh of all, one secret changed, to the API server about Secrets", p.aboutSecrets(), 1+windows(wall), seconds(wall)+" in all", "300 every 5 min")
}

// windows is how many times what was seen of a Secret grows old within a time.
func windows(within time.Duration) int { return 1 + int(within/shareFor) }

// publishPods mounts volumes of so many more pods that are there, all of one ReplicaSet.
func (p *process) publishPods(n int) []time.Duration {
	p.Helper()
	first := len(p.volumes)
	for range n {
		made := p.api.Pod(p, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: p.ns, Name: fmt.Sprintf("%s-%d", p.class, len(p.volumes)),
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "app", UID: "uid-of-app"}}}})
		target := filepath.Join(p.driver.Kubelet, "pods", made.Name, "mount")
		p.volumes = append(p.volumes, pod{p.ns, made.Name, string(made.UID)}.publish(p.class, target, p.emu))
	}
	return p.call(p.volumes[first:])
}

// refreshFirst has the first volume refreshed, with reads of its own.
func (p *process) refreshFirst(r *report) {
	r.Helper()
	elapse(r, shareFor+time.Second)
	p.reset()
	p.call(p.volumes[:1])
	if p.emu.Requests().Total(emulator.GroupVault) == 0 {
		r.Error("nothing was read, so nothing was due")
	}
}

// requests is how many requests there were, watches aside.
func (p *process) requests() int {
	p.Helper()
	n, _ := total(p.asked())
	return n
}

func (p *process) aboutSecrets() (n int) {
	p.Helper()
	for what, count := range p.asked() {
		if strings.HasSuffix(what, " secrets") {
			n += count
		}
	}
	return n
}
