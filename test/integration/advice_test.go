//go:build integration && linux

package integration

import (
	"context"
	"errors"
	"strings"
	"testing"

	"keymount/test/integration/driver"
)

// An installation of upstream's 1.5 has a CSIDriver object by which kubelet never calls again: that rotation will not happen
// is said at the start, not found out when a certificate has expired.
func TestRootRotationThatWillNotHappenIsSaid(t *testing.T) {
	r := newRig(t, rotation("1s")...)
	defer applyCSIDriver(t, "")
	api.ApplyText(t, `
apiVersion: storage.k8s.io/v1
kind: CSIDriver
metadata: {name: `+driver.Name+`}
spec: {podInfoOnMount: true, attachRequired: false, volumeLifecycleModes: [Ephemeral], requiresRepublish: false}
`)
	const line = "rotation is switched on, and will not happen"
	if strings.Contains(r.driver.Log(), line) {
		t.Error("said although kubelet does call again")
	}
	r.driver.Restart()
	r.driver.Await("the line", func(context.Context) error {
		if !strings.Contains(r.driver.Log(), line) {
			return errors.New("not said")
		}
		return nil
	})
}
