package node

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/internal/provider"
	"keymount/internal/token"
)

// What kubelet puts into the volume context (kubernetes, pkg/volume/csi/csi_util.go and csi_mounter.go). It overwrites
// whatever the pod's author wrote under these keys.
const (
	kubeletPrefix = "csi.storage.k8s.io/"

	keyPodName        = kubeletPrefix + "pod.name"
	keyPodNamespace   = kubeletPrefix + "pod.namespace"
	keyPodUID         = kubeletPrefix + "pod.uid"
	keyServiceAccount = kubeletPrefix + "serviceAccount.name"
	keyTokens         = kubeletPrefix + "serviceAccount.tokens"
	keyEphemeral      = kubeletPrefix + "ephemeral"

	keyClass = "secretProviderClass"
)

// maxGroup is the largest group id that Linux has (4294967295 means "none").
const maxGroup = 1<<32 - 2

// A mount is what a NodePublishVolume request says.
type mount struct {
	volumeID, target string
	class            string
	pod              provider.Pod
	group            *int
	// attributes are the volume context without the pod's identity and tokens.
	attributes map[string]string
	secrets    map[string]provider.Sensitive
	tokens     string // JSON, see internal/token
	origin     token.Origin
}

// parse lists every reason to refuse a request, without any effect, and takes it apart.
func parse(req *csi.NodePublishVolumeRequest) (*mount, error) {
	attributes := req.GetVolumeContext()
	switch {
	case req.GetVolumeCapability() == nil:
		return nil, invalid("Volume capability missing in request")
	case req.GetVolumeId() == "":
		return nil, invalid("Volume ID missing in request")
	case req.GetTargetPath() == "":
		return nil, invalid("Target path missing in request")
	case len(attributes) == 0:
		return nil, invalid("Volume attributes missing in request")
	case req.GetVolumeCapability().GetBlock() != nil:
		return nil, invalid("Block volumes are not supported: secrets are files")
	case attributes[keyClass] == "":
		return nil, invalid("secretProviderClass is not set (name one in csi.volumeAttributes.secretProviderClass of the pod's volume)")
	case attributes[keyPodName] == "" || attributes[keyPodNamespace] == "" || attributes[keyPodUID] == "":
		return nil, invalid("Pod information missing in request (the CSIDriver object needs podInfoOnMount: true)")
	case !req.GetReadonly():
		return nil, invalid("Readonly is not true in request (set csi.readOnly: true in the pod's volume)")
	}
	group, err := parseGroup(req.GetVolumeCapability().GetMount().GetVolumeMountGroup())
	if err != nil {
		return nil, err
	}
	m := &mount{
		volumeID: req.GetVolumeId(), target: req.GetTargetPath(),
		class: attributes[keyClass],
		pod: provider.Pod{
			Namespace: attributes[keyPodNamespace], Name: attributes[keyPodName], UID: attributes[keyPodUID],
			ServiceAccount: attributes[keyServiceAccount],
		},
		group: group,
	}
	m.tokens, m.origin = attributes[keyTokens], token.InVolumeContext
	if text := req.GetSecrets()[keyTokens]; text != "" {
		m.tokens, m.origin = text, token.InSecrets
	}
	m.attributes = maps.Clone(attributes)
	for _, key := range []string{keyPodName, keyPodNamespace, keyPodUID, keyServiceAccount, keyTokens} {
		delete(m.attributes, key)
	}
	for key, value := range req.GetSecrets() {
		if key == keyTokens {
			continue
		}
		if m.secrets == nil {
			m.secrets = make(map[string]provider.Sensitive, len(req.GetSecrets()))
		}
		m.secrets[key] = provider.Sensitive(value)
	}
	return m, nil
}

func parseGroup(text string) (*int, error) {
	if text == "" {
		return nil, nil
	}
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 0 || id > maxGroup {
		return nil, invalid(fmt.Sprintf("Volume mount group %q is not a group id", text))
	}
	group := int(id)
	return &group, nil
}

func invalid(message string) error { return status.Error(codes.InvalidArgument, message) }

// ofKubelet says whether an attribute is one that kubelet may set. It overwrites what an author wrote where it does set it, and
// leaves the rest as it is.
func ofKubelet(key string) bool { return strings.HasPrefix(key, kubeletPrefix) }
