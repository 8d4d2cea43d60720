//go:build integration && linux

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
	"keymount/internal/emulator"
	"keymount/internal/emulator/emulatortest"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// Whatever the driver does, and whatever providers do to it, no secret comes out of it but in the files of the volume and
// in the data of the Secrets that its class asks for.
func TestRootCanaries(t *testing.T) {
	for name, args := range map[string][]string{"text": nil, "json": {"--log-format-json"}} {
		t.Run(name, func(t *testing.T) {
			a := newAviary(t, args...)
			a.vaultScenario()
			a.secretScenario()
			kept, provider := a.socketScenario()
			a.hostileScenario(provider)
			a.driver.Restart()
			control := a.control(kept, provider)

			texts := a.emitted()
			others, written := a.objects()
			maps.Copy(texts, others)
			a.dump(texts)
			a.search(texts, append(a.secret, a.given...))
			a.search(written, a.secret)
			a.wantControl(control, texts, "answers", "log", "folders", "metrics", "events", "secretproviderclasspodstatuses")
			a.wantLive(texts)
			a.wantHardened(texts["limits"])
		})
	}
}

// vaultScenario is the life of a volume of the built-in provider, and a pod that has a wrong client secret.
func (a *aviary) vaultScenario() {
	a.Helper()
	a.given = append(a.given, newCanary("client secret", emulatortest.ClientSecret))
	one, two := a.hatch("secret of the vault"), a.hatch("secret of the vault, changed")
	key := newKey(a.T)
	a.keep(&a.secret, "private key of the vault", key)
	a.emu.PutSecret(vault, "db", one)
	a.emu.PutSecret(vault, "tls", key)
	a.class("app", "azure", nil, "keyvaultName: "+vault, "tenantId: "+emulatortest.Tenant, "password: "+scalar(a.put("parameter of the class")),
		"objects: |\n  array:\n    - |\n      objectName: db\n      objectType: secret\n    - |\n      objectName: tls\n      objectType: secret\n")
	a.principal("sp")
	v := a.volume("app", withSecret("sp"), withAttribute("accessToken", a.put("attribute of the pod")))
	a.mustPublish(v)
	a.wantFiles(v, map[string]string{"db": one, "tls": key})

	a.emu.PutSecret(vault, "db", two)
	elapse(a.T, time.Second)
	a.mustRepublish(v)
	a.wantFiles(v, map[string]string{"db": two, "tls": key})
	clear := a.emu.SetFault(emulator.Fault{Do: emulator.ActStatus, Status: 403, Kind: emulator.KindSecretGet})
	elapse(a.T, time.Second)
	a.mustRepublish(v)
	a.awaitEvent("Warning MountRotationFailed")
	clear()
	a.mustUnpublish(v)

	a.credentials("wrong", map[string]string{"clientid": emulatortest.ClientID, "clientsecret": a.put("wrong client secret")})
	a.mustFail("a wrong client secret", a.volume("app", withSecret("wrong")))
}

// socketScenario has volumes of a provider behind a socket, which is given tokens in either place. It returns the one that
// stays mounted.
func (a *aviary) socketScenario() (*kubelet.Volume, *scripted) {
	a.Helper()
	provider := a.provide(a.driver.Providers, "scripted")
	a.class("sock", "scripted", nil, "clientKey: "+scalar(a.put("parameter of the other class")))
	a.credentials("creds", map[string]string{"password": a.put("node publish secret"), "key": a.keep(&a.given, "key for the provider", newKey(a.T))})

	applyCSIDriver(a.T, `, tokenRequests: [{audience: "api://canary"}, {audience: ""}]`)
	v := a.socketVolume()
	a.mustPublish(v)
	a.tokensOf("in the volume context", provider.last().GetAttributes())
	provider.say(a.answer("contents of the provider"))
	elapse(a.T, time.Second)
	a.mustRepublish(v)
	provider.do(echo)
	elapse(a.T, time.Second)
	a.mustRepublish(v)
	a.mustUnpublish(v)

	applyCSIDriver(a.T, `, tokenRequests: [{audience: "api://canary"}], serviceAccountTokenInSecrets: true`)
	kept := a.socketVolume()
	provider.say(a.answer("contents of the kept volume"))
	a.mustPublish(kept)
	a.tokensOf("in the secrets", provider.last().GetSecrets())
	return kept, provider
}

func (a *aviary) socketVolume() *kubelet.Volume {
	a.Helper()
	return a.volume("sock", withSecret("creds"), withAttribute("password", a.put("attribute for the provider")))
}

// answer is one with a file that holds a canary.
func (a *aviary) answer(name string) *v1alpha1.MountResponse {
	resp := content(name, "a")
	resp.Files[0].Contents = []byte(a.hatch(name))
	return resp
}

// echo is what a provider does that prints what it was asked.
func echo(_ context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
	var attributes map[string]string
	err := json.Unmarshal([]byte(in.GetAttributes()), &attributes)
	return nil, errors.Join(err, fmt.Errorf("cannot mount %s %q", in.GetSecrets(), attributes[kubelet.TokensKey]))
}

func (p *scripted) last() *v1alpha1.MountRequest { all := p.asked(); return all[len(all)-1] }

// tokensOf takes the tokens out of what a provider was given, so that they are searched for.
func (a *aviary) tokensOf(where, text string) {
	a.Helper()
	var fields map[string]string
	var tokens map[string]struct{ Token string }
	err := json.Unmarshal([]byte(text), &fields)
	if err == nil {
		err = json.Unmarshal([]byte(fields[kubelet.TokensKey]), &tokens)
	}
	if err != nil || len(tokens) == 0 {
		a.Fatalf("%d tokens %s: %v", len(tokens), where, err)
	}
	for audience, token := range tokens {
		a.secret = append(a.secret, newToken(fmt.Sprintf("token %s for %q", where, audience), token.Token)...)
	}
}

// hostileScenario has first mounts fail in the ways of providers that are clumsy, or mean it.
func (a *aviary) hostileScenario(provider *scripted) {
	a.Helper()
	odd := func(change func(*v1alpha1.File)) *v1alpha1.MountResponse {
		resp := a.answer("contents of an answer that is refused")
		change(resp.Files[0])
		return resp
	}
	for what, answer := range map[string]func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error){
		"the request, quoted": func(in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			return nil, fmt.Errorf("cannot mount %q", in.GetSecrets())
		},
		"its token behind a long text": func(in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			return nil, errors.New(strings.Repeat("cannot mount ", 150) + in.GetSecrets()[strings.Index(in.GetSecrets(), "serviceAccount.tokens"):])
		},
		"its secrets as an error code": func(in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			return &v1alpha1.MountResponse{Error: &v1alpha1.Error{Code: in.GetSecrets()}}, nil
		},
		"the request in details": func(in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			st, err := status.New(codes.Internal, "text").WithDetails(in, &errdetails.ErrorInfo{Domain: "keymount.dev", Reason: "denied",
				Metadata: map[string]string{"object": "o", "message": in.GetSecrets(), "remedy": in.GetSecrets()}})
			return nil, errors.Join(err, st.Err())
		},
		"a file outside": func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			return odd(func(f *v1alpha1.File) { f.Path = "../../a" }), nil
		},
		"an odd mode": func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			return odd(func(f *v1alpha1.File) { f.Mode = -1 }), nil
		},
		"a name with escapes": func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			return odd(func(f *v1alpha1.File) { f.Path = "a\x1b[2J\n/../b" }), nil
		},
		"no versions": func(*v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) {
			resp := odd(func(*v1alpha1.File) {})
			resp.ObjectVersion = nil
			return resp, nil
		},
	} {
		provider.do(func(_ context.Context, in *v1alpha1.MountRequest) (*v1alpha1.MountResponse, error) { return answer(in) })
		a.mustFail(what, a.socketVolume())
	}
}

// control lets one canary out by the ways that a provider's own words take, so that a search that finds nothing has looked
// where something comes out.
func (a *aviary) control(kept *kubelet.Volume, provider *scripted) canary {
	a.Helper()
	text := "control" + strings.ToLower(kept.ID[4:24])
	provider.fail(errors.New("cannot mount " + text))
	elapse(a.T, time.Second)
	a.mustRepublish(kept)
	a.mustFail("the control", a.socketVolume())
	provider.say(&v1alpha1.MountResponse{Error: &v1alpha1.Error{Code: text}})
	a.mustFail("the control as a code", a.socketVolume())
	a.awaitEvent("FailedToMountSecrets: SecretProviderClass sock: cannot mount " + text)
	a.awaitEvent("holds what it held: cannot mount " + text)
	return newCanary("control", text)
}

// dump has the process print all it would at its end: what each goroutine is doing. It is its last.
func (a *aviary) dump(texts map[string]string) {
	a.Helper()
	syscall.Kill(a.driver.PID(), syscall.SIGQUIT)
	a.driver.AwaitEnd()
	texts["log"] = a.driver.Log()
}

// wantLive checks that each of the texts is what its name says.
func (a *aviary) wantLive(texts map[string]string) {
	a.Helper()
	for where, holds := range map[string]string{
		"metrics": "error_type", "healthz": "ok", "readyz": "holding " + a.driver.State, "cmdline": "--endpoint=unix://" + a.driver.Endpoint,
		"environ": "TMPDIR=" + a.temporary, "requests": "/namespaces/" + a.ns + "/secretproviderclasses/app", "log": "SIGQUIT: quit",
		"folders": "keymount-volumes", "temporary": a.temporary, "events": "MountRotationComplete",
		"secretproviderclasspodstatuses": "SecretsSynced", syncedSecrets: "keymount.dev/synced",
	} {
		if !strings.Contains(texts[where], holds) {
			a.Errorf("%s does not hold %q: %.300s", where, holds, texts[where])
		}
	}
	for _, level := range []string{"TRACE", "DEBUG"} {
		if !strings.Contains(texts["log"], level) {
			a.Errorf("nothing was logged at level %s", level)
		}
	}
}

// wantHardened checks that a crash of the driver writes no core.
func (a *aviary) wantHardened(limits string) {
	a.Helper()
	for line := range strings.Lines(limits) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (fields[4] != "0" || fields[5] != "0") {
			a.Errorf("core dumps are on: %s", line)
		}
	}
	if !strings.Contains(limits, "Max core file size") {
		a.Errorf("limits: %s", limits)
	}
}

// Whoever shares the driver's user id cannot read its memory: the kernel gives the files of a process that is not dumpable to
// root. The driver of the tests is root's anyway, so that another one is started as nobody.
func TestRootDriverIsNotDumpable(t *testing.T) {
	const nobody = 65534
	r := newRig(t)
	binary, err := os.Open(fmt.Sprintf("/proc/%d/exe", r.driver.PID()))
	if err != nil {
		t.Fatal(err)
	}
	defer binary.Close()
	dir, err := os.MkdirTemp("", "keymount-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "kubeconfig")
	if err := errors.Join(os.WriteFile(config, []byte(`{"apiVersion":"v1","kind":"Config","current-context":"c",
		"clusters":[{"name":"c","cluster":{"server":"http://127.0.0.1:1"}}],"contexts":[{"name":"c","context":{"cluster":"c","user":""}}]}`), 0o644),
		os.Chown(dir, nobody, nobody)); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "csi.sock")
	var out strings.Builder
	cmd := exec.Command("/proc/self/fd/3", "--endpoint=unix://"+socket, "--nodeid="+driver.Node, "--kubeconfig="+config,
		"--metrics-addr=0", "--provider-volume="+dir)
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = []*os.File{binary}, &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { cmd.Process.Kill(); cmd.Wait() }
	defer end()
	r.driver.Await("the driver of nobody", func(context.Context) error { _, err := os.Stat(socket); return err })
	for file, owner := range map[string]uint32{"": nobody, "mem": 0, "maps": 0, "environ": 0, "auxv": 0} {
		info, err := os.Stat(fmt.Sprintf("/proc/%d/%s", cmd.Process.Pid, file))
		if err != nil {
			end()
			t.Fatalf("%v\n%s", err, out.String())
		}
		if got := info.Sys().(*syscall.Stat_t).Uid; got != owner {
			t.Errorf("/proc/PID/%s belongs to user %d, want %d", file, got, owner)
		}
	}
}
