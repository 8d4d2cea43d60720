package charts

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
)

// A PodMonitor finds the pods of its release whatever labels users give them, and takes labels that are there already.
func TestPodMonitorFindsThePods(t *testing.T) {
	t.Parallel()
	for _, row := range []struct{ chart, set, text string }{
		{driverChart, daemonSetName, "commonLabels: {app.kubernetes.io/instance: mine, app: mine}"},
		{driverChart, daemonSetName, "linux: {podLabels: {app.kubernetes.io/instance: mine}}"},
		{driverChart, daemonSetName, ""},
		{providerChart, providerDaemonSet, "linux: {podLabels: {app.kubernetes.io/instance: mine, app: mine}}"},
		{providerChart, providerDaemonSet, ""},
	} {
		text := row.text + "\npodMonitor: {enabled: true, labels: {app: other}}"
		all := objects(t, row.chart, text)
		pods := find[*appsv1.DaemonSet](t, all, row.set).Spec.Template.Labels
		monitor := find[*podMonitor](t, all, "PodMonitor/test-"+row.chart)
		selector := monitor.Spec.Selector.MatchLabels
		for _, label := range []string{"app", "app.kubernetes.io/instance"} {
			if selector[label] == "" || selector[label] != pods[label] {
				t.Errorf("%s with %q: pods have %v, and the PodMonitor asks for %v", row.chart, row.text, pods, selector)
			}
		}
		if monitor.Labels["app"] != "other" {
			t.Errorf("%s: labels of the PodMonitor are %v", row.chart, monitor.Labels)
		}
	}
}

// Names that YAML would read as numbers stay names.
func TestNamesOfDigits(t *testing.T) {
	t.Parallel()
	for _, chart := range []string{driverChart, providerChart} {
		i := installation{Release: "1234", Namespace: "567",
			Values: values(t, "{nameOverride: '12', podMonitor: {enabled: true}, serviceAccount: {name: '8'}}")}
		all := i.objects(t, chart)
		set := find[*appsv1.DaemonSet](t, all, "DaemonSet/1234")
		if set.Namespace != "567" || set.Spec.Selector.MatchLabels["app"] != "12" || set.Spec.Template.Spec.ServiceAccountName != "8" {
			t.Errorf("the DaemonSet is %+v", set)
		}
		find[*podMonitor](t, all, "PodMonitor/1234")
	}
}
