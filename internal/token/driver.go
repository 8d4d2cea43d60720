package token

import (
	"context"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"keymount/internal/apiwatch"
)

// driverEvery is how often the CSIDriver object is read at most, where it cannot be watched.
const driverEvery = 10 * time.Second

// A driver is what is known of the CSIDriver object. It implements apiwatch.Sink.
type driver struct {
	cfg    Config
	client dynamic.ResourceInterface
	trouble
	reads singleflight.Group
	// needed is closed when somebody asks for the first time.
	needed func()
	wanted chan struct{}

	mu sync.Mutex
	// audiences are those for which kubelet puts tokens into the volume context; nil if that is not known.
	audiences map[string]bool
	live      bool      // a watch keeps audiences
	tried     time.Time // when the object was last read without a watch
	told      int       // what the watch has told, so that a read that was overtaken is recognised
}

func newDriver(client dynamic.Interface, cfg Config) *driver {
	wanted := make(chan struct{})
	return &driver{
		cfg: cfg, wanted: wanted, needed: sync.OnceFunc(func() { close(wanted) }),
		client: client.Resource(schema.GroupVersionResource{Group: "storage.k8s.io", Version: "v1", Resource: "csidrivers"}),
		trouble: trouble{log: cfg.Log,
			begins: "the CSIDriver object cannot be read; tokens in volume contexts are proven by their signature alone; " +
				"the ClusterRole secretproviderclasses-role grants get, list and watch on csidrivers",
			ends: "the CSIDriver object can be read again"},
	}
}

func (d *driver) run(ctx context.Context) {
	select {
	case <-d.wanted:
	case <-ctx.Done():
		return
	}
	// The rights are for one name, so the watch has to be too.
	selector := fields.OneTermEqualSelector("metadata.name", d.cfg.DriverName).String()
	apiwatch.Run(ctx, apiwatch.Config{Source: d.client, Sink: d, FieldSelector: selector,
		FirstRetry: d.cfg.FirstRetry, LastRetry: d.cfg.LastRetry})
}

// requests says whether kubelet puts a token for the audience into every volume context. If that cannot be known now, it
// does not: what was known before an outage is not used, since an author could write what kubelet no longer replaces.
func (d *driver) requests(ctx context.Context, audience string) bool {
	d.needed()
	d.mu.Lock()
	usable := d.live || !d.tried.IsZero() && d.cfg.Now().Sub(d.tried) < driverEvery
	if usable {
		defer d.mu.Unlock()
		return d.audiences[audience]
	}
	d.mu.Unlock()

	done := d.reads.DoChan("", func() (any, error) { return d.read(), nil })
	select {
	case r := <-done:
		return r.Val.(map[string]bool)[audience]
	case <-ctx.Done():
		return false
	}
}

// read reads the object, and returns nil audiences where that fails.
func (d *driver) read() map[string]bool {
	ctx, cancel := context.WithTimeout(context.Background(), readTimeout)
	defer cancel()
	d.mu.Lock()
	told := d.told
	d.mu.Unlock()
	object, err := d.client.Get(ctx, d.cfg.DriverName, metav1.GetOptions{})
	audiences := audiencesOf(object)
	if apierrors.IsNotFound(err) {
		err = nil // there is none, so kubelet gives no tokens
	}
	if err != nil {
		audiences = nil
	}
	d.note(err)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.told == told && !d.live {
		d.audiences, d.tried = audiences, d.cfg.Now()
	}
	return audiences
}

// audiencesOf returns the audiences for which kubelet replaces what is in the volume context. With serviceAccountTokenInSecrets
// it puts the tokens elsewhere, and leaves what an author wrote.
func audiencesOf(object *unstructured.Unstructured) map[string]bool {
	out := map[string]bool{}
	if object == nil {
		return out
	}
	inSecrets, found, err := unstructured.NestedBool(object.Object, "spec", "serviceAccountTokenInSecrets")
	if err != nil || found && inSecrets {
		return out
	}
	requests, _, err := unstructured.NestedSlice(object.Object, "spec", "tokenRequests")
	if err != nil || len(requests) > maxAudiences {
		return out
	}
	for _, request := range requests {
		fields, ok := request.(map[string]any)
		if !ok {
			continue
		}
		if audience, ok := fields["audience"].(string); ok || fields["audience"] == nil {
			out[audience] = true
		}
	}
	return out
}

// Replace implements apiwatch.Sink.
func (d *driver) Replace(objects []*unstructured.Unstructured) {
	d.tell(nil)
	for _, object := range objects {
		d.Set(object)
	}
}

// Set implements apiwatch.Sink.
func (d *driver) Set(object *unstructured.Unstructured) {
	if object.GetName() == d.cfg.DriverName {
		d.tell(object)
	}
}

// Remove implements apiwatch.Sink.
func (d *driver) Remove(object *unstructured.Unstructured) {
	if object.GetName() == d.cfg.DriverName {
		d.tell(nil)
	}
}

func (d *driver) tell(object *unstructured.Unstructured) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.told++
	d.audiences = audiencesOf(object)
}

// Live implements apiwatch.Sink.
func (d *driver) Live(live bool) {
	if live {
		d.note(nil)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.live, d.tried = live, time.Time{}
}

// Failed implements apiwatch.Sink. What matters is whether the object can be read, and that is said where it is read.
func (d *driver) Failed(error) {}
