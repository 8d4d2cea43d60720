//go:build integration && linux

package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/machine"
)

// build makes the configuration of a cluster of two nodes. Its programs are no programs, but for ctr, which says that.
func build(t *testing.T) (layout.Dir, *Builder) {
	t.Helper()
	dir := layout.Dir(t.TempDir())
	programs := map[string]string{}
	for _, name := range []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "containerd",
		"containerd-shim-runc-v2", "runc", "bridge", "loopback", "host-local"} {
		programs[name] = "/cache/" + name[:1] + "/" + name
	}
	programs["ctr"] = filepath.Join(t.TempDir(), "ctr")
	if err := os.WriteFile(programs["ctr"], []byte("#!/bin/sh\necho '{\"process\": {\"cwd\": \"/\"}}'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	b, err := NewBuilder(dir, Plan{Nodes: 2, SyncFrequency: 3 * time.Second, Programs: programs})
	if err != nil {
		t.Fatal(err)
	}
	return dir, b
}

func TestKubeconfigsStandByThemselves(t *testing.T) {
	dir, b := build(t)
	if err := b.Users("127.0.0.1:16443"); err != nil {
		t.Fatal(err)
	}
	for path, server := range map[string]string{
		dir.Kubeconfig(): "https://127.0.0.1:16443", dir.KubeconfigInside(): "https://10.96.0.1:443",
	} {
		config, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		if config.Host != server || config.CAFile != "" || config.CertFile != "" {
			t.Errorf("%s: %+v", path, config)
		}
		leaf := certificate(t, config)
		if leaf.Subject.CommonName != "kubernetes-admin" || !slices.Equal(leaf.Subject.Organization, []string{"system:masters"}) {
			t.Errorf("%s: the user is %s", path, leaf.Subject)
		}
		verify(t, b, leaf, x509.ExtKeyUsageClientAuth, "")
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}

func certificate(t *testing.T, config *rest.Config) *x509.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func verify(t *testing.T, b *Builder, leaf *x509.Certificate, usage x509.ExtKeyUsage, name string) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(b.ca.CertPEM())
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
		t.Errorf("%s: %v", leaf.Subject, err)
	}
}

func TestServersAreKnownByTheirAddresses(t *testing.T) {
	dir, b := build(t)
	if _, err := b.ControlPlane(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Node(2); err != nil {
		t.Fatal(err)
	}
	for file, names := range map[string][]string{
		dir.Machine("cp", "etc-kubernetes/pki/apiserver"): {"10.96.0.1", "127.0.0.1", "kubernetes.default.svc"},
		dir.Machine("n2", "etc-kubernetes/pki/kubelet"):   {"10.200.0.12", "n2"},
	} {
		pair, err := tls.LoadX509KeyPair(file+".crt", file+".key")
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			verify(t, b, pair.Leaf, x509.ExtKeyUsageServerAuth, name)
		}
	}
	kubelet, err := clientcmd.BuildConfigFromFlags("", dir.Machine("n2", "etc-kubernetes/kubelet.conf"))
	if err != nil {
		t.Fatal(err)
	}
	if leaf := certificate(t, kubelet); leaf.Subject.CommonName != "system:node:n2" || !slices.Equal(leaf.Subject.Organization, []string{"system:nodes"}) {
		t.Errorf("kubelet is %s", leaf.Subject)
	}
}

func TestNode(t *testing.T) {
	dir, b := build(t)
	node, err := b.Node(2)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range node.Components {
		names = append(names, c.Name)
		if c.Log != dir.Log("n2", c.Name) {
			t.Errorf("%s logs to %s", c.Name, c.Log)
		}
	}
	if !slices.Equal(names, []string{"containerd", "kubelet"}) || node.Components[1].After != "unix:"+ContainerdSocket {
		t.Errorf("components %+v", node.Components)
	}
	// What a bind shows must be there, or the machine does not boot; programs are an exception of this test.
	for _, bind := range node.Spec.Binds {
		if _, err := os.Stat(bind.Source); err != nil && !strings.HasPrefix(bind.Source, "/cache/") {
			t.Errorf("bind of %s: %v", bind.Target, err)
		}
	}
	if node.Spec.Links["/opt/keymount/bin/runc"] != "/cache/r/runc" || !slices.Contains(node.Spec.Binds, machine.Bind{Source: "/cache/r", Target: "/cache/r", ReadOnly: true}) {
		t.Errorf("runc must be a link into a folder that is bound as a whole: %v", node.Spec.Links)
	}
	if !strings.Contains(node.Spec.Files["/etc/hosts"], "10.200.0.11 n1\n") || node.Spec.Files["/etc/resolv.conf"] != "nameserver 10.200.0.1\n" {
		t.Errorf("files %v", node.Spec.Files)
	}
	var cni struct {
		Plugins []struct {
			IPAM struct{ Ranges [][]struct{ Subnet string } }
		}
	}
	if err := json.Unmarshal([]byte(node.Spec.Files["/etc/cni/net.d/10-bridge.conflist"]), &cni); err != nil || cni.Plugins[0].IPAM.Ranges[0][0].Subnet != "10.244.2.0/24" {
		t.Errorf("pods' network: %+v, %v", cni, err)
	}
	var container struct {
		Process struct{ Cwd string }
		Hooks   struct{ CreateContainer []struct{ Args []string } }
	}
	if err := json.Unmarshal([]byte(node.Spec.Files[baseSpec]), &container); err != nil || container.Process.Cwd != "/" || len(container.Hooks.CreateContainer) != 1 {
		t.Errorf("containers start from %+v, %v", container, err)
	}
	text, err := os.ReadFile(dir.Machine("n2", "etc-kubernetes/kubelet.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var kubelet struct {
		SyncFrequency string
		ClusterDNS    []string
		FailCgroupV1  *bool
	}
	if err := yaml.Unmarshal(text, &kubelet); err != nil || kubelet.SyncFrequency != "3s" || kubelet.FailCgroupV1 == nil || *kubelet.FailCgroupV1 {
		t.Errorf("kubelet: %+v, %v", kubelet, err)
	}
}

// The address where a test serves must be free: the API server may not take the whole of port 443.
func TestAPIServerListensOnOneAddress(t *testing.T) {
	_, b := build(t)
	cp, err := b.ControlPlane()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cp.Components {
		if c.Name == "kube-apiserver" && !slices.Contains(c.Args, "--bind-address=10.96.0.1") {
			t.Errorf("kube-apiserver: %v", c.Args)
		}
		if c.Listener != (c.Name == "proxy") {
			t.Errorf("%s gets the listener: %t", c.Name, c.Listener)
		}
	}
}

func TestPlanIsReadAsWritten(t *testing.T) {
	dir := layout.Dir(t.TempDir())
	if _, err := ReadPlan(dir); err == nil {
		t.Error("a plan was read where there is none")
	}
	plan := Plan{Nodes: 3, SyncFrequency: time.Minute, Programs: map[string]string{"a": "/b"}, Images: []string{"/c"}}
	if err := plan.Write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := ReadPlan(dir)
	if err != nil || got.Nodes != 3 || got.SyncFrequency != time.Minute || got.Programs["a"] != "/b" || !slices.Equal(got.Images, plan.Images) {
		t.Errorf("%+v, %v", got, err)
	}
}
