package recordings

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"keymount/internal/emulator"
)

// ensure makes an object that a recorded list shows, and that this recording's own requests did not make.
func (s *session) ensure(place string, item *node, u *url.URL) {
	id, err := url.Parse(item.text("id") + item.text("kid"))
	if err != nil {
		s.t.Fatalf("%s: %v", place, err)
	}
	seg := strings.Split(strings.Trim(id.Path, "/"), "/")
	kind, name := seg[0], seg[1]
	deleted := strings.HasPrefix(u.Path, "/deleted")
	isLive := s.exists("/" + kind + "/" + name + "/")
	isDeleted := s.exists("/deleted" + kind + "/" + name)
	target := func(path string) string { return "https://" + vaultHost + path + "?api-version=7.4" }
	switch {
	case deleted && isDeleted || !deleted && isLive:
		return
	case !deleted && isDeleted:
		s.send(http.MethodPost, target("/deleted"+kind+"/"+name+"/recover"), nil, true)
		return
	case !isLive:
		s.put(kind, name, item)
	}
	if deleted {
		s.server.SetPolls(0, 0)
		s.send(http.MethodDelete, target("/"+kind+"/"+name), nil, true)
	}
}

func (s *session) exists(path string) bool {
	return s.send(http.MethodGet, "https://"+vaultHost+path+"?api-version=7.4", nil, true).Code == http.StatusOK
}

// put makes an object with the tags and dates of a recorded one.
func (s *session) put(kind, name string, item *node) {
	tags := map[string]string(nil)
	if n := item.get("tags"); n != nil {
		tags = map[string]string{}
		for _, k := range n.names {
			tags[k] = n.text(k)
		}
	}
	enabled := item.get("attributes", "enabled").leaf != false
	var err error
	switch kind {
	case "secrets":
		_, err = s.server.PutSecret(vaultName, emulator.Secret{Name: name, SecretVersion: emulator.SecretVersion{Value: "v", ContentType: item.text("contentType"),
			Tags: tags, Enabled: &enabled, NotBefore: unix(item.get("attributes", "nbf")), Expires: unix(item.get("attributes", "exp"))}})
	case "keys":
		_, err = s.server.PutKey(vaultName, emulator.Key{Name: name, Type: "EC", Tags: tags, Enabled: &enabled})
	default:
		_, err = s.server.PutCertificate(vaultName, emulator.Certificate{Name: name, KeyType: "EC", Tags: tags, Enabled: &enabled})
	}
	if err != nil {
		s.t.Fatalf("%s: putting %s %s: %v", s.rec.name, kind, name, err)
	}
}

// standIn does by other means what a request that is not served did to the vault, so that later requests find it.
func (s *session) standIn(e entry, u *url.URL) {
	body, err := parse(e.ResponseBody)
	if err != nil || e.Status != http.StatusOK || strings.Contains(u.Host, "hsm") {
		return
	}
	seg := strings.Split(strings.Trim(u.Path, "/"), "/")
	switch seg[len(seg)-1] {
	case "restore":
		id, err := url.Parse(body.text("id") + body.text("key", "kid"))
		if err != nil {
			s.t.Fatal(err)
		}
		parts := strings.Split(strings.Trim(id.Path, "/"), "/")
		for _, v := range hexVersion.FindAllString(id.Path, -1) {
			delete(s.versions, v)
		}
		if seg[0] == "keys" {
			s.server.SetPolls(0, 0)
			_, err = s.server.PutKey(vaultName, emulator.Key{Name: parts[1], Type: body.text("key", "kty"), Curve: body.text("key", "crv")})
		} else if seg[0] == "certificates" {
			s.restoreCertificate(parts[1], body)
		} else {
			s.put(seg[0], parts[1], body)
		}
		if err != nil {
			s.t.Fatal(err)
		}
	case "rotate":
		if _, err := s.server.RotateKey(vaultName, seg[1]); err != nil {
			s.t.Fatal(err)
		}
		if exp := body.get("attributes", "exp"); exp != nil {
			s.send(http.MethodPatch, fmt.Sprintf("https://%s/keys/%s/?api-version=7.4", vaultHost, seg[1]), fmt.Appendf(nil, `{"attributes":{"exp":%v}}`, exp.leaf), true)
		}
	}
}

// restoreCertificate makes one by the recorded policy.
func (s *session) restoreCertificate(name string, recorded *node) {
	policy := fmt.Appendf(nil, `{"policy":{"issuer":{"name":%q},"x509_props":{"subject":%q}}}`, recorded.text("policy", "issuer", "name"), recorded.text("policy", "x509_props", "subject"))
	s.server.SetPolls(0, 0)
	if res := s.send(http.MethodPost, "https://"+vaultHost+"/certificates/"+name+"/create?api-version=7.4", policy, true); res.Code != http.StatusAccepted {
		s.t.Fatalf("standing in for a restore: %s", res.Body)
	}
	s.send(http.MethodDelete, "https://"+vaultHost+"/certificates/"+name+"/pending?api-version=7.4", nil, true) // a restored one has none
}

// signRequest makes the body of a merge: a certificate for the key of the request, by an authority made for it.
func signRequest(t *testing.T, csr string) []byte {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(csr)
	if err != nil {
		t.Fatal(err)
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: req.Subject, NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour)}
	signed, err := x509.CreateCertificate(rand.Reader, leaf, ca, req.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string][][]byte{"x5c": {signed}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
