package secretsync

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"keymount/internal/pfx"
	"keymount/internal/provider"
	"keymount/internal/publish"
	"keymount/internal/secretsync/tlspair"
)

const (
	// managedLabel marks the Secrets that may be written, as upstream's driver does.
	managedLabel = "secrets-store.csi.k8s.io/managed"
	managed      = "true"

	// maxData is what the API server takes of one Secret, in bytes, and maxKeys what the names of its keys may take together: they are in its
	// annotation too, of which 256 KiB are taken.
	maxData = corev1.MaxSecretSize
	maxKeys = 64 << 10
	// maxWork bounds the rounds of key derivation for the PKCS #12 files of one volume, which are read at each refresh: some seconds for somebody
	// who means ill, and hundreds of files as Key Vault and OpenSSL write them.
	maxWork = 8_000_000
	// maxNamed bounds what a text repeats of an author's.
	maxNamed = 128
	maxText  = 1024
)

// A desired is what a Secret is to be.
type desired struct {
	name, kind          string
	labels, annotations map[string]string
	data                map[string]provider.Contents
}

// A files returns the contents of those of some files that there are.
type files func(paths []string) (map[string]provider.Contents, error)

// build makes a Secret out of what an author asks for and what the volume holds. Its errors are about that alone: they last until the class
// or the volume is another.
func build(object *publish.SecretObject, read files, work *pfx.Budget) (*desired, error) {
	if err := check(object); err != nil {
		return nil, err
	}
	paths := make([]string, len(object.Data))
	for i, d := range object.Data {
		paths[i] = d.File
	}
	contents, err := read(paths)
	if err != nil {
		return nil, err
	}
	w := &desired{name: object.Name, kind: object.Type, labels: map[string]string{}, annotations: map[string]string{}, data: map[string]provider.Contents{}}
	if w.kind == "" {
		w.kind = string(corev1.SecretTypeOpaque)
	}
	maps.Copy(w.labels, object.Labels)
	w.labels[managedLabel] = managed
	for key, value := range object.Annotations {
		if !strings.HasPrefix(key, provider.AnnotationPrefix) { // ours are not an author's to write
			w.annotations[key] = value
		}
	}
	size := 0
	for _, d := range object.Data {
		content, ok := contents[d.File]
		if !ok {
			return nil, invalid("check objectName, which is the path of a file in the volume, against the objects of the class",
				"file matching objectName %s not found in the pod", quoted(d.File))
		}
		if w.data[d.Key], err = w.convert(d, content, work); err != nil {
			return nil, err
		}
		if size += len(w.data[d.Key]); size > maxData {
			return nil, invalid("split it into several", "its data is larger than the %d bytes that the API server takes", maxData)
		}
	}
	return w, nil
}

// check says what is wrong with what an author asks for, before anything is read.
func check(o *publish.SecretObject) error {
	keys, size := map[string]bool{}, 0
	switch problems := validation.IsDNS1123Subdomain(o.Name); {
	case o.Name == "":
		return invalid("set secretName", "secret name is empty")
	case len(problems) > 0:
		return invalid("correct secretName", "%s is no name of a Secret: %s", quoted(o.Name), problems[0])
	case o.Type == string(corev1.SecretTypeServiceAccountToken):
		return invalid("use another type", "Secrets of type %s are not made: Kubernetes would put a token of any service account that an annotation names into it", o.Type)
	case len(o.Data) == 0:
		return invalid("name at least one objectName and key in data", "data is empty")
	}
	for _, d := range o.Data {
		switch problems := validation.IsConfigMapKey(d.Key); {
		case d.File == "":
			return invalid("name a file of the volume", "object name in secretObjects.data is empty")
		case d.Key == "":
			return invalid("name a key", "key in secretObjects.data is empty")
		case len(problems) > 0:
			return invalid("correct it", "%s is no key of a Secret: %s", quoted(d.Key), problems[0])
		case keys[d.Key]:
			return invalid("give each file a key of its own", "key %s stands twice in data", d.Key)
		case o.Type == string(corev1.SecretTypeTLS) && d.Key != corev1.TLSCertKey && d.Key != corev1.TLSPrivateKeyKey:
			return invalid("use these two keys", "a Secret of type %s has the keys %s and %s, not %s", o.Type, corev1.TLSCertKey, corev1.TLSPrivateKeyKey, d.Key)
		}
		keys[d.Key] = true
		if size += len(d.Key); size > maxKeys {
			return invalid("split it into several", "the names of its keys take more than %d bytes", maxKeys)
		}
	}
	if o.Type == string(corev1.SecretTypeTLS) && len(keys) < 2 {
		return invalid("name both, also where one file holds certificate and key", "a Secret of type %s has the keys %s and %s, both of them", o.Type, corev1.TLSCertKey, corev1.TLSPrivateKeyKey)
	}
	return nil
}

// convert takes out of a file what belongs under a key: of certificates and keys in one file, the ones or the other.
func (w *desired) convert(d publish.SecretKey, content provider.Contents, work *pfx.Budget) (provider.Contents, error) {
	if w.kind != string(corev1.SecretTypeTLS) {
		return content, nil
	}
	take := tlspair.Certificates
	if d.Key == corev1.TLSPrivateKeyKey {
		take = tlspair.PrivateKey
	}
	out, err := take(content, work)
	if err != nil {
		return nil, invalid("name the file that holds certificate and key, such as a certificate that is read as a secret",
			"making %s from file %s: %v", d.Key, quoted(d.File), err)
	}
	return out, nil
}

// A digest stands for what a Secret holds of ours. Only this process can make it, so that it tells nobody anything about contents.
type digest [sha256.Size]byte

func (s *Syncer) digest(w *desired) (d digest) {
	h := hmac.New(sha256.New, s.key[:])
	put(h, []byte(w.name), []byte(w.kind))
	for _, texts := range []map[string]string{w.labels, w.annotations} {
		put(h, binary.BigEndian.AppendUint64(nil, uint64(len(texts))))
		for _, key := range slices.Sorted(maps.Keys(texts)) {
			put(h, []byte(key), []byte(texts[key]))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.data)) {
		put(h, []byte(key), w.data[key])
	}
	h.Sum(d[:0])
	return d
}

// put writes each part so that no two lists of parts are the same bytes.
func put(h hash.Hash, parts ...[]byte) {
	for _, part := range parts {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		h.Write(part)
	}
}

// A badObject is an error that lasts until the class or the volume is another.
type badObject struct{ message, remedy string }

func (e *badObject) Error() string { return e.message }

func invalid(remedy, format string, args ...any) error {
	return &badObject{message: fmt.Sprintf(format, args...), remedy: remedy}
}

// quoted is what a text repeats of an author's.
func quoted(text string) string {
	if len(text) > maxNamed {
		text = text[:maxNamed] + "..."
	}
	return provider.OneLine(text, maxText)
}
