// Package referrer makes OCI artefacts that say something about an image: a registry that has the referrers API lists them
// with it. It knows nothing of what they say. Its functions may be called concurrently.
package referrer

import (
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// emptyConfig is the media type that the image specification gives the configuration of what has none.
const emptyConfig = types.MediaType("application/vnd.oci.empty.v1+json")

// New returns an artefact of the type kind that holds content, a file of that name, and belongs to subject.
func New(subject v1.Image, kind, file string, content []byte, annotations map[string]string) (v1.Image, error) {
	about, err := partial.Descriptor(subject)
	if err != nil {
		return nil, fmt.Errorf("describing the image that %s is about: %w", file, err)
	}
	config, blob := static.NewLayer([]byte("{}"), emptyConfig), static.NewLayer(content, types.MediaType(kind))
	configDesc, err := partial.Descriptor(config)
	if err != nil {
		return nil, fmt.Errorf("describing the configuration: %w", err)
	}
	blobDesc, err := partial.Descriptor(blob)
	if err != nil {
		return nil, fmt.Errorf("describing %s: %w", file, err)
	}
	blobDesc.Annotations = map[string]string{"org.opencontainers.image.title": file}
	manifest, err := json.Marshal(v1.Manifest{
		SchemaVersion: 2,
		MediaType:     types.OCIManifestSchema1,
		ArtifactType:  kind,
		Config:        *configDesc,
		Layers:        []v1.Descriptor{*blobDesc},
		Subject:       &v1.Descriptor{MediaType: about.MediaType, Size: about.Size, Digest: about.Digest},
		Annotations:   annotations,
	})
	if err != nil {
		return nil, fmt.Errorf("writing the manifest of %s: %w", file, err)
	}
	return partial.CompressedToImage(&artefact{manifest: manifest, blob: blob})
}

type artefact struct {
	manifest []byte
	blob     v1.Layer
}

func (a *artefact) RawManifest() ([]byte, error)        { return a.manifest, nil }
func (a *artefact) RawConfigFile() ([]byte, error)      { return []byte("{}"), nil }
func (a *artefact) MediaType() (types.MediaType, error) { return types.OCIManifestSchema1, nil }

func (a *artefact) LayerByDigest(want v1.Hash) (partial.CompressedLayer, error) {
	if have, err := a.blob.Digest(); err != nil || have != want {
		return nil, fmt.Errorf("the artefact has no blob %s", want)
	}
	return a.blob, nil
}
