package vault

import (
	"net/url"
	"strings"

	"keymount/internal/azure/identity"
	"keymount/internal/provider"
)

// A Kind is a kind of object, named as classes name it.
type Kind string

// The kinds of objects that a vault holds.
const (
	KindSecret      Kind = "secret"
	KindKey         Kind = "key"
	KindCertificate Kind = "cert"
)

func (k Kind) noun() string {
	if k == KindCertificate {
		return "certificate"
	}
	return string(k)
}

// path is the collection's name in addresses and ids; "" for what is no kind.
func (k Kind) path() string {
	switch k {
	case KindSecret, KindKey, KindCertificate:
		return k.noun() + "s"
	}
	return ""
}

// An object is what a read is about. It is part of the key under which the read is shared.
type object struct {
	vault   string // address without a final slash
	kind    Kind
	name    string
	version string
	list    bool // all its versions, not itself
}

// id is the object's id in errors and bundles.
func (o object) id() string { return string(o.kind) + "/" + o.name }

func (o object) host() string { return strings.TrimPrefix(o.vault, "https://") }

// String is how messages begin: what was being done.
func (o object) String() string {
	what := o.kind.noun() + ` "` + o.name + `"`
	if o.list {
		return "listing the versions of " + what + " in vault " + o.host()
	}
	if o.version != "" {
		what += " version " + o.version
	}
	return "reading " + what + " from vault " + o.host()
}

// address is the REST address of the object (Key Vault REST: Get Secret, Get Key, Get Certificate, and their Versions).
func (o object) address(apiVersion string) string {
	a := o.vault + "/" + o.kind.path() + "/" + o.name
	switch {
	case o.list:
		a += "/versions"
	case o.version != "":
		a += "/" + o.version
	}
	return a + "?api-version=" + url.QueryEscape(apiVersion)
}

// checked returns the object with the vault's address in its one spelling, or says why it cannot be read. Everything that
// becomes part of an address to which a token is sent is checked here, whoever checked it before.
func (o object) checked() (object, *provider.Error) {
	u, err := url.Parse(o.vault)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
		return o, &provider.Error{Kind: provider.Invalid, Message: "the vault's address " + quoted(o.vault) + " is not of the form https://host"}
	}
	o.vault = "https://" + strings.ToLower(u.Host)
	switch {
	case o.kind.path() == "":
		return o, o.invalid(quoted(string(o.kind))+" is no kind of object", "")
	case !isName(o.name):
		return o, o.invalid("object name "+quoted(o.name)+" is not one", "names have 1 to 127 letters, digits and hyphens")
	case o.version != "" && !isVersion(o.version):
		return o, o.invalid("version "+quoted(o.version)+" is not one", "versions have 32 hexadecimal digits")
	}
	return o, nil
}

func (o object) invalid(message, remedy string) *provider.Error {
	e := &provider.Error{Kind: provider.Invalid, Message: message, Remedy: remedy}
	if o.kind.path() != "" && isName(o.name) {
		e.Object = o.id()
	}
	return e
}

func isName(s string) bool {
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && c != '-' {
			return false
		}
	}
	return s != "" && len(s) <= 127
}

func isVersion(s string) bool {
	for _, c := range []byte(s) {
		letter := c|0x20 >= 'a' && c|0x20 <= 'f'
		digit := c >= '0' && c <= '9'
		if !letter && !digit {
			return false
		}
	}
	return len(s) == 32
}

func quoted(s string) string { return `"` + identity.Tidy(s) + `"` }
