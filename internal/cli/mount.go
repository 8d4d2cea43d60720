package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// mountOptions is the command line of keymount mount.
type mountOptions struct {
	file, class string
	set         []string
	dir         string
	socket      string
	output      string
	watch       bool
	interval    time.Duration
	identity    identityOptions
}

func mountCommand(env Env) *cobra.Command {
	o := &mountOptions{}
	cmd := &cobra.Command{
		Use:     "mount -f CLASS.yaml DIR",
		Short:   "Write what a SecretProviderClass names into a folder",
		Long:    mountHelp + "\n\n" + exitCodeHelp,
		Example: mountExample,
		Args:    usageArgs(oneFolder, "keymount mount"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.dir = args[0]
			return o.run(cmd.Context(), env)
		},
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	fs.StringVarP(&o.file, "file", "f", "", "`manifest` that holds the SecretProviderClass; - is standard input")
	fs.StringVar(&o.class, "class", "", "`name` of the class, where the manifest holds several")
	fs.StringArrayVar(&o.set, "set", nil, "set a parameter of the class, `KEY=VALUE`, as a pod's volumeAttributes do; may be repeated")
	fs.BoolVarP(&o.watch, "watch", "w", false, "stay, refresh the files, and say what changed; SIGHUP refreshes at once")
	fs.DurationVar(&o.interval, "interval", defaultInterval, "time between refreshes, at least "+minInterval.String())
	fs.StringVarP(&o.output, "output", "o", "table", "`form` of the output: table, or json (one object per line)")
	o.identity.flags(fs)
	fs.StringVar(&o.socket, "provider-socket", "", "`socket` (a path, or unix:///path) of a provider to use instead of the built-in ones")
	return cmd
}

func oneFolder(_ *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return errors.New("which folder? DIR is missing")
	case len(args) > 1:
		return fmt.Errorf("one folder at a time, not %q", args)
	case args[0] == "":
		return errors.New("the name of the folder is empty")
	}
	return nil
}

const mountHelp = `Reads the secrets, keys and certificates that a SecretProviderClass names and writes them into the
folder DIR, which is made if it does not exist, and which only you may enter (mode 0700). The files
change all at once: a reader of DIR/..data/NAME sees the old content or the new one, never a mixture.
Contents are never printed.

The class is the manifest that clusters use (apiVersion secrets-store.csi.x-k8s.io/v1), as it is.
What a pod would bring along comes from here:

  service principal   AZURE_CLIENT_ID and AZURE_CLIENT_SECRET, or --client-id and --client-secret-file,
                      in place of the Secret that nodePublishSecretRef names
  workload identity   --token-file or AZURE_FEDERATED_TOKEN_FILE, in place of the pod's token
  the pod itself      name "keymount", service account "default", in the namespace of the class

With --identity you ask as somebody else than the class says: as yourself after "az login"
(--identity default), or with a client secret or a token of your own.`

const mountExample = `  # as the class says, for a class that uses a service principal
  export AZURE_CLIENT_ID=... AZURE_CLIENT_SECRET=...
  keymount mount -f class.yaml ./secrets

  # as yourself, another vault than the class names, and keep the files fresh
  az login
  keymount mount -f class.yaml --identity default --set keyvaultName=my-dev-vault --watch ./secrets

  # a class of a cluster, through any provider's socket
  kubectl get secretproviderclass app -o yaml |
    keymount mount -f - --provider-socket /run/vault.sock ./secrets`

// check lists what makes a command line impossible, before anything is touched.
func (o *mountOptions) check() error {
	const help = `"keymount mount --help" shows how it is used`
	switch {
	case o.file == "":
		return &usageError{"which class? -f is missing", "give the manifest with -f CLASS.yaml, or -f - for standard input"}
	case o.output != "table" && o.output != "json":
		return &usageError{fmt.Sprintf("--output %q is not known", o.output), "use table or json"}
	case o.interval < minInterval:
		return &usageError{fmt.Sprintf("--interval %v is too short", o.interval), "use " + minInterval.String() + " or more"}
	}
	for _, s := range o.set {
		if key, _, ok := strings.Cut(s, "="); !ok || key == "" {
			return &usageError{fmt.Sprintf("--set %q has no KEY=VALUE", s), help}
		}
	}
	return nil
}

func (o *mountOptions) run(ctx context.Context, env Env) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := o.identity.complete(env.Getenv, o.socket != ""); err != nil {
		return err
	}
	class, err := readClass(o.file, o.class, env.In)
	if err != nil {
		return err
	}
	m, err := newMounting(o, env, class)
	if err != nil {
		return err
	}
	defer m.close()
	if !o.watch {
		return m.first(ctx)
	}
	now := make(chan os.Signal, 1)
	signal.Notify(now, syscall.SIGHUP) // before the first line is printed: whoever reads it may send one
	defer signal.Stop(now)
	if err := m.first(ctx); err != nil {
		return err
	}
	return m.watch(ctx, now)
}
