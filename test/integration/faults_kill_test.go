//go:build integration && linux

package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"keymount/test/integration/kubelet"
)

// killSeed names the variable that repeats a run of TestRootKills.
const killSeed = "KEYMOUNT_KILL_SEED"

const (
	killsAtLeast = 40
	cutsAtLeast  = 5 // in each phase
	volumesInOne = 6 // in flight at once, beside one that is only refreshed
)

// The phases of a volume's life, in the words of the driver's log.
const (
	publishing   = "publish"
	refreshing   = "refresh"
	unpublishing = "unpublish"
)

// The driver is killed at random points of a volume's life, again and again. Whenever that is: what pods read is one whole
// generation, and what kubelet goes on to ask for ends well and leaves nothing.
func TestRootKills(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(killSeed); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("%s: %v", killSeed, err)
		}
	}
	t.Logf("%s=%d", killSeed, seed)
	random := rand.New(rand.NewPCG(seed, 0))
	kills, cut := 0, map[string]int{}
	for _, tc := range []struct {
		name  string
		args  []string
		lives int
		kills []string // the phases in which the driver is killed
	}{
		{"rotation", rotation("1ms"), 9, []string{publishing, refreshing, unpublishing}},
		// Here nothing that an interrupted publish left is mended by a refresh.
		{"no rotation", nil, 7, []string{publishing, unpublishing}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := &killer{rig: newRig(t, tc.args...), rand: random, kills: tc.kills, spans: map[string]*span{}, cut: cut}
			k.run(tc.lives)
			kills += k.killed
		})
	}
	t.Logf("%d kills, which cut %v", kills, cut)
	if kills < killsAtLeast {
		t.Errorf("%d kills, want %d", kills, killsAtLeast)
	}
	for _, phase := range []string{publishing, refreshing, unpublishing} {
		if cut[phase] < cutsAtLeast {
			t.Errorf("%d kills cut a %s, want at least %d", cut[phase], phase, cutsAtLeast)
		}
	}
}

// A killer takes volumes through their lives and kills the driver meanwhile.
type killer struct {
	*rig
	rand    *rand.Rand
	steady  *kubelet.Volume // lives through it all
	readers *watch
	kills   []string // the phases to kill in
	spans   map[string]*span
	killed  int
	cut     map[string]int // kills that cut a call of the phase
}

func (k *killer) run(lives int) {
	k.provide(k.driver.Providers, "numbers").counting(5 * time.Millisecond)
	k.class("numbers", "numbers", nil, "a: b")
	_, k.steady = k.podOf("numbers")
	k.mustPublish(k.steady)
	k.readers = watchVolumes(k.T, k.steady.Target)
	k.measure()
	for n := 0; n < lives || n < 2*lives && k.lacksCuts(); n++ { // more where chance aimed badly
		k.life()
	}
	if err := k.readers.stop(); err != nil {
		k.Error(err)
	}
	k.silence()
}

// A span is when a driver that has just started works on the calls of a phase, from the moment when kubelet begins: kubelet
// has things to do before it calls.
type span struct{ from, to time.Duration }

// learn takes in what was seen, if it was; a machine that others use becomes slower and faster.
func (s *span) learn(from, to time.Duration) {
	if from > 0 {
		s.from = (s.from + from) / 2
	}
	if to > 0 {
		s.to = (s.to + to) / 2
	}
	s.to = max(s.to, s.from+time.Millisecond)
}

func (k *killer) lacksCuts() bool {
	return slices.ContainsFunc(k.kills, func(phase string) bool { return k.cut[phase] < cutsAtLeast })
}

// call is what kubelet asks for in a phase.
func call(r *rig, phase string, v *kubelet.Volume) error {
	switch phase {
	case publishing:
		return v.Publish(r.Context())
	case refreshing:
		return v.Republish(r.Context())
	}
	return v.Unpublish(r.Context())
}

func (k *killer) batch() []*kubelet.Volume {
	vs := make([]*kubelet.Volume, volumesInOne)
	for i := range vs {
		_, vs[i] = k.podOf("numbers")
	}
	return vs
}

// measure takes volumes through a life without a kill.
func (k *killer) measure() {
	vs := k.batch()
	for _, phase := range []string{publishing, refreshing, unpublishing} {
		k.driver.Restart()
		logged, began := len(k.driver.Log()), time.Now()
		for v, err := range k.start(phase, vs)() {
			if err != nil {
				k.Fatalf("%s of %s: %v", phase, v.ID, err)
			}
		}
		k.driver.Await("the log", func(context.Context) error {
			seen := readCalls(k.driver.Log()[logged:])
			if len(seen.ended) <= len(vs) {
				return fmt.Errorf("%d calls have ended", len(seen.ended))
			}
			from, to := seen.span(began)
			k.spans[phase] = &span{from, to}
			return nil
		})
	}
}

// start calls for all volumes at once, and for the steady one's refresh; the function it returns waits for the answers.
func (k *killer) start(phase string, vs []*kubelet.Volume) (answers func() map[*kubelet.Volume]error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	got := map[*kubelet.Volume]error{}
	one := func(phase string, v *kubelet.Volume) {
		all.Go(func() {
			err := call(k.rig, phase, v)
			mu.Lock()
			defer mu.Unlock()
			got[v] = err
		})
	}
	one(refreshing, k.steady)
	for _, v := range vs {
		one(phase, v)
	}
	return func() map[*kubelet.Volume]error { all.Wait(); return got }
}

// life takes volumes through a life with a kill in each phase.
func (k *killer) life() {
	vs := k.batch()
	k.kill(publishing, vs)
	vs = slices.DeleteFunc(vs, func(v *kubelet.Volume) bool {
		// Some pods go away before kubelet has tried again.
		if v.State() == kubelet.Unsure && k.rand.IntN(4) == 0 {
			k.retry(unpublishing, v)
			k.wantNothing(v)
			return true
		}
		k.retry(publishing, v)
		k.readers.add(v.Target)
		return false
	})
	k.wantRecords(vs)
	k.kill(refreshing, vs)
	for _, v := range vs {
		k.retry(refreshing, v)
		k.readers.remove(v.Target)
	}
	k.wantRecords(vs)
	k.kill(unpublishing, vs)
	for _, v := range vs {
		k.retry(unpublishing, v)
		k.wantNothing(v)
	}
	k.wantRecords(nil)
}

// kill kills the driver in the middle of a phase, looks at what is left, and starts another.
func (k *killer) kill(phase string, vs []*kubelet.Volume) {
	k.Helper()
	if !slices.Contains(k.kills, phase) {
		for v, err := range k.start(phase, vs)() {
			if err != nil {
				k.Fatalf("%s of %s: %v", phase, v.ID, err)
			}
		}
		return
	}
	logged, when := len(k.driver.Log()), k.spans[phase]
	delay := when.from + time.Duration(k.rand.Int64N(int64(when.to-when.from)))
	point := time.NewTimer(delay)
	began := time.Now()
	answers := k.start(phase, vs)
	<-point.C
	k.driver.Kill()
	errs := answers()
	k.killed++
	seen := readCalls(k.driver.Log()[logged:])
	if len(seen.taken) == 0 {
		when.learn(delay+delay/4, 0) // too early
	}
	when.learn(seen.span(began))
	if seen.cut(k.steady) && errs[k.steady] != nil && slices.Contains(k.kills, refreshing) {
		k.cut[refreshing]++
	}
	for _, v := range vs {
		if seen.cut(v) && errs[v] != nil {
			if phase != refreshing || !seen.cut(k.steady) {
				k.cut[phase]++
			}
			break
		}
	}
	for v, err := range errs {
		k.look(phase, v, err)
	}
	k.driver.Start()
	k.retry(refreshing, k.steady)
}

// A callLog is when the driver took and ended the calls for volumes, by volume id.
type callLog struct{ taken, ended map[string]time.Time }

var callLine = regexp.MustCompile(`(?m)^time=(\S+) level=\S+ msg=(call|"call done"|"call failed") volume=(\S+)`)

func readCalls(log string) callLog {
	c := callLog{map[string]time.Time{}, map[string]time.Time{}}
	for _, m := range callLine.FindAllStringSubmatch(log, -1) {
		at, err := time.Parse(time.RFC3339, m[1])
		switch {
		case err != nil:
		case m[2] == "call":
			c.taken[m[3]] = at
		default:
			c.ended[m[3]] = at
		}
	}
	return c
}

// cut says whether a call for the volume was under way when the driver ended.
func (c callLog) cut(v *kubelet.Volume) bool {
	_, taken := c.taken[v.ID]
	_, ended := c.ended[v.ID]
	return taken && !ended
}

// span is when calls were under way; 0 where that is not known.
func (c callLog) span(began time.Time) (from, to time.Duration) {
	for id, at := range c.taken {
		if d := max(at.Sub(began), 1); from == 0 || d < from {
			from = d
		}
		if _, ok := c.ended[id]; !ok {
			return from, 0
		}
		to = max(to, c.ended[id].Sub(began))
	}
	return from, to
}

// look checks what a kill left of a volume, while no driver runs.
func (k *killer) look(phase string, v *kubelet.Volume, err error) {
	k.Helper()
	mounts := k.mountsAt(v.Target)
	if mounts > 1 {
		k.Errorf("kill %d: %d mounts at %s", k.killed, mounts, v.Target)
	}
	_, readErr := readNumber(v.Target)
	switch {
	case phase == unpublishing && v != k.steady:
		return // files go one by one
	case readErr == nil && mounts == 1:
	case phase == publishing && v != k.steady && err != nil && readErr == errNoGeneration:
	default:
		k.Errorf("kill %d in %s, which ended with %v: %d mounts, reading it: %v", k.killed, phase, err, mounts, readErr)
	}
}

// retry asks again for what may have been cut until it succeeds, as kubelet does; the driver that runs has no excuse.
func (k *killer) retry(phase string, v *kubelet.Volume) {
	k.Helper()
	switch {
	case phase == publishing && v.State() == kubelet.Mounted, phase == unpublishing && v.State() == kubelet.NotMounted:
	default:
		if err := call(k.rig, phase, v); err != nil {
			k.Fatalf("kill %d: %s on the next driver: %v", k.killed, phase, err)
		}
	}
	if phase == unpublishing {
		return
	}
	if number, err := readNumber(v.Target); err != nil || k.mountsAt(v.Target) != 1 {
		k.Fatalf("kill %d: after %s on the next driver there are number %q (%v), %d mounts", k.killed, phase, number, err, k.mountsAt(v.Target))
	}
}

// wantRecords checks that the driver remembers these volumes and the steady one, and no others.
func (k *killer) wantRecords(vs []*kubelet.Volume) {
	k.Helper()
	want := []string{k.steady.ID}
	for _, v := range vs {
		want = append(want, v.ID)
	}
	slices.Sort(want)
	if got, _ := k.records(k.driver.State); !slices.Equal(got, want) {
		k.Errorf("kill %d: there are records of %v, want %v", k.killed, got, want)
	}
}

// silence checks that no driver goes on writing about volumes that are gone, nor about one that has not changed.
func (k *killer) silence() {
	_, before := k.askedOfServer()
	elapse(k.T, 2*time.Second) // a write that failed is tried again after one
	if _, after := k.askedOfServer(); after != before {
		k.Errorf("%d requests about status objects while nothing happened", after-before)
	}
	k.mustUnpublish(k.steady)
	k.wantNothing(k.steady)
	classes, statuses := k.askedOfServer()
	k.driver.Restart()
	elapse(k.T, time.Second)
	if c, s := k.askedOfServer(); c != classes || s != statuses {
		k.Errorf("a driver without volumes asked %d times about classes and %d times about status objects", c-classes, s-statuses)
	}
	if ids, _ := k.records(k.driver.State); len(ids) > 0 {
		k.Errorf("records are left: %v", ids)
	}
	if got := fmt.Sprint(k.driver.Log()); strings.Contains(got, "panic") {
		k.Error("a driver panicked")
	}
}
