package recordings

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// A tally counts what was compared, and collects what differs.
type tally struct {
	Requests, Headers, Members, Values, Items, Pages int
	skipped                                          map[string]int
	differences                                      []string
}

func (t *tally) differ(place, format string, args ...any) {
	t.differences = append(t.differences, place+": "+fmt.Sprintf(format, args...))
}

func (t *tally) skip(reason string) {
	if t.skipped == nil {
		t.skipped = map[string]int{}
	}
	t.skipped[reason]++
}

func (t *tally) add(o *tally) {
	t.Requests += o.Requests
	t.Headers += o.Headers
	t.Members += o.Members
	t.Values += o.Values
	t.Items += o.Items
	t.Pages += o.Pages
	for k, n := range o.skipped {
		for range n {
			t.skip(k)
		}
	}
	t.differences = append(t.differences, o.differences...)
}

func (t *tally) String() string {
	return fmt.Sprintf("%d requests, %d headers, %d members (names, types, order), %d values, %d list items, %d pages",
		t.Requests, t.Headers, t.Members, t.Values, t.Items, t.Pages)
}

// volatile are members whose values are random or times: only their types are compared.
func volatile(name string) bool {
	return slices.Contains([]string{"created", "updated", "deletedDate", "scheduledPurgeDate", "nbf", "exp", "x5t", "cer", "csr", "request_id", "n", "x", "y",
		"nextLink", "access_token", "timestamp", "trace_id", "correlation_id", "error_description"}, name)
}

var hexVersion = regexp.MustCompile(`\b[0-9a-f]{32}\b`)

// members compares names, types and order of members, and values that are not volatile. same translates the emulator's strings to the recording's.
func (t *tally) members(place string, want, got *node, same func(want, got string) bool) {
	if want == nil || got == nil {
		if want != got {
			t.differ(place, "one of the answers has no body")
		}
		return
	}
	t.Members++
	if want.kind != got.kind {
		t.differ(place, "type: recorded %s, emulated %s", want.kind, got.kind)
		return
	}
	switch want.kind {
	case "object":
		if !slices.Equal(want.names, got.names) {
			t.differ(place, "members: recorded %v, emulated %v", want.names, got.names)
		}
		for _, name := range want.names {
			if child := got.byName[name]; child != nil {
				t.member(place+"."+name, name, want.byName[name], child, same)
			}
		}
	case "list":
		if len(want.items) != len(got.items) {
			t.differ(place, "length: recorded %d, emulated %d", len(want.items), len(got.items))
		}
		for i := range min(len(want.items), len(got.items)) {
			t.members(fmt.Sprintf("%s[%d]", place, i), want.items[i], got.items[i], same)
		}
	default:
		t.leaf(place, want, got, same)
	}
}

func (t *tally) member(place, name string, want, got *node, same func(want, got string) bool) {
	if !volatile(name) {
		t.members(place, want, got, same)
		return
	}
	t.Members++
	if want.kind != got.kind {
		t.differ(place, "type: recorded %s, emulated %s", want.kind, got.kind)
	}
	if name == "nextLink" && want.kind == "string" {
		t.link(place, want.leaf.(string), got.leaf.(string))
	}
	if name == "error_description" {
		t.Values++
		a, _, _ := strings.Cut(want.leaf.(string), ":")
		b, _, _ := strings.Cut(got.leaf.(string), ":")
		if a != b {
			t.differ(place, "code: recorded %s, emulated %s", a, b)
		}
	}
}

func (t *tally) leaf(place string, want, got *node, same func(want, got string) bool) {
	t.Values++
	w, wok := want.leaf.(string)
	g, gok := got.leaf.(string)
	if wok && gok {
		if !same(w, g) {
			t.differ(place, "value: recorded %.200q, emulated %.200q", w, g)
		}
		return
	}
	if want.leaf != got.leaf {
		t.differ(place, "value: recorded %v, emulated %v", want.leaf, got.leaf)
	}
}

// linkForm is a nextLink: port 443, api-version, a raw $, the token, then maxresults if it was asked for.
var linkForm = regexp.MustCompile(`^https://[^/]+:443/[^?]+\?api-version=[0-9a-z.-]+&\$skiptoken=[A-Za-z0-9_-]+(&maxresults=[0-9]+)?$`)

func (t *tally) link(place, want, got string) {
	t.Values++
	if !linkForm.MatchString(want) || !linkForm.MatchString(got) || strings.Contains(want, "maxresults") != strings.Contains(got, "maxresults") {
		t.differ(place, "form of the link: recorded %.120q, emulated %.120q", want, got)
	}
}

// headersThatMatter are compared as a set of names, and these of them by value.
var (
	headersThatMatter = []string{"Cache-Control", "Content-Type", "Expires", "Location", "Pragma", "Retry-After", "Strict-Transport-Security", "Www-Authenticate",
		"X-Content-Type-Options", "X-Ms-Keyvault-Network-Info", "X-Ms-Keyvault-Region", "X-Ms-Keyvault-Service-Version", "X-Ms-Request-Id", "P3p", "X-Ms-Ests-Server"}
	valuesThatMatter = []string{"Cache-Control", "Content-Type", "Expires", "Pragma", "Retry-After", "X-Content-Type-Options"}
	// headersOfRoles are there only where the recorded vault had roles and not access policies.
	headersOfRoles = []string{"X-Ms-Keyvault-Rbac-Assignment-Id", "X-Ms-Keyvault-Rbac-Cache"}
)

func (t *tally) headers(place string, want, got map[string][]string, roles bool) {
	names := headersThatMatter
	if roles {
		names = append(slices.Clone(names), headersOfRoles...)
	}
	for _, name := range names {
		w, g := want[name], got[name]
		if len(w) == 0 && len(g) == 0 {
			continue
		}
		t.Headers++
		if (len(w) > 0) != (len(g) > 0) {
			t.differ(place, "header %s: recorded %q, emulated %q", name, w, g)
			continue
		}
		if slices.Contains(valuesThatMatter, name) && w[0] != g[0] {
			t.differ(place, "header %s: recorded %q, emulated %q", name, w[0], g[0])
		}
	}
}
