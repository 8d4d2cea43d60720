package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"keymount/internal/daemon"
	"keymount/internal/process"
	"keymount/internal/socket"
)

func noEnv(string) string { return "" }

func endpoint(t *testing.T, text string) socket.Endpoint {
	t.Helper()
	e, err := socket.ParseEndpoint(text)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// base is what no flag at all means: upstream's defaults.
func base(t *testing.T) daemon.Config {
	return daemon.Config{
		Endpoint: endpoint(t, "unix:///tmp/csi.sock"), DriverName: "secrets-store.csi.k8s.io", StateDir: "/tmp",
		Providers: daemon.ProvidersConfig{
			Folders:   []string{"/etc/kubernetes/secrets-store-csi-providers", "/var/run/secrets-store-csi-providers"},
			MaxAnswer: 4194304,
		},
		Rotation:    daemon.RotationConfig{Interval: 2 * time.Minute, MinInterval: 30 * time.Second},
		MetricsAddr: ":8095",
	}
}

// A row is a command line, with ␣ for a blank inside of an argument, and what it changes.
func TestFlags(t *testing.T) {
	t.Attr("conformance", "12.2/csidriver-name")
	t.Attr("conformance", "12.2/metrics-port")
	t.Attr("conformance", "12.2/provider-folders")
	t.Attr("conformance", "10.3/pprof")
	for _, tc := range []struct {
		args   string
		change func(*daemon.Config)
	}{
		{"", func(*daemon.Config) {}},
		{"-endpoint unix:///csi/csi.sock", func(c *daemon.Config) { c.Endpoint, c.StateDir = endpoint(t, "unix:///csi/csi.sock"), "/csi" }},
		{"--endpoint=TCP://127.0.0.1:9000", func(c *daemon.Config) { c.Endpoint, c.StateDir = endpoint(t, "tcp://127.0.0.1:9000"), "" }},
		{"--endpoint=tcp://:9000 --state-dir=/var/lib/x", func(c *daemon.Config) { c.Endpoint, c.StateDir = endpoint(t, "tcp://:9000"), "/var/lib/x" }},
		{"--drivername=Secrets.example.com", func(c *daemon.Config) { c.DriverName = "Secrets.example.com" }},
		{"--nodeid node-1", func(c *daemon.Config) { c.NodeName = "node-1" }},
		{"--kubeconfig=/k", func(c *daemon.Config) { c.Kubeconfig = "/k" }},
		{"--provider-volume=/p", func(c *daemon.Config) { c.Providers.Folders[1] = "/p" }},
		{"--additional-provider-volume-paths=/b,/a", func(c *daemon.Config) {
			c.Providers.Folders = []string{"/b", "/a", "/var/run/secrets-store-csi-providers"}
		}},
		{"--additional-provider-volume-paths=", func(c *daemon.Config) { c.Providers.Folders = c.Providers.Folders[1:] }},
		{"--additional-provider-volume-paths=,␣/a␣,,", func(c *daemon.Config) { c.Providers.Folders[0] = "/a" }},
		{"--enable-secret-rotation --rotation-poll-interval=10s", func(c *daemon.Config) { c.Rotation.Enabled, c.Rotation.Interval = true, 10*time.Second }},
		{"--enable-secret-rotation=true --rotation-poll-interval=0", func(c *daemon.Config) { c.Rotation.Enabled, c.Rotation.Interval = true, 0 }},
		{"--min-rotation-poll-interval=1s", func(c *daemon.Config) { c.Rotation.MinInterval = time.Second }},
		{"--metrics-addr=127.0.0.1:0", func(c *daemon.Config) { c.MetricsAddr = "127.0.0.1:0" }},
		{"--metrics-addr=0", func(c *daemon.Config) { c.MetricsAddr = "" }},
		{"--metrics-addr=", func(c *daemon.Config) { c.MetricsAddr = ":8080" }},
		{"--metrics-backend=PROMETHEUS", func(*daemon.Config) {}},
		{"--enable-pprof", func(c *daemon.Config) { c.PprofAddr = "127.0.0.1:6065" }},
		{"--pprof-port=1", func(*daemon.Config) {}},
		{"--enable-pprof --pprof-port=7000", func(c *daemon.Config) { c.PprofAddr = "127.0.0.1:7000" }},
		{"--max-call-recv-msg-size=1", func(c *daemon.Config) { c.Providers.MaxAnswer = 1 }},
		{"--provider-health-check", func(c *daemon.Config) { c.Providers.HealthCheckInterval = 2 * time.Minute }},
		{"--provider-health-check-interval=0", func(*daemon.Config) {}},
		{"--provider-health-check --provider-health-check-interval=1m", func(c *daemon.Config) { c.Providers.HealthCheckInterval = time.Minute }},
		{"-v=5 -vmodule=a=1 -logtostderr -alsologtostderr=false -stderrthreshold=2 -log_file= -log_dir= -log_file_max_size=1 " +
			"-log_backtrace_at=a.go:1 -add_dir_header -skip_headers -skip_log_headers -one_output --log-format-json", func(*daemon.Config) {}},

		{"--builtin-providers=", func(*daemon.Config) {}},
		{"--builtin-providers=azure", func(c *daemon.Config) {
			c.Providers.Azure = &daemon.AzureConfig{ConstructPEMChain: true, ShareReadsFor: 5 * time.Second}
		}},
		{"--builtin-providers=azure --cloud-name=AzureChinaCloud --construct-pem-chain=false --write-cert-and-key-in-separate-files --share-reads-for=0s",
			func(c *daemon.Config) {
				c.Providers.Azure = &daemon.AzureConfig{CloudName: "AzureChinaCloud", WriteCertAndKeyInSeparateFiles: true}
			}},
		{"--builtin-providers=azure --provider-volume= --additional-provider-volume-paths=", func(c *daemon.Config) {
			c.Providers.Folders = nil
			c.Providers.Azure = &daemon.AzureConfig{ConstructPEMChain: true, ShareReadsFor: 5 * time.Second}
		}},
		{"--registration-dir=/registration --kubelet-registration-path=/var/lib/kubelet/csi.sock --nodeid=n", func(c *daemon.Config) {
			c.NodeName = "n"
			c.Registration = &daemon.RegistrationConfig{Dir: "/registration", KubeletPath: "/var/lib/kubelet/csi.sock"}
		}},
		{"--health-addr=:9808", func(c *daemon.Config) { c.HealthAddr = ":9808" }},
		{"--mount-noexec", func(c *daemon.Config) { c.MountNoexec = true }},
		{"--service-account-annotations=b.io/x,a,,b.io/x", func(c *daemon.Config) { c.ServiceAccountAnnotations = []string{"a", "b.io/x"} }},
		{`--provider-audiences=aws=sts.amazonaws.com --provider-audiences=vault="",vault --provider-audiences=gcp=`, func(c *daemon.Config) {
			c.Providers.Audiences = map[string][]string{"aws": {"sts.amazonaws.com"}, "vault": {"", "vault"}, "gcp": {}}
		}},
	} {
		args := strings.Fields(tc.args)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "␣", " ")
		}
		opt, err := parse(args, noEnv, io.Discard)
		if err != nil {
			t.Errorf("%s: %v", tc.args, err)
			continue
		}
		want := base(t)
		tc.change(&want)
		if !reflect.DeepEqual(opt.config, want) {
			t.Errorf("%s:\n%+v, want\n%+v", tc.args, opt.config, want)
		}
	}
}

// The arguments that upstream's charts of 1.5.6 and 1.6.0 give are taken as they are.
func TestUpstreamArguments(t *testing.T) {
	t.Attr("conformance", "12.2/upstream-arguments")
	for _, args := range []string{
		"--endpoint=unix:///csi/csi.sock --nodeid=n --provider-volume=/var/run/secrets-store-csi-providers " +
			"--additional-provider-volume-paths=/etc/kubernetes/secrets-store-csi-providers --metrics-addr=:8095 " +
			"--provider-health-check-interval=2m --max-call-recv-msg-size=4194304",
		"--log-format-json=true -v=5 --endpoint=unix:///csi/csi.sock --nodeid=n --provider-volume=/p --additional-provider-volume-paths=/q " +
			"--enable-secret-rotation=true --rotation-poll-interval=2m --metrics-addr=:8080 --provider-health-check=false " +
			"--provider-health-check-interval=2m --max-call-recv-msg-size=4194304",
	} {
		opt, err := parse(strings.Fields(args), noEnv, io.Discard)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		// What goes beyond upstream is off.
		if c := opt.config; c.Registration != nil || c.HealthAddr != "" || c.Providers.Azure != nil || c.MountNoexec || c.Providers.Audiences != nil {
			t.Errorf("%s: %+v", args, c)
		}
	}
}

func TestEnvironment(t *testing.T) {
	env := map[string]string{"AZURE_ENVIRONMENT_FILEPATH": "/cloud.json", "AZURE_AUTHORITY_HOST": "https://login.example"}
	opt, err := parse([]string{"--builtin-providers=azure"}, func(name string) string { return env[name] }, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if a := opt.config.Providers.Azure; a.CloudFile != "/cloud.json" || a.AuthorityHost != "https://login.example" {
		t.Errorf("%+v", a)
	}
}

// A message names the flag, its value and the remedy.
func TestWrongFlags(t *testing.T) {
	for _, tc := range []struct{ args, want string }{
		{"--drivername=", "--drivername=: give the name of the CSIDriver object"},
		{"--drivername=a/b", "--drivername=a/b: give the name"},
		{"--drivername=" + strings.Repeat("a", 64), ": give the name"},
		{"--endpoint=", `invalid value "" for flag -endpoint: invalid endpoint:  (want`},
		{"--max-call-recv-msg-size=0", "--max-call-recv-msg-size=0: give a number of bytes from 1"},
		{"--max-call-recv-msg-size=2147483648", "--max-call-recv-msg-size=2147483648: give"},
		{"--provider-volume= --additional-provider-volume-paths=,", "--provider-volume=: there would be no provider at all"},
		{"--builtin-providers=azure,aws", `--builtin-providers=azure,aws: there is no "aws": give azure, or`},
		{"--provider-health-check --provider-health-check-interval=0", "--provider-health-check-interval=0s: give more than 0s"},
		{"--service-account-annotations=a/b/c", `--service-account-annotations=a/b/c: "a/b/c" is no key`},
		{"--service-account-annotations=" + manyKeys(), "give at most 32"},
		{"--provider-audiences=aws", `invalid value "aws" for flag -provider-audiences: want provider=audience,audience`},
		{"--provider-audiences=a/b=c", "want provider=audience,audience"},
		{"--provider-audiences=aws=a --provider-audiences=aws=b", `provider "aws" was there already`},
		{"--cloud-name=AzureChinaCloud", "--cloud-name: it is for the built-in Azure provider: give --builtin-providers=azure too"},
		{"--share-reads-for=5s", "--share-reads-for: it is for the built-in"},
		{"--builtin-providers=azure --share-reads-for=2h", "--share-reads-for=2h0m0s: give a duration from 0s to 1m0s"},
		{"--builtin-providers=azure --share-reads-for=-1s", "--share-reads-for=-1s: give"},
		{"--rotation-poll-interval=-1s", "--rotation-poll-interval=-1s: give 0s or more"},
		{"--rotation-poll-interval=2", `invalid value "2" for flag -rotation-poll-interval: parse error (give a time with its unit, such as 2m)`},
		{"--max-call-recv-msg-size=x", `invalid value "x" for flag -max-call-recv-msg-size: parse error`},
		{"--min-rotation-poll-interval=0", "--min-rotation-poll-interval=0s: give 1s or more"},
		{"--registration-dir=/r", "--registration-dir=/r: give --kubelet-registration-path too"},
		{"--kubelet-registration-path=/k", "--kubelet-registration-path=/k: give --registration-dir too"},
		{"--registration-dir=/r --kubelet-registration-path=k --nodeid=n", "--kubelet-registration-path=k: give an absolute path"},
		{"--registration-dir=/r --kubelet-registration-path=/k", "--registration-dir=/r: kubelet registers no driver without a node"},
		{"--registration-dir=/r --kubelet-registration-path=/k --nodeid=n --endpoint=tcp://:1", "--registration-dir=/r: kubelet reaches unix sockets only"},
		{"--metrics-backend=StatsD", "--metrics-backend=StatsD: there is only Prometheus"},
		{"--enable-pprof --pprof-port=65536", "--pprof-port=65536: give a port from 1 to 65535"},
		{"--metrics-addr=8095", "--metrics-addr=8095: give host:port or :port"},
		{"--health-addr=:x", "--health-addr=:x: give host:port"},
		{"--health-addr=:", "--health-addr=:: give host:port"},
		{"serve", `unexpected argument "serve"`},
	} {
		_, err := parse(strings.Fields(tc.args), noEnv, io.Discard)
		var usage process.UsageError
		if !errors.As(err, &usage) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.args, err, tc.want)
		}
	}
}

func manyKeys() string {
	var keys []string
	for c := 'a'; c <= 'z'; c++ {
		keys = append(keys, "x/"+string(c), "y/"+string(c))
	}
	return strings.Join(keys, ",")
}

// Help shows every flag, with words about it, or lists it among those without effect.
func TestHelpIsComplete(t *testing.T) {
	var out bytes.Buffer
	if _, err := parse([]string{"-h"}, noEnv, &out); !errors.Is(err, flag.ErrHelp) {
		t.Fatal(err)
	}
	flags := flag.NewFlagSet("", flag.ContinueOnError)
	opt, in := &options{config: daemon.DefaultConfig()}, &raw{}
	register(flags, opt, in)
	flags.VisitAll(func(f *flag.Flag) {
		if n := strings.Count(out.String(), "\n  --"+f.Name+" "); n != 1 && !strings.Contains(out.String(), " --"+f.Name) {
			t.Errorf("--%s is not in help", f.Name)
		}
		if f.Usage == "" && !strings.Contains(out.String()[strings.Index(out.String(), "without effect:"):], " --"+f.Name) {
			t.Errorf("help does not say what --%s does", f.Name)
		}
	})
}
