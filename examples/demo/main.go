// Command demo shows keymount at work without Azure, Kubernetes or root: an emulated vault, a SecretProviderClass mounted
// into a folder, and a rotated secret that replaces the old one. `make demo` runs it.
//
// It is a user of the programs: it runs them as people do and imports nothing of the module. With KEYMOUNT_DEMO_CHECK set
// it also draws random values, compares every byte with what the vault holds, and counts the requests.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// What examples/azure says.
const (
	class        = "examples/azure/secretproviderclass.yaml"
	seed         = "examples/azure/emulator-seed.yaml"
	vault        = "keymount-demo"
	tenant       = "0b5ee2a1-8a0c-4a2d-9a3c-6a9f64f0d001"
	clientID     = "0b5ee2a1-8a0c-4a2d-9a3c-6a9f64f0c001"
	clientSecret = "not-a-real-secret"
)

// insideEnv tells the second process, which the emulator starts, where the demo's folder is.
const insideEnv = "KEYMOUNT_DEMO_INSIDE"

// patience bounds every wait. What is waited for takes a second or two.
const patience = 45 * time.Second

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if dir := os.Getenv(insideEnv); dir != "" {
		err = inside(ctx, dir)
	} else {
		err = outside(ctx)
	}
	var exit *exec.ExitError
	switch {
	case err == nil:
		return
	case errors.As(err, &exit) && os.Getenv(insideEnv) == "":
		// The second process has said why.
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted")
	default:
		fmt.Fprintf(os.Stderr, "\ndemo: FAILED: %v\n", err)
	}
	os.Exit(1)
}

// outside makes the demo's folder and starts the emulator, which starts this program again with the environment in which
// Azure's host names lead to it.
func outside(ctx context.Context) error {
	for _, program := range []string{"keymount", "keyvault-emulator"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not there: run `make demo`, which builds it", program)
		}
	}
	dir, err := os.MkdirTemp("", "keymount-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	err = writeSeed(dir)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	say("1", "An emulated Azure runs on this machine for as long as the demo does: Entra ID, and a key vault with\n"+
		"a secret, a key and a certificate ("+seed+"). Programs reach it by its\n"+
		"real name, "+vault+".vault.azure.net, and cannot tell the difference. It knows one\n"+
		"application with a client secret, and that is who asks below.")
	command("export AZURE_CLIENT_ID=" + clientID + " AZURE_CLIENT_SECRET=" + clientSecret)
	fmt.Print(indent("$ keyvault-emulator run --seed " + seed + " -- ..."))
	cmd := exec.CommandContext(ctx, "keyvault-emulator", "run", "--seed", filepath.Join(dir, "seed.yaml"), "--", self)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), insideEnv+"="+dir, "AZURE_CLIENT_ID="+clientID, "AZURE_CLIENT_SECRET="+clientSecret)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // which it passes on
	return cmd.Run()
}

// inside is the show.
func inside(ctx context.Context, dir string) error {
	expected, err := readExpected(dir)
	if err != nil {
		return err
	}
	target := filepath.Join(dir, "secrets")
	interval := 2 * time.Second
	if expected != nil {
		interval = 5 * time.Second // so that no refresh is under way when the requests are counted
	}

	say("2", "A SecretProviderClass says what to read, in the form that clusters have. keymount writes it into a\nfolder, through the same code that mounts it into pods.")
	table, err := output(ctx, "keymount", "mount", "-f", class, target)
	if err != nil {
		return err
	}
	fmt.Print(indent(table))
	if err := show(target, "db-password"); err != nil {
		return err
	}
	if expected != nil {
		if err := expected.checkMount(ctx, target, table); err != nil {
			return err
		}
	}

	say("3", fmt.Sprintf("With --watch it stays, and looks every %v whether anything is new.", interval))
	command(fmt.Sprintf("keymount mount -f %s --watch --interval %v %s &", class, interval, target))
	w, err := start(ctx, "keymount", "mount", "-f", class, "--watch", "--interval", interval.String(), target)
	if err != nil {
		return err
	}
	defer w.kill()
	if _, err := w.await("watching"); err != nil {
		return err
	}

	say("4", "The secret is rotated in the vault. keymount takes it up, and says so in one line.")
	value := expected.next()
	command("printf " + value + " | keyvault-emulator secret set " + vault + " db-password")
	version, err := rotate(ctx, value)
	if err != nil {
		return err
	}
	fmt.Print(indent(version))
	line, err := w.await("updated db-password (secret/db-password " + version + ")")
	if err != nil {
		return err
	}
	fmt.Print(indent(line))
	if err := show(target, "db-password"); err != nil {
		return err
	}

	say("5", "Ctrl-C ends it. The files stay until you remove the folder; the demo does so now.")
	if err := w.interrupt(); err != nil {
		return err
	}
	if expected != nil {
		if err := expected.checkRotation(ctx, target); err != nil {
			return err
		}
		fmt.Println("\nChecked: every byte is what the vault holds, and every request was needed.")
	}
	fmt.Println("\nThat is all. Yours next: docs/cli.md, which begins with this vault as a playground.")
	return nil
}

// say announces a step in plain words.
func say(step, text string) {
	fmt.Printf("\n%s. %s\n", step, strings.ReplaceAll(text, "\n", "\n   "))
}

// command shows what is typed.
func command(line string) { fmt.Print("\n", indent("$ "+line)) }

func indent(text string) string {
	return "     " + strings.ReplaceAll(strings.TrimRight(text, "\n"), "\n", "\n     ") + "\n"
}

// show prints a file. Only in a demo: what it holds is no secret.
func show(target, name string) error {
	command("cat secrets/" + name)
	data, err := os.ReadFile(filepath.Join(target, name))
	if err != nil {
		return err
	}
	fmt.Print(indent(string(data)))
	return nil
}
