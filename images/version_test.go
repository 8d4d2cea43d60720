package main

import (
	"path/filepath"
	"regexp"
	"testing"
)

// The charts ask for images of the tag that is made unless another is asked for.
func TestDefaultVersionIsTheCharts(t *testing.T) {
	charts, err := filepath.Glob("../charts/*/Chart.yaml")
	if err != nil || len(charts) != 2 {
		t.Fatalf("the charts are %q (%v), want two", charts, err)
	}
	for _, chart := range charts {
		got := regexp.MustCompile(`(?m)^appVersion: "?([^"\n]*)"?$`).FindStringSubmatch(read(t, chart))
		if got == nil || got[1] != defaultVersion {
			t.Errorf("%s: appVersion %q, and images are made with %q", chart, got, defaultVersion)
		}
	}
}
