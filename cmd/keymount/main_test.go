package main

import (
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary doubles as the program, so that scripts run what users run.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"keymount": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:   "testdata",
		Setup: func(env *testscript.Env) error { return newStage(t, env) },
		Cmds:  commands(),
	})
}
