package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/spf13/cobra"

	"keymount/images/internal/product"
	"keymount/images/internal/program"
	"keymount/images/internal/source"
	"keymount/images/internal/trust"
)

// defaultVersion is the appVersion of the charts, which ask for images of this tag.
const defaultVersion = "0.1.0"

//go:embed go.sum
var sums string

type buildFlags struct {
	out, source, platforms, version, repository, revision, created string
	images                                                         []string
}

func buildCommand() *cobra.Command {
	var f buildFlags
	c := &cobra.Command{
		Use:   "build --out DIR",
		Short: "Compile the programs and make their images",
		Long: `build compiles the programs and makes, in DIR, per image and platform:
  NAME.tar                  an OCI layout of all platforms, with the bills of material as referrers
  NAME.OS-ARCH.spdx.json    the bill of material of one platform, SPDX 2.3
  digests.txt               the digest of every image, and of its part for each platform
The images are keymount-driver, keymount-azure and keyvault-emulator: a static program on an empty base with a pinned
bundle of certification authorities. They run with a read-only root file system. The same commit gives the same digests in
any folder and at any time, if Go is of the same release.

Started by 'go -C images run .', paths are taken from the folder images: give absolute ones.`,
		Example: `  images build --out /tmp/images
  ctr -n k8s.io images import /tmp/images/keymount-driver.tar
  skopeo copy --all oci-archive:/tmp/images/keymount-driver.tar docker://registry.example/keymount-driver:0.1.0`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return build(c.Context(), f, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	fl := c.Flags()
	fl.StringVar(&f.out, "out", "", "the folder to write to; made if it is not there")
	fl.StringVar(&f.platforms, "platform", "linux/amd64,linux/arm64", "platforms, separated by commas")
	fl.StringVar(&f.version, "version", defaultVersion, "version of the programs and tag of the images")
	fl.StringVar(&f.repository, "repository", "ghcr.io/keymount", "registry and folder of the images' names")
	fl.StringArrayVar(&f.images, "image", nil, "make only this image; may be repeated")
	fl.StringVar(&f.source, "source", ".", "the project's work tree, or a folder in it")
	fl.StringVar(&f.revision, "revision", "", "the commit, where there is no git")
	fl.StringVar(&f.created, "created", "", "the commit's date (RFC 3339), where there is no git")
	return c
}

func build(ctx context.Context, f buildFlags, stdout, stderr io.Writer) error {
	if f.out == "" {
		return errors.New("build needs --out, the folder to write to: see 'images build --help'")
	}
	platforms, err := program.ParsePlatforms(f.platforms)
	if err != nil {
		return fmt.Errorf("reading --platform: %w", err)
	}
	images, err := selected(f.images)
	if err != nil {
		return err
	}
	if _, err := name.NewTag(f.repository+"/x:"+f.version, name.StrictValidation); err != nil {
		return fmt.Errorf("reading --repository %q and --version %q: they must make an image name: %w", f.repository, f.version, err)
	}
	dir, err := source.Find(f.source)
	if err != nil {
		return err
	}
	commit, err := origin(ctx, f, dir)
	if err != nil {
		return err
	}
	version, sum, err := bundle(sums)
	if err != nil {
		return err
	}
	out, err := filepath.Abs(f.out)
	if err != nil {
		return fmt.Errorf("reading --out: %w", err)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	if strings.HasSuffix(commit.Revision, "-dirty") {
		log.Warn("the work tree holds changes that are in no commit: nobody can make the same images again", "source", dir)
	}
	release := product.Release{Source: dir, Repository: f.repository, Version: f.version, Revision: commit.Revision,
		Created: commit.Time, Bundle: version, BundleSum: sum}
	digests, err := release.Build(ctx, log, out, images, platforms)
	if err != nil {
		return err
	}
	for _, d := range digests {
		fmt.Fprintln(stdout, d)
	}
	return nil
}

func selected(names []string) ([]product.Image, error) {
	all := product.Images()
	if len(names) == 0 {
		return all, nil
	}
	for _, n := range names {
		if !slices.ContainsFunc(all, func(i product.Image) bool { return i.Name == n }) {
			var known []string
			for _, i := range all {
				known = append(known, i.Name)
			}
			return nil, fmt.Errorf("reading --image: there is no image %q: the images are %s", n, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(i product.Image) bool { return !slices.Contains(names, i.Name) }), nil
}

// origin is what git says, unless the flags say it.
func origin(ctx context.Context, f buildFlags, dir string) (source.Commit, error) {
	if f.revision == "" && f.created == "" {
		return source.Read(ctx, dir)
	}
	if !regexp.MustCompile(`^[0-9A-Za-z._-]{1,100}$`).MatchString(f.revision) {
		return source.Commit{}, fmt.Errorf("reading --revision %q: give the commit's hash, with --created", f.revision)
	}
	at, err := time.Parse(time.RFC3339, f.created)
	if err != nil {
		return source.Commit{}, fmt.Errorf("reading --created %q: give the commit's date with --revision, as in 2026-01-31T12:00:00Z", f.created)
	}
	return source.Commit{Revision: f.revision, Time: at}, nil
}

// bundle finds the version of the certification authorities in go.sum, which was embedded when this program was built.
func bundle(sums string) (version, sum string, err error) {
	for line := range strings.Lines(sums) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == trust.Module && !strings.HasSuffix(f[1], "/go.mod") {
			if version != "" {
				return "", "", fmt.Errorf("go.sum holds two versions of %s: run 'go mod tidy' in images", trust.Module)
			}
			version, sum = f[1], f[2]
		}
	}
	if version == "" {
		return "", "", fmt.Errorf("go.sum does not hold %s: run 'go mod tidy' in images", trust.Module)
	}
	return version, sum, nil
}
