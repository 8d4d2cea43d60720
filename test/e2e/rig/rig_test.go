//go:build integration && linux

package rig

import (
	"slices"
	"testing"
)

func TestErrorLines(t *testing.T) {
	for line, want := range map[string]bool{
		`time=2026-11-27T10:00:00Z level=ERROR msg="call failed" err="x"`:     true,
		`{"time":"2026-11-27T10:00:00Z","level":"ERROR","msg":"call failed"}`: true,
		`E1127 10:00:00.000000       1 server.go:92] "failed"`:                true,
		`F1127 10:00:00.000000       1 main.go:92] cannot start`:              true,
		`panic: runtime error: index out of range`:                            true,
		`WARNING: DATA RACE`: true,
		`time=2026-11-27T10:00:00Z level=WARN msg="x" err="level=ERRORS"`:       false,
		`time=2026-11-27T10:00:00Z level=INFO msg="volume mounted" files=3`:     false,
		`I1127 10:00:00.000000       1 main.go:92] "E1127 10:00:00 was before"`: false,
	} {
		if got := errorLine.MatchString(line); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestDeclarations(t *testing.T) {
	d := &declaration{texts: []string{"secrets-store: ", "ns/web"}}
	for line, want := range map[string]bool{"pod secrets-store: ns/web failed": true, "pod secrets-store: ns/app failed": false, "ns/web": false} {
		if got := d.matches(line); got != want {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{"MissingClass": "missing-class", "PFX": "p-f-x", "A": "a"} {
		if got := kebab(name); got != want {
			t.Errorf("%s is %s", name, got)
		}
	}
}

type phaseForTest struct{}

func (phaseForTest) Second(*Scenario) {}
func (phaseForTest) First(*Scenario)  {}

type phaseWithMistake struct{}

func (phaseWithMistake) Wrong() {}

func TestMethodsAreScenarios(t *testing.T) {
	var names []string
	for name := range methods(phaseForTest{}) {
		names = append(names, name)
	}
	if !slices.Equal(names, []string{"First", "Second"}) {
		t.Errorf("the scenarios are %v", names)
	}
	defer func() {
		if recover() == nil {
			t.Error("a method that is no scenario is passed over")
		}
	}()
	for range methods(phaseWithMistake{}) {
	}
}

func TestDocuments(t *testing.T) {
	all, err := documents("\n---\n# nothing\n---\nkind: A\nmetadata: {name: a}\n---\nkind: B\n")
	if err != nil || len(all) != 2 || all[0].GetName() != "a" || all[1].GetKind() != "B" {
		t.Errorf("%v, %v", all, err)
	}
	if _, err := documents("kind: A\nkind: B\n"); err == nil {
		t.Error("a member that stands twice is taken")
	}
}
