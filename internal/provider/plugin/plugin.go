// Package plugin is the adapter between internal/provider and the v1alpha1 provider protocol, in both directions: Client
// makes a provider behind a socket a provider.Provider, Folders finds such providers by name, and Server puts a
// provider.Provider behind a socket.
//
// It owns everything that only the wire knows: JSON strings, kubelet's attribute names, gRPC codes, sockets. It imports
// internal/provider, the generated protocol and gRPC, never a particular provider. Everything may be used from any number
// of goroutines.
//
// Whatever comes from the other side is hostile until checked: sizes and counts are bounded, texts are cleaned, and no
// message of either direction repeats a value of attributes, secrets or contents.
package plugin

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// APIVersion is the protocol's version, as in VersionRequest and VersionResponse.
const APIVersion = "v1alpha1"

// What kubelet writes into the volume context (CSIDriver podInfoOnMount and tokenRequests).
const (
	keyPodName        = "csi.storage.k8s.io/pod.name"
	keyPodNamespace   = "csi.storage.k8s.io/pod.namespace"
	keyPodUID         = "csi.storage.k8s.io/pod.uid"
	keyServiceAccount = "csi.storage.k8s.io/serviceAccount.name"
	keyTokens         = "csi.storage.k8s.io/serviceAccount.tokens"
)

// Bounds on what either side may send. A message as a whole is bounded by gRPC's receive limit.
const (
	defaultMessageBytes = 4 << 20
	maxFiles            = 16384 // files, and object versions, of one answer
	maxPathBytes        = 4096  // PATH_MAX
	maxVersionBytes     = 4096  // id or version of one object
	maxFailures         = 32    // failures that travel one by one; what is beyond is counted
	maxWarnings         = 32    // files of one answer that are warned of one by one
	maxTextBytes        = 2048  // one message or remedy
	maxStatusBytes      = 8192  // the status text as a whole: some HTTP/2 peers take no more
	maxObjectBytes      = 512   // the name of a failed object
	maxCodeBytes        = 128   // Error.code
	maxHeaderBytes      = 1 << 20
	maxRetryAfter       = time.Hour
)

// clean makes a foreign text fit to print: valid UTF-8, no control characters but line feeds (terminals and logs act on
// them), at most limit bytes.
func clean(s string, limit int) string {
	if len(s) > limit {
		cut := limit - len("...")
		for cut > 0 && !utf8.RuneStart(s[cut]) {
			cut--
		}
		s = s[:cut] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(s, " "))
}
