package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary doubles as the program, so that scripts run what users run.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"images": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(env *testscript.Env) error {
			// The first folder of PATH holds this program and nothing else.
			env.Setenv("ONLY_IMAGES", filepath.SplitList(env.Getenv("PATH"))[0])
			return nil
		},
	})
}
