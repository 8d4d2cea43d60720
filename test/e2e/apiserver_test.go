//go:build integration && linux

package e2e

import (
	"fmt"
	"net/http"
	"path"
	"time"

	"keymount/test/e2e/cluster/control"
	"keymount/test/e2e/rig"
)

// Without an API server, whether it hangs or is gone, the driver stays ready, and volumes are refreshed from what is known. Status, Events and
// Kubernetes Secrets follow when it is back.
func (disruptive) APIServerAway(s *rig.Scenario) {
	s.ExpectError("secrets-store: ", s.Namespace+"/web", "left unfinished", "SecretProviderClassPodStatus")
	s.MayLogError("secrets-store: ", s.Namespace+"/synced", "left unfinished", "SecretProviderClassPodStatus")
	s.PutSecret("db-password", "version-1.")
	s.Apply(databaseClass)
	s.Pod("synced", "database")
	w := newWitness(s, "n1", "web", "version-1.")
	address := s.SystemPod("n1", driver).Status.PodIP
	began := time.Now()
	var newest string
	refresh := func(version string) {
		newest = store(s, version)
		s.PutSecret("db-password", version)
		w.sees(version)
		if err := readyz(address); err != nil {
			s.Fatalf("%s after the API server went the driver is not ready: %v", time.Since(began).Round(time.Second), err)
		}
	}
	s.Fault("cp", control.Pause, "kube-apiserver")
	refresh("version-2.")
	s.Fault("cp", control.Stop, "kube-apiserver")
	refresh("version-3.")
	s.Figure("two refreshes while the API server was away took %s", time.Since(began).Round(100*time.Millisecond))
	s.Fault("cp", control.Start, "kube-apiserver")
	s.AwaitAPI()
	awaitStatus(s, "web", newest)
	s.AwaitEvent("web", "MountRotationComplete")
	awaitSecret(s, "database", map[string]string{"password": "version-3."})
	w.undisturbed()
}

// awaitStatus waits until the API server knows that the volume of a pod holds that version of the password, whose id is given.
func awaitStatus(s *rig.Scenario, pod, id string) {
	s.Helper()
	s.Kubectl("wait", "secretproviderclasspodstatus/"+pod+"-"+s.Namespace+"-web", "-n", s.Namespace, "--timeout=90s",
		`--for=jsonpath={.status.objects[?(@.id=="secret/password")].version}=`+path.Base(id))
}

// readyz asks a driver, on the port of its probes, whether it is ready.
func readyz(address string) error {
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + address + ":9808/readyz")
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}
