package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azsecrets"
	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary is the program under test, and "readsecret", a program that knows nothing of the emulator.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"keyvault-emulator": main,
		"readsecret":        readSecret,
		"fetch":             fetch,
		"waitsignal":        waitSignal,
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata", Setup: func(env *testscript.Env) error {
		env.Setenv("GORACE", "atexit_sleep_ms=0") // else the race detector keeps each program for a second at its end
		return nil
	}})
}

// readSecret prints a secret, by the SDK with all its defaults: readsecret VAULT-URL NAME. The identity is from the SDK's own
// variables: a client secret, or a federated token file.
func readSecret() {
	if err := printSecret(context.Background(), os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func printSecret(ctx context.Context, vault, name string) error {
	var cred azcore.TokenCredential
	var err error
	if os.Getenv("AZURE_FEDERATED_TOKEN_FILE") != "" {
		cred, err = azidentity.NewWorkloadIdentityCredential(nil)
	} else {
		cred, err = azidentity.NewEnvironmentCredential(nil)
	}
	if err != nil {
		return err
	}
	c, err := azsecrets.NewClient(vault, cred, nil)
	if err != nil {
		return err
	}
	got, err := c.GetSecret(ctx, name, "", nil)
	if err != nil {
		return err
	}
	fmt.Println(*got.Value)
	return nil
}

// fetch is a plain GET without retries: fetch URL.
func fetch() {
	resp, err := http.Get(os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	resp.Body.Close()
	fmt.Println(resp.Status)
}

// waitSignal prints the first signal that it gets and exits with 7: waitsignal READY-FILE.
func waitSignal() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	if err := os.WriteFile(os.Args[1], []byte(fmt.Sprint(os.Getppid())), 0o600); err != nil {
		os.Exit(1)
	}
	fmt.Println("got", <-c)
	os.Exit(7)
}
