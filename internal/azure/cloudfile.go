package azure

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const maxCloudFile = 1 << 20 // bytes

// cloudFile returns the description of a custom cloud for the name that a class gives: the operator's file for none or for
// that file's own path, else a file in the operator's folder, by its name there or its whole path. Nothing else of this
// machine is opened, whatever the name or the links in the folder say.
func (p *Provider) cloudFile(name string) ([]byte, error) {
	if name == "" && p.cfg.CloudFile == "" {
		return nil, errors.New("neither the class nor the operator names the cloud's file")
	}
	if name == "" || name == p.cfg.CloudFile {
		return readIn(filepath.Dir(p.cfg.CloudFile), filepath.Base(p.cfg.CloudFile))
	}
	refused := &fs.PathError{Op: "open", Path: filepath.Base(name), Err: errors.New("not in the folder of cloud files")}
	if p.cfg.CloudFolder == "" {
		return nil, refused
	}
	if filepath.IsAbs(name) {
		inside, err := filepath.Rel(p.cfg.CloudFolder, name)
		if err != nil {
			return nil, refused
		}
		name = inside
	}
	if !filepath.IsLocal(name) {
		return nil, refused
	}
	return readIn(p.cfg.CloudFolder, name)
}

func readIn(folder, name string) ([]byte, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, errors.New("the folder of cloud files cannot be opened")
	}
	defer root.Close()
	info, err := root.Stat(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: cause(err)}
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its other end
		return nil, &fs.PathError{Op: "open", Path: name, Err: errors.New("not a regular file")}
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: cause(err)}
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, maxCloudFile+1))
	if err != nil {
		return nil, &fs.PathError{Op: "read", Path: name, Err: cause(err)}
	}
	return content, nil
}

// cause is what went wrong without where, which could be a path that the class's author has no business with.
func cause(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return errors.New("not possible")
}
