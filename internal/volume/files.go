package volume

import (
	"errors"
	"fmt"
	"io/fs"

	"keymount/internal/provider"
)

// ErrNotMounted is returned by Tmpfs.Read for a target at which no volume is mounted.
var ErrNotMounted = errors.New("no volume is mounted")

// ReadFiles returns the contents of those of paths that the volume at root holds as regular files, at most limit bytes together: more is an
// error. All are of one generation; those of a volume that its provider writes itself are read as they are found, and links in it are followed
// as long as they stay inside. A path that is no path of a file in a volume is not there, and neither is what is no regular file.
func ReadFiles(root string, paths []string, limit int) (map[string]provider.Contents, error) {
	v, err := openVolume(root)
	if err != nil {
		return nil, err
	}
	defer v.close()
	// A generation that falls away while it is read was replaced by another one, which is then read instead.
	const tries = 100
	for range tries {
		name, err := v.current()
		if err != nil {
			return nil, err
		}
		files, readErr := v.readSome(name, paths, limit)
		after, err := v.current()
		switch {
		case err != nil:
			return nil, err
		case after == name:
			return files, readErr
		}
	}
	return nil, fmt.Errorf("reading %s: it changed %d times meanwhile", root, tries)
}

// readSome reads files of a generation, or of a volume that has none.
func (v *volume) readSome(generation string, paths []string, limit int) (map[string]provider.Contents, error) {
	in := v
	if generation != "" {
		gen, err := v.sub(generation)
		if err != nil {
			return nil, err
		}
		defer gen.close()
		in = gen
	}
	files := make(map[string]provider.Contents, len(paths))
	total := 0
	for _, path := range paths {
		if message, _ := checkOne(&provider.File{Path: path}); message != "" || files[path] != nil {
			continue
		}
		info, err := in.root.Stat(path)
		if err != nil || !info.Mode().IsRegular() {
			if err != nil && errors.Is(err, fs.ErrPermission) {
				return nil, fmt.Errorf("reading %s: %w", quote(path), err)
			}
			continue // absent, dangling, leading out of the volume, or no file
		}
		content, err := in.readFile(path, info, limit-total)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", quote(path), err)
		}
		files[path] = content
		total += len(content)
	}
	return files, nil
}

// readFile reads a file of at most limit bytes. What it returns is not nil.
func (v *volume) readFile(path string, info fs.FileInfo, limit int) (provider.Contents, error) {
	f, err := v.openFile(path, info)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAll(f, info.Size(), limit)
	if err != nil {
		return nil, err
	}
	return append(provider.Contents{}, data...), nil
}

// Read is ReadFiles of a target that has a volume; ErrNotMounted (for errors.Is) says that there is none.
func (t Tmpfs) Read(target string, paths []string, limit int) (map[string]provider.Contents, error) {
	status, err := t.Inspect(target)
	if err != nil {
		return nil, err
	}
	if status.State != Mounted {
		return nil, fmt.Errorf("reading %s: %w", target, ErrNotMounted)
	}
	return ReadFiles(target, paths, limit)
}
