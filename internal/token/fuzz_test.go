package token

import (
	"encoding/json"
	"strings"
	"testing"
)

// What decode accepts, everybody who reads JSON understands in the same way; what it refuses, it does not repeat.
func FuzzDecode(f *testing.F) {
	for _, seed := range []string{"", "{}", `{"a":{"token":"x","expirationTimestamp":"2027-01-15T08:00:00Z"},"":{"token":"y"}}`,
		`{"a":{"token":"x"},"a":{"token":"y"}}`, `{"a":{"token":null,"more":[1,{}]}}`, `{"a":1}`, `[`, "{}\x00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := decode(text)
		if err != nil {
			if len(text) > 40 && strings.Contains(err.Error(), text) {
				t.Errorf("the error repeats the text: %v", err)
			}
			return
		}
		if text == "" {
			return
		}
		var want map[string]map[string]any
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatalf("accepted what is no JSON of the form: %v", err)
		}
		for audience, found := range got {
			if want[audience]["token"] != found.token.Reveal() {
				t.Errorf("the token for %q is not what the text says", audience)
			}
		}
	})
}

// No token brings the parser down, and none is signed by a key that is not there.
func FuzzParseJWT(f *testing.F) {
	f.Add("e30.e30.")
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJpIiwic3ViIjoicyIsImV4cCI6MSwiYXVkIjoiYSIsImt1YmVybmV0ZXMuaW8iOnsicG9kIjp7InVpZCI6InUifX19.")
	f.Fuzz(func(t *testing.T, token string) {
		j, err := parseJWT(token)
		if err == nil && j.signedBy(nil) {
			t.Error("signed by nothing")
		}
	})
}

// A key set is read or refused.
func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"RSA","kid":"a","n":"AQAB","e":"AQAB"},{"kty":"EC","kid":"b","crv":"P-256","x":"AA","y":"AA"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := parseKeys(data)
		if err != nil && keys != nil {
			t.Error("keys and an error")
		}
		for id := range keys {
			if id == "" {
				t.Error("a key without an id")
			}
		}
	})
}
