package emulator

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// An Issuer is a cluster whose public keys the emulated Entra ID knows. An emulated cluster signs service account tokens too; the tokens of a real one, of
// which the seed gives the key set, come from its own API server.
type Issuer struct {
	// URL is the issuer claim, exactly as federated credentials name it.
	URL  string
	host string
	path string
	// key signs; it is nil where the keys are those of a cluster elsewhere.
	key  crypto.Signer
	keys []publicKey
	now  func() time.Time
}

// A publicKey verifies tokens whose header names it.
type publicKey struct {
	id  string
	key crypto.PublicKey
}

func newIssuer(rawURL string, key crypto.Signer, now func() time.Time) (*Issuer, error) {
	is, err := newKeylessIssuer(rawURL, now)
	if err != nil {
		return nil, err
	}
	if key == nil {
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, fmt.Errorf("making a key for issuer %q: %w", rawURL, err)
		}
	}
	is.key, is.keys = key, []publicKey{{keyID(key.Public()), key.Public()}}
	return is, nil
}

func newKeylessIssuer(rawURL string, now func() time.Time) (*Issuer, error) {
	u, err := url.Parse(rawURL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("issuer %q is not an https URL: use the cluster's OIDC issuer URL, as in https://oidc.example/cluster-1/", rawURL)
	}
	return &Issuer{URL: rawURL, host: hostName(u.Host), path: strings.TrimSuffix(u.Path, "/"), now: now}, nil
}

// ServiceAccount is who a token is for.
type ServiceAccount struct {
	Namespace string
	Name      string
	PodName   string // empty: a token that is bound to no pod
	PodUID    string
}

type kubernetesRef struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

type kubernetesClaims struct {
	Namespace      string         `json:"namespace"`
	ServiceAccount kubernetesRef  `json:"serviceaccount"`
	Pod            *kubernetesRef `json:"pod,omitempty"`
}

type serviceAccountClaims struct {
	jwtClaims
	ID         string           `json:"jti"`
	Kubernetes kubernetesClaims `json:"kubernetes.io"`
}

// Token signs a token with the claims that the Kubernetes API server writes. A negative lifetime makes an expired one.
func (is *Issuer) Token(sa ServiceAccount, aud []string, lifetime time.Duration) (string, error) {
	now := is.now()
	claims := serviceAccountClaims{
		jwtClaims: jwtClaims{Audience: aud, Issuer: is.URL, Subject: "system:serviceaccount:" + sa.Namespace + ":" + sa.Name,
			IssuedAt: now.Unix(), NotBefore: now.Unix(), Expires: now.Add(lifetime).Unix()},
		ID: newGUID(),
		Kubernetes: kubernetesClaims{Namespace: sa.Namespace,
			ServiceAccount: kubernetesRef{sa.Name, newGUID()}},
	}
	if lifetime < 0 {
		claims.IssuedAt, claims.NotBefore = now.Add(2*lifetime).Unix(), now.Add(2*lifetime).Unix()
	}
	if sa.PodName != "" || sa.PodUID != "" {
		claims.Kubernetes.Pod = &kubernetesRef{sa.PodName, sa.PodUID}
	}
	return is.sign(claims)
}

// Sign signs any claims: what a test needs for tokens that no API server would make.
func (is *Issuer) Sign(claims map[string]any) (string, error) { return is.sign(claims) }

func (is *Issuer) sign(claims any) (string, error) {
	if is.key == nil {
		return "", fmt.Errorf("issuer %q cannot sign: the seed gives its public keys only (jwks), so take a token from that cluster, as by kubectl create token", is.URL)
	}
	return signJWT(is.key, is.keys[0].id, claims)
}

// PublicKeys are those that tokens are verified with.
func (is *Issuer) PublicKeys() []crypto.PublicKey {
	var all []crypto.PublicKey
	for _, k := range is.keys {
		all = append(all, k.key)
	}
	return all
}

// JWKS is the issuer's key set document.
func (is *Issuer) JWKS() []byte { return keySet(is.keys).body }

func keySet(all []publicKey) *response {
	set := struct {
		Keys []map[string]string `json:"keys"`
	}{Keys: []map[string]string{}}
	for _, k := range all {
		set.Keys = append(set.Keys, publicJWK(k.key, k.id))
	}
	return jsonResponse(http.StatusOK, set)
}

// verify checks the signature of a token that claims to be this issuer's.
func (is *Issuer) verify(p *parsedJWT) error {
	for _, k := range is.keys {
		if p.header.Kid == k.id {
			return p.verify(k.key)
		}
	}
	return errUnknownKey
}

// answer serves the issuer's two public documents (OpenID Connect Discovery 1.0, section 4).
func (is *Issuer) answer(r *http.Request) *response {
	if r.Method != http.MethodGet {
		return textResponse(http.StatusMethodNotAllowed, "method not allowed")
	}
	base := "https://" + is.host + is.path
	switch strings.TrimPrefix(r.URL.Path, is.path) {
	case "/.well-known/openid-configuration":
		return jsonResponse(http.StatusOK, map[string]any{"issuer": is.URL, "jwks_uri": base + "/openid/v1/jwks",
			"response_types_supported": []string{"id_token"}, "subject_types_supported": []string{"public"},
			"id_token_signing_alg_values_supported": []string{"RS256", "ES256"}})
	case "/openid/v1/jwks":
		return keySet(is.keys)
	}
	return textResponse(http.StatusNotFound, "404 page not found")
}

// Issuer returns the emulated cluster issuer of that URL, nil if the seed has none.
func (s *Server) Issuer(url string) *Issuer {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.issuers[url]
}
