// Package provider is the contract between the node side of Keymount and whatever reads secrets: one method that turns a
// request into a bundle of files.
//
// Three kinds of implementation exist: the Azure provider in this process (internal/azure), any provider behind a v1alpha1
// socket (internal/provider/plugin), and the fake of the behaviour suite (internal/provider/providertest), which all of
// them pass. The package imports the standard library only; requests, bundles and errors of every layer are its types.
//
// Contents and credentials are types that print as redacted under every verb, so that a log line cannot leak them.
package provider

import (
	"context"
	"io/fs"
	"time"
)

// AnnotationPrefix begins the names of annotations on classes and of parameters that are Keymount's own. Volume attributes
// that begin with it are taken out of what an author wrote.
const AnnotationPrefix = "keymount.dev/"

// A Provider reads what a request asks for.
//
// Fetch returns either a whole bundle or an error, never a part of the bundle. Every failed object is reported, not only
// the first: the error is an *Error, or an Errors with one *Error per object. Fetch may be called from any number of
// goroutines. It returns soon after ctx is done, with an error that names what it was waiting for. The request is the
// caller's: an implementation neither changes nor keeps it. The bundle is the caller's too, but its contents may be shared
// with other callers and must not be changed.
type Provider interface {
	Fetch(ctx context.Context, req *Request) (*Bundle, error)
}

// A TargetWriter is a Provider that may write files into Request.TargetPath itself: the volume is then mounted before the
// fetch, not after it. A provider that does not implement it never writes there.
type TargetWriter interface {
	Provider
	MayWriteTarget() bool
}

// A Request says who asks, and for what.
type Request struct {
	// Pod is who asks. It is required: whatever a provider keeps between calls is keyed by it or by what it proves.
	Pod Pod
	// Tokens are the service account tokens that kubelet made for this pod, by audience.
	Tokens map[string]Token
	// Parameters are those of the class, overlaid with the volume's attributes. Kubelet's own attributes
	// (csi.storage.k8s.io/*) are among them, except for the pod's identity and tokens, which are Pod and Tokens.
	Parameters map[string]string
	// Secrets is the data of the volume's nodePublishSecretRef, nil if there is none.
	Secrets map[string]Sensitive
	// Mounted are the versions that the volume holds now; nil at the first mount.
	Mounted []ObjectVersion
	// TargetPath is where the volume is or will be; some providers write there themselves.
	TargetPath string
	// NotBefore is zero, or when somebody asked for a refresh: what was read before that would be of no use to them, so a read that
	// began earlier does not serve this request. It is a matter of reads that are shared; who shares none may ignore it.
	NotBefore time.Time
	// DefaultMode is the mode of files for which the class names none. Only permission bits.
	DefaultMode fs.FileMode
}

// A Pod identifies the pod that a volume belongs to.
type Pod struct {
	Namespace      string
	Name           string
	UID            string
	ServiceAccount string
}

// A Token is a service account token, and how far it may be trusted.
type Token struct {
	Value   Sensitive
	Expires time.Time
	Proof   Proof
}

// A Proof says why a token is believed to be the pod's own. Reads are shared between pods only on a proven identity.
type Proof int

const (
	// Unproven tokens may have been written by the pod's author.
	Unproven Proof = iota
	// ProvenByRequest tokens came in the secrets of the CSI request, under a key that no Kubernetes Secret can hold.
	ProvenByRequest
	// ProvenByCSIDriver tokens came in the volume context, for an audience that the CSIDriver object requests, so that
	// kubelet replaced whatever the pod's author wrote there.
	ProvenByCSIDriver
	// ProvenBySignature tokens were checked against the keys of the API server.
	ProvenBySignature
)

func (p Proof) String() string {
	switch p {
	case ProvenByRequest:
		return "request"
	case ProvenByCSIDriver:
		return "csidriver"
	case ProvenBySignature:
		return "signature"
	}
	return "unproven"
}

// A Bundle is the whole content of a volume.
type Bundle struct {
	// Files may be empty: the volume is then empty, or the provider wrote the files itself (see SelfWritten).
	Files []File
	// Versions are the objects behind the files. A version is stable while the content is, and changes when it does.
	// An id may occur more than once.
	Versions []ObjectVersion
	// SelfWritten says that the provider has no files to hand over because it writes into the target path itself, as
	// some third-party providers do; only a TargetWriter may say so.
	SelfWritten bool
	// Warnings are for people: one sentence each, without secrets.
	Warnings []string
	// AsOf is when the oldest of the reads that the bundle was made of began, in this process's clock: what changed in the source since
	// may be missing. The zero value says that none began before the call.
	AsOf time.Time
}

// A File is one file of a bundle.
type File struct {
	// Path is relative to the volume's root, with forward slashes.
	Path string
	// Mode holds permission bits only.
	Mode     fs.FileMode
	Contents Contents
	// Object is the id of the ObjectVersion that the file came from, "" where the provider does not tell.
	Object string
}

// An ObjectVersion names one version of one object, such as {"secret/db-password", "d4c1..."}.
type ObjectVersion struct {
	ID      string
	Version string
}

// VersionOf returns the version of the object id in the bundle, "" where it has none.
func (b *Bundle) VersionOf(id string) string {
	for _, v := range b.Versions {
		if v.ID == id {
			return v.Version
		}
	}
	return ""
}
