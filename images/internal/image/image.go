// Package image makes OCI images of one layer. The same input gives the same digest. It knows nothing of where the files
// come from and where the image goes. Its functions may be called concurrently.
package image

import (
	"fmt"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"keymount/images/internal/layer"
)

// A Recipe is everything that an image is made of.
type Recipe struct {
	Platform    v1.Platform
	Entries     []layer.Entry
	Gzip        bool
	Created     time.Time // of the image and of every file in it
	CreatedBy   string    // what the history says
	Config      v1.Config
	Annotations map[string]string // of the manifest
}

// New returns the image of the recipe.
func New(r Recipe) (v1.Image, error) {
	l, err := layer.New(r.Entries, layer.Options{Time: r.Created, Gzip: r.Gzip})
	if err != nil {
		return nil, err
	}
	at := v1.Time{Time: r.Created.UTC()}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: l, History: v1.History{Created: at, CreatedBy: r.CreatedBy}})
	if err != nil {
		return nil, fmt.Errorf("adding the layer: %w", err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Variant = r.Platform.OS, r.Platform.Architecture, r.Platform.Variant
	cfg.Created, cfg.Config = at, r.Config
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		return nil, fmt.Errorf("setting the configuration: %w", err)
	}
	if len(r.Annotations) > 0 {
		img = mutate.Annotations(img, r.Annotations).(v1.Image)
	}
	return plain{img}, nil
}

// plain keeps the library from writing the type of the configuration as an artefact type into indexes: an image is none.
type plain struct{ v1.Image }

func (plain) ArtifactType() (string, error) { return "", nil }
