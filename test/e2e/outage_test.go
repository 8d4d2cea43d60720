//go:build integration && linux

package e2e

import (
	"keymount/internal/emulator"
	"keymount/test/e2e/rig"
)

// A vault that refuses for the sake of its load is left alone; pods keep what they have, and their owners are told.
func (providerDaemonSet) VaultThrottled(s *rig.Scenario) {
	outage(s, emulator.Fault{Do: emulator.ActThrottle, RetryAfter: "300"}, "HTTP 429")
}

// So it is when the service behind the vault is ill.
func (providerDaemonSet) VaultUnavailable(s *rig.Scenario) {
	outage(s, emulator.Fault{Do: emulator.ActStatus, Status: 503}, "HTTP 503")
}

// outage has the scenario's vault do something, which is told with a text, while one pod runs and another begins.
func outage(s *rig.Scenario, fault emulator.Fault, text string) {
	s.Helper()
	s.ExpectError("secrets-store: ", s.Namespace+"/late", text)
	w := newWitness(s, "n1", "web", "version-1.")
	heal := s.Disturb(fault)
	store(s, "version-2.")
	startWitness(s, "n2", "late")
	s.AwaitEvent("late", "FailedMount", text)
	s.AwaitEvent("late", "FailedToMountSecrets", text)
	s.AwaitEvent("web", "MountRotationFailed", text)
	awaitUpToDate(s, "web", "False")
	if got := w.File("/mnt/web/user"); got != "version-1." {
		s.Errorf("the file is %q", got)
	}
	heal()
	w.sees("version-2.")
	w.undisturbed()
	awaitUpToDate(s, "web", "True")
	if got := s.Ready("late").File("/mnt/web/user"); got != "version-2." {
		s.Errorf("the file is %q", got)
	}
}

// awaitUpToDate waits until the status of the volume of the class web in a pod says whether it is what the vault has.
func awaitUpToDate(s *rig.Scenario, pod, is string) {
	s.Helper()
	s.Kubectl("wait", "secretproviderclasspodstatus/"+pod+"-"+s.Namespace+"-web", "-n", s.Namespace, "--for=condition=UpToDate="+is, "--timeout=90s")
}
