//go:build integration && linux

package config

import (
	"fmt"
	"os"
	"path/filepath"

	"keymount/test/controlplane"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/machine"
)

// Places in a machine.
const (
	programDir = "/opt/keymount/bin"
	pkiDir     = "/etc/kubernetes/pki"
	etcdSocket = "/run/etcd.sock"
)

// A Machine is a machine and what runs on it.
type Machine struct {
	Spec       machine.Spec
	Components []machine.Component
}

// A Builder makes the machines of one cluster.
type Builder struct {
	dir  layout.Dir
	plan Plan
	ca   *controlplane.Authority
}

// NewBuilder starts a cluster's configuration with a new authority.
func NewBuilder(dir layout.Dir, plan Plan) (*Builder, error) {
	ca, err := controlplane.NewAuthority()
	if err != nil {
		return nil, err
	}
	return &Builder{dir, plan, ca}, nil
}

// Users writes what the cluster's user is given: kubeconfigs of an administrator, one for the outer machine, where the API
// server is reached at that address, and one for cp's network; and the authority's certificate.
func (b *Builder) Users(outside string) error {
	admin, err := b.ca.Client("kubernetes-admin", "system:masters")
	if err != nil {
		return err
	}
	for path, server := range map[string]string{
		b.dir.Kubeconfig(): outside, b.dir.KubeconfigInside(): layout.APIAddress,
	} {
		text, err := Kubeconfig("https://"+server, b.ca.CertPEM(), "kubernetes-admin", admin)
		if err != nil {
			return err
		}
		if err := controlplane.WriteFile(path, text); err != nil {
			return err
		}
	}
	return controlplane.WriteFile(b.dir.CACert(), b.ca.CertPEM())
}

// ControlPlane describes cp.
func (b *Builder) ControlPlane() (Machine, error) {
	if err := b.controlPlaneFiles(); err != nil {
		return Machine{}, err
	}
	const cp = layout.ControlPlane
	for _, dir := range []string{b.dir.Machine(cp, "etcd"), b.dir.Path("logs", cp)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return Machine{}, fmt.Errorf("making the disk of machine %s: %w", cp, err)
		}
	}
	spec := b.spec(cp)
	spec.Binds = append(spec.Binds, machine.Bind{Source: b.dir.Machine(cp, "etcd"), Target: "/var/lib/etcd"})
	b.programs(&spec, "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
	component := func(name, after string, args ...string) machine.Component {
		return machine.Component{Name: name, Log: b.dir.Log(cp, name), After: after, Args: append([]string{programDir + "/" + name}, args...)}
	}
	const api = "tcp:" + layout.APIAddress
	return Machine{spec, []machine.Component{
		component("etcd", "", controlplane.EtcdArgs("/var/lib/etcd", etcdSocket)...),
		component("kube-apiserver", "unix:"+etcdSocket, apiserverArgs(b.dir)...),
		component("kube-controller-manager", api, controllerManagerArgs()...),
		component("kube-scheduler", api, clientArgs("scheduler")...),
		{Name: "dns", Log: b.dir.Log(cp, "dns"), Args: []string{machine.Self, "dns", b.dir.Hosts()}},
		{Name: "proxy", Log: b.dir.Log(cp, "proxy"), Args: []string{machine.Self, "proxy", layout.APIAddress}, Listener: true},
	}}, nil
}

func (b *Builder) controlPlaneFiles() error {
	pki := b.dir.Machine(layout.ControlPlane, "etc-kubernetes", "pki")
	ca, err := b.ca.Pair()
	if err != nil {
		return err
	}
	token, err := controlplane.NewTokenKey()
	if err != nil {
		return err
	}
	server, err := b.ca.Server("kube-apiserver", layout.APIServer, layout.GatewayIP, "127.0.0.1", "localhost", "kubernetes",
		"kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc."+layout.Domain)
	if err != nil {
		return err
	}
	kubelet, err := b.ca.Client("kube-apiserver-kubelet-client", "system:masters")
	if err != nil {
		return err
	}
	for name, p := range map[string]controlplane.Pair{"ca": ca, "apiserver": server, "kubelet-client": kubelet} {
		if err := p.Write(pki, name); err != nil {
			return err
		}
	}
	if err := controlplane.WriteFile(filepath.Join(pki, "token.key"), token); err != nil {
		return err
	}
	etc := filepath.Dir(pki)
	for _, name := range []string{"controller-manager", "scheduler"} {
		if err := b.kubeconfig(filepath.Join(etc, name+".conf"), "system:kube-"+name); err != nil {
			return err
		}
	}
	return controlplane.WriteFile(filepath.Join(etc, "audit-policy.yaml"), []byte(controlplane.AuditPolicy))
}

// kubeconfig writes the kubeconfig of a component.
func (b *Builder) kubeconfig(path, user string, groups ...string) error {
	p, err := b.ca.Client(user, groups...)
	if err != nil {
		return err
	}
	text, err := Kubeconfig("https://"+layout.APIAddress, b.ca.CertPEM(), user, p)
	if err != nil {
		return err
	}
	return controlplane.WriteFile(path, text)
}

func apiserverArgs(dir layout.Dir) []string {
	return append(controlplane.APIServerArgs(controlplane.Files{
		EtcdSocket: etcdSocket,
		CACert:     pkiDir + "/ca.crt",
		ServerCert: pkiDir + "/apiserver.crt", ServerKey: pkiDir + "/apiserver.key",
		TokenKey:    pkiDir + "/token.key",
		AuditPolicy: "/etc/kubernetes/audit-policy.yaml", AuditLog: dir.AuditLog(),
	}),
		// Its own Service address and no other: pods reach it there by plain routing, without kube-proxy, and port 443 of cp's
		// other address stays free for what a test serves.
		"--bind-address="+layout.APIServer,
		"--advertise-address="+layout.APIServer,
		"--secure-port=443",
		"--kubelet-certificate-authority="+pkiDir+"/ca.crt",
		"--kubelet-client-certificate="+pkiDir+"/kubelet-client.crt",
		"--kubelet-client-key="+pkiDir+"/kubelet-client.key",
		"--kubelet-preferred-address-types=InternalIP",
		// As every real cluster: a kubelet's rights end at its own pods.
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
	)
}

func controllerManagerArgs() []string {
	return append(clientArgs("controller-manager"),
		"--root-ca-file="+pkiDir+"/ca.crt",
		"--service-account-private-key-file="+pkiDir+"/token.key",
		"--cluster-signing-cert-file="+pkiDir+"/ca.crt",
		"--cluster-signing-key-file="+pkiDir+"/ca.key",
		"--use-service-account-credentials=true",
		// With the default of 20 a second, the controllers start one after the other for seconds.
		"--kube-api-qps=500",
		"--kube-api-burst=1000",
	)
}

// clientArgs are those of the components that only talk to the API server.
func clientArgs(name string) []string {
	conf := fmt.Sprintf("=/etc/kubernetes/%s.conf", name)
	return []string{
		"--kubeconfig" + conf, "--authentication-kubeconfig" + conf, "--authorization-kubeconfig" + conf,
		// At the first start the API server has not laid its own rules yet, and does not let them read this.
		"--authentication-tolerate-lookup-failure=true",
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--v=1",
	}
}
