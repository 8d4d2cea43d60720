//go:build integration && linux

// Command returner is a provider of the test cluster that returns its files to the driver, as today's providers do.
package main

import (
	"os"

	"keymount/api/provider/v1alpha1"
	"keymount/test/e2e/providers/serve"
)

func main() {
	os.Exit(serve.Main(serve.Provider{
		Name: "returner",
		Does: "returns files to the driver",
		Mount: func(_ string, files []*v1alpha1.File) (*v1alpha1.MountResponse, error) {
			return &v1alpha1.MountResponse{Files: files}, nil
		},
	}))
}
