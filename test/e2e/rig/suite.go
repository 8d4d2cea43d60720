//go:build integration && linux

// Package rig is what end-to-end scenarios stand on: a namespace, a vault and an application of each scenario's own, manifests applied as
// users apply them, pods read through their own containers, and the emulator of Azure at the address of the cluster's control plane.
//
// It knows the product by its charts, manifests, logs and Events only and imports none of its packages; the emulator is not part of the product. It
// expects to run in the network of the cluster's control plane, where test/e2e/run puts it. Scenarios of a phase run at the same
// time, each with a Scenario of its own; everything that they share is in the Suite, whose methods may be called concurrently.
package rig

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"
	"time"

	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/test/e2e/cluster/control"
)

// Variables by which the runner says where things are.
const (
	ClusterEnv  = "KEYMOUNT_E2E_CLUSTER"  // the folder of the cluster
	ProgramsEnv = "KEYMOUNT_E2E_PROGRAMS" // a folder with helm and kubectl
	ChartsEnv   = "KEYMOUNT_E2E_CHARTS"   // the folder of the charts, with what they depend on
	BuildEnv    = "KEYMOUNT_E2E_BUILD"    // names the images' content, so that a rebuilt one is rolled out under the same tag
	LogsEnv     = "KEYMOUNT_E2E_LOGS"     // where logs are left
	KeepEnv     = "KEYMOUNT_E2E_KEEP"     // not empty: what a failed scenario made stays
	DocumentEnv = "KEYMOUNT_E2E_DOCUMENT" // not empty: the document that figures are written into
)

// Names that are the same for all scenarios.
const (
	Tenant = emulatortest.Tenant
	// Issuer is what the cluster's API server calls itself in service account tokens.
	Issuer = "https://kubernetes.default.svc.cluster.local"
	// SystemNamespace is where the charts are installed.
	SystemNamespace = "kube-system"
	// Busybox is the image of pods.
	Busybox = "docker.io/keymount-e2e/busybox:1"
	// Address is where the emulator speaks TLS; the cluster's DNS leads the real host names there.
	Address = "10.200.0.1:443"
)

// A Suite is one run of the scenarios on one cluster.
type Suite struct {
	// Emulator is Azure for the whole cluster. Scenarios use it through their own vault.
	Emulator *emulatortest.Emulator
	// Cluster is for faults: components killed, nodes rebooted, networks cut.
	Cluster *control.Client
	// Dir is the cluster's folder.
	Dir string

	t                               *testing.T
	programs, charts, build, logDir string
	keep                            bool
	api                             *api
	pods                            *watched[pod]
	events                          *watched[event]
	journal                         *journal
	restarts                        *restarts
	hosts                           *hosts

	mu     sync.Mutex
	count  int    // of scenarios, for names
	broken string // the phase that could not be prepared
}

// Start connects to the cluster and starts the emulator. At the end of t it fails for what no scenario declared: error lines of the system's pods, and
// containers that restarted.
func Start(t *testing.T) *Suite {
	t.Helper()
	s := &Suite{t: t, Dir: variable(t, ClusterEnv), programs: variable(t, ProgramsEnv), charts: variable(t, ChartsEnv),
		build: variable(t, BuildEnv), logDir: variable(t, LogsEnv), keep: os.Getenv(KeepEnv) != ""}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.connect(ctx); err != nil {
		t.Fatalf("connecting to the cluster in %s: %v", s.Dir, err)
	}
	if err := s.api.forget(ctx); err != nil {
		t.Fatalf("removing what an earlier run left: %v", err)
	}
	s.startEmulator(ctx, t)
	s.journal = newJournal(s.api, filepath.Join(s.logDir, "pods"))
	s.restarts = newRestarts()
	background, stop := context.WithCancel(context.Background())
	s.pods = watch(background, s.api, "pods", func(p *pod) {
		s.restarts.see(p)
		s.journal.see(background, p)
	})
	s.events = watch[event](background, s.api, "events", nil)
	t.Cleanup(func() {
		s.journal.finish(s.pods.list())
		stop()
		s.journal.check(t)
		s.restarts.check(t)
	})
	if err := errors.Join(s.pods.synced(ctx), s.events.synced(ctx)); err != nil {
		t.Fatalf("watching the cluster: %v", err)
	}
	return s
}

func variable(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: the scenarios run inside a cluster, which make e2e starts", name)
	}
	return value
}

func (s *Suite) connect(ctx context.Context) (err error) {
	if s.Cluster, err = control.Dial(s.Dir); err != nil {
		return err
	}
	s.t.Cleanup(s.Cluster.Close)
	s.api, err = newAPI(ctx, s.Cluster.KubeconfigInside())
	return err
}

// startEmulator starts it with the cluster's own keys, and gives its authority to the pods of the system.
func (s *Suite) startEmulator(ctx context.Context, t *testing.T) {
	t.Helper()
	jwks, err := s.api.raw(ctx, "/openid/v1/jwks")
	if err != nil {
		t.Fatalf("asking the cluster for its OIDC keys: %v", err)
	}
	s.Emulator = emulatortest.StartAt(t, emulator.Seed{
		Issuers: []emulator.IssuerSeed{{URL: Issuer, JWKS: string(jwks)}},
		Tenants: []emulator.Tenant{{ID: Tenant}},
	}, Address)
	s.hosts = &hosts{file: s.Cluster.Hosts(), names: s.Emulator.Server.Hosts}
	if err := s.hosts.write(); err != nil {
		t.Fatal(err)
	}
	if err := s.trust(ctx, SystemNamespace); err != nil {
		t.Fatal(err)
	}
}

// A Prepare brings the cluster into the state that a phase's scenarios expect, whatever the state was before.
type Prepare func(s *Scenario)

// Parallel runs the methods of scenarios, each a func(*Scenario), as one phase of subtests at the same time; the name of a method is the scenario's.
func (s *Suite) Parallel(name string, prepare Prepare, scenarios any) {
	s.phase(name, prepare, scenarios, true)
}

// Serial is Parallel for scenarios that disturb each other.
func (s *Suite) Serial(name string, prepare Prepare, scenarios any) {
	s.phase(name, prepare, scenarios, false)
}

func (s *Suite) phase(name string, prepare Prepare, scenarios any, parallel bool) {
	s.t.Run(name, func(t *testing.T) {
		if s.broken != "" {
			t.Fatalf("not run, since phase %s could not be prepared", s.broken)
		}
		s.broken = name
		started := time.Now()
		if prepare != nil {
			prepare(&Scenario{T: t, Suite: s})
		}
		s.broken = ""
		t.Logf("figure: phase %s was prepared in %s", name, time.Since(started).Round(100*time.Millisecond))
		for method, run := range methods(scenarios) {
			t.Run(method, func(t *testing.T) {
				if parallel {
					t.Parallel()
				}
				run(s.scenario(t, method))
			})
		}
	})
}

// methods yields the scenarios of a value by name, in the order of their names.
func methods(of any) func(yield func(string, func(*Scenario)) bool) {
	v := reflect.ValueOf(of)
	return func(yield func(string, func(*Scenario)) bool) {
		for i := range v.NumMethod() {
			name := v.Type().Method(i).Name
			run, ok := v.Method(i).Interface().(func(*Scenario))
			if !ok {
				panic(fmt.Sprintf("%T.%s is not a func(*rig.Scenario)", of, name))
			}
			if !yield(name, run) {
				return
			}
		}
	}
}
