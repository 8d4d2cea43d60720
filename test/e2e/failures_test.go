//go:build integration && linux

package e2e

import "keymount/test/e2e/rig"

// Who made a mistake reads it, with what to do, where kubectl describe shows it.

func (everyInstallation) MissingClass(s *rig.Scenario) {
	s.ExpectError("secrets-store: ", "failed to get secretproviderclass "+s.Namespace+"/absent")
	s.StartPod("web", "absent")
	s.AwaitEvent("web", "FailedMount", "failed to get secretproviderclass "+s.Namespace+"/absent", "not found")
	// It heals by itself once the class is there.
	s.PutSecret("db-password", "late")
	s.Class("absent", `{objectName: db-password, objectType: secret}`)
	if got := s.Ready("web").File("/mnt/absent/db-password"); got != "late" {
		s.Errorf("the file is %q", got)
	}
}

func (everyInstallation) MissingSecret(s *rig.Scenario) {
	s.ExpectError("secrets-store: ", s.Namespace+"/web", "no-such-secret")
	s.Class("web", `{objectName: no-such-secret, objectType: secret}`)
	s.StartPod("web", "web")
	s.AwaitEvent("web", "FailedMount", "no-such-secret", s.Vault)
	s.AwaitEvent("web", "FailedToMountSecrets", "no-such-secret", s.Vault)
}

func (everyInstallation) WrongClient(s *rig.Scenario) {
	s.ExpectError("secrets-store: ", s.Namespace+"/web", "AADSTS7000215")
	s.PutSecret("db-password", "v")
	s.Class("web", `{objectName: db-password, objectType: secret}`)
	s.Apply(`
apiVersion: v1
kind: Secret
metadata: {name: principal}
stringData: {clientid: "{{.ClientID}}", clientsecret: expired}
`)
	s.StartPod("web", "web")
	s.AwaitEvent("web", "FailedMount", "AADSTS7000215", s.ClientID)
}
