package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// A Key says who asks. Keys are comparable, and equal only if both askers have proven to be the same identity at the same
// token endpoint for the same resource. The zero Key is nobody's.
//
// A Key prints as a description of the identity, without anything that proves it.
type Key struct {
	mode      string
	authority string
	tenant    string
	resource  string
	client    string
	// issuer and subject are those of a service account token that is proven, else "".
	issuer, subject string
	// proof is a digest, under a key of this process, of the secret or token that the asker holds; zero where issuer and
	// subject are proven instead.
	proof digest
}

type digest [sha256.Size]byte

// String describes the identity for people.
func (k Key) String() string {
	if k == (Key{}) {
		return "nobody"
	}
	var b strings.Builder
	b.WriteString(k.mode)
	if k.client != "" {
		fmt.Fprintf(&b, " %s", k.client)
	}
	fmt.Fprintf(&b, " in tenant %s", k.tenant)
	if k.subject != "" {
		fmt.Fprintf(&b, " as %s", k.subject)
	}
	return b.String()
}

// Format implements fmt.Formatter, so that no verb prints the proof.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalJSON implements json.Marshaler.
func (k Key) MarshalJSON() ([]byte, error) { return json.Marshal(k.String()) }

// MarshalText implements encoding.TextMarshaler.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// A keyring makes keys. Its secret is random, so that a digest says nothing about a low-entropy client secret, and keys
// of two processes never compare.
type keyring struct {
	secret [32]byte
	// nameOnly takes the proof out of every key. Only tests set it, to show that attacks succeed without the proof.
	nameOnly bool
}

func newKeyring() *keyring {
	k := &keyring{}
	rand.Read(k.secret[:]) // never fails: crypto/rand ends the program instead
	return k
}

// held returns the key of an asker who holds secret, and of nobody else.
func (r *keyring) held(mode string, spec Spec, client, secret string) Key {
	k := named(mode, spec, client)
	if r.nameOnly {
		return k
	}
	mac := hmac.New(sha256.New, r.secret[:])
	io.WriteString(mac, mode+"\x00")
	io.WriteString(mac, secret)
	mac.Sum(k.proof[:0])
	return k
}

// proven returns the key of the service account that a proven token belongs to.
func (r *keyring) proven(mode string, spec Spec, client string, c claims) Key {
	k := named(mode, spec, client)
	if r.nameOnly {
		return k
	}
	k.issuer, k.subject = c.issuer, c.subject
	return k
}

func named(mode string, spec Spec, client string) Key {
	return Key{mode: mode, authority: spec.Authority, tenant: spec.TenantID, resource: spec.Resource, client: client}
}
