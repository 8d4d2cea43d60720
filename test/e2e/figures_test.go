//go:build integration && linux

package e2e

import (
	"fmt"
	"strings"
	"time"

	"keymount/internal/benchdoc"
	"keymount/internal/emulator"
	"keymount/test/e2e/rig"
)

// The scenarios of figures measure what users wait for and what a node costs. What is counted is held to its promise; times depend on the machine and are
// printed, and so is memory.

const (
	figuresNode     = "n1" // where all pods are
	figuresSecrets  = 20
	figuresPods     = 50
	figuresInterval = 30 * time.Second

	vaultLatency     = 20 * time.Millisecond
	tokenLatency     = 80 * time.Millisecond
	discoveryLatency = 30 * time.Millisecond
	// shareFor is how long before a call a read may have started that serves it: the driver's default.
	shareFor = 5 * time.Second
)

// installFigures is installBuiltin as the chart is by itself, with a vault as far away as a real one.
func installFigures(s *rig.Scenario) {
	s.OnlyRelease(driverRelease)
	s.Install(driverRelease, s.Chart(driverChart), `
builtinProviders: [azure]
enableSecretRotation: true
rotationPollInterval: `+figuresInterval.String()+`
tokenRequests:
- audience: api://AzureADTokenExchange
`)
	for group, latency := range map[string]time.Duration{emulator.GroupVault: vaultLatency, emulator.GroupToken: tokenLatency, emulator.GroupDiscovery: discoveryLatency} {
		if err := s.Emulator.Server.SetLatency(group, latency); err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { _ = s.Emulator.Server.SetLatency(group, 0) })
	}
}

func figuresDriver(s *rig.Scenario) *rig.Daemon {
	s.Helper()
	return s.Daemon("secrets-store-csi-driver", figuresNode, "secrets-store", 8095)
}

// OnePod is how long a pod takes to run: without a volume, and with one whose vault and identity nobody on the node has used before.
func (f figures) OnePod(s *rig.Scenario) {
	const times = 5
	driver := figuresDriver(s)
	var bare []time.Duration
	for i := range times {
		bare = append(bare, start(s, fmt.Sprintf("bare-%d", i), ""))
	}
	f.work(s, "a pod without a volume", benchdoc.Milliseconds(benchdoc.Percentile(bare, 50)), "", "", cost{})
	for _, work := range []struct {
		secrets  int
		upstream string
	}{{1, "5 requests, the mount about 190 ms"}, {figuresSecrets, "24 requests, the mount about 650 ms"}} {
		n := work.secrets
		var total, mount []time.Duration
		var worst cost
		for i := range times {
			class := fmt.Sprintf("secrets-%d-%d", n, i)
			strangersClass(s, class, n, i)
			spent, before := spending(s, driver), mounting(driver)
			total = append(total, start(s, class, class))
			after := mounting(driver)
			mount = append(mount, after.took-before.took)
			if after.count-before.count != 1 {
				s.Errorf("there were %d first mounts, want 1", after.count-before.count)
			}
			worst = worst.or(spent())
		}
		worst.limit(s, fmt.Sprintf("the start of a pod with %d secrets", n), cost{vault: n + 2, reads: 1, writes: 1, watches: 1})
		f.work(s, fmt.Sprintf("a pod with a volume of %s", plural(n, "secret")), benchdoc.Milliseconds(benchdoc.Percentile(total, 50)),
			benchdoc.Milliseconds(benchdoc.Percentile(mount, 50)), work.upstream, worst)
	}
}

// start starts a pod, with the volume of a class if one is named, and returns how long it took to run.
func start(s *rig.Scenario, name, class string) time.Duration {
	s.Helper()
	begin := time.Now()
	s.Apply("apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + "}\nspec:" + podSpec(class))
	s.Ready(name)
	return time.Since(begin)
}

// podSpec is that of a pod with the volume of a class, read by workload identity.
func podSpec(class string) string {
	spec := `
  nodeName: ` + figuresNode + `
  serviceAccountName: reader
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: "{{.Busybox}}"
    command: [sleep, "86400"]
`
	if class == "" {
		return spec
	}
	return spec + `    volumeMounts:
    - {name: secrets, mountPath: /mnt/secrets, readOnly: true}
  volumes:
  - name: secrets
    csi:
      driver: secrets-store.csi.k8s.io
      readOnly: true
      volumeAttributes: {secretProviderClass: ` + class + `}
`
}

// strangersClass makes a class of n secrets in a vault of its own that is read by an application of its own. It is not refreshed while others are measured.
func strangersClass(s *rig.Scenario, class string, n, number int) {
	s.Helper()
	vault := fmt.Sprintf("%s-%d-%d", s.Vault[:18], n, number)
	client := fmt.Sprintf("%s%06x", s.ClientID[:30], n<<8|number)
	seed := emulator.Vault{Name: vault, Access: []emulator.Access{{App: client, Allow: []string{"*"}}}}
	for i := range n {
		seed.Secrets = append(seed.Secrets, emulator.Secret{Name: secretName(i), SecretVersion: emulator.SecretVersion{Value: "v"}})
	}
	s.Load(emulator.Seed{
		Tenants: []emulator.Tenant{{ID: s.Tenant, Apps: []emulator.App{{ClientID: client,
			Federated: []emulator.Federated{{Issuer: rig.Issuer, Subject: "system:serviceaccount:" + s.Namespace + ":reader"}}}}}},
		Vaults: []emulator.Vault{seed},
	})
	secretsClass(s, class, vault, client, n, `annotations: {keymount.dev/rotation-poll-interval: 1h}`)
}

// secretsClass makes a class of the first n secrets of a vault.
func secretsClass(s *rig.Scenario, name, vault, client string, n int, metadata string) {
	s.Helper()
	var objects strings.Builder
	for i := range n {
		fmt.Fprintf(&objects, "        - |\n          {objectName: %s, objectType: secret}\n", secretName(i))
	}
	s.Apply(`
apiVersion: secrets-store.csi.x-k8s.io/v1
kind: SecretProviderClass
metadata:
  name: ` + name + `
  ` + metadata + `
spec:
  provider: azure
  parameters:
    clientID: ` + client + `
    keyvaultName: ` + vault + `
    tenantID: "{{.Tenant}}"
    objects: |
      array:
` + objects.String())
}

func secretName(i int) string { return fmt.Sprintf("secret-%02d", i) }

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}
