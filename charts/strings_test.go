package charts

import (
	"strings"
	"testing"
)

// `helm --set`, and Terraform's set with it, makes true a boolean and 8095 a number also where Kubernetes takes strings only.
func TestValuesThatLookLikeOtherTypes(t *testing.T) {
	t.Parallel()
	const both = `
serviceAccount: {annotations: {a: BOOL}}
podMonitor: {enabled: true, labels: {release: NUMBER}}
linux:
  podAnnotations: {prometheus.io/scrape: BOOL, prometheus.io/port: NUMBER}
  podLabels: {a: BOOL}
  nodeSelector: {pool: NUMBER}
  tolerations: [{key: a, value: BOOL, tolerationSeconds: 1000000}, {operator: Exists}]
  env: [{name: A, value: NUMBER}, {name: B, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
`
	for chart, text := range map[string]string{
		driverChart:   both + "  daemonsetAnnotations: {a: BOOL}\ncommonLabels: {a: NUMBER}\n",
		providerChart: both + "secrets-store-csi-driver: {commonLabels: {a: BOOL}, linux: {podLabels: {a: NUMBER}}}\n",
	} {
		given := objects(t, chart, strings.NewReplacer("BOOL", "true", "NUMBER", "1000000").Replace(text))
		if !equal(t, given, objects(t, chart, strings.NewReplacer("BOOL", `"true"`, "NUMBER", `"1000000"`).Replace(text))) {
			t.Errorf("%s: it is not the same as with strings", chart)
		}
	}
}
