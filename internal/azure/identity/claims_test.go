package identity

import (
	"encoding/base64"
	"slices"
	"strings"
	"testing"

	"keymount/internal/provider"
)

const goodClaims = `{"iss":"https://i","sub":"system:serviceaccount:ns:sa","aud":["api://AzureADTokenExchange"],"exp":4102444800,"kubernetes.io":{"pod":{"uid":"u"}}}`

func jwt(payload string) string {
	return "e30." + base64.RawURLEncoding.EncodeToString([]byte(payload)) + ".c2ln"
}

func TestClaims(t *testing.T) {
	pod := provider.Pod{Namespace: "ns", Name: "p", UID: "u", ServiceAccount: "sa"}
	for _, tc := range []struct {
		name, old, new string
		want           string // part of the error or the disagreement; "" is none
	}{
		{"as Kubernetes makes them", "", "", ""},
		{"audience as one string", `["api://AzureADTokenExchange"]`, `"api://AzureADTokenExchange"`, ""},
		{"several audiences", `["api`, `["x","api`, ""},
		{"a fraction in a time", `4102444800`, `4102444800.5`, ""},
		{"no issuer", `https://i`, ``, "no issuer"},
		{"issuer missing", `"iss"`, `"ISS"`, `claim "iss"`},
		{"issuer twice", `{"iss"`, `{"iss":"https://j","iss"`, "not a JSON web token"},
		{"subject a number", `"system:serviceaccount:ns:sa"`, `1`, `claim "sub"`},
		{"subject of another account", `ns:sa`, `ns:sb`, "another service account"},
		{"subject longer", `ns:sa"`, `ns:sa:x"`, "another service account"},
		{"audience missing", `"aud"`, `"aut"`, `claim "aud"`},
		{"audience null", `["api://AzureADTokenExchange"]`, `null`, "another audience"},
		{"audience longer", `Exchange"]`, `Exchange2"]`, "another audience"},
		{"no expiry", `"exp"`, `"ex"`, `claim "exp"`},
		{"expiry out of range", `4102444800`, `1e300`, "no date"},
		{"expiry a string", `4102444800`, `"4102444800"`, `claim "exp"`},
		{"no pod", `"pod"`, `"node"`, "another pod"},
		{"pod uid twice", `{"uid"`, `{"uid":"v","uid"`, "another pod"},
		{"another pod", `"u"`, `"v"`, "another pod"},
		{"more after the object", `"u"}}}`, `"u"}}} {}`, "not a JSON web token"},
		{"not an object", goodClaims, `[]`, "not a JSON web token"},
		{"nothing", goodClaims, ``, "not a JSON web token"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := parseClaims(jwt(strings.Replace(goodClaims, tc.old, tc.new, 1)))
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = c.disagreement(pod, workloadAudience)
			}
			if tc.want == "" && got != "" || !strings.Contains(got, tc.want) {
				t.Errorf("says %q, want %q", got, tc.want)
			}
		})
	}
}

func FuzzClaims(f *testing.F) {
	for _, seed := range []string{jwt(goodClaims), jwt(`{}`), "a.b.c", "", jwt(strings.Repeat("[", 5000)), jwt(`{"iss":null,"sub":null,"exp":null,"aud":null}`)} {
		f.Add(seed)
	}
	pod := provider.Pod{Namespace: "ns", Name: "p", UID: "u", ServiceAccount: "sa"}
	f.Fuzz(func(t *testing.T, token string) {
		c, err := parseClaims(token)
		if err != nil {
			if c.issuer != "" && c.subject != "" && c.podUID != "" {
				t.Error("claims are returned with an error")
			}
			return
		}
		if c.disagreement(pod, workloadAudience) == "" &&
			(c.subject != "system:serviceaccount:ns:sa" || c.podUID != "u" || !slices.Contains(c.audiences, workloadAudience) || c.issuer == "") {
			t.Errorf("%+v is taken for the pod's", c)
		}
	})
}
