package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"keymount/internal/provider"
)

// Folder makes volumes of plain folders, without root, on every system. What is in them is on whatever disk the folder is on.
// The zero value is ready to use.
type Folder struct{}

// Mount makes target a folder that only its owner can enter (0700). An existing folder is taken if it is empty or already a
// volume, belongs to the user of this process and is no symbolic link; what it holds otherwise is named in the error, of the kind Invalid.
func (Folder) Mount(target string) error {
	target = filepath.Clean(target)
	info, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(target, 0o700); err != nil {
			return fmt.Errorf("making folder: %w", err)
		}
		info, err = os.Lstat(target)
	}
	if err != nil {
		return fmt.Errorf("inspecting folder: %w", err)
	}
	if !info.IsDir() {
		return refuseTarget(target, "is a "+kindOf(info.Mode())+", not a folder", "name a folder that is empty or does not exist")
	}
	if uid, other := ownedByOther(info); other {
		return refuseTarget(target, fmt.Sprintf("belongs to user %d, who could read what is written there", uid), "name a folder of your own")
	}
	v, err := openVolume(target)
	if err != nil {
		return err
	}
	defer v.close()
	foreign, err := v.foreignNames()
	if err != nil {
		return err
	}
	if len(foreign) > 0 {
		return refuseTarget(target, "holds "+strings.Join(foreign, ", ")+", which is not part of a volume", "name a folder that is empty or does not exist")
	}
	if unixModes && info.Mode().Perm() != 0o700 {
		if err := v.root.Chmod(".", 0o700); err != nil {
			return fmt.Errorf("making folder private: %w", err)
		}
	}
	return nil
}

func refuseTarget(target, why, remedy string) error {
	return &provider.Error{Kind: provider.Invalid, Message: fmt.Sprintf("folder %s %s", target, why), Remedy: remedy}
}

// foreignNames returns the first names in the folder that are not of the layout, quoted.
func (v *volume) foreignNames() ([]string, error) {
	const most = 5
	var foreign []string
	err := v.list(".", func(name string) error {
		if name == dataLink || name == dataTemp || generationName.MatchString(name) || v.isOwnLink(name) {
			return nil
		}
		if len(foreign) == most {
			foreign = append(foreign, "and more")
			return errEnough
		}
		foreign = append(foreign, quote(name))
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return nil, fmt.Errorf("listing folder: %w", err)
	}
	return foreign, nil
}

// Unmount removes the volume and then the folder. What is not of the layout stays, is named in the error, and keeps the folder. Absent
// is fine.
func (Folder) Unmount(target string) error {
	target = filepath.Clean(target)
	v, err := openVolume(target)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer v.close()
	unlock, err := v.lockOut()
	if err != nil {
		return err
	}
	defer unlock()
	if err := v.erase(); err != nil {
		return err
	}
	foreign, err := v.foreignNames()
	if err != nil {
		return err
	}
	if len(foreign) > 0 {
		return refuseTarget(target, "still holds "+strings.Join(foreign, ", "), "move or remove them, and then the folder")
	}
	if err := os.Remove(target); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing folder: %w", err)
	}
	return nil
}

// erase removes every generation and every link of the layout, and nothing else. ..data goes first, so that a reader finds
// the whole volume or none.
func (v *volume) erase() error {
	current, err := v.current()
	if err != nil {
		return err
	}
	if err := v.removeTree(dataLink); err != nil {
		return fmt.Errorf("removing ..data: %w", err)
	}
	if current != "" {
		err = v.removeTree(current)
	}
	return errors.Join(err, v.removeStale("", noName))
}

// Inspect says whether target is a volume. An error is a target that cannot be inspected, or is no folder.
func (Folder) Inspect(target string) (Status, error) {
	target = filepath.Clean(target)
	info, err := os.Lstat(target)
	if errors.Is(err, fs.ErrNotExist) {
		return Status{State: Absent}, nil
	}
	if err != nil {
		return Status{}, fmt.Errorf("inspecting folder: %w", err)
	}
	if !info.IsDir() {
		return Status{}, refuseTarget(target, "is a "+kindOf(info.Mode())+", not a folder", "name a folder")
	}
	generation, err := generationOf(target)
	if err != nil {
		return Status{}, err
	}
	status := Status{State: NotMounted, Device: deviceOf(info), Generation: generation}
	if generation != "" {
		status.State = Mounted
	}
	return status, nil
}
