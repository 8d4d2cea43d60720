//go:build integration && linux

package e2e

import (
	"regexp"
	"slices"
	"strings"

	"keymount/test/e2e/rig"
)

// A pod may have any number of volumes, each of a class of its own.
func (everyInstallation) SeveralClasses(s *rig.Scenario) {
	s.PutSecret("db-password", "of the database")
	s.PutSecret("api-key", "of the service")
	s.Class("database", `{objectName: db-password, objectType: secret}`)
	s.Class("service", `{objectName: api-key, objectType: secret}`, `{objectName: db-password, objectType: secret, objectAlias: copy}`)
	pod := s.Pod("web", "database", "service")
	for file, want := range map[string]string{"database/db-password": "of the database", "service/api-key": "of the service", "service/copy": "of the database"} {
		if got := pod.File("/mnt/" + file); got != want {
			s.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	for class, want := range map[string][]string{"database": {"db-password"}, "service": {"api-key", "copy"}} {
		if got := pod.Files("/mnt/" + class); !slices.Equal(got, want) {
			s.Errorf("the volume of class %s holds %q, want %q", class, got, want)
		}
		var status podStatus
		if name := "web-" + s.Namespace + "-" + class; !s.Get(podStatusKind, name, &status) || !status.Status.Mounted || status.version("secret/db-password") == "" {
			s.Errorf("the status object %s says %+v", name, status.Status)
		}
	}
}

// Two volumes of one class in one pod are two volumes: each is whole, has a status object of its own, and is refreshed.
func (providerDaemonSet) OneClassTwice(s *rig.Scenario) {
	s.PutSecret("db-password", "one")
	s.Class("shared", `{objectName: db-password, objectType: secret}`)
	s.Apply(`
apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: "{{.Busybox}}"
    command: [sleep, "86400"]
    volumeMounts:
    - {name: first, mountPath: /mnt/first, readOnly: true}
    - {name: second, mountPath: /mnt/second, readOnly: true}
  volumes:
  - name: first
    csi: &volume
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: shared}
      nodePublishSecretRef: {name: principal}
  - name: second
    csi: *volume
`)
	pod := s.Ready("web")
	for _, folder := range []string{"/mnt/first", "/mnt/second"} {
		if got := pod.File(folder + "/db-password"); got != "one" {
			s.Errorf("%s/db-password is %q", folder, got)
		}
	}
	all := statuses(s)
	plain := "web-" + s.Namespace + "-shared"
	if len(all) != 2 || all[0].Name != plain || !regexp.MustCompile("^"+plain+"-[0-9a-f]{16}$").MatchString(all[1].Name) {
		s.Fatalf("the status objects are %+v", all)
	}
	var volumes []string
	for _, status := range all {
		_, after, _ := strings.Cut(status.Status.TargetPath, pod.UID+"/volumes/kubernetes.io~csi/")
		volumes = append(volumes, after)
	}
	if slices.Sort(volumes); !slices.Equal(volumes, []string{"first/mount", "second/mount"}) {
		s.Errorf("the status objects are of the volumes %q", volumes)
	}
	s.PutSecret("db-password", "two")
	pod.AwaitFile("/mnt/first/db-password", "two")
	pod.AwaitFile("/mnt/second/db-password", "two")
}

// A class is its namespace's: the same name elsewhere is another class, and a class that is only elsewhere is none.
func (providerDaemonSet) NamespacedClasses(s *rig.Scenario) {
	neighbour := s.Neighbour()
	for owner, value := range map[*rig.Scenario]string{s: "ours", neighbour: "theirs"} {
		owner.PutSecret("db-password", value)
		owner.Class("shared", `{objectName: db-password, objectType: secret}`)
		owner.StartPod("web", "shared")
	}
	neighbour.Class("private", `{objectName: db-password, objectType: secret}`)
	s.ExpectError("secrets-store: ", s.Namespace+"/curious", "failed to get secretproviderclass "+s.Namespace+"/private")
	s.StartPod("curious", "private")
	for owner, value := range map[*rig.Scenario]string{s: "ours", neighbour: "theirs"} {
		if got := owner.Ready("web").File("/mnt/shared/db-password"); got != value {
			s.Errorf("in namespace %s the file is %q, want %q", owner.Namespace, got, value)
		}
	}
	s.AwaitEvent("curious", "FailedMount", "failed to get secretproviderclass "+s.Namespace+"/private", "not found")
}

// A class that names no objects is a mistake, and is called one.
func (providerDaemonSet) ClassWithoutObjects(s *rig.Scenario) {
	s.ExpectError("secrets-store: ", s.Namespace+"/web", "objects")
	s.Apply(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: empty}
spec:
  provider: azure
  parameters: {keyvaultName: "{{.Vault}}", tenantID: "{{.Tenant}}", objects: ""}
`)
	s.StartPod("web", "empty")
	s.AwaitEvent("web", "FailedToMountSecrets", "objects", "empty")
	s.AwaitEvent("web", "FailedMount", "objects")
}
