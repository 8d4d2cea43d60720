package main

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spf13/cobra"

	"keymount/images/internal/archive"
	"keymount/images/internal/image"
	"keymount/images/internal/layer"
)

type packFlags struct {
	out, name, platform, user          string
	files, links, entrypoint, cmd, env []string
}

func packCommand() *cobra.Command {
	var f packFlags
	c := &cobra.Command{
		Use:   "pack --out FILE.tar --name NAME:TAG --file /IN-IMAGE=ON-DISK [...]",
		Short: "Put files into an image of one layer, for tests",
		Long: `pack puts files of this machine into an image of one layer and writes it as an OCI layout in a tar file, for
  ctr -n k8s.io images import --local --snapshotter overlayfs FILE.tar
The same files give the same digest. Everything belongs to root; a file that somebody may execute gets mode 0755, any other
0644. Folders above files are made. Started by 'go -C images run .', paths are taken from the folder images: give absolute ones.`,
		Example: `  images pack --out shell.tar --name docker.io/keymount-e2e/shell:1 \
    --file /bin/busybox=/usr/bin/busybox --link /bin/sh=/bin/busybox --entrypoint /bin/sh --cmd -c --cmd 'sleep 60'`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return pack(f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.out, "out", "", "the tar file to write; replaced if it is there")
	fl.StringVar(&f.name, "name", "", "the image's full name with its tag, such as docker.io/keymount-e2e/x:1")
	fl.StringVar(&f.platform, "platform", "linux/"+runtime.GOARCH, "operating system and architecture")
	fl.StringArrayVar(&f.files, "file", nil, "/path/in/image=path/on/disk; may be repeated")
	fl.StringArrayVar(&f.links, "link", nil, "/path/in/image=target of the symbolic link; may be repeated")
	fl.StringArrayVar(&f.entrypoint, "entrypoint", nil, "one word of the entrypoint; may be repeated")
	fl.StringArrayVar(&f.cmd, "cmd", nil, "one word of the default arguments; may be repeated")
	fl.StringArrayVar(&f.env, "env", nil, "KEY=VALUE of the environment; may be repeated")
	fl.StringVar(&f.user, "user", "", "UID or UID:GID to run as; root unless given")
	return c
}

func pack(f packFlags) error {
	if f.out == "" || f.name == "" || len(f.files) == 0 {
		return fmt.Errorf("pack needs --out, --name and at least one --file: see 'images pack --help'")
	}
	tag, err := name.NewTag(f.name, name.StrictValidation)
	if err != nil {
		return fmt.Errorf("reading --name %q: give registry, repository and tag, such as docker.io/keymount-e2e/x:1: %w", f.name, err)
	}
	platform, err := v1.ParsePlatform(f.platform)
	if err != nil || platform.OS == "" || platform.Architecture == "" {
		return fmt.Errorf("reading --platform %q: give an operating system and an architecture, such as linux/amd64", f.platform)
	}
	entries, err := packEntries(f)
	if err != nil {
		return err
	}
	for _, kv := range f.env {
		if key, _, ok := strings.Cut(kv, "="); !ok || key == "" {
			return fmt.Errorf("reading --env %q: give KEY=VALUE", kv)
		}
	}
	img, err := image.New(image.Recipe{
		Platform:  *platform,
		Entries:   entries,
		Created:   time.Unix(0, 0),
		CreatedBy: "keymount images pack",
		Config:    v1.Config{Entrypoint: f.entrypoint, Cmd: f.cmd, Env: f.env, User: f.user},
	})
	if err != nil {
		return fmt.Errorf("packing %s: %w", f.name, err)
	}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add: img,
		Descriptor: v1.Descriptor{
			Platform: platform,
			// The name as given: containerd knows Docker Hub as docker.io, the library as index.docker.io.
			Annotations: map[string]string{archive.ImageName: f.name, archive.RefName: tag.TagStr()},
		},
	})
	return archive.Write(f.out, index)
}

func packEntries(f packFlags) ([]layer.Entry, error) {
	var entries []layer.Entry
	for _, file := range f.files {
		in, on, ok := strings.Cut(file, "=")
		if !ok || on == "" {
			return nil, fmt.Errorf("reading --file %q: give /path/in/image=path/on/disk", file)
		}
		info, err := os.Stat(on)
		if err != nil {
			return nil, fmt.Errorf("reading --file %q: %w", file, err)
		}
		if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("reading --file %q: %s is not a regular file; name each file of a folder", file, on)
		}
		on, err = filepath.Abs(on)
		if err != nil {
			return nil, fmt.Errorf("reading --file %q: %w", file, err)
		}
		e := layer.Entry{Path: in, Source: on, Mode: 0o644}
		if info.Mode()&0o111 != 0 {
			e.Mode = 0o755
		}
		entries = append(entries, e)
	}
	for _, link := range f.links {
		in, target, ok := strings.Cut(link, "=")
		if !ok || target == "" {
			return nil, fmt.Errorf("reading --link %q: give /path/in/image=target", link)
		}
		entries = append(entries, layer.Entry{Path: in, Target: target})
	}
	return entries, nil
}
