//go:build integration && linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// needed maps the programs that a cluster runs to the Debian packages that have them.
var needed = [...]struct{ program, pkg, why string }{
	{"ip", "iproute2", "makes the machines' network"},
	{"mount", "mount", "kubelet mounts volumes with it"},
	{"umount", "mount", "kubelet unmounts volumes with it"},
	{"setpriv", "util-linux", "ends what runs in a machine with who runs it"},
	{"go", "golang-go", "builds the programs and the pause image"},
}

// checkRequirements tells all that is missing at once.
func checkRequirements() error {
	if os.Geteuid() != 0 {
		return errors.New("running a cluster takes root: it mounts, makes namespaces and control groups")
	}
	var missing, packages []string
	for _, n := range needed {
		if _, err := exec.LookPath(n.program); err != nil {
			missing = append(missing, fmt.Sprintf("%s (%s)", n.program, n.why))
			packages = append(packages, n.pkg)
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("missing programs: %s; on Debian: apt-get install --no-install-recommends %s",
			strings.Join(missing, ", "), strings.Join(packages, " "))
	}
	return nil
}
