package pfx

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
)

// A certificate is what ordering needs of one. It is read without x509, which refuses certificates that people use.
type certificate struct {
	issuer, subject         []byte // DER of the names
	publicKey               []byte // the bits, without the algorithm
	subjectKeyID, issuerKey []byte // the key identifiers; empty where there are none
}

type certificateDER struct {
	TBS struct {
		Version                     int           `asn1:"optional,explicit,default:0,tag:0"`
		Serial                      asn1.RawValue // may be negative
		Algorithm, Issuer, Validity asn1.RawValue
		Subject                     asn1.RawValue
		PublicKey                   struct {
			Algorithm asn1.RawValue
			Key       asn1.BitString
		}
		IssuerID   asn1.BitString   `asn1:"optional,tag:1"`
		SubjectID  asn1.BitString   `asn1:"optional,tag:2"`
		Extensions []pkix.Extension `asn1:"optional,explicit,tag:3"`
	}
	Algorithm asn1.RawValue
	Signature asn1.BitString
}

func readCertificate(der []byte) (certificate, bool) {
	var d certificateDER
	if parse(der, &d) != nil {
		return certificate{}, false
	}
	c := certificate{issuer: d.TBS.Issuer.FullBytes, subject: d.TBS.Subject.FullBytes, publicKey: d.TBS.PublicKey.Key.Bytes}
	for _, e := range d.TBS.Extensions {
		switch e.Id.String() {
		case "2.5.29.14": // RFC 5280 4.2.1.2
			if parse(e.Value, &c.subjectKeyID) != nil {
				c.subjectKeyID = nil
			}
		case "2.5.29.35": // RFC 5280 4.2.1.1
			var authority struct {
				KeyID []byte `asn1:"optional,tag:0"`
			}
			if parse(e.Value, &authority) == nil {
				c.issuerKey = authority.KeyID
			}
		}
	}
	return c, true
}

// issuedBy says whether p is an issuer of c: by key identifiers where both have them, else by name. Signatures are not
// checked: this is about order, not trust.
func (c *certificate) issuedBy(p *certificate) bool {
	if bytes.Equal(c.issuer, c.subject) && (len(c.issuerKey) == 0 || bytes.Equal(c.issuerKey, c.subjectKeyID)) {
		return false // self-signed
	}
	if len(c.issuerKey) > 0 && len(p.subjectKeyID) > 0 {
		return bytes.Equal(c.issuerKey, p.subjectKeyID)
	}
	return bytes.Equal(c.issuer, p.subject) && !bytes.Equal(c.publicKey, p.publicKey)
}

// chain orders certificates so that the leaf comes first and each before its issuers. The leaf is the certificate of one
// of the keys, else one that issued no other. If a certificate is no ancestor of the leaf, or the issuers form a circle,
// the order stays as it is and complete is false.
func chain(ders, keys [][]byte) (ordered [][]byte, complete bool) {
	if len(ders) < 2 {
		return ders, true
	}
	certs := make([]certificate, len(ders))
	for i, der := range ders {
		var ok bool
		if certs[i], ok = readCertificate(der); !ok {
			return ders, false
		}
	}
	g := newGraph(ders, certs)
	leaf := g.leaf(publicKeys(keys))
	if leaf < 0 {
		return ders, false
	}
	order := g.upFrom(leaf)
	if len(order) != len(ders) {
		return ders, false
	}
	for _, i := range order {
		ordered = append(ordered, ders[i])
	}
	return ordered, true
}

// A graph says who issued whom, by the index of a certificate.
type graph struct {
	certs   []certificate
	issuers [][]int
	issued  []int // how many of the others it issued
}

func newGraph(ders [][]byte, certs []certificate) *graph {
	g := &graph{certs: certs, issuers: make([][]int, len(certs)), issued: make([]int, len(certs))}
	for i := range certs {
		for j := range certs {
			if i != j && !bytes.Equal(ders[i], ders[j]) && certs[i].issuedBy(&certs[j]) {
				g.issuers[i] = append(g.issuers[i], j)
				g.issued[j]++
			}
		}
	}
	return g
}

// leaf returns the index of the leaf, -1 where there is none to be told.
func (g *graph) leaf(keys [][]byte) int {
	best, rank := -1, 0
	for i, c := range g.certs {
		r := 0
		for _, k := range keys {
			if bytes.Equal(k, c.publicKey) {
				r = 2
			}
		}
		if g.issued[i] == 0 {
			r++
		}
		if r > rank {
			best, rank = i, r
		}
	}
	return best
}

// upFrom returns the ancestors of a leaf, itself included, each before its issuers, and before that in the file's order.
// Those in a circle are left out.
func (g *graph) upFrom(leaf int) []int {
	waiting := make([]int, len(g.issued)) // for so many of those it issued
	copy(waiting, g.issued)
	placed := make([]bool, len(g.issued))
	var order []int
	for next := leaf; next >= 0; {
		placed[next] = true
		order = append(order, next)
		for _, j := range g.issuers[next] {
			waiting[j]--
		}
		next = -1
		for i := range placed {
			if !placed[i] && g.issued[i] > 0 && waiting[i] == 0 {
				next = i
				break
			}
		}
	}
	return order
}

// publicKeys returns the public keys of PKCS #8 private keys as the bits that certificates hold; those that Go does not
// read are left out.
func publicKeys(keys [][]byte) [][]byte {
	var out [][]byte
	for _, k := range keys {
		key, err := x509.ParsePKCS8PrivateKey(k)
		if err != nil {
			continue
		}
		pair, ok := key.(interface{ Public() crypto.PublicKey })
		if !ok {
			continue
		}
		der, err := x509.MarshalPKIXPublicKey(pair.Public())
		if err != nil {
			continue
		}
		var info struct {
			Algorithm asn1.RawValue
			Key       asn1.BitString
		}
		if parse(der, &info) == nil {
			out = append(out, info.Key.Bytes)
		}
	}
	return out
}
