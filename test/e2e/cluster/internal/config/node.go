//go:build integration && linux

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sigs.k8s.io/yaml"

	"keymount/test/controlplane"
	"keymount/test/e2e/cluster/internal/layout"
	"keymount/test/e2e/cluster/internal/machine"
)

type object map[string]any

// ContainerdSocket is where a node's containerd listens.
const ContainerdSocket = "/run/containerd/containerd.sock"

// MachinePath is PATH in a machine.
const MachinePath = programDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Ctr is the program in a node that imports images.
const Ctr = programDir + "/ctr"

// kept maps what a node has on its disk, which outlives a reboot, to where the node sees it.
var kept = [...][2]string{
	{"etc-kubernetes", "/etc/kubernetes"}, {"kubelet", "/var/lib/kubelet"}, {"containerd", "/var/lib/containerd"},
	{"cni", "/var/lib/cni"}, {"containers", "/var/log/containers"},
}

// Node describes node i.
func (b *Builder) Node(i int) (Machine, error) {
	name := layout.NodeName(i)
	err := b.nodeFiles(i)
	if err != nil {
		return Machine{}, err
	}
	spec := b.spec(name)
	for _, k := range kept[1:] { // all machines have the first
		spec.Binds = append(spec.Binds, machine.Bind{Source: b.dir.Machine(name, k[0]), Target: k[1]})
	}
	// What pods wrote is among the logs, so that it can still be read when the cluster is gone.
	spec.Binds = append(spec.Binds, machine.Bind{Source: b.dir.Path("logs", name, "pods"), Target: "/var/log/pods"})
	b.programs(&spec, "kubelet", "containerd", "containerd-shim-runc-v2", "ctr", "runc")
	for _, plugin := range []string{"bridge", "loopback", "host-local"} {
		spec.Binds = append(spec.Binds, machine.Bind{Source: b.plan.Programs[plugin], Target: "/opt/cni/bin/" + plugin, ReadOnly: true})
	}
	spec.Files["/etc/containerd/config.toml"] = containerdConfig
	if spec.Files[baseSpec], err = containerSpec(b.plan.Programs["ctr"]); err != nil {
		return Machine{}, err
	}
	if spec.Files["/etc/cni/net.d/10-bridge.conflist"], err = cniConfig(layout.PodRange(i)); err != nil {
		return Machine{}, err
	}
	component := func(name, after string, args ...string) machine.Component {
		return machine.Component{Name: name, Log: b.dir.Log(spec.Name, name), After: after, Args: append([]string{programDir + "/" + name}, args...)}
	}
	return Machine{spec, []machine.Component{
		component("containerd", "", "--config=/etc/containerd/config.toml"),
		component("kubelet", "unix:"+ContainerdSocket,
			"--config=/etc/kubernetes/kubelet.yaml", "--kubeconfig=/etc/kubernetes/kubelet.conf",
			"--hostname-override="+name, "--node-ip="+layout.NodeIP(i), "--root-dir=/var/lib/kubelet", "--v=2"),
	}}, nil
}

func (b *Builder) nodeFiles(i int) error {
	name := layout.NodeName(i)
	if err := os.MkdirAll(b.dir.Path("logs", name, "pods"), 0o755); err != nil {
		return fmt.Errorf("making the folder of pods' logs: %w", err)
	}
	for _, k := range kept {
		if err := os.MkdirAll(b.dir.Machine(name, k[0]), 0o755); err != nil {
			return fmt.Errorf("making the disk of machine %s: %w", name, err)
		}
	}
	etc := b.dir.Machine(name, "etc-kubernetes")
	if err := b.kubeconfig(filepath.Join(etc, "kubelet.conf"), "system:node:"+name, "system:nodes"); err != nil {
		return err
	}
	serving, err := b.ca.Server(name, name, layout.NodeIP(i))
	if err != nil {
		return err
	}
	if err := serving.Write(filepath.Join(etc, "pki"), "kubelet"); err != nil {
		return err
	}
	if err := controlplane.WriteFile(filepath.Join(etc, "pki", "ca.crt"), b.ca.CertPEM()); err != nil {
		return err
	}
	conf, err := kubeletConfig(b.plan.SyncFrequency)
	if err != nil {
		return err
	}
	return controlplane.WriteFile(filepath.Join(etc, "kubelet.yaml"), conf)
}

// kubeletConfig is rendered from plain values: the types' module would bring half of a kubelet's dependencies.
func kubeletConfig(syncFrequency time.Duration) ([]byte, error) {
	text, err := yaml.Marshal(object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": object{
			"x509":      object{"clientCAFile": pkiDir + "/ca.crt"},
			"webhook":   object{"enabled": true},
			"anonymous": object{"enabled": false},
		},
		"authorization":            object{"mode": "Webhook"},
		"tlsCertFile":              pkiDir + "/kubelet.crt",
		"tlsPrivateKeyFile":        pkiDir + "/kubelet.key",
		"containerRuntimeEndpoint": "unix://" + ContainerdSocket,
		"cgroupDriver":             "cgroupfs",
		"failCgroupV1":             false, // the machine may have no other
		"failSwapOn":               false,
		"clusterDNS":               []string{layout.GatewayIP},
		"clusterDomain":            layout.Domain,
		"resolvConf":               "/etc/resolv.conf",
		"syncFrequency":            syncFrequency.String(),
		"containerLogMaxSize":      "5Mi",
		"containerLogMaxFiles":     3,
		"oomScoreAdj":              0,     // a lower one takes a right that root may lack
		"makeIPTablesUtilChains":   false, // nothing needs iptables
		// No registry could give an image back, and a full disk of the outer machine is not the node's business.
		"imageGCHighThresholdPercent": 100,
		"evictionHard": object{
			"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
	})
	if err != nil {
		return nil, fmt.Errorf("rendering kubelet's configuration: %w", err)
	}
	return text, nil
}

// spec is what all machines have in common.
func (b *Builder) spec(name string) machine.Spec {
	hosts := "127.0.0.1 localhost\n::1 localhost\n" + layout.GatewayIP + " " + layout.ControlPlane + "\n"
	for i := range b.plan.Nodes {
		hosts += layout.NodeIP(i+1) + " " + layout.NodeName(i+1) + "\n"
	}
	id := sha256.Sum256([]byte(b.dir.Machine(name)))
	return machine.Spec{
		Name: name, Root: b.dir.Machine(name, "root"), Share: []string{string(b.dir)},
		Binds: []machine.Bind{{Source: b.dir.Machine(name, "etc-kubernetes"), Target: "/etc/kubernetes"}},
		Files: map[string]string{
			"/etc/hosts": hosts, "/etc/hostname": name + "\n", "/etc/machine-id": hex.EncodeToString(id[:16]) + "\n",
			"/etc/resolv.conf": "nameserver " + layout.GatewayIP + "\n",
		},
		Links: map[string]string{},
		// kubelet sets these for the whole machine where they are not what it wants to find.
		Sysctl: map[string]string{
			"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
			"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
		},
		Env: []string{"PATH=" + MachinePath, "HOME=/root"},
	}
}

// programs puts programs where a machine's PATH finds them: as links, in folders that the machine sees as they are, since runc
// mounts the folder that its own file is in anew, where a file that is a mount by itself would be empty.
func (b *Builder) programs(spec *machine.Spec, names ...string) {
	for _, name := range names {
		path := b.plan.Programs[name]
		bind := machine.Bind{Source: filepath.Dir(path), Target: filepath.Dir(path), ReadOnly: true}
		if !slices.Contains(spec.Binds, bind) {
			spec.Binds = append(spec.Binds, bind)
		}
		spec.Links[programDir+"/"+name] = path
	}
}
