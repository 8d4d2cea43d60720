package vault

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	"keymount/internal/provider"
)

// Attributes are what a vault says about one version of an object.
type Attributes struct {
	Enabled bool
	// NotBefore and Expires are advice to readers; the vault does not enforce them. Zero if not set.
	NotBefore, Expires time.Time
	// Created and Updated have whole seconds. Zero if not given.
	Created, Updated time.Time
}

// A Secret is a secret bundle (Key Vault REST: Get Secret).
type Secret struct {
	Version string
	Value   provider.Contents
	// ContentType is free text of whoever set the secret; application/x-pkcs12 or application/x-pem-file if a certificate
	// is behind it.
	ContentType string
	// KeyID is the address of the key of the certificate behind the secret, "" if there is no certificate.
	KeyID string
	Attributes
}

// A Key is the public part of a key (Key Vault REST: Get Key; RFC 7517 4, RFC 7518 6).
type Key struct {
	Version string
	// Type is RSA, RSA-HSM, EC, EC-HSM, or another that has none of the members below.
	Type string
	// Curve is P-256, P-384, P-521 or P-256K, of EC keys only.
	Curve string
	// N and E are those of RSA keys, X and Y of EC keys: unsigned, big endian, not empty.
	N, E, X, Y []byte
	Attributes
}

// A Certificate is a certificate bundle (Key Vault REST: Get Certificate).
type Certificate struct {
	Version string
	// DER is the certificate itself, not parsed.
	DER []byte
	Attributes
}

// A Version is one version of an object in a list.
type Version struct {
	Version string
	Attributes
}

// attributes is the wire form. A member that is absent leaves nil.
type attributes struct {
	Enabled *bool  `json:"enabled"`
	NBF     *int64 `json:"nbf"`
	Exp     *int64 `json:"exp"`
	Created *int64 `json:"created"`
	Updated *int64 `json:"updated"`
}

func (a attributes) decoded() Attributes {
	return Attributes{Enabled: a.Enabled != nil && *a.Enabled,
		NotBefore: seconds(a.NBF), Expires: seconds(a.Exp), Created: seconds(a.Created), Updated: seconds(a.Updated)}
}

// seconds is the zero time for what is absent or no date of the years 1970 to 9999.
func seconds(s *int64) time.Time {
	if s == nil || *s < 0 || *s > 253402300799 {
		return time.Time{}
	}
	return time.Unix(*s, 0).UTC()
}

// The decoders return the value, about how many bytes it holds, and what is wrong with an answer. Their errors name
// members and positions, never what stood there: the body of a successful answer is a secret.

func decodeSecret(o object, body []byte) (*Secret, int, error) {
	var w struct {
		Value       *string    `json:"value"`
		ContentType string     `json:"contentType"`
		ID          string     `json:"id"`
		KID         string     `json:"kid"`
		Attributes  attributes `json:"attributes"`
	}
	if err := unmarshal(body, &w); err != nil {
		return nil, 0, err
	}
	if w.Value == nil {
		return nil, 0, errors.New("it has no value")
	}
	version, err := o.versionOf("id", w.ID)
	if err != nil {
		return nil, 0, err
	}
	s := &Secret{Version: version, Value: provider.Contents(*w.Value), ContentType: w.ContentType, KeyID: w.KID, Attributes: w.Attributes.decoded()}
	return s, len(s.Value) + len(s.ContentType) + len(s.KeyID), nil
}

func decodeKey(o object, body []byte) (*Key, int, error) {
	var w struct {
		Key *struct {
			KID   string `json:"kid"`
			Type  string `json:"kty"`
			Curve string `json:"crv"`
			N     string `json:"n"`
			E     string `json:"e"`
			X     string `json:"x"`
			Y     string `json:"y"`
		} `json:"key"`
		Attributes attributes `json:"attributes"`
	}
	if err := unmarshal(body, &w); err != nil {
		return nil, 0, err
	}
	if w.Key == nil || w.Key.Type == "" {
		return nil, 0, errors.New("it has no key type (kty)")
	}
	version, err := o.versionOf("kid", w.Key.KID)
	if err != nil {
		return nil, 0, err
	}
	k := &Key{Version: version, Type: w.Key.Type, Attributes: w.Attributes.decoded()}
	type member struct {
		name, text string
		into       *[]byte
	}
	var members []member
	switch k.Type {
	case "RSA", "RSA-HSM":
		members = []member{{"n", w.Key.N, &k.N}, {"e", w.Key.E, &k.E}}
	case "EC", "EC-HSM":
		if k.Curve = w.Key.Curve; k.Curve == "" {
			return nil, 0, errors.New("it has no curve (crv)")
		}
		members = []member{{"x", w.Key.X, &k.X}, {"y", w.Key.Y, &k.Y}}
	}
	for _, m := range members {
		if *m.into, err = base64.RawURLEncoding.DecodeString(strings.TrimRight(m.text, "=")); err != nil || len(*m.into) == 0 {
			return nil, 0, fmt.Errorf("its %s is missing or not base64url", m.name)
		}
	}
	return k, len(body), nil
}

func decodeCertificate(o object, body []byte) (*Certificate, int, error) {
	var w struct {
		ID         string     `json:"id"`
		CER        string     `json:"cer"`
		Attributes attributes `json:"attributes"`
	}
	if err := unmarshal(body, &w); err != nil {
		return nil, 0, err
	}
	version, err := o.versionOf("id", w.ID)
	if err != nil {
		return nil, 0, err
	}
	der, err := base64.StdEncoding.DecodeString(w.CER)
	if err != nil || len(der) == 0 {
		return nil, 0, errors.New("its certificate (cer) is missing or not base64")
	}
	return &Certificate{Version: version, DER: der, Attributes: w.Attributes.decoded()}, len(der), nil
}

// decodePage returns the versions of one page and the address of the next, "" at the end.
func decodePage(o object, body []byte) (page []Version, next string, err error) {
	var w struct {
		Value []struct {
			ID         string     `json:"id"`
			KID        string     `json:"kid"`
			Attributes attributes `json:"attributes"`
		} `json:"value"`
		NextLink string `json:"nextLink"`
	}
	if err := unmarshal(body, &w); err != nil {
		return nil, "", err
	}
	for _, item := range w.Value {
		id := item.ID
		if o.kind == KindKey {
			id = item.KID
		}
		version, err := o.versionOf("id", id)
		if err != nil {
			return nil, "", err
		}
		page = append(page, Version{Version: version, Attributes: item.Attributes.decoded()})
	}
	return page, w.NextLink, nil
}

// unmarshal is encoding/json with errors that repeat nothing of the body. Bytes that are no UTF-8, which JSON does not have
// (RFC 8259 8.1), are refused: the library would put other characters into the secret for them.
func unmarshal(body []byte, into any) error {
	if !utf8.Valid(body) {
		return errors.New("it is not UTF-8")
	}
	err := json.Unmarshal(body, into)
	var syntax *json.SyntaxError
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &syntax):
		return fmt.Errorf("it is not JSON from byte %d of %d on", syntax.Offset, len(body))
	case errors.As(err, &wrong):
		return fmt.Errorf("its member %q has the wrong type", wrong.Field)
	}
	return errors.New("it is not JSON of the right form")
}

// versionOf takes the version from an id of the form https://host/secrets/name/version (Key Vault: object identifiers)
// and refuses ids of another object than the one that was asked for.
func (o object) versionOf(member, id string) (string, error) {
	if id == "" {
		return "", fmt.Errorf("it has no %s", member)
	}
	u, err := url.Parse(id)
	if err != nil || len(id) > 1024 {
		return "", fmt.Errorf("its %s is not an address", member)
	}
	parts := strings.Split(u.Path, "/")
	if len(parts) != 4 || parts[0] != "" || parts[1] != o.kind.path() || !isVersion(parts[3]) {
		return "", fmt.Errorf("its %s is not that of a version of a %s", member, o.kind.noun())
	}
	if !strings.EqualFold(parts[2], o.name) {
		return "", fmt.Errorf("its %s is that of another object", member)
	}
	if o.version != "" && !strings.EqualFold(parts[3], o.version) {
		return "", fmt.Errorf("its %s is that of another version", member)
	}
	return parts[3], nil
}

// sizeOf estimates what a list holds in memory.
func sizeOf(all []Version) int {
	const each = 160
	return min(len(all), math.MaxInt32/each) * each
}
