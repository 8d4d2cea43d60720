//go:build integration && linux

package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/publish"
	"keymount/test/integration/kubelet"
)

// Secrets that somebody deletes while no driver runs come back without kubelet, and without rotation, from what volumes hold. Each class is
// looked at for the first time at a moment of the first five minutes: of this many, one is soon.
func TestRootSecretsComeBackAfterARestart(t *testing.T) {
	claim(t, "10.1/4-deleted-secrets-come-back")
	const classes = 60
	r := newSyncRig(t, "secrets-come-back")
	p := r.provide(r.driver.Providers, "other")
	var names, texts []string
	for i := range classes {
		name := fmt.Sprintf("app-%02d", i)
		names = append(names, name)
		texts = append(texts, r.syncedClassText(name, "other", some, opaque(name, "a")))
	}
	api.ApplyText(t, strings.Join(texts, "\n---\n"))
	pod, volumes := r.pod("", names...)
	for _, v := range volumes {
		r.mustPublish(v)
	}
	list := func() []string {
		found, err := r.cluster.secrets().List(t.Context(), metav1.ListOptions{LabelSelector: managed + "=true"})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, s := range found.Items {
			names = append(names, s.GetName())
		}
		return names
	}
	if got := list(); len(got) != classes {
		t.Fatalf("%d Secrets, want %d", len(got), classes)
	}

	r.driver.Kill()
	p.say(content("v2", "a")) // which nobody is asked for
	if err := r.cluster.secrets().DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: managed + "=true"}); err != nil {
		t.Fatal(err)
	}
	asked := len(p.asked())
	r.driver.Start()
	r.driver.Await("a Secret to come back", func(context.Context) error {
		if len(list()) == 0 {
			return fmt.Errorf("there is none")
		}
		return nil
	})
	back := list()[0]
	r.cluster.wantData(back, map[string]string{"a": "a v1"})
	r.cluster.wantOwners(back, pod.UID)
	r.rig.wantAsked(p, asked)
}

// While the API server does not answer, a first mount waits for its Secrets for a while only; they are made when it is back.
func TestRootSecretsWhileTheAPIServerHangs(t *testing.T) {
	r := newSyncRig(t, "secrets-hang", rotation("1h")...)
	r.provide(r.driver.Providers, "other")
	r.kubelet = informedKubelet(r.rig)
	r.syncedClass("app", "other", some, opaque("db", "a"))
	r.awaitKnown("app")
	v := r.volume("app", ownedBy("shop"))
	r.cluster.remove("db") // of the volume that made the class known

	t.Cleanup(func() { api.Restore() })
	api.Hang()
	r.mustPublish(v) // the API server hangs until it has returned
	r.wantFiles(v, map[string]string{"a": "a v1"})
	if err := api.Restore(); err != nil {
		t.Fatal(err)
	}
	r.awaitSecret("db", map[string]string{"a": "a v1"})
	r.cluster.wantOwners("db", uidOf("shop"))
	r.awaitMetric(`keymount_secrets_out_of_sync{provider="other"} 0`)
}

// awaitKnown mounts volumes of a class until one needs no request about it: its watch serves.
func (r *syncRig) awaitKnown(class string) {
	r.Helper()
	r.driver.Await("the class to be watched", func(context.Context) error {
		r.asked()
		r.mustPublish(r.volume(class, ownedBy("shop")))
		if asked := r.asked(); asked[readClass] > 0 {
			return fmt.Errorf("asked %v", asked)
		}
		return nil
	})
}

// The driver is killed at random points while it makes or changes Secrets. At any time they are whole; and after a restart and one more call
// of kubelet's they hold what the volume holds, although that has not changed since.
func TestRootSecretsAcrossKills(t *testing.T) {
	const lives = 6
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(killSeed); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", killSeed, err)
		}
	}
	t.Logf("%s=%d", killSeed, seed)
	k := &secretKiller{syncRig: newSyncRig(t, "secrets-kill", rotation("1ms")...), rand: rand.New(rand.NewPCG(seed, 0))}
	k.provide(k.driver.Providers, "numbers").do(func(context.Context, *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
		return numbered(k.number.Load()), nil
	})
	k.number.Store(1)
	for n := range lives {
		class := fmt.Sprint("app-", n)
		k.life(class)
	}
	t.Logf("%d kills cut a call", k.cut)
	if k.cut == 0 {
		t.Error("no kill cut a call")
	}
}

type secretKiller struct {
	*syncRig
	rand   *rand.Rand
	number atomic.Int64 // what the provider answers
	took   time.Duration
	cut    int
}

// life makes a class with three Secrets, of which the first volume is mounted and then refreshed with a kill meanwhile.
func (k *secretKiller) life(class string) {
	k.Helper()
	var secrets []publish.SecretObject
	for i := range 3 {
		secrets = append(secrets, opaque(fmt.Sprint(class, "-", i), "f01", "f02", "f03"))
	}
	k.syncedClass(class, "numbers", some, secrets...)
	v := k.volume(class, ownedBy("shop"))
	for _, phase := range []string{publishing, refreshing} {
		k.kill(phase, v)
		for _, o := range secrets {
			k.whole(o.Name, "")
		}
		k.driver.Start()
		if v.State() == kubelet.Mounted {
			phase = refreshing
		}
		if err := call(k.rig, phase, v); err != nil {
			k.Fatal(err)
		}
		number, err := readNumber(v.Target)
		if err != nil || number != fmt.Sprint(k.number.Load()) {
			k.Fatalf("the volume holds %q, %v", number, err)
		}
		for _, o := range secrets {
			k.whole(o.Name, number)
		}
		k.number.Add(1)
	}
	k.mustUnpublish(v)
}

// kill kills the driver within the time that the call may take.
func (k *secretKiller) kill(phase string, v *kubelet.Volume) {
	if k.took == 0 {
		k.took = 60 * time.Millisecond
	}
	point := time.NewTimer(time.Duration(k.rand.Int64N(int64(k.took))))
	defer point.Stop()
	ended := make(chan error, 1)
	logged, began := len(k.driver.Log()), time.Now()
	go func() { ended <- call(k.rig, phase, v) }()
	select {
	case <-point.C:
		k.driver.Kill()
		<-ended
	case <-ended: // too late
		k.took = time.Since(began)
		k.driver.Kill()
	}
	if readCalls(k.driver.Log()[logged:]).cut(v) {
		k.cut++
	}
}

// whole demands that a Secret holds one number under all of its keys, and if want is given that one.
func (k *secretKiller) whole(name, want string) {
	k.Helper()
	s := k.cluster.secret(name)
	if s == nil {
		if want != "" {
			k.Errorf("there is no Secret %s", name)
		}
		return
	}
	for _, key := range []string{"f01", "f02", "f03"} {
		got := strings.TrimSpace(string(s.Data[key]))
		if want == "" {
			want = got
		}
		if len(s.Data) != 3 || got == "" || got != want {
			k.Errorf("Secret %s has %d keys, and under %s %q, want %q", name, len(s.Data), key, got, want)
		}
	}
	k.cluster.wantOwners(name, uidOf("shop"))
}
