package volume

import (
	"errors"
	"fmt"
	"io/fs"

	"keymount/internal/provider"
)

// writeGeneration writes want into a new folder of its own and returns the folder's name. Nothing points at it yet.
func (v *volume) writeGeneration(want *tree) (string, error) {
	name := newName()
	if err := v.makeFolder(name, want.group); err != nil {
		return "", fmt.Errorf("making the folder of a generation: %w", err)
	}
	gen, err := v.sub(name)
	if err != nil {
		return "", fmt.Errorf("opening the folder of a generation: %w", err)
	}
	defer gen.close()
	for _, dir := range want.folders {
		if err := gen.makeFolder(dir, want.group); err != nil {
			return "", fmt.Errorf("making folder %s: %w", quote(dir), err)
		}
	}
	for _, f := range want.files {
		if err := gen.writeFile(f, want.group); err != nil {
			return "", fmt.Errorf("writing file %s: %w", quote(f.Path), err)
		}
	}
	return name, nil
}

func (v *volume) makeFolder(name string, group *int) (err error) {
	if err := v.root.Mkdir(name, 0o700); err != nil {
		return err
	}
	if group != nil {
		if err := v.root.Lchown(name, -1, *group); err != nil {
			return err
		}
	}
	if !unixModes {
		return nil
	}
	// Mkdir's own mode is subject to the umask, which may even have taken the owner's right to open the folder.
	f, err := v.root.OpenFile(name, openFolderFlags, 0)
	if errors.Is(err, fs.ErrPermission) {
		return v.root.Chmod(name, folderMode)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return f.Chmod(folderMode)
}

// writeFile makes a file that nobody else can read until it has its group and mode.
func (v *volume) writeFile(want *provider.File, group *int) (err error) {
	f, err := v.root.OpenFile(want.Path, newFileFlags, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(want.Contents); err != nil {
		return err
	}
	if group != nil {
		if err := f.Chown(-1, *group); err != nil {
			return err
		}
	}
	if !unixModes {
		return nil
	}
	return f.Chmod(want.Mode)
}

// swap points ..data at the generation, by one rename. The new link is not called ..data_tmp before, as upstream's is: if
// this process is killed in between and upstream's driver takes the volume over, that name would end its rotation for good.
func (v *volume) swap(generation string) error {
	temp := newName()
	if err := v.root.Symlink(generation, temp); err != nil {
		return fmt.Errorf("making the next ..data: %w", hintLink(err))
	}
	if err := v.renameOver(temp, dataLink); err != nil {
		return fmt.Errorf("swapping ..data: %w", err)
	}
	return nil
}

// link makes the top-level name a link into ..data, if it is not. What else stands at the name is left unless
// replace is set. made says that the name did not exist before.
func (v *volume) link(name string, replace bool) (made bool, err error) {
	target := dataLink + "/" + name
	if got, err := v.root.Readlink(name); err == nil && got == target {
		return false, nil
	}
	_, err = v.root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := v.root.Symlink(target, name); err != nil {
			return false, fmt.Errorf("making link %s: %w", quote(name), hintLink(err))
		}
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("inspecting %s: %w", quote(name), err)
	}
	if !replace {
		return false, nil
	}
	temp := newName()
	if err := v.root.Symlink(target, temp); err != nil {
		return false, fmt.Errorf("making link %s: %w", quote(name), hintLink(err))
	}
	if err := v.renameOver(temp, name); err != nil {
		return false, fmt.Errorf("replacing %s by a link: %w", quote(name), err)
	}
	return false, nil
}

// renameOver gives the link temp the name, whatever stands there. A file or link is replaced by one rename; a folder, which a rename
// cannot replace, trades places with temp, whose name lets it be removed with the other leftovers.
func (v *volume) renameOver(temp, name string) error {
	info, err := v.root.Lstat(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err != nil || !info.IsDir() {
		return v.renameLink(temp, name)
	}
	return v.exchange(temp, name)
}

// exchangeByRename is for systems that cannot exchange two names at once: for the time between two renames name is missing.
func (v *volume) exchangeByRename(temp, name string) error {
	aside := newName()
	if err := v.root.Rename(name, aside); err != nil {
		return err
	}
	if err := v.root.Rename(temp, name); err != nil {
		return errors.Join(err, v.root.Rename(aside, name))
	}
	return v.root.Rename(aside, temp)
}
