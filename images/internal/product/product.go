// Package product makes Keymount's own images: which there are, what is in them and what they say about themselves. The
// same commit gives the same digests in any folder and at any time, with the same Go. It writes only into the folder that it
// is given. Its functions may be called concurrently for different folders.
package product

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"keymount/images/internal/image"
	"keymount/images/internal/layer"
	"keymount/images/internal/trust"
)

// A Release is what the images have in common.
type Release struct {
	Source     string // the project's work tree
	Repository string // registry and folder, such as ghcr.io/keymount
	Version    string // the images' tag
	Revision   string // the commit
	Created    time.Time
	Bundle     string // the version of trust.Module
	BundleSum  string // its line in go.sum
}

const (
	home    = "https://github.com/keymount/keymount"
	nonroot = "65532:65532"
)

// An Image is one of the project's: the program of that name on an empty base.
type Image struct {
	Name, Title, Description string
	// User is root where the program needs it: the driver mounts, and a provider's socket lies in a folder of root's.
	User string
	// Scratch says whether the program puts files under /tmp.
	Scratch bool
}

// Images returns all, in the order of their names.
func Images() []Image {
	return []Image{
		{Name: "keymount-azure", Title: "Keymount Azure provider", User: "0:0",
			Description: "Azure Key Vault provider for the Secrets Store CSI Driver"},
		{Name: "keymount-driver", Title: "Keymount driver", User: "0:0",
			Description: "Node daemon: a Secrets Store CSI Driver with registrar, liveness probe and Azure provider built in"},
		{Name: "keyvault-emulator", Title: "Key Vault emulator", User: nonroot, Scratch: true,
			Description: "Azure Key Vault and Entra ID for development and tests; not for secrets"},
	}
}

func (r Release) name(i Image) string { return strings.TrimSuffix(r.Repository, "/") + "/" + i.Name }

// recipe is the image for one platform; the compiled program lies in the folder binaries.
func (r Release) recipe(i Image, p v1.Platform, binaries string) (image.Recipe, error) {
	authorities, err := trust.PEM()
	if err != nil {
		return image.Recipe{}, fmt.Errorf("making %s: %w", i.Name, err)
	}
	entries := []layer.Entry{
		{Path: "/" + i.Name, Mode: 0o755, Source: filepath.Join(binaries, i.Name)},
		{Path: "/etc/ssl/certs/ca-certificates.crt", Mode: 0o644, Content: authorities},
		{Path: "/etc/passwd", Mode: 0o644, Content: []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")},
		{Path: "/etc/group", Mode: 0o644, Content: []byte("root:x:0:\nnonroot:x:65532:\n")},
	}
	if i.Scratch {
		entries = append(entries, layer.Entry{Path: "/tmp", Mode: 0o777 | fs.ModeSticky, Folder: true})
	}
	return image.Recipe{
		Platform:    p,
		Entries:     entries,
		Gzip:        true,
		Created:     r.Created,
		CreatedBy:   "keymount images build",
		Config:      v1.Config{Entrypoint: []string{"/" + i.Name}, User: i.User, WorkingDir: "/", Labels: r.labels(i)},
		Annotations: r.labels(i),
	}, nil
}

// labels are the same on the configuration, which `docker inspect` shows, and on manifests and indexes, which registries show.
func (r Release) labels(i Image) map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":         i.Title,
		prefix + "description":   i.Description,
		prefix + "source":        home,
		prefix + "version":       r.Version,
		prefix + "revision":      r.Revision,
		prefix + "created":       r.Created.UTC().Format(time.RFC3339),
		prefix + "licenses":      "Apache-2.0",
		prefix + "vendor":        "Keymount",
		prefix + "documentation": home + "/tree/main/docs",
	}
}
