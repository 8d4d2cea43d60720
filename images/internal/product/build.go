package product

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"keymount/images/internal/archive"
	"keymount/images/internal/image"
	"keymount/images/internal/program"
	"keymount/images/internal/referrer"
	"keymount/images/internal/sbom"
	"keymount/images/internal/trust"
)

// A Digest names one image, or with a platform one part of it.
type Digest struct{ Digest, Name, Platform string }

func (d Digest) String() string { return strings.TrimSpace(d.Digest + " " + d.Name + " " + d.Platform) }

// Build compiles the images' programs and writes into the folder out, per image, NAME.tar and per platform
// NAME.OS-ARCH.spdx.json, and at last digests.txt. It returns what that file lists.
func (r Release) Build(ctx context.Context, log *slog.Logger, out string, images []Image, platforms []v1.Platform) ([]Digest, error) {
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, fmt.Errorf("making the folder of the images: %w", err)
	}
	work, err := os.MkdirTemp(out, ".build-")
	if err != nil {
		return nil, fmt.Errorf("making a folder for the programs: %w", err)
	}
	defer os.RemoveAll(work)
	for _, p := range platforms {
		log.Info("compiling", "platform", p.String(), "source", r.Source)
		dir := binaries(work, p)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, fmt.Errorf("making a folder for the programs: %w", err)
		}
		if err := program.Compile(ctx, r.Source, dir, p, r.stamp(), names(images)); err != nil {
			return nil, err
		}
	}
	var digests []Digest
	for _, i := range images {
		log.Info("packing", "image", i.Name)
		d, err := r.write(i, platforms, work, out)
		if err != nil {
			return nil, fmt.Errorf("making the image %s: %w", i.Name, err)
		}
		digests = append(digests, d...)
	}
	var list strings.Builder
	for _, d := range digests {
		fmt.Fprintln(&list, d)
	}
	if err := os.WriteFile(filepath.Join(out, "digests.txt"), []byte(list.String()), 0o644); err != nil {
		return nil, fmt.Errorf("writing the list of digests: %w", err)
	}
	return digests, nil
}

func (r Release) stamp() program.Stamp {
	return program.Stamp{Version: r.Version, Commit: r.Revision, Date: r.Created.Format(time.RFC3339)}
}

func names(images []Image) []string {
	var all []string
	for _, i := range images {
		all = append(all, i.Name)
	}
	return all
}

func dashed(p v1.Platform) string { return strings.ReplaceAll(p.String(), "/", "-") }

func binaries(work string, p v1.Platform) string { return filepath.Join(work, dashed(p)) }

// write makes one image for all platforms, with its bills of material.
func (r Release) write(i Image, platforms []v1.Platform, work, out string) ([]Digest, error) {
	name := r.name(i) + ":" + r.Version
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	digests := make([]Digest, 1, 1+len(platforms))
	var bills []mutate.IndexAddendum
	for _, p := range platforms {
		img, bill, err := r.one(i, p, work, out)
		if err != nil {
			return nil, fmt.Errorf("for %s: %w", p.String(), err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &p}})
		bills = append(bills, mutate.IndexAddendum{Add: bill})
		digest, err := img.Digest()
		if err != nil {
			return nil, err
		}
		digests = append(digests, Digest{Digest: digest.String(), Name: name, Platform: p.String()})
	}
	index = mutate.Annotations(index, r.labels(i)).(v1.ImageIndex)
	digest, err := index.Digest()
	if err != nil {
		return nil, err
	}
	digests[0] = Digest{Digest: digest.String(), Name: name}
	// What refers to the parts of an image stands beside it in the layout, where tools look for referrers; it has no name,
	// so nobody imports it as an image.
	top := slices.Concat([]mutate.IndexAddendum{{Add: index, Descriptor: v1.Descriptor{
		Annotations: map[string]string{archive.ImageName: name, archive.RefName: r.Version},
	}}}, bills)
	layout := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), top...)
	return digests, archive.Write(filepath.Join(out, i.Name+".tar"), layout)
}

// one makes the image for one platform and the artefact with its bill of material, which is also written as a file.
func (r Release) one(i Image, p v1.Platform, work, out string) (img, bill v1.Image, err error) {
	recipe, err := r.recipe(i, p, binaries(work, p))
	if err != nil {
		return nil, nil, err
	}
	if img, err = image.New(recipe); err != nil {
		return nil, nil, err
	}
	spdx, err := sbom.SPDX(sbom.Image{
		Name:     r.name(i),
		Version:  r.Version,
		Platform: p.String(),
		Created:  r.Created,
		Program:  filepath.Join(binaries(work, p), i.Name),
		Bundle:   sbom.Module{Path: trust.Module, Version: r.Bundle, Sum: r.BundleSum},
	})
	if err != nil {
		return nil, nil, err
	}
	file := i.Name + "." + dashed(p) + ".spdx.json"
	if err := os.WriteFile(filepath.Join(out, file), spdx, 0o644); err != nil {
		return nil, nil, fmt.Errorf("writing the bill of material: %w", err)
	}
	created := map[string]string{"org.opencontainers.image.created": r.Created.UTC().Format(time.RFC3339)}
	if bill, err = referrer.New(img, sbom.MediaType, file, spdx, created); err != nil {
		return nil, nil, err
	}
	return img, bill, nil
}
