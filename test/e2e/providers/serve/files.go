//go:build integration && linux

package serve

import (
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"keymount/api/provider/v1alpha1"
)

// files are those that the parameters name, in the order of their names.
func (s *server) files(attributes map[string]string, permission string) ([]*v1alpha1.File, error) {
	byName := map[string][]byte{}
	for key, value := range attributes {
		if name, ok := strings.CutPrefix(key, "file."); ok {
			byName[name] = []byte(value)
		}
		if name, ok := strings.CutPrefix(key, "from."); ok {
			b, err := s.read(value)
			if err != nil {
				return nil, status.Errorf(codes.NotFound, "reading %q for %q: %v", value, name, err)
			}
			byName[name] = b
		}
	}
	if len(byName) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the parameters name no file: give file.NAME or from.NAME")
	}
	var files []*v1alpha1.File
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if !filepath.IsLocal(name) {
			return nil, status.Errorf(codes.InvalidArgument, "%q is no path in a volume", name)
		}
		mode, err := strconv.ParseUint(permission, 10, 9)
		if octal, ok := attributes["mode."+name]; ok {
			mode, err = strconv.ParseUint(octal, 8, 9)
		}
		if err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "reading the mode of %q: %v", name, err)
		}
		files = append(files, &v1alpha1.File{Path: name, Mode: int32(mode), Contents: byName[name]})
	}
	return files, nil
}

// read follows links only inside the folder, as those of a mounted ConfigMap.
func (s *server) read(name string) ([]byte, error) {
	if s.content == "" {
		return nil, status.Error(codes.FailedPrecondition, "the provider was started without --content")
	}
	root, err := os.OpenRoot(s.content)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return root.ReadFile(name)
}

func version(content []byte) string {
	sum := sha256.Sum256(content)
	return hex.EncodeToString(sum[:6])
}
