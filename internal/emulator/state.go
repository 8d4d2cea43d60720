package emulator

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// A kind is one of the three sorts of object of a vault; its text is the first segment of the path.
type kind string

const (
	secrets      kind = "secrets"
	keys         kind = "keys"
	certificates kind = "certificates"
)

func (k kind) noun() string { return strings.TrimSuffix(string(k), "s") }

func (k kind) title() string {
	n := k.noun()
	return strings.ToUpper(n[:1]) + n[1:]
}

// A vault is one key vault. Everything in it is guarded by Server.mu.
type vault struct {
	name   string
	host   string
	region string
	cloud  *Cloud
	tenant string
	// policies: the vault has access policies, otherwise roles. Only error texts differ.
	policies bool
	// access is nil when every application of the tenant may do everything.
	access []Access
	// days that a deleted object can be recovered.
	days    int
	live    map[kind]map[string]*object // by upper-cased name
	deleted map[kind]map[string]*object
	now     func() time.Time
	polls   polls
}

// polls is how many times an operation that the service takes its time for answers "not yet".
type polls struct{ pending, settle int }

// An object has at least one version, except a certificate that is being made.
type object struct {
	kind     kind
	name     string
	versions []*version // in the order of creation
	policy   *policyJSON
	pending  *pending
	deletion *deletedJSON
	settling int // answers "not found" this many times more
}

type version struct {
	id      string
	attrs   attributesJSON
	tags    map[string]string
	managed bool
	secret  *secretData
	key     *keyData
	cert    *certData
}

type secretData struct {
	value       string
	contentType string
	kid         string // path below the vault's URL, or a whole URL from a seed
}

func newVault(host, name string, cloud *Cloud, now func() time.Time) *vault {
	v := &vault{name: name, host: host, cloud: cloud, now: now,
		live: map[kind]map[string]*object{}, deleted: map[kind]map[string]*object{}}
	for _, k := range []kind{secrets, keys, certificates} {
		v.live[k], v.deleted[k] = map[string]*object{}, map[string]*object{}
	}
	return v
}

// newVersionID is random, so that the order of ids is not the order of time, as with the service.
func newVersionID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func newGUID() string {
	h := newVersionID()
	return fmt.Sprintf("%s-%s-%s-%s-%s", h[:8], h[8:12], h[12:16], h[16:20], h[20:])
}

func (v *vault) url(parts ...string) string {
	return "https://" + v.host + "/" + strings.Join(parts, "/")
}

func (v *vault) find(k kind, name string) *object { return v.live[k][strings.ToUpper(name)] }

// newest is the version created last, disabled or not.
func (o *object) newest() *version {
	if len(o.versions) == 0 {
		return nil
	}
	return o.versions[len(o.versions)-1]
}

func (o *object) version(id string) *version {
	if id == "" {
		return o.newest()
	}
	for _, ver := range o.versions {
		if strings.EqualFold(ver.id, id) {
			return ver
		}
	}
	return nil
}

func (v *vault) freshAttributes() attributesJSON {
	t := v.now().Unix()
	return attributesJSON{Enabled: true, Created: t, Updated: t}
}

// add puts a version under the name, making the object if there is none.
func (v *vault) add(k kind, name string, ver *version) *object {
	o := v.find(k, name)
	if o == nil {
		o = &object{kind: k, name: name}
		v.live[k][strings.ToUpper(name)] = o
	}
	if ver != nil {
		o.versions = append(o.versions, ver)
	}
	return o
}

// recovery is the level that attributes show.
func (v *vault) recovery() string {
	if v.days == 90 {
		return "Recoverable+Purgeable"
	}
	return "CustomizedRecoverable+Purgeable"
}

// attributes are those of a version as api-version shows them.
func (v *vault) attributes(a attributesJSON, api string) attributesJSON {
	a.RecoveryLevel = v.recovery()
	if apiAtLeast(api, "7.1") {
		a.RecoverableDays = v.days
	}
	if !apiAtLeast(api, "7.3") {
		a.Exportable = nil
	}
	return a
}

// dependents are the objects that live and die with o: a certificate's key and secret.
func (v *vault) dependents(from map[kind]map[string]*object, o *object) []*object {
	all := []*object{o}
	if o.kind != certificates {
		return all
	}
	for _, k := range []kind{secrets, keys} {
		if d := from[k][strings.ToUpper(o.name)]; d != nil {
			all = append(all, d)
		}
	}
	return all
}

// remove makes an object, and what depends on it, deleted but recoverable.
func (v *vault) remove(o *object) {
	t := v.now()
	for _, d := range v.dependents(v.live, o) {
		d.deletion = &deletedJSON{
			RecoveryID:         v.url("deleted"+string(d.kind), d.name),
			DeletedDate:        t.Unix(),
			ScheduledPurgeDate: t.Add(time.Duration(v.days) * 24 * time.Hour).Unix(),
		}
		d.settling = v.polls.settle
		delete(v.live[d.kind], strings.ToUpper(d.name))
		v.deleted[d.kind][strings.ToUpper(d.name)] = d
	}
}

func (v *vault) recover(o *object) {
	for _, d := range v.dependents(v.deleted, o) {
		d.deletion, d.settling = nil, v.polls.settle
		delete(v.deleted[d.kind], strings.ToUpper(d.name))
		v.live[d.kind][strings.ToUpper(d.name)] = d
	}
}

func (v *vault) purge(o *object) {
	for _, d := range v.dependents(v.deleted, o) {
		delete(v.deleted[d.kind], strings.ToUpper(d.name))
	}
}
