//go:build integration && linux

package e2e

import (
	"slices"
	"strings"

	"keymount/test/e2e/rig"
)

// Any provider of the protocol serves: a DaemonSet with a socket in the folder of providers. This one returns its files.
func (providerDaemonSet) ProviderReturns(s *rig.Scenario) {
	pod := ownProvider(s, "returner")
	if link := pod.Exec("readlink", "/mnt/web/token"); link != "..data/token\n" {
		s.Errorf("token is a link to %q, not to the driver's", link)
	}
	rotateOwn(s, pod)
}

// This one writes into the volume itself, as providers did at first; the driver leaves its files alone.
func (providerDaemonSet) ProviderWrites(s *rig.Scenario) {
	pod := ownProvider(s, "writer")
	if all := pod.Exec("ls", "-A", "/mnt/web"); all != "fixed\ntoken\n" {
		s.Errorf("the volume holds:\n%s", all)
	}
	rotateOwn(s, pod)
}

// ownProvider deploys a provider of the repository's own and a pod that is served by it.
func ownProvider(s *rig.Scenario, name string) *rig.Pod {
	s.Helper()
	s.MayLogError("secrets-store: ", s.Namespace+"/web", "provider not found") // until it serves
	s.Apply(strings.ReplaceAll(providerManifest, "PROVIDER", name))
	pod := s.Ready("web")
	for file, want := range map[string]string{"token": "one", "fixed": "of the class"} {
		if got := pod.File("/mnt/web/" + file); got != want {
			s.Errorf("%s is %q, want %q", file, got, want)
		}
	}
	if mode := pod.Exec("stat", "-L", "-c", "%a", "/mnt/web/fixed"); mode != "400\n" {
		s.Errorf("fixed has mode %s", mode)
	}
	if all := statuses(s); len(all) != 1 || all[0].version("token") == "" || all[0].version("fixed") == "" {
		s.Errorf("the status objects are %+v", all)
	}
	return pod
}

// rotateOwn changes what the provider gives out, and then what the class asks for.
func rotateOwn(s *rig.Scenario, pod *rig.Pod) {
	s.Helper()
	before := statuses(s)[0]
	s.Apply("{apiVersion: v1, kind: ConfigMap, metadata: {name: content}, data: {token: two}}")
	pod.AwaitFile("/mnt/web/token", "two")
	s.AwaitEvent("web", rotationComplete, "web")
	if after := statuses(s)[0]; after.version("token") == before.version("token") || after.version("fixed") != before.version("fixed") {
		s.Errorf("the status object says %+v, before it was %+v", after.Status.Objects, before.Status.Objects)
	}
	s.Annotate(classKind, "web", wishAnnotation, "now")
	s.Kubectl("patch", "-n", s.Namespace, "secretproviderclass", "web", "--type=merge", "-p", `{"spec":{"parameters":{"file.more/added":"later"}}}`)
	pod.AwaitFile("/mnt/web/more/added", "later")
	if files := pod.Files("/mnt/web"); !slices.Equal(files, []string{"fixed", "more", "token"}) {
		s.Errorf("the volume holds %q", files)
	}
	// The pod is first to go: without its provider a refresh would fail.
	pod.Delete()
	pod.AwaitNothingLeft()
}

const providerManifest = `
apiVersion: v1
kind: ConfigMap
metadata: {name: content}
data: {token: one}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: provider}
spec:
  selector: {matchLabels: {app: provider}}
  template:
    metadata: {labels: {app: provider}}
    spec:
      terminationGracePeriodSeconds: 2
      containers:
      - name: main
        image: docker.io/keymount-e2e/PROVIDER:1
        args: ["--endpoint=unix:///provider/PROVIDER.sock", "--content=/content"]
        volumeMounts:
        - {name: sockets, mountPath: /provider}
        - {name: content, mountPath: /content, readOnly: true}
        # Only for a provider that writes itself: the driver's mounts have to be seen.
        - {name: pods, mountPath: /var/lib/kubelet/pods, mountPropagation: HostToContainer}
      volumes:
      - name: sockets
        hostPath: {path: /var/run/secrets-store-csi-providers}
      - name: content
        configMap: {name: content}
      - name: pods
        hostPath: {path: /var/lib/kubelet/pods}
---
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata: {name: web}
spec:
  provider: PROVIDER
  parameters:
    from.token: token
    file.fixed: of the class
    mode.fixed: "0400"
---
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
    - {name: secrets, mountPath: /mnt/web, readOnly: true}
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: web}
`
