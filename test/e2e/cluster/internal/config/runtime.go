//go:build integration && linux

package config

import (
	"encoding/json"
	"fmt"
	"os/exec"

	"keymount/test/e2e/cluster/internal/machine"
)

// baseSpec is where a node has what every container starts from.
const baseSpec = "/etc/containerd/container.json"

// restrict_oom_score_adj: root may lack the right to lower it, and no sandbox would start.
const containerdConfig = `version = 3
oom_score = 0

[grpc]
  address = "` + ContainerdSocket + `"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "` + PauseImage + `"

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  base_runtime_spec = "` + baseSpec + `"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
  BinaryName = "` + programDir + `/runc"

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ["/opt/cni/bin"]
  conf_dir = "/etc/cni/net.d"
`

// containerSpec is containerd's own default with a hook: the node's boot id is shown to containers too, where a program that
// wants to know whether the node was rebooted looks. Containers have a /proc of their own, the kernel's, in which the outer
// machine has never been rebooted. The hook runs in the container's root before it is moved into.
func containerSpec(ctr string) (string, error) {
	text, err := exec.Command(ctr, "oci", "spec").Output()
	if err != nil {
		return "", fmt.Errorf("asking containerd for its default of a container: %w", err)
	}
	var spec object
	if err := json.Unmarshal(text, &spec); err != nil {
		return "", fmt.Errorf("reading containerd's default of a container: %w", err)
	}
	args := []string{"mount", "-o", "bind,ro", machine.SysctlFile(BootID), "proc/sys/" + BootID}
	spec["hooks"] = object{"createContainer": []object{{"path": "/usr/bin/mount", "args": args}}}
	if text, err = json.Marshal(spec); err != nil {
		return "", fmt.Errorf("rendering what containers start from: %w", err)
	}
	return string(text), nil
}

// cniConfig has pods routed, not masqueraded: every machine of the cluster knows the way to them.
func cniConfig(pods string) (string, error) {
	text, err := json.MarshalIndent(object{
		"cniVersion": "1.0.0", "name": "pods", "plugins": []object{{
			"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true,
			"ipam": object{
				"type": "host-local", "ranges": [][]object{{{"subnet": pods}}}, "routes": []object{{"dst": "0.0.0.0/0"}},
			},
		}},
	}, "", "  ")
	if err != nil {
		return "", fmt.Errorf("rendering the network configuration of pods: %w", err)
	}
	return string(text), nil
}
