package vault

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// FuzzAnswers gives the client whatever a vault could answer, good or bad, and checks what must hold of every outcome.
func FuzzAnswers(f *testing.F) {
	for _, body := range []string{
		`{"value":"v","id":"https://v/secrets/one/0123456789abcdef0123456789abcdef","attributes":{"enabled":true,"created":1680047957}}`,
		`{"key":{"kid":"https://v/keys/one/0123456789abcdef0123456789abcdef","kty":"RSA","n":"AQAB","e":"AQAB"},"attributes":{}}`,
		`{"key":{"kid":"https://v/keys/one/0123456789abcdef0123456789abcdef","kty":"EC","crv":"P-256","x":"AA","y":"AA=="}}`,
		`{"id":"https://v/certificates/one/0123456789abcdef0123456789abcdef","cer":"MIIB"}`,
		`{"value":[{"id":"https://v/secrets/one/0123456789abcdef0123456789abcdef","attributes":{"created":-1}}],"nextLink":"https://v.vault.azure.net:443/secrets/one/versions?api-version=7.4&$skiptoken=x"}`,
		`{"value":[{"kid":"https://v/keys/one/0123456789abcdef0123456789abcdef"}],"nextLink":"https://v.vault.azure.net@evil/keys/one/versions"}`,
		`{"error":{"code":"Forbidden","message":"a\r\nb","innererror":{"code":"ForbiddenByRbac"}}}`,
		"null", "[]", "", "<html>", strings.Repeat(`{"value":`, 20000),
	} {
		f.Add(uint8(0), 200, body, `Bearer authorization="https://login.windows.net/t", resource="https://vault.azure.net"`, "7")
		f.Add(uint8(1), 401, body, `Bearer authorization="`, "Mon, 01 Jan 2040 00:00:00 GMT")
		f.Add(uint8(2), 429, body, "", "-1")
	}
	f.Fuzz(func(t *testing.T, kind uint8, status int, body, challenge, retryAfter string) {
		o := object{vault: "https://v.vault.azure.net", kind: []Kind{KindSecret, KindKey, KindCertificate}[kind%3], name: "one", list: kind >= 128}
		b := []byte(body)
		if s, size, err := decodeSecret(o, b); err == nil && (!isVersion(s.Version) || size < len(s.Value)) {
			t.Errorf("secret %+v of size %d", s, size)
		}
		if k, _, err := decodeKey(o, b); err == nil {
			rsa, ec := strings.HasPrefix(k.Type, "RSA"), strings.HasPrefix(k.Type, "EC")
			known := k.Type == "RSA" || k.Type == "RSA-HSM" || k.Type == "EC" || k.Type == "EC-HSM"
			if !isVersion(k.Version) || k.Type == "" || known && rsa && (len(k.N) == 0 || len(k.E) == 0) || known && ec && (len(k.X) == 0 || len(k.Y) == 0 || k.Curve == "") {
				t.Errorf("key %+v", k)
			}
		}
		if c, _, err := decodeCertificate(o, b); err == nil && (!isVersion(c.Version) || len(c.DER) == 0) {
			t.Errorf("certificate %+v", c)
		}
		if page, next, err := decodePage(o, b); err == nil {
			for _, v := range page {
				if !isVersion(v.Version) {
					t.Errorf("version %+v", v)
				}
			}
			checkNext(t, o, next)
		}
		checkNext(t, o, body)
		header := http.Header{"Www-Authenticate": {challenge}, "Retry-After": {retryAfter}, "X-Ms-Request-Id": {challenge}}
		e := o.refusal(&http.Response{StatusCode: status, Header: header}, b)
		if e == nil || e.Object != o.id() || len(e.Error()) > 4000 || strings.ContainsAny(e.Error(), "\n\r\x00\x1b") || e.RetryAfter < 0 {
			t.Errorf("refusal %#v", e)
		}
	})
}

// checkNext checks that a link, if it is followed, leads to the same list of the same vault.
func checkNext(t *testing.T, o object, link string) {
	t.Helper()
	next, err := o.nextPage(link)
	if err != nil {
		return
	}
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "https" || u.User != nil || !strings.EqualFold(u.Hostname(), "v.vault.azure.net") || u.Port() != "" && u.Port() != "443" {
		t.Errorf("follows %q to %q", link, next)
	}
}

// Nothing of an answer that says success is repeated in an error: it may be a secret.
func TestErrorsRepeatNothingOfAnAnswer(t *testing.T) {
	const treasure = "hunter2"
	o := object{vault: "https://v", kind: KindSecret, name: "one"}
	for _, body := range []string{
		treasure, `{"value":"` + treasure, `{"value":` + treasure + `}`, `{"value":"` + treasure + `","id":1}`, `{"value":"x","id":"` + treasure + `"}`,
		`{"value":"x","id":"https://v/secrets/` + treasure + `/0123456789abcdef0123456789abcdef"}`, `{"value":["` + treasure + `"]}`,
		`{"value":"` + treasure + `","attributes":{"created":"` + treasure + `"}}`,
	} {
		_, _, err := decodeSecret(o, []byte(body))
		if err == nil {
			t.Errorf("%q is accepted", body)
			continue
		}
		if text := o.malformed(err).Error(); strings.Contains(text, treasure) {
			t.Errorf("%q repeats the answer", text)
		}
	}
}
