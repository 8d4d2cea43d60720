//go:build integration && linux

package integration

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"keymount/internal/secretsync"
	"keymount/test/integration/apiserver"
	"keymount/test/integration/driver"
	"keymount/test/integration/kubelet"
)

// An aviary is a node whose secrets are all canaries, with a log of what it has answered kubelet.
type aviary struct {
	*rig
	temporary string
	answers   strings.Builder
	// secret are what must be nowhere; the test itself writes those of given into Secrets, classes and pods.
	secret, given []canary
}

// canaryAccount is the service account of the drivers that are searched. It may sync Secrets.
const canaryAccount = "canaries"

// newAviary starts a node at the highest verbosity of everything that the driver is made of.
func newAviary(t *testing.T, args ...string) *aviary {
	t.Helper()
	a := &aviary{temporary: t.TempDir()}
	allowCores(t)
	args = append(append(args, withAzure("--share-reads-for=0s", "-v=10", "--provider-health-check",
		"--provider-health-check-interval=1s")...), rotation("1s")...)
	a.rig = newRigWith(t, driver.Options{Account: grant(t, canaryAccount, append(usualRights, syncingRights...)...), Args: args, Env: []string{"TMPDIR=" + a.temporary, "AZURE_SDK_GO_LOGGING=all",
		"GRPC_GO_LOG_VERBOSITY_LEVEL=99", "GRPC_GO_LOG_SEVERITY_LEVEL=info", "GRPC_BINARY_LOG_FILTER=*"}})
	a.secret = append(a.secret, newToken("the driver's own token", a.ownToken())...)
	return a
}

// allowCores lets processes that this one starts write a core, so that one that writes none does so by itself.
func allowCores(t *testing.T) {
	t.Helper()
	var was unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_CORE, &was)
	if err == nil {
		err = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{Cur: 1 << 20, Max: max(was.Max, 1<<20)})
	}
	if err != nil {
		t.Fatal("allowing core dumps:", err)
	}
	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_CORE, &was) })
}

// ownToken is what the driver's kubeconfig holds.
func (a *aviary) ownToken() string {
	a.Helper()
	for _, arg := range a.driver.Args() {
		path, is := strings.CutPrefix(arg, "--kubeconfig=")
		if !is {
			continue
		}
		text, err := os.ReadFile(path)
		var config struct {
			Users []struct{ User struct{ Token string } }
		}
		if err == nil {
			err = json.Unmarshal(text, &config)
		}
		if err != nil || len(config.Users) != 1 {
			a.Fatalf("%d users in the kubeconfig, %v", len(config.Users), err)
		}
		return config.Users[0].User.Token
	}
	a.Fatal("there is no kubeconfig")
	return ""
}

// hatch makes a secret that no object of the API server may hold, put one that the test itself writes into such an object.
func (a *aviary) hatch(name string) string { return a.keep(&a.secret, name, invent(name)) }
func (a *aviary) put(name string) string   { return a.keep(&a.given, name, invent(name)) }

func (a *aviary) keep(into *[]canary, name, secret string) string {
	*into = append(*into, newCanary(name, secret))
	return secret
}

// invent makes a text that looks different in every form.
func invent(name string) string { return "K4n" + rand.Text()[:12] + "/+\"<ö>\\ & " + name }

// newKey makes a private key as TLS servers read it.
func newKey(t testing.TB) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// scalar writes a text as YAML.
func scalar(text string) string { return `"` + escaped(text, true) + `"` }

// credentials makes a Secret.
func (a *aviary) credentials(name string, data map[string]string) {
	a.Helper()
	text := fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: %s}\nstringData:\n", name, a.ns)
	for key, value := range data {
		text += "  " + key + ": " + scalar(value) + "\n"
	}
	api.ApplyText(a.T, text)
}

// withAttribute sets an attribute of the volume.
func withAttribute(key, value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Volumes[0].CSI.VolumeAttributes[key] = value }
}

// mustFail publishes for the first time, and notes what kubelet is told.
func (a *aviary) mustFail(what string, v *kubelet.Volume) {
	a.Helper()
	err := v.Publish(a.Context())
	if err == nil {
		a.Errorf("%s: the mount went well", what)
		return
	}
	fmt.Fprintln(&a.answers, err)
}

// emitted is everything that came out of the driver, by where.
func (a *aviary) emitted() map[string]string {
	a.Helper()
	out := map[string]string{
		"answers": a.answers.String(), "log": a.driver.Log(), "folders": a.folders(a.driver.Root), "temporary": a.folders(a.temporary),
	}
	for _, page := range []string{"metrics", "healthz", "readyz", "readyz?verbose"} {
		_, body, err := a.driver.Get(page)
		if err != nil {
			a.Fatal(err)
		}
		out[page] = body
	}
	for _, file := range []string{"cmdline", "environ", "status", "limits", "maps"} {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", a.driver.PID(), file))
		if err != nil {
			a.Fatal(err)
		}
		out[file] = string(text)
	}
	for _, r := range api.Requests(a.T, apiserver.User(driver.Namespace, canaryAccount)) {
		out["requests"] += r.URI + "\n"
	}
	return out
}

// folders are all names and files below a folder, but for what is mounted there, and kubelet's own file of a volume.
func (a *aviary) folders(root string) string {
	a.Helper()
	mounted := map[string]bool{}
	for _, target := range driver.Mounts(a.driver.Root) {
		mounted[target] = true
	}
	var b strings.Builder
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case mounted[path]:
			return fs.SkipDir
		}
		fmt.Fprintln(&b, path)
		if entry.Type().IsRegular() && entry.Name() != "vol_data.json" {
			text, err := os.ReadFile(path)
			b.Write(text)
			return err
		}
		return nil
	})
	if err != nil {
		a.Fatal(err)
	}
	return b.String()
}

// objects are all objects of the API server, by resource; of those that the test puts secrets into, apart.
func (a *aviary) objects() (others, written map[string]string) {
	a.Helper()
	client, err := discovery.NewDiscoveryClientForConfig(api.Admin())
	if err != nil {
		a.Fatal(err)
	}
	lists, err := client.ServerPreferredResources()
	if err != nil {
		a.Fatal(err)
	}
	others, written = map[string]string{}, map[string]string{}
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			a.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if !strings.Contains(fmt.Sprint(resource.Verbs), "list") {
				continue
			}
			found, err := api.Client().Resource(gv.WithResource(resource.Name)).List(a.Context(), metav1.ListOptions{})
			if err != nil {
				a.Fatalf("listing %s: %v", resource.Name, err)
			}
			if gv.Group == "" && resource.Name == "secrets" {
				others[syncedSecrets] = a.withoutData(found)
			}
			text, err := found.MarshalJSON()
			if err != nil {
				a.Fatal(err)
			}
			switch resource.Name {
			case "pods", "secrets", "secretproviderclasses":
				written[resource.Name] = string(text)
			default:
				others[resource.Name] += string(text)
			}
		}
	}
	return others, written
}

// syncedSecrets is the place of all that is in Secrets that the driver makes but for their data.
const syncedSecrets = "synced secrets"

// withoutData takes the data out of the Secrets that the driver makes, where contents are to be, and returns what is left of these.
func (a *aviary) withoutData(list *unstructured.UnstructuredList) string {
	a.Helper()
	var b strings.Builder
	for _, object := range list.Items {
		if object.GetAnnotations()[secretsync.Note] == "" {
			continue
		}
		delete(object.Object, "data") // the list's own
		text, err := object.MarshalJSON()
		if err != nil {
			a.Fatal(err)
		}
		b.Write(text)
	}
	return b.String()
}

// aToken is what any JSON web token looks like, whoever made it.
var aToken = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}`)

// search looks for canaries in texts, and for tokens of any kind.
func (a *aviary) search(texts map[string]string, canaries []canary) {
	a.Helper()
	for where, text := range texts {
		for _, c := range canaries {
			if found := c.find(text); len(found) > 0 {
				a.Errorf("%s: found in %s, as %v", c.name, where, found)
			}
		}
		if token := aToken.FindString(text); token != "" {
			a.Errorf("a token is in %s: %.40s...", where, token)
		}
	}
}

// wantControl checks that a canary was let out where it should be.
func (a *aviary) wantControl(c canary, texts map[string]string, where ...string) {
	a.Helper()
	for _, place := range where {
		if len(c.find(texts[place])) == 0 {
			a.Errorf("%s is not in %s: what is searched is not what comes out", c.name, place)
		}
	}
}
