//go:build integration && linux

// Package apiserver runs a real kube-apiserver with its etcd for integration tests, as plain processes on loopback, and
// gives tests what they need around it: clients with chosen rights, objects from manifests, tokens bound to pods, outages,
// and a count of what was asked of it. There is no controller and no kubelet: a pod is an object, nothing collects garbage.
//
// It must not import Keymount's own packages: the driver under test is a process that knows the server by a kubeconfig
// only. Servers are independent of each other; the methods of one may be called concurrently.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"keymount/test/binaries"
	"keymount/test/controlplane"
	"keymount/test/integration/await"
)

// Issuer is the issuer of service account tokens, and the audience of those that ask for none.
const Issuer = controlplane.Issuer

// startBound is the longest that a start may take; on two busy cores it takes some 5 s.
const startBound = 2 * time.Minute

// A Server is one running API server.
type Server struct {
	dir       string // everything on disk; removed by Stop
	pki       *pki
	port      *port      // kube-apiserver's own
	proxy     *proxy     // what clients reach it by
	processes []*process // in the order of their start
	audit     *auditLog
	admin     *rest.Config
	client    dynamic.Interface
	discovery *discovery.DiscoveryClient
	stop      sync.Once
}

// Start runs a server for one test. If the test fails, the last lines of the server's logs are printed.
func Start(t testing.TB) *Server {
	t.Helper()
	s, err := New(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Logs())
		}
		s.Stop()
	})
	return s
}

// Main runs a package's tests with one server for all of them, and returns the exit code for TestMain. use is given the
// server before the first test. Tests that share a server keep apart by namespaces; what is cluster-wide they share.
func Main(m *testing.M, use func(*Server)) int {
	s, err := New(context.Background())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer s.Stop()
	use(s)
	code := m.Run()
	if code != 0 {
		fmt.Fprintln(os.Stderr, s.Logs())
	}
	return code
}

// New starts a server and returns when it is ready. Whoever calls it must call Stop. Should the calling process be killed,
// the kernel kills the server with it.
func New(ctx context.Context) (_ *Server, err error) {
	// Building has no bound here: it says itself what it does, and how long that takes.
	paths, err := binaries.Ensure(ctx, os.Stderr, "etcd", "kube-apiserver")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startBound)
	defer cancel()
	dir, err := os.MkdirTemp("", "keymount-apiserver-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	defer func() {
		if err != nil {
			err = fmt.Errorf("starting an API server for tests: %w\n%s", err, s.Logs())
			s.Stop()
		}
	}()
	if s.pki, err = newPKI(dir); err != nil {
		return nil, err
	}
	if err := s.startProcesses(ctx, paths[0], paths[1]); err != nil {
		return nil, err
	}
	return s, s.connect(ctx)
}

func (s *Server) startProcesses(ctx context.Context, etcd, apiserver string) error {
	port, err := reservePort()
	if err != nil {
		return err
	}
	s.port = port
	if s.proxy, err = newProxy(port.address()); err != nil {
		return err
	}
	socket := filepath.Join(s.dir, "etcd.sock")
	if err := s.run(etcd, controlplane.EtcdArgs(filepath.Join(s.dir, "etcd"), socket)); err != nil {
		return err
	}
	// kube-apiserver ends itself when it finds no etcd for a while, so this only gives the better message.
	if err := await.For(ctx, "etcd's socket", func(context.Context) error {
		_, err := os.Stat(socket)
		return errors.Join(err, s.ended())
	}); err != nil {
		return err
	}
	s.audit = &auditLog{path: filepath.Join(s.dir, "audit.log")}
	policy := filepath.Join(s.dir, "audit-policy.yaml")
	if err := os.WriteFile(policy, []byte(controlplane.AuditPolicy), 0o600); err != nil {
		return err
	}
	return s.run(apiserver, apiserverArgs(s.pki, port.number, socket, policy, s.audit.path))
}

func apiserverArgs(p *pki, port int, etcd, policy, audit string) []string {
	return append(controlplane.APIServerArgs(controlplane.Files{
		EtcdSocket: etcd, CACert: p.caCert, ServerCert: p.serverCert, ServerKey: p.serverKey, TokenKey: p.tokenKey,
		AuditPolicy: policy, AuditLog: audit,
	}),
		"--bind-address=127.0.0.1",
		fmt.Sprintf("--secure-port=%d", port),
		"--permit-port-sharing", // the port is kept reserved by a socket of the test's
		"--endpoint-reconciler-type=none",
		"--authorization-mode=RBAC",
	)
}

func (s *Server) run(program string, args []string) error {
	p, err := startProcess(s.dir, program, args)
	if err == nil {
		s.processes = append(s.processes, p)
	}
	return err
}

// ended tells which process is no longer there, and why.
func (s *Server) ended() error {
	for _, p := range s.processes {
		if err := p.ended(); err != nil {
			return await.Never(err)
		}
	}
	return nil
}

// connect makes the administrator's clients and waits until the server answers.
func (s *Server) connect(ctx context.Context) (err error) {
	s.admin = s.config()
	s.admin.CertFile, s.admin.KeyFile = s.pki.adminCert, s.pki.adminKey
	if s.client, err = dynamic.NewForConfig(s.admin); err != nil {
		return err
	}
	if s.discovery, err = discovery.NewDiscoveryClientForConfig(s.admin); err != nil {
		return err
	}
	return await.For(ctx, "the API server to be ready", func(ctx context.Context) error {
		if err := s.ended(); err != nil {
			return err
		}
		body, err := s.discovery.RESTClient().Get().AbsPath("/readyz").Param("verbose", "").Do(ctx).Raw()
		if err != nil {
			return fmt.Errorf("%w: %s", err, body)
		}
		return nil
	})
}

// Stop ends the server and removes what it wrote. It may be called more than once.
func (s *Server) Stop() {
	s.stop.Do(func() {
		for i := len(s.processes) - 1; i >= 0; i-- { // etcd last: its loss fills the API server's log
			s.processes[i].kill()
		}
		if s.proxy != nil {
			s.proxy.close()
		}
		if s.port != nil {
			s.port.release()
		}
		if err := os.RemoveAll(s.dir); err != nil {
			fmt.Fprintln(os.Stderr, "removing the API server's folder:", err)
		}
	})
}

// Logs returns the last lines that the server's processes wrote.
func (s *Server) Logs() string {
	var b strings.Builder
	for _, p := range s.processes {
		fmt.Fprintf(&b, "--- %s\n%s\n", p.name, p.tail())
	}
	return b.String()
}
