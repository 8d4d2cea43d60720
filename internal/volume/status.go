package volume

// A State says what is at a target.
type State int

const (
	// Absent: there is nothing.
	Absent State = iota
	// NotMounted: there is a folder, but no volume. For Folder: it holds no generation.
	NotMounted
	// Mounted: there is a volume, ours or one that upstream's driver made. For Tmpfs: a tmpfs is mounted. For Folder: it
	// holds a generation.
	Mounted
	// Foreign: something else than a tmpfs is mounted there. Tmpfs only.
	Foreign
)

// String returns the state as a word for logs.
func (s State) String() string {
	switch s {
	case Absent:
		return "absent"
	case NotMounted:
		return "not mounted"
	case Mounted:
		return "mounted"
	case Foreign:
		return "foreign mount"
	}
	return "unknown"
}

// A Status is what a target really is, as the system tells it; no file's time and no record is believed.
type Status struct {
	State State
	// Device identifies the file system while it is mounted, as in stat(2); numbers are used again after an unmount. 0 where the
	// system has none.
	Device uint64
	// Bytes is the memory that a mounted tmpfs uses, contents of all generations and of whoever else writes there. 0 where the
	// system does not tell.
	Bytes int64
	// Generation is the folder that ..data resolves to, "" if it resolves to none.
	Generation string
}

// generationOf returns the current generation of the volume at target.
func generationOf(target string) (string, error) {
	v, err := openVolume(target)
	if err != nil {
		return "", err
	}
	defer v.close()
	return v.current()
}
